//! A double of OpenAI's Realtime API over SIP: for the demo, and for tests that no account is needed for.
//!
//! ```text
//! script (what it does with a call)      ┐
//! session, events, schema (what it takes) ├─▶ conversation (pure) ─▶ switchboard (owns the calls) ─▶ journal
//! webhook (signed events out)            ┘                              ▲
//! rest (the four verbs, WebSockets) ─────────────────────────────────────┘
//! ```
//!
//! Written from the public reference. It is strict: what the real API refuses is refused here and noted as wrong
//! ([`Journal::wrong`]). By default it has the real one's worst habits: an INVITE is answered once it is accepted, without
//! a Content-Type, with a Contact that leads nowhere; a call that nobody accepts in time is refused with 400. No audio is sent.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::phone::Phone;
use super::report::{Form, Report};
use super::{SimulateError, told_to_stop};
use switchboard::{Order, Switchboard};
use webhook::Webhook;

mod conversation;
mod events;
mod journal;
mod rest;
mod schema;
pub mod script;
mod session;
mod switchboard;
mod webhook;

pub use journal::{Entry, Journal, NotSeen, What};
pub use script::{Script, ScriptError, Step};
pub use webhook::{WebhookTarget, sign};

/// Requests that may wait to be looked at.
const QUEUE: usize = 1024;

/// The command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where SIP is heard, over TLS
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:5061")]
    pub listen: SocketAddr,
    /// Where HTTP is heard: REST and WebSockets
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    pub http: SocketAddr,
    /// The host that session descriptions name [default: this machine's own address]
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// The directory with its certificate and key: tls.crt and tls.key
    #[arg(long, value_name = "DIRECTORY")]
    pub tls: PathBuf,
    /// HTTP without TLS
    #[arg(long)]
    pub plain_http: bool,
    /// The project that is called: the user part of its SIP URI
    #[arg(long, value_name = "PROJECT", default_value = "proj_demo")]
    pub project: String,
    /// The key that is asked for
    #[arg(long, value_name = "KEY", env = "VOICEDOCK_SIMULATE_API_KEY", hide_env_values = true)]
    pub api_key: String,
    /// The URL that is told of calls
    #[arg(long, value_name = "URL")]
    pub webhook: Option<String>,
    /// The secret by which that is signed
    #[arg(
        long,
        value_name = "SECRET",
        env = "VOICEDOCK_SIMULATE_WEBHOOK_SECRET",
        hide_env_values = true,
        default_value = ""
    )]
    pub webhook_secret: String,
    /// Those who vouch for the webhook's certificate, PEM [default: public authorities]
    #[arg(long, value_name = "FILE")]
    pub webhook_authorities: Option<PathBuf>,
    /// What happens to calls, YAML or JSON
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
}

/// What a double is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where SIP over TLS is heard; port 0: any.
    pub sip: SocketAddr,
    /// Where HTTP is heard; port 0: any.
    pub http: SocketAddr,
    /// The host that session descriptions name; this machine's own address if not given.
    pub advertise: Option<String>,
    /// What it shows to those who connect.
    pub identity: Identity,
    /// HTTP without TLS.
    pub plain_http: bool,
    /// The project that is called.
    pub project: String,
    /// The key that is asked for.
    pub api_key: String,
    /// Where events go.
    pub webhook: WebhookTarget,
    /// What it does with its calls.
    pub script: Script,
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// With those that vouch for it.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// A double that runs. It ends when this is dropped.
pub struct Double {
    sip: SocketAddr,
    base_url: String,
    journal: Journal,
    orders: mpsc::UnboundedSender<Order>,
    calls: AbortOnDropHandle<Result<(), SimulateError>>,
    _http: AbortOnDropHandle<()>,
}

impl Double {
    /// Starts one that keeps what happens in its journal.
    pub async fn start(config: Config) -> Result<Self, SimulateError> {
        Self::reporting(config, None).await
    }

    async fn reporting(config: Config, report: Option<Report>) -> Result<Self, SimulateError> {
        let tls = config.identity.server_config()?;
        let webhook = Webhook::new(&config.webhook)?;
        let phone = Phone::listen_secured(config.sip, config.advertise, Arc::clone(&tls)).await?;
        let cannot = |error| SimulateError::Listen(config.http, error);
        let listener = TcpListener::bind(config.http).await.map_err(cannot)?;
        let http = listener.local_addr().map_err(cannot)?;
        let sip = SocketAddr::new(config.sip.ip(), phone.local().port);
        let (secured, scheme) = if config.plain_http { (None, "http") } else { (Some(tls), "https") };
        let base_url = format!("{scheme}://{http}/v1");
        let journal = Journal::new(report);
        journal.add("", "", What::Ready { sip, base_url: base_url.clone() });
        let (orders, ordered) = mpsc::unbounded_channel();
        let (asked, questions) = mpsc::channel(QUEUE);
        let switchboard =
            Switchboard::new(phone, journal.clone(), config.project, config.api_key, webhook, config.script);
        let calls: JoinHandle<_> = tokio::spawn(switchboard.run(questions, ordered));
        let http_task = tokio::spawn(rest::serve(listener, secured, asked));
        Ok(Self {
            sip,
            base_url,
            journal,
            orders,
            calls: AbortOnDropHandle::new(calls),
            _http: AbortOnDropHandle::new(http_task),
        })
    }

    /// Where SIP over TLS is heard.
    pub fn sip(&self) -> SocketAddr {
        self.sip
    }

    /// `https://127.0.0.1:8443/v1`
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// What happened.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Where events about calls go from now on.
    pub fn set_webhook_url(&self, url: impl Into<String>) {
        self.order(Order::WebhookUrl(url.into()));
    }

    /// What happens to calls that come from now on.
    pub fn set_script(&self, script: Script) {
        self.order(Order::Script(Box::new(script)));
    }

    /// The key that is asked for from now on.
    pub fn set_api_key(&self, key: impl Into<String>) {
        self.order(Order::ApiKey(key.into()));
    }

    /// One more thing that happens in a call, as soon as its script waits for nothing else.
    pub fn act(&self, call: &str, step: Step) {
        self.order(Order::Act(call.to_owned(), Box::new(step)));
    }

    /// Hangs up every call.
    pub async fn stop(self) -> Result<(), SimulateError> {
        self.order(Order::Stop);
        self.ended().await
    }

    /// Ends when the double does.
    async fn ended(self) -> Result<(), SimulateError> {
        // A task that nobody ends ends by itself.
        self.calls.await.unwrap_or(Ok(()))
    }

    fn order(&self, order: Order) {
        // One that has ended by an error says so at its end.
        let _ = self.orders.send(order);
    }
}

impl Identity {
    fn server_config(&self) -> Result<Arc<ServerConfig>, SimulateError> {
        let unusable = |why: String| SimulateError::Certificate("the double's certificate", why);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.certificate.as_bytes()).collect();
        let chain = chain.map_err(|error| unusable(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes());
        let key = key.map_err(|error| unusable(error.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        Ok(Arc::new(config.map_err(|error| unusable(error.to_string()))?))
    }
}

/// Plays the part until the process is told to stop.
pub async fn run(args: Args) -> Result<(), SimulateError> {
    let read =
        |path: PathBuf| std::fs::read_to_string(&path).map_err(|source| SimulateError::File { path, source });
    let script = match args.script {
        Some(path) => Script::parse(&read(path)?)?,
        None => Script::default(),
    };
    let config = Config {
        sip: args.listen,
        http: args.http,
        advertise: args.advertise,
        identity: Identity {
            certificate: read(args.tls.join("tls.crt"))?,
            key: read(args.tls.join("tls.key"))?,
        },
        plain_http: args.plain_http,
        project: args.project,
        api_key: args.api_key,
        webhook: WebhookTarget {
            url: args.webhook,
            secret: args.webhook_secret,
            authorities: args.webhook_authorities.map(read).transpose()?,
        },
        script,
    };
    let double = Double::reporting(config, Some(Report::new(Form::printed(args.json)))).await?;
    let orders = double.orders.clone();
    let mut ended = std::pin::pin!(double.ended());
    tokio::select! {
        ended = ended.as_mut() => return ended,
        told = told_to_stop() => told?,
    }
    // One that has ended meanwhile says so.
    let _ = orders.send(Order::Stop);
    ended.await
}
