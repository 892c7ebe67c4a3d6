//! The handlers of `/api/v1/traces`: what a call says on the wire, redacted, for a while.
//!
//! ```json
//! {"call": "call_0badcafe_030123456789abcdef", "seconds": 60}
//! {"number": "+31201234567"}
//! ```
//!
//! `POST` begins a trace of a call, at the pod that has it, or of the next call to a number, at every pod of the gateway, and answers
//! 201 with its id. `GET …/{id}?after=N` answers the messages after the N-th: whoever follows asks again and again until `state` is
//! `over`. `DELETE …/{id}` ends it. See `gateway::trace` for the bounds and `sip::redact` for what is shown.
//!
//! The next call may come to any pod: the pod that was asked has all others wait for it too (`PUT …/{id}`, which only pods send each
//! other), and looks where it came when it is asked for messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::access::Caller;
use super::calls::{Place, pass_on, place};
use super::error::ApiError;
use super::forward::{self, Ask, Passed};
use super::{BODY_LIMIT, Http};
use crate::gateway::call_id::{CallId, Instance};
use crate::gateway::peers::Peer;
use crate::gateway::trace::{
    MOST_SECONDS, Subject, Trace, TraceId, TraceState, TraceView, USUAL_SECONDS, Wanted,
};
use crate::routing::table::E164;

/// Where a trace is asked for.
pub const PATH: &str = "/api/v1/traces";

/// What is asked. Either `call` or `number`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// A call that is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = r"^call_[0-9a-f]{8}_[0-9a-f]{18}$"))]
    pub call: Option<CallId>,
    /// The next call to this number, E.164; also one that is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = r"^\+[1-9][0-9]{6,14}$"))]
    pub number: Option<E164>,
    /// For how long, seconds; the next call is waited for as long as well.
    #[serde(default = "usual_seconds")]
    #[schemars(range(min = 1, max = MOST_SECONDS))]
    pub seconds: u32,
}

fn usual_seconds() -> u32 {
    USUAL_SECONDS
}

/// What begins, and what keeps it from being whole.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TraceBegun {
    /// The trace.
    #[serde(flatten)]
    pub trace: TraceView,
    /// Pods at which the next call would not be seen, with the reason; absent when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl TraceRequest {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<(Self, Subject), ApiError> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let request: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let (path, why) = (error.path().to_string(), error.inner().to_string());
            if path == "." { ApiError::unreadable(why) } else { ApiError::invalid(path, why) }
        })?;
        if !(1..=MOST_SECONDS).contains(&request.seconds) {
            return Err(ApiError::invalid(
                "seconds",
                format!("seconds is a number from 1 to {MOST_SECONDS}"),
            ));
        }
        let subject = match (request.call, request.number.clone()) {
            (Some(call), None) => Subject::Call(call),
            (None, Some(number)) => Subject::Number(number),
            _ => {
                let message =
                    "write either call, with the id of a call that is up, or number, for the next call to it";
                return Err(ApiError::invalid("call", message));
            }
        };
        Ok((request, subject))
    }
}

/// `POST /api/v1/traces`.
pub async fn begin(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = body.map_err(|_| ApiError::too_large(BODY_LIMIT))?;
    let (request, subject) = TraceRequest::parse(&body)?;
    if let Subject::Call(call) = &subject {
        let id = call.to_string();
        match place(&http, &id, &headers)? {
            Place::Here(call) if http.control.get(call).is_some_and(|view| caller.sees(&view)) => {}
            Place::Here(_) => return Err(ApiError::no_call(&id)),
            Place::At(_, peer) => return pass_on(&http, &peer, Method::POST, PATH, &headers, body).await,
        }
    }
    let id = http.control.new_trace_id();
    let trace = http.control.trace(wanted(id, &caller, subject.clone(), request.seconds)).await?;
    // Whose trace it is, for whoever has to account for it; the number itself is nobody's business in a log.
    let (key, namespace) = (caller.key(), caller.namespace());
    let (seconds, namespace) = (request.seconds, namespace.as_deref());
    let warnings = match &subject {
        Subject::Call(call) => {
            tracing::info!(%call, trace = %id, key, namespace, seconds, "a SIP trace of a call begins");
            Vec::new()
        }
        Subject::Number(_) => {
            tracing::info!(trace = %id, key, namespace, seconds, "a SIP trace of the next call to a number begins");
            let at = format!("{PATH}/{id}");
            let refused = |peer: &Peer, answer: Result<Passed, String>| match answer {
                Ok(passed) if passed.status.is_success() => None,
                Ok(passed) => {
                    Some(format!("calls at pod {} are not traced: it answered {}", peer.pod, passed.status))
                }
                Err(error) => Some(format!("calls at pod {} are not traced: it {error}", peer.pod)),
            };
            let answers = ask_all(&http, Method::PUT, &at, &headers, body).await;
            answers.into_iter().filter_map(|(_, peer, answer)| refused(&peer, answer)).collect()
        }
    };
    let begun = TraceBegun { trace: trace.view(0, Instant::now()), warnings };
    Ok((StatusCode::CREATED, Json(begun)).into_response())
}

/// `PUT /api/v1/traces/{id}`, from another pod: the next call to a number may come here.
pub async fn join(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    if !forward::is_forwarded(&headers) {
        return Err(ApiError::wrong_method(
            "traces are begun with POST, read with GET and ended with DELETE",
        ));
    }
    let id = id_of(path)?;
    let body = body.map_err(|_| ApiError::too_large(BODY_LIMIT))?;
    let (request, subject) = TraceRequest::parse(&body)?;
    let trace = http.control.trace(wanted(id, &caller, subject, request.seconds)).await?;
    Ok((StatusCode::CREATED, Json(trace.view(0, Instant::now()))).into_response())
}

/// `GET /api/v1/traces/{id}?after=N`.
pub async fn read(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = id_of(path)?;
    let after = after(query.as_deref().unwrap_or_default())?;
    let at = format!("{PATH}/{id}?after={after}");
    if let Some(peer) = elsewhere(&http, id, &headers)? {
        return pass_on(&http, &peer, Method::GET, &at, &headers, Bytes::new()).await;
    }
    let trace = find(&http, &caller, id)?;
    let now = Instant::now();
    if let Some(pod) = trace.elsewhere(now) {
        let gone = || ApiError::unavailable("the pod that has the call is gone");
        let peer = http.peers.load().get(pod).cloned().ok_or_else(gone)?;
        return pass_on(&http, &peer, Method::GET, &at, &headers, Bytes::new()).await;
    }
    if trace.waits(now) && !forward::is_forwarded(&headers) {
        for (pod, _, answer) in ask_all(&http, Method::GET, &at, &headers, Bytes::new()).await {
            if let Ok(passed) = answer
                && passed.status == StatusCode::OK
                && has_found(&passed.body)
            {
                trace.is_at(pod, now);
                return Ok(passed.into_response());
            }
        }
    }
    Ok(Json(trace.view(after, Instant::now())).into_response())
}

/// `DELETE /api/v1/traces/{id}`.
pub async fn stop(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = id_of(path)?;
    let at = format!("{PATH}/{id}");
    if let Some(peer) = elsewhere(&http, id, &headers)? {
        return pass_on(&http, &peer, Method::DELETE, &at, &headers, Bytes::new()).await;
    }
    let trace = find(&http, &caller, id)?;
    trace.stop(Instant::now());
    if matches!(trace.wanted.subject, Subject::Number(_)) && !forward::is_forwarded(&headers) {
        // A pod that can't be asked lets go of it when its time is over.
        ask_all(&http, Method::DELETE, &at, &headers, Bytes::new()).await;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn wanted(id: TraceId, caller: &Caller, subject: Subject, seconds: u32) -> Wanted {
    let span = Duration::from_secs(seconds.into());
    Wanted { id, subject, namespace: caller.namespace(), span }
}

fn find(http: &Http, caller: &Caller, id: TraceId) -> Result<Arc<Trace>, ApiError> {
    let namespace = caller.namespace();
    http.control.find_trace(id, namespace.as_deref()).ok_or_else(|| no_trace(&id.to_string()))
}

/// The other pod that was asked for a trace, if it was another.
fn elsewhere(http: &Http, id: TraceId, headers: &HeaderMap) -> Result<Option<Peer>, ApiError> {
    if id.instance == http.control.instance() || forward::is_forwarded(headers) {
        return Ok(None);
    }
    let peer = http.peers.load().get(id.instance).cloned();
    peer.map(Some).ok_or_else(|| no_trace(&id.to_string()))
}

/// Every other pod's answer.
async fn ask_all(
    http: &Http,
    method: Method,
    path: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Vec<(Instance, Peer, Result<Passed, String>)> {
    let peers = http.peers.load().0.clone();
    let own = http.control.instance();
    let asked = peers.into_iter().map(async |(pod, peer)| {
        let ask = Ask { own, method: method.clone(), path, headers };
        let answer = http.forwarder.pass_on(&peer, ask, body.clone()).await;
        (pod, peer, answer.map_err(|error| error.to_string()))
    });
    futures::future::join_all(asked).await
}

/// Whether a pod's answer says that the call came to it.
fn has_found(body: &[u8]) -> bool {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let is_running =
        serde_json::to_value(TraceState::Running).is_ok_and(|running| answer["state"] == running);
    is_running || answer["messages"].as_array().is_some_and(|messages| !messages.is_empty())
}

/// The id in a path.
pub fn id_of(path: Result<Path<String>, PathRejection>) -> Result<TraceId, ApiError> {
    let Path(id) = path.map_err(|_| no_trace("?"))?;
    id.parse().map_err(|_| no_trace(&id))
}

/// 404 for a trace.
pub fn no_trace(id: &str) -> ApiError {
    let id: String = id.chars().take(64).collect();
    ApiError::not_found(format!(
        "no trace has the id '{id}'; one that is over is kept for two minutes, POST {PATH} begins another"
    ))
}

/// The number after `after=`; 0 when it is left out.
pub fn after(query: &str) -> Result<usize, ApiError> {
    let wrong =
        |param: &str| ApiError::invalid(param, "write after=N, the number of the last message that you have");
    let mut after = 0;
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if name != "after" {
            return Err(wrong(&name.chars().take(64).collect::<String>()));
        }
        after = value
            .parse()
            .ok()
            .filter(|_| value.bytes().all(|b| b.is_ascii_digit()))
            .ok_or_else(|| wrong("after"))?;
    }
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_refused_by_the_name_of_its_field() {
        let param = |body: &str| TraceRequest::parse(body.as_bytes()).unwrap_err().body.param;
        assert_eq!(param("["), None);
        for (body, expected) in [
            ("{}", "call"),
            (r#"{"call": "call_0badcafe_030123456789abcdef", "number": "+31201234567"}"#, "call"),
            (r#"{"call": "x"}"#, "call"),
            (r#"{"number": "0201234567"}"#, "number"),
            (r#"{"number": "+31201234567", "seconds": 0}"#, "seconds"),
            (r#"{"number": "+31201234567", "seconds": 601}"#, "seconds"),
            (r#"{"number": "+31201234567", "for": 1}"#, "for"),
        ] {
            assert_eq!(param(body).as_deref(), Some(expected), "{body}");
        }
        let (request, subject) = TraceRequest::parse(br#"{"number": "+31201234567"}"#).unwrap();
        assert_eq!((request.seconds, subject), (60, Subject::Number("+31201234567".parse().unwrap())));
    }

    #[test]
    fn a_query_says_which_messages_are_known() {
        assert_eq!((after(""), after("after=12")), (Ok(0), Ok(12)));
        for wrong in ["after", "after=-1", "after=+1", "before=1"] {
            assert!(after(wrong).is_err(), "{wrong}");
        }
    }
}
