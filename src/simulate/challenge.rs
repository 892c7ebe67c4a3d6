//! The digest challenge of a simulated PBX (RFC 3261 §22): calls without the right credentials get 407.
//!
//! Stateless, in front of the endpoint: an INVITE outside of a dialog gets through with an answer to our nonce, or is sent
//! back with it. Each nonce is good for as long as the process runs.

use bytes::Bytes;
use sipx_sip::auth::{Challenge, Credentials, respond};
use sipx_sip::{HeaderName, Message, Method, Request};

use crate::sip::front_door;
use crate::sip::read;
use crate::sip::wire::reason_phrase;

/// See the module.
pub struct Challenger {
    credentials: Credentials,
    challenge: String,
}

impl Challenger {
    /// Lets in whoever knows `USER:PASSWORD`.
    pub fn new(credentials: &str, realm: String) -> Self {
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let challenge = format!(
            "Digest realm=\"{realm}\", nonce=\"{:032x}\", algorithm=SHA-256, qop=\"auth\"",
            rand::random::<u128>()
        );
        Self { credentials: Credentials::new(user, password), challenge }
    }

    /// What is answered instead of letting the message through, if anything.
    pub fn look_at(&mut self, message: &Message) -> Option<Bytes> {
        let Message::Request(request) = message else { return None };
        let inside = read::tag(&request.headers, &HeaderName::To).is_some();
        if request.method != Method::Invite || inside || self.knows(request) {
            return None;
        }
        let challenge = [("Proxy-Authenticate", self.challenge.clone())];
        Some(front_door::reply_stateless(request, 407, reason_phrase(407), &challenge))
    }

    fn knows(&self, request: &Request) -> bool {
        let Some(challenge) = Challenge::parse(self.challenge.as_bytes(), true) else { return false };
        request.headers.get_all(&HeaderName::ProxyAuthorization).any(|row| {
            let given = String::from_utf8_lossy(&row.value()).into_owned();
            let (Some(uri), Some(cnonce), Some(count), Some(response)) = (
                parameter(&given, "uri"),
                parameter(&given, "cnonce"),
                parameter(&given, "nc").and_then(|count| u32::from_str_radix(count, 16).ok()),
                parameter(&given, "response"),
            ) else {
                return false;
            };
            let right = respond(&challenge, &self.credentials, "INVITE", uri, count, cnonce);
            parameter(&given, "nonce") == Some(challenge.nonce.as_str())
                && parameter(&given, "username") == parameter(&right, "username")
                && parameter(&right, "response") == Some(response)
        })
    }
}

/// The value of a parameter of a digest header, without quotes.
fn parameter<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let parameters = header.split_once(' ')?.1;
    parameters.split(',').find_map(|parameter| {
        let (key, value) = parameter.trim().split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}
