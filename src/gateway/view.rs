//! What a call shows of itself: the API's view, the log lines. Nothing personal at INFO: no numbers of callers.

use std::time::Duration;

use jiff::Timestamp;

use super::call_id::CallId;
use super::calls::{CallStatus, CallView, Calls, Direction, Message, Outcome, TransferOutcome, Tried};
use crate::call::{self, Call, Place, Record, Status};

/// The view of one call, kept by its shard and recorded when it changes.
pub(super) struct View(CallView);

impl View {
    /// The view of a call that just came in.
    pub(super) fn new(id: CallId, call: &Call) -> Self {
        Self(CallView {
            id,
            caller_phone: caller_phone(call),
            assistant_phone: call.number().clone(),
            status: CallStatus::Connecting,
            direction: Direction::Inbound,
            end_reason: None,
            error: None,
            started_at: Timestamp::now(),
            ended_at: None,
            duration_seconds: None,
            messages: [],
            agent_id: call.assistant().cloned(),
            number_id: Some(call.object().clone()),
            transfers: Vec::new(),
        })
    }

    /// Takes note of what happened.
    pub(super) fn note(&mut self, record: &Record, call: &Call) {
        match record {
            Record::Replaced { place: Place::Caller, joined: true } => {
                self.0.caller_phone = caller_phone(call)
            }
            Record::TransferEnded(ended) => {
                let last = tried(&ended.last);
                self.0.transfers.push(TransferOutcome {
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
            Record::Ended { reason } => {
                self.0.end_reason = Some((*reason).to_owned());
                self.0.ended_at = Some(Timestamp::now());
            }
            Record::Answered
            | Record::TransferStarted { .. }
            | Record::Message(_)
            | Record::Replaced { .. }
            | Record::PickedUp
            | Record::TransferForwarded { .. }
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
        self.0.status = match call.status() {
            Status::Connecting => CallStatus::Connecting,
            Status::InProgress => CallStatus::InProgress,
            Status::Ended => CallStatus::Ended,
            Status::Failed => CallStatus::Failed,
        };
        calls.record(self.0.clone(), Timestamp::now());
    }

    /// The call's machine failed.
    pub(super) fn fault(&mut self, calls: &Calls) {
        self.0.status = CallStatus::Failed;
        self.0.end_reason = Some("fault".into());
        self.0.error = Some("a fault in the gateway ended this call".into());
        self.0.ended_at = Some(Timestamp::now());
        calls.record(self.0.clone(), Timestamp::now());
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

/// One log line a record.
pub(super) fn log(call: CallId, record: &Record) {
    match record {
        Record::Answered => tracing::info!(%call, "call answered"),
        Record::TransferStarted { .. } => tracing::info!(%call, "transfer begins"),
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
        Record::TransferEnded(ended) => tracing::info!(
            %call,
            outcome = ended.last.outcome.as_str(),
            sip_code = ended.last.sip_code,
            trunk = ended.last.trunk.as_ref().map(tracing::field::display),
            attempts = ended.attempts(),
            ring_seconds = ended.ring_time().as_secs(),
            asked_by = ?ended.asked_by,
            "transfer ended"
        ),
        Record::NotTold(why) => tracing::warn!(%call, "the agent did not do what it was told: {why}"),
        Record::AgentFailed(why) => tracing::warn!(%call, "the assistant's agent is given up: {why}"),
        Record::AgentUnavailable { code } => {
            tracing::warn!(%call, code, "the assistant's agent can't be reached; trying the next address or the fallback");
        }
        Record::FallbackRefused(refusal) => tracing::warn!(%call, "the fallback is not dialled: {refusal}"),
        Record::Ended { reason } => tracing::info!(%call, reason, "call ended"),
    }
}
