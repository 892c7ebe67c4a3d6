//! Metrics of the data plane; names are part of the interface.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::call::{Message, Record};
use crate::metrics::Metrics;
use crate::routing::ack::TrunkReports;

/// A reason out of a few fixed words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// An outcome out of the fixed words of the outcome record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// A trunk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Trunk {
    namespace: String,
    trunk: String,
}

/// Counters of the data plane.
#[derive(Clone)]
pub(super) struct PlaneMetrics {
    /// Calls that came in and were taken.
    pub(super) calls: Counter,
    /// Calls that were ended because the time for draining was over.
    pub(super) cut: Counter,
    /// Calls that a fault of the gateway ended.
    pub(super) faults: Counter,
    answered: Counter,
    refused: Family<Reason, Counter>,
    ended: Family<Reason, Counter>,
    dropped: Family<Reason, Counter>,
    transfers: Family<Outcome, Counter>,
    messages: Family<Outcome, Counter>,
    tests: Family<Outcome, Counter>,
    trunks: Family<Trunk, Gauge>,
}

impl PlaneMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let this = Self {
            calls: Counter::default(),
            cut: Counter::default(),
            faults: Counter::default(),
            answered: Counter::default(),
            refused: Family::default(),
            ended: Family::default(),
            dropped: Family::default(),
            transfers: Family::default(),
            messages: Family::default(),
            tests: Family::default(),
            trunks: Family::default(),
        };
        metrics.register(|registry| {
            registry.register("calls", "Calls that came in and were taken", this.calls.clone());
            registry.register("calls_answered", "Calls that somebody answered", this.answered.clone());
            registry.register("calls_refused", "Calls that were not taken, by reason", this.refused.clone());
            registry.register("calls_ended", "Calls that are over, by reason", this.ended.clone());
            registry.register(
                "calls_cut",
                "Calls ended because the time for draining was over",
                this.cut.clone(),
            );
            registry.register("call_faults", "Calls that a fault of the gateway ended", this.faults.clone());
            registry.register(
                "trunk_reachable",
                "Whether a trunk that this pod probes or registers at can be reached",
                this.trunks.clone(),
            );
            registry.register("transfers", "Transfers by outcome", this.transfers.clone());
            registry.register(
                "transfer_messages",
                "Messages before a transfer, by whether the caller heard them",
                this.messages.clone(),
            );
            registry.register("destination_tests", "Tests of destinations by outcome", this.tests.clone());
            registry.register(
                "sip_dropped",
                "SIP messages that were not processed, by reason",
                this.dropped.clone(),
            );
        });
        this
    }

    /// What is known of the trunks that this pod keeps, and of no others.
    pub(super) fn trunks(&self, reports: &TrunkReports) {
        self.trunks.clear();
        for (key, report) in reports {
            let trunk = Trunk { namespace: key.namespace.clone(), trunk: key.name.clone() };
            self.trunks.get_or_create(&trunk).set(report.reachable.into());
        }
    }

    /// A call was not taken.
    pub(super) fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    /// A message was not processed.
    pub(super) fn drop(&self, reason: &'static str) {
        self.dropped.get_or_create(&Reason { reason }).inc();
    }

    /// Something happened in a call.
    pub(super) fn record(&self, record: &Record) {
        match record {
            Record::Answered => {
                self.answered.inc();
            }
            Record::TransferEnded(ended) => {
                self.transfers.get_or_create(&Outcome { outcome: ended.last.outcome.as_str() }).inc();
            }
            Record::Tested(ended) => {
                self.tests.get_or_create(&Outcome { outcome: ended.last.outcome.as_str() }).inc();
            }
            Record::Ended { reason } => {
                self.ended.get_or_create(&Reason { reason }).inc();
            }
            Record::Message(message) => {
                let outcome = match message {
                    Message::Heard => "heard",
                    Message::NotHeard(_) => "not-heard",
                };
                self.messages.get_or_create(&Outcome { outcome }).inc();
            }
            Record::TransferStarted { .. }
            | Record::TransferDialling { .. }
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
}
