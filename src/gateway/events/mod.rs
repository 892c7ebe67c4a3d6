//! What is told of a call to whoever its Assistant names in `events`: signed webhooks, sent beside the calls.
//!
//! ```text
//! POST <events.url>
//! X-Webhook-Event: transfer-update
//! X-Webhook-Id: 6f0c…                  the same when it is sent once more
//! X-Webhook-Timestamp: 1767603600      seconds
//! X-Webhook-Signature: sha256=<HMAC-SHA256 of "<timestamp>.<body>", hexadecimal>
//! ```
//!
//! [`message`] is what is said, [`reach`] where it may go, [`retry`] when it is sent once more. A call never waits for any of this:
//! the queue is bounded, and what doesn't fit is dropped and counted. The events of one call arrive in order; a receiver that is
//! slow or gone holds up its own Assistant's only. Redirects aren't followed, and the answer's body isn't read. Where an event goes
//! and what signs it is looked up for each attempt: a secret that was revoked signs nothing more, one that was exchanged counts at
//! once.

pub(super) mod message;
pub(super) mod reach;
mod retry;
pub(super) mod way;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use backon::{BackoffBuilder, ExponentialBuilder};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::message::Message;
use self::way::{Notice, Way};
use super::snapshot::{Credential, Snapshot};
use crate::metrics::Metrics;
use crate::routing::table::ObjectKey;

/// Events of this pod that may wait, all together: some megabytes.
const WAITING: usize = 8192;
/// Requests at a time for one Assistant; the events of one call go one after the other.
const LANES: u64 = 8;
/// Events that may wait in one of them: one receiver that is gone takes no more than a sixteenth of the room.
const WAITING_IN_LANE: usize = 64;
/// How long a lane without events is kept.
const IDLE: Duration = Duration::from_secs(60);

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fate {
    outcome: &'static str,
}

/// An event on its way.
struct Event {
    /// Its call's serial: which lane it goes in.
    call: u64,
    /// Whose call it is, which says where the event goes.
    assistant: ObjectKey,
    kind: &'static str,
    body: Vec<u8>,
}

/// Sends events. Dropping it lets go of those that wait.
pub(super) struct Events {
    queue: mpsc::Sender<Event>,
    sending: Arc<Sending>,
}

struct Sending {
    way: Way,
    snapshot: Arc<ArcSwap<Snapshot>>,
    waiting: AtomicUsize,
    fates: Family<Fate, Counter>,
}

impl Events {
    /// Starts sending, until `closing`.
    pub(super) fn start(
        way: Way,
        snapshot: Arc<ArcSwap<Snapshot>>,
        metrics: &Metrics,
        closing: CancellationToken,
    ) -> Self {
        let fates = Family::<Fate, Counter>::default();
        metrics.register(|registry| {
            registry.register(
                "events",
                "Events to the URLs of Assistants: delivered, failed after all attempts, or dropped and why",
                fates.clone(),
            );
        });
        let (queue, events) = mpsc::channel(WAITING);
        let sending = Arc::new(Sending { way, snapshot, waiting: AtomicUsize::new(0), fates });
        let sorting = sort(events, Arc::clone(&sending), closing.clone());
        tokio::spawn(async move { closing.run_until_cancelled(sorting).await });
        Self { queue, sending }
    }

    /// Sends an event of the call with this serial to whoever its assistant names, if there is room. Never waits.
    pub(super) fn send(&self, call: u64, assistant: &ObjectKey, message: Message) {
        let Ok(body) = serde_json::to_vec(&message.body) else { return };
        let event = Event { call, assistant: assistant.clone(), kind: message.kind, body };
        // As many as wait in the queue and in all lanes.
        if self.sending.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING
            || self.queue.try_send(event).is_err()
        {
            self.sending.is_over("dropped-queue-full");
        }
    }

    /// Events that wait or are being sent.
    pub(super) fn waiting(&self) -> usize {
        self.sending.waiting.load(Ordering::Relaxed)
    }
}

/// Puts each event into the lane of its assistant and call.
async fn sort(mut events: mpsc::Receiver<Event>, sending: Arc<Sending>, closing: CancellationToken) {
    let mut lanes: HashMap<(ObjectKey, u64), mpsc::Sender<Event>> = HashMap::new();
    while let Some(event) = events.recv().await {
        let name = (event.assistant.clone(), event.call % LANES);
        if !lanes.contains_key(&name) {
            lanes.retain(|_, lane| !lane.is_closed());
        }
        let lane = lanes.entry(name).or_insert_with(|| open(&sending, &closing));
        match lane.try_send(event) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => sending.is_over("dropped-queue-full"),
            // It had nothing to do for long.
            Err(mpsc::error::TrySendError::Closed(event)) => {
                *lane = open(&sending, &closing);
                let _ = lane.try_send(event);
            }
        }
    }
}

/// A lane: a task that sends one event after the other, and ends when it has nothing to do.
fn open(sending: &Arc<Sending>, closing: &CancellationToken) -> mpsc::Sender<Event> {
    let (lane, mut events) = mpsc::channel(WAITING_IN_LANE);
    let (sending, closing) = (Arc::clone(sending), closing.clone());
    tokio::spawn(async move {
        let all = async {
            while let Ok(Some(event)) = tokio::time::timeout(IDLE, events.recv()).await {
                sending.deliver(event).await;
            }
            // What came at the last moment; nothing comes after it.
            events.close();
            while let Some(event) = events.recv().await {
                sending.deliver(event).await;
            }
        };
        closing.run_until_cancelled(all).await
    });
    lane
}

impl Sending {
    /// Sends an event until it is taken, or can't be.
    async fn deliver(&self, event: Event) {
        let id = format!("{:032x}", rand::random::<u128>());
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(retry::FIRST_WAIT)
            .with_max_delay(retry::LONGEST_WAIT)
            .with_max_times(retry::ATTEMPTS - 1)
            .with_jitter()
            .build();
        let outcome = loop {
            let Some((url, secret)) = self.receiver(&event.assistant) else { break "dropped-no-receiver" };
            let notice = Notice { id: &id, kind: event.kind, url: &url, body: &event.body };
            let Err(failure) = self.way.send(&notice, &secret).await else { break "delivered" };
            match waits.next().filter(|_| failure.may_pass()) {
                Some(planned) => tokio::time::sleep(retry::wait(planned, failure.retry_after())).await,
                None => {
                    // The URL is not logged: it may hold a key.
                    let (assistant, event) = (&event.assistant, event.kind);
                    tracing::warn!(%assistant, event, "an event was not delivered: {failure}");
                    break "failed";
                }
            }
        };
        self.is_over(outcome);
    }

    /// The URL that an assistant names now, and the secret; nothing when either is gone.
    fn receiver(&self, assistant: &ObjectKey) -> Option<(String, String)> {
        let snapshot = self.snapshot.load();
        let to = snapshot.index.table().assistants.get(assistant)?.events.as_ref()?;
        match snapshot.credentials.get(&to.secret)? {
            Credential::Signing { secret } => Some((to.url.clone(), secret.clone())),
            _ => None,
        }
    }

    fn is_over(&self, outcome: &'static str) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.fates.get_or_create(&Fate { outcome }).inc();
    }
}

#[cfg(test)]
mod tests;
