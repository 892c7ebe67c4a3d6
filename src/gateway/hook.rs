//! The hook of an agent that is reached over SIP: signed HTTP that tells it what to say, and what to know.
//!
//! ```text
//! POST <agent.sip.hook.url>
//! X-Webhook-Event: say
//! X-Webhook-Timestamp: 1767603600                       seconds
//! X-Webhook-Signature: sha256=<HMAC-SHA256 of "<timestamp>.<body>", hexadecimal>
//!
//! {"type": "say", "content": "…", "end_after": false, "call_id": "call_…", "assistant": "acme/support", "number": "+31201234567"}
//! {"type": "inject-context", "content": "…", "trigger_response": true, "call_id": …}
//! ```
//!
//! Any 2xx means that the caller heard it to its end, or that the agent knows it. It is sent once: twice would be said twice.
//! Redirects aren't followed, the body of the answer isn't read, the whole is bounded in time. Over https the certificate must
//! be one of a public authority.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use serde::Serialize;

use super::plane::USER_AGENT;
use super::signing::signature;
use super::tls::towards_the_public;
use crate::agent::innermost;
use crate::call::Telling;

/// How long the agent's host may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How large the head of an answer may be, bytes.
const HEAD_LIMIT: usize = 16 * 1024;

/// What an agent is told.
#[derive(Debug, Serialize)]
pub(super) struct Notice {
    /// What to do.
    #[serde(flatten)]
    pub(super) what: What,
    /// The call, as the INVITE to the agent named it in `X-VoiceDock-Call-Id`.
    pub(super) call_id: String,
    /// The Assistant, `namespace/name`.
    pub(super) assistant: String,
    /// The number that was called.
    pub(super) number: String,
}

/// What an agent has to do.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum What {
    /// Say something.
    Say {
        /// The words.
        content: String,
        /// Whether the call ends when they were heard.
        end_after: bool,
    },
    /// Know something that the caller doesn't hear.
    InjectContext {
        /// What it should know.
        content: String,
        /// Whether it should say something about it at once.
        trigger_response: bool,
    },
}

impl What {
    /// The value of `X-Webhook-Event`.
    fn event(&self) -> &'static str {
        match self {
            Self::Say { .. } => "say",
            Self::InjectContext { .. } => "inject-context",
        }
    }
}

impl From<Telling> for What {
    fn from(telling: Telling) -> Self {
        match telling {
            Telling::Say { content, end_after } => Self::Say { content, end_after },
            Telling::Context { content, trigger_response } => {
                Self::InjectContext { content, trigger_response }
            }
        }
    }
}

/// Why nobody knows that it was done.
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
        let tls = towards_the_public()?;
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

    /// Tells an agent something; returns once that is done. How long that may take is the caller's to bound.
    pub(super) async fn tell(&self, url: &str, secret: &str, notice: &Notice) -> Result<(), HookError> {
        let request = request(url, secret, notice, Timestamp::now().as_second())?;
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| HookError::Unreachable(innermost(&error)))?;
        if answer.status().is_success() { Ok(()) } else { Err(HookError::Refused(answer.status())) }
    }
}

fn request(url: &str, secret: &str, notice: &Notice, now: i64) -> Result<Request<Full<Bytes>>, HookError> {
    let unusable = |error: &dyn std::fmt::Display| HookError::Url(error.to_string());
    let body = serde_json::to_vec(notice).map_err(|error| unusable(&error))?;
    Request::builder()
        .method(Method::POST)
        .uri(url.parse::<Uri>().map_err(|error| unusable(&error))?)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, USER_AGENT)
        .header("x-webhook-event", notice.what.event())
        .header("x-webhook-timestamp", now)
        .header("x-webhook-signature", signature(secret, now, &body))
        .body(Full::new(body.into()))
        .map_err(|error| unusable(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_the_reference_says() {
        let notice = |what| Notice {
            what,
            call_id: "call_1".into(),
            assistant: "acme/support".into(),
            number: "+31201234567".into(),
        };
        let say = notice(What::Say { content: "Een ogenblik…".into(), end_after: false });
        assert_eq!(
            serde_json::to_string(&say).unwrap(),
            "{\"type\":\"say\",\"content\":\"Een ogenblik…\",\"end_after\":false,\
             \"call_id\":\"call_1\",\"assistant\":\"acme/support\",\"number\":\"+31201234567\"}"
        );
        let request = request("http://ai:8080/hook?x=1", "s", &say, 7).unwrap();
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/hook"));
        assert_eq!(request.headers()["x-webhook-timestamp"], "7");
        assert_eq!(request.headers()["x-webhook-event"], "say");
        assert!(matches!(super::request("http://", "s", &say, 7), Err(HookError::Url(_))));

        let context = notice(What::InjectContext { content: "VIP".into(), trigger_response: true });
        assert_eq!(
            serde_json::to_value(&context).unwrap(),
            serde_json::json!({ "type": "inject-context", "content": "VIP", "trigger_response": true,
                "call_id": "call_1", "assistant": "acme/support", "number": "+31201234567" })
        );
        let request = super::request("http://ai:8080/hook", "s", &context, 7).unwrap();
        assert_eq!(request.headers()["x-webhook-event"], "inject-context");
    }
}
