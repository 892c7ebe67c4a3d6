//! The spans of one call, built along the way by the driver: the call, each leg that is dialled, each transfer.
//!
//! ```text
//! call ─┬─ dial agent
//!       └─ transfer ─┬─ dial destination
//!                    └─ dial destination
//! ```
//!
//! Nothing is kept of a call while traces are off, or when it isn't sampled. No attribute has a number of anybody: a destination is the
//! name that the assistant lists it by.

use std::collections::BTreeMap;

use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::Span;

use super::call_id::CallId;
use crate::call::{Call, LegKey, Message, Outcome, Record, TransferRecord};
use crate::routing::table::ObjectKey;
use crate::sip::event::LegEvent;
use crate::spans::tracer;

/// See the module.
pub(super) struct CallSpans {
    call: Context,
    transfer: Option<Context>,
    dials: BTreeMap<LegKey, Span>,
    answered: bool,
}

impl CallSpans {
    /// A call begins; `None` if nobody wants to know.
    pub(super) fn begin(id: CallId, call: &Call) -> Option<Box<Self>> {
        let tracer = tracer()?;
        let name = if call.is_test() { "test destination" } else { "call" };
        let mut attributes = vec![
            KeyValue::new("voicedock.call.id", id.to_string()),
            KeyValue::new("voicedock.number", call.object().to_string()),
            KeyValue::new("voicedock.trunk", call.trunk().to_string()),
        ];
        attributes.extend(call.assistant().map(|key| KeyValue::new("voicedock.assistant", key.to_string())));
        let builder = tracer.span_builder(name).with_kind(SpanKind::Server).with_attributes(attributes);
        let span = tracer.build_with_context(builder, &Context::new());
        span.is_recording().then(|| {
            let call = Context::new().with_span(span);
            Box::new(Self { call, transfer: None, dials: BTreeMap::new(), answered: false })
        })
    }

    /// A leg is dialled; over a trunk, or without one.
    pub(super) fn dialled(&mut self, leg: LegKey, trunk: Option<&ObjectKey>) {
        let Some(tracer) = tracer() else { return };
        let parent = self.transfer.as_ref().unwrap_or(&self.call);
        let agent = self.transfer.is_none() && trunk.is_none();
        let name = if agent { "dial agent" } else { "dial destination" };
        let trunk = trunk.map(|trunk| KeyValue::new("voicedock.trunk", trunk.to_string()));
        let builder = tracer.span_builder(name).with_kind(SpanKind::Client).with_attributes(trunk);
        self.dials.insert(leg, tracer.build_with_context(builder, parent));
    }

    /// Something happened on a leg: what ends its dialling counts.
    pub(super) fn heard(&mut self, leg: LegKey, event: &LegEvent) {
        let (code, status) = match event {
            LegEvent::Answered { .. } => (200, Status::Ok),
            // Its reason phrase is a stranger's: it may name anybody.
            LegEvent::Refused { code, .. } => (*code, Status::error(code.to_string())),
            LegEvent::Ended(_) => (487, Status::Unset),
            _ => return,
        };
        let Some(mut span) = self.dials.remove(&leg) else { return };
        span.set_attribute(KeyValue::new("sip.response.status_code", i64::from(code)));
        span.set_status(status);
        span.end();
    }

    /// Something happened in the call; `destination` is the name of a transfer's destination.
    pub(super) fn note(&mut self, record: &Record, destination: &str) {
        match record {
            Record::Answered => {
                self.answered = true;
                self.call.span().add_event("answered", Vec::new());
            }
            Record::TransferStarted { .. } => self.transfer = self.begun(),
            Record::TransferRinging => self.event("ringing"),
            Record::TransferForwarded { .. } => self.event("next destination"),
            Record::NextHost { .. } => self.event("next host"),
            Record::Message(Message::Heard) => self.event("message heard"),
            Record::Message(Message::NotHeard(_)) => self.event("message not heard"),
            Record::TransferEnded(ended) => self.transferred(ended, destination),
            Record::Tested(ended) => {
                let attributes = outcome(ended);
                self.call.span().set_attributes(attributes);
                self.answered = matches!(ended.last.outcome, Outcome::Answered(_));
            }
            Record::Ended { reason } => self.end(reason),
            Record::TransferDialling { .. }
            | Record::Replaced { .. }
            | Record::PickedUp
            | Record::NotTold(_)
            | Record::AgentFailed(_)
            | Record::AgentUnavailable { .. }
            | Record::FallbackRefused(_) => {}
        }
    }

    fn begun(&self) -> Option<Context> {
        let tracer = tracer()?;
        let span = tracer.build_with_context(tracer.span_builder("transfer"), &self.call);
        Some(self.call.with_span(span))
    }

    fn event(&self, name: &'static str) {
        self.transfer.as_ref().unwrap_or(&self.call).span().add_event(name, Vec::new());
    }

    fn transferred(&mut self, ended: &TransferRecord, destination: &str) {
        // One that was refused at once has not begun.
        let Some(transfer) = self.transfer.take().or_else(|| self.begun()) else { return };
        let span = transfer.span();
        span.set_attributes(outcome(ended));
        span.set_attribute(KeyValue::new("voicedock.destination", destination.to_owned()));
        span.set_status(match &ended.last.outcome {
            Outcome::Answered(_) => Status::Ok,
            outcome => Status::error(outcome.as_str()),
        });
        span.end();
    }

    fn end(&mut self, reason: &'static str) {
        self.dials.clear();
        self.transfer = None;
        let span = self.call.span();
        span.set_attribute(KeyValue::new("voicedock.end_reason", reason));
        span.set_attribute(KeyValue::new("voicedock.answered", self.answered));
        span.set_status(if self.answered && reason != "fault" { Status::Ok } else { Status::error(reason) });
        span.end();
    }
}

fn outcome(ended: &TransferRecord) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("voicedock.outcome", ended.last.outcome.as_str()),
        KeyValue::new("voicedock.attempts", ended.attempts() as i64),
        KeyValue::new("voicedock.ring_seconds", ended.ring_time().as_secs() as i64),
    ];
    let code = ended.last.sip_code.map(|code| KeyValue::new("sip.response.status_code", i64::from(code)));
    let trunk = ended.last.trunk.as_ref().map(|trunk| KeyValue::new("voicedock.trunk", trunk.to_string()));
    attributes.extend(code.into_iter().chain(trunk));
    attributes
}
