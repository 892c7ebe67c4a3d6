//! Messages that cross (RFC 5407), section by section, those that no other file has a test for: a copy of the INVITE (§3.1.1)
//! is in `setup`, crossing BYEs (§3.2.1), an ACK after hanging up (§3.2.4) and a 2xx that crosses CANCEL in `ending`, crossing
//! re-INVITEs (§3.3.1) in `within`.

use sipx_sip::Response;

use super::net::*;
use super::within::call_from_p;
use crate::sip::event::{EndedBy, LegEvent, LegId};

fn with_offer(text: String) -> String {
    text.replace("Content-Length: 0\r\n\r\n", "Content-Type: application/sdp\r\nContent-Length: 3\r\n\r\nnew")
}

/// A call from P to B, answered.
fn answered_call_from_p(net: &mut Net) -> (LegId, Response) {
    net.inject(B, net.invite_from_p("p"));
    let (callee, _) = net.event(B);
    net.act(B, |b, now| b.answer(callee, sdp("answer"), now));
    (callee, net.response_with(200))
}

/// §3.1.2.
#[test]
fn a_cancel_that_crosses_our_answer_changes_nothing() {
    let mut net = Net::new();
    let (callee, answer) = answered_call_from_p(&mut net);
    net.inject(B, request_from_p("CANCEL", "sip:+4930123@192.0.2.2", "p", 1, ""));
    let cancelled = net.response_with(200);
    assert!(cancelled.headers.value(&sipx_sip::HeaderName::CSeq).unwrap().ends_with(b"CANCEL"));
    assert!(net.events(B).is_empty());
    net.inject(B, net.ack_from_p("p", &answer));
    assert_eq!(net.event(B), (callee, LegEvent::Acked { body: None }));
}

/// §3.1.3, §3.1.6.
#[test]
fn a_bye_before_the_ack_of_our_answer_ends_the_call_and_the_answer_is_not_repeated() {
    let mut net = Net::new();
    let (callee, answer) = answered_call_from_p(&mut net);
    net.inject(B, net.within_from_p("BYE", "p", 2, &answer));
    assert_eq!(net.event(B), (callee, LegEvent::Ended(EndedBy::Bye(None))));
    let before = net.count("SIP/2.0 200");
    net.inject(B, net.ack_from_p("p", &answer));
    net.run(33_000);
    assert_eq!((net.count("SIP/2.0 200"), net.count("BYE sip:p@")), (before, 0));
    net.assert_quiet();
}

/// §3.2.3.
#[test]
fn an_answer_to_our_reinvite_that_crosses_our_bye_is_acknowledged() {
    let mut net = Net::new();
    let (callee, _) = call_from_p(&mut net);
    net.act(B, |b, now| b.reoffer(callee, sdp("new"), now));
    let reinvite = net.request("INVITE");
    net.act(B, |b, now| b.hang_up(callee, None, now));
    net.reply_from(B, &reinvite, 200, "", &[], "fine");
    net.request("ACK");
    let bye = net.request("BYE");
    net.reply_from(B, &bye, 200, "", &[], "");
    assert_eq!(net.event(B), (callee, LegEvent::Ended(EndedBy::Us)), "one BYE, one end");
    assert_eq!(net.count("BYE"), 1);
    net.run(40_000);
    net.assert_quiet();
}

/// §3.3.2.
#[test]
fn an_update_that_crosses_our_reinvite_is_asked_to_come_again_and_ours_goes_on() {
    let mut net = Net::new();
    let (callee, answer) = call_from_p(&mut net);
    net.act(B, |b, now| b.reoffer(callee, sdp("ours"), now));
    let reinvite = net.request("INVITE");
    net.inject(B, with_offer(net.within_from_p("UPDATE", "p", 2, &answer)));
    net.response_with(491);
    net.reply_from(B, &reinvite, 200, "", &[], "fine");
    assert_eq!(net.event(B), (callee, LegEvent::ReofferAccepted { body: sdp("fine") }));
}

/// §3.1.4. An UPDATE says nothing of the answer: it may have been sent before.
#[test]
fn a_reinvite_before_the_ack_of_the_answer_stands_for_that_ack() {
    let mut net = Net::new();
    let (callee, answer) = answered_call_from_p(&mut net);
    net.inject(B, with_offer(net.within_from_p("UPDATE", "p", 2, &answer)));
    net.response_with(491);
    for cseq in [3, 4] {
        let repeated = net.count("SIP/2.0 200");
        net.inject(B, with_offer(net.within_from_p("INVITE", "p", cseq, &answer)));
        let mut events = net.events(B).into_iter();
        assert_eq!(events.next(), Some((callee, LegEvent::Acked { body: None })));
        let Some((_, LegEvent::Reoffer { request, body })) = events.next() else { panic!("a re-INVITE") };
        assert_eq!(body, sdp("new"));
        net.run(10_000);
        assert_eq!(net.count("SIP/2.0 200"), repeated, "the answer before is not repeated any more");
        // Its ACK comes late, and is about nothing.
        net.inject(B, net.ack_from_p("p", &answer));
        net.act(B, |b, now| b.respond(callee, request, 200, sdp("fine"), now));
        net.response_with(200);
        assert!(net.events(B).is_empty());
    }
    net.inject(B, net.within_from_p("ACK", "p", 4, &answer));
    assert_eq!(net.event(B), (callee, LegEvent::Acked { body: None }));
}

/// §3.1.5.
#[test]
fn a_reinvite_before_the_answer_to_our_offer_is_asked_to_come_again() {
    let mut net = Net::new();
    net.inject(B, request_from_p("INVITE", "sip:+4930123@192.0.2.2", "p", 1, ""));
    let (callee, _) = net.event(B);
    net.act(B, |b, now| b.answer(callee, sdp("offer"), now));
    let answer = net.response_with(200);
    net.inject(B, with_offer(net.within_from_p("INVITE", "p", 2, &answer)));
    net.response_with(491);
    assert!(net.events(B).is_empty());
    net.inject(B, with_offer(net.ack_from_p("p", &answer)));
    assert_eq!(net.event(B), (callee, LegEvent::Acked { body: sdp("new") }));
    net.inject(B, with_offer(net.within_from_p("INVITE", "p", 3, &answer)));
    assert!(matches!(net.event(B).1, LegEvent::Reoffer { body, .. } if body == sdp("new")));
}

/// §3.2.2.
#[test]
fn a_reinvite_that_crosses_our_bye_meets_no_dialog() {
    let mut net = Net::new();
    let (callee, answer) = call_from_p(&mut net);
    net.act(B, |b, now| b.hang_up(callee, None, now));
    let bye = net.request("BYE");
    net.inject(B, net.within_from_p("INVITE", "p", 2, &answer));
    net.response_with(481);
    net.reply_from(B, &bye, 200, "", &[], "");
    assert_eq!(net.event(B), (callee, LegEvent::Ended(EndedBy::Us)));
    net.assert_quiet();
}

/// §3.3.3.
#[test]
fn a_refer_while_our_reinvite_is_under_way_is_heard_all_the_same() {
    let mut net = Net::new();
    let (callee, answer) = call_from_p(&mut net);
    net.act(B, |b, now| b.reoffer(callee, sdp("new"), now));
    net.request("INVITE");
    let extra = "Refer-To: <sip:sales@gateway>\r\nContent-Length";
    net.inject(B, net.within_from_p("REFER", "p", 2, &answer).replace("Content-Length", extra));
    assert!(matches!(net.event(B), (_, LegEvent::Refer { .. })));
}

#[test]
fn a_reinvite_that_is_cancelled_is_refused_and_whoever_was_to_answer_it_is_told() {
    let mut net = Net::new();
    let (callee, answer) = call_from_p(&mut net);
    let reinvite = with_offer(net.within_from_p("INVITE", "p", 2, &answer));
    net.inject(B, reinvite.clone());
    let (_, LegEvent::Reoffer { request, .. }) = net.event(B) else { panic!("a re-INVITE") };
    let cancel = net.within_from_p("INVITE", "p", 2, &answer).replace("INVITE sip:", "CANCEL sip:");
    net.inject(B, cancel.replace("CSeq: 2 INVITE", "CSeq: 2 CANCEL"));
    net.response_with(487);
    assert_eq!(net.event(B), (callee, LegEvent::Withdrawn { request }));
    net.act(B, |b, now| b.respond(callee, request, 200, sdp("too late"), now));
    net.run(1_000);
    assert_eq!(net.count("SIP/2.0 200"), 2, "the INVITE and the CANCEL");
    net.inject(B, with_offer(net.within_from_p("INVITE", "p", 3, &answer)));
    assert!(matches!(net.event(B).1, LegEvent::Reoffer { .. }));
}
