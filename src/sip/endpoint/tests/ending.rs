//! How calls end, by either side, at every moment.

use std::time::Duration;

use super::net::*;
use crate::sip::event::{EndedBy, LegEvent, OutgoingInvite, RefusedBy};

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

#[test]
fn the_callee_may_hang_up_before_the_ack_and_bye_follows_it() {
    let mut net = Net::new();
    net.act(A, |a, now| a.invite(call_to(B), now));
    net.run(DELAY);
    let (callee, _) = net.event(B);
    net.lose_some("ACK sip", 2);
    net.act(B, |b, now| b.answer(callee, sdp("answer"), now));
    net.act(B, |b, now| b.hang_up(callee, None, now));
    assert_eq!(net.event(B), (callee, LegEvent::Ended(EndedBy::Us)));
    net.run(1_000);
    assert_eq!(net.count("BYE"), 0);
    net.run(2_000);
    assert_eq!(net.count("BYE"), 1);
    assert!(matches!(net.events(A).as_slice(), [_, (_, LegEvent::Ended(EndedBy::Bye(None)))]));
    net.run(40_000);
    net.assert_quiet();
}

#[test]
fn an_answer_that_is_never_acknowledged_ends_the_call_after_32_seconds() {
    for hung_up in [false, true] {
        let mut net = Net::new();
        net.inject(B, net.invite_from_p("mute"));
        let (callee, _) = net.event(B);
        net.act(B, |b, now| b.answer(callee, sdp("answer"), now));
        if hung_up {
            net.act(B, |b, now| b.hang_up(callee, None, now));
            assert_eq!(net.event(B), (callee, LegEvent::Ended(EndedBy::Us)));
        }
        net.run(31_000);
        assert!(net.events(B).is_empty());
        assert_eq!(net.count("SIP/2.0 200"), 10, "0, 0.5, 1.5, 3.5, 7.5, then every 4 s");
        net.run(1_100);
        assert_eq!(net.count("BYE"), 1);
        if !hung_up {
            assert_eq!(net.event(B), (callee, LegEvent::Ended(EndedBy::Timeout)));
        }
        net.run(40_000);
        net.assert_quiet();
    }
}

#[test]
fn a_silent_peer_counts_as_gone_when_patience_ends_and_its_late_ringing_is_cancelled() {
    let mut net = Net::new();
    let impatient = || OutgoingInvite { patience: Some(Duration::from_secs(4)), ..call_to(P) };
    let caller = net.act(A, |a, now| a.invite(impatient(), now));
    net.run(3_900);
    assert!(net.events(A).is_empty());
    assert_eq!(net.count("INVITE"), 4, "0, 0.5, 1.5 and 3.5 s");
    net.run(200);
    let refused = LegEvent::Refused { code: 408, reason: "Request Timeout".into(), by: RefusedBy::Timeout };
    assert_eq!(net.event(A), (caller, refused));
    let invite = net.request("INVITE");
    net.reply(&invite, 180, "p", &[], "");
    let cancel = net.request("CANCEL");
    net.reply(&cancel, 200, "p", &[], "");
    net.reply(&invite, 487, "p", &[], "");
    net.run(60_000);
    assert!(net.events(A).is_empty());
    net.assert_quiet();
}

#[test]
fn a_peer_that_has_said_anything_is_waited_for() {
    let mut net = Net::new();
    let impatient = OutgoingInvite { patience: Some(Duration::from_secs(4)), ..call_to(P) };
    let caller = net.act(A, |a, now| a.invite(impatient, now));
    let invite = net.request("INVITE");
    net.reply(&invite, 100, "", &[], "");
    net.run(20_000);
    assert!(net.events(A).is_empty());
    net.reply(&invite, 200, "p", &[], "answer");
    assert!(matches!(net.event(A), (leg, LegEvent::Answered { .. }) if leg == caller));
}

#[test]
fn byes_that_cross_end_the_call_on_both_sides() {
    let mut net = Net::new();
    let (caller, callee) = net.connected();
    net.act(A, |a, now| a.hang_up(caller, None, now));
    net.act(B, |b, now| b.hang_up(callee, None, now));
    net.run(100);
    assert_eq!(net.event(A).1, LegEvent::Ended(EndedBy::Us));
    assert_eq!(net.event(B).1, LegEvent::Ended(EndedBy::Us));
    assert_eq!(net.count("SIP/2.0 481"), 0);
    net.assert_quiet();
}

#[test]
fn a_lost_bye_is_repeated_and_a_lost_response_to_it_as_well() {
    for lost in ["BYE sip", "CSeq: 2 BYE"] {
        let mut net = Net::new();
        let (caller, _) = net.connected();
        net.lose_some(lost, 3);
        net.act(A, |a, now| a.hang_up(caller, None, now));
        net.run(10_000);
        assert!(matches!(net.event(B), (_, LegEvent::Ended(EndedBy::Bye(None)))));
        net.run(30_000);
        net.assert_quiet();
    }
}

#[test]
fn a_peer_that_is_gone_holds_no_leg() {
    let mut net = Net::new();
    let (caller, callee) = net.connected();
    net.lose.push(Box::new(|_| true));
    net.act(A, |a, now| a.hang_up(caller, None, now));
    net.act(B, |b, now| b.hang_up(callee, None, now));
    net.run(32_100);
    net.assert_quiet();
}

#[test]
fn a_callee_that_sends_bye_while_its_answer_is_lost_ends_the_call() {
    let mut net = Net::new();
    let caller = net.act(A, |a, now| a.invite(call_to(P), now));
    let invite = net.request("INVITE");
    net.reply(&invite, 180, "p", &[], "");
    net.events(A);
    let from = header(&invite, &sipx_sip::HeaderName::From);
    let call_id = header(&invite, &sipx_sip::HeaderName::CallId);
    let bye = request_from_p("BYE", &format!("sip:vd@{A}"), "p", 1, "")
        .replace("To: <sip:b@b>", &format!("To: {from}"))
        .replace("Call-ID: p", &format!("Call-ID: {call_id}"));
    net.inject(A, bye);
    assert!(matches!(net.event(A), (leg, LegEvent::Refused { code: 480, .. }) if leg == caller));
    net.response_with(200);
    let cancel = net.request("CANCEL");
    net.reply(&cancel, 200, "p", &[], "");
    net.reply(&invite, 487, "p", &[], "");
    net.request("ACK");
    net.run(40_000);
    net.assert_quiet();
}

#[test]
fn a_request_for_a_dialog_that_is_gone_gets_481() {
    let mut net = Net::new();
    net.inject(B, net.invite_from_p("gone"));
    let (callee, _) = net.event(B);
    net.act(B, |b, now| b.answer(callee, None, now));
    let answer = net.response_with(200);
    net.inject(B, net.ack_from_p("gone", &answer));
    net.events(B);
    let stranger = net
        .within_from_p("BYE", "gone", 2, &answer)
        .replace("From: <sip:p@p>;tag=gone", "From: <sip:p@p>;tag=x");
    net.inject(B, stranger);
    net.response_with(481);
    assert!(net.events(B).is_empty(), "a stranger's BYE ends nothing");
    net.inject(B, net.within_from_p("BYE", "gone", 2, &answer));
    net.response_with(200);
    assert_eq!(net.event(B), (callee, LegEvent::Ended(EndedBy::Bye(None))));
    net.inject(B, net.within_from_p("BYE", "gone", 3, &answer));
    net.response_with(481);
    net.inject(B, request_from_p("CANCEL", "sip:b@b", "never", 1, ""));
    let (_, cancel, from) = net.elsewhere.pop().expect("another pod may know it");
    net.act(B, |b, _| b.turn_away(cancel, from));
    net.response_with(481);
}

#[test]
fn a_connection_that_fails_ends_the_attempt_at_once() {
    let mut net = Net::new();
    let caller = net.act(A, |a, now| a.invite(call_to("192.0.2.9:5060"), now));
    net.act(A, |a, now| a.transport_failed(flow("192.0.2.9:5060"), now));
    let (leg, event) = net.event(A);
    assert_eq!(leg, caller);
    assert!(matches!(event, LegEvent::Refused { code: 503, by: RefusedBy::Transport, .. }));
    net.assert_quiet();
}
