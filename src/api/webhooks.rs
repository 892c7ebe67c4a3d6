//! `POST /webhooks/openai`: what OpenAI tells of calls, passed on to the gateway pod that it is about.
//!
//! It comes from the Internet without a key; the pod checks its signature, over the very bytes that came. Which call it is
//! about is in a header of the INVITE that the pod sent.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use serde::Deserialize;

use super::router::Service;
use crate::gateway::call_id::CallId;
use crate::http::error::ApiError;
use crate::http::forward::Passed;

/// Where it is taken, here and at the pods.
pub const PATH: &str = "/webhooks/openai";
/// How large it may be, bytes: as much as a gateway takes.
const LIMIT: usize = crate::http::BODY_LIMIT;
/// The header of the INVITE that names the call.
const CALL_ID: &str = "x-voicedock-call-id";

/// Takes one.
pub async fn openai(
    State(service): State<Service>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Passed, ApiError> {
    let body = body.ok().filter(|body| body.len() <= LIMIT).ok_or_else(|| ApiError::too_large(LIMIT))?;
    let owner = call_of(&body).map(|call| call.instance);
    let peer = service.gateways.any(owner);
    let peer =
        peer.ok_or_else(|| ApiError::unavailable("no gateway pod is there to take this; send it again"))?;
    service.gateways.pass_on(&peer, PATH, &headers, body).await
}

#[derive(Deserialize)]
struct Event {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    sip_headers: Vec<Header>,
}

#[derive(Deserialize)]
struct Header {
    name: String,
    value: String,
}

/// The call of ours that an event is about.
fn call_of(body: &[u8]) -> Option<CallId> {
    let event: Event = serde_json::from_slice(body).ok()?;
    let header =
        event.data.sip_headers.into_iter().find(|header| header.name.eq_ignore_ascii_case(CALL_ID))?;
    header.value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_is_read_from_the_headers_of_the_invite() {
        let event = |name: &str| {
            format!(
                r#"{{"type":"realtime.call.incoming","data":{{"call_id":"rtc_1","sip_headers":[{{"name":"From","value":"x"}},
                {{"name":"{name}","value":"call_0badcafe_030123456789abcdef"}}]}}}}"#
            )
        };
        let call = call_of(event("X-VoiceDock-Call-Id").as_bytes()).unwrap();
        assert_eq!(call.to_string(), "call_0badcafe_030123456789abcdef");
        assert_eq!(call_of(event("X-Other").as_bytes()), None);
        assert_eq!(call_of(b"{}"), None);
    }
}
