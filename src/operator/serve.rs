//! `/healthz`, `/readyz` and `/metrics`.
//!
//! Ready means that every watch has listed once: a replica that isn't leading is ready as well, so that it can take over.
//! A watch that is lost later doesn't make it unready.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::metrics;

use super::metrics::Metrics;

/// Whether every watch has listed.
pub type Synced = Arc<AtomicBool>;

/// Binds the address. Port 0 takes a free one.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    info!("health and metrics are served on http://{}", listener.local_addr()?);
    Ok(listener)
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, counted: Arc<Metrics>, synced: Synced, stop: CancellationToken) {
    let ready = move || async move {
        if synced.load(Ordering::Acquire) {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "waiting for the first list of every watch\n")
        }
    };
    let text = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(async move || (text, counted.encode())));
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
        warn!("health and metrics are no longer served: {error}");
    }
}
