//! The product's REST API over a cluster: assistants, numbers and trunks as custom resources, calls of every gateway.
//!
//! | path | answers |
//! |---|---|
//! | `GET POST /api/v1/assistants`, `GET PATCH DELETE …/{id}` | Assistants |
//! | `GET POST /api/v1/numbers`, `GET PATCH DELETE …/{id}` | PhoneNumbers |
//! | `GET POST /api/v1/sip-trunks`, `GET DELETE …/{id}` | SipTrunks; a password becomes a Secret and is in no answer |
//! | `GET /api/v1/calls`, `GET …/{id}`, `POST …/{id}/control` | calls, wherever they are: asked for at gateway pods |
//! | `POST /api/v1/traces`, `GET DELETE …/{id}` | what a call says on the wire, redacted, for a while |
//! | `POST /api/v1/calls/test-destination` | dials a destination once, from a gateway pod |
//! | `POST /webhooks/openai` | passed on to the gateway pod that it is about, which checks the signature |
//! | `GET /api/v1/openapi.json` | all of this as OpenAPI 3.1, without a key |
//! | `GET /api/v1/health` | 200, without a key |
//!
//! A key ([`keys`]) belongs to one namespace; nothing of another namespace is ever seen or changed with it. Ids are names of
//! resources. Reads are answered from [`cache`]s that watches keep current; writes go to the API server by server-side apply
//! ([`store`]), with a field manager of their own: what another manager owns is not changed (409, with the manager's name).
//!
//! The process keeps nothing: any number of replicas answer alike. One that has written something shows it from then on; the
//! others follow as fast as their watches, which is milliseconds.

pub mod cache;
pub mod call_command;
pub mod calls;
pub mod errors;
pub mod gateways;
pub mod key_command;
pub mod keys;
pub mod metrics;
pub mod objects;
pub mod openapi;
pub mod ownership;
pub mod rate;
pub mod router;
pub mod scopes;
pub mod secrets;
pub mod shapes;
pub mod store;
pub mod trace_command;
pub mod traces;
pub mod trunks;
pub mod watch;
pub mod webhooks;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::http::server;
use crate::metrics::Metrics;
use crate::routing::table::ObjectKey;
use crate::telemetry::{self, LogArgs, TelemetryError};

use self::router::{Only, Service};

/// How long requests are still taken after SIGTERM: until every node knows that this pod goes, they arrive here.
const LAME_DUCK: Duration = Duration::from_secs(5);

/// The command line of `voicedock api`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Serve only this namespace; all when left out
    #[arg(long, env = "VOICEDOCK_WATCH_NAMESPACE")]
    pub watch_namespace: Option<String>,
    /// Ask only gateways of this namespace for calls; those of all when left out
    #[arg(long, env = "VOICEDOCK_GATEWAY_NAMESPACE")]
    pub gateway_namespace: Option<String>,
    /// The gateway of PhoneNumbers that name none, `namespace/name`: that of the operator
    #[arg(long, env = "VOICEDOCK_DEFAULT_GATEWAY", value_name = "NAMESPACE/NAME")]
    pub default_gateway: Option<ObjectKey>,
    /// Address of the API
    #[arg(long, env = "VOICEDOCK_HTTP", default_value = "[::]:8080")]
    pub http: SocketAddr,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, env = "VOICEDOCK_ADMIN", default_value = "[::]:8081")]
    pub admin: SocketAddr,
    /// Requests a second that one key may make at one replica, as many again at once; more get 429. 0: any number
    #[arg(long, env = "VOICEDOCK_KEY_RATE", value_name = "N", default_value_t = 100)]
    pub key_rate: u32,
    /// How logs are written
    #[command(flatten)]
    pub log: LogArgs,
}

/// Why the API can't run. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ApiRoleError {
    /// Logs can't be written.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The address is taken or not ours.
    #[error("{address} can't be listened on: {source}; give another one with {flag}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        flag: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// There is no way to the API server.
    #[error("there is no way to the API server: {0}; run it in a cluster or set KUBECONFIG")]
    Config(Box<dyn std::error::Error + Send + Sync>),
}

/// Runs the API in the cluster that the environment names, until SIGTERM or SIGINT.
pub async fn run(args: Args) -> Result<(), ApiRoleError> {
    let _logs = telemetry::init(args.log)?;
    let spans = crate::spans::init("api");
    let client = Client::try_default().await.map_err(|error| ApiRoleError::Config(error.into()))?;
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    tokio::spawn(async move {
        let signal = crate::operator::terminated().await;
        info!("{signal}: the API ends in {} s", LAME_DUCK.as_secs());
        signalled.cancel();
    });
    let ended = run_until(args, client, stop, LAME_DUCK).await;
    spans.flush().await;
    ended
}

/// Runs the API until `stop`, and requests are taken for `lame_duck` after that.
pub async fn run_until(
    args: Args,
    client: Client,
    stop: CancellationToken,
    lame_duck: Duration,
) -> Result<(), ApiRoleError> {
    let http = listen(args.http, "--http").await?;
    let admin = listen(args.admin, "--admin").await?;
    let (tasks, end) = (TaskTracker::new(), CancellationToken::new());
    let metrics = Metrics::new();
    let service = Service::new(client, args.default_gateway, NonZeroU32::new(args.key_rate), &metrics);
    let only = Only { objects: args.watch_namespace.as_deref(), gateways: args.gateway_namespace.as_deref() };
    service.start(&tasks, only, end.clone());
    let probes = metrics::router(metrics, service.clone(), stop.clone());
    tasks.spawn(server::serve(admin, probes, end.clone()));
    tasks.spawn(server::serve(http, router::router(service), end.clone()));
    stop.cancelled().await;
    tokio::time::sleep(lame_duck).await;
    end.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(())
}

async fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, ApiRoleError> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| ApiRoleError::Listen { address, flag, source })?;
    info!("HTTP is heard on {}", listener.local_addr().unwrap_or(address));
    Ok(listener)
}
