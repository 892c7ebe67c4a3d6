//! How calls come about.

use super::net::*;
use crate::sip::event::{LegEvent, RefusedBy};

#[test]
fn a_call_is_offered_rings_and_is_answered() {
    let mut net = Net::new();
    let caller = net.act(A, |a, now| a.invite(call_to(B), now));
    net.run(DELAY);
    let (callee, event) = net.event(B);
    let LegEvent::Incoming(call) = event else { panic!("{event:?}") };
    assert_eq!((call.called.as_str(), call.max_forwards), ("+4930123", 69));
    assert_eq!((call.from.display.as_str(), call.from.user.as_str()), ("A \"B\"", "+4989456"));
    assert_eq!(call.headers, [("X-Id".to_owned(), "7".to_owned())]);
    assert_eq!(call.offer, sdp("offer"));
    assert_eq!(call.flow, flow(A));
    net.act(B, |b, now| b.progress(callee, 183, sdp("early"), now));
    net.run(DELAY);
    assert_eq!(net.event(A), (caller, LegEvent::Progress { code: 183, body: sdp("early") }));
    net.run(30_000);
    net.act(B, |b, now| b.answer(callee, sdp("answer"), now));
    net.run(DELAY);
    assert_eq!(net.event(A), (caller, LegEvent::Answered { body: sdp("answer") }));
    net.run(DELAY);
    assert_eq!(net.event(B), (callee, LegEvent::Acked { body: None }));
    assert_eq!((net.count("INVITE"), net.count("ACK"), net.count("SIP/2.0 200")), (1, 1, 1));
    assert_eq!((net.at(A).legs(), net.at(B).legs()), (1, 1));
    net.run(60_000);
    assert_eq!(net.at(B).timers() + net.at(A).timers(), 0, "a held call needs no timer");
    assert_eq!(net.at(B).server_transactions(), 0, "and remembers no transaction");
}

#[test]
fn without_an_offer_the_answerer_offers_and_the_ack_answers() {
    let mut net = Net::new();
    let mut invite = call_to(B);
    invite.offer = None;
    let caller = net.act(A, |a, now| a.invite(invite, now));
    net.run(DELAY);
    let (callee, _) = net.event(B);
    net.act(B, |b, now| b.answer(callee, sdp("offer of b"), now));
    net.run(DELAY);
    assert_eq!(net.event(A), (caller, LegEvent::Answered { body: sdp("offer of b") }));
    assert_eq!(net.count("ACK"), 0);
    net.act(A, |a, now| a.ack(caller, sdp("answer of a"), now));
    net.run(DELAY);
    assert_eq!(net.event(B), (callee, LegEvent::Acked { body: sdp("answer of a") }));
}

#[test]
fn a_refusal_is_reported_once_and_acknowledged() {
    let mut net = Net::new();
    let caller = net.act(A, |a, now| a.invite(call_to(B), now));
    net.run(DELAY);
    let (callee, _) = net.event(B);
    net.lose_next("ACK sip");
    net.act(B, |b, now| b.refuse(callee, 486, &[("Reason", "Q.850;cause=17".into())], now));
    net.run(5_000);
    let refused = LegEvent::Refused { code: 486, reason: "Busy Here".into(), by: RefusedBy::Response };
    assert_eq!(net.event(A), (caller, refused));
    assert_eq!(net.count("ACK"), 2);
    net.run(40_000);
    net.assert_quiet();
}

#[test]
fn silence_refuses_the_call_after_32_seconds() {
    let mut net = Net::new();
    let caller = net.act(A, |a, now| a.invite(call_to("192.0.2.9:5060"), now));
    net.run(31_000);
    assert!(net.events(A).is_empty());
    assert_eq!(net.count("INVITE"), 6, "at 0, 0.5, 1.5, 3.5, 7.5 and 15.5 s");
    net.run(1_500);
    let refused = LegEvent::Refused { code: 408, reason: "Request Timeout".into(), by: RefusedBy::Timeout };
    assert_eq!(net.event(A), (caller, refused));
    net.assert_quiet();
}
