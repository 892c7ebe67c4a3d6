//! Webhooks of OpenAI: signed as the Standard Webhooks specification says.
//!
//! ```text
//! webhook-id: wh_…                     the same on every repetition
//! webhook-timestamp: 1750861210        seconds
//! webhook-signature: v1,<base64 of HMAC-SHA256 over "<id>.<timestamp>.<body>">, several with spaces between
//! ```
//!
//! One matching signature is enough, so that a secret can be rotated. What is too old or from the future is refused: it may be
//! somebody's repetition of what was overheard. What the caller's headers say is nobody's word.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use jiff::Timestamp;
use ring::hmac;
use serde::Deserialize;

/// How far the sender's clock and ours may be apart, the way included.
const TOLERANCE_SECONDS: u64 = 300;
/// The header with which a gateway tells its calls apart.
pub const CALL_ID: &str = "X-VoiceDock-Call-Id";
/// The header that names the Assistant.
pub const ASSISTANT: &str = "X-VoiceDock-Assistant";

/// The headers of a webhook.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`.
    pub timestamp: &'a str,
    /// `webhook-signature`.
    pub signature: &'a str,
}

/// Why a webhook isn't believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBelieved {
    /// No number.
    #[error("its webhook-timestamp is no number of seconds")]
    Timestamp,
    /// Too old, or from the future.
    #[error(
        "its webhook-timestamp is {0} s away from this clock, more than 300 s; if that is often so, set the clock of the node"
    )]
    Stale(u64),
    /// Another secret.
    #[error(
        "its signature is that of another secret; compare webhookSecretRef with the secret of the project's webhook"
    )]
    Signature,
}

/// Whether a webhook was signed with `secret`, not long ago.
pub fn verify(secret: &str, signed: Signed<'_>, body: &[u8], now: Timestamp) -> Result<(), NotBelieved> {
    let at: i64 = signed.timestamp.parse().map_err(|_| NotBelieved::Timestamp)?;
    let away = now.as_second().abs_diff(at);
    if away > TOLERANCE_SECONDS {
        return Err(NotBelieved::Stale(away));
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key(secret));
    let text = [signed.id.as_bytes(), b".", signed.timestamp.as_bytes(), b".", body].concat();
    let mut tags = signed.signature.split(' ').filter_map(|one| {
        let (version, tag) = one.split_once(',')?;
        (version == "v1").then(|| STANDARD.decode(tag).ok())?
    });
    // Compares in constant time.
    if tags.any(|tag| hmac::verify(&key, &text, &tag).is_ok()) { Ok(()) } else { Err(NotBelieved::Signature) }
}

/// `whsec_` and base64; anything else is taken as it stands, as OpenAI's own libraries do.
fn key(secret: &str) -> Vec<u8> {
    let encoded = secret.strip_prefix("whsec_");
    let decode = |text: &str| STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok();
    encoded.and_then(decode).unwrap_or_else(|| secret.as_bytes().to_vec())
}

/// An event that OpenAI tells of.
#[derive(Debug, Deserialize)]
pub struct Event {
    /// What happened.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// When, seconds.
    #[serde(default)]
    pub created_at: Option<i64>,
    #[serde(default)]
    data: Data,
}

#[derive(Debug, Default, Deserialize)]
struct Data {
    #[serde(default)]
    call_id: Option<String>,
    #[serde(default)]
    sip_headers: Vec<Header>,
}

#[derive(Debug, Deserialize)]
struct Header {
    #[serde(default)]
    name: String,
    #[serde(default)]
    value: String,
}

/// A call that waits at OpenAI, and whose INVITE says that it is one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// OpenAI's name of the call.
    pub at: String,
    /// Our call.
    pub call: String,
    /// The Assistant.
    pub assistant: String,
}

impl Event {
    /// Reads a body; what isn't known is passed over.
    pub fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }

    /// The call that waits, if that is what it tells of. A header that is there twice names nobody.
    pub fn waiting(&self) -> Option<Waiting> {
        if self.kind != "realtime.call.incoming" {
            return None;
        }
        let header = |name: &str| {
            let mut found =
                self.data.sip_headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            found.next().filter(|_| found.next().is_none()).map(|header| header.value.trim().to_owned())
        };
        let at = self.data.call_id.clone().filter(|id| is_path_segment(id))?;
        Some(Waiting { at, call: header(CALL_ID)?, assistant: header(ASSISTANT)? })
    }
}

/// Whether a text can stand in the path of a request as it is.
fn is_path_segment(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    (1..=256).contains(&text.len()) && text.bytes().all(fits) && !text.bytes().all(|byte| byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c=";
    const ID: &str = "wh_685c059ae39c8190af8c71ed1022a24d";
    const BODY: &[u8] = br#"{"id": "evt_685c059ae3a481909bdc86819b066fb6", "object": "event", "created_at": 1750861210, "type": "response.completed", "data": {"id": "resp_123"}}"#;
    const SIGNATURE: &str = "v1,gUAg4R2hWouRZqRQG4uJypNS8YK885G838+EHb4nKBY=";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn believed(secret: &str, timestamp: &str, signature: &str, now: i64) -> Result<(), NotBelieved> {
        verify(secret, Signed { id: ID, timestamp, signature }, BODY, at(now))
    }

    /// The vector of OpenAI's own libraries.
    #[test]
    fn a_webhook_is_believed_within_five_minutes_of_its_time_and_not_outside() {
        let time = 1_750_861_210;
        for away in [-300, 0, 300] {
            assert_eq!(believed(SECRET, "1750861210", SIGNATURE, time + away), Ok(()));
        }
        for away in [-301, 301] {
            let refused = believed(SECRET, "1750861210", SIGNATURE, time + away);
            assert_eq!(refused, Err(NotBelieved::Stale(301)));
        }
    }

    #[test]
    fn one_signature_of_several_is_enough_and_a_wrong_one_is_not() {
        let time = 1_750_861_210;
        let several = format!("v1,AAAA v2,{} {SIGNATURE}", &SIGNATURE[3..]);
        assert_eq!(believed(SECRET, "1750861210", &several, time), Ok(()));
        for wrong in ["", "v1", "v1,", "v1,AAAA", "v2,gUAg4R2hWouRZqRQG4uJypNS8YK885G838+EHb4nKBY="] {
            assert_eq!(believed(SECRET, "1750861210", wrong, time), Err(NotBelieved::Signature), "{wrong}");
        }
        assert_eq!(believed("whsec_AAAA", "1750861210", SIGNATURE, time), Err(NotBelieved::Signature));
        assert_eq!(believed(SECRET, "1750861211", SIGNATURE, time), Err(NotBelieved::Signature));
        assert_eq!(believed(SECRET, "now", SIGNATURE, time), Err(NotBelieved::Timestamp));
    }

    #[test]
    fn a_secret_without_its_prefix_is_taken_as_it_stands() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"plain");
        let tag = hmac::sign(&key, &[ID.as_bytes(), b".1750861210.", BODY].concat());
        let signature = format!("v1,{}", STANDARD.encode(tag));
        assert_eq!(believed("plain", "1750861210", &signature, 1_750_861_210), Ok(()));
    }

    fn waiting(kind: &str, id: &str, headers: &[(&str, &str)]) -> Option<Waiting> {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| serde_json::json!({ "name": name, "value": value })).collect();
        let body = serde_json::json!({
            "object": "event", "id": "evt_1", "type": kind, "created_at": 1, "more": {},
            "data": { "call_id": id, "sip_headers": headers, "sip_media_security": "rtp" },
        });
        Event::read(body.to_string().as_bytes()).unwrap().waiting()
    }

    #[test]
    fn a_waiting_call_is_ours_by_exactly_one_header_of_each_name() {
        let ours = [("x-voicedock-call-id", " call_1 "), ("From", "a"), (ASSISTANT, "acme/support")];
        let incoming = "realtime.call.incoming";
        let expected =
            Waiting { at: "rtc_u0_1".into(), call: "call_1".into(), assistant: "acme/support".into() };
        assert_eq!(waiting(incoming, "rtc_u0_1", &ours), Some(expected));
        assert_eq!(waiting("live.transport.incoming", "rtc_u0_1", &ours), None);
        assert_eq!(waiting(incoming, "rtc_u0_1", &ours[..2]), None);
        let twice = [&ours[..], &[(CALL_ID, "call_2")]].concat();
        assert_eq!(waiting(incoming, "rtc_u0_1", &twice), None);
        for id in ["", "..", "a/b", "a?b", "a b"] {
            assert_eq!(waiting(incoming, id, &ours), None, "'{id}' would lead elsewhere");
        }
        assert!(
            Event::read(br#"{"type":"batch.completed","data":{"id":"batch_1"}}"#)
                .unwrap()
                .waiting()
                .is_none()
        );
    }
}
