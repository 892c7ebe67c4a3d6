//! How often and how well each assistant hands its callers over: what the product's "monitor transfers" needs.
//!
//! | metric | labels |
//! |---|---|
//! | `voicedock_assistant_calls_total` | `namespace`, `assistant`, `answered`, `transferred`: the share of calls that were transferred |
//! | `voicedock_assistant_transfers_total` | `namespace`, `assistant`, `destination`, `outcome` |
//! | `voicedock_assistant_ring_seconds` | `namespace`, `assistant`, `destination`: how long a destination rang |
//! | `voicedock_assistant_seconds_to_transfer` | `namespace`, `assistant`: from the answer to the request for a transfer |
//!
//! Labels are bounded: a destination is one that the assistant lists, else `other`; past [`MOST`] assistants, and as many pairs of
//! assistant and destination, further ones are counted as `other`.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::view::View;
use crate::call::Record;
use crate::metrics::Metrics;
use crate::routing::table::ObjectKey;

/// What isn't named.
pub(super) const OTHER: &str = "other";
/// Assistants that are told apart, and pairs of assistant and destination, in the life of a pod.
const MOST: usize = 1000;
/// Seconds that a phone rings.
const RING: [f64; 8] = [2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0];
/// Seconds that a caller talks with an assistant.
const TALK: [f64; 8] = [10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Assistant {
    namespace: String,
    assistant: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallsOf {
    namespace: String,
    assistant: String,
    answered: &'static str,
    transferred: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pair {
    namespace: String,
    assistant: String,
    destination: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransfersOf {
    namespace: String,
    assistant: String,
    destination: String,
    outcome: &'static str,
}

/// Values that are told apart, up to [`MOST`].
struct Known<K>(Arc<Mutex<HashSet<K>>>);

impl<K: Hash + Eq> Known<K> {
    fn admits(&self, key: K) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&key) || (known.len() < MOST && known.insert(key))
    }
}

/// Counters by assistant.
pub(super) struct AssistantMetrics {
    calls: Family<CallsOf, Counter>,
    transfers: Family<TransfersOf, Counter>,
    ring: Family<Pair, Histogram, fn() -> Histogram>,
    to_transfer: Family<Assistant, Histogram, fn() -> Histogram>,
    assistants: Known<ObjectKey>,
    pairs: Known<(ObjectKey, String)>,
}

impl AssistantMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let this = Self {
            calls: Family::default(),
            transfers: Family::default(),
            ring: Family::new_with_constructor(|| Histogram::new(RING)),
            to_transfer: Family::new_with_constructor(|| Histogram::new(TALK)),
            assistants: Known(Arc::default()),
            pairs: Known(Arc::default()),
        };
        metrics.register(|registry| {
            registry.register("assistant_calls", "Calls that are over, by assistant", this.calls.clone());
            registry.register(
                "assistant_transfers",
                "Transfers by assistant, destination and outcome",
                this.transfers.clone(),
            );
            registry.register(
                "assistant_ring_seconds",
                "How long the destination of a transfer rang, if it did",
                this.ring.clone(),
            );
            registry.register(
                "assistant_seconds_to_transfer",
                "From the answer of a call to the request for its transfer",
                this.to_transfer.clone(),
            );
        });
        this
    }

    /// Something happened in a call of an assistant; `view` has taken note of it. `destination` is that of a transfer's end.
    pub(super) fn record(&self, assistant: &ObjectKey, destination: &str, record: &Record, view: &View) {
        match record {
            Record::TransferStarted { .. } => {
                let Assistant { namespace, assistant } = self.named(assistant);
                if let Some(time) = view.time_to_transfer {
                    let of = Assistant { namespace, assistant };
                    self.to_transfer.get_or_create(&of).observe(time.as_secs_f64());
                }
            }
            Record::TransferEnded(ended) => {
                let pair = self.pair(assistant, destination);
                if !ended.ring_time().is_zero() {
                    self.ring.get_or_create(&pair).observe(ended.ring_time().as_secs_f64());
                }
                let Pair { namespace, assistant, destination } = pair;
                let outcome = ended.last.outcome.as_str();
                let of = TransfersOf { namespace, assistant, destination, outcome };
                self.transfers.get_or_create(&of).inc();
            }
            Record::Ended { .. } => {
                let Assistant { namespace, assistant } = self.named(assistant);
                let yes = |is| if is { "true" } else { "false" };
                let (answered, transferred) = (yes(view.was_answered()), yes(view.was_transferred()));
                let of = CallsOf { namespace, assistant, answered, transferred };
                self.calls.get_or_create(&of).inc();
            }
            _ => {}
        }
    }

    fn named(&self, key: &ObjectKey) -> Assistant {
        let key =
            if self.assistants.admits(key.clone()) { key.clone() } else { ObjectKey::new(OTHER, OTHER) };
        Assistant { namespace: key.namespace, assistant: key.name }
    }

    fn pair(&self, key: &ObjectKey, destination: &str) -> Pair {
        let Assistant { namespace, assistant } = self.named(key);
        let known = destination == OTHER || self.pairs.admits((key.clone(), destination.to_owned()));
        let destination = if known { destination } else { OTHER }.to_owned();
        Pair { namespace, assistant, destination }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded() {
        let metrics = AssistantMetrics::new(&Metrics::new());
        let key = |n: usize| ObjectKey::new("acme", format!("a{n}"));
        for n in 0..MOST {
            assert_eq!(metrics.pair(&key(n), "sales").assistant, format!("a{n}"));
        }
        let late = metrics.pair(&key(MOST), "sales");
        assert_eq!((late.assistant.as_str(), late.destination.as_str()), (OTHER, OTHER));
        assert_eq!(metrics.pair(&key(0), "sales").destination, "sales", "those that are known stay so");
        assert_eq!(metrics.pair(&key(0), "desk").destination, OTHER);
    }
}
