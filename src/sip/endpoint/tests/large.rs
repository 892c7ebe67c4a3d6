//! Requests that are too large for a datagram.

use sipx_sip::HeaderName;

use super::net::*;
use crate::sip::event::{Body, Flow, LegEvent, OutgoingInvite, Transport};

/// An INVITE to P that a datagram can't carry in one piece.
fn large_call() -> OutgoingInvite {
    let offer = Body { content_type: "application/sdp".into(), bytes: "x".repeat(1_400).into_bytes().into() };
    OutgoingInvite { offer: Some(offer), ..call_to(P) }
}

fn stream() -> Flow {
    Flow { transport: Transport::Tcp, ..flow(P) }
}

#[test]
fn an_invite_that_is_too_large_for_a_datagram_goes_over_tcp_and_the_dialog_stays_on_udp() {
    let mut net = Net::new();
    let caller = net.act(A, |a, now| a.invite(large_call(), now));
    assert_eq!(net.targets, [stream()]);
    let invite = net.request("INVITE");
    assert!(header(&invite, &HeaderName::Via).starts_with("SIP/2.0/TCP "));
    assert!(!header(&invite, &HeaderName::Contact).contains("transport=tcp"), "peers reach us as before");
    net.reply(&invite, 200, "p", &[], "answer");
    assert!(matches!(net.event(A), (_, LegEvent::Answered { .. })));
    net.act(A, |a, now| a.hang_up(caller, None, now));
    assert_eq!(net.targets.last(), Some(&flow(P)), "what is small goes over UDP");
    let bye = net.request("BYE");
    net.reply(&bye, 200, "", &[], "");
    net.assert_quiet();
}

#[test]
fn a_peer_that_takes_no_tcp_gets_the_large_invite_over_udp_and_the_next_one_at_once() {
    let mut net = Net::new();
    net.lose.push(Box::new(|text| text.contains("SIP/2.0/TCP")));
    net.act(A, |a, now| a.invite(large_call(), now));
    net.act(A, |a, now| a.transport_failed(stream(), now));
    assert!(net.events(A).is_empty(), "the call goes on");
    let invite = net.request("INVITE");
    assert!(header(&invite, &HeaderName::Via).starts_with("SIP/2.0/UDP "));
    assert_eq!(header(&invite, &HeaderName::CSeq), "2 INVITE");
    net.reply(&invite, 486, "p", &[], "");
    assert!(matches!(net.event(A), (_, LegEvent::Refused { code: 486, .. })));
    net.targets.clear();
    net.act(A, |a, now| a.invite(large_call(), now));
    assert_eq!(net.targets, [flow(P)]);
}

#[test]
fn a_connection_that_breaks_once_the_peer_has_the_invite_is_no_reason_to_send_it_twice() {
    let mut net = Net::new();
    net.act(A, |a, now| a.invite(large_call(), now));
    let invite = net.request("INVITE");
    net.reply(&invite, 180, "p", &[], "");
    net.act(A, |a, now| a.transport_failed(stream(), now));
    let events = net.events(A);
    assert!(matches!(events.last(), Some((_, LegEvent::Refused { code: 503, .. }))), "{events:?}");
    assert!(net.inbox.iter().all(|message| message.as_request().is_none()), "{:?}", net.inbox);
}
