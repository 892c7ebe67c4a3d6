//! The handlers of `/api/v1/calls`: what gateway pods say, for the key's namespace.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::gateways::Desk;
use super::keys::Key;
use super::objects::whole;
use super::router::Service;
use crate::gateway::call_id::CallId;
use crate::http::calls::{CallList, page_of};
use crate::http::error::ApiError;
use crate::http::forward::{Passed, Wanted};
use crate::http::page::{self, LARGEST_LIMIT, Page};
use crate::http::trial::{self, TestRequest};

/// `GET /calls?limit&offset&ended_within`.
pub async fn list(
    State(service): State<Service>,
    Extension(key): Extension<Arc<Key>>,
    RawQuery(query): RawQuery,
) -> Result<Json<CallList<Value>>, ApiError> {
    let (page, ended_within) = page::of_calls(query.as_deref().unwrap_or_default(), LARGEST_LIMIT)?;
    let Page { limit, offset } = page;
    let namespace = &key.object.namespace;
    let wanted = Wanted { limit: limit + offset, ended_within };
    let lists = Desk::new(&service, namespace).lists(wanted).await;
    let mut page = page_of(lists, limit, offset);
    page.calls.iter_mut().for_each(|call| name_locally(call, namespace));
    Ok(Json(page))
}

/// `GET /calls/{id}`.
pub async fn get(
    State(service): State<Service>,
    Extension(key): Extension<Arc<Key>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let call = id_of(path)?;
    let namespace = &key.object.namespace;
    let desk = Desk::new(&service, namespace);
    let passed =
        desk.ask(call, Method::GET, &format!("/api/v1/calls/{call}"), &headers, Bytes::new()).await?;
    if passed.status != StatusCode::OK {
        return Ok(passed.into_response());
    }
    Ok(Json(shown(&passed, namespace)?).into_response())
}

/// `POST /calls/{id}/control`.
pub async fn control(
    State(service): State<Service>,
    Extension(key): Extension<Arc<Key>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Passed, ApiError> {
    let call = id_of(path)?;
    let body = whole(body)?;
    let path = format!("/api/v1/calls/{call}/control");
    let desk = Desk::new(&service, &key.object.namespace);
    let passed = desk.ask(call, Method::POST, &path, &headers, body).await?;
    if passed.status.is_success() {
        tracing::info!(key = %key.object, %call, "a call was commanded");
    }
    Ok(passed)
}

/// `POST /calls/test-destination`.
pub async fn test_destination(
    State(service): State<Service>,
    Extension(key): Extension<Arc<Key>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = whole(body)?;
    TestRequest::parse(&body)?;
    let namespace = &key.object.namespace;
    let passed = Desk::new(&service, namespace).ask_any(Method::POST, trial::PATH, &headers, body).await?;
    if passed.status != StatusCode::ACCEPTED {
        return Ok(passed.into_response());
    }
    tracing::info!(key = %key.object, "a destination is tested");
    Ok((StatusCode::ACCEPTED, Json(shown(&passed, namespace)?)).into_response())
}

/// The call of an answer, in the words of this API.
fn shown(passed: &Passed, namespace: &str) -> Result<Value, ApiError> {
    let mut shown: Value = serde_json::from_slice(&passed.body)
        .map_err(|_| ApiError::unavailable("the pod that has the call gives an answer that can't be read"))?;
    name_locally(&mut shown, namespace);
    Ok(shown)
}

fn id_of(path: Result<Path<String>, PathRejection>) -> Result<CallId, ApiError> {
    let Path(id) = path.map_err(|_| ApiError::no_call("?"))?;
    id.parse().map_err(|_| ApiError::no_call(&id))
}

/// Gateways write `namespace/name`; here ids are names of the key's namespace, as everywhere in the API.
fn name_locally(call: &mut Value, namespace: &str) {
    for field in ["agent_id", "number_id", "trunk_id"] {
        let Some(place) = call.get_mut(field) else { continue };
        let local = place.as_str().and_then(|id| id.strip_prefix(namespace)?.strip_prefix('/'));
        if let Some(local) = local.map(str::to_owned) {
            *place = Value::String(local);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_names_of_the_keys_namespace() {
        let mut call = json!({ "agent_id": "acme/support", "number_id": "acme-eu/main" });
        name_locally(&mut call, "acme");
        assert_eq!(call, json!({ "agent_id": "support", "number_id": "acme-eu/main" }));
    }
}
