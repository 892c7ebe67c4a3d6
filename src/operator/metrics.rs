//! The operator's metrics. Labels are bounded: kinds and gateways, never numbers or names of other objects.

use std::sync::atomic::AtomicU64;

use crate::metrics;
use crate::routing::table::ObjectKey;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByGateway {
    gateway: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByWork {
    work: &'static str,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    process: metrics::Metrics,
    leader: Gauge,
    synced: Gauge,
    turns: Counter,
    compiles: Counter,
    writes: Family<ByKind, Counter>,
    failures: Family<ByWork, Counter>,
    collected: Counter,
    watch_errors: Family<ByKind, Counter>,
    generation: Family<ByGateway, Gauge>,
    acknowledged: Family<ByGateway, Gauge>,
    fullness: Family<ByGateway, Gauge<f64, AtomicU64>>,
    compile_seconds: Histogram,
    publish_seconds: Histogram,
}

impl Metrics {
    /// The operator's metrics, added to those of the process.
    pub fn new(process: metrics::Metrics) -> Self {
        let seconds =
            || Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
        let metrics = Self {
            process,
            leader: Gauge::default(),
            synced: Gauge::default(),
            turns: Counter::default(),
            compiles: Counter::default(),
            writes: Family::default(),
            failures: Family::default(),
            collected: Counter::default(),
            watch_errors: Family::default(),
            generation: Family::default(),
            acknowledged: Family::default(),
            fullness: Family::default(),
            compile_seconds: seconds(),
            publish_seconds: seconds(),
        };
        metrics.process.register(|registry| {
        let registry = registry.sub_registry_with_prefix("operator");
        registry.register("leader", "1 while this replica leads", metrics.leader.clone());
        registry.register("synced", "1 once every watch has listed", metrics.synced.clone());
        registry.register(
            "turns",
            "Times that the controller has looked for work: grows with what happens, not with time",
            metrics.turns.clone(),
        );
        registry.register("compiles", "Compiles of all objects", metrics.compiles.clone());
        registry.register("writes", "Writes that changed an object, by its kind", metrics.writes.clone());
        registry.register(
            "failures",
            "Attempts that failed and are tried again, by work: secret, publish, collect, provision, status, event",
            metrics.failures.clone(),
        );
        registry.register("collected_slices", "RoutingSlices that were deleted as useless", metrics.collected.clone());
        registry.register("watch_errors", "Watches that broke and were taken up again, by kind", metrics.watch_errors.clone());
        registry.register("table_generation", "Published table generation, by gateway", metrics.generation.clone());
        registry.register(
            "table_acknowledged_generation",
            "Table generation that every ready gateway pod holds, by gateway",
            metrics.acknowledged.clone(),
        );
        registry.register(
            "table_size_ratio",
            "Largest object of a gateway's table as a share of what the API server takes; act at 0.8",
            metrics.fullness.clone(),
        );
        registry.register("compile_seconds", "Time of a compile", metrics.compile_seconds.clone());
        registry.register(
            "publish_seconds",
            "Time from the first change that a table was compiled from to its head being written",
            metrics.publish_seconds.clone(),
        );
        });
        metrics
    }

    /// In the OpenMetrics text format.
    pub fn encode(&self) -> String {
        self.process.encode()
    }

    /// This replica leads, or no longer does.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// The controller looks for work.
    pub fn turned(&self) {
        self.turns.inc();
    }

    /// Every watch has listed.
    pub fn synced(&self) {
        self.synced.set(1);
    }

    /// A compile took so long.
    pub fn compiled(&self, seconds: f64) {
        self.compiles.inc();
        self.compile_seconds.observe(seconds);
    }

    /// An object of a kind was written.
    pub fn wrote(&self, kind: &str) {
        self.writes.get_or_create(&ByKind { kind: kind.to_owned() }).inc();
    }

    /// Work failed and is tried again.
    pub fn failed(&self, work: &'static str) {
        self.failures.get_or_create(&ByWork { work }).inc();
    }

    /// A slice was deleted.
    pub fn collected(&self) {
        self.collected.inc();
    }

    /// A watch broke.
    pub fn watch_error(&self, kind: &str) {
        self.watch_errors.get_or_create(&ByKind { kind: kind.to_owned() }).inc();
    }

    /// A table was published, so long after the first change that it was compiled from.
    pub fn published(&self, seconds: f64) {
        self.publish_seconds.observe(seconds);
    }

    /// How a gateway's table stands.
    pub fn table(&self, gateway: &ObjectKey, generation: i64, acknowledged: Option<i64>, fullness: f64) {
        let label = ByGateway { gateway: gateway.to_string() };
        self.generation.get_or_create(&label).set(generation);
        self.acknowledged.get_or_create(&label).set(acknowledged.unwrap_or_default());
        self.fullness.get_or_create(&label).set(fullness);
    }

    /// A gateway is gone.
    pub fn forget(&self, gateway: &ObjectKey) {
        let label = ByGateway { gateway: gateway.to_string() };
        self.generation.remove(&label);
        self.acknowledged.remove(&label);
        self.fullness.remove(&label);
    }
}
