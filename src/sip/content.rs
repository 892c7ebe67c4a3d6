//! What an INVITE carries, and what its sender can read in our answer (RFC 3261 §8.2.3, §20.1, §20.11).

use sipx_sip::headers::ContentType;
use sipx_sip::{HeaderName, Headers, Request};

use super::event::Body;
use super::read;

/// Bodies of an INVITE that are passed on: a description of media, by itself or with something beside it.
pub const ACCEPT: &str = "application/sdp, multipart/mixed";

/// Why nothing good can come of an INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unacceptable {
    /// Its body is something else: 415 with Accept.
    Type,
    /// Its body is encoded: 415 with Accept-Encoding.
    Encoding,
    /// Its sender reads no description of media: 406.
    Answer,
}

impl Unacceptable {
    /// The answer: its code, and the header that says what would do.
    pub fn answer(self) -> (u16, Option<(&'static str, String)>) {
        match self {
            Self::Type => (415, Some(("Accept", ACCEPT.into()))),
            Self::Encoding => (415, Some(("Accept-Encoding", "identity".into()))),
            Self::Answer => (406, None),
        }
    }
}

/// Whether an INVITE can be acted on. Without a Content-Type its body is taken for a description of media.
pub fn judge(invite: &Request) -> Result<(), Unacceptable> {
    let headers = &invite.headers;
    if !is_optional(headers) && !invite.body().is_empty() {
        if !is_understood(invite) {
            return Err(Unacceptable::Type);
        }
        if is_encoded(headers) {
            return Err(Unacceptable::Encoding);
        }
    }
    if reads_sdp(headers) { Ok(()) } else { Err(Unacceptable::Answer) }
}

/// The offer of an INVITE that was judged well: its body, unless that is something optional which we don't understand.
pub fn offer(invite: &Request) -> Option<Body> {
    read::request_body(invite).filter(|_| is_understood(invite) && !is_encoded(&invite.headers))
}

fn is_understood(invite: &Request) -> bool {
    match invite.headers.typed::<ContentType>() {
        None => true,
        Some(Ok(content)) => content.is("application", "sdp") || content.media_type == b"multipart",
        Some(Err(_)) => false,
    }
}

/// `Content-Disposition: …;handling=optional`: a body that isn't understood is passed over.
fn is_optional(headers: &Headers) -> bool {
    let value = headers.value(&HeaderName::ContentDisposition).unwrap_or_default().to_ascii_lowercase();
    value.split(|&b| b == b';').skip(1).any(|parameter| {
        let mut sides = parameter.splitn(2, |&b| b == b'=').map(<[u8]>::trim_ascii);
        sides.next() == Some(b"handling") && sides.next() == Some(b"optional")
    })
}

fn is_encoded(headers: &Headers) -> bool {
    headers
        .get_all(&HeaderName::ContentEncoding)
        .any(|row| !row.value().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

/// Without Accept SDP is read; an empty one means that nothing is.
fn reads_sdp(headers: &Headers) -> bool {
    let mut rows = headers.get_all(&HeaderName::Accept).map(|row| row.value().into_owned()).peekable();
    if rows.peek().is_none() {
        return true;
    }
    rows.any(|row| {
        row.split(|&b| b == b',').any(|range| {
            let range = range.split(|&b| b == b';').next().unwrap_or_default();
            let range: Vec<u8> = range.iter().filter(|b| !b.is_ascii_whitespace()).copied().collect();
            [&b"application/sdp"[..], b"application/*", b"*/*"]
                .iter()
                .any(|sdp| range.eq_ignore_ascii_case(sdp))
        })
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sipx_sip::{Limits, Message, parse_datagram};

    use super::*;

    fn invite(lines: &str) -> Request {
        let text = format!("INVITE sip:a@b SIP/2.0\r\n{lines}Content-Length: 5\r\n\r\nv=0\r\n");
        match parse_datagram(Bytes::from(text), &Limits::datagram()).unwrap() {
            Message::Request(request) => request,
            Message::Response(_) => unreachable!(),
        }
    }

    #[test]
    fn an_invite_is_refused_for_a_body_or_an_answer_that_nobody_could_read() {
        let cases = [
            ("", Ok(())),
            ("Content-Type: application/SDP;charset=utf-8\r\n", Ok(())),
            ("Content-Type: multipart/mixed;boundary=x\r\n", Ok(())),
            ("Content-Type: application/isup\r\n", Err(Unacceptable::Type)),
            ("Content-Type: nonsense\r\n", Err(Unacceptable::Type)),
            (
                "Content-Type: application/isup\r\nContent-Disposition: signal; Handling = Optional\r\n",
                Ok(()),
            ),
            (
                "Content-Type: application/isup\r\nContent-Disposition: signal;handling=required\r\n",
                Err(Unacceptable::Type),
            ),
            ("Content-Type: application/sdp\r\nContent-Encoding: gzip\r\n", Err(Unacceptable::Encoding)),
            ("e: identity\r\n", Ok(())),
            ("Accept: application/sdp;level=1, text/html\r\n", Ok(())),
            ("Accept: text/html\r\nAccept: */*\r\n", Ok(())),
            ("Accept: application / *\r\n", Ok(())),
            ("Accept: text/html\r\n", Err(Unacceptable::Answer)),
            ("Accept:\r\n", Err(Unacceptable::Answer)),
        ];
        for (lines, expected) in cases {
            assert_eq!(judge(&invite(lines)), expected, "{lines}");
        }
    }

    #[test]
    fn what_is_optional_and_not_understood_is_no_offer() {
        let optional = "Content-Type: application/isup\r\nContent-Disposition: signal;handling=optional\r\n";
        assert_eq!(offer(&invite(optional)), None);
        assert!(offer(&invite("Content-Type: application/sdp\r\n")).is_some());
    }
}
