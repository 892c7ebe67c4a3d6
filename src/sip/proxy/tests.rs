//! A request that reached the wrong pod, on its way to the owner and back.

use bytes::Bytes;
use sipx_sip::{Limits, Message};

use super::*;
use crate::sip::front_door::{Verdict, admit, reply_stateless};

const OUR: &str = "10.0.0.1:5060";

fn udp(peer: &str) -> Flow {
    Flow { transport: Transport::Udp, peer: peer.parse().unwrap() }
}

fn our() -> OurVia {
    OurVia { sent_by: OUR.into(), transport: Transport::Udp, key: [5; 16] }
}

fn message(bytes: Bytes, from: Flow) -> Message {
    match admit(bytes, from, &Limits::datagram()) {
        Verdict::Message(message) => *message,
        other => panic!("{other:?}"),
    }
}

fn request(method: &str, via: &str) -> Request {
    let text = format!(
        "{method} sip:vd@{OUR} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 7\r\nFrom: <sip:a@b>;tag=1\r\n\
         To: <sip:c@d>;tag=2\r\nCall-ID: 1\r\nCSeq: 1 {method}\r\n\r\n"
    );
    match message(Bytes::from(text), udp("192.0.2.9:4444")) {
        Message::Request(request) => request,
        Message::Response(_) => unreachable!(),
    }
}

fn forwarded(request: &Request) -> Request {
    let bytes = forward_request(request, udp("192.0.2.9:4444"), &our()).unwrap();
    match message(bytes, udp(OUR)) {
        Message::Request(request) => request,
        Message::Response(_) => unreachable!(),
    }
}

fn response(request: &Request) -> Response {
    match message(reply_stateless(request, 200, "OK", &[]), udp("10.0.0.2:5060")) {
        Message::Response(response) => response,
        Message::Request(_) => unreachable!(),
    }
}

#[test]
fn a_request_goes_on_and_its_response_comes_back() {
    for (via, to) in [
        ("SIP/2.0/UDP 10.9.9.9;branch=z9hG4bKa;rport", "192.0.2.9:4444"),
        ("SIP/2.0/UDP 10.9.9.9:5070;branch=z9hG4bKa", "192.0.2.9:5070"),
        ("SIP/2.0/UDP 10.9.9.9;branch=z9hG4bKa;rport, SIP/2.0/UDP far;branch=z9hG4bKb", "192.0.2.9:4444"),
    ] {
        let original = request("BYE", via);
        let onward = forwarded(&original);
        assert_eq!(onward.headers.value(&HeaderName::MaxForwards).unwrap().as_ref(), b"6");
        assert!(is_forwarded(&read::top_via(&onward.headers).unwrap()));
        let answer = response(&onward);
        assert!(is_for_proxy(&answer));
        let (flow, bytes) = forward_response(&answer, &our()).unwrap();
        assert_eq!(flow, udp(to));
        assert_eq!(bytes, Message::Response(response(&original)).to_bytes(), "as if there were no proxy");
    }
}

#[test]
fn a_cancel_gets_the_branch_of_its_invite_and_a_retransmission_that_of_the_first() {
    let branch = |method: &str, branch: &str| {
        let via = format!("SIP/2.0/UDP 10.9.9.9;branch={branch};rport");
        read::top_via(&forwarded(&request(method, &via)).headers).unwrap().branch().unwrap().to_vec()
    };
    assert_eq!(branch("INVITE", "z9hG4bKa"), branch("CANCEL", "z9hG4bKa"));
    assert_eq!(branch("INVITE", "z9hG4bKa"), branch("INVITE", "z9hG4bKa"));
    assert_ne!(branch("INVITE", "z9hG4bKa"), branch("INVITE", "z9hG4bKb"));
}

#[test]
fn nobody_can_make_us_send_a_response_elsewhere() {
    let onward = forwarded(&request("BYE", "SIP/2.0/UDP 10.9.9.9;branch=z9hG4bKa;rport"));
    let text = String::from_utf8(Message::Response(response(&onward)).to_bytes().to_vec()).unwrap();
    for (from, to) in [("udp 192.0.2.9:4444", "udp 198.51.100.1:53"), ("z9hG4bKa", "z9hG4bKb")] {
        let forged = Bytes::from(text.replace(from, to));
        let Message::Response(forged) = message(forged, udp("10.0.0.2:5060")) else { unreachable!() };
        assert_eq!(forward_response(&forged, &our()), None);
    }
    let other = OurVia { key: [6; 16], ..our() };
    assert_eq!(forward_response(&response(&onward), &other), None);
}

#[test]
fn a_request_that_has_gone_far_enough_goes_no_further() {
    let mut request = request("BYE", "SIP/2.0/UDP 10.9.9.9;branch=z9hG4bKa");
    request.headers.remove_all(&HeaderName::MaxForwards);
    request.headers.push(Header::build(HeaderName::MaxForwards, "0").unwrap());
    assert_eq!(forward_request(&request, udp("192.0.2.9:4444"), &our()), None);
}
