//! Kubernetes Events: what `kubectl describe` shows when an object stops being ready and when it is again, and when a gateway is
//! scaled.
//!
//! An object that comes up without trouble makes none, so that 10,000 new objects don't cost 10,000 events. Events are written
//! behind everything else, a bounded number waits, and what doesn't fit is left out: the conditions say the same.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::resources::conditions::{Condition, ConditionStatus, condition, reason};
use crate::routing::compile::SPEC_ACCEPTED;

use super::api::{FIELD_MANAGER, read};
use super::metrics::Metrics;
use super::scaling::Scaled;

/// Events that wait to be written.
const WAITING: usize = 256;

/// An event and whom it regards.
pub struct Notice {
    regarding: ObjectReference,
    event: Event,
}

impl Notice {
    /// What the change from `before` to `after` is worth saying, if anything: that it isn't ready, or is again; else what the one
    /// who wrote it should know although it is accepted.
    pub fn of(regarding: ObjectReference, before: &[Condition], after: &[Condition]) -> Option<Self> {
        Self::of_readiness(&regarding, before, after).or_else(|| Self::remark(regarding, before, after))
    }

    fn of_readiness(regarding: &ObjectReference, before: &[Condition], after: &[Condition]) -> Option<Self> {
        let ready =
            |conditions: &[Condition]| conditions.iter().find(|c| c.type_ == condition::READY).cloned();
        let (before, after) = (ready(before), ready(after)?);
        let said = |condition: &Condition| (condition.status, condition.reason.clone());
        if before.as_ref().map(said) == Some(said(&after)) {
            return None;
        }
        let type_ = match after.status {
            // Waiting for gateways passes by itself.
            ConditionStatus::False if after.reason != reason::PENDING => EventType::Warning,
            ConditionStatus::True if before.is_some_and(|b| b.reason != reason::PENDING) => EventType::Normal,
            _ => return None,
        };
        let event = Event {
            type_,
            reason: after.reason,
            note: Some(after.message.chars().take(1000).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        Some(Self { regarding: regarding.clone(), event })
    }

    fn remark(regarding: ObjectReference, before: &[Condition], after: &[Condition]) -> Option<Self> {
        let accepted = |conditions: &[Condition]| {
            let found = conditions.iter().find(|found| found.type_ == condition::ACCEPTED);
            found.filter(|found| found.status == ConditionStatus::True).map(|found| found.message.clone())
        };
        let said = accepted(after).filter(|said| accepted(before).as_ref() != Some(said))?;
        let note = said.strip_prefix(SPEC_ACCEPTED)?.trim_start();
        let event = Event {
            type_: EventType::Normal,
            reason: reason::ACCEPTED.to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        (!note.is_empty()).then_some(Self { regarding, event })
    }

    /// A gateway was scaled.
    pub fn scaled(regarding: ObjectReference, scaled: &Scaled) -> Self {
        let reason = if scaled.to > scaled.from { "ScaledUp" } else { "ScaledDown" };
        let event = Event {
            type_: EventType::Normal,
            reason: reason.to_owned(),
            note: Some(format!("The gateway was {scaled}.")),
            action: "Scale".to_owned(),
            secondary: None,
        };
        Self { regarding, event }
    }
}

/// Takes events and never blocks.
#[derive(Clone)]
pub struct Events {
    waiting: mpsc::Sender<Notice>,
    metrics: Arc<Metrics>,
}

impl Events {
    /// Starts a writer that runs until `stop`.
    pub fn start(client: Client, instance: &str, metrics: Arc<Metrics>, stop: CancellationToken) -> Self {
        let (waiting, mut notices) = mpsc::channel::<Notice>(WAITING);
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(instance.to_owned()) };
        let recorder = Recorder::new(client, reporter);
        let counted = metrics.clone();
        tokio::spawn(async move {
            loop {
                let notice = tokio::select! {
                    () = stop.cancelled() => return,
                    notice = notices.recv() => notice,
                };
                let Some(Notice { regarding, event }) = notice else { return };
                match read("write an Event", recorder.publish(&event, &regarding)).await {
                    Ok(()) => counted.wrote("Event"),
                    Err(error) => {
                        counted.failed("event");
                        debug!("{error}");
                    }
                }
            }
        });
        Self { waiting, metrics }
    }

    /// Has an event written.
    pub fn tell(&self, notice: Notice) {
        if self.waiting.try_send(notice).is_err() {
            self.metrics.failed("event");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(accepted: &str, ready: ConditionStatus, why: &str) -> Vec<Condition> {
        let condition = |type_: &str, status, reason: &str, message: &str| Condition {
            type_: type_.to_owned(),
            status,
            observed_generation: 1,
            last_transition_time: String::new(),
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        vec![
            condition(condition::ACCEPTED, ConditionStatus::True, reason::ACCEPTED, accepted),
            condition(condition::READY, ready, why, "…"),
        ]
    }

    fn said(before: &[Condition], after: &[Condition]) -> Option<(String, String)> {
        let notice = Notice::of(ObjectReference::default(), before, after)?;
        Some((notice.event.reason, notice.event.note.unwrap_or_default()))
    }

    #[test]
    fn a_remark_about_an_accepted_object_is_an_event_once() {
        let plain = conditions(SPEC_ACCEPTED, ConditionStatus::False, reason::PENDING);
        let mapped = format!("{SPEC_ACCEPTED} gpt-realtime answers.");
        let remarked = conditions(&mapped, ConditionStatus::False, reason::PENDING);
        let ready = conditions(&mapped, ConditionStatus::True, reason::READY);
        assert_eq!(said(&[], &plain), None, "an object without trouble makes none");
        let event = Some((reason::ACCEPTED.to_owned(), "gpt-realtime answers.".to_owned()));
        assert_eq!(said(&[], &remarked), event);
        assert_eq!(said(&plain, &remarked), event);
        assert_eq!(said(&remarked, &ready), None, "it was said");
    }
}
