//! The front door: every message is checked here before anything else looks at it (RFC 3261 §8.2, RFC 4475, RFC 5118).
//!
//! What comes through is a request or response with all mandatory headers in order, in a version and with a URI scheme that
//! we speak, asking for no extension that we lack, whose topmost Via says where it came from. Nothing here panics, and
//! nothing is kept: an answer is made from the request alone, the same one for each repetition.

mod answer;

use bytes::Bytes;
use sipx_sip::error::{LimitKind, ParseError};
use sipx_sip::headers::{Contact, MaxForwards, RecordRoute, Require};
use sipx_sip::{
    Finding, HeaderName, Limits, Message, Method, Request, Scheme, StreamParser, parse_datagram, validate,
};

use self::answer::acknowledges_nothing;
pub use self::answer::reply_stateless;
pub(in crate::sip) use self::answer::{Copied, is_stateless};
use super::event::Flow;
use super::read;
use super::via;
use super::wire::{reason_phrase, understands};

/// What becomes of received bytes.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Let in.
    Message(Box<Message>),
    /// Answered here.
    Reply {
        /// Where the answer goes.
        flow: Flow,
        /// The answer.
        bytes: Bytes,
    },
    /// Dropped without an answer; why, for a counter.
    Drop(&'static str),
    /// It asks for nothing: a keep-alive, or the ACK of a refusal that was forgotten as soon as it was sent.
    Nothing,
}

/// Admits a datagram. Empty lines before the start line are skipped; nothing but empty lines or NUL is a keep-alive.
pub fn admit(bytes: Bytes, flow: Flow, limits: &Limits) -> Verdict {
    let Some(start) = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n' | 0)) else {
        return Verdict::Nothing;
    };
    let bytes = bytes.slice(start..);
    match parse_datagram(bytes.clone(), limits) {
        Ok(message) => admit_message(message, flow),
        Err(error) => unreadable(&bytes, &error, flow),
    }
}

/// The front door of one connection.
#[derive(Debug)]
pub struct Stream {
    parser: StreamParser,
    line_ends: usize,
}

/// A connection whose messages can't be told apart any more. It must be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's byte stream is no SIP any more ({0}); the connection is closed")]
pub struct Broken(String);

impl Stream {
    /// For a new connection.
    pub fn new(limits: Limits) -> Self {
        Self { parser: StreamParser::new(limits), line_ends: 0 }
    }

    /// Takes in what was read. A ping (two empty lines) is answered with a pong (one, RFC 5626 §4.4.1).
    pub fn push(&mut self, chunk: &[u8], flow: Flow) -> Result<Vec<Verdict>, Broken> {
        let messages = self.parser.push(chunk).map_err(|error| Broken(error.to_string()))?;
        let mut verdicts: Vec<_> = messages.into_iter().map(|message| admit_message(message, flow)).collect();
        self.line_ends += self.parser.take_keepalives();
        if self.line_ends >= 2 {
            verdicts.push(Verdict::Reply { flow, bytes: Bytes::from_static(b"\r\n") });
        }
        self.line_ends %= 2;
        Ok(verdicts)
    }

    /// Bytes of a message that is not complete. A driver closes a connection on which this doesn't move for long.
    pub fn pending(&self) -> usize {
        self.parser.pending()
    }
}

/// Admits a message that was parsed.
pub fn admit_message(message: Message, flow: Flow) -> Verdict {
    // First: in overload every second message is one of these.
    if message.as_request().is_some_and(acknowledges_nothing) {
        return Verdict::Nothing;
    }
    let findings = validate(&message);
    match message {
        Message::Response(_) if !findings.is_empty() => Verdict::Drop("malformed response"),
        Message::Response(_) => Verdict::Message(Box::new(message)),
        Message::Request(request) => admit_request(request, &findings, flow),
    }
}

fn admit_request(mut request: Request, findings: &[Finding], flow: Flow) -> Verdict {
    let objection = objection(&request, findings);
    if objection.is_some() && request.method == Method::Ack {
        return Verdict::Drop("malformed ACK");
    }
    if request.headers.get(&HeaderName::Via).is_none() {
        return Verdict::Drop("no Via");
    }
    // Nowhere to answer to: what we write has none of these, so the answer would carry another hop than the one that asks, or be
    // about another call.
    let unwritable = |b: &u8| b.is_ascii_control() && *b != b'\t';
    let has_any = |name| request.headers.get_all(name).any(|row| row.value().iter().any(unwritable));
    if has_any(&HeaderName::Via) {
        return Verdict::Drop("unreadable Via");
    }
    if has_any(&HeaderName::CallId) {
        return Verdict::Drop("unreadable Call-ID");
    }
    let stamped = via::stamp(&mut request, flow);
    match objection {
        None if stamped => Verdict::Message(Box::new(Message::Request(request))),
        None => Verdict::Drop("unreadable Via"),
        Some(Objection { code, reason, headers }) => {
            let to = read::top_via(&request.headers).map_or(flow, |via| via::response_flow(&via, flow));
            Verdict::Reply { flow: to, bytes: reply_stateless(&request, code, &reason, &headers) }
        }
    }
}

struct Objection {
    code: u16,
    reason: String,
    headers: Vec<(&'static str, String)>,
}

impl Objection {
    fn new(code: u16, reason: impl Into<String>) -> Option<Self> {
        Some(Self { code, reason: reason.into(), headers: Vec::new() })
    }
}

/// Why a request isn't let in.
fn objection(request: &Request, findings: &[Finding]) -> Option<Objection> {
    if findings.contains(&Finding::UnsupportedVersion) {
        return Objection::new(505, reason_phrase(505));
    }
    // A missing Max-Forwards is mended rather than refused: RFC 2543 had none.
    if let Some(finding) = findings.iter().find(|finding| !finding.is_repairable()) {
        return Objection::new(finding.status(), in_words(finding));
    }
    if !matches!(request.uri.scheme(), Scheme::Sip | Scheme::Sips | Scheme::Tel) {
        return Objection::new(416, reason_phrase(416));
    }
    let headers = &request.headers;
    if matches!(request.method, Method::Invite | Method::Update | Method::Refer) {
        if matches!(headers.typed::<Contact>(), Some(Err(_))) {
            return Objection::new(400, "Malformed Contact");
        }
        if headers.typed_all::<RecordRoute>().any(|route| route.is_err()) {
            return Objection::new(400, "Malformed Record-Route");
        }
    }
    if !matches!(request.method, Method::Ack | Method::Cancel) {
        let mut tags = Vec::new();
        for row in headers.get_all(&HeaderName::Require) {
            match <Require as sipx_sip::TypedHeader>::decode(&row.value()) {
                Ok(list) => {
                    let unknown = list.0.0.iter().filter(|tag| !understands(tag));
                    tags.extend(unknown.map(|tag| String::from_utf8_lossy(tag).into_owned()));
                }
                Err(_) => return Objection::new(400, "Malformed Require"),
            }
        }
        if !tags.is_empty() {
            let headers = vec![("Unsupported", tags.join(", "))];
            return Some(Objection { code: 420, reason: reason_phrase(420).into(), headers });
        }
    }
    // Only a call is passed on by us; any other request has arrived when it is here (RFC 3261 §11).
    let exhausted = matches!(headers.typed::<MaxForwards>(), Some(Ok(MaxForwards(0))));
    if exhausted && request.method == Method::Invite && read::tag(headers, &HeaderName::To).is_none() {
        return Objection::new(483, reason_phrase(483));
    }
    None
}

fn in_words(finding: &Finding) -> String {
    match finding {
        Finding::MissingRequiredHeader(name) => format!("Missing {name}"),
        Finding::MalformedRequiredHeader(name) => format!("Malformed {name}"),
        Finding::RepeatedSingleValueHeader(name) => format!("Repeated {name}"),
        Finding::CSeqMethodMismatch => "CSeq names another method".into(),
        Finding::RequestUriHasHeaders => "Request-URI has headers".into(),
        _ => reason_phrase(400).into(),
    }
}

/// A message that can't be parsed: 400 (413 when too large) if it looks like a request and has all that an answer needs.
fn unreadable(bytes: &[u8], error: &ParseError, flow: Flow) -> Verdict {
    let mut lines = bytes.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let start = lines.next().unwrap_or_default();
    let is = |prefix: &[u8]| start.get(..prefix.len()).is_some_and(|s| s.eq_ignore_ascii_case(prefix));
    if is(b"SIP/") || is(b"ACK ") {
        return Verdict::Drop("unreadable response or ACK");
    }
    if !start.windows(5).any(|w| w.eq_ignore_ascii_case(b" SIP/")) {
        return Verdict::Drop("no SIP");
    }
    let Some(copied) = Copied::search(lines) else {
        return Verdict::Drop("unreadable, and no way to answer");
    };
    let (code, reason) = match error {
        ParseError::Limit { limit: LimitKind::BodyBytes | LimitKind::MessageBytes, .. } => {
            (413, reason_phrase(413).to_owned())
        }
        error => (400, format!("Bad Request ({error})")),
    };
    Verdict::Reply { flow, bytes: copied.reply(code, &reason, &[]) }
}

#[cfg(test)]
mod tests;
