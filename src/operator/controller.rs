//! The central loop: a change comes in, objects are compiled, tables published, gateways provisioned, statuses written.
//!
//! One task owns all that is known; everything that waits for the API server runs beside it and comes back as an
//! outcome. No timer batches changes: with nothing under way the next change is compiled and published at once, and
//! what arrives while a table is being written goes with the next one. Every replica watches and compiles; only the leader
//! writes, and what it has under way ends with its term. Nothing is compiled before every watch has listed and every
//! Secret that is named has been answered for: a fresh leader never publishes a table with holes. A term begins with
//! everything read anew: its watches may have lagged behind those of the leader before, whose newer table must not be undone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use kube::{Client, Resource, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::resources::SipGateway;
use crate::resources::conditions::{Condition, ConditionStatus, condition};
use crate::routing::compile::{Finding, Kind, ObjectRef, SecretFacts, Verdict};
use crate::routing::protocol::Version;
use crate::routing::table::ObjectKey;

use super::api::ApiError;
use super::events::{Events, Notice};
use super::fleet::{Done, Fleet, Means, News, as_object};
use super::leader::Term;
use super::metrics::Metrics;
use super::names;
use super::programmed::Ledger;
use super::provision::Image;
use super::reachable::reachable;
use super::reports::{self, Reports, Target};
use super::secrets;
use super::serve::Synced;
use super::spans::{self, WorkSpan};
use super::startup;
use super::state::{Reported, State, Touched};
use super::status::{self, Desired, GatewayReport};
use super::watch::{Change, OwnedKind};

/// Changes that are taken in at one go, before work is begun again.
const BATCH: usize = 4096;
/// Pause before a Secret is asked for again that couldn't be read.
const SECRET_RETRY: Duration = Duration::from_secs(1);

/// What the loop needs.
pub struct Settings {
    /// Image of gateway pods.
    pub image: Image,
    /// How long useless slices are kept.
    pub grace: Duration,
    /// How long fewer pods of a gateway must have been enough before some are removed.
    pub scale_window: Duration,
    /// The gateway of PhoneNumbers that name none.
    pub default_gateway: ObjectKey,
}

/// The loop's own state.
pub struct Controller {
    client: Client,
    settings: Settings,
    metrics: Arc<Metrics>,
    synced: Synced,
    events: Events,

    state: State,
    secrets: secrets::Ledger,
    secrets_due: bool,
    secret_retries: BTreeMap<ObjectKey, Instant>,

    compiled_once: bool,
    /// When the first change arrived that isn't compiled yet.
    dirty: Option<Instant>,

    term: Option<Term>,
    /// How often everything was asked to be listed anew: once a term.
    rounds: watch::Sender<u64>,
    /// How many kinds that is.
    inputs: usize,
    /// Those that have been, in this term.
    listed_anew: BTreeSet<String>,
    /// Whether the term's work has begun.
    begun: bool,
    fleet: Fleet,
    ledger: Ledger,
    reports: Reports,

    reads: JoinSet<Answer>,
    work: JoinSet<Outcome>,
}

/// A Secret that was read: which, the version that the watch showed, what came of it.
type Answer = (ObjectKey, Option<Version>, Result<Option<SecretFacts>, ApiError>);

enum Outcome {
    Done(Done),
    Reported(Box<(Target, Option<Notice>, Result<String, ApiError>)>),
}

impl Controller {
    /// A loop that has seen nothing yet.
    pub fn new(
        client: Client,
        settings: Settings,
        metrics: Arc<Metrics>,
        synced: Synced,
        events: Events,
        (rounds, inputs): (watch::Sender<u64>, usize),
    ) -> Self {
        let mut state = State::default();
        state.index.set_default_gateway(Some(settings.default_gateway.clone()));
        Self {
            client,
            settings,
            metrics,
            synced,
            events,
            state,
            secrets: secrets::Ledger::default(),
            secrets_due: true,
            secret_retries: BTreeMap::new(),
            compiled_once: false,
            dirty: Some(Instant::now()),
            term: None,
            rounds,
            inputs,
            listed_anew: BTreeSet::new(),
            begun: false,
            fleet: Fleet::default(),
            ledger: Ledger::default(),
            reports: Reports::default(),
            reads: JoinSet::new(),
            work: JoinSet::new(),
        }
    }

    /// Runs until `stop`; when it returns, nothing is being written any more.
    pub async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        mut terms: watch::Receiver<Option<Term>>,
        stop: CancellationToken,
    ) {
        loop {
            self.metrics.turned();
            self.step();
            let wake = self.wake();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                change = changes.recv() => match change {
                    Some(change) => self.take_in(change, &mut changes),
                    None => break,
                },
                Some(outcome) = self.work.join_next() => self.finish(unwound(outcome)),
                Some(answer) = self.reads.join_next() => self.answered(unwound(answer)),
                changed = terms.changed() => match changed {
                    Ok(()) => {
                        let term = terms.borrow_and_update().clone();
                        self.change_term(term);
                    }
                    Err(_) => break,
                },
                () = sleep => {}
            }
        }
        self.work.shutdown().await;
        self.reads.shutdown().await;
    }

    /// Begins all work that can be begun.
    fn step(&mut self) {
        if !self.state.is_synced() {
            return;
        }
        if !self.synced.swap(true, Ordering::AcqRel) {
            self.metrics.synced();
            info!("every watch has listed");
        }
        self.read_secrets();
        let answered_for = !self.secrets.is_reading() && (self.compiled_once || !self.secrets.has_failed());
        if self.dirty.is_some() && answered_for && !self.fleet.is_publishing() {
            self.compile();
        }
        if self.compiled_once
            && let Some(term) = self.term.clone()
        {
            if !self.begun {
                if self.listed_anew.len() < self.inputs || self.dirty.is_some() || !answered_for {
                    return;
                }
                self.begin_term();
            }
            self.start_work(&term);
            self.start_reports(&term);
        }
    }

    /// When there is something to do although nothing happens. Never what [`Self::step`] leaves where it is: that would be
    /// due for ever.
    fn wake(&self) -> Option<Instant> {
        let secrets = self.secret_retries.values().min().copied();
        let writes = [self.fleet.wake(&self.state), self.reports.wake()].into_iter().flatten();
        writes.filter(|_| self.begun).chain(secrets).min()
    }

    fn take_in(&mut self, first: Change, changes: &mut mpsc::Receiver<Change>) {
        let mut touched = Touched::default();
        self.state.apply(first, &mut touched);
        for _ in 0..BATCH {
            let Ok(change) = changes.try_recv() else { break };
            self.state.apply(change, &mut touched);
        }
        let now = Instant::now();
        if touched.compile {
            self.dirty.get_or_insert(now);
        }
        let round = *self.rounds.borrow();
        let anew = touched.listed_anew.into_iter().filter(|(known, _)| *known == round);
        self.listed_anew.extend(anew.map(|(_, kind)| kind));
        self.secrets_due |= touched.names_secrets || !touched.secrets.is_empty();
        for object in touched.objects {
            self.reports.mark(Target::Object(object));
        }
        for gateway in touched.rolls {
            self.roll_changed(&gateway, now);
        }
        for gateway in touched.published {
            self.fleet.verify(&gateway, &self.state, now);
            self.reports.mark_summary(Target::Table(gateway), now);
        }
        for gateway in touched.found {
            self.fleet.found(&gateway, now);
        }
        for (gateway, loss) in touched.losses {
            self.fleet.lost(&gateway, loss, &self.state, now);
        }
        for secret in touched.secrets {
            if let Some(gateway) = names::gateway_of_credentials(&secret) {
                self.fleet.verify(&gateway, &self.state, now);
            }
        }
        for (gateway, kind, object) in touched.owned {
            self.fleet.drifted(&gateway, kind, &object, &self.state, now);
            if kind == OwnedKind::Deployment {
                self.reports.mark_summary(Target::Object(as_object(&gateway)), now);
            }
        }
    }

    fn roll_changed(&mut self, gateway: &ObjectKey, now: Instant) {
        let roll = self.state.roll(gateway);
        let Some(before) = self.fleet.called(gateway, roll, now) else { return };
        if let Some(after) = self.fleet.roll(gateway) {
            for object in self.ledger.affected(gateway, &before, after) {
                self.reports.mark(Target::Object(object));
            }
            for key in after.other_trunks(&before) {
                self.reports.mark(Target::Object(ObjectRef { kind: Kind::SipTrunk, key }));
            }
        }
        self.mark_gateway(gateway, now);
    }

    fn mark_gateway(&mut self, gateway: &ObjectKey, now: Instant) {
        self.reports.mark_summary(Target::Object(as_object(gateway)), now);
        self.reports.mark_summary(Target::Table(gateway.clone()), now);
    }

    fn read_secrets(&mut self) {
        let now = Instant::now();
        let due: Vec<_> =
            self.secret_retries.extract_if(.., |_, at| *at <= now).map(|(key, _)| key).collect();
        for secret in due {
            self.secrets.retry(&secret);
            self.secrets_due = true;
        }
        if !std::mem::take(&mut self.secrets_due) {
            return;
        }
        let (due, changed) = self.secrets.due(&mut self.state.index, &self.state.secrets);
        if changed {
            self.dirty.get_or_insert(now);
        }
        for key in due {
            let client = self.client.clone();
            let version = self.state.secrets.get(&key).cloned();
            self.reads.spawn(async move {
                let content = secrets::fetch(&client, &key).await;
                (key, version, content.map(|content| content.map(|content| content.facts)))
            });
        }
    }

    fn answered(&mut self, (key, version, answer): Answer) {
        self.secrets_due = true;
        match answer {
            Ok(facts) => {
                if self.secrets.answered(key, version, facts, &mut self.state.index) {
                    self.dirty.get_or_insert_with(Instant::now);
                }
            }
            Err(error) => {
                self.metrics.failed("secret");
                warn!("{error}; what was known of it stays in use");
                self.secret_retries.insert(key.clone(), Instant::now() + SECRET_RETRY);
                self.secrets.failed(key);
            }
        }
    }

    fn compile(&mut self) {
        let now = Instant::now();
        let (changed_at, begun) = (self.dirty.take().unwrap_or(now), SystemTime::now());
        let delta = self.state.index.settle();
        spans::compiled(begun, delta.verdicts.len());
        self.metrics.compiled(now.elapsed().as_secs_f64());
        for object in delta.verdicts {
            self.judged(object);
        }
        for object in delta.gone {
            self.ledger.forget(&object);
            self.reports.forget(&Target::Object(object));
        }
        self.compiled_once = true;
        if self.begun {
            self.offer(now, changed_at);
        }
    }

    /// There is another verdict about an object.
    fn judged(&mut self, object: ObjectRef) {
        if self.begun
            && let Some(verdict) = self.state.index.verdicts().get(&object)
        {
            self.ledger.judged(&object, verdict);
        }
        self.reports.mark(Target::Object(object));
    }

    /// Gives what was compiled to the gateways.
    fn offer(&mut self, now: Instant, changed_at: Instant) {
        let unchanged = self.fleet.compiled(&self.state, now, changed_at, &self.metrics);
        for (gateway, generation) in unchanged {
            self.record(&gateway, generation, now);
        }
    }

    /// Notes that a gateway's published table is what was compiled. Nothing is compiled while one is being published.
    ///
    /// What no status says yet waits until the head is sealed: before that, the head write of an earlier leader may still
    /// land and make it untrue.
    fn record(&mut self, gateway: &ObjectKey, generation: i64, now: Instant) {
        let state = &self.state;
        let proven = |object: &ObjectRef, verdict: &Verdict| {
            state.object(object).is_some_and(|object| is_proven(object.conditions(), verdict))
        };
        let sealed = self.fleet.is_sealed(gateway);
        let recorded = self.ledger.record(gateway, generation, sealed, state.index.verdicts(), proven);
        if recorded.wants_seal {
            self.fleet.seal(gateway, now);
        }
        for object in recorded.news {
            self.reports.mark(Target::Object(object));
        }
    }

    fn start_work(&mut self, term: &Term) {
        let means = Means {
            client: &self.client,
            term,
            metrics: &self.metrics,
            image: &self.settings.image,
            grace: self.settings.grace,
        };
        for work in self.fleet.start(&self.state, &means, Instant::now()) {
            self.work.spawn(async move { Outcome::Done(work.run().await) });
        }
    }

    fn start_reports(&mut self, term: &Term) {
        let now = Instant::now();
        while let Some(target) = self.reports.next(now) {
            let Some((metadata, object, desired)) = self.desired(&target) else { continue };
            if self.reports.is_settling(&target, &metadata) {
                continue;
            }
            let pending = desired.waits_for_gateways();
            let later = self.reports.pending_until(&target, pending, now);
            let Some(patch) = desired.patch.clone() else { continue };
            let calls_only = desired.counts_calls_only();
            if let Some(later) =
                later.or_else(|| self.reports.calls_until(&target, now).filter(|_| calls_only))
            {
                self.reports.mark_at(target, later);
                continue;
            }
            let notice = Notice::of(object, &desired.before, &desired.conditions);
            self.reports.begin(target.clone(), metadata.clone());
            let (client, term) = (self.client.clone(), term.clone());
            let generation = self.generation(&target);
            self.work.spawn(async move {
                let span = WorkSpan::begin("write status", target.kind(), target.key());
                let result = reports::put(client, term, target.clone(), metadata, patch).await;
                span.end(generation, result.as_ref().map(|_| "written").map_err(|error| error as _));
                Outcome::Reported(Box::new((target, notice, result)))
            });
        }
    }

    /// The generation that a status speaks of: of the object, or of the table.
    fn generation(&self, target: &Target) -> Option<i64> {
        match target {
            Target::Object(object) => self.state.object(object)?.metadata().generation,
            Target::Table(key) => self.fleet.published(key).map(|(generation, _)| generation),
        }
    }

    /// What a status should say, with the version and the reference of its object; `None` when there is nothing to say yet.
    fn desired(
        &self,
        target: &Target,
    ) -> Option<(String, k8s_openapi::api::core::v1::ObjectReference, Desired)> {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        match target {
            Target::Object(object) => {
                let reported = self.state.object(object)?;
                let verdict = self.state.index.verdicts().get(object)?;
                // A spec that hasn't been compiled yet gets its status then.
                if verdict.generation != reported.metadata().generation.unwrap_or_default() {
                    return None;
                }
                if !verdict.gateways.iter().all(|gateway| self.fleet.is_verified(gateway)) {
                    return None;
                }
                let hindrance = |gateway: &ObjectKey| self.fleet.publish_hindrance(gateway).cloned();
                let mut programmed =
                    self.ledger.programmed(object, verdict, |key| self.fleet.roll(key), hindrance);
                let mut report = None;
                if let Reported::SipGateway(gateway) = reported {
                    if verdict.accepted.status == ConditionStatus::True {
                        if !self.fleet.is_provisioned(&object.key) {
                            return None;
                        }
                        programmed = self.gateway_programmed(gateway, programmed);
                    }
                    report = Some(self.gateway_report(gateway));
                }
                let reachable = self.reachable(object, verdict);
                let desired = status::of_object(reported, verdict, programmed, reachable, report, &now);
                Some((reported.metadata().resource_version.clone()?, reported.reference(), desired))
            }
            Target::Table(key) => {
                let table = self.state.tables.get(key)?;
                let (generation, fullness) = self.fleet.published(key)?;
                let roll = self.fleet.roll(key)?;
                self.metrics.table(key, generation, roll.acknowledged(), fullness);
                let hindrance = self.fleet.publish_hindrance(key);
                let object_generation = table.metadata.generation.unwrap_or_default();
                let existing = table.status.as_ref();
                let desired = status::of_table(
                    existing,
                    object_generation,
                    generation,
                    roll,
                    fullness,
                    hindrance,
                    &now,
                );
                Some((table.resource_version()?, table.object_ref(&()), desired))
            }
        }
    }

    /// Whether a trunk answers, if it is asked.
    fn reachable(&self, object: &ObjectRef, verdict: &Verdict) -> Option<Finding> {
        let address = self.state.index.asked(object)?;
        Some(reachable(&object.key, &address, verdict, |gateway| self.fleet.roll(gateway)))
    }

    /// A gateway that can't be provisioned or doesn't come up isn't programmed, whatever those pods hold that it has.
    fn gateway_programmed(&self, object: &SipGateway, programmed: Finding) -> Finding {
        let gateway = &names::key(object);
        let hindrance = self.fleet.provision_hindrance(gateway).cloned().or_else(|| {
            let (roll, service) = (self.fleet.roll(gateway), self.fleet.service(gateway));
            startup::hindrance(object, self.state.deployment(gateway), roll, service, &programmed)
        });
        hindrance.unwrap_or(programmed)
    }

    fn gateway_report(&self, gateway: &SipGateway) -> GatewayReport {
        let Some(roll) = self.fleet.roll(&names::key(gateway)) else { return GatewayReport::default() };
        GatewayReport {
            replicas: roll.serving(),
            wanted: self.fleet.replicas(&names::key(gateway)),
            calls: roll.calls(),
            table_generation: roll.acknowledged().filter(|generation| *generation > 0),
            addresses: self.fleet.addresses(gateway),
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        let now = Instant::now();
        match outcome {
            Outcome::Done(done) => {
                let window = self.settings.scale_window;
                let news = self.fleet.done(done, &self.state, &self.metrics, window, now);
                self.learn(news, now);
            }
            Outcome::Reported(report) => {
                let (target, notice, result) = *report;
                match &result {
                    Ok(_) => self.metrics.wrote(&format!("{}/status", target.kind())),
                    Err(error) => debug!("{error}"),
                }
                let written = result.is_ok();
                if !self.reports.done(target, &result, now) {
                    self.metrics.failed("status");
                }
                if let Some(notice) = notice.filter(|_| written) {
                    self.events.tell(notice);
                }
            }
        }
    }

    fn learn(&mut self, news: News, now: Instant) {
        if let Some((gateway, generation)) = news.published {
            self.record(&gateway, generation, now);
        }
        if let Some(secret) = news.stale_secret {
            self.secrets.retry(&secret);
            self.secrets_due = true;
            self.dirty.get_or_insert(now);
        }
        if let (Some(gateway), Some(scaled)) = (&news.gateway, news.scaled)
            && let Some(object) = self.state.object(&as_object(gateway))
        {
            info!("gateway {gateway}: {scaled}");
            self.events.tell(Notice::scaled(object.reference(), &scaled));
        }
        if let Some(gateway) = news.gateway {
            self.mark_gateway(&gateway, now);
            if news.everything {
                let verdicts = self.state.index.verdicts().iter();
                let held = verdicts.filter(|(_, verdict)| verdict.gateways.contains(&gateway));
                for (object, _) in held {
                    self.reports.mark(Target::Object(object.clone()));
                }
            }
        }
    }

    /// A term has begun or ended. What was under way for an earlier one ends here.
    fn change_term(&mut self, term: Option<Term>) {
        self.work = JoinSet::new();
        self.fleet.begin();
        self.ledger.clear();
        self.reports.clear();
        self.metrics.leads(term.is_some());
        self.begun = false;
        self.listed_anew.clear();
        if term.is_some() {
            self.rounds.send_modify(|round| *round += 1);
        }
        self.term = term;
    }

    /// Everything has been read anew: what this term has to do is found out.
    fn begin_term(&mut self) {
        self.begun = true;
        let all: Vec<ObjectRef> = self.state.index.verdicts().keys().cloned().collect();
        for object in all {
            self.judged(object);
        }
        let now = Instant::now();
        self.offer(now, now);
        for gateway in self.state.tables.keys() {
            self.reports.mark(Target::Table(gateway.clone()));
        }
    }
}

/// Whether an object's status says already that gateways hold it as the verdict says.
fn is_proven(conditions: &[Condition], verdict: &Verdict) -> bool {
    let says = |type_: &str, status: ConditionStatus| {
        let found = conditions.iter().find(|condition| condition.type_ == type_);
        found.is_some_and(|found| found.status == status && found.observed_generation == verdict.generation)
    };
    says(condition::PROGRAMMED, ConditionStatus::True)
        && says(condition::ACCEPTED, verdict.accepted.status)
        && says(condition::RESOLVED_REFS, verdict.resolved_refs.status)
}

/// The result of a task; a panic in it goes on here, because what the task held is lost.
fn unwound<T>(result: Result<T, tokio::task::JoinError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
