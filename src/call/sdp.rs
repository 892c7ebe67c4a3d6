//! The little of SDP (RFC 8866) that a signalling gateway must look at: the origin line.
//!
//! Bodies pass untouched, but a leg that is handed from one party to another must see one session whose version grows
//! (RFC 3264 §8): the first `o=` line that a leg was sent stays its origin, later bodies get it with the version raised.

use bytes::Bytes;

use crate::sip::event::Body;

/// The origin that one leg has been shown.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    shown: Option<Shown>,
}

#[derive(Clone, Debug)]
struct Shown {
    user: String,
    session: String,
    version: u64,
    address: String,
    body: Bytes,
}

impl Origin {
    /// The body that the leg was shown last, under its maker's own origin.
    pub fn last(&self) -> Option<&Bytes> {
        Some(&self.shown.as_ref()?.body)
    }

    /// The body as it goes to the leg: untouched the first time, and under the leg's own origin from then on.
    pub fn show(&mut self, body: Option<Body>) -> Option<Body> {
        let body = body?;
        let Some((range, origin)) = find(&body.bytes) else { return Some(body) };
        let Some(shown) = &mut self.shown else {
            self.shown = Some(Shown { body: body.bytes.clone(), ..origin });
            return Some(body);
        };
        if !same_session(&shown.body, &body.bytes) {
            shown.version = shown.version.wrapping_add(1);
            shown.body = body.bytes.clone();
        }
        let line = format!("o={} {} {} {}", shown.user, shown.session, shown.version, shown.address);
        let mut bytes = Vec::with_capacity(body.bytes.len() + line.len());
        bytes.extend_from_slice(&body.bytes[..range.start]);
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(&body.bytes[range.end..]);
        Some(Body { content_type: body.content_type, bytes: bytes.into() })
    }
}

/// Whether two bodies describe the same media: equal but for their origin lines.
pub fn same_session(a: &Bytes, b: &Bytes) -> bool {
    let lines = |bytes: &Bytes| -> Vec<Vec<u8>> {
        let split =
            bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec());
        split.filter(|line| !line.starts_with(b"o=") && !line.is_empty()).collect()
    };
    a == b || lines(a) == lines(b)
}

/// The origin line without its line end, and what it says.
fn find(bytes: &Bytes) -> Option<(std::ops::Range<usize>, Shown)> {
    let mut start = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if let Some(value) = text.strip_prefix(b"o=") {
            let value = std::str::from_utf8(value).ok()?;
            let mut words = value.splitn(4, ' ');
            let (user, session, version) = (words.next()?, words.next()?, words.next()?);
            let shown = Shown {
                user: user.to_owned(),
                session: session.to_owned(),
                version: version.parse().ok()?,
                address: words.next()?.to_owned(),
                body: Bytes::new(),
            };
            return Some((start..start + text.len(), shown));
        }
        start += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sdp(origin: &str, port: u16) -> Option<Body> {
        Some(Body::sdp(format!("v=0\r\no={origin}\r\ns=-\r\nm=audio {port} RTP/AVP 0\r\n").into_bytes()))
    }

    fn text(body: Option<Body>) -> String {
        String::from_utf8(body.unwrap().bytes.to_vec()).unwrap()
    }

    #[test]
    fn the_first_body_passes_untouched() {
        let first = sdp("agent 7 9 IN IP4 10.0.0.1", 4000);
        assert_eq!(Origin::default().show(first.clone()), first);
    }

    #[test]
    fn a_body_of_another_party_gets_the_legs_origin_with_the_version_raised() {
        let mut origin = Origin::default();
        origin.show(sdp("agent 7 9 IN IP4 10.0.0.1", 4000));
        let moved = text(origin.show(sdp("human 1 1 IN IP4 10.0.0.2", 5000)));
        assert!(moved.contains("o=agent 7 10 IN IP4 10.0.0.1\r\n"), "{moved}");
        assert!(moved.contains("m=audio 5000"), "{moved}");
    }

    #[test]
    fn an_unchanged_body_keeps_its_version() {
        let mut origin = Origin::default();
        origin.show(sdp("agent 7 9 IN IP4 10.0.0.1", 4000));
        assert!(text(origin.show(sdp("agent 7 12 IN IP4 10.0.0.1", 4000))).contains("o=agent 7 9 "));
    }

    #[test]
    fn a_body_that_is_no_sdp_passes_untouched() {
        let other = Some(Body { content_type: "text/plain".into(), bytes: Bytes::from_static(b"hello") });
        let mut origin = Origin::default();
        origin.show(sdp("agent 7 9 IN IP4 10.0.0.1", 4000));
        assert_eq!(origin.show(other.clone()), other);
    }

    #[test]
    fn bodies_that_differ_only_in_their_origin_are_the_same_session() {
        let (a, b) = (sdp("a 1 1 IN IP4 1.1.1.1", 4000).unwrap(), sdp("b 2 2 IN IP4 2.2.2.2", 4000).unwrap());
        assert!(same_session(&a.bytes, &b.bytes));
        assert!(!same_session(&a.bytes, &sdp("a 1 1 IN IP4 1.1.1.1", 4002).unwrap().bytes));
    }
}
