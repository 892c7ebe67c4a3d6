//! The control plane: watch, compile, publish, provision, acknowledge, report.
//!
//! [`watch`] → [`state`] → [`controller`] (the loop) → `routing::compile` → [`publish`] (slices, [`credentials`], head),
//! [`provision`] (pods and what they need), [`acknowledge`] and [`programmed`] (who holds what),
//! [`reachable`] (which trunks answer), [`startup`] (why pods don't come up), [`scaling`] and
//! [`scale`] (how many there are) → [`status`], [`reports`],
//! [`events`]. [`collect`] deletes what is useless. [`leader`] says which replica writes.

pub mod acknowledge;
pub mod api;
pub mod attempts;
pub mod collect;
pub mod controller;
pub mod credentials;
pub mod events;
pub mod fleet;
pub mod leader;
pub mod metrics;
pub mod names;
pub mod programmed;
pub mod provision;
pub mod publish;
pub mod reachable;
pub mod reports;
pub mod scale;
pub mod scaling;
pub mod secrets;
pub mod serve;
pub mod spans;
pub mod startup;
pub mod state;
pub mod status;
pub mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{mpsc, watch as channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::routing::table::ObjectKey;
use crate::telemetry::{self, LogArgs, TelemetryError};

use self::controller::{Controller, Settings};
use self::events::Events;
use self::leader::{Elector, Timing};
use self::metrics::Metrics;
use self::watch::Watches;

/// Changes that wait for the loop; watches wait when it is full.
const WAITING: usize = 1024;

/// The command line of `voicedock operator`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Namespace of the operator: its lease, and the default gateway unless --default-gateway says otherwise
    #[arg(long, env = "POD_NAMESPACE", default_value = "voicedock-system")]
    pub namespace: String,
    /// Watch only this namespace; all when left out
    #[arg(long, env = "VOICEDOCK_WATCH_NAMESPACE")]
    pub watch_namespace: Option<String>,
    /// The gateway of PhoneNumbers that name none, `namespace/name`; `default` in --namespace when left out
    #[arg(long, env = "VOICEDOCK_DEFAULT_GATEWAY", value_name = "NAMESPACE/NAME")]
    pub default_gateway: Option<ObjectKey>,
    /// Image of the gateway pods: the operator's own
    #[arg(long, env = "VOICEDOCK_IMAGE")]
    pub image: String,
    /// When nodes pull that image: Always, IfNotPresent or Never; Kubernetes decides when left out
    #[arg(long, env = "VOICEDOCK_IMAGE_PULL_POLICY")]
    pub image_pull_policy: Option<String>,
    /// Secrets with the credentials of that image's registry: each has to be in the namespace of every gateway; separated by
    /// commas, or given more than once
    #[arg(
        long = "image-pull-secret",
        env = "VOICEDOCK_IMAGE_PULL_SECRETS",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub image_pull_secrets: Vec<String>,
    /// Name of this replica in the lease, unique among replicas
    #[arg(long, env = "POD_NAME")]
    pub identity: String,
    /// Name of the lease
    #[arg(long, default_value = "voicedock-operator")]
    pub lease_name: String,
    /// Seconds that a lease holds without renewal
    #[arg(long, default_value = "8", value_parser = seconds)]
    pub lease_duration_seconds: Duration,
    /// Seconds after which a leader that can't renew stops writing; less than the lease duration
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub lease_renew_deadline_seconds: Duration,
    /// Seconds between two renewals
    #[arg(long, default_value = "2", value_parser = seconds)]
    pub lease_retry_seconds: Duration,
    /// Seconds that a slice is kept after the last table that names it
    #[arg(long, default_value = "60", value_parser = seconds)]
    pub collect_after_seconds: Duration,
    /// Seconds for which fewer pods of a gateway with autoscaling must have been enough before some are removed; 0 to 3600
    #[arg(long, env = "VOICEDOCK_SCALE_DOWN_AFTER_SECONDS", default_value = "300", value_parser = window)]
    pub scale_down_after_seconds: Duration,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, default_value = "[::]:8080")]
    pub http: SocketAddr,
    /// How logs are written
    #[command(flatten)]
    pub log: LogArgs,
}

/// Why the operator can't run. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Logs can't be written.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The timings contradict each other.
    #[error("{0}")]
    Timing(String),
    /// The address is taken or not ours.
    #[error("{address} can't be listened on: {source}; give another one with --http")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// There is no way to the API server.
    #[error("there is no way to the API server: {0}; run it in a cluster or set KUBECONFIG")]
    Config(Box<dyn std::error::Error + Send + Sync>),
}

/// Runs the operator in the cluster that the environment names, until SIGTERM or SIGINT.
pub async fn run(args: Args) -> Result<(), OperatorError> {
    let _logs = telemetry::init(args.log)?;
    let spans = crate::spans::init("operator");
    let client = Client::try_default().await.map_err(|error| OperatorError::Config(error.into()))?;
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    tokio::spawn(async move {
        let signal = terminated().await;
        info!("{signal}: the operator ends");
        signalled.cancel();
    });
    let ended = run_until(args, client, stop).await;
    spans.flush().await;
    ended
}

/// Runs the operator until `stop`: then it writes nothing more, gives its lease back and returns.
pub async fn run_until(args: Args, client: Client, stop: CancellationToken) -> Result<(), OperatorError> {
    let timing = Timing {
        duration: args.lease_duration_seconds,
        give_up: args.lease_renew_deadline_seconds,
        renew: args.lease_retry_seconds,
    };
    timing.check().map_err(OperatorError::Timing)?;
    let default_gateway =
        args.default_gateway.clone().unwrap_or_else(|| ObjectKey::new(args.namespace.clone(), "default"));

    let metrics = Arc::new(Metrics::new(crate::metrics::Metrics::new()));
    let synced = serve::Synced::default();
    let tasks = TaskTracker::new();
    let listener = serve::bind(args.http)
        .await
        .map_err(|source| OperatorError::Listen { address: args.http, source })?;
    tasks.spawn(serve::serve(listener, metrics.clone(), synced.clone(), stop.clone()));

    let (changes, changed) = mpsc::channel(WAITING);
    let (ask_anew, rounds) = channel::channel(0);
    let watches = Watches {
        client: client.clone(),
        namespace: args.watch_namespace.clone(),
        changes,
        rounds,
        metrics: metrics.clone(),
        stop: stop.clone(),
    };
    let anew = (ask_anew, watches.inputs());
    watches.start(&tasks);

    let (terms, term) = channel::channel(None);
    let lost = CancellationToken::new();
    let elector = Elector::new(client.clone(), &args.namespace, &args.lease_name, &args.identity, timing);
    let election = tasks.spawn(elector.run(terms, lost.clone()));

    let events = Events::start(client.clone(), &args.identity, metrics.clone(), stop.clone());
    let image = provision::Image {
        name: args.image,
        pull_policy: args.image_pull_policy,
        pull_secrets: args.image_pull_secrets,
        tracing: crate::spans::handed_on(std::env::vars()),
    };
    let settings = Settings {
        image,
        grace: args.collect_after_seconds,
        scale_window: args.scale_down_after_seconds,
        default_gateway,
    };
    Controller::new(client, settings, metrics, synced, events, anew).run(changed, term, stop).await;

    // Nothing is written any more: another replica may begin.
    lost.cancel();
    let _ = election.await;
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Waits until the process is told to end; returns by which signal.
pub(crate) async fn terminated() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        },
        // Without handlers the default action ends the process.
        _ => std::future::pending().await,
    }
}

/// The time for which fewer pods must have been enough, with the bound that a HorizontalPodAutoscaler has.
fn window(text: &str) -> Result<Duration, String> {
    let longest = scale::LONGEST_WINDOW;
    let window = seconds(text)?;
    if window <= longest { Ok(window) } else { Err(format!("'{text}' is more than {} s", longest.as_secs())) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a number of seconds such as 8 or 0.5");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}
