//! What a party that is best left alone would answer to a new offer, found without asking it (RFC 3264 §8).
//!
//! A hold, a shorter list of codecs, or the same again change nothing for the party's own media: it sends to where it sent, what
//! it sent. So the answer is what it said before, with the direction that the offer leaves. Whatever else changes, such as an
//! address, a port, a key or the codec in use, has to be asked.

use std::collections::BTreeSet;

use crate::sip::event::Body;

/// Attributes that say who sends.
const DIRECTIONS: [&str; 4] = ["sendrecv", "sendonly", "recvonly", "inactive"];
/// How attributes begin that decide whether media can be had and read at all: keys, ICE, and where RTCP goes.
const KEYS: [&str; 8] =
    ["crypto:", "fingerprint:", "setup:", "key-mgmt:", "ice-", "candidate:", "rtcp:", "rtcp-mux"];

/// A description's lines.
struct Description<'a> {
    session: Vec<&'a str>,
    media: Vec<Media<'a>>,
}

/// One stream.
struct Media<'a> {
    kind: &'a str,
    port: &'a str,
    protocol: &'a str,
    formats: Vec<&'a str>,
    /// The lines below `m=`.
    lines: Vec<&'a str>,
}

/// Who sends, as one side says it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Direction {
    sends: bool,
    receives: bool,
}

/// The answer to `offer` of a party that described itself as `party` when it was shown `known`; `None` where it has to be asked.
pub(super) fn unasked(party: &Body, known: &[u8], offer: &Body) -> Option<Body> {
    let (said, known, offer) = (read(&party.bytes)?, read(known)?, read(&offer.bytes)?);
    let streams = said.media.len();
    if known.media.len() != streams || offer.media.len() != streams {
        return None;
    }
    let mut lines: Vec<String> =
        said.session.iter().filter(|line| !is_direction(line)).map(|l| (*l).to_owned()).collect();
    let mut is_new = false;
    for ((stream, before), now) in said.media.iter().zip(&known.media).zip(&offer.media) {
        let moved = (now.kind, now.protocol, now.port) != (before.kind, before.protocol, before.port)
            || !offer.is_nowhere(now) && offer.address(now) != known.address(before)
            || offer.keys(now) != known.keys(before);
        let in_use: Vec<&str> =
            stream.formats.iter().copied().filter(|format| before.formats.contains(format)).collect();
        let still_taken =
            |format: &&str| now.formats.contains(format) && now.map(format) == before.map(format);
        if moved || stream.port != "0" && (in_use.is_empty() || !in_use.iter().all(still_taken)) {
            return None;
        }
        let own = said.direction(stream);
        let direction = own.given(offer.direction(now));
        is_new |= direction != own || in_use != stream.formats;
        let dropped = |line: &str| {
            let format =
                ["a=rtpmap:", "a=fmtp:"].iter().find_map(|name| line.strip_prefix(name)?.split(' ').next());
            format.is_some_and(|format| !in_use.contains(&format))
        };
        lines.push(format!("m={} {} {} {}", stream.kind, stream.port, stream.protocol, in_use.join(" ")));
        lines
            .extend(stream.lines.iter().filter(|l| !is_direction(l) && !dropped(l)).map(|l| (*l).to_owned()));
        lines.push(format!("a={}", direction.word()));
    }
    if !is_new {
        return Some(party.clone());
    }
    let bytes = lines.iter().flat_map(|line| [line.as_str(), "\r\n"]).collect::<String>();
    Some(Body { content_type: party.content_type.clone(), bytes: bytes.into() })
}

fn read(bytes: &[u8]) -> Option<Description<'_>> {
    let mut lines =
        std::str::from_utf8(bytes).ok()?.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let mut description =
        Description { session: vec![lines.next().filter(|line| *line == "v=0")?], media: Vec::new() };
    for line in lines {
        match (line.strip_prefix("m="), description.media.last_mut()) {
            (Some(media), _) => {
                let mut words = media.split_ascii_whitespace();
                let (kind, port, protocol) = (words.next()?, words.next()?, words.next()?);
                description.media.push(Media {
                    kind,
                    port,
                    protocol,
                    formats: words.collect(),
                    lines: Vec::new(),
                });
            }
            (None, Some(media)) => media.lines.push(line),
            (None, None) => description.session.push(line),
        }
    }
    Some(description)
}

fn is_direction(line: &str) -> bool {
    line.strip_prefix("a=").is_some_and(|name| DIRECTIONS.contains(&name))
}

impl Description<'_> {
    /// Where a stream is sent.
    fn address<'b>(&'b self, media: &'b Media<'_>) -> Option<&'b str> {
        media.lines.iter().chain(&self.session).find_map(|line| line.strip_prefix("c="))
    }

    /// Whether it is sent nowhere: a hold as RFC 2543 wrote it.
    fn is_nowhere(&self, media: &Media<'_>) -> bool {
        self.address(media).is_some_and(|address| address.ends_with(" 0.0.0.0") || address.ends_with(" ::"))
    }

    fn direction(&self, media: &Media<'_>) -> Direction {
        let mut lines = media.lines.iter().chain(&self.session);
        let word = lines.find(|line| is_direction(line)).map_or("sendrecv", |line| &line[2..]);
        let receives = matches!(word, "sendrecv" | "recvonly") && !self.is_nowhere(media);
        Direction { sends: matches!(word, "sendrecv" | "sendonly"), receives }
    }

    fn keys<'a>(&'a self, media: &'a Media<'_>) -> BTreeSet<&'a str> {
        let attributes = self.session.iter().chain(&media.lines).filter_map(|line| line.strip_prefix("a="));
        attributes.filter(|name| KEYS.iter().any(|key| name.starts_with(key))).collect()
    }
}

impl Media<'_> {
    /// What a format stands for, where that is said.
    fn map(&self, format: &str) -> Option<String> {
        let named = |line: &&str| {
            line.strip_prefix("a=rtpmap:")?
                .strip_prefix(format)?
                .strip_prefix(' ')
                .map(str::to_ascii_lowercase)
        };
        self.lines.iter().find_map(named)
    }
}

impl Direction {
    /// What is left of it when the other side says so.
    fn given(self, other: Self) -> Self {
        Self { sends: self.sends && other.receives, receives: self.receives && other.sends }
    }

    fn word(self) -> &'static str {
        match (self.sends, self.receives) {
            (true, true) => "sendrecv",
            (true, false) => "sendonly",
            (false, true) => "recvonly",
            (false, false) => "inactive",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTY: &str = "v=0\r\no=OAI 1 1 IN IP4 192.0.2.9\r\ns=OAI\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n\
        m=audio 40000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\n";

    fn caller(address: &str, port: u16, formats: &str, more: &str) -> String {
        format!(
            "v=0\r\no=c 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP {formats}\r\n\
             a=rtpmap:101 telephone-event/8000\r\n{more}"
        )
    }

    fn answer(offer: &str) -> Option<String> {
        let known = caller("192.0.2.1", 4000, "8 0 101", "");
        let answer = unasked(&Body::sdp(PARTY), known.as_bytes(), &Body::sdp(offer.to_owned()))?;
        Some(String::from_utf8(answer.bytes.to_vec()).unwrap())
    }

    #[test]
    fn a_hold_is_answered_with_the_direction_that_it_leaves() {
        for (said, left) in [
            ("sendonly", "recvonly"),
            ("inactive", "inactive"),
            ("recvonly", "sendonly"),
            ("sendrecv", "sendrecv"),
        ] {
            let answer = answer(&caller("192.0.2.1", 4000, "8 0 101", &format!("a={said}\r\n"))).unwrap();
            assert_eq!(answer.contains(&format!("a={left}\r\n")), said != "sendrecv", "{answer}");
            assert!(answer.contains("m=audio 40000 RTP/AVP 0 101\r\n"), "{answer}");
        }
        let as_of_old = answer(&caller("0.0.0.0", 4000, "8 0 101", "")).unwrap();
        assert!(as_of_old.contains("a=recvonly\r\n"), "{as_of_old}");
    }

    #[test]
    fn the_same_again_gets_the_same_again() {
        assert_eq!(answer(&caller("192.0.2.1", 4000, "8 0 101", "")).as_deref(), Some(PARTY));
        assert_eq!(answer(&caller("192.0.2.1", 4000, "0 101", "a=ptime:20\r\n")).as_deref(), Some(PARTY));
    }

    #[test]
    fn what_changes_something_for_the_party_has_to_be_asked() {
        for (what, offer) in [
            ("another address", caller("192.0.2.2", 4000, "8 0 101", "")),
            ("another port", caller("192.0.2.1", 4002, "8 0 101", "")),
            ("without the codec in use", caller("192.0.2.1", 4000, "8 101", "")),
            (
                "a key",
                caller("192.0.2.1", 4000, "8 0 101", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n"),
            ),
            ("another stream", caller("192.0.2.1", 4000, "8 0 101", "m=video 5000 RTP/AVP 96\r\n")),
            (
                "a format that stands for something else",
                caller("192.0.2.1", 4000, "8 0 101", "").replace("telephone-event", "opus"),
            ),
            ("no description", "hello".to_owned()),
        ] {
            assert_eq!(answer(&offer), None, "{what}");
        }
    }

    #[test]
    fn of_what_the_party_offered_only_what_was_chosen_counts() {
        let party = PARTY.replace("RTP/AVP 0 101", "RTP/AVP 0 9 101");
        let known = caller("192.0.2.1", 4000, "0 101", "");
        let held = caller("192.0.2.1", 4000, "0 101", "a=sendonly\r\n");
        let answer = unasked(&Body::sdp(party), known.as_bytes(), &Body::sdp(held)).unwrap();
        assert!(answer.bytes.windows(27).any(|part| part == b"m=audio 40000 RTP/AVP 0 101"));
    }
}
