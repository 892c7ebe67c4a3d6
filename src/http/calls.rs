//! The handlers of `/api/v1/calls`.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Http;
use super::access::Caller;
use super::command;
use super::error::ApiError;
use super::forward::{self, Ask, Passed, Wanted};
use super::idempotency::{self, Begun};
use super::page::{self, LARGEST_LIMIT, LARGEST_OFFSET, Pagination};
use crate::call::Command;
use crate::gateway::call_id::CallId;
use crate::gateway::calls::CallView;
use crate::gateway::control::CallControl;
use crate::gateway::peers::Peer;

/// What `GET /api/v1/calls` answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct CallList<C> {
    /// A page of calls, newest first.
    pub calls: Vec<C>,
    /// Which page.
    pub pagination: Pagination,
    /// Pods whose calls are not in the list, with the reason; absent when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// `GET /api/v1/calls?limit&offset&ended_within`.
pub async fn list(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let forwarded = forward::is_forwarded(&headers);
    // A pod that collects for a page asks each other pod for everything up to the page's end.
    let largest = if forwarded { LARGEST_OFFSET + LARGEST_LIMIT } else { LARGEST_LIMIT };
    let (page, ended_within) = page::of_calls(query.as_deref().unwrap_or_default(), largest)?;
    let page::Page { limit, offset } = page;
    let mut own = http.control.list(ended_within);
    own.retain(|call| caller.sees(call));
    let total = own.len();
    if forwarded {
        let calls: Vec<Arc<CallView>> = own.into_iter().skip(offset).take(limit).collect();
        let views: Vec<&CallView> = calls.iter().map(Arc::as_ref).collect();
        let pagination = Pagination { total, limit, offset };
        return Ok(Json(CallList { calls: views, pagination, warnings: Vec::new() }).into_response());
    }
    let calls = own.iter().take(limit + offset).filter_map(|view| serde_json::to_value(view.as_ref()).ok());
    let pagination = Pagination { total, limit, offset };
    let own = CallList { calls: calls.collect(), pagination, warnings: Vec::new() };
    let peers = http.peers.load_full();
    let wanted = Wanted { limit: limit + offset, ended_within };
    let lists = http.forwarder.lists(http.control.instance(), &peers, &headers, wanted).await;
    Ok(Json(page_of(lists.into_iter().chain([Ok(own)]), limit, offset)).into_response())
}

/// A page of what several pods have listed, newest first; a pod that could not be asked is a warning.
pub fn page_of(
    lists: impl IntoIterator<Item = Result<CallList<Value>, String>>,
    limit: usize,
    offset: usize,
) -> CallList<Value> {
    let (mut calls, mut total, mut warnings) = (Vec::new(), 0, Vec::new());
    for list in lists {
        match list {
            Ok(list) => {
                total += list.pagination.total;
                calls.extend(list.calls);
            }
            Err(warning) => warnings.push(warning),
        }
    }
    // Times have milliseconds always, in UTC: their texts sort as they do.
    calls.sort_by_cached_key(|call| Reverse((text(call, "started_at"), text(call, "id"))));
    let calls = calls.into_iter().skip(offset).take(limit).collect();
    warnings.sort();
    CallList { calls, pagination: Pagination { total, limit, offset }, warnings }
}

/// `GET /api/v1/calls/{id}`.
pub async fn get(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = id_of(path)?;
    match place(&http, &id, &headers)? {
        Place::Here(call) => match http.control.get(call) {
            Some(view) if caller.sees(&view) => Ok(Json(view.as_ref()).into_response()),
            _ => Err(ApiError::no_call(&id)),
        },
        Place::At(call, peer) => {
            let path = format!("/api/v1/calls/{call}");
            pass_on(&http, &peer, Method::GET, &path, &headers, Bytes::new()).await
        }
    }
}

/// `POST /api/v1/calls/{id}/control`.
pub async fn control(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let id = id_of(path)?;
    let place = place(&http, &id, &headers)?;
    let body = body.map_err(|_| ApiError::too_large(super::BODY_LIMIT))?;
    let call = match place {
        Place::Here(call) => call,
        Place::At(call, peer) => {
            let path = format!("/api/v1/calls/{call}/control");
            return pass_on(&http, &peer, Method::POST, &path, &headers, body).await;
        }
    };
    if !http.control.get(call).is_some_and(|view| caller.sees(&view)) {
        return Err(ApiError::no_call(&id));
    }
    let command = command::parse(&body)?;
    let Some(key) = idempotency::key(&headers)? else {
        return carry_out(http.control, call, command).await.map(|()| done(false));
    };
    match http.answers.begin(call, key, &body, Instant::now())? {
        Begun::Before(Ok(())) => Ok(done(true)),
        Begun::Before(Err(error)) => Ok(replayed(error.into_response(), true)),
        // In a task of its own: also when the one who asks goes away the answer is there for the next time.
        Begun::New(ticket) => {
            let carried_out = tokio::spawn(async move {
                let answer = carry_out(http.control, call, command).await;
                ticket.answered(&answer);
                answer
            });
            carried_out
                .await
                .unwrap_or_else(|_| Err(ApiError::too_slow(super::REQUEST_TIMEOUT)))
                .map(|()| done(false))
        }
    }
}

async fn carry_out(control: CallControl, call: CallId, command: Command) -> Result<(), ApiError> {
    let name = command.name();
    control.command(call, command).await.map_err(|error| ApiError::from(error).of_command(name))?;
    tracing::info!(%call, command = name, "the API commanded a call");
    Ok(())
}

fn done(before: bool) -> Response {
    let done = serde_json::json!({ "success": true, "message": "Command sent successfully" });
    replayed((StatusCode::OK, Json(done)).into_response(), before)
}

/// Marks an answer that was given before.
fn replayed(mut answer: Response, before: bool) -> Response {
    if before {
        answer.headers_mut().insert(idempotency::REPLAYED, HeaderValue::from_static("true"));
    }
    answer
}

/// Where a call is.
pub(super) enum Place {
    /// At this pod.
    Here(CallId),
    /// At another one.
    At(CallId, Peer),
}

/// The id in the path as it was sent; one that isn't even text is unknown like any other.
fn id_of(path: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    path.map(|Path(id)| id).map_err(|_| ApiError::no_call("?"))
}

pub(super) fn place(http: &Http, id: &str, headers: &HeaderMap) -> Result<Place, ApiError> {
    let call: CallId = id.parse().map_err(|_| ApiError::no_call(id))?;
    if call.instance == http.control.instance() {
        return Ok(Place::Here(call));
    }
    match http.peers.load().get(call.instance) {
        // Passed on once only: two pods that disagree about who is who don't play ping-pong.
        Some(peer) if !forward::is_forwarded(headers) => Ok(Place::At(call, peer.clone())),
        _ => Err(ApiError::no_call(id)),
    }
}

pub(super) async fn pass_on(
    http: &Http,
    peer: &Peer,
    method: Method,
    path: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let ask = Ask { own: http.control.instance(), method, path, headers };
    match http.forwarder.pass_on(peer, ask, body).await {
        Ok(Passed { status: StatusCode::UNAUTHORIZED, .. }) => Err(ApiError::unavailable(format!(
            "pod {}, which has the call, does not know this key yet; Secrets take up to a minute to reach a pod",
            peer.pod
        ))),
        Ok(passed) => Ok(passed.into_response()),
        Err(error) => Err(ApiError::unavailable(format!("pod {}, which has the call, {error}", peer.pod))),
    }
}

fn text(call: &Value, field: &str) -> String {
    call.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}
