//! The turnstile before the front door: calls that come as datagrams while there is no room are refused here, from their
//! bytes alone.
//!
//! In overload a refusal must cost less than anything else, or refusing is what the pod dies of: nothing is parsed here but
//! the topmost Via, and no shard is woken. Promised is that an INVITE and its copies meet one decision: what was let in, here
//! or by another pod, is not refused here, and what was refused stays refused. Read are INVITEs as nearly everybody writes them; any other, and
//! all that was let in, goes on to the endpoint, which decides the same again with all that it knows.

use std::hash::Hasher;

use bytes::Bytes;
use siphasher::sip::SipHasher24;
use sipx_sip::Via;
use sipx_sip::headers::first_hop_end;

use super::copies::InviteName;
use super::endpoint::RETRY_AFTER;
use super::event::Flow;
use super::front_door::{Copied, is_stateless};
use super::glance;
use super::lately::Lately;
use super::time::Millis;
use super::via;
use super::wire::reason_phrase;

/// Most INVITEs of one half minute of which it is known that they were let in: 10 MiB at most, at 16,000 calls a second.
const MOST_LET_IN: usize = 1 << 19;
/// The same of refused ones.
const MOST_REFUSED: usize = 1 << 15;
/// Most header lines that are read.
const LINES: usize = 64;

/// What becomes of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It goes on.
    On,
    /// It ends here, without an answer: the ACK of a refusal.
    Nothing,
    /// There is no room.
    Refused {
        /// Where the answer goes.
        flow: Flow,
        /// The answer: 503.
        bytes: Bytes,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Turnstile {
    key: [u8; 16],
    let_in: Lately<u64>,
    refused: Lately<u64>,
}

impl Turnstile {
    /// `key` is secret and random: nobody shall be able to make two calls look like one.
    pub fn new(key: [u8; 16]) -> Self {
        Self { key, let_in: Lately::new(MOST_LET_IN), refused: Lately::new(MOST_REFUSED) }
    }

    /// Looks at a datagram that came from no other pod of ours. `full`: there is no room for another call. `elsewhere`: whether
    /// another pod has the call with this INVITE; asked when it would be refused.
    pub fn turn(
        &mut self,
        datagram: &[u8],
        source: Flow,
        full: bool,
        elsewhere: impl FnOnce(InviteName) -> bool,
        now: Millis,
    ) -> Turn {
        let datagram = datagram.trim_ascii_start();
        if is_ack_of_a_refusal(datagram) {
            return Turn::Nothing;
        }
        let Some(invite) = Invite::read(datagram) else { return Turn::On };
        let key = invite.key(&self.key);
        if self.let_in.has(&key, now) {
            return Turn::On;
        }
        let refused_before = self.refused.has(&key, now);
        if refused_before || full && self.let_in.is_complete(now) {
            if !refused_before && invite.name().is_some_and(elsewhere) {
                return Turn::On;
            }
            self.refused.add(key, now);
            return invite.refuse(source);
        }
        self.let_in.add(key, now);
        Turn::On
    }
}

fn is_ack_of_a_refusal(datagram: &[u8]) -> bool {
    let to = || {
        let mut lines = datagram.split(|&b| b == b'\n').skip(1).take(LINES);
        lines.find_map(|line| glance::value(line, [b"to", b"t"]))
    };
    let tag = || glance::parameter(to()?, b";tag=");
    datagram.starts_with(b"ACK ") && tag().is_some_and(is_stateless)
}

/// A new call's INVITE: the values of the headers that an answer copies, as they stand in the datagram.
struct Invite<'a> {
    topmost: Via,
    vias: Vec<&'a [u8]>,
    from: &'a [u8],
    to: &'a [u8],
    call_id: &'a [u8],
    cseq: &'a [u8],
}

impl<'a> Invite<'a> {
    /// `None` for everything else, and where a header that matters is missing, folded, repeated or odd.
    fn read(datagram: &'a [u8]) -> Option<Self> {
        let mut lines =
            datagram.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).take(LINES);
        let start = lines.next()?;
        if !start.starts_with(b"INVITE ") || !start.ends_with(b" SIP/2.0") {
            return None;
        }
        let (mut vias, mut from, mut to, mut call_id, mut cseq) = (Vec::new(), None, None, None, None);
        loop {
            let line = lines.next()?;
            if line.is_empty() {
                break;
            }
            let colon = line.iter().position(|&b| b == b':')?;
            let (name, value) = (line.get(..colon)?.trim_ascii_end(), line.get(colon + 1..)?.trim_ascii());
            let slot = match name {
                _ if name.first().is_none_or(|b| matches!(b, b' ' | b'\t')) => return None,
                _ if is(name, b"via", b"v") => {
                    vias.push(value);
                    continue;
                }
                _ if is(name, b"from", b"f") => &mut from,
                _ if is(name, b"to", b"t") => &mut to,
                _ if is(name, b"call-id", b"i") => &mut call_id,
                _ if is(name, b"cseq", b"cseq") => &mut cseq,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        let first = vias.first()?;
        let odd = |value: &&[u8]| value.is_empty() || value.iter().any(|b| b.is_ascii_control());
        let invite = Self {
            topmost: Via::parse_one(first.get(..first_hop_end(first))?).ok()?,
            from: from?,
            to: to?,
            call_id: call_id?,
            cseq: cseq?,
            vias,
        };
        let has_tag = invite.to.windows(3).any(|part| part.eq_ignore_ascii_case(b"tag"));
        let values = [&invite.from, &invite.to, &invite.call_id, &invite.cseq];
        let is_odd = values.into_iter().chain(&invite.vias).any(odd);
        (!has_tag && !is_odd && invite.cseq.ends_with(b" INVITE")).then_some(invite)
    }

    /// The same for every copy that comes by the same path, and for no other call (RFC 3261 §17.2.3; peers that follow
    /// RFC 2543 give no branch).
    fn key(&self, key: &[u8; 16]) -> u64 {
        let mut hasher = SipHasher24::new_with_key(key);
        let first = self.vias.first().map_or(&b""[..], |via| &via[..first_hop_end(via)]);
        for part in [first, self.from, self.call_id, self.cseq] {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        hasher.finish()
    }

    /// What all pods call it.
    fn name(&self) -> Option<InviteName> {
        const TAG: &[u8] = b";tag=";
        let at = self.from.windows(TAG.len()).rposition(|part| part.eq_ignore_ascii_case(TAG))?;
        let tag = self.from.get(at + TAG.len()..)?;
        let tag = tag.split(|b| b.is_ascii_whitespace() || matches!(b, b';' | b',')).next()?;
        let number = str::from_utf8(self.cseq).ok()?.split_ascii_whitespace().next()?;
        Some(InviteName::new(self.call_id, tag, number.parse().ok()?))
    }

    fn refuse(&self, source: Flow) -> Turn {
        let mut via: Vec<Vec<u8>> = self.vias.iter().map(|via| via.to_vec()).collect();
        if let Some(first) = via.first_mut() {
            let end = first_hop_end(first);
            if let Some(mut stamped) = via::stamped(&first[..end], &self.topmost, source) {
                stamped.extend_from_slice(&first[end..]);
                *first = stamped;
            }
        }
        let copied = Copied {
            via,
            from: Some(self.from.to_vec()),
            to: Some(self.to.to_vec()),
            to_tagged: false,
            call_id: Some(self.call_id.to_vec()),
            cseq: Some(self.cseq.to_vec()),
        };
        let bytes = copied.reply(503, reason_phrase(503), &[("Retry-After", RETRY_AFTER.to_owned())]);
        Turn::Refused { flow: via::response_flow(&self.topmost, source), bytes }
    }
}

fn is(name: &[u8], long: &[u8], short: &[u8]) -> bool {
    name.eq_ignore_ascii_case(long) || name.eq_ignore_ascii_case(short)
}

#[cfg(test)]
mod tests {
    use sipx_sip::{HeaderName, Limits, Message, parse_datagram};

    use super::*;
    use crate::sip::event::Transport;
    use crate::sip::front_door::{Verdict, admit, reply_stateless};

    const INVITE: &str = "INVITE sip:+31201234567@gw SIP/2.0\r\n\
        Via: SIP/2.0/UDP pbx.example.com:5062;rport;branch=z9hG4bK1, SIP/2.0/UDP b;branch=z9hG4bK0\r\n\
        v: SIP/2.0/UDP c;branch=z9hG4bK9\r\n\
        Max-Forwards: 70\r\nFrom: \"A\" <sip:a@b>;tag=x\r\nTo: <sip:+31201234567@gw>\r\nCall-ID: one@b\r\n\
        CSeq: 1 INVITE\r\nContact: <sip:a@b>\r\nContent-Length: 0\r\n\r\n";

    fn source() -> Flow {
        Flow { transport: Transport::Udp, peer: "192.0.2.9:4444".parse().unwrap() }
    }

    fn at(seconds: u64) -> Millis {
        Millis(seconds * 1_000)
    }

    fn turnstile() -> Turnstile {
        Turnstile::new([7; 16])
    }

    /// No other pod has the call.
    fn nowhere(_: InviteName) -> bool {
        false
    }

    fn is_refused(turn: &Turn) -> bool {
        matches!(turn, Turn::Refused { .. })
    }

    #[test]
    fn the_refusal_is_the_one_that_the_endpoint_makes_and_its_ack_asks_for_nothing() {
        let Verdict::Message(message) =
            admit(Bytes::from_static(INVITE.as_bytes()), source(), &Limits::datagram())
        else {
            panic!("it is a good INVITE")
        };
        let Message::Request(request) = *message else { panic!("a request") };
        let headers = [("Retry-After", RETRY_AFTER.to_owned())];
        let expected = reply_stateless(&request, 503, reason_phrase(503), &headers);
        let Turn::Refused { flow, bytes } =
            turnstile().turn(INVITE.as_bytes(), source(), true, nowhere, at(1))
        else {
            panic!("there is no room")
        };
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&expected));
        assert_eq!(flow, source(), "rport was asked for");

        let answer = parse_datagram(bytes, &Limits::datagram()).unwrap();
        let to = String::from_utf8(answer.headers().value(&HeaderName::To).unwrap().into_owned()).unwrap();
        let ack = INVITE.replace("INVITE", "ACK").replace("To: <sip:+31201234567@gw>", &format!("To: {to}"));
        assert_eq!(turnstile().turn(ack.as_bytes(), source(), false, nowhere, at(1)), Turn::Nothing);
        let other = ack.replace(";tag=s", ";tag=0");
        assert_eq!(turnstile().turn(other.as_bytes(), source(), true, nowhere, at(1)), Turn::On);
    }

    #[test]
    fn what_was_let_in_is_not_refused_and_what_was_refused_stays_refused() {
        let mut turnstile = turnstile();
        let other = INVITE.replace("branch=z9hG4bK1,", "branch=z9hG4bK2,");
        assert_eq!(turnstile.turn(INVITE.as_bytes(), source(), false, nowhere, at(1)), Turn::On);
        assert!(is_refused(&turnstile.turn(other.as_bytes(), source(), true, nowhere, at(2))));
        for second in [3, 17, 31] {
            assert_eq!(turnstile.turn(INVITE.as_bytes(), source(), true, nowhere, at(second)), Turn::On);
            assert!(is_refused(&turnstile.turn(other.as_bytes(), source(), false, nowhere, at(second))));
        }
    }

    #[test]
    fn what_another_pod_let_in_is_not_refused_whatever_the_callers_tag_looks_like() {
        for tag in ["x", "a-b.c~d", "1928301774"] {
            let invite = INVITE.replace("tag=x", &format!("tag={tag};note=1"));
            let message = parse_datagram(invite.clone().into(), &Limits::datagram()).unwrap();
            let name = InviteName::of(message.as_request().unwrap()).unwrap();
            let mut turnstile = turnstile();
            let there = |asked| asked == name;
            assert_eq!(turnstile.turn(invite.as_bytes(), source(), true, there, at(1)), Turn::On, "{tag}");
            let other = invite.replace("one@b", "two@b");
            assert!(is_refused(&turnstile.turn(other.as_bytes(), source(), true, there, at(1))));
            assert!(is_refused(&turnstile.turn(other.as_bytes(), source(), true, |_| true, at(2))), "{tag}");
        }
    }

    #[test]
    fn a_pod_that_can_not_remember_what_it_let_in_leaves_refusing_to_the_endpoint() {
        let mut turnstile = Turnstile { let_in: Lately::new(1), ..turnstile() };
        for n in 0..3 {
            let invite = INVITE.replace("one@b", &format!("{n}@b"));
            assert_eq!(turnstile.turn(invite.as_bytes(), source(), false, nowhere, at(1)), Turn::On);
        }
        assert_eq!(turnstile.turn(INVITE.as_bytes(), source(), true, nowhere, at(2)), Turn::On);
        let later = INVITE.replace("one@b", "later@b");
        assert!(is_refused(&turnstile.turn(later.as_bytes(), source(), true, nowhere, at(60))));
    }

    #[test]
    fn whatever_is_no_plain_new_call_goes_on() {
        let cases = [
            INVITE.replace("gw>\r\nCall-ID", "gw>;tag=1\r\nCall-ID"),
            INVITE.replace("gw>\r\nCall-ID", "gw>\r\n ;tag=1\r\nCall-ID"),
            INVITE.replace("INVITE", "OPTIONS"),
            INVITE.replace("CSeq: 1 INVITE", "CSeq: 1 ACK"),
            INVITE.replace("Call-ID: one@b\r\n", ""),
            INVITE.replace("Call-ID: one@b\r\n", "Call-ID: one@b\r\ni: two@b\r\n"),
            INVITE.replace("Via: SIP/2.0/UDP pbx", "Via: SIP/2.0/UDP pb\x01x"),
            INVITE.replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia"),
            INVITE.trim_end().to_owned(),
            "SIP/2.0 200 OK\r\n\r\n".into(),
            "\r\n\r\n".into(),
            String::new(),
        ];
        for case in cases {
            assert_eq!(turnstile().turn(case.as_bytes(), source(), true, nowhere, at(1)), Turn::On, "{case}");
        }
    }
}
