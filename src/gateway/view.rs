//! What a call shows of itself: the API's view, the log lines. Nothing personal at INFO: no numbers of callers.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::call_id::CallId;
use super::calls::{CallStatus, CallView, Calls, Direction, Message, Outcome, TransferOutcome, Tried};
use super::events;
use crate::call::{self, Call, Place, Record, Status};
use crate::routing::table::ObjectKey;

/// The view of one call, kept by its shard and recorded when it changes.
pub(super) struct View {
    /// Shared with whoever reads it until something changes: it is held for as long as the call.
    shown: Arc<CallView>,
    /// When somebody answered it.
    answered_at: Option<Timestamp>,
    /// From the answer to the request for the last transfer.
    pub(super) time_to_transfer: Option<Duration>,
}

impl View {
    /// The view of a call that just came in.
    pub(super) fn new(id: CallId, call: &Call) -> Self {
        let shown = CallView {
            id,
            caller_phone: if call.is_test() { None } else { caller_phone(call) },
            assistant_phone: call.number().clone(),
            status: CallStatus::Connecting,
            direction: if call.is_test() { Direction::Outbound } else { Direction::Inbound },
            end_reason: None,
            error: None,
            started_at: Timestamp::now(),
            ended_at: None,
            duration_seconds: None,
            messages: [],
            agent_id: call.assistant().cloned(),
            number_id: Some(call.object().clone()),
            trunk_id: if call.is_test() { None } else { Some(Arc::new(call.trunk().clone())) },
            transferring_to: None,
            transfers: Vec::new(),
        };
        Self { shown: Arc::new(shown), answered_at: None, time_to_transfer: None }
    }

    /// Takes note of what happened.
    pub(super) fn note(&mut self, record: &Record, call: &Call) {
        match record {
            Record::Replaced { place: Place::Caller, joined: true } => {
                self.change().caller_phone = caller_phone(call)
            }
            Record::TransferEnded(ended) | Record::Tested(ended) => {
                let last = tried(&ended.last);
                let shown = self.change();
                shown.transferring_to = None;
                shown.transfers.push(TransferOutcome {
                    outcome: last.outcome,
                    sip_code: last.sip_code,
                    reason: Some(last.reason),
                    destination: last.destination,
                    trunk: last.trunk,
                    attempts: u32::try_from(ended.attempts()).unwrap_or(u32::MAX),
                    ring_seconds: seconds(ended.ring_time()),
                    message: last.message,
                    tries: ended.tries().map(tried).collect(),
                    at: Timestamp::now(),
                });
            }
            Record::Answered => self.answered_at = Some(Timestamp::now()),
            Record::TransferStarted { destination } => {
                let since = |answered: Timestamp| Duration::try_from(Timestamp::now() - answered).ok();
                self.time_to_transfer = self.answered_at.and_then(since);
                self.change().transferring_to = Some(destination.clone());
            }
            Record::TransferDialling { destination } | Record::TransferForwarded { destination } => {
                self.change().transferring_to = Some(destination.clone());
            }
            Record::Ended { reason } => {
                let shown = self.change();
                shown.end_reason = Some((*reason).to_owned());
                shown.ended_at = Some(Timestamp::now());
            }
            Record::Message(_)
            | Record::Replaced { .. }
            | Record::PickedUp
            | Record::NextHost { .. }
            | Record::TransferRinging
            | Record::NotTold(_)
            | Record::AgentFailed(_)
            | Record::AgentUnavailable { .. }
            | Record::FallbackRefused(_) => {}
        }
    }

    /// Makes the view visible.
    pub(super) fn publish(&mut self, call: &Call, calls: &Calls) {
        let shown = self.change();
        shown.status = match call.status() {
            _ if shown.error.is_some() => CallStatus::Failed,
            Status::Connecting => CallStatus::Connecting,
            Status::InProgress => CallStatus::InProgress,
            Status::Ended => CallStatus::Ended,
            Status::Failed => CallStatus::Failed,
        };
        calls.record(Arc::clone(&self.shown), Timestamp::now());
    }

    /// What is shown from the next time on that it is published.
    fn change(&mut self) -> &mut CallView {
        Arc::make_mut(&mut self.shown)
    }

    /// Whether the caller was joined with a human.
    pub(super) fn was_transferred(&self) -> bool {
        self.shown.transfers.iter().any(|transfer| transfer.outcome == Outcome::Answered)
    }

    /// Whether somebody answered.
    pub(super) fn was_answered(&self) -> bool {
        self.answered_at.is_some()
    }

    /// What the call's owner is told now that this has happened.
    pub(super) fn messages(&self, record: &Record) -> Vec<events::message::Message> {
        events::message::messages(
            &self.shown,
            record,
            self.shown.transferring_to.as_deref(),
            Timestamp::now(),
        )
    }

    /// One log line a record: that of a transfer's outcome and that of the call's end say all there is to know of them.
    pub(super) fn log(&self, record: &Record, trunk: &ObjectKey, destination: &str) {
        let call = self.shown.id;
        let assistant = self.shown.agent_id.as_ref().map(tracing::field::display);
        match record {
            Record::Tested(ended) => tracing::info!(
                %call,
                outcome = ended.last.outcome.as_str(),
                sip_code = ended.last.sip_code,
                trunk = ended.last.trunk.as_ref().map(tracing::field::display),
                attempts = ended.attempts(),
                ring_seconds = ended.ring_time().as_secs(),
                "destination tested"
            ),
            Record::TransferEnded(ended) => tracing::info!(
                %call,
                assistant,
                destination,
                outcome = ended.last.outcome.as_str(),
                sip_code = ended.last.sip_code,
                trunk = ended.last.trunk.as_ref().map(tracing::field::display),
                attempts = ended.attempts(),
                ring_seconds = ended.ring_time().as_secs(),
                seconds_to_transfer = self.time_to_transfer.map(|time| time.as_secs()),
                message_heard = ended.last.message.as_ref().map(|message| *message == call::Message::Heard),
                asked_by = ?ended.asked_by,
                "transfer ended"
            ),
            Record::Ended { reason } => tracing::info!(
                %call,
                number = self.shown.number_id.as_ref().map(tracing::field::display),
                assistant,
                %trunk,
                reason,
                answered = self.was_answered(),
                seconds = self.shown.ended_at.map(|ended| (ended - self.shown.started_at).get_seconds()),
                transfers = self.shown.transfers.len(),
                transferred = self.was_transferred(),
                "call ended"
            ),
            record => log(call, record),
        }
    }

    /// The call's machine failed. What ends the call now, if it isn't over yet.
    pub(super) fn fault(&mut self) -> Option<Record> {
        if self.shown.ended_at.is_some() {
            return None;
        }
        self.change().error = Some("a fault in the gateway ended this call".into());
        Some(Record::Ended { reason: "fault" })
    }
}

fn caller_phone(call: &Call) -> Option<String> {
    let caller = call.caller_number();
    (!caller.is_empty() && caller != "anonymous").then(|| caller.to_owned())
}

fn tried(tried: &call::Try) -> Tried {
    Tried {
        destination: tried.destination.clone(),
        trunk: tried.trunk.clone(),
        host: tried.host.clone(),
        outcome: outcome(&tried.outcome),
        sip_code: tried.sip_code,
        reason: tried.reason.clone(),
        ring_seconds: seconds(tried.ring_time),
        message: tried.message.as_ref().map(message),
    }
}

fn message(message: &call::Message) -> Message {
    match message {
        call::Message::Heard => Message { heard: true, reason: None },
        call::Message::NotHeard(why) => Message { heard: false, reason: Some(why.clone()) },
    }
}

fn seconds(span: Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX)
}

fn outcome(outcome: &call::Outcome) -> Outcome {
    match outcome {
        call::Outcome::Answered(_) => Outcome::Answered,
        call::Outcome::Busy => Outcome::Busy,
        call::Outcome::NoAnswer => Outcome::NoAnswer,
        call::Outcome::Rejected => Outcome::Rejected,
        call::Outcome::Unreachable => Outcome::Unreachable,
        call::Outcome::Closed => Outcome::Closed,
        call::Outcome::NotAllowed => Outcome::NotAllowed,
        call::Outcome::CallerHungUp => Outcome::CallerHungUp,
        call::Outcome::Unknown => Outcome::Unknown,
    }
}

fn log(call: CallId, record: &Record) {
    match record {
        Record::Answered => tracing::info!(%call, "call answered"),
        Record::TransferStarted { .. } => tracing::info!(%call, "transfer begins"),
        Record::TransferDialling { .. } => tracing::info!(%call, "transfer: a destination is dialled"),
        Record::Message(call::Message::Heard) => tracing::info!(%call, "transfer: the message was heard"),
        Record::Message(call::Message::NotHeard(why)) => {
            tracing::warn!(%call, "transfer: its message was not heard, and doesn't hold it up: {why}");
        }
        Record::TransferForwarded { .. } => {
            tracing::info!(%call, "transfer: the destination can't be had, the next one follows");
        }
        Record::NextHost { trunk } => tracing::warn!(
            %call,
            trunk = trunk.as_ref().map(tracing::field::display),
            "a host of the trunk doesn't take the call, the next one is tried"
        ),
        Record::Replaced { place, joined } => {
            let whose = match place {
                Place::Caller => "caller",
                Place::Human => "human",
            };
            if *joined {
                tracing::info!(%call, "another phone has taken the {whose}'s place (Replaces)");
            } else {
                tracing::warn!(%call, "another phone could not take the {whose}'s place (Replaces)");
            }
        }
        Record::PickedUp => tracing::info!(%call, "another phone picks the ringing call up (Replaces)"),
        Record::TransferRinging => tracing::info!(%call, "transfer: destination rings"),
        Record::NotTold(why) => tracing::warn!(%call, "the agent did not do what it was told: {why}"),
        Record::AgentFailed(why) => tracing::warn!(%call, "the assistant's agent is given up: {why}"),
        Record::AgentUnavailable { code } => {
            tracing::warn!(%call, code, "the assistant's agent can't be reached; trying the next address or the fallback");
        }
        Record::FallbackRefused(refusal) => tracing::warn!(%call, "the fallback is not dialled: {refusal}"),
        // See `View::log`.
        Record::TransferEnded(_) | Record::Tested(_) | Record::Ended { .. } => {}
    }
}
