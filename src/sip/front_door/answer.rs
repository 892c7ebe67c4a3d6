//! Answers of which nothing is remembered: made from the request alone, the same one for each repetition (RFC 3261 §8.2.7).

use std::hash::Hasher;

use bytes::Bytes;
use siphasher::sip::SipHasher24;
use sipx_sip::{HeaderName, Method, Request};

use crate::sip::read;
use crate::sip::wire::Writer;

/// How the To tag of such an answer begins. The tag of a leg is longer.
const STATELESS_TAG: &[u8] = b"s";
/// Most header lines of an unreadable message that are searched for what an answer needs.
const SEARCHED_LINES: usize = 64;

/// A response that needs no state: the headers that every response copies, a To tag that is the same for each repetition,
/// and `headers`. What the request lacks is left out. Costs about as much as copying it: good for overload.
pub fn reply_stateless(request: &Request, code: u16, reason: &str, headers: &[(&str, String)]) -> Bytes {
    let rows = |name: &HeaderName| -> Vec<Vec<u8>> {
        request.headers.get_all(name).map(|row| row.value().into_owned()).collect()
    };
    let one = |name: &HeaderName| request.headers.value(name).map(|value| value.into_owned());
    let copied = Copied {
        via: rows(&HeaderName::Via),
        from: one(&HeaderName::From),
        to: one(&HeaderName::To),
        to_tagged: read::tag(&request.headers, &HeaderName::To).is_some(),
        call_id: one(&HeaderName::CallId),
        cseq: one(&HeaderName::CSeq),
    };
    copied.reply(code, reason, headers)
}

/// Whether it is the ACK of an answer that was made here: such an ACK is absorbed.
pub(super) fn acknowledges_nothing(request: &Request) -> bool {
    request.method == Method::Ack
        && read::tag(&request.headers, &HeaderName::To).is_some_and(|tag| is_stateless(&tag))
}

/// Whether a To tag is one of an answer that was made here.
pub(in crate::sip) fn is_stateless(tag: &[u8]) -> bool {
    let digits = tag.strip_prefix(STATELESS_TAG).unwrap_or_default();
    digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit)
}

/// What a response copies from its request.
#[derive(Default)]
pub(in crate::sip) struct Copied {
    /// All hops, the topmost first.
    pub via: Vec<Vec<u8>>,
    /// From.
    pub from: Option<Vec<u8>>,
    /// To.
    pub to: Option<Vec<u8>>,
    /// Whether To has a tag.
    pub to_tagged: bool,
    /// Call-ID.
    pub call_id: Option<Vec<u8>>,
    /// CSeq.
    pub cseq: Option<Vec<u8>>,
}

impl Copied {
    /// What can be found in the header lines of a message that can't be parsed; `None` unless it is all that an answer needs.
    pub fn search<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut copied = Self::default();
        let mut last: Option<&mut Vec<u8>> = None;
        for line in lines.take(SEARCHED_LINES) {
            if line.is_empty() {
                break;
            }
            if line.first().is_some_and(|b| matches!(b, b' ' | b'\t')) {
                if let Some(last) = &mut last {
                    last.push(b' ');
                    last.extend_from_slice(line.trim_ascii());
                }
                continue;
            }
            last = None;
            let Some(colon) = line.iter().position(|&b| b == b':') else { continue };
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default().trim_ascii().to_vec();
            let slot = match name.trim_ascii().to_ascii_lowercase().as_slice() {
                b"via" | b"v" => {
                    copied.via.push(value);
                    last = copied.via.last_mut();
                    continue;
                }
                b"from" | b"f" => &mut copied.from,
                b"to" | b"t" => &mut copied.to,
                b"call-id" | b"i" => &mut copied.call_id,
                b"cseq" => &mut copied.cseq,
                _ => continue,
            };
            last = Some(slot.get_or_insert(value));
        }
        let to = copied.to.as_ref()?;
        copied.to_tagged = to.windows(5).any(|part| part.eq_ignore_ascii_case(b";tag="));
        let answerable = !copied.via.is_empty()
            && copied.from.is_some()
            && copied.call_id.is_some()
            && copied.cseq.is_some();
        answerable.then_some(copied)
    }

    /// The answer.
    pub fn reply(&self, code: u16, reason: &str, headers: &[(&str, String)]) -> Bytes {
        let mut w = Writer::response(code, reason);
        for via in &self.via {
            w.line("Via", via);
        }
        if let Some(from) = &self.from {
            w.line("From", from);
        }
        match &self.to {
            Some(to) if !self.to_tagged && code > 100 => {
                let mut hasher = SipHasher24::new();
                self.via.iter().chain(&self.call_id).for_each(|part| hasher.write(part));
                let digits = format!("{:016x}", hasher.finish());
                w.line("To", [to, &b";tag="[..], STATELESS_TAG, digits.as_bytes()].concat());
            }
            Some(to) => {
                w.line("To", to);
            }
            None => {}
        }
        if let Some(call_id) = &self.call_id {
            w.line("Call-ID", call_id);
        }
        if let Some(cseq) = &self.cseq {
            w.line("CSeq", cseq);
        }
        for (name, value) in headers {
            w.line(name, value);
        }
        w.finish(None)
    }
}
