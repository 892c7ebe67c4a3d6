//! Faults one by one, streams, and bytes that are no SIP at all. The messages of RFC 4475 and RFC 5118 are in `torture`.

mod torture;

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
        Verdict::Nothing => "nothing".into(),
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
fn a_call_id_with_control_characters_can_not_be_answered() {
    for control in ["\0\0", "\u{1}", "a\u{7f}b"] {
        assert_eq!(
            outcome(&changed("Call-ID: c1", &format!("Call-ID: {control}"))),
            "dropped",
            "{control:?}"
        );
    }
}

#[test]
fn a_hop_with_control_characters_can_not_be_answered() {
    for control in ["\u{1}", "\u{b}", "\u{7f}"] {
        assert_eq!(outcome(&changed("branch=z9hG4bK1", &format!("branch=z9hG4bK\"{control}\""))), "dropped");
        let below =
            changed("Max-Forwards", &format!("Via: SIP/2.0/UDP below;x=\"{control}\"\r\nMax-Forwards"));
        assert_eq!(outcome(&below), "dropped");
    }
}

#[test]
fn the_ack_of_an_answer_that_nothing_is_remembered_of_goes_no_further() {
    let Verdict::Message(invite) = verdict(INVITE) else { panic!("it is valid") };
    let refusal = reply_stateless(invite.as_request().unwrap(), 503, "Service Unavailable", &[]);
    let refusal = String::from_utf8(refusal.to_vec()).unwrap();
    let to = refusal.lines().find(|line| line.starts_with("To:")).unwrap();
    let ack = changed("To: <sip:vivekg@example.com>", to).replace("INVITE", "ACK");
    assert_eq!(outcome(&ack), "nothing");
    assert_eq!(outcome(&ack.replace("tag=s", "tag=t")), "passed");
}

#[test]
fn what_the_torture_messages_do_not_try_passes_too() {
    let odd = [
        INVITE.to_owned(),
        // No branch, no Max-Forwards: RFC 2543.
        changed("branch=z9hG4bK1;", ""),
        changed("Max-Forwards: 70\r\n", ""),
        // Max-Forwards 0 has arrived when it is no call.
        INVITE.replace("INVITE", "OPTIONS").replace("Max-Forwards: 70", "Max-Forwards: 0"),
        // No Content-Length: the body goes to the end of the datagram. Octets after the message.
        changed("Content-Length: 5\r\n", ""),
        format!("{INVITE}INVITE trailing"),
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
    let cases = [
        // One fault alone, where the torture messages have several.
        ("400", changed("z9hG4bK1;rport", "z9hG4bK1;;rport,,")),
        ("400", changed("Contact: <sip:j@192.0.2.9>", "Contact: \"Joe\" <sip:joe@example.org>;;;;")),
        ("400", changed("Content-Length: 5", "Content-Length: 5\r\nContent-Length: 5")),
        ("400", changed("CSeq: 8 ", "CSeq: 36893488147419103232 ")),
        ("400", changed("Max-Forwards: 70", "Max-Forwards: 300")),
        ("400", changed("Call-ID: c1\r\n", "")),
        ("400", changed("From: \"J\" <sip:j@example.net>;tag=98\r\n", "")),
        ("400", changed("To: <sip:vivekg@example.com>\r\n", "")),
        ("400", changed("CSeq: 8 INVITE\r\n", "")),
        ("400", changed("Call-ID: c1", "Call-ID: c1\r\nCall-ID: c2")),
        ("400", changed("To: <", "To: <sip:other@example.com>\r\nTo: <")),
        ("400", changed("\"J\" <", "Bell, Alexander <")),
        // Extensions that we lack, among those that we have.
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
        assert_eq!(outcome(text), "nothing");
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
