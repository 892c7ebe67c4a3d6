//! Connections: HTTP/1.1 with bounds, so that a slow or greedy client costs little and nobody else anything.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at the same time; more wait in the listener's backlog.
const CONNECTIONS: usize = 1024;
/// How long a request's head may take, and how long a connection may be idle between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Size of a request's head, bytes.
const HEAD_LIMIT: usize = 64 * 1024;
/// How long a connection may live: also bounds a client that doesn't read its answer.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);
/// How long requests that are under way get when the process ends.
const FAREWELL: Duration = Duration::from_secs(2);
/// Pause after a connection could not be accepted (no file descriptors, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`; requests that are under way then are given a moment.
pub async fn serve(listener: TcpListener, app: Router, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let permit = tokio::select! {
            Ok(permit) = Arc::clone(&room).acquire_owned() => permit,
            () = stop.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("an HTTP connection can't be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (app, stop) = (app.clone(), stop.clone());
        connections.spawn(async move {
            let _permit = permit;
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_LIMIT);
            let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
            let mut connection = std::pin::pin!(connection);
            let end = tokio::select! {
                end = connection.as_mut() => end,
                () = stop.cancelled() => return farewell(connection).await,
                () = tokio::time::sleep(CONNECTION_LIFE) => return farewell(connection).await,
            };
            if let Err(error) = end {
                tracing::debug!("an HTTP connection ended early: {error}");
            }
        });
    }
    connections.close();
    let _ = tokio::time::timeout(FAREWELL, connections.wait()).await;
}

type Connection = http1::Connection<TokioIo<tokio::net::TcpStream>, TowerToHyperService<Router>>;

/// Lets the request that is under way end, for a moment.
async fn farewell(mut connection: std::pin::Pin<&mut Connection>) {
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(FAREWELL, connection).await;
}
