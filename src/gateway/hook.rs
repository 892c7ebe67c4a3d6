//! The hook of an agent that is reached over SIP: signed HTTP that tells it what to say.
//!
//! ```text
//! POST <agent.sip.hook.url>
//! X-Webhook-Event: say
//! X-Webhook-Timestamp: 1767603600                       seconds
//! X-Webhook-Signature: sha256=<HMAC-SHA256 of "<timestamp>.<body>", hexadecimal>
//!
//! {"type": "say", "call_id": "call_…", "assistant": "acme/support", "number": "+31201234567", "content": "…", "end_after": false}
//! ```
//!
//! Any 2xx means that the caller heard it to its end. It is sent once: twice would be said twice. Redirects aren't followed, the
//! body of the answer isn't read, the whole is bounded in time. Over https the certificate must be one of a public authority.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use ring::hmac;
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;

use super::plane::USER_AGENT;
use super::tls::provider;

/// How long the agent's host may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How large the head of an answer may be, bytes.
const HEAD_LIMIT: usize = 16 * 1024;

/// What an agent is told to say.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "say")]
pub(super) struct Say {
    /// The call, as the INVITE to the agent named it in `X-VoiceDock-Call-Id`.
    pub(super) call_id: String,
    /// The Assistant, `namespace/name`.
    pub(super) assistant: String,
    /// The number that was called.
    pub(super) number: String,
    /// The words.
    pub(super) content: String,
    /// Whether the call ends when they were heard.
    pub(super) end_after: bool,
}

/// Why nobody knows that something was heard.
#[derive(Debug, thiserror::Error)]
pub(super) enum HookError {
    /// The URL can't be asked.
    #[error("the URL of the agent's hook can't be used: {0}")]
    Url(String),
    /// The agent's host.
    #[error("the agent's hook can't be reached: {0}")]
    Unreachable(String),
    /// It doesn't answer.
    #[error("the agent's hook did not answer within {} s", .0.as_secs())]
    TooSlow(Duration),
    /// It answered something else than 2xx.
    #[error("the agent's hook answered {0}")]
    Refused(StatusCode),
}

/// The way to hooks.
pub(super) struct Hooks {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Hooks {
    /// Fails when there is no TLS to be had.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let tls = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::new(roots))
            .with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        http.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let mut client = Client::builder(TokioExecutor::new());
        // A connection that the other side has just closed must not cost somebody a message.
        client.pool_max_idle_per_host(0).http1_max_buf_size(HEAD_LIMIT);
        Ok(Self { client: client.build(connector.wrap_connector(http)) })
    }

    /// Tells an agent what to say; returns once it was heard to its end.
    pub(super) async fn say(
        &self,
        url: &str,
        secret: &str,
        say: &Say,
        within: Duration,
    ) -> Result<(), HookError> {
        let request = request(url, secret, say, Timestamp::now().as_second())?;
        let answer = tokio::time::timeout(within, self.client.request(request));
        let answer = answer.await.map_err(|_| HookError::TooSlow(within))?;
        let answer = answer.map_err(|error| HookError::Unreachable(innermost(&error)))?;
        if answer.status().is_success() { Ok(()) } else { Err(HookError::Refused(answer.status())) }
    }
}

fn request(url: &str, secret: &str, say: &Say, now: i64) -> Result<Request<Full<Bytes>>, HookError> {
    let unusable = |error: &dyn std::fmt::Display| HookError::Url(error.to_string());
    let body = serde_json::to_vec(say).map_err(|error| unusable(&error))?;
    Request::builder()
        .method(Method::POST)
        .uri(url.parse::<Uri>().map_err(|error| unusable(&error))?)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, USER_AGENT)
        .header("x-webhook-event", "say")
        .header("x-webhook-timestamp", now)
        .header("x-webhook-signature", signature(secret, now, &body))
        .body(Full::new(body.into()))
        .map_err(|error| unusable(&error))
}

/// `sha256=` and the HMAC of `<timestamp>.<body>`, as the product signs its webhooks.
fn signature(secret: &str, timestamp: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut signing = hmac::Context::with_key(&key);
    signing.update(format!("{timestamp}.").as_bytes());
    signing.update(body);
    let hex: String = signing.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

/// The innermost reason: "connection refused" rather than "client error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_signed_as_the_product_signs_its_webhooks() {
        // echo -n '1767603600.{"type":"say"}' | openssl dgst -sha256 -hmac hunter2
        let expected = "sha256=50c3cdd3752ff055e8055cf986655af474f01da15b4df817dfcdc302513a2c52";
        assert_eq!(signature("hunter2", 1_767_603_600, br#"{"type":"say"}"#), expected);
    }

    #[test]
    fn what_is_sent_is_what_the_reference_says() {
        let say = Say {
            call_id: "call_1".into(),
            assistant: "acme/support".into(),
            number: "+31201234567".into(),
            content: "Een ogenblik…".into(),
            end_after: false,
        };
        assert_eq!(
            serde_json::to_string(&say).unwrap(),
            "{\"type\":\"say\",\"call_id\":\"call_1\",\"assistant\":\"acme/support\",\"number\":\"+31201234567\",\
             \"content\":\"Een ogenblik…\",\"end_after\":false}"
        );
        let request = request("http://ai:8080/hook?x=1", "s", &say, 7).unwrap();
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/hook"));
        assert_eq!(request.headers()["x-webhook-timestamp"], "7");
        assert!(matches!(super::request("http://", "s", &say, 7), Err(HookError::Url(_))));
    }
}
