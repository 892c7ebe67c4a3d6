//! The data plane as the rest of the gateway sees it: what it is given, and how it is asked to drain.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::call_id::Instance;
use super::calls::Calls;
use super::config::Listener;
use super::control::ControlRequest;
use super::peers::Peers;
use super::snapshot::Snapshot;
use crate::metrics::Metrics;

/// What the data plane is given. It runs from the first complete table on.
pub struct PlaneConfig {
    /// Sockets to bind and what to say about them.
    pub listeners: Vec<Listener>,
    /// What Contacts and call ids carry.
    pub instance: Instance,
    /// Calls at the same time, over all shards; new ones beyond get 503.
    pub max_calls: usize,
    /// What is routed by; loaded anew for every decision.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Who gets the requests for calls of other pods.
    pub peers: Arc<ArcSwap<Peers>>,
    /// Where calls are shown.
    pub calls: Arc<Calls>,
    /// Commands, one receiver a shard: there are as many shards as receivers.
    pub control: Vec<mpsc::Receiver<ControlRequest>>,
    /// Where its metrics go.
    pub metrics: Metrics,
}
