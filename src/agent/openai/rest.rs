//! The REST API of calls: four POSTs, each bounded in time, answered with an empty 200.
//!
//! ```text
//! POST <base>/realtime/calls/<call>/accept     the session
//! POST <base>/realtime/calls/<call>/reject     {"status_code": 480}
//! POST <base>/realtime/calls/<call>/hangup
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use serde_json::{Value, json};

use crate::agent::innermost;

/// How long the API may take to be reached.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer may take. A call that isn't there takes it 5 s to say so.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(7);
/// A connection that wasn't used for so long is closed: the API would close it in the middle of the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of an error is read, bytes.
const ERROR_LIMIT: usize = 64 * 1024;
/// How much of it is shown, characters.
const SHOWN: usize = 200;
/// What a caller hears whose call isn't taken (RFC 3261 §21.4.18).
const UNAVAILABLE: u16 = 480;

/// Where the API is, and the key for it.
#[derive(Clone)]
pub struct Place {
    /// Base URL, `https://api.openai.com/v1`.
    pub base: String,
    /// The key. Never shown.
    pub key: String,
}

/// Why the API didn't do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The URL or the key can't be used.
    #[error("{0}")]
    Unusable(String),
    /// Nothing there.
    #[error("the API can't be reached: {0}")]
    Unreachable(String),
    /// Nothing comes.
    #[error("the API did not answer within {} s", .0.as_secs())]
    TooSlow(Duration),
    /// It says no.
    #[error("the API answered {status}{}: {message}", if code.is_empty() { String::new() } else { format!(" {code}") })]
    Refused {
        /// Status.
        status: u16,
        /// A fixed word, if there is one.
        code: String,
        /// A sentence, or what to do.
        message: String,
        /// When it may be asked again.
        retry_after: Option<Duration>,
    },
}

impl ApiError {
    /// Whether the same request may succeed in a moment.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unusable(_) => false,
            Self::Unreachable(_) | Self::TooSlow(_) => true,
            Self::Refused { status, code, .. } => {
                // A used up budget is a 429 as well, and stays one.
                matches!(*status, 408 | 409 | 429 | 500..) && code != "insufficient_quota"
            }
        }
    }

    /// When it may be asked again, as far as it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether an earlier request for the same has been carried out, although its answer was lost.
    pub fn is_done_already(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "decision_already_made")
    }
}

/// The way to the API; clones share their connections.
#[derive(Clone)]
pub struct Api {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    pub(super) tls: Arc<ClientConfig>,
    user_agent: HeaderValue,
}

impl Api {
    /// Over TLS with this configuration.
    pub fn new(tls: Arc<ClientConfig>, user_agent: &'static str) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(ClientConfig::clone(&tls))
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let http = Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE_TIMEOUT).build(connector);
        Self { http, tls, user_agent: HeaderValue::from_static(user_agent) }
    }

    /// Has a call that waits answered by this session.
    pub async fn accept(&self, place: &Place, call: &str, session: &Value) -> Result<(), ApiError> {
        self.post(place, call, "accept", Some(session)).await
    }

    /// Has a call that waits turned away.
    pub async fn reject(&self, place: &Place, call: &str) -> Result<(), ApiError> {
        self.post(place, call, "reject", Some(&json!({ "status_code": UNAVAILABLE }))).await
    }

    /// Ends a call.
    pub async fn hang_up(&self, place: &Place, call: &str) -> Result<(), ApiError> {
        self.post(place, call, "hangup", None).await
    }

    async fn post(
        &self,
        place: &Place,
        call: &str,
        verb: &str,
        body: Option<&Value>,
    ) -> Result<(), ApiError> {
        let unusable = |error: &dyn std::fmt::Display| {
            ApiError::Unusable(format!("the base URL of the API can't be used: {error}"))
        };
        let url = format!("{}/realtime/calls/{call}/{verb}", place.base);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(url.parse::<Uri>().map_err(|error| unusable(&error))?)
            .header(USER_AGENT, &self.user_agent)
            .header(AUTHORIZATION, bearer(&place.key)?);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(ToString::to_string).unwrap_or_default();
        let request = request.body(Full::new(body.into())).map_err(|error| unusable(&error))?;
        let answer = async {
            let answer = self.http.request(request).await;
            let answer = answer.map_err(|error| ApiError::Unreachable(innermost(&error)))?;
            let (head, body) = answer.into_parts();
            if head.status.is_success() {
                return Ok(());
            }
            let body = Limited::new(body, ERROR_LIMIT).collect().await;
            let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            Err(refused(head.status, &head.headers, &body))
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
        answer.unwrap_or(Err(ApiError::TooSlow(ANSWER_TIMEOUT)))
    }
}

/// The value of Authorization; not shown when a request is.
pub(super) fn bearer(key: &str) -> Result<HeaderValue, ApiError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
        ApiError::Unusable("the API key holds what no header can; see apiKeySecretRef".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// What an answer says that is no success. Every key of the body may be missing.
pub(super) fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ApiError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| body.pointer(&format!("/error/{key}")).and_then(Value::as_str).unwrap_or_default();
    let code = if text("code").is_empty() { text("type") } else { text("code") };
    let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let message = match status.as_u16() {
        // What it says then repeats a part of the key.
        401 => "it doesn't take the key; see apiKeySecretRef".to_owned(),
        403 => "the key's project may not do that; see apiKeySecretRef and projectId".to_owned(),
        _ => text("message").chars().filter(|c| !c.is_control()).take(SHOWN).collect(),
    };
    ApiError::Refused {
        status: status.as_u16(),
        code: code.chars().filter(|c| c.is_ascii_graphic()).take(64).collect(),
        message,
        retry_after: retry_after.map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, headers: &[(&str, &str)], body: &str) -> ApiError {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(
                hyper::header::HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        refused(StatusCode::from_u16(status).unwrap(), &map, body.as_bytes())
    }

    #[test]
    fn what_can_pass_is_tried_again_and_what_cannot_is_not() {
        for (status, body, temporary) in [
            (
                401,
                r#"{"error":{"code":"invalid_api_key","message":"Incorrect API key provided: sk-abc"}}"#,
                false,
            ),
            (
                400,
                r#"{"error":{"message":"Unknown parameter: 'session.x'","type":"invalid_request_error","code":null}}"#,
                false,
            ),
            (404, r#"{"error":{"code":"call_id_not_found"}}"#, false),
            (429, r#"{"error":{"code":"rate_limit_exceeded"}}"#, true),
            (429, r#"{"error":{"code":"insufficient_quota"}}"#, false),
            (500, "no JSON", true),
            (503, "", true),
        ] {
            assert_eq!(answered(status, &[], body).is_temporary(), temporary, "{status} {body}");
        }
        assert!(ApiError::Unreachable(String::new()).is_temporary());
    }

    #[test]
    fn an_error_says_what_to_do_and_nothing_of_the_key() {
        let error = answered(
            401,
            &[],
            r#"{"error":{"code":"invalid_api_key","message":"Incorrect API key: sk-abc"}}"#,
        );
        let expected = "the API answered 401 invalid_api_key: it doesn't take the key; see apiKeySecretRef";
        assert_eq!(error.to_string(), expected);
        let error =
            answered(429, &[("retry-after", "2")], r#"{"error":{"message":"Slow\r\ndown","type":"tokens"}}"#);
        assert_eq!(error.to_string(), "the API answered 429 tokens: Slowdown");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
    }
}
