use proptest::prelude::*;

use super::*;

/// What becomes of one header line, or of a start line.
fn line(line: &str) -> String {
    let is_start = line.ends_with(" SIP/2.0") || line.starts_with("SIP/2.0");
    let message =
        if is_start { format!("{line}\r\n\r\n") } else { format!("BYE sip:h SIP/2.0\r\n{line}\r\n\r\n") };
    redact(message.as_bytes()).lines().nth(usize::from(!is_start)).unwrap().to_owned()
}

#[test]
fn each_line_shows_what_it_may_and_no_more() {
    for (given, shown) in [
        // Start lines.
        (
            "INVITE sip:+31201234567@gw.example:5060;user=phone SIP/2.0",
            "INVITE sip:+*********67@gw.example:5060;user=phone SIP/2.0",
        ),
        ("INVITE sip:0031201234567@192.0.2.1 SIP/2.0", "INVITE sip:00*********67@192.0.2.1 SIP/2.0"),
        ("INVITE sip:31612345678:5060 SIP/2.0", "INVITE sip:*********78:5060 SIP/2.0"),
        (
            "INVITE tel:+31-20-1234567;phone-context=example.com SIP/2.0",
            "INVITE tel:+*********67;phone-context=… SIP/2.0",
        ),
        (
            "BYE sip:vd@192.0.2.1:5060;vd=0badcafe0000 SIP/2.0",
            "BYE sip:vd@192.0.2.1:5060;vd=0badcafe0000 SIP/2.0",
        ),
        (
            "BYE sip:alice@[2001:db8::1]:5061;transport=tls;ctoken=abc SIP/2.0",
            "BYE sip:…@[2001:db8::1]:5061;transport=tls;ctoken=… SIP/2.0",
        ),
        ("BYE sips:alice:secret@h?X-Token=1 SIP/2.0", "BYE sips:…:…@h?… SIP/2.0"),
        ("SIP/2.0 486 Busy Here", "SIP/2.0 486 Busy Here"),
        ("SIP/2.0 404 No user 0612345678 here", "SIP/2.0 404 No user 0*******78 here"),
        // Addresses.
        ("From: \"Alice, A.\" <sip:+31612345678@h>;tag=1a2b", "From: \"…\" <sip:+*********78@h>;tag=1a2b"),
        (
            "f: Alice <sip:%2B31612345678@h;user=phone>;tag=x",
            "f: \"…\" <sip:+*********78@h;user=phone>;tag=x",
        ),
        ("To: sip:201@h;tag=x", "To: sip:***@h;tag=x"),
        ("To: <sip:+31612345678;npdi;rn=+31655555555@h>", "To: <sip:+*********78;…@h>"),
        ("Contact: *", "Contact: *"),
        (
            "Contact: <sip:06-12345678@h>;+sip.instance=\"<urn:uuid:1>\";q=0.5",
            "Contact: <sip:0*******78@h>;+sip.instance=…;q=0.5",
        ),
        ("Contact: <sip:a@h>, \"b,c\" <tel:+31612345678>", "Contact: <sip:…@h>, \"…\" <tel:+*********78>"),
        ("P-Asserted-Identity: <tel:0612345678>", "P-Asserted-Identity: <tel:0*******78>"),
        ("Refer-To: <sip:sales@h?Replaces=a%40b>", "Refer-To: <sip:…@h?…>"),
        (
            "Diversion: <sip:0612345678@h>;reason=no-answer;counter=1",
            "Diversion: <sip:0*******78@h>;reason=no-answer;counter=1",
        ),
        ("History-Info: <sip:bob@h?Reason=SIP>;index=1.1", "History-Info: <sip:…@h?…>;index=1.1"),
        ("Remote-Party-ID: \"Alice", "Remote-Party-ID: …"),
        ("From: <sip:alice@h", "From: <sip:…@h>"),
        ("From: alice:pw@h", "From: …"),
        ("From: <mailto:alice@h>", "From: <mailto:…>"),
        // What a call is found by.
        ("Call-ID: a84b4c76e66710@pc33.example", "Call-ID: a84b4c76e66710@pc33.example"),
        (
            "v: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport",
            "v: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport",
        ),
        ("CSeq: 1 INVITE", "CSeq: 1 INVITE"),
        (
            "X-VoiceDock-Call-Id: call_0badcafe_030123456789abcdef",
            "X-VoiceDock-Call-Id: call_0badcafe_030123456789abcdef",
        ),
        ("X-VoiceDock-Number: +31201234567", "X-VoiceDock-Number: +*********67"),
        // Secrets.
        (
            "Authorization: Digest username=\"bob\", realm=\"a, b\", nonce=\"n\", uri=\"sip:+31612345678@h\", response=\"f00\", algorithm=SHA-256, nc=00000001",
            "Authorization: Digest username=…, realm=\"a, b\", nonce=…, uri=…, response=…, algorithm=SHA-256, nc=00000001",
        ),
        ("Proxy-Authorization: Basic Ym9iOnNlY3JldA==", "Proxy-Authorization: Basic …"),
        (
            "WWW-Authenticate: Digest realm=\"gw\", nonce=\"n\", stale=TRUE",
            "WWW-Authenticate: Digest realm=\"gw\", nonce=…, stale=TRUE",
        ),
        ("Identity: eyJhbGciOiJFUzI1NiJ9..sig;info=<https://h>", "Identity: … (42 bytes)"),
        ("y: eyJhbGciOiJFUzI1NiJ9", "y: … (20 bytes)"),
        ("X-Customer: 4711", "X-Customer: … (4 bytes)"),
        ("User-to-User: 00c81031323334;encoding=hex", "User-to-User: … (27 bytes)"),
        ("Subject: Alice is ill", "Subject: … (12 bytes)"),
        // Text for people.
        (
            "Reason: Q.850;cause=16;text=\"Normal call clearing\"",
            "Reason: Q.850;cause=16;text=\"Normal call clearing\"",
        ),
        ("Warning: 399 h \"06 1234 5678 is barred\"", "Warning: 399 h \"0*******78 is barred\""),
        ("Warning: 399 h \"alice@h is barred\"", "Warning: …"),
        ("User-Agent: Asterisk PBX 20.9.3", "User-Agent: Asterisk PBX 20.9.3"),
        // What can't be read.
        ("no colon", "…"),
        ("a b: c", "…: … (1 bytes)"),
    ] {
        assert_eq!(line(given), shown, "{given}");
    }
}

fn body(content_type: &str, body: &str) -> String {
    let message = format!("INFO sip:h SIP/2.0\r\nc: {content_type}\r\n\r\n{body}");
    redact(message.as_bytes()).split_once("\n\n").unwrap().1.to_owned()
}

#[test]
fn a_session_description_shows_what_both_sides_must_agree_on() {
    let given = "v=0\r\no=alice 1 2 IN IP4 192.0.2.1\r\ns=Alice's phone\r\ne=alice@h\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
                 k=clear:secret\r\nm=audio 4000 RTP/SAVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n\
                 a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9\r\na=crypto:secret\r\n\
                 a=ice-pwd:asd88fgpdd777uzjYhagZg\r\na=ssrc:1 cname:alice@h\r\na=sendrecv\r\na=T38FaxVersion:0\r\nnonsense\r\n";
    assert_eq!(
        body("application/sdp", given),
        "v=0\no=… 1 2 IN IP4 192.0.2.1\ns=…\ne=…\nc=IN IP4 192.0.2.1\nt=0 0\nk=…\nm=audio 4000 RTP/SAVP 0 101\n\
         a=rtpmap:101 telephone-event/8000\na=fmtp:101 0-16\na=crypto:1 AES_CM_128_HMAC_SHA1_80 …\na=crypto:…\na=ice-pwd:…\n\
         a=ssrc:…\na=sendrecv\na=T38FaxVersion:0\n…\n"
    );
}

#[test]
fn of_other_bodies_the_type_and_the_size_are_shown_and_of_a_fragment_its_status() {
    assert_eq!(
        body("application/dtmf-relay", "Signal=5\r\n"),
        "[10 bytes of application/dtmf-relay are not shown]\n"
    );
    assert_eq!(body("message/sipfrag;version=2.0", "SIP/2.0 486 Busy\r\nX: secret"), "SIP/2.0 486 Busy\n");
    assert_eq!(body("message/sipfrag", "secret"), "[6 bytes of message/sipfrag are not shown]\n");
}

#[test]
fn a_folded_header_is_one_line_and_nothing_moves_a_terminals_cursor() {
    let message = b"\r\n\r\nBYE sip:h SIP/2.0\r\nFrom: \"A\r\n\t B\" <sip:alice@h>\r\n ;tag=x\r\nServer: a\x1b[2Jb\xff\xe2\x80\xaec\r\n\r\n";
    assert_eq!(
        redact(message),
        "BYE sip:h SIP/2.0\nFrom: \"…\" <sip:…@h>;tag=x\nServer: a\u{fffd}[2Jb\u{fffd}\u{fffd}c\n"
    );
}

#[test]
fn a_long_message_is_cut() {
    let message = format!("BYE sip:h SIP/2.0\r\nServer: {}\r\n\r\n", "ä".repeat(LONGEST));
    let text = redact(message.as_bytes());
    assert!(text.len() <= LONGEST && text.ends_with("[the rest is cut]\n"), "{}", text.len());
}

proptest! {
    #[test]
    fn any_bytes_become_a_text_that_can_be_printed(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let text = redact(&bytes);
        prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    }

    /// Broken in any place, as it may come from a peer.
    #[test]
    fn pieces_of_sip_become_a_text_too(pieces in proptest::collection::vec(prop_oneof![
        Just("INVITE "), Just("sip:"), Just("tel:"), Just("@"), Just("<"), Just(">"), Just("\""), Just("\\"), Just(";"), Just("="),
        Just(","), Just("?"), Just("\r\n"), Just(" "), Just(": "), Just("From"), Just("Authorization"), Just("Reason"), Just("é"),
        Just("0612345678"), Just("+"), Just(" SIP/2.0"), Just("SIP/2.0 200 OK"), Just("[::1]"), Just("a=crypto:"), Just("c: application/sdp"),
    ], 0..60)) {
        let _ = redact(pieces.concat().as_bytes());
    }

    /// Wherever an address stands, however it is written: at most the last two digits of a number and nothing of a name are left.
    #[test]
    fn no_number_and_no_name_is_left_of_an_address(number in "0{0,2}[1-9][0-9]{7,12}", plus in any::<bool>(), form in 0usize..7, header in 0usize..ADDRESSES.len()) {
        let written = if plus { format!("+{number}") } else { number.clone() };
        let address = match form {
            0 => format!("<sip:{written}@192.0.2.1;user=phone>;tag=x"),
            1 => format!("sip:{written}@h"),
            2 => format!("\"{written} Zaphod\" <tel:{written}>"),
            3 => format!("Zaphod <sip:Zaphod:{written}@h;x={written}>;{written};y={written}"),
            4 => format!("<sip:{written}>, <sip:h?P-Asserted-Identity={written}>"),
            5 => format!("<sip:{written}%40x@h"),
            _ => written.clone(),
        };
        let message = format!("INVITE sip:{written}@h SIP/2.0\r\n{}: {address}\r\nX-VoiceDock-Number: {written}\r\n\r\n", ADDRESSES[header]);
        let text = redact(message.as_bytes());
        prop_assert!(!text.contains(&number[number.len() - 4..]) && !text.contains("Zaphod"), "{address} became {text}");
    }
}
