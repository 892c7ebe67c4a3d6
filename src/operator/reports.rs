//! Writing statuses: which are due, a bounded number at once, each against the version that it was computed from.
//!
//! Promises: a status is computed when its turn comes and not before, so that many changes cost one write; an object that
//! only waits for gateways gets a moment to be done before that is written; a write that meets a newer object is dropped,
//! because the watch brings that object and with it a new turn. Nothing here delays a table.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::resources::{Assistant, PhoneNumber, RoutingTable, SipGateway, SipTrunk, TransferDestination};
use crate::routing::compile::{Kind, ObjectRef};
use crate::routing::table::ObjectKey;

use super::api::{ApiError, FIELD_MANAGER, write};
use super::leader::Term;

/// Status writes at once.
const CONCURRENT: usize = 16;
/// How long an object may wait for gateways before its status says so: longer than a table takes while thousands of objects
/// come at once, so that each of them costs one write.
pub const PENDING_GRACE: Duration = Duration::from_secs(3);
/// How long a status that sums up waits for those of single objects: longer than it takes from a table to its last
/// acknowledgement, so that the two are one write, and not in the way of whoever waits for his object.
const SUMMARY_PAUSE: Duration = Duration::from_millis(100);
/// Smallest pause between two writes that only count calls.
pub const CALLS_PAUSE: Duration = Duration::from_secs(5);
/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(1);

/// An object that has a status of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// One that people write.
    Object(ObjectRef),
    /// A head.
    Table(ObjectKey),
}

impl Target {
    /// `namespace/name`.
    pub fn key(&self) -> &ObjectKey {
        match self {
            Self::Object(object) => &object.key,
            Self::Table(key) => key,
        }
    }

    /// The kind's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Object(object) => match object.kind {
                Kind::Assistant => "Assistant",
                Kind::PhoneNumber => "PhoneNumber",
                Kind::SipGateway => "SipGateway",
                Kind::SipTrunk => "SipTrunk",
                Kind::TransferDestination => "TransferDestination",
            },
            Self::Table(_) => "RoutingTable",
        }
    }
}

/// Which statuses are due.
#[derive(Debug, Default)]
pub struct Reports {
    queue: VecDeque<Target>,
    queued: BTreeSet<Target>,
    delayed: Delayed,
    in_flight: BTreeSet<Target>,
    pending_since: BTreeMap<Target, Instant>,
    /// The version against which a status was written last: the watch hasn't shown what came of it while it shows that.
    written_on: BTreeMap<Target, String>,
    written_at: BTreeMap<Target, Instant>,
}

impl Reports {
    /// Gives a status a turn.
    pub fn mark(&mut self, target: Target) {
        if self.queued.insert(target.clone()) {
            self.queue.push_back(target);
        }
    }

    /// Gives a status that sums up what others say a turn soon: after theirs, and one for what happens until then.
    pub fn mark_summary(&mut self, target: Target, now: Instant) {
        self.mark_at(target, now + SUMMARY_PAUSE);
    }

    /// Gives a status a turn at `due`, unless it has one before.
    pub fn mark_at(&mut self, target: Target, due: Instant) {
        self.delayed.put(target, due);
    }

    /// The next status whose turn it is, if another may be written.
    pub fn next(&mut self, now: Instant) -> Option<Target> {
        while let Some(target) = self.delayed.take_due(now) {
            self.mark(target);
        }
        if self.in_flight.len() >= CONCURRENT {
            return None;
        }
        // One that is being written gets its turn when that is done.
        let free = self.queue.iter().position(|target| !self.in_flight.contains(target))?;
        let target = self.queue.remove(free)?;
        self.queued.remove(&target);
        Some(target)
    }

    /// When a delayed status is due.
    pub fn wake(&self) -> Option<Instant> {
        self.delayed.first()
    }

    /// Whether the watch still shows the version that was written to.
    pub fn is_settling(&self, target: &Target, resource_version: &str) -> bool {
        self.written_on.get(target).is_some_and(|version| version == resource_version)
    }

    /// When a status that says "waiting for gateways" may be written; `None`: now.
    pub fn pending_until(&mut self, target: &Target, pending: bool, now: Instant) -> Option<Instant> {
        if !pending {
            self.pending_since.remove(target);
            return None;
        }
        let due = *self.pending_since.entry(target.clone()).or_insert(now) + PENDING_GRACE;
        (due > now).then_some(due)
    }

    /// When a status that only counts calls may be written; `None`: now.
    pub fn calls_until(&self, target: &Target, now: Instant) -> Option<Instant> {
        self.written_at.get(target).map(|at| *at + CALLS_PAUSE).filter(|due| *due > now)
    }

    /// Notes that a status is being written against a version of its object.
    pub fn begin(&mut self, target: Target, resource_version: String) {
        self.in_flight.insert(target.clone());
        self.written_on.insert(target, resource_version);
    }

    /// Takes in how a write ended. Returns whether it did what it should.
    pub fn done(&mut self, target: Target, outcome: &Result<String, ApiError>, now: Instant) -> bool {
        self.in_flight.remove(&target);
        match outcome {
            Ok(version) => {
                if self.is_settling(&target, version) {
                    // It said so already: the watch will show nothing new.
                    self.written_on.remove(&target);
                }
                self.written_at.insert(target, now);
                true
            }
            Err(error) => {
                self.written_on.remove(&target);
                if !(error.is_conflict() || error.is_not_found()) {
                    self.mark_at(target, now + RETRY);
                    return false;
                }
                // Should the newer object have arrived while this was under way, its turn is still in the queue.
                true
            }
        }
    }

    /// Forgets what is known of an object that is gone.
    pub fn forget(&mut self, target: &Target) {
        self.delayed.forget(target);
        self.pending_since.remove(target);
        self.written_on.remove(target);
        self.written_at.remove(target);
    }

    /// Forgets everything: the term has ended.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What is due later, by time: ten thousand that wait cost nothing while they do.
#[derive(Debug, Default)]
struct Delayed {
    due: BTreeMap<Target, Instant>,
    by_time: BTreeSet<(Instant, Target)>,
}

impl Delayed {
    /// The earlier time holds.
    fn put(&mut self, target: Target, due: Instant) {
        if self.due.get(&target).is_some_and(|known| *known <= due) {
            return;
        }
        self.forget(&target);
        self.by_time.insert((due, target.clone()));
        self.due.insert(target, due);
    }

    fn take_due(&mut self, now: Instant) -> Option<Target> {
        if self.first()? > now {
            return None;
        }
        let (_, target) = self.by_time.pop_first()?;
        self.due.remove(&target);
        Some(target)
    }

    fn first(&self) -> Option<Instant> {
        self.by_time.first().map(|(due, _)| *due)
    }

    fn forget(&mut self, target: &Target) {
        if let Some((target, due)) = self.due.remove_entry(target) {
            self.by_time.remove(&(due, target));
        }
    }
}

/// Writes one status against `resource_version`; returns the version that came of it.
pub async fn put(
    client: Client,
    term: Term,
    target: Target,
    resource_version: String,
    mut patch: Value,
) -> Result<String, ApiError> {
    patch["metadata"] = json!({ "resourceVersion": resource_version });
    match &target {
        Target::Table(_) => patch_status::<RoutingTable>(client, term, &target, patch).await,
        Target::Object(object) => match object.kind {
            Kind::Assistant => patch_status::<Assistant>(client, term, &target, patch).await,
            Kind::PhoneNumber => patch_status::<PhoneNumber>(client, term, &target, patch).await,
            Kind::SipGateway => patch_status::<SipGateway>(client, term, &target, patch).await,
            Kind::SipTrunk => patch_status::<SipTrunk>(client, term, &target, patch).await,
            Kind::TransferDestination => {
                patch_status::<TransferDestination>(client, term, &target, patch).await
            }
        },
    }
}

async fn patch_status<K>(
    client: Client,
    term: Term,
    target: &Target,
    patch: Value,
) -> Result<String, ApiError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let key = target.key();
    let api: Api<K> = Api::namespaced(client, &key.namespace);
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let what = format!("write the status of {} {key}", target.kind());
    let written = write(&term, what, api.patch_status(&key.name, &params, &Patch::Merge(patch))).await?;
    Ok(written.resource_version().unwrap_or_default())
}
