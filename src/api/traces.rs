//! The handlers of `/api/v1/traces`: passed on to the gateway pod that has the call, or that may get the next one to a number.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::gateways::Desk;
use super::keys::Key;
use super::objects::whole;
use super::router::Service;
use crate::gateway::trace::{Subject, TraceId};
use crate::http::error::ApiError;
use crate::http::forward::Passed;
use crate::http::traces::{PATH, TraceRequest, after, id_of, no_trace};

/// `POST /traces`.
pub async fn begin(
    State(service): State<Service>,
    Extension(key): Extension<Arc<Key>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Passed, ApiError> {
    let body = whole(body)?;
    let (request, subject) = TraceRequest::parse(&body)?;
    let desk = Desk::new(&service, &key.object.namespace);
    let passed = match &subject {
        Subject::Call(call) => desk.ask(*call, Method::POST, PATH, &headers, body).await?,
        Subject::Number(number) => desk.ask_gateway_of(number, Method::POST, PATH, &headers, body).await?,
    };
    if passed.status.is_success() {
        let call = request.call.map(tracing::field::display);
        tracing::info!(key = %key.object, call, seconds = request.seconds, "a SIP trace begins");
    }
    Ok(passed)
}

/// `GET /traces/{id}?after=N`.
pub async fn read(
    State(service): State<Service>,
    Extension(key): Extension<Arc<Key>>,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Passed, ApiError> {
    let id = id_of(path)?;
    let after = after(query.as_deref().unwrap_or_default())?;
    let path = format!("{PATH}/{id}?after={after}");
    at_its_pod(&service, &key, id, Method::GET, &path, &headers).await
}

/// `DELETE /traces/{id}`.
pub async fn stop(
    State(service): State<Service>,
    Extension(key): Extension<Arc<Key>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = id_of(path)?;
    let path = format!("{PATH}/{id}");
    let passed = at_its_pod(&service, &key, id, Method::DELETE, &path, &headers).await?;
    // Without the Content-Type of an answer that has none.
    Ok(if passed.status == StatusCode::NO_CONTENT {
        passed.status.into_response()
    } else {
        passed.into_response()
    })
}

async fn at_its_pod(
    service: &Service,
    key: &Key,
    id: TraceId,
    method: Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<Passed, ApiError> {
    let desk = Desk::new(service, &key.object.namespace);
    let asked = desk.ask_process(id.instance, method, path, headers, Bytes::new()).await;
    asked.unwrap_or_else(|| Err(no_trace(&id.to_string())))
}
