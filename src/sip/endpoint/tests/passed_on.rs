//! What belongs to a transaction of this pod and comes through other pods, as behind a load balancer it can.

use bytes::Bytes;
use sipx_sip::{HeaderName, Limits, Message};

use super::net::*;
use crate::sip::event::{EndedBy, LegEvent, LegId, Transport};
use crate::sip::front_door::{Verdict, admit};
use crate::sip::proxy::{OurVia, forward_request};

fn message(bytes: Bytes, from: &str) -> Message {
    match admit(bytes, flow(from), &Limits::datagram()) {
        Verdict::Message(message) => *message,
        other => panic!("{other:?}"),
    }
}

/// What P sends reaches B through the pod at this address.
fn through(net: &mut Net, pod: &str, text: String) {
    let Message::Request(request) = message(Bytes::from(text), P) else { panic!("a request") };
    let our = OurVia { sent_by: pod.into(), transport: Transport::Udp, key: [pod.len() as u8; 16] };
    let bytes = forward_request(&request, flow(P), &our).unwrap();
    net.act(B, |b, now| b.receive_from(flow(P), message(bytes, pod), flow(pod), now));
    net.run(2 * DELAY);
}

fn ringing(net: &mut Net) -> LegId {
    let invite = net.invite_from_p("p");
    net.inject(B, invite);
    let (leg, event) = net.event(B);
    assert!(matches!(event, LegEvent::Incoming(_)));
    leg
}

const PODS: [&str; 2] = ["10.0.0.7:5060", "10.0.0.77:5060"];

#[test]
fn a_cancel_and_a_repetition_find_their_invite_through_whichever_pod_they_come() {
    let mut net = Net::new();
    let leg = ringing(&mut net);
    for pod in PODS {
        let again = net.invite_from_p("p");
        through(&mut net, pod, again);
        assert!(net.events(B).is_empty(), "it is no new call");
    }
    let cancel = request_from_p("CANCEL", "sip:+4930123@192.0.2.2", "p", 1, "");
    through(&mut net, PODS[0], cancel);
    assert_eq!(net.event(B), (leg, LegEvent::Ended(EndedBy::Cancel)));
    let sent = net.sent.iter().zip(&net.targets).find(|(line, _)| line.starts_with("SIP/2.0 200"));
    assert_eq!(sent.map(|(_, to)| *to), Some(flow(PODS[0])), "the CANCEL is answered the way it came");
    assert!(net.elsewhere.is_empty());
}

#[test]
fn the_ack_of_a_refusal_stops_its_repetition_through_whichever_pod_it_comes() {
    let mut net = Net::new();
    let leg = ringing(&mut net);
    net.act(B, |b, now| b.refuse(leg, 486, &[], now));
    let refused = net.response_with(486);
    let to = String::from_utf8(refused.headers.value(&HeaderName::To).unwrap().to_vec()).unwrap();
    let ack = request_from_p("ACK", "sip:+4930123@192.0.2.2", "p", 1, "");
    through(&mut net, PODS[1], ack.replace("To: <sip:b@b>", &format!("To: {to}")));
    let before = net.count("SIP/2.0 486");
    net.run(40_000);
    assert_eq!(net.count("SIP/2.0 486"), before);
    net.events(B);
    net.assert_quiet();
}
