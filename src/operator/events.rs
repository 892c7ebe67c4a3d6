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
    /// What the change from `before` to `after` is worth saying, if anything.
    pub fn of(regarding: ObjectReference, before: &[Condition], after: &[Condition]) -> Option<Self> {
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
        Some(Self { regarding, event })
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
