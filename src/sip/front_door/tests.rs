//! The cases of RFC 4475 and RFC 5118, in our own words, and bytes that are no SIP at all.

use proptest::prelude::*;

use super::*;
use crate::sip::event::Transport;

fn source() -> Flow {
    Flow { transport: Transport::Udp, peer: "192.0.2.9:4444".parse().unwrap() }
}

fn verdict(text: &str) -> Verdict {
    admit(Bytes::copy_from_slice(text.as_bytes()), source(), &Limits::datagram())
}

/// `passed`, `dropped`, or the status code of the answer.
fn outcome(text: &str) -> String {
    match verdict(text) {
        Verdict::Message(_) => "passed".into(),
        Verdict::Drop(_) => "dropped".into(),
        Verdict::Keepalive => "keep-alive".into(),
        Verdict::Reply { bytes, .. } => {
            String::from_utf8_lossy(&bytes).split(' ').nth(1).unwrap_or_default().to_owned()
        }
    }
}

const INVITE: &str = "INVITE sip:vivekg@chair-dnrc.example.com SIP/2.0\r\n\
    Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1;rport\r\nMax-Forwards: 70\r\nFrom: \"J\" <sip:j@example.net>;tag=98\r\n\
    To: <sip:vivekg@example.com>\r\nCall-ID: c1\r\nCSeq: 8 INVITE\r\nContact: <sip:j@192.0.2.9>\r\n\
    Content-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n";

fn changed(from: &str, to: &str) -> String {
    assert!(INVITE.contains(from), "{from}");
    INVITE.replace(from, to)
}

#[test]
fn valid_but_odd_messages_pass() {
    let odd = [
        INVITE.to_owned(),
        // 3.1.1.1: folding, compact names, odd capitals, empty and unknown headers.
        changed("Max-Forwards: 70", "MaX-fOrWaRdS: 0068\r\ns:\r\nNewFangledHeader:   new\r\n value\r\n continued")
            .replace("Call-ID: c1", "i  :  c1")
            .replace("CSeq: 8 INVITE", "CSeq: 0008\r\n  INVITE")
            .replace("Content-Length", "l"),
        // 3.1.1.2: token characters everywhere.
        INVITE.replace("INVITE", "!interesting-Method0123456789_*+`.%indeed'~"),
        // 3.1.1.3 and 3.1.1.4: escapes, also of NUL, in the URI.
        changed("sip:vivekg@", "sip:sips%3Auser%40example.com;x=%20%00y@"),
        // 3.1.1.6, 3.1.1.11: long values, many hops.
        changed("sip:vivekg@example.com", &format!("sip:{}@example.com", "a".repeat(2_000))),
        changed("Max-Forwards", &format!("{}Max-Forwards", "Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx\r\n".repeat(30))),
        // 3.1.1.8: octets after the message.
        format!("{INVITE}INVITE trailing"),
        // 3.1.1.10: an unknown transport below us.
        changed("Max-Forwards", "Via: SIP/2.0/UNKNOWN host;branch=z9hG4bKz\r\nMax-Forwards"),
        // 3.1.1.13: reason phrase missing, or not ASCII.
        "SIP/2.0 100 \r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n\r\n".into(),
        // 3.3.6, 3.3.7: unknown schemes in headers that we don't act on.
        INVITE.replace("INVITE", "OPTIONS").replace("To: <sip:vivekg@example.com>", "To: <isbn:2983792873>"),
        // 3.3.11 and RFC 2543: the bare cookie as a branch, none at all; no Max-Forwards.
        changed("branch=z9hG4bK1", "branch=z9hG4bK"),
        changed("branch=z9hG4bK1;", ""),
        changed("Max-Forwards: 70\r\n", ""),
        // 3.3.1: Max-Forwards 0 has arrived when it is no call.
        INVITE.replace("INVITE", "OPTIONS").replace("Max-Forwards: 70", "Max-Forwards: 0"),
        // No Content-Length: the body goes to the end of the datagram.
        changed("Content-Length: 5\r\n", ""),
        // RFC 5118 4.1, 4.5, 4.7: IPv6 in URI, Via, received.
        changed("chair-dnrc.example.com", "[2001:db8::10]").replace("UDP 192.0.2.9", "UDP [2001:db8::9:1]"),
        changed("rport", "received=[2001:db8::9:255]"),
        // tel URIs name whom to call, too. Empty lines before the start line are skipped.
        changed("INVITE sip:vivekg@chair-dnrc.example.com", "INVITE tel:+49-30-123"),
        format!("\r\n\r\n{INVITE}"),
        // CANCEL and ACK are never refused for an extension.
        INVITE.replace("INVITE", "CANCEL").replace("Contact", "Require: foo\r\nContact"),
    ];
    for text in odd {
        assert_eq!(outcome(&text), "passed", "{text}");
    }
}

#[test]
fn invalid_requests_get_the_code_that_says_why() {
    let long_start = changed(" sip:vivekg", "  sip:vivekg");
    let cases = [
        // 3.1.2.1: a stray separator in Via, Contact.
        ("400", changed("z9hG4bK1;rport", "z9hG4bK1;;rport,,")),
        ("400", changed("Contact: <sip:j@192.0.2.9>", "Contact: \"Joe\" <sip:joe@example.org>;;;;")),
        // 3.1.2.2, 3.1.2.3: Content-Length larger than the datagram, negative, twice.
        ("400", changed("Content-Length: 5", "Content-Length: 9999")),
        ("400", changed("Content-Length: 5", "Content-Length: -999")),
        ("400", changed("Content-Length: 5", "Content-Length: 5\r\nContent-Length: 5")),
        // 3.1.2.4: numbers out of range.
        ("400", changed("CSeq: 8 ", "CSeq: 36893488147419103232 ")),
        ("400", changed("Max-Forwards: 70", "Max-Forwards: 300")),
        // 3.1.2.6: an unterminated quote.
        ("400", changed("\"J\" <", "\"J <")),
        // 3.1.2.7–10: a Request-URI in brackets, with a space in it, separators of more than one space, space at the end.
        ("400", changed("sip:vivekg@chair-dnrc.example.com", "<sip:user@example.com>")),
        ("400", changed("vivekg@chair", "vivekg; lr@chair")),
        ("400", long_start),
        ("400", changed("SIP/2.0\r\nVia", "SIP/2.0  \r\nVia")),
        // 3.1.2.11: headers in the Request-URI.
        ("400", changed("chair-dnrc.example.com", "example.com?Route=%3Csip:example.com%3E")),
        // 3.1.2.15: a comma in an unquoted display name.
        ("400", changed("\"J\" <", "Bell, Alexander <")),
        // 3.1.2.16: a version that nobody speaks.
        ("505", changed("SIP/2.0\r\nVia", "SIP/7.0\r\nVia")),
        // 3.1.2.17, 18: the method of CSeq, known or unknown.
        ("400", changed("8 INVITE", "8 OPTIONS")),
        ("400", changed("8 INVITE", "8 NEWMETHOD")),
        // 3.3.1: mandatory headers missing; 3.3.8: doubled.
        ("400", changed("Call-ID: c1\r\n", "")),
        ("400", changed("From: \"J\" <sip:j@example.net>;tag=98\r\n", "")),
        ("400", changed("To: <sip:vivekg@example.com>\r\n", "")),
        ("400", changed("CSeq: 8 INVITE\r\n", "")),
        ("400", changed("Call-ID: c1", "Call-ID: c1\r\nCall-ID: c2")),
        ("400", changed("To: <", "To: <sip:other@example.com>\r\nTo: <")),
        // 3.3.2, 3.3.3: schemes that we can't call.
        ("416", changed("sip:vivekg@chair-dnrc.example.com", "nobodyKnowsThisScheme:totallyopaquecontent")),
        ("416", changed("sip:vivekg@chair-dnrc.example.com", "soap.beep://192.0.2.103:3002")),
        // 3.2.1: extensions that we lack.
        ("420", changed("Contact", "Require: nothingSupportsThis\r\nRequire: 100rel, timer\r\nContact")),
        // Loops end here.
        ("483", changed("Max-Forwards: 70", "Max-Forwards: 0")),
    ];
    for (code, text) in cases {
        assert_eq!(outcome(&text), code, "{text}");
    }
}

#[test]
fn what_can_not_or_must_not_be_answered_is_dropped() {
    let response = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n\r\n";
    assert_eq!(outcome(response), "passed");
    let cases = [
        response.replace("200 OK", "4294967301 better not break the receiver"),
        response.replace("SIP/2.0 200", "SIP/7.0 200"),
        response.replace("CSeq: 1 INVITE\r\n", ""),
        INVITE.replace("INVITE", "ACK").replace("CSeq: 8 ", "CSeq: x "),
        INVITE.replace("INVITE", "ACK").replace("Content-Length: 5", "Content-Length: -5"),
        changed("Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1;rport\r\n", "").replace("8 INVITE", "x"),
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n".into(),
        "hello".into(),
    ];
    for text in cases {
        assert_eq!(outcome(&text), "dropped", "{text}");
    }
    for text in ["\r\n\r\n", "\r\n", "\0\0\0\0", ""] {
        assert_eq!(outcome(text), "keep-alive");
    }
}

#[test]
fn an_answer_names_what_is_wrong_and_goes_to_the_sender() {
    let text = changed("Contact", "Require: a\r\nRequire: b, c\r\nContact");
    let Verdict::Reply { flow, bytes } = verdict(&text) else { panic!() };
    assert_eq!(flow, source());
    let reply = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(reply.contains("Unsupported: a, b, c\r\n"), "{reply}");
    assert!(reply.contains(";received=192.0.2.9;rport=4444\r\n"), "{reply}");
    assert!(reply.contains("To: <sip:vivekg@example.com>;tag=s"), "{reply}");
    let Verdict::Reply { bytes: again, .. } = verdict(&text) else { panic!() };
    assert_eq!(reply.as_bytes(), &again[..], "the same to each repetition");
    let without_rport =
        changed(";rport", "").replace("UDP 192.0.2.9", "UDP 192.0.2.9:5070").replace("8 INVITE", "8 BYE");
    let Verdict::Reply { flow, .. } = verdict(&without_rport) else { panic!() };
    assert_eq!(flow.peer, "192.0.2.9:5070".parse().unwrap(), "RFC 3261 §18.2.2");
}

#[test]
fn a_stream_yields_its_messages_whatever_its_pieces_and_answers_pings() {
    let tcp = Flow { transport: Transport::Tcp, ..source() };
    let text = format!("\r\n\r\n{INVITE}{}\r\n", INVITE.replace("INVITE", "OPTIONS"));
    for size in [1, 7, 100, 5_000] {
        let mut stream = Stream::new(Limits::stream());
        let mut verdicts = Vec::new();
        for chunk in text.as_bytes().chunks(size) {
            verdicts.extend(stream.push(chunk, tcp).unwrap());
        }
        let messages = verdicts.iter().filter(|v| matches!(v, Verdict::Message(_))).count();
        let pongs = verdicts
            .iter()
            .filter(|v| matches!(v, Verdict::Reply { bytes, .. } if &bytes[..] == b"\r\n"))
            .count();
        assert_eq!((messages, pongs), (2, 1), "in pieces of {size}");
    }
    let mut stream = Stream::new(Limits::stream());
    assert!(stream.push(changed("Content-Length: 5\r\n", "").as_bytes(), tcp).is_err());
    assert!(stream.push(INVITE.as_bytes(), tcp).is_err(), "there is no way back");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..4, any::<u8>()), 1..12),
    ) {
        let mut bytes = INVITE.as_bytes().to_vec();
        for (at, kind, byte) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => { bytes.remove(at); }
                _ => bytes.truncate(at),
            }
        }
        let config = crate::sip::endpoint::tests::net::config("192.0.2.1:5060", 1);
        let mut endpoint = crate::sip::endpoint::Endpoint::new(config);
        if let Verdict::Message(message) = admit(Bytes::from(bytes), source(), &Limits::datagram()) {
            endpoint.receive(*message, source(), crate::sip::time::Millis(0));
            while endpoint.poll().is_some() {}
        }
    }
}
