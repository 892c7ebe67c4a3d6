//! The guard before the front door: how much one source may begin here, whatever it sends.
//!
//! Counted is what belongs to nothing that is under way: new requests, their repetitions, and anything that can't be read.
//! What belongs to a call or a request of this pod proves it (see `sip::glance`) and is never held up, and neither are the
//! other pods of the gateway. Past its rate a source isn't answered: over UDP the message is dropped, for an answer would
//! cost as much as the message, and go to somebody else if the source is forged; whoever is honest repeats it. Over a stream
//! the reader waits, so that the peer's own TCP holds it back.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::call_id::Instance;
use super::peers::Peers;
use super::plane_metrics::PlaneMetrics;
use super::snapshot::Snapshot;
use crate::sip::front_door::Verdict;
use crate::sip::glance::{self, Claim};
use crate::sip::identity::Identity;
use crate::sip::rate::Sources;

/// The most that is said about refused messages: one line in this time, for each kind of source.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// What a connection costs, in messages: its handshake, above all that of TLS.
const CONNECTION: u32 = 10;

/// Messages a second that one source may send beyond those that belong to something under way; no limit when absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// An address from which a trunk's calls come.
    pub trunk: Option<NonZeroU32>,
    /// Any other address.
    pub stranger: Option<NonZeroU32>,
}

/// See the module.
pub(super) struct Guard {
    identity: Identity,
    trunks: Kind,
    strangers: Kind,
    snapshot: Arc<ArcSwap<Snapshot>>,
    peers: Arc<ArcSwap<Peers>>,
    metrics: PlaneMetrics,
    started: Instant,
}

/// One kind of source.
struct Kind {
    label: &'static str,
    rate: Option<NonZeroU32>,
    sources: Option<Mutex<Sources>>,
    /// Refused since it was last said.
    refused: AtomicU64,
    /// When it was, in milliseconds since the start; 0: never.
    said: AtomicU64,
}

impl Kind {
    fn new(label: &'static str, rate: Option<NonZeroU32>) -> Self {
        let sources = rate.map(|rate| Mutex::new(Sources::new(rate, rate, rand::random())));
        Self { label, rate, sources, refused: AtomicU64::new(0), said: AtomicU64::new(0) }
    }

    fn take(&self, source: IpAddr, now: Duration) -> Result<(), Duration> {
        let Some(sources) = &self.sources else { return Ok(()) };
        sources.lock().unwrap_or_else(PoisonError::into_inner).take(source, now)
    }
}

impl Guard {
    /// `seed` is that of the endpoints: their tags and branches are recognised by it.
    pub(super) fn new(
        rates: Rates,
        (instance, seed): (Instance, [u8; 16]),
        snapshot: Arc<ArcSwap<Snapshot>>,
        peers: Arc<ArcSwap<Peers>>,
        metrics: PlaneMetrics,
    ) -> Self {
        Self {
            identity: Identity::new(instance.0, 0, seed),
            trunks: Kind::new("rate-trunk", rates.trunk),
            strangers: Kind::new("rate-stranger", rates.stranger),
            snapshot,
            peers,
            metrics,
            started: Instant::now(),
        }
    }

    /// Whether a datagram goes on to the front door.
    pub(super) fn admits(&self, datagram: &[u8], peer: SocketAddr) -> bool {
        self.judge(glance::claim(datagram, &self.identity), peer.ip()).is_ok()
    }

    /// Whether a connection is worth accepting.
    pub(super) fn admits_connection(&self, peer: SocketAddr) -> bool {
        (0..CONNECTION).all(|_| self.judge(Claim::Nothing, peer.ip()).is_ok())
    }

    /// Waits until what was read from a stream may be acted on.
    pub(super) async fn pace(&self, verdict: &Verdict, peer: SocketAddr) {
        let claim = match verdict {
            Verdict::Message(message) => glance::claim_of(message, &self.identity),
            Verdict::Reply { .. } | Verdict::Drop(_) | Verdict::Nothing => Claim::Nothing,
        };
        while let Err(wait) = self.judge(claim, peer.ip()) {
            tokio::time::sleep(wait).await;
        }
    }

    fn judge(&self, claim: Claim, source: IpAddr) -> Result<(), Duration> {
        let peers = self.peers.load();
        let of_pod = match claim {
            Claim::Proven => return Ok(()),
            Claim::Of(instance) => peers.get(Instance(instance)).is_some(),
            Claim::Nothing => false,
        };
        let source = source.to_canonical();
        if peers.has(source) {
            return Ok(());
        }
        // Who names another pod's call has been in one with it: its agent, most likely, whom no trunk's sources cover.
        let known = of_pod || self.snapshot.load().index.knows(source);
        let kind = if known { &self.trunks } else { &self.strangers };
        let now = self.started.elapsed();
        kind.take(source, now).inspect_err(|_| self.refused(kind, now))
    }

    fn refused(&self, kind: &Kind, now: Duration) {
        self.metrics.drop(kind.label);
        kind.refused.fetch_add(1, Ordering::Relaxed);
        let (now, last) = (now.as_millis() as u64 + 1, kind.said.load(Ordering::Relaxed));
        let silent = last != 0 && now - last < SAY_EVERY.as_millis() as u64;
        if silent || kind.said.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let refused = kind.refused.swap(0, Ordering::Relaxed);
        let rate = kind.rate.map_or(0, NonZeroU32::get);
        if std::ptr::eq(kind, &self.trunks) {
            tracing::warn!(
                refused,
                "an address of a trunk begins more than {rate} requests per second; those beyond are held up. Raise the \
                 SipGateway's limits.maxRequestsPerSecond.trunkAddress if they are wanted"
            );
        } else {
            tracing::warn!(
                refused,
                "an address that is no trunk's begins more than {rate} requests per second; those beyond are held up. If \
                 it is a trunk's, add it to the SipTrunk's inbound.allowedSources; else raise the SipGateway's \
                 limits.maxRequestsPerSecond.strangerAddress if they are wanted"
            );
        }
    }
}
