//! Messages as they are on the wire: what came in, whole, and what goes out, with the habits of the real API.

use bytes::Bytes;
use sipx_sip::{HeaderName, Message, Method};

use crate::simulate::realtime::script::Line;
use crate::sip::read;

/// The Contact that all of OpenAI's nodes share.
const SHARED_CONTACT: &str = "Contact: <sip:OAI@sip.api.openai.com:5061>";
/// A request that came over SIP, as it was before anybody looked at it.
pub(super) struct Met {
    pub(super) method: String,
    pub(super) sip_call_id: String,
    /// Of an INVITE that begins a call.
    pub(super) headers: Option<Vec<(String, String)>>,
}

/// Takes note of a request.
pub(super) fn meet(message: &Message) -> Option<Met> {
    let Message::Request(request) = message else { return None };
    let begins = request.method == Method::Invite && read::tag(&request.headers, &HeaderName::To).is_none();
    let headers = || {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let secret =
            |name: &HeaderName| matches!(name, HeaderName::Authorization | HeaderName::ProxyAuthorization);
        let shown = request.headers.iter().filter(|header| !secret(header.name()));
        shown.map(|header| (header.name().to_string(), text(&header.value()))).collect()
    };
    Some(Met {
        method: request.method.to_string(),
        sip_call_id: read::text(&request.headers, &HeaderName::CallId)?,
        headers: begins.then(headers),
    })
}

/// A message to the caller with the habits of the real API.
pub(super) fn edited(bytes: Bytes, line: Line) -> Bytes {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return bytes };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut out = Vec::with_capacity(bytes.len());
    for header in head.split("\r\n") {
        let header = match header.split_once(':') {
            Some(("Contact", _)) if !line.own_contact => SHARED_CONTACT,
            Some(("Content-Type", _)) if !line.content_type => continue,
            // It refers on nobody's behalf.
            Some(("Referred-By", _)) => continue,
            _ => header,
        };
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(&bytes[end + 2..]);
    out.into()
}
