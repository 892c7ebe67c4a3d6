//! HTTP on a gateway pod: health, metrics and call control.
//!
//! | path | answers |
//! |---|---|
//! | `GET /healthz` | 200 while the process runs |
//! | `GET /readyz` | 200 from the first complete table with bound sockets until the last call is gone, draining included |
//! | `GET /metrics` | OpenMetrics |
//! | `GET /api/v1/calls?limit&offset&ended_within` | the calls of all pods of the gateway, newest first |
//! | `GET /api/v1/calls/{id}` | one call |
//! | `POST /webhooks/openai` | what OpenAI tells of calls, see [`webhooks`] |
//! | `POST /api/v1/calls/{id}/control` | `transfer`, `say`, `inject-context` or `end-call` |
//! | `POST /api/v1/traces`, `GET DELETE …/{id}` | what a call says on the wire, see [`traces`] |
//!
//! Everything below `/api` wants `Authorization: Bearer <key>`. It can be asked at any pod: what concerns a call of
//! another pod is passed on to that pod (see [`forward`]). Errors are JSON (see [`error`]). Every request, connection and
//! body is bounded in time and size (see [`server`] and [`REQUEST_TIMEOUT`], [`BODY_LIMIT`]).

pub mod access;
pub mod calls;
pub mod command;
pub mod error;
pub mod forward;
pub mod health;
pub mod idempotency;
pub mod keys;
pub mod page;
pub mod server;
pub mod traces;
pub mod trial;
pub mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::watch;

use crate::gateway::control::CallControl;
use crate::gateway::metrics::{GatewayMetrics, HttpLabels};
use crate::gateway::openai::OpenAi;
use crate::gateway::peers::Peers;
use crate::metrics::Metrics;
use access::Caller;
use error::ApiError;
use forward::Forwarder;
use health::Phase;
use idempotency::Answers;
use keys::Keys;

/// How long a request may take, its body and the pod that it is passed on to included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How large a request's body may be, bytes.
pub const BODY_LIMIT: usize = 64 * 1024;

/// What the handlers share.
#[derive(Clone)]
pub struct Http {
    /// The calls of this pod.
    pub control: CallControl,
    /// Agents over OpenAI.
    pub openai: Arc<OpenAi>,
    /// The other pods.
    pub peers: Arc<ArcSwap<Peers>>,
    /// The way to them.
    pub forwarder: Forwarder,
    /// Answers to commands with an `Idempotency-Key`.
    pub answers: Answers,
    /// Who may control calls.
    pub keys: Arc<Keys>,
    /// How far the process is.
    pub phase: watch::Receiver<Phase>,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// What is counted here.
    pub counters: GatewayMetrics,
}

/// All routes.
pub fn router(http: Http) -> Router {
    let api = Router::new()
        .route("/v1/calls", get(calls::list))
        .route("/v1/calls/{id}", get(calls::get))
        .route("/v1/calls/test-destination", post(trial::test_destination))
        .route("/v1/calls/{id}/control", post(calls::control))
        .route("/v1/traces", post(traces::begin))
        .route("/v1/traces/{id}", get(traces::read).put(traces::join).delete(traces::stop))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(http.clone(), authorised));
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route(webhooks::PATH, post(webhooks::openai))
        .nest("/api", api)
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(http.clone(), bounded_and_counted))
        .with_state(http)
}

async fn authorised(State(http): State<Http>, mut request: Request, next: Next) -> Response {
    let header = request.headers().get(axum::http::header::AUTHORIZATION).cloned();
    if let Some(key) = http.keys.holder(header.as_ref()).await {
        let caller = Caller::of(key, request.headers());
        request.extensions_mut().insert(caller);
        next.run(request).await
    } else {
        ApiError::unauthorized("from the Secret that the SipGateway's apiKeysSecretRef names").into_response()
    }
}

async fn bounded_and_counted(State(http): State<Http>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
    let answer = answer.unwrap_or_else(|_| ApiError::too_slow(REQUEST_TIMEOUT).into_response());
    let labels =
        HttpLabels { route: route.unwrap_or_else(|| "none".to_owned()), code: answer.status().as_u16() };
    http.counters.http_requests.get_or_create(&labels).inc();
    answer
}

async fn no_such_path() -> ApiError {
    ApiError::not_found("there is nothing at this path; call control is at /api/v1/calls")
}

async fn wrong_method() -> ApiError {
    ApiError::wrong_method("calls are read with GET and controlled with POST")
}

#[cfg(test)]
mod tests;
