//! Session descriptions of simulated parties (RFC 8866, RFC 3264): one audio line, and a session name that says who it is.
//!
//! No audio is sent. What counts is that the descriptions are right: whoever gets one knows whom it would hear, and where.

use std::fmt;
use std::net::IpAddr;

use bytes::Bytes;

use crate::sip::event::Body;

/// PCMU and PCMA, what every phone speaks (RFC 3551).
const STATIC: [&str; 2] = ["0", "8"];

/// A party's own end of one call's audio.
#[derive(Clone, Debug)]
pub struct Audio {
    /// Goes into `s=`: who is heard here.
    pub name: String,
    /// Where audio would be received.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Number of the session; what has been said about it so far is counted with `version`.
    pub session: u64,
    /// Raised with each description.
    pub version: u64,
}

/// Who is heard, as a description says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The session name.
    pub name: String,
    /// Address of the audio.
    pub address: String,
    /// Port of the audio.
    pub port: u16,
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Audio {
    /// An offer of PCMU and PCMA.
    pub fn offer(&mut self) -> Body {
        self.describe(&format!(
            "m=audio {} RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=sendrecv\r\n",
            self.port
        ))
    }

    /// The answer to an offer: its first audio line with PCMU or PCMA is taken, every other line is declined with port 0,
    /// and a direction is mirrored (RFC 3264 §6). `None` if nothing of the offer can be taken: that is a 488.
    pub fn answer(&mut self, offer: &[u8]) -> Option<Body> {
        let offer = String::from_utf8_lossy(offer);
        let mut media: Vec<Media<'_>> = Vec::new();
        let mut session_direction = "sendrecv";
        for line in offer.lines() {
            match (line.split_once('='), media.last_mut()) {
                (Some(("m", value)), _) => media.push(Media { line: value, direction: None }),
                (Some(("a", value)), last) if mirrored(value).is_some() => match last {
                    Some(media) => media.direction = Some(value),
                    None => session_direction = value,
                },
                _ => {}
            }
        }
        let mut taken = false;
        let mut lines = String::new();
        for Media { line, direction } in media {
            let mut words = line.split(' ');
            let (kind, port, protocol) = (words.next()?, words.next()?, words.next()?);
            let format = words.clone().find(|format| STATIC.contains(format));
            match format {
                Some(format) if !taken && kind == "audio" && port != "0" && protocol == "RTP/AVP" => {
                    taken = true;
                    let direction = mirrored(direction.unwrap_or(session_direction)).unwrap_or("sendrecv");
                    lines.push_str(&format!("m=audio {} RTP/AVP {format}\r\na={direction}\r\n", self.port));
                }
                _ => lines
                    .push_str(&format!("m={kind} 0 {protocol} {}\r\n", words.collect::<Vec<_>>().join(" "))),
            }
        }
        taken.then(|| self.describe(&lines))
    }

    fn describe(&mut self, media: &str) -> Body {
        self.version += 1;
        let Self { name, address, session, version, .. } = self;
        let family = if address.is_ipv4() { "IP4" } else { "IP6" };
        let text = format!(
            "v=0\r\no=- {session} {version} IN {family} {address}\r\ns={name}\r\nc=IN {family} {address}\r\nt=0 0\r\n{media}"
        );
        Body::sdp(Bytes::from(text))
    }
}

struct Media<'a> {
    line: &'a str,
    direction: Option<&'a str>,
}

fn mirrored(direction: &str) -> Option<&'static str> {
    Some(match direction {
        "sendrecv" => "sendrecv",
        "sendonly" => "recvonly",
        "recvonly" => "sendonly",
        "inactive" => "inactive",
        _ => return None,
    })
}

/// Who is heard by a party that was sent this description; `None` if it has no audio that is not declined.
pub fn heard(description: &[u8]) -> Option<Heard> {
    let text = String::from_utf8_lossy(description);
    let (mut name, mut address, mut audio) = ("-", "", None);
    let mut other = false;
    for line in text.lines() {
        match (line.split_once('='), audio) {
            (Some(("s", value)), _) => name = value.trim(),
            // What comes after the audio line and its attributes is about other media.
            (Some(("m", _)), Some(_)) => break,
            (Some(("m", value)), None) if value.starts_with("audio ") => {
                audio = value.split(' ').nth(1).and_then(|port| port.parse::<u16>().ok());
            }
            (Some(("m", _)), None) => other = true,
            // The session's address, or the audio line's own, which wins; not that of media before it.
            (Some(("c", value)), _) if audio.is_some() || !other => {
                address = value.rsplit(' ').next().unwrap_or_default()
            }
            _ => {}
        }
    }
    let port = audio.filter(|port| *port != 0)?;
    let name = match name {
        "" | "-" => format!("somebody at {address}:{port}"),
        name => name.to_owned(),
    };
    Some(Heard { name, address: address.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audio(name: &str) -> Audio {
        let address = "127.0.0.2".parse().unwrap();
        Audio { name: name.into(), address, port: 20_000, session: 7, version: 0 }
    }

    fn text(body: &Body) -> String {
        String::from_utf8(body.bytes.to_vec()).unwrap()
    }

    #[test]
    fn who_gets_a_description_knows_whom_it_hears_and_where() {
        let offer = audio("caller").offer();
        let answer = audio("assistant support").answer(&offer.bytes).unwrap();
        let expected = Heard { name: "assistant support".into(), address: "127.0.0.2".into(), port: 20_000 };
        assert_eq!(heard(&answer.bytes), Some(expected));
    }

    #[test]
    fn an_answer_has_as_many_lines_as_the_offer_and_declines_what_it_does_not_speak() {
        let offer = "v=0\r\ns=-\r\nm=video 4000 RTP/AVP 96\r\nm=audio 4002 RTP/AVP 96 8\r\na=sendonly\r\nm=audio 4004 RTP/AVP 0\r\n";
        let answer = text(&audio("a").answer(offer.as_bytes()).unwrap());
        let media: Vec<_> = answer.lines().filter(|line| line.starts_with("m=")).collect();
        assert_eq!(media, ["m=video 0 RTP/AVP 96", "m=audio 20000 RTP/AVP 8", "m=audio 0 RTP/AVP 0"]);
        assert!(answer.contains("a=recvonly\r\n"), "{answer}");
    }

    #[test]
    fn an_offer_without_a_common_codec_has_no_answer() {
        assert!(audio("a").answer(b"v=0\r\ns=-\r\nm=audio 4002 RTP/AVP 96\r\n").is_none());
        assert!(audio("a").answer(b"not a description").is_none());
    }

    #[test]
    fn each_description_of_a_session_has_a_higher_version() {
        let mut audio = audio("a");
        assert!(text(&audio.offer()).contains("o=- 7 1 IN IP4 127.0.0.2\r\n"));
        assert!(text(&audio.offer()).contains("o=- 7 2 IN IP4 127.0.0.2\r\n"));
    }

    #[test]
    fn a_party_without_a_name_is_called_by_its_address() {
        let heard = heard(b"v=0\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\n").unwrap();
        assert_eq!(heard.to_string(), "somebody at 192.0.2.1:4000");
    }

    #[test]
    fn the_address_of_the_audio_line_wins_over_the_sessions() {
        let text = b"v=0\r\ns=x\r\nc=IN IP4 192.0.2.1\r\nm=image 9 udptl t38\r\nc=IN IP4 192.0.2.7\r\nm=audio 4000 RTP/AVP 0\r\nc=IN IP4 192.0.2.9\r\nm=video 1 RTP/AVP 9\r\nc=IN IP4 192.0.2.8\r\n";
        assert_eq!(heard(text).unwrap().address, "192.0.2.9");
    }

    #[test]
    fn a_declined_audio_line_lets_nobody_be_heard() {
        assert_eq!(heard(b"v=0\r\ns=x\r\nc=IN IP4 192.0.2.1\r\nm=audio 0 RTP/AVP 0\r\n"), None);
    }
}
