//! REFER that we send, and the NOTIFYs that answer it.

use super::net::*;
use crate::sip::event::LegEvent;

#[test]
fn a_refer_of_ours_is_answered_and_its_outcome_comes_as_notify() {
    let mut net = Net::new();
    let (caller, callee) = net.connected();
    let sent = net.act(B, |b, now| b.refer(callee, "sip:sales@192.0.2.1", now));
    net.run(DELAY);
    let (_, LegEvent::Refer { request, target, referred_by }) = net.event(A) else { panic!("no REFER") };
    assert_eq!((target.user.as_str(), target.uri.as_str()), ("sales", "sip:sales@192.0.2.1"));
    assert_eq!(referred_by.as_deref(), Some("<sip:192.0.2.2:5060>"));
    net.act(A, |a, now| {
        a.respond(caller, request, 202, None, now);
        a.notify(caller, request, 486, "Busy Here", true, now);
    });
    net.run(DELAY);
    let events = net.events(B);
    let [(_, LegEvent::Response { request, code: 202 }), (_, LegEvent::Request { method, body, .. })] =
        events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!((*request, method.as_str()), (sent, "NOTIFY"));
    assert_eq!(body.as_ref().unwrap().bytes.as_ref(), b"SIP/2.0 486 Busy Here\r\n");
}

#[test]
fn a_refer_without_a_dialog_is_answered_481_by_ourselves() {
    let mut net = Net::new();
    let caller = net.act(A, |a, now| a.invite(call_to(B), now));
    let sent = net.act(A, |a, now| a.refer(caller, "sip:sales@192.0.2.2", now));
    assert_eq!(net.event(A), (caller, LegEvent::Response { request: sent, code: 481 }));
    assert_eq!(net.count("REFER"), 0);
}
