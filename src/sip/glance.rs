//! What a datagram says of itself at a glance, before it is parsed: whether it belongs to something that is under way here.
//!
//! Read are the To tag of a request and the branch of a response's topmost Via, where senders nearly always put them: on one
//! line. What is missed is treated as something new, so nothing but a rate depends on it. Costs a fraction of parsing.

use sipx_sip::{HeaderName, Message};

use super::identity::{self, Identity};
use super::read;

/// Bytes that are looked at.
const LOOKED_AT: usize = 4096;

/// To what a message says it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// To a leg or a request of this process, proven: nobody else can make such a tag or branch.
    Proven,
    /// To one of the process with this instance; not checked.
    Of(u32),
    /// To nothing of ours.
    Nothing,
}

/// Reads a datagram's claim. `identity` is that of any shard.
pub fn claim(bytes: &[u8], identity: &Identity) -> Claim {
    let bytes = bytes.get(..LOOKED_AT).unwrap_or(bytes).trim_ascii_start();
    let response = starts_with(bytes, b"SIP/");
    let wanted: [&[u8]; 2] = if response { [b"via", b"v"] } else { [b"to", b"t"] };
    let Some(value) = bytes.split(|&b| b == b'\n').skip(1).find_map(|line| value(line, wanted)) else {
        return Claim::Nothing;
    };
    if response {
        parameter(value, b"branch=").map_or(Claim::Nothing, |branch| of_branch(branch, identity))
    } else {
        parameter(value, b"tag=").map_or(Claim::Nothing, |tag| of_tag(tag, identity))
    }
}

/// The Call-ID of a message that we have written.
pub fn call_id(bytes: &[u8]) -> Option<&[u8]> {
    let mut lines = bytes.split(|&b| b == b'\n').skip(1);
    lines.find_map(|line| value(line, [b"call-id", b"i"])).map(<[u8]>::trim_ascii)
}

/// The claim of a message that was parsed: from a stream, which can't be read without.
pub fn claim_of(message: &Message, identity: &Identity) -> Claim {
    let claim = match message {
        Message::Request(request) => {
            read::tag(&request.headers, &HeaderName::To).map(|tag| of_tag(&tag, identity))
        }
        Message::Response(response) => {
            read::top_via(&response.headers).and_then(|via| Some(of_branch(via.branch()?, identity)))
        }
    };
    claim.unwrap_or(Claim::Nothing)
}

fn of_tag(tag: &[u8], identity: &Identity) -> Claim {
    match identity::instance_of_token(tag) {
        Some(_) if identity.leg_of_token(tag).is_some() => Claim::Proven,
        Some(instance) => Claim::Of(instance),
        None => Claim::Nothing,
    }
}

fn of_branch(branch: &[u8], identity: &Identity) -> Claim {
    match identity::instance_of_branch(branch) {
        Some(_) if identity.transaction_of_branch(branch).is_some() => Claim::Proven,
        Some(instance) => Claim::Of(instance),
        None => Claim::Nothing,
    }
}

pub(super) fn starts_with(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// The value of a header line that has one of these names.
pub(super) fn value<'a>(line: &'a [u8], names: [&[u8]; 2]) -> Option<&'a [u8]> {
    // No name that is wanted is longer than seven letters.
    let colon = line.iter().take(8).position(|&b| b == b':')?;
    let name = line.get(..colon)?.trim_ascii_end();
    names.iter().any(|wanted| name.eq_ignore_ascii_case(wanted)).then(|| line.get(colon + 1..))?
}

/// The value of the last parameter whose name ends so: what else is in the value can hold such a text too, but not forge
/// what is looked for in it.
pub(super) fn parameter<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = value.windows(name.len()).rposition(|part| part.eq_ignore_ascii_case(name))?;
    value.get(at + name.len()..)?.split(|b| !b.is_ascii_alphanumeric()).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::event::LegId;

    fn identity(instance: u32) -> Identity {
        Identity::new(instance, 0, [3; 16])
    }

    fn request(to: &str) -> String {
        format!(
            "BYE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:c@d>;tag=x\r\n{to}\r\nCall-ID: 1\r\n\r\n"
        )
    }

    #[test]
    fn what_belongs_to_a_call_of_ours_is_recognised_and_can_not_be_forged() {
        let (ours, peer) = (identity(7), identity(8));
        let leg = LegId(1 << 22);
        let (token, of_peer) = (ours.token(leg), peer.token(leg));
        let last = if token.ends_with('0') { "1" } else { "0" };
        let forged = format!("{}{last}", &token[..35]);
        let cases = [
            (format!("To: <sip:a@b>;tag={token}"), Claim::Proven),
            (format!("t : \"tag=1\" <sip:a@b;tag=2> ; TAG={token};x=y"), Claim::Proven),
            (format!("To: <sip:a@b>;tag={forged}"), Claim::Of(7)),
            (format!("To: <sip:a@b>;tag={of_peer}"), Claim::Of(8)),
            ("To: <sip:a@b>;tag=123".into(), Claim::Nothing),
            ("To: <sip:a@b>".into(), Claim::Nothing),
            (format!("X-To: <sip:a@b>;tag={token}"), Claim::Nothing),
        ];
        for (to, expected) in cases {
            assert_eq!(claim(request(&to).as_bytes(), &ours), expected, "{to}");
        }
    }

    #[test]
    fn a_response_to_a_request_of_ours_is_recognised_by_its_topmost_via() {
        let ours = identity(7);
        let branch = ours.branch(LegId(1 << 22), 1);
        let response = |via: &str| format!("SIP/2.0 200 OK\r\n{via}\r\nTo: <sip:a@b>;tag=1\r\n\r\n");
        let cases = [
            (format!("Via: SIP/2.0/UDP h:5060;rport=5060;branch={branch};received=192.0.2.1"), Claim::Proven),
            (format!("v: SIP/2.0/UDP h;branch={}", identity(8).branch(LegId(1), 1)), Claim::Of(8)),
            (
                format!("Via: SIP/2.0/UDP h;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP h;branch={branch}"),
                Claim::Nothing,
            ),
            ("Via: SIP/2.0/UDP h".into(), Claim::Nothing),
        ];
        for (via, expected) in cases {
            assert_eq!(claim(response(&via).as_bytes(), &ours), expected, "{via}");
        }
        for nothing in ["", "\r\n\r\n", "SIP/2.0", "x\n:\n", "INVITE\n to:\nt"] {
            assert_eq!(claim(nothing.as_bytes(), &ours), Claim::Nothing);
        }
    }
}
