//! A gateway process from its start to its end: the parts of this module, wired together.
//!
//! ```text
//! start ─▶ disk copy or API server: first table ─▶ sockets bound: ready ─▶ … ─▶ SIGTERM ─▶ drain ─▶ last call gone ─▶ exit 0
//! ```
//!
//! Nothing but its own end cuts calls: a second SIGTERM changes nothing, and if a part of the control side fails, the
//! process drains as if it had been told to stop, then exits with an error and is started again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use arc_swap::ArcSwap;
use kube::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::acknowledge::{self, OwnLease, Sources};
use super::calls::Calls;
use super::config::{Args, Config, ConfigError};
use super::control::CallControl;
use super::disk::Disk;
use super::metrics::GatewayMetrics;
use super::openai::OpenAi;
use super::peers;
use super::plane::{self, PlaneConfig};
use super::resolve::Resolver;
use super::table::{self, Holder, Source};
use crate::http::forward::Forwarder;
use crate::http::health::Phase;
use crate::http::idempotency::Answers;
use crate::http::keys::Keys;
use crate::http::{self, Http, server};
use crate::metrics::Metrics;
use crate::routing::ack::TrunkReports;
use crate::telemetry::{self, TelemetryError};

/// How long new calls are still taken after SIGTERM: until every node knows that this pod goes, they arrive here, and to
/// refuse them would fail calls that nobody else has been offered.
const LAME_DUCK: Duration = Duration::from_secs(5);
/// How long connecting to the API server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long HTTP requests that are under way at the end may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// Why a gateway process ended.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The settings don't fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Logs can't be written.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// There is no way to an API server.
    #[error(
        "no API server is configured: {0}; run the gateway in a pod with a ServiceAccount, or set KUBECONFIG"
    )]
    NoApiServer(String),
    /// Signals can't be heard.
    #[error("signals can't be heard: {0}")]
    Signals(io::Error),
    /// The HTTP port is taken, most likely.
    #[error("HTTP can't be heard on {0}: {1}; set VOICEDOCK_HTTP to a free address")]
    Http(SocketAddr, io::Error),
    /// A SIP port is taken, most likely.
    #[error("SIP can't be heard: {0}; set VOICEDOCK_LISTENERS to free ports")]
    Sip(io::Error),
    /// A bug of ours.
    #[error(
        "{0} ended, which it never should; the calls that there were were let end first; please report it"
    )]
    PartEnded(&'static str),
}

/// Runs a gateway until it is told to stop and its last call is gone.
pub async fn run(args: Args) -> Result<(), GatewayError> {
    let _logs = telemetry::init(args.log)?;
    let spans = crate::spans::init("gateway");
    let processors = available_parallelism().map_or(1, usize::from);
    let config = Config::new(args, processors)?;
    let mut signals = Signals::new().map_err(GatewayError::Signals)?;
    let client = client().await?;
    let metrics = Metrics::new();
    let counters = GatewayMetrics::new(&metrics);

    let disk = Disk::new(&config.state, format!("{}/{}", config.pod.namespace, config.gateway));
    let holder = Holder::load(disk, counters.clone());
    let (snapshot, mut table) = (holder.snapshot(), holder.state());
    let openai = OpenAi::new(Arc::clone(&snapshot), &metrics);
    let peers = Arc::new(ArcSwap::default());
    let calls = Arc::new(Calls::new(config.shards));
    let (control, commands) = CallControl::new(config.pod.instance, config.shards, Arc::clone(&calls));
    let (phase, phases) = watch::channel(Phase::WaitingForTable);
    let (draining, drains) = watch::channel(false);
    let (trunks, found) = watch::channel(TrunkReports::new());
    let lease = Arc::<OwnLease>::default();
    let stop_http = CancellationToken::new();

    let http = Http {
        control,
        openai: Arc::clone(&openai),
        peers: Arc::clone(&peers),
        forwarder: Forwarder::default(),
        answers: Answers::default(),
        keys: Arc::new(Keys::new(&config.api_keys)),
        phase: phases,
        metrics: metrics.clone(),
        counters: counters.clone(),
    };
    let listener = TcpListener::bind(config.http).await;
    let listener = listener.map_err(|error| GatewayError::Http(config.http, error))?;
    let source = Source {
        client: client.clone(),
        namespace: config.pod.namespace.clone(),
        gateway: config.gateway.clone(),
        confirm_every: table::CONFIRM_EVERY,
    };
    let sources = Sources {
        table: table.clone(),
        draining: drains.clone(),
        calls: Arc::clone(&calls),
        trunks: found,
        lease: Arc::clone(&lease),
    };
    let mut parts = Parts::default();
    parts.spawn("the HTTP server", server::serve(listener, http::router(http), stop_http.clone()));
    parts.spawn("the table's subscription", table::subscribe(source, holder));
    parts.spawn(
        "the acknowledgement",
        acknowledge::acknowledge(client.clone(), config.clone(), sources, counters.clone()),
    );
    parts.spawn(
        "the watch on peers",
        peers::watch(client.clone(), config.clone(), Arc::clone(&peers), lease, counters),
    );

    let outcome = serve(Serving {
        config: &config,
        table: &mut table,
        phase,
        draining,
        signals: &mut signals,
        parts: &mut parts,
        plane: PlaneConfig {
            ip: config.pod.ip,
            listeners: config.listeners.clone(),
            certificates: config.certificates.clone(),
            instance: config.pod.instance,
            max_calls: config.max_calls,
            rates: config.rates,
            event_networks: config.event_networks.clone(),
            realm: format!("{}.{}.voicedock.dev", config.gateway, config.pod.namespace),
            max_calls_per_second: config.max_calls_per_second,
            snapshot,
            openai,
            resolver: Resolver::from_system(config.pod.ip),
            peers,
            calls,
            control: commands,
            draining: drains,
            trunks,
            metrics,
        },
    })
    .await;

    // HTTP first, the only part that ends when told: whoever asked for the last thing is answered.
    stop_http.cancel();
    let _ = tokio::time::timeout(FAREWELL, parts.ended()).await;
    parts.stop().await;
    spans.flush().await;
    tracing::info!("gateway pod {} ends", config.pod.name);
    outcome
}

/// What [`serve`] works with.
struct Serving<'a> {
    config: &'a Config,
    table: &'a mut watch::Receiver<table::TableState>,
    phase: watch::Sender<Phase>,
    draining: watch::Sender<bool>,
    signals: &'a mut Signals,
    parts: &'a mut Parts,
    plane: PlaneConfig,
}

/// From the first table to the last call.
async fn serve(serving: Serving<'_>) -> Result<(), GatewayError> {
    let Serving { config, table, phase, draining, signals, parts, plane } = serving;
    tokio::select! {
        Ok(_) = table.wait_for(|table| table.held.is_some()) => {}
        () = signals.stop() => return Ok(()),
        part = parts.ended() => return Err(GatewayError::PartEnded(part)),
    }
    phase.send_replace(Phase::Starting);
    let plane = plane::start(plane).await.map_err(GatewayError::Sip)?;
    phase.send_replace(Phase::Serving);
    for listener in &config.listeners {
        let (bind, advertise) = (listener.bind, &listener.advertise);
        tracing::info!("SIP is heard on {:?} {bind}, advertised as {advertise}", listener.transport);
    }

    let outcome = tokio::select! {
        () = signals.stop() => Ok(()),
        part = parts.ended() => Err(GatewayError::PartEnded(part)),
    };
    if let Err(error) = &outcome {
        tracing::error!("{error}");
    }
    tracing::info!(calls = plane.live_calls(), "draining: the process ends with its last call");
    draining.send_replace(true);
    phase.send_replace(Phase::Draining);
    let drained = async {
        tokio::time::sleep(LAME_DUCK.min(config.drain)).await;
        plane.drain();
        plane.drained(config.drain.saturating_sub(LAME_DUCK)).await;
    };
    let mut drained = std::pin::pin!(drained);
    loop {
        tokio::select! {
            () = &mut drained => return outcome,
            () = signals.stop() => {
                tracing::info!(calls = plane.live_calls(), "told to stop again; still waiting for the last call");
            }
        }
    }
}

async fn client() -> Result<Client, GatewayError> {
    let no_server = |error: &dyn std::fmt::Display| GatewayError::NoApiServer(error.to_string());
    let mut config = kube::Config::infer().await.map_err(|error| no_server(&error))?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Client::try_from(config).map_err(|error| no_server(&error))
}

/// SIGTERM and SIGINT. From the first [`Signals::new`] on neither ends the process by itself.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next time that the process is told to stop.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The parts of the control side: tasks that run as long as the process.
#[derive(Default)]
struct Parts {
    tasks: JoinSet<&'static str>,
    names: Vec<(tokio::task::Id, &'static str)>,
}

impl Parts {
    fn spawn(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(async move {
            part.await;
            name
        });
        self.names.push((task.id(), name));
    }

    /// The first part that ended, by a panic most likely.
    async fn ended(&mut self) -> &'static str {
        match self.tasks.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(error)) => {
                let found = self.names.iter().find(|(id, _)| *id == error.id());
                found.map_or("a part of the control side", |(_, name)| name)
            }
            None => std::future::pending().await,
        }
    }

    /// Ends all of them.
    async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}
