//! Metrics of a gateway's control side. Names, as Prometheus shows them:
//!
//! | name | what |
//! |---|---|
//! | `voicedock_gateway_table_generation` | generation of the table that calls are routed by; 0 before the first |
//! | `voicedock_gateway_table_sync_age_seconds` | seconds since the API server last said what the newest table is |
//! | `voicedock_gateway_table_switches_total` | tables that were switched to |
//! | `voicedock_gateway_table_rejections_total` | heads that were refused |
//! | `voicedock_gateway_disk_failures_total` | tables whose disk copy could not be written |
//! | `voicedock_gateway_acknowledgement_failures_total` | writes of the pod's Lease that failed |
//! | `voicedock_gateway_peers` | other pods of the gateway that are known |
//! | `voicedock_http_requests_total{route,code}` | HTTP requests by route and status code |

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};

use crate::metrics::Metrics;

/// Handles to the metrics above; clones share them.
#[derive(Clone, Debug, Default)]
pub struct GatewayMetrics {
    /// See the module.
    pub generation: Gauge,
    /// See the module.
    pub switches: Counter,
    /// See the module.
    pub rejections: Counter,
    /// See the module.
    pub disk_failures: Counter,
    /// See the module.
    pub acknowledgement_failures: Counter,
    /// See the module.
    pub peers: Gauge,
    /// See the module.
    pub http_requests: Family<HttpLabels, Counter>,
    synced: SyncAge,
}

/// Labels of `voicedock_http_requests_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HttpLabels {
    /// The route's pattern, never the path: ids don't make series.
    pub route: String,
    /// Status code.
    pub code: u16,
}

/// When the API server was last heard of. The age counts from the start of the process until it has been once.
#[derive(Clone, Debug)]
struct SyncAge(Arc<Mutex<Instant>>);

impl Default for SyncAge {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl GatewayMetrics {
    /// The metrics, registered.
    pub fn new(metrics: &Metrics) -> Self {
        let own = Self::default();
        metrics.register(|registry| {
            let gateway = registry.sub_registry_with_prefix("gateway");
            gateway.register(
                "table_generation",
                "Generation of the table that calls are routed by",
                own.generation.clone(),
            );
            gateway.register("table_switches", "Tables that were switched to", own.switches.clone());
            gateway.register("table_rejections", "Heads that were refused", own.rejections.clone());
            gateway.register(
                "disk_failures",
                "Tables whose disk copy could not be written",
                own.disk_failures.clone(),
            );
            gateway.register(
                "acknowledgement_failures",
                "Writes of the pod's Lease that failed",
                own.acknowledgement_failures.clone(),
            );
            gateway.register("peers", "Other pods of the gateway that are known", own.peers.clone());
            gateway.register_collector(Box::new(own.synced.clone()));
            registry.register(
                "http_requests",
                "HTTP requests by route and status code",
                own.http_requests.clone(),
            );
        });
        own
    }

    /// The API server just said what the newest table is.
    pub fn synced(&self) {
        *self.synced.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Collector for SyncAge {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let age = self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        let gauge = ConstGauge::new(age.as_secs_f64());
        let encoder = encoder.encode_descriptor(
            "table_sync_age_seconds",
            "Seconds since the API server last said what the newest table is",
            None,
            gauge.metric_type(),
        )?;
        gauge.encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_documented_name() {
        let metrics = Metrics::new();
        let own = GatewayMetrics::new(&metrics);
        own.http_requests.get_or_create(&HttpLabels { route: "/healthz".to_owned(), code: 200 }).inc();
        own.synced();
        let text = metrics.encode();
        let documentation = include_str!("metrics.rs");
        let documented: Vec<&str> = documentation
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `")?.split(['`', '{']).next())
            .collect();
        assert_eq!(documented.len(), 8);
        for name in documented {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} is not in:\n{text}");
        }
    }
}
