//! `/healthz`, `/readyz` and `/metrics`: for kubelets and Prometheus, without a key.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::Http;
use crate::metrics;

/// How far a gateway process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It has never held a table.
    #[default]
    WaitingForTable,
    /// It holds a table and binds its sockets.
    Starting,
    /// It takes calls.
    Serving,
    /// It takes no new calls and ends with its last one. Still ready: requests inside of its calls must reach it.
    Draining,
}

/// 200 while the process runs.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// 200 from the first complete table with bound sockets until the process ends.
pub async fn readyz(State(http): State<Http>) -> impl IntoResponse {
    match *http.phase.borrow() {
        Phase::WaitingForTable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: no routing table yet; is the operator running, and is there a RoutingTable for this gateway?\n",
        ),
        Phase::Starting => {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: the SIP sockets are not bound yet\n")
        }
        Phase::Serving => (StatusCode::OK, "ok\n"),
        Phase::Draining => (StatusCode::OK, "ok: draining\n"),
    }
}

/// OpenMetrics.
pub async fn metrics(State(http): State<Http>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], http.metrics.encode())
}
