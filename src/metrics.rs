//! The process's metrics: one registry that each part adds its own to, and its text for Prometheus.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::{spans, telemetry};

/// Content-Type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of a process; clones share one registry. Every name starts with `voicedock_`.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry with `voicedock_build_info` and `voicedock_log_lines_dropped_total` in it.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("voicedock");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that runs", build);
        registry.register_collector(Box::new(LogLines));
        registry.register_collector(Box::new(SpanCounts));
        Self(Arc::new(Mutex::new(registry)))
    }

    /// Adds metrics; names are given without the prefix `voicedock_`.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All metrics as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a String can't fail; a collector that does leaves the text short, which a scraper notices.
        let _ = encode(&mut text, &self.0.lock().unwrap_or_else(PoisonError::into_inner));
        text
    }
}

/// What `telemetry` counts.
#[derive(Debug)]
struct LogLines;

impl Collector for LogLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let dropped = ConstCounter::new(telemetry::dropped_lines());
        let help = "Log lines that were dropped because whoever reads them does not keep up";
        let metric = encoder.encode_descriptor("log_lines_dropped", help, None, dropped.metric_type())?;
        dropped.encode(metric)
    }
}

/// What `spans` counts.
#[derive(Debug)]
struct SpanCounts;

impl Collector for SpanCounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = spans::counts();
        let Some((_, first)) = counts.first() else { return Ok(()) };
        let kind = ConstCounter::new(*first).metric_type();
        let help = "OpenTelemetry spans, by what became of them";
        let mut family = encoder.encode_descriptor("spans", help, None, kind)?;
        for (outcome, count) in counts {
            ConstCounter::new(count).encode(family.encode_family(&[("outcome", outcome)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn what_is_registered_is_shown_with_the_prefix() {
        let metrics = Metrics::new();
        let counter = metrics.register(|registry| {
            let counter = Counter::<u64>::default();
            registry.register("things", "Things that happened", counter.clone());
            counter
        });
        counter.inc();
        let text = metrics.clone().encode();
        assert!(text.contains("voicedock_things_total 1"), "{text}");
        assert!(text.contains("voicedock_build_info{version="), "{text}");
        assert!(text.contains("voicedock_log_lines_dropped_total 0"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
