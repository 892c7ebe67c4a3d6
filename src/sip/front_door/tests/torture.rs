//! The messages of RFC 4475 and RFC 5118, byte for byte from the archives in their appendices, with what comes of each.
//!
//! RFC 5118's archive has bare LF line ends, two messages without the empty line at their end, and three whose Content-Length
//! is that of no form of their body: these are mended before use, and nothing else.

use bytes::Bytes;
use sipx_sip::Limits;

use super::source;
use crate::sip::endpoint::tests::net::config;
use crate::sip::endpoint::{Endpoint, Output};
use crate::sip::event::LegEvent;
use crate::sip::front_door::{Verdict, admit};
use crate::sip::time::Millis;

/// What comes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The front door answers.
    Door(u16),
    /// It is let in, and answered.
    Answered(u16),
    /// It is let in, and a call comes in.
    Call,
    /// A response that is let in, to nothing that we sent: nothing is sent, to nobody.
    NotOurs,
    /// The front door lets it in no further and can't or must not answer.
    Dropped,
}

use Outcome::{Answered, Call, Door, Dropped, NotOurs};

fn outcome(bytes: &[u8]) -> Outcome {
    let message = match admit(Bytes::copy_from_slice(bytes), source(), &Limits::datagram()) {
        Verdict::Message(message) => message,
        Verdict::Reply { bytes, .. } => return Door(code(&bytes)),
        Verdict::Drop(_) => return Dropped,
        Verdict::Nothing => panic!("every message asks for something"),
    };
    let mut endpoint = Endpoint::new(config("192.0.2.1:5060", 1));
    endpoint.receive(*message, source(), Millis(0));
    let (mut answered, mut calls) = (None, 0);
    while let Some(output) = endpoint.poll() {
        match output {
            Output::Transmit { bytes, .. } => answered = Some(code(&bytes)),
            Output::Leg(_, LegEvent::Incoming(_)) => calls += 1,
            other => panic!("{other:?}"),
        }
    }
    match (answered, calls) {
        (Some(100), 1) => Call,
        (Some(code), 0) => Answered(code),
        (None, 0) => NotOurs,
        other => panic!("{other:?}"),
    }
}

fn code(response: &[u8]) -> u16 {
    String::from_utf8_lossy(response).split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap()
}

type Row = (&'static str, &'static [u8], &'static str, Outcome, &'static str);

macro_rules! corpus {
    ($directory:literal, $extension:literal: $($name:literal $section:literal $outcome:expr, $why:literal;)*) => {
        &[$((
            $name,
            include_bytes!(concat!("../corpus/", $directory, "/", $name, $extension)),
            $section,
            $outcome,
            $why,
        )),*]
    };
}

const RFC_4475: &[Row] = corpus! { "rfc4475", ".dat":
    "wsinv" "3.1.1.1" Answered(481), "valid, and its To has a tag: a dialog that we don't know";
    "intmeth" "3.1.1.2" Answered(501), "valid, with a method that nobody knows";
    "esc01" "3.1.1.3" Call, "escapes in the user part are decoded, not read as another scheme";
    "escnull" "3.1.1.4" Answered(405), "valid; we are no registrar";
    "esc02" "3.1.1.5" Answered(501), "RE%47IST%45R is not REGISTER";
    "lwsdisp" "3.1.1.6" Answered(200), "no space is needed before <";
    "longreq" "3.1.1.7" Call, "long values and 34 hops are no reason to refuse";
    "dblreq" "3.1.1.8" Answered(405), "what follows the REGISTER in the datagram is not looked at";
    "semiuri" "3.1.1.9" Answered(200), "a semicolon in the user part begins no parameter";
    "transports" "3.1.1.10" Answered(200), "transports below us need not be known";
    "mpart01" "3.1.1.11" Answered(405), "valid; MESSAGE is relayed inside calls only";
    "unreason" "3.1.1.12" NotOurs, "a reason phrase need not be ASCII";
    "noreason" "3.1.1.13" NotOurs, "nor need there be one";

    "badinv01" "3.1.2.1" Door(400), "separators without anything between them";
    "clerr" "3.1.2.2" Door(400), "Content-Length is larger than the datagram";
    "ncl" "3.1.2.3" Door(400), "Content-Length is negative";
    "scalar02" "3.1.2.4" Door(400), "CSeq and Max-Forwards are out of range";
    "scalarlg" "3.1.2.5" Dropped, "CSeq is out of range, in a response";
    "quotbal" "3.1.2.6" Door(400), "a quoted string has no end";
    "ltgtruri" "3.1.2.7" Door(400), "the Request-URI is in brackets";
    "lwsruri" "3.1.2.8" Door(400), "the Request-URI has a space in it";
    "lwsstart" "3.1.2.9" Door(400), "two spaces in the request line";
    "trws" "3.1.2.10" Door(400), "spaces at the end of the request line";
    "escruri" "3.1.2.11" Door(400), "the Request-URI has headers";
    "baddate" "3.1.2.12" Call, "Date is not what we go by: liberal, as the RFC allows";
    "regbadct" "3.1.2.13" Answered(405), "we are no registrar: its Contact is not looked at";
    "badaspec" "3.1.2.14" Door(400), "spaces inside <>";
    "baddn" "3.1.2.15" Door(400), "a comma in a display name without quotes, and no end of the headers";
    "badvers" "3.1.2.16" Door(505), "SIP/7.0";
    "mismatch01" "3.1.2.17" Door(400), "CSeq names another method";
    "mismatch02" "3.1.2.18" Door(400), "the same with an unknown method: either 400 or 501 will do";
    "bigcode" "3.1.2.19" Dropped, "no status code has ten digits";

    "badbranch" "3.2.1" Answered(200), "a branch of nothing but the cookie: matched as RFC 2543 says";

    "insuf" "3.3.1" Door(400), "no Call-ID, From and To";
    "unkscm" "3.3.2" Door(416), "a scheme that nobody knows";
    "novelsc" "3.3.3" Door(416), "a scheme that is not for calls";
    "unksm2" "3.3.4" Answered(405), "schemes in To, From and Contact are not ours to judge";
    "bext01" "3.3.5" Door(420), "extensions that we lack; Proxy-Require is for proxies";
    "invut" "3.3.6" Answered(415), "a body of an unknown type";
    "regaut01" "3.3.7" Answered(405), "an authorisation that nobody asked for";
    "multi01" "3.3.8" Door(400), "headers that can't come twice do";
    "mcl01" "3.3.9" Door(400), "two Content-Lengths that differ";
    "bcast" "3.3.10" NotOurs, "a response goes where we sent its request from, never where its Via says";
    "zeromf" "3.3.11" Answered(200), "Max-Forwards is used up, and it has arrived";
    "cparam01" "3.3.12" Answered(405), "we are no registrar";
    "cparam02" "3.3.13" Answered(405), "we are no registrar";
    "regescrt" "3.3.14" Answered(405), "we are no registrar";
    "sdp01" "3.3.15" Answered(406), "its sender reads no SDP";

    "inv2543" "3.4.1" Call, "as RFC 2543 had it: no branch, tag, Max-Forwards or Content-Length";

    "test" "A" Dropped, "in the archive, but in no section: its first line is no request line";
};

const RFC_5118: &[Row] = corpus! { "rfc5118", "":
    "ipv6-good" "4.1" Answered(405), "valid; we are no registrar";
    "ipv6-bad" "4.2" Door(400), "an IPv6 address without brackets";
    "port-ambiguous" "4.3" Answered(405), "5070 belongs to the address, which is a valid one";
    "port-unambiguous" "4.4" Answered(405), "5070 is the port";
    "via-received-param-with-delim" "4.5" Answered(481), "received in brackets, as RFC 3261's grammar has it not";
    "via-received-param-no-delim" "4.5" Answered(200), "received without";
    "ipv6-in-sdp" "4.6" Call, "addresses in SDP have no brackets";
    "mult-ip-in-header" "4.7" Answered(481), "IPv4 and IPv6 hops in one message";
    "mult-ip-in-sdp" "4.8" Call, "IPv4 and IPv6 media in one description";
    "ipv4-mapped-ipv6" "4.9" Call, "IPv4 addresses written as IPv6";
    "ipv6-bug-abnf-3-colons" "4.10" Answered(200), "three colons, which RFC 3261's grammar produces, are forgiven";
    "ipv6-correct-abnf-2-colons" "4.10" Answered(200), "two colons";
};

#[test]
fn every_message_of_rfc_4475_has_the_outcome_that_the_rfc_asks_for() {
    assert_eq!(RFC_4475.len(), 50);
    for (name, bytes, section, expected, why) in RFC_4475 {
        assert_eq!(outcome(bytes), *expected, "{name} (§{section}): {why}");
    }
}

#[test]
fn every_message_of_rfc_5118_has_the_outcome_that_the_rfc_asks_for() {
    assert_eq!(RFC_5118.len(), 12);
    for (name, bytes, section, expected, why) in RFC_5118 {
        let text = String::from_utf8(bytes.to_vec()).unwrap().replace('\n', "\r\n");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text.trim_end(), ""));
        let lines: Vec<&str> =
            head.split("\r\n").filter(|line| !line.starts_with("Content-Length:")).collect();
        let mended = format!("{}\r\nContent-Length: {}\r\n\r\n{body}", lines.join("\r\n"), body.len());
        assert_eq!(outcome(mended.as_bytes()), *expected, "{name} (§{section}): {why}");
    }
}

#[test]
fn an_answer_to_a_message_that_lacks_headers_is_the_same_each_time() {
    for (_, bytes, ..) in RFC_4475 {
        let answer = || match admit(Bytes::copy_from_slice(bytes), source(), &Limits::datagram()) {
            Verdict::Reply { flow, bytes } => Some((flow, bytes)),
            _ => None,
        };
        assert_eq!(answer(), answer());
    }
}
