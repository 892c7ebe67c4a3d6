//! `/healthz`, `/readyz` and `/metrics` of the API, on a port of their own. Names, as Prometheus shows them:
//!
//! | name | what |
//! |---|---|
//! | `voicedock_http_requests_total{route,code}` | requests by route and status code |
//! | `voicedock_http_request_seconds{route}` | how long they took |

use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio_util::sync::CancellationToken;

use super::router::Service;
use crate::metrics::{self, Metrics};

/// Labels of `voicedock_http_requests_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route's pattern, never the path: ids don't make series.
    pub route: String,
    /// Status code.
    pub code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

/// Handles to the metrics above; clones share them.
#[derive(Clone, Debug)]
pub struct ApiMetrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabel, Histogram, fn() -> Histogram>,
}

impl ApiMetrics {
    /// The metrics, registered.
    pub fn new(metrics: &Metrics) -> Self {
        let own = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 14))),
        };
        metrics.register(|registry| {
            registry.register(
                "http_requests",
                "HTTP requests by route and status code",
                own.requests.clone(),
            );
            registry.register("http_request_seconds", "How long HTTP requests took", own.seconds.clone());
        });
        own
    }

    /// Counts a request.
    pub fn answered(&self, labels: &RequestLabels, took: Duration) {
        self.requests.get_or_create(labels).inc();
        let route = RouteLabel { route: labels.route.clone() };
        self.seconds.get_or_create(&route).observe(took.as_secs_f64());
    }
}

/// Routes for kubelets and Prometheus. Ready from the first list of every watch until `stop`: a watch that is lost later
/// doesn't make it unready, reads go on from what was seen last.
pub fn router(metrics: Metrics, service: Service, stop: CancellationToken) -> Router {
    let ready = move || async move {
        if stop.is_cancelled() {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: told to stop\n")
        } else if !service.is_ready() {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: waiting for the first list of every watch\n")
        } else {
            (StatusCode::OK, "ok\n")
        }
    };
    let text = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(async move || (text, metrics.encode())))
}
