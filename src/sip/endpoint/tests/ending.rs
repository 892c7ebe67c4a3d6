//! How calls end, by either side, at every moment.

use super::net::*;
use crate::sip::event::{EndedBy, LegEvent, RefusedBy};

fn cancelled() -> LegEvent {
    LegEvent::Refused { code: 487, reason: "Request Terminated".into(), by: RefusedBy::Cancelled }
}

#[test]
fn either_side_ends_an_answered_call_with_bye() {
    for caller_ends in [true, false] {
        let mut net = Net::new();
        let (caller, callee) = net.connected();
        let ((us, our), (them, their)) =
            if caller_ends { ((A, caller), (B, callee)) } else { ((B, callee), (A, caller)) };
        net.act(us, |e, now| e.hang_up(our, Some("SIP;cause=200;text=\"done\""), now));
        assert_eq!(net.event(us), (our, LegEvent::Ended(EndedBy::Us)));
        net.run(2 * DELAY);
        let reason = Some("SIP;cause=200;text=\"done\"".to_owned());
        assert_eq!(net.event(them), (their, LegEvent::Ended(EndedBy::Bye(reason))));
        net.assert_quiet();
    }
}

#[test]
fn a_caller_who_gives_up_while_it_rings_sends_cancel() {
    let mut net = Net::new();
    let caller = net.act(A, |a, now| a.invite(call_to(B), now));
    net.run(2 * DELAY);
    let (callee, _) = net.event(B);
    net.act(A, |a, now| a.hang_up(caller, None, now));
    assert_eq!(net.event(A), (caller, cancelled()));
    net.run(40_000);
    assert_eq!(net.event(B), (callee, LegEvent::Ended(EndedBy::Cancel)));
    assert_eq!((net.count("CANCEL"), net.count("SIP/2.0 487"), net.count("ACK")), (1, 1, 1));
    net.assert_quiet();
}

#[test]
fn cancel_waits_for_a_provisional_response() {
    let mut net = Net::new();
    net.lose_some("SIP/2.0 100", 2);
    let caller = net.act(A, |a, now| a.invite(call_to(B), now));
    net.act(A, |a, now| a.hang_up(caller, None, now));
    net.run(1_400);
    assert_eq!(net.count("CANCEL"), 0);
    net.run(40_000);
    assert_eq!(net.count("CANCEL"), 1);
    assert!(matches!(net.events(B).as_slice(), [_, (_, LegEvent::Ended(EndedBy::Cancel))]));
    net.assert_quiet();
}

#[test]
fn an_answer_that_crosses_the_cancel_is_acknowledged_and_ended_with_bye() {
    let mut net = Net::new();
    let caller = net.act(A, |a, now| a.invite(call_to(B), now));
    net.run(2 * DELAY);
    let (callee, _) = net.event(B);
    net.act(B, |b, now| b.answer(callee, sdp("answer"), now));
    net.act(A, |a, now| a.hang_up(caller, None, now));
    assert_eq!(net.event(A), (caller, cancelled()));
    net.run(1_000);
    assert!(matches!(
        net.events(B).as_slice(),
        [(_, LegEvent::Acked { .. }), (_, LegEvent::Ended(EndedBy::Bye(_)))]
    ));
    assert!(net.events(A).is_empty());
    net.run(40_000);
    net.assert_quiet();
}
