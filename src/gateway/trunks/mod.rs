//! Keeps the gateway's trunks: each is probed and registered at by one pod, its owner, and what that pod finds goes into its
//! Lease. The thin driver; when and what is decided in [`probe`] and [`registration`], by whom in `routing::owner`, what is
//! sent and what an answer means in [`requests`].
//!
//! One task with its own SIP ([`Outside`]): calls never wait for it, and it never waits for calls. A pod that drains owns
//! nothing while another doesn't. A new owner begins with what the one before has found, so that a pod that comes or
//! goes changes no status; what a pod no longer keeps it goes on reporting until the new owner does.
//!
//! A registration that moves is not taken back by the pod that had it: all pods that share an advertised address share the
//! binding, and the new owner's REGISTER renews it. Only one that names the pod's own address goes with the pod, when it
//! begins to drain, whoever else there is; and one that no trunk asks for any more is taken back.

mod probe;
mod registration;
mod requests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use sipx_sip::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use self::probe::{Probe, ProbeResult};
use self::registration::{Answer, Registration};
use super::call_id::Instance;
use super::peers::Peers;
use super::plane::Shared;
use super::resolve::ResolveError;
use super::shard::ShardInput;
use super::snapshot::{Credential, Snapshot};
use crate::routing::ack::{TrunkReport, TrunkReports};
use crate::routing::owner::owner;
use crate::routing::table::{CredentialId, ObjectKey, TrunkEntry};
use crate::sip::event::{Credentials, Flow};
use crate::sip::outside::{Authority, Ended, Outside, OutsideId, OutsideOutput};
use crate::sip::time::Millis;

/// How often the table and the peers are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a pod reports what it no longer keeps, at most.
const HAND_OVER: Duration = Duration::from_secs(30);
/// Most bytes of reports: a Lease holds 256 KiB of annotations.
const MOST_BYTES: usize = 192 * 1024;
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
    /// Requests under way: for which trunk and what, and which way each went.
    requests: HashMap<OutsideId, (ObjectKey, Job, Flow)>,
    resolved: (mpsc::Sender<Resolved>, mpsc::Receiver<Resolved>),
    look_ups: u64,
    /// Something was found out that is not in the reports yet.
    news: bool,
    seen: Option<Seen>,
    started: Instant,
}

/// A trunk that this pod owns.
struct Kept {
    entry: Arc<TrunkEntry>,
    probe: Option<Probe>,
    registration: Option<Registration>,
    probing: UnderWay,
    registering: UnderWay,
}

/// Why a trunk is asked something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Probe,
    Register,
}

/// How far a job is.
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
    job: Job,
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
            news: false,
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
            let jobs = self.kept.values().filter_map(Kept::due).min();
            let due = [self.outside.next_timeout(), jobs].into_iter().flatten().min();
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
            if std::mem::take(&mut self.news) {
                self.publish();
            }
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
        let wanted: BTreeMap<ObjectKey, Arc<TrunkEntry>> = trunks
            .iter()
            .filter(|(key, entry)| entry.is_kept() && ours(key))
            .map(|(key, entry)| (key.clone(), Arc::clone(entry)))
            .collect();

        for peer in seen.peers.0.values() {
            self.heard.extend(peer.trunks.iter().map(|(key, report)| (key.clone(), report.clone())));
        }
        self.heard.retain(|key, _| trunks.contains_key(key));
        let gone: Vec<(ObjectKey, Kept)> =
            self.kept.extract_if(.., |key, _| !wanted.contains_key(key)).collect();
        for (key, mut kept) in gone {
            for job in [Job::Probe, Job::Register] {
                self.stop(&mut kept, job);
            }
            self.left.extend(kept.report(now).map(|report| (key.clone(), (report, now))));
            let entry = trunks.get(&key).filter(|entry| entry.register_seconds.is_some());
            if entry.is_none() || self.shared.is_alone_at_its_address(kept.entry.transport.into()) {
                self.withdraw(&mut kept);
            }
        }
        let leaves = |shared: &Shared, entry: &TrunkEntry| {
            seen.draining && shared.is_alone_at_its_address(entry.transport.into())
        };
        for (key, entry) in wanted {
            let address = entry.address();
            let left = self.left.remove(&key).map(|(report, _)| report);
            let leaves = leaves(&self.shared, &entry);
            let kept = match self.kept.remove(&key) {
                Some(mut kept) if kept.entry.is_kept_like(&entry) => {
                    if leaves {
                        self.stop(&mut kept, Job::Register);
                        self.withdraw(&mut kept);
                    }
                    Some(kept)
                }
                Some(mut kept) if kept.entry.address() != address || entry.register_seconds.is_none() => {
                    self.withdraw(&mut kept);
                    None
                }
                _ => None,
            };
            let kept = kept.unwrap_or_else(|| {
                // What was found of another host says nothing about this one; what is under way there is not waited for.
                let heard = left.or_else(|| self.heard.get(&key).cloned());
                let inherited = heard.filter(|report| report.address == address);
                let probe = entry.probe_seconds.map(|seconds| {
                    let interval = Duration::from_secs(seconds.into());
                    Probe::new(interval, inherited, now)
                });
                let registration = entry.register_seconds.filter(|_| !leaves).and_then(|seconds| {
                    let authority = authority(&entry, &seen.snapshot)?;
                    let hosts = 1 + entry.failover.as_ref().map_or(0, |failover| failover.hosts.len());
                    Some(Registration::new(seconds, hosts, self.outside.unique(), authority, now))
                });
                Kept {
                    entry: Arc::clone(&entry),
                    probe,
                    registration,
                    probing: UnderWay::Nothing,
                    registering: UnderWay::Nothing,
                }
            });
            self.kept.insert(key, Kept { entry, ..kept });
        }
        let reported = |key: &ObjectKey| seen.peers.0.values().any(|peer| peer.trunks.contains_key(key));
        self.left.retain(|key, _| trunks.get(key).is_some_and(|entry| entry.is_kept()) && !reported(key));
        self.seen = Some(seen);
        self.news = true;
    }

    fn input(&mut self, input: ShardInput) {
        let now = self.now();
        match input {
            ShardInput::Message { message, .. } => {
                if let Message::Response(response) = *message {
                    self.outside.receive(response, now);
                }
            }
            ShardInput::TransportFailed(flow) => {
                self.outside.transport_failed(flow);
                let registrations = self.kept.values_mut().filter_map(|kept| kept.registration.as_mut());
                registrations.for_each(|registration| registration.lost(flow, now));
            }
            ShardInput::Resolved { .. }
            | ShardInput::Told { .. }
            | ShardInput::Unclaimed { .. }
            | ShardInput::Waiting { .. }
            | ShardInput::Asked { .. }
            | ShardInput::AgentFailed { .. }
            | ShardInput::Cut => {}
        }
    }

    /// Begins what is due.
    fn fire(&mut self) {
        let now = self.now();
        self.outside.handle_timeout(now);
        let left = self.left.len();
        self.left.retain(|_, (_, since)| now.since(*since) < HAND_OVER);
        self.news |= self.left.len() < left;
        for (key, kept) in &mut self.kept {
            if let Some(registration) = &mut kept.registration {
                self.news |= registration.forget_what_ended(now);
            }
            let is_due = |due: Option<Millis>| due.is_some_and(|due| due <= now);
            for job in [Job::Probe, Job::Register] {
                let due = match job {
                    Job::Probe => is_due(kept.probe.as_ref().and_then(Probe::due)),
                    Job::Register => is_due(kept.registration.as_ref().and_then(Registration::due)),
                };
                if !(due && matches!(kept.under_way(job), UnderWay::Nothing)) {
                    continue;
                }
                self.look_ups += 1;
                let number = self.look_ups;
                *kept.under_way(job) = UnderWay::LookUp(number);
                let target = match job {
                    Job::Probe => {
                        kept.probe.iter_mut().for_each(|probe| probe.begin(now));
                        requests::probed(&kept.entry)
                    }
                    Job::Register => requests::registrar(&kept.entry, kept.host()),
                };
                let (trunk, shared, sender) =
                    (key.clone(), Arc::clone(&self.shared), self.resolved.0.clone());
                tokio::spawn(async move {
                    let result = shared.resolver.resolve(&target).await;
                    let _ = sender.send(Resolved { trunk, job, number, result }).await;
                });
            }
        }
    }

    fn on_resolved(&mut self, Resolved { trunk, job, number, result }: Resolved) {
        let Some(kept) = self.kept.get_mut(&trunk) else { return };
        if !matches!(kept.under_way(job), UnderWay::LookUp(awaited) if *awaited == number) {
            return;
        }
        match result {
            Ok(ways) => self.ask(&trunk, job, ways.into()),
            Err(error) => self.failed(&trunk, job, &error.to_string()),
        }
    }

    /// Sends the request of a job the first of these ways.
    fn ask(&mut self, trunk: &ObjectKey, job: Job, mut ways: VecDeque<Flow>) {
        let now = self.now();
        let Some(kept) = self.kept.get_mut(trunk) else { return };
        let entry = Arc::clone(&kept.entry);
        let target = match job {
            Job::Probe => requests::probed(&entry),
            Job::Register => requests::registrar(&entry, kept.host()),
        };
        let way = ways.pop_front().ok_or_else(|| "there is no way to it".to_owned());
        let way = way.and_then(|way| self.shared.secured(way, &target).map_err(|error| error.to_string()));
        let way = match way {
            Ok(way) => way,
            Err(why) => return self.failed(trunk, job, &why),
        };
        let local = self.outside.local().of(way.transport).to_string();
        let request = match (job, &mut kept.registration) {
            (Job::Probe, _) => requests::options(&target, way, &local),
            (Job::Register, Some(registration)) => {
                let user = user(&entry, &self.shared.snapshot.load());
                requests::register(&entry, &target, way, &local, &user, registration.begin())
            }
            (Job::Register, None) => return,
        };
        match self.outside.send(request, now) {
            Some(id) => {
                *kept.under_way(job) = UnderWay::Request(id, ways);
                self.requests.insert(id, (trunk.clone(), job, way));
            }
            None => self.failed(trunk, job, "too many requests are under way"),
        }
    }

    /// Nothing could be sent.
    fn failed(&mut self, trunk: &ObjectKey, job: Job, why: &str) {
        let said = requests::shorten(why);
        match job {
            Job::Probe => self.probed(trunk, ProbeResult { reached: false, said }),
            Job::Register => self.registered(trunk, Answer::NotHere(said, None), None),
        }
    }

    /// A probe has ended.
    fn probed(&mut self, trunk: &ObjectKey, result: ProbeResult) {
        let now = self.now();
        let Some(kept) = self.kept.get_mut(trunk) else { return };
        tracing::debug!(%trunk, reached = result.reached, "probe: {}", result.said);
        kept.probing = UnderWay::Nothing;
        self.news = true;
        let address = kept.entry.address();
        let dice = self.outside.throw();
        kept.probe.iter_mut().for_each(|probe| probe.end(result.clone(), &address, dice, now));
    }

    /// A REGISTER has ended.
    fn registered(&mut self, trunk: &ObjectKey, answer: Answer, way: Option<Flow>) {
        let now = self.now();
        let Some(kept) = self.kept.get_mut(trunk) else { return };
        tracing::debug!(%trunk, "REGISTER: {answer:?}");
        kept.registering = UnderWay::Nothing;
        self.news = true;
        let dice = self.outside.throw();
        if let Some(registration) = &mut kept.registration {
            registration.end(answer, way, dice, now);
        }
    }

    /// Takes a binding back. Whether that is heard is not waited for: it ends by itself.
    fn withdraw(&mut self, kept: &mut Kept) {
        let now = self.now();
        let user = user(&kept.entry, &self.shared.snapshot.load());
        let Some((flow, asking)) = kept.registration.take().and_then(Registration::withdraw) else { return };
        let target = requests::registrar(&kept.entry, asking.host);
        let local = self.outside.local().of(flow.transport).to_string();
        let request = requests::register(&kept.entry, &target, flow, &local, &user, asking);
        let _ = self.outside.send(request, now);
    }

    /// Gives up what is under way.
    fn stop(&mut self, kept: &mut Kept, job: Job) {
        let under_way = std::mem::replace(kept.under_way(job), UnderWay::Nothing);
        if let UnderWay::Request(id, _) = under_way {
            self.outside.forget(id);
            self.requests.remove(&id);
        }
    }

    /// Carries out what the requests want, until they want nothing more.
    fn carry_out(&mut self) {
        while let Some(output) = self.outside.poll() {
            match output {
                OutsideOutput::Transmit { flow, bytes } => self.shared.sockets.send(flow, bytes),
                OutsideOutput::Ended(ended) => self.ended(ended),
            }
        }
    }

    fn ended(&mut self, ended: Ended) {
        let Some((trunk, job, way)) = self.requests.remove(&ended.id) else { return };
        let Some(kept) = self.kept.get_mut(&trunk) else { return };
        let ways = match kept.under_way(job) {
            UnderWay::Request(id, ways) if *id == ended.id => std::mem::take(ways),
            _ => return,
        };
        match job {
            Job::Probe => {
                let result = requests::probe_result(&ended.outcome);
                match result.reached || ways.is_empty() {
                    true => self.probed(&trunk, result),
                    false => self.ask(&trunk, job, ways),
                }
            }
            Job::Register => {
                let user = user(&kept.entry, &self.shared.snapshot.load());
                let local = self.outside.local().of(way.transport).to_string();
                let answer = requests::answer(&ended.outcome, &user, &local);
                if let Some(registration) = &mut kept.registration {
                    registration.returned(ended.authority, ended.cseq);
                }
                match matches!(answer, Answer::NotHere(..)) && !ways.is_empty() {
                    true => self.ask(&trunk, job, ways),
                    false => self.registered(&trunk, answer, Some(way)),
                }
            }
        }
    }

    fn publish(&mut self) {
        let left = self.left.iter().map(|(key, (report, _))| (key.clone(), report.clone()));
        let now = self.now();
        let kept = self.kept.iter().filter_map(|(key, kept)| Some((key.clone(), kept.report(now)?)));
        let mut room = MOST_BYTES;
        let fits = |(key, report): &(ObjectKey, TrunkReport)| {
            let size = key.namespace.len() + key.name.len() + report.said.len() + report.address.len() + 64;
            room = room.saturating_sub(size);
            room > 0
        };
        let reports: TrunkReports = left.chain(kept).take_while(fits).collect();
        if *self.reports.borrow() != reports {
            self.tell(&reports);
            self.shared.metrics.trunks(&reports);
            self.reports.send_replace(reports);
        }
    }
}

impl Keeper {
    /// Logs which trunks have become reachable or unreachable.
    fn tell(&self, reports: &TrunkReports) {
        let before = self.reports.borrow();
        for (trunk, report) in reports {
            if before.get(trunk).map(|before| before.reachable) == Some(report.reachable) {
                continue;
            }
            match report.reachable {
                true => tracing::info!(%trunk, "trunk is reachable: {}", report.said),
                false => tracing::warn!(%trunk, "trunk is unreachable: {}", report.said),
            }
        }
    }
}

impl Kept {
    fn due(&self) -> Option<Millis> {
        let probe = self.probe.as_ref().and_then(Probe::due);
        let registration = self.registration.as_ref();
        let due = registration
            .and_then(Registration::due)
            .filter(|_| matches!(self.registering, UnderWay::Nothing));
        [probe, due, registration.and_then(Registration::ends)].into_iter().flatten().min()
    }

    fn under_way(&mut self, job: Job) -> &mut UnderWay {
        match job {
            Job::Probe => &mut self.probing,
            Job::Register => &mut self.registering,
        }
    }

    /// Which of the trunk's hosts is registered at.
    fn host(&self) -> usize {
        self.registration.as_ref().map_or(0, Registration::host)
    }

    /// What is known: a trunk is reachable if it holds the registration that it should, and answers the probes that it gets.
    fn report(&self, now: Millis) -> Option<TrunkReport> {
        let probed = self.probe.as_ref().and_then(Probe::report);
        let Some(registration) = &self.registration else { return probed.cloned() };
        let (bound, said) = registration.standing(now)?;
        let told = probed.filter(|report| bound || !report.reachable);
        let said = match told {
            Some(report) => format!("{said}, {}", report.said),
            None => said.to_owned(),
        };
        let reachable = bound && probed.is_none_or(|report| report.reachable);
        Some(TrunkReport { reachable, said, address: self.entry.address() })
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

/// Whose credentials a trunk is registered with; absent when they are not there, and then it isn't.
fn authority(entry: &TrunkEntry, snapshot: &Snapshot) -> Option<Option<Authority>> {
    if entry.credentials_missing {
        return None;
    }
    let Some(id) = &entry.credential else { return Some(None) };
    let (username, password) = login(id, snapshot)?;
    Some(Some(Authority::new(Credentials { username, password, realm: entry.realm.clone() })))
}

/// Who is registered: the user of the trunk's credentials.
fn user(entry: &TrunkEntry, snapshot: &Snapshot) -> String {
    let login = entry.credential.as_ref().and_then(|id| login(id, snapshot));
    login.map_or_else(|| "voicedock".to_owned(), |(username, _)| username)
}

fn login(id: &CredentialId, snapshot: &Snapshot) -> Option<(String, String)> {
    match snapshot.credentials.get(id)? {
        Credential::Login { username, password } => Some((username.clone(), password.clone())),
        Credential::Signing { .. } | Credential::Certificate { .. } | Credential::Authorities { .. } => None,
    }
}
