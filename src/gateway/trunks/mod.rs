//! Keeps the gateway's trunks: each is probed by one pod, its owner, and what that pod finds goes into its Lease. The thin
//! driver; when and what is decided in [`probe`], by whom in `routing::owner`.
//!
//! One task with its own SIP ([`Outside`]): calls never wait for it, and it never waits for calls. A pod that drains owns
//! nothing while another doesn't. A new owner begins with what the one before has found, so that a pod that comes or
//! goes changes no status; what a pod no longer keeps it goes on reporting until the new owner does.

mod probe;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use sipx_sip::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use self::probe::{Probe, ProbeResult};
use super::call_id::Instance;
use super::peers::Peers;
use super::plane::Shared;
use super::resolve::ResolveError;
use super::shard::ShardInput;
use super::snapshot::Snapshot;
use crate::routing::ack::{TrunkReport, TrunkReports};
use crate::routing::owner::owner;
use crate::routing::table::{ObjectKey, SipTarget, TrunkEntry};
use crate::routing::uri;
use crate::sip::event::Flow;
use crate::sip::outside::{Ended, Outcome, Outside, OutsideId, OutsideOutput, OutsideRequest};
use crate::sip::read;
use crate::sip::time::Millis;

/// How often the table and the peers are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a probe waits for its answer: over UDP it is sent five times in that.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a pod reports what it no longer keeps, at most.
const HAND_OVER: Duration = Duration::from_secs(30);
/// Most bytes of reports: a Lease holds 256 KiB of annotations.
const MOST_BYTES: usize = 192 * 1024;
/// Longest answer that is reported, characters.
const LONGEST_ANSWER: usize = 160;

/// What the driver is given.
pub(super) struct KeeperConfig {
    pub(super) shared: Arc<Shared>,
    pub(super) peers: Arc<ArcSwap<Peers>>,
    /// Whether this pod drains.
    pub(super) draining: watch::Receiver<bool>,
    /// Where reports go.
    pub(super) reports: watch::Sender<TrunkReports>,
    /// Responses and failed connections.
    pub(super) inputs: mpsc::Receiver<ShardInput>,
    pub(super) outside: Outside,
}

/// See the module.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    peers: Arc<ArcSwap<Peers>>,
    draining: watch::Receiver<bool>,
    reports: watch::Sender<TrunkReports>,
    inputs: mpsc::Receiver<ShardInput>,
    outside: Outside,
    /// The trunks that this pod owns.
    kept: BTreeMap<ObjectKey, Kept>,
    /// What it owned, and when that went.
    left: BTreeMap<ObjectKey, (TrunkReport, Millis)>,
    /// What other pods have found, as last seen.
    heard: TrunkReports,
    requests: HashMap<OutsideId, ObjectKey>,
    resolved: (mpsc::Sender<Resolved>, mpsc::Receiver<Resolved>),
    look_ups: u64,
    seen: Option<Seen>,
    started: Instant,
}

/// A trunk that this pod owns.
struct Kept {
    entry: Arc<TrunkEntry>,
    probe: Probe,
    under_way: UnderWay,
}

/// How far a probe is.
enum UnderWay {
    Nothing,
    /// Its host is being looked up.
    LookUp(u64),
    /// It is at its host, or one of them; where else it can go.
    Request(OutsideId, VecDeque<Flow>),
}

/// A look-up that has ended.
struct Resolved {
    trunk: ObjectKey,
    number: u64,
    result: Result<Vec<Flow>, ResolveError>,
}

/// What ownership was decided by last.
struct Seen {
    snapshot: Arc<Snapshot>,
    peers: Arc<Peers>,
    draining: bool,
}

impl Keeper {
    pub(super) fn new(config: KeeperConfig) -> Self {
        let KeeperConfig { shared, peers, draining, reports, inputs, outside } = config;
        Self {
            shared,
            peers,
            draining,
            reports,
            inputs,
            outside,
            kept: BTreeMap::new(),
            left: BTreeMap::new(),
            heard: TrunkReports::new(),
            requests: HashMap::new(),
            resolved: mpsc::channel(64),
            look_ups: 0,
            seen: None,
            started: Instant::now(),
        }
    }

    /// Runs until the plane is dropped.
    pub(super) async fn run(mut self) {
        let closing = self.shared.closing.clone();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let probes = self.kept.values().filter_map(|kept| kept.probe.due()).min();
            let due = [self.outside.next_timeout(), probes].into_iter().flatten().min();
            let sleep = due.map_or(LOOK_EVERY, |at| at.since(self.now()));
            tokio::select! {
                () = closing.cancelled() => return,
                _ = look.tick() => self.look(),
                Ok(()) = self.draining.changed() => self.look(),
                Some(input) = self.inputs.recv() => self.input(input),
                Some(resolved) = self.resolved.1.recv() => self.on_resolved(resolved),
                () = tokio::time::sleep(sleep), if due.is_some() => {}
            }
            self.fire();
            self.carry_out();
            self.publish();
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Looks which trunks are ours.
    fn look(&mut self) {
        let seen = Seen {
            snapshot: self.shared.snapshot.load_full(),
            peers: self.peers.load_full(),
            draining: *self.draining.borrow_and_update(),
        };
        if self.seen.as_ref().is_some_and(|before| before.is(&seen)) {
            return;
        }
        let now = self.now();
        let trunks = &seen.snapshot.index.table().trunks;
        let pods = seen.owners(self.shared.instance);
        let ours = |key: &ObjectKey| owner(key, pods.iter().copied()) == Some(self.shared.instance.0);
        let wanted: BTreeMap<ObjectKey, (Arc<TrunkEntry>, Duration)> = trunks
            .iter()
            .filter_map(|(key, entry)| Some((key, entry, interval(entry)?)))
            .filter(|(key, ..)| ours(key))
            .map(|(key, entry, interval)| (key.clone(), (Arc::clone(entry), interval)))
            .collect();

        for peer in seen.peers.0.values() {
            self.heard.extend(peer.trunks.iter().map(|(key, report)| (key.clone(), report.clone())));
        }
        self.heard.retain(|key, _| trunks.contains_key(key));
        for (key, kept) in self.kept.extract_if(.., |key, _| !wanted.contains_key(key)) {
            if let UnderWay::Request(id, _) = kept.under_way {
                self.outside.forget(id);
                self.requests.remove(&id);
            }
            self.left.extend(kept.probe.report().map(|report| (key, (report.clone(), now))));
        }
        for (key, (entry, interval)) in wanted {
            let address = entry.address();
            let left = self.left.remove(&key).map(|(report, _)| report);
            match self.kept.get_mut(&key) {
                Some(kept) if kept.entry.address() == address => {
                    kept.probe.set_interval(interval);
                    kept.entry = entry;
                }
                // What was found of another host says nothing about this one; a probe of it that is under way is not waited for.
                _ => {
                    let heard = left.or_else(|| self.heard.get(&key).cloned());
                    let inherited = heard.filter(|report| report.address == address);
                    let probe = Probe::new(interval, inherited, now);
                    self.kept.insert(key, Kept { entry, probe, under_way: UnderWay::Nothing });
                }
            }
        }
        let reported = |key: &ObjectKey| seen.peers.0.values().any(|peer| peer.trunks.contains_key(key));
        self.left
            .retain(|key, _| trunks.get(key).and_then(|entry| interval(entry)).is_some() && !reported(key));
        self.seen = Some(seen);
    }

    fn input(&mut self, input: ShardInput) {
        let now = self.now();
        match input {
            ShardInput::Message { message, .. } => {
                if let Message::Response(response) = *message {
                    self.outside.receive(response, now);
                }
            }
            ShardInput::TransportFailed(flow) => self.outside.transport_failed(flow),
            ShardInput::Resolved { .. } | ShardInput::Cut => {}
        }
    }

    /// Begins what is due.
    fn fire(&mut self) {
        let now = self.now();
        self.outside.handle_timeout(now);
        self.left.retain(|_, (_, since)| now.since(*since) < HAND_OVER);
        for (key, kept) in &mut self.kept {
            if kept.probe.due().is_none_or(|due| due > now) {
                continue;
            }
            kept.probe.begin(now);
            self.look_ups += 1;
            kept.under_way = UnderWay::LookUp(self.look_ups);
            let (trunk, number, target) = (key.clone(), self.look_ups, target(&kept.entry));
            let (shared, sender) = (Arc::clone(&self.shared), self.resolved.0.clone());
            tokio::spawn(async move {
                let result = shared.resolver.resolve(&target).await;
                let _ = sender.send(Resolved { trunk, number, result }).await;
            });
        }
    }

    fn on_resolved(&mut self, Resolved { trunk, number, result }: Resolved) {
        let Some(kept) = self.kept.get_mut(&trunk) else { return };
        if !matches!(kept.under_way, UnderWay::LookUp(awaited) if awaited == number) {
            return;
        }
        match result {
            Ok(ways) => self.ask(trunk, ways.into()),
            Err(error) => {
                let result = ProbeResult { reached: false, said: shorten(&error.to_string()) };
                self.found(&trunk, result);
            }
        }
    }

    /// Sends OPTIONS the first of these ways.
    fn ask(&mut self, trunk: ObjectKey, mut ways: VecDeque<Flow>) {
        let now = self.now();
        let Some(kept) = self.kept.get_mut(&trunk) else { return };
        let target = target(&kept.entry);
        let way = ways.pop_front().ok_or_else(|| "there is no way to it".to_owned());
        let way = way.and_then(|way| self.shared.secured(way, &target).map_err(|error| error.to_string()));
        let sent = way.and_then(|way| {
            let sent = self.outside.send(options(&target, way, &self.outside), now);
            sent.ok_or_else(|| "too many requests are under way".to_owned())
        });
        match sent {
            Ok(id) => {
                kept.under_way = UnderWay::Request(id, ways);
                self.requests.insert(id, trunk);
            }
            Err(said) => self.found(&trunk, ProbeResult { reached: false, said }),
        }
    }

    /// A probe has ended.
    fn found(&mut self, trunk: &ObjectKey, result: ProbeResult) {
        let now = self.now();
        let Some(kept) = self.kept.get_mut(trunk) else { return };
        tracing::debug!(%trunk, reached = result.reached, "probe: {}", result.said);
        kept.under_way = UnderWay::Nothing;
        let before = kept.probe.report().map(|report| report.reachable);
        kept.probe.end(result, &kept.entry.address(), self.outside.throw(), now);
        let report = kept.probe.report().filter(|report| Some(report.reachable) != before);
        match report {
            Some(TrunkReport { reachable: true, said, .. }) => {
                tracing::info!(%trunk, "trunk is reachable: {said}")
            }
            Some(TrunkReport { said, .. }) => tracing::warn!(%trunk, "trunk is unreachable: {said}"),
            None => {}
        }
    }

    /// Carries out what the requests want, until they want nothing more.
    fn carry_out(&mut self) {
        while let Some(output) = self.outside.poll() {
            match output {
                OutsideOutput::Transmit { flow, bytes } => self.shared.sockets.send(flow, bytes),
                OutsideOutput::Ended(ended) => self.ended(&ended),
            }
        }
    }

    fn ended(&mut self, ended: &Ended) {
        let Some(trunk) = self.requests.remove(&ended.id) else { return };
        let Some(kept) = self.kept.get_mut(&trunk) else { return };
        let ways = match &mut kept.under_way {
            UnderWay::Request(id, ways) if *id == ended.id => std::mem::take(ways),
            _ => return,
        };
        let result = judge(ended);
        if result.reached || ways.is_empty() {
            self.found(&trunk, result);
        } else {
            self.ask(trunk, ways);
        }
    }

    fn publish(&mut self) {
        let left = self.left.iter().map(|(key, (report, _))| (key.clone(), report.clone()));
        let kept =
            self.kept.iter().filter_map(|(key, kept)| Some((key.clone(), kept.probe.report()?.clone())));
        let mut room = MOST_BYTES;
        let fits = |(key, report): &(ObjectKey, TrunkReport)| {
            let size = key.namespace.len() + key.name.len() + report.said.len() + report.address.len() + 64;
            room = room.saturating_sub(size);
            room > 0
        };
        let reports: TrunkReports = left.chain(kept).take_while(fits).collect();
        if *self.reports.borrow() != reports {
            self.shared.metrics.trunks(&reports);
            self.reports.send_replace(reports);
        }
    }
}

impl Seen {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.snapshot, &other.snapshot)
            && Arc::ptr_eq(&self.peers, &other.peers)
            && self.draining == other.draining
    }

    /// The pods among which trunks are shared: those that don't drain, or all when there is no such pod.
    fn owners(&self, own: Instance) -> Vec<u32> {
        let peers = self.peers.0.iter().map(|(instance, peer)| (instance.0, peer.draining));
        let pods: Vec<(u32, bool)> = peers.chain([(own.0, self.draining)]).collect();
        let stay: Vec<u32> = pods.iter().filter(|(_, draining)| !draining).map(|(pod, _)| *pod).collect();
        if stay.is_empty() { pods.into_iter().map(|(pod, _)| pod).collect() } else { stay }
    }
}

fn interval(entry: &TrunkEntry) -> Option<Duration> {
    entry.probe_seconds.map(|seconds| Duration::from_secs(seconds.into()))
}

/// What is asked: the trunk itself, nobody at it.
fn target(entry: &TrunkEntry) -> SipTarget {
    entry.target(uri::format(None, &entry.host, entry.port), &entry.host, entry.port)
}

fn options(target: &SipTarget, flow: Flow, outside: &Outside) -> OutsideRequest {
    let own = format!("sip:voicedock@{}", outside.local().of(flow.transport));
    OutsideRequest {
        flow,
        method: "OPTIONS",
        uri: target.uri.clone(),
        from: format!("<{own}>"),
        to: format!("<{}>", target.uri),
        call_id: None,
        cseq: 1,
        route: target.route.clone(),
        headers: vec![
            ("Contact", format!("<{own}{}>", flow.transport.parameter())),
            ("Accept", "application/sdp".to_owned()),
        ],
        patience: PATIENCE,
        authority: None,
    }
}

/// Every final answer proves that somebody is there, but for 408 (it can't reach what is behind it) and 503 (it takes
/// nothing).
fn judge(ended: &Ended) -> ProbeResult {
    let answered = |code: u16, reason: &str| ProbeResult {
        reached: !matches!(code, 408 | 503),
        said: shorten(&format!("OPTIONS was answered {code} {reason}")),
    };
    let nothing = |said: String| ProbeResult { reached: false, said };
    match &ended.outcome {
        Outcome::Response(response) => answered(response.status.code(), &read::reason(response)),
        Outcome::Challenged(code, _) => answered(*code, crate::sip::wire::reason_phrase(*code)),
        Outcome::Timeout => nothing(format!("OPTIONS was not answered within {} s", PATIENCE.as_secs())),
        Outcome::Transport => {
            nothing("OPTIONS could not be sent: the address takes no connection".to_owned())
        }
    }
}

/// One line, and not a long one: what a peer says ends up in a status.
fn shorten(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_ANSWER).collect()
}
