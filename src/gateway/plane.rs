//! The data plane as the rest of the gateway sees it: what it is given, and how it is asked to drain.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::assistant_metrics::AssistantMetrics;
use super::call_id::Instance;
use super::calls::Calls;
use super::config::Listener;
use super::control::ControlRequest;
use super::events::Events;
use super::events::reach::Reach;
use super::events::way::Way;
use super::guard::{Guard, Rates};
use super::hook::Hooks;
use super::intake::Intake;
use super::lines::Lines;
use super::openai::OpenAi;
use super::peers::Peers;
use super::plane_metrics::PlaneMetrics;
use super::resolve::Resolver;
use super::shard::{Callers, Shard, ShardInput};
use super::snapshot::Snapshot;
use super::sockets::{self, PodAddress, SHARD_QUEUE, Sockets};
use super::tls::{TlsError, TlsPeers};
use super::trunks::{Keeper, KeeperConfig};
use crate::metrics::Metrics;
use crate::routing::ack::TrunkReports;
use crate::routing::table::SipTarget;
use crate::sip::endpoint::{Endpoint, EndpointConfig, LocalAddress, LocalAddresses};
use crate::sip::event::{Flow, TlsPeer, Transport};
use crate::sip::outside::Outside;

/// How often a drain looks whether the last call is gone.
const DRAIN_POLL: Duration = Duration::from_millis(100);
/// How long goodbyes are waited for once the last call is over: a BYE and its answer, with two repetitions (RFC 3261
/// §17.1.2). A peer that is gone for good doesn't hold the pod for longer.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long the events of the last calls are waited for.
const LAST_EVENTS: Duration = Duration::from_secs(5);
/// Destinations that a pod tests at the same time.
pub(super) const TESTS: usize = 4;
/// What User-Agent and Server say.
pub(super) const USER_AGENT: &str = concat!("VoiceDock/", env!("CARGO_PKG_VERSION"));

/// What the data plane is given. It runs from the first complete table on.
pub struct PlaneConfig {
    /// Sockets to bind and what to say about them.
    pub listeners: Vec<Listener>,
    /// Where the certificates of TLS listeners are.
    pub certificates: PathBuf,
    /// What Contacts and call ids carry.
    pub instance: Instance,
    /// The pod's own address.
    pub ip: IpAddr,
    /// Calls at the same time, over all shards; new ones beyond get 503.
    pub max_calls: usize,
    /// How much one source may begin.
    pub rates: Rates,
    /// What callers that must prove who they are see in their challenge: the same for all pods of a gateway.
    pub realm: String,
    /// New calls a second, over all shards; those that come faster get 503.
    pub max_calls_per_second: u32,
    /// What is routed by; loaded anew for every decision.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Agents over OpenAI.
    pub openai: Arc<OpenAi>,
    /// Where hosts are.
    pub resolver: Resolver,
    /// Networks that events may be sent to although they are not public.
    pub event_networks: Vec<IpNet>,
    /// Who gets the requests for calls of other pods.
    pub peers: Arc<ArcSwap<Peers>>,
    /// Where calls are shown.
    pub calls: Arc<Calls>,
    /// Commands, one receiver a shard: there are as many shards as receivers.
    pub control: Vec<mpsc::Receiver<ControlRequest>>,
    /// Whether the pod has been told to stop: then others keep its trunks, while its calls go on.
    pub draining: watch::Receiver<bool>,
    /// Where goes what it finds about the trunks that it keeps.
    pub trunks: watch::Sender<TrunkReports>,
    /// Where its metrics go.
    pub metrics: Metrics,
}

/// What shards share; read-only but for counters and flags.
pub(super) struct Shared {
    pub(super) sockets: Arc<Sockets>,
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) resolver: Resolver,
    pub(super) tls: Arc<TlsPeers>,
    pub(super) hooks: Hooks,
    pub(super) openai: Arc<OpenAi>,
    pub(super) events: Events,
    pub(super) calls: Arc<Calls>,
    /// Calls that were dialled.
    pub(super) lines: Arc<Lines>,
    /// Calls that came in, over trunks that have a limit for them.
    pub(super) arrivals: Arc<Lines>,
    pub(super) callers: Callers,
    pub(super) metrics: PlaneMetrics,
    pub(super) assistants: AssistantMetrics,
    pub(super) instance: Instance,
    pub(super) intake: Arc<Intake>,
    /// A permit for each destination that may be tested at the same time.
    pub(super) tests: Arc<Semaphore>,
    /// By shard: whether a peer is still owed something, such as the BYE that it hasn't answered.
    pub(super) owing: Box<[AtomicBool]>,
    /// The end of the plane.
    pub(super) closing: CancellationToken,
    addresses: LocalAddresses,
    /// The pod's own address.
    ip: IpAddr,
}

impl Shared {
    /// A way to a target, with who it leads to if it does so over TLS.
    pub(super) fn secured(&self, way: Flow, target: &SipTarget) -> Result<Flow, TlsError> {
        match way.transport {
            Transport::Tls(_) => {
                let peer = self.tls.of(target, &self.snapshot.load())?;
                Ok(Flow { transport: Transport::Tls(peer), ..way })
            }
            Transport::Udp | Transport::Tcp => Ok(way),
        }
    }

    /// Whether no other pod is reached at the address that this one tells peers for a transport: its own.
    pub(super) fn is_alone_at_its_address(&self, transport: Transport) -> bool {
        self.addresses.of(transport).host.parse::<IpAddr>().is_ok_and(|host| host == self.ip)
    }

    /// The host that identities in headers name for calls over `transport`.
    pub(super) fn advertised_host(&self, transport: Transport) -> String {
        let address = self.addresses.of(transport);
        if address.host.contains(':') { format!("[{}]", address.host) } else { address.host.clone() }
    }
}

/// A running data plane. Dropping it closes the sockets and forgets the calls.
pub struct Plane {
    shared: Arc<Shared>,
    shards: Vec<mpsc::Sender<ShardInput>>,
    _closing: DropGuard,
}

/// Binds the sockets and starts the shards.
pub async fn start(config: PlaneConfig) -> io::Result<Plane> {
    let metrics = PlaneMetrics::new(&config.metrics);
    let closing = CancellationToken::new();
    let bound = sockets::bind(&config.listeners, &config.certificates).await?;
    let inputs: Vec<_> = config.control.iter().map(|_| mpsc::channel::<ShardInput>(SHARD_QUEUE)).collect();
    let senders: Vec<_> = inputs.iter().map(|(sender, _)| sender.clone()).collect();
    let (keeper, kept) = mpsc::channel(SHARD_QUEUE);
    let tls = Arc::new(TlsPeers::default());
    let (peers, instance) = (Arc::clone(&config.peers), config.instance);
    let seed = rand::random();
    let snapshot = Arc::clone(&config.snapshot);
    let guard = Guard::new(config.rates, (instance, seed), snapshot, Arc::clone(&peers), metrics.clone());
    let intake = Arc::new(Intake::new(config.max_calls, config.max_calls_per_second));
    let pod = PodAddress {
        ip: config.ip,
        instance,
        peers,
        tls: Arc::clone(&tls),
        guard,
        intake: Arc::clone(&intake),
    };
    let sockets = Sockets::start(bound, senders.clone(), keeper, metrics.clone(), pod, closing.clone());
    let address = |transport| {
        let listener = config.listeners.iter().find(|listener| listener.transport == transport)?;
        Some(LocalAddress { host: listener.advertise.host.clone(), port: listener.advertise.port })
    };
    // A pod that doesn't listen on a transport still dials over it: peers answer on the connection that it opened.
    let own = |port| LocalAddress { host: config.ip.to_string(), port };
    let addresses = LocalAddresses {
        udp: address(Transport::Udp).unwrap_or_else(|| own(5060)),
        tcp: address(Transport::Tcp).unwrap_or_else(|| own(5060)),
        tls: address(Transport::Tls(TlsPeer::ANYBODY)).unwrap_or_else(|| own(5061)),
    };
    config.openai.attach(senders.clone());
    let way = Way::new(Reach { allowed: config.event_networks }).map_err(io::Error::other)?;
    let events = Events::start(way, Arc::clone(&config.snapshot), &config.metrics, closing.clone());
    let shared = Arc::new(Shared {
        sockets,
        snapshot: config.snapshot,
        resolver: config.resolver,
        tls,
        openai: config.openai,
        hooks: Hooks::new().map_err(io::Error::other)?,
        events,
        assistants: AssistantMetrics::new(&config.metrics),
        calls: config.calls,
        lines: Arc::default(),
        arrivals: Arc::default(),
        callers: Callers::new(config.realm),
        metrics,
        instance: config.instance,
        intake,
        tests: Arc::new(Semaphore::new(TESTS)),
        owing: config.control.iter().map(|_| AtomicBool::new(false)).collect(),
        closing: closing.clone(),
        addresses: addresses.clone(),
        ip: config.ip,
    });
    for (number, (input, control)) in inputs.into_iter().zip(config.control).enumerate() {
        // There are at most 256 shards: `gateway::config` sees to it.
        let number = u8::try_from(number).unwrap_or(u8::MAX);
        let endpoint = Endpoint::new(EndpointConfig {
            instance: config.instance.0,
            shard: number.into(),
            seed,
            local: addresses.clone(),
            user_agent: USER_AGENT.into(),
            // Calls are counted by the shard; this bounds what a flood of INVITEs can hold before it is refused.
            max_legs: config.max_calls.saturating_mul(4),
        });
        tokio::spawn(Shard::new(Arc::clone(&shared), number, endpoint, input, control).run());
    }
    let outside = Outside::new(config.instance.0, seed, addresses, USER_AGENT.into());
    let keeper = Keeper::new(KeeperConfig {
        shared: Arc::clone(&shared),
        peers: config.peers,
        draining: config.draining,
        reports: config.trunks,
        inputs: kept,
        outside,
    });
    tokio::spawn(keeper.run());
    Ok(Plane { shared, shards: senders, _closing: closing.drop_guard() })
}

impl Plane {
    /// From now on new calls are passed on to pods that take them, and refused if there is none; those that there are go
    /// on, transfers included.
    pub fn drain(&self) {
        self.shared.intake.drain();
    }

    /// Calls that are not over yet.
    pub fn live_calls(&self) -> usize {
        self.shared.intake.live()
    }

    /// Waits until the last call is over, at most for `deadline`; calls that are left then are told goodbye. Then waits
    /// for the last goodbyes: a BYE that is lost must be repeated, or its peer keeps a call with nobody.
    pub async fn drained(&self, deadline: Duration) {
        if tokio::time::timeout(deadline, until(|| self.live_calls() == 0)).await.is_err() {
            tracing::warn!(
                calls = self.live_calls(),
                "the time for draining is over; the calls that are left are ended"
            );
            for shard in &self.shards {
                let _ = shard.send(ShardInput::Cut).await;
            }
        }
        let said =
            || self.live_calls() == 0 && !self.shared.owing.iter().any(|owing| owing.load(Ordering::Acquire));
        if tokio::time::timeout(GOODBYE, until(said)).await.is_err() {
            tracing::info!("a peer did not answer its goodbye in time; it is not waited for");
        }
        let events = &self.shared.events;
        if tokio::time::timeout(LAST_EVENTS, until(|| events.waiting() == 0)).await.is_err() {
            tracing::warn!(
                events = events.waiting(),
                "events that could not be delivered in time are dropped"
            );
        }
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(DRAIN_POLL).await;
    }
}

#[cfg(test)]
mod tests;
