//! The event about a call: signed as Standard Webhooks say, and sent until somebody takes it.
//!
//! ```text
//! POST <webhook>
//! webhook-id: wh_…                 the same for each attempt
//! webhook-timestamp: 1767603600    seconds, of this attempt
//! webhook-signature: v1,<HMAC-SHA256 of "<id>.<timestamp>.<body>", base64>
//! ```
//!
//! Any 2xx takes it. A redirect is a failure; the body of the answer isn't read.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use ring::hmac;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};

use super::script::Signature;
use crate::simulate::SimulateError;

/// The User-Agent of OpenAI's webhooks.
const USER_AGENT: &str = "OpenAI/1.0 (+https://platform.openai.com/docs/webhooks)";
/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Time from an attempt that failed to the next one; then twice as long each time.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Attempts to send one event; the real one goes on for three days.
const ATTEMPTS: u32 = 6;

/// Where events go.
#[derive(Clone, Debug, Default)]
pub struct WebhookTarget {
    /// The URL; nothing is sent without one.
    pub url: Option<String>,
    /// The secret by which they are signed: `whsec_` and base64, or raw.
    pub secret: String,
    /// Those who vouch for its certificate, PEM; public ones if not given.
    pub authorities: Option<String>,
}

/// One event that is to be sent.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) id: String,
    pub(super) body: Vec<u8>,
    pub(super) signature: Signature,
    /// How much older than it is its time says it was sent.
    pub(super) age: Duration,
}

/// The way to the webhook.
#[derive(Clone)]
pub(super) struct Webhook {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    secret: String,
    url: Option<String>,
}

impl Webhook {
    pub(super) fn new(target: &WebhookTarget) -> Result<Self, SimulateError> {
        let unusable = |why: String| SimulateError::Certificate("the webhook's authorities", why);
        let mut roots = RootCertStore::empty();
        match &target.authorities {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                    roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
                }
            }
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .with_root_certificates(Arc::new(roots))
            .with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_max_idle_per_host(0);
        let client = client.build(connector.wrap_connector(http));
        Ok(Self { client, secret: target.secret.clone(), url: target.url.clone() })
    }

    pub(super) fn set_url(&mut self, url: String) {
        self.url = Some(url);
    }

    /// Sends an event until it is taken; tells each attempt and the status that it met.
    pub(super) async fn deliver(self, delivery: Delivery, mut tell: impl FnMut(u32, Option<u16>)) {
        let mut pause = RETRY_AFTER;
        for attempt in 1..=ATTEMPTS {
            let answer = tokio::time::timeout(ANSWER_TIME, self.attempt(&delivery)).await;
            let status = answer.ok().flatten();
            tell(attempt, status);
            if status.is_some_and(|status| (200..300).contains(&status)) {
                return;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn attempt(&self, delivery: &Delivery) -> Option<u16> {
        let Delivery { id, body, signature, age } = delivery;
        let at = Timestamp::now().as_second() - i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let right = sign(&self.secret, id, at, body);
        let wrong = sign("whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldA==", id, at, body);
        let signature = match signature {
            Signature::Right => right,
            Signature::Wrong => wrong,
            Signature::Second => format!("{wrong} {right}"),
        };
        let request = Request::post(self.url.as_ref()?)
            .header("content-type", "application/json")
            .header("user-agent", USER_AGENT)
            .header("webhook-id", id)
            .header("webhook-timestamp", at)
            .header("webhook-signature", signature)
            .body(Full::new(Bytes::copy_from_slice(body)))
            .ok()?;
        Some(self.client.request(request).await.ok()?.status().as_u16())
    }
}

/// The event that says that a call comes in.
pub(super) fn incoming(id: &str, call: &str, headers: &[(String, String)], at: i64) -> Value {
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    json!({
        "object": "event", "id": id, "type": "realtime.call.incoming", "created_at": at,
        "data": { "call_id": call, "sip_media_security": "rtp", "sip_headers": headers },
    })
}

/// `v1,` and the signature. A secret without the prefix is taken as it is, as OpenAI's own libraries do.
pub fn sign(secret: &str, id: &str, at: i64, body: &[u8]) -> String {
    let decoded = secret.strip_prefix("whsec_").and_then(|encoded| STANDARD.decode(encoded).ok());
    let key = decoded.unwrap_or_else(|| secret.as_bytes().to_vec());
    let mut signing = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
    signing.update(format!("{id}.{at}.").as_bytes());
    signing.update(body);
    format!("v1,{}", STANDARD.encode(signing.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_signed_as_the_known_one_of_openai() {
        let body = br#"{"id": "evt_685c059ae3a481909bdc86819b066fb6", "object": "event", "created_at": 1750861210, "type": "response.completed", "data": {"id": "resp_123"}}"#;
        let (secret, id) =
            ("whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c=", "wh_685c059ae39c8190af8c71ed1022a24d");
        assert_eq!(sign(secret, id, 1_750_861_210, body), "v1,gUAg4R2hWouRZqRQG4uJypNS8YK885G838+EHb4nKBY=");
    }
}
