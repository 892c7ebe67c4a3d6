//! The calls of this pod as its HTTP shows them: what `GET /api/v1/calls` answers, without asking a shard.
//!
//! Shards record a [`CallView`] whenever something that it shows has changed; a call that is over stays visible for
//! [`KEEP_SECONDS`], at most [`KEEP_CALLS`] of them. Recording never waits for a reader for longer than it takes to
//! copy pointers.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::call_id::CallId;
use crate::memory::give_back;
use crate::routing::table::{E164, ObjectKey};

/// Seconds that a call which is over stays visible.
pub const KEEP_SECONDS: i64 = 3600;
/// Calls which are over that stay visible; the oldest go first.
pub const KEEP_CALLS: usize = 1000;

/// One call, in the field names of the product's API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CallView {
    /// Names the call.
    #[schemars(with = "String")]
    pub id: CallId,
    /// The caller's number as the trunk gave it; absent when the caller withheld it.
    pub caller_phone: Option<String>,
    /// The number that was called.
    #[schemars(with = "String")]
    pub assistant_phone: E164,
    /// How far the call is.
    pub status: CallStatus,
    /// Who called whom.
    pub direction: Direction,
    /// Why the call ended, one of a few fixed words such as `caller-hung-up`.
    pub end_reason: Option<String>,
    /// What went wrong, as a sentence.
    pub error: Option<String>,
    /// When the call came in.
    #[serde(serialize_with = "milliseconds")]
    #[schemars(with = "String")]
    pub started_at: Timestamp,
    /// When it was over.
    #[serde(serialize_with = "optional_milliseconds")]
    #[schemars(with = "Option<String>")]
    pub ended_at: Option<Timestamp>,
    /// Whole seconds from `started_at` to `ended_at`; set when the call is recorded as over.
    pub duration_seconds: Option<i64>,
    /// Always empty: a gateway carries the signalling, it doesn't hear what is said.
    #[schemars(with = "Vec<String>")]
    pub messages: [(); 0],
    /// The Assistant, `namespace/name`.
    #[schemars(with = "Option<String>")]
    pub agent_id: Option<ObjectKey>,
    /// The PhoneNumber, `namespace/name`.
    #[schemars(with = "Option<String>")]
    pub number_id: Option<ObjectKey>,
    /// The SipTrunk that the call came in over, `namespace/name`; absent when the gateway calls by itself.
    #[schemars(with = "Option<String>")]
    pub trunk_id: Option<Arc<ObjectKey>>,
    /// Whom a transfer that is under way is at: the destination's name, the number or the URI.
    pub transferring_to: Option<String>,
    /// What became of the call's transfers, oldest first.
    pub transfers: Vec<TransferOutcome>,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CallStatus {
    /// Nobody has answered yet.
    Connecting,
    /// Someone has: the assistant, or after a transfer a human.
    InProgress,
    /// It was answered and is over.
    Ended,
    /// It is over and was never answered.
    Failed,
}

impl CallStatus {
    /// Whether the call is over.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Failed)
    }
}

impl CallView {
    /// Whether the call is not over, or has been for less than `seconds`.
    pub fn was_there_within(&self, seconds: i64, now: Timestamp) -> bool {
        let lately = |ended: Timestamp| now.as_second() - ended.as_second() < seconds;
        !self.status.is_over() || self.ended_at.is_some_and(lately)
    }
}

/// Who called whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// A caller called the number.
    Inbound,
    /// Nobody called: the gateway tests a destination, as the number.
    Outbound,
}

/// What became of one transfer: the same in the API, in logs and in the answer to an agent that asked with REFER.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TransferOutcome {
    /// The outcome.
    pub outcome: Outcome,
    /// The final SIP status that decided it.
    pub sip_code: Option<u16>,
    /// Its reason phrase, or why nothing was dialled.
    pub reason: Option<String>,
    /// The destination's name, the number or the URI.
    pub destination: String,
    /// The trunk that carried it; absent for a URI that was dialled directly, or when nothing was dialled.
    #[schemars(with = "Option<String>")]
    pub trunk: Option<ObjectKey>,
    /// INVITEs and REFERs that were sent.
    pub attempts: u32,
    /// Whole seconds that it rang, all together.
    pub ring_seconds: u32,
    /// What became of the message before it; absent when there was none.
    pub message: Option<Message>,
    /// Everything that was tried, in order; the fields above are those of the last one.
    pub tries: Vec<Tried>,
    /// When the outcome was known.
    #[serde(serialize_with = "milliseconds")]
    #[schemars(with = "String")]
    pub at: Timestamp,
}

/// One destination of a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Tried {
    /// Its name, the number or the URI.
    pub destination: String,
    /// The trunk that carried it.
    #[schemars(with = "Option<String>")]
    pub trunk: Option<ObjectKey>,
    /// The host that was sent an INVITE; absent when none was, because the destination was closed for example.
    pub host: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// The final SIP status.
    pub sip_code: Option<u16>,
    /// Its reason phrase, or why nothing was dialled.
    pub reason: String,
    /// Whole seconds that it rang.
    pub ring_seconds: u32,
    /// What became of the message before it; absent when there was none.
    pub message: Option<Message>,
}

/// What became of the message before a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Message {
    /// Whether the caller heard it to its end.
    pub heard: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The human has the caller.
    Answered,
    /// 486 or 600.
    Busy,
    /// It rang out.
    NoAnswer,
    /// It was refused.
    Rejected,
    /// Nothing answered at all, or the trunk is down.
    Unreachable,
    /// Outside of the destination's hours.
    Closed,
    /// No rule lets it out.
    NotAllowed,
    /// The caller left before it was decided.
    CallerHungUp,
    /// The other side never said.
    Unknown,
}

/// The calls of one shard that are not over.
type Shard = HashMap<CallId, Arc<CallView>>;

/// The calls of this pod.
#[derive(Debug)]
pub struct Calls {
    /// One map a shard, so that shards never wait for each other.
    live: Box<[Mutex<Shard>]>,
    /// Oldest first.
    over: Mutex<VecDeque<Arc<CallView>>>,
}

impl Calls {
    /// No calls yet; for this many shards.
    pub fn new(shards: usize) -> Self {
        Self { live: (0..shards).map(|_| Mutex::default()).collect(), over: Mutex::default() }
    }

    /// Shows a call as it is now. One that is over moves to those that stay visible for a while. `now` is the wall clock.
    pub fn record(&self, view: impl Into<Arc<CallView>>, now: Timestamp) {
        let mut view = view.into();
        let Some(live) = self.live.get(usize::from(view.id.shard)) else { return };
        if !view.status.is_over() {
            locked(live).insert(view.id, view);
            return;
        }
        let id = view.id;
        let last = Arc::make_mut(&mut view);
        let ended = *last.ended_at.get_or_insert(now);
        last.duration_seconds = Some((ended.as_second() - last.started_at.as_second()).max(0));
        // Shown as over before it is hidden as live: a reader in between sees it at least once.
        let mut over = locked(&self.over);
        over.push_back(view);
        forget(&mut over, now);
        drop(over);
        let mut live = locked(live);
        live.remove(&id);
        give_back(&mut live);
    }

    /// One call, live or over for not too long.
    pub fn get(&self, id: CallId, now: Timestamp) -> Option<Arc<CallView>> {
        let live = self.live.get(usize::from(id.shard))?;
        let found = locked(live).get(&id).cloned();
        found.or_else(|| {
            let mut over = locked(&self.over);
            forget(&mut over, now);
            over.iter().rev().find(|view| view.id == id).cloned()
        })
    }

    /// Every visible call, newest first.
    pub fn list(&self, now: Timestamp) -> Vec<Arc<CallView>> {
        let mut views = Shard::new();
        for shard in &self.live {
            views.extend(locked(shard).iter().map(|(id, view)| (*id, Arc::clone(view))));
        }
        let mut over = locked(&self.over);
        forget(&mut over, now);
        views.extend(over.iter().map(|view| (view.id, Arc::clone(view))));
        drop(over);
        let mut views: Vec<_> = views.into_values().collect();
        views.sort_unstable_by_key(|view| Reverse((view.started_at, view.id)));
        views
    }

    /// Calls that are not over.
    pub fn live(&self) -> usize {
        self.live.iter().map(|shard| locked(shard).len()).sum()
    }
}

fn forget(over: &mut VecDeque<Arc<CallView>>, now: Timestamp) {
    let too_old = |view: &CallView| {
        view.ended_at.is_some_and(|ended| now.as_second() - ended.as_second() >= KEEP_SECONDS)
    };
    while over.len() > KEEP_CALLS || over.front().is_some_and(|view| too_old(view)) {
        over.pop_front();
    }
}

/// A panic elsewhere can't leave these maps half changed: each change is one insert or one remove.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// RFC 3339 in UTC, always with milliseconds: texts sort as the times do.
pub(super) fn milliseconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}

fn optional_milliseconds<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => milliseconds(time, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
