//! `POST /webhooks/openai`: what OpenAI tells of calls, from the Internet and without a key: the signature speaks for it.
//!
//! It can arrive at any pod; the call that it is about is in a header of the INVITE that we sent, and the pod that has the call
//! checks the signature. What isn't about one of our calls is answered 200, so that it isn't sent again: the project may serve
//! others too.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::error::ApiError;
use super::forward::{self, Ask};
use super::{BODY_LIMIT, Http};
use crate::agent::openai::webhook::{Event, Signed};
use crate::gateway::call_id::CallId;
use crate::gateway::openai::Taken;

/// Where webhooks are taken.
pub const PATH: &str = "/webhooks/openai";
/// The headers that a signature needs.
const HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("webhook-id"),
    HeaderName::from_static("webhook-timestamp"),
    HeaderName::from_static("webhook-signature"),
];

/// Takes one.
pub async fn openai(
    State(http): State<Http>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = body.map_err(|_| ApiError::too_large(BODY_LIMIT))?;
    let event = Event::read(&body)
        .map_err(|_| ApiError::unreadable("the body is no event of OpenAI: JSON with a type and data"))?;
    let Some(waiting) = event.waiting() else { return Ok(StatusCode::OK.into_response()) };
    let owner = waiting.call.parse().ok().map(|call: CallId| call.instance);
    let peers = http.peers.load();
    let peer = owner.filter(|owner| *owner != http.control.instance()).and_then(|owner| peers.get(owner));
    if let Some(peer) = peer.filter(|_| !forward::is_forwarded(&headers)) {
        let ask = Ask { own: http.control.instance(), method: Method::POST, path: PATH, headers: &headers };
        let passed = http.forwarder.pass_on(peer, ask, body).await;
        let passed = passed.map_err(|error| {
            ApiError::unavailable(format!("pod {}, which has the call, {error}", peer.pod))
        })?;
        return Ok((passed.status, passed.body).into_response());
    }
    let header = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let [Some(id), Some(timestamp), Some(signature)] = HEADERS.each_ref().map(header) else {
        return Err(ApiError::unreadable("webhook-id, webhook-timestamp or webhook-signature is missing"));
    };
    let signed = Signed { id, timestamp, signature };
    let call = waiting.call.clone();
    let taken = http.openai.take(signed, &body, event.created_at, waiting, Timestamp::now()).await;
    let taken = taken.map_err(|error| {
        tracing::warn!(%call, "a webhook is not believed: {error}");
        ApiError::not_believed(error.to_string())
    })?;
    match taken {
        Taken::Delivered => tracing::debug!(%call, "a webhook tells that the call waits at OpenAI"),
        Taken::Repeated => tracing::debug!(%call, "a webhook came again"),
        Taken::Late => tracing::info!(%call, "a webhook tells of a call that nobody waits for any more"),
        Taken::Foreign => {
            tracing::debug!(%call, "a webhook is about an assistant that this gateway doesn't have")
        }
    }
    Ok(StatusCode::OK.into_response())
}
