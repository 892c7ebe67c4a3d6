//! Session timers (RFC 4028) between endpoints, and with a peer that has others or none.

use sipx_sip::{HeaderName, Request, Response};

use super::net::*;
use crate::sip::event::{EndedBy, LegEvent, LegId, OutgoingInvite};
use crate::sip::session::SessionPolicy;

const EXPIRED: &str = "SIP;cause=408;text=\"Session expired\"";

fn asks(seconds: u32) -> SessionPolicy {
    SessionPolicy { min: 90, ask: Some(seconds) }
}

fn asking(peer: &str, seconds: u32) -> OutgoingInvite {
    OutgoingInvite { session: asks(seconds), ..call_to(peer) }
}

fn expires(headers: &sipx_sip::Headers) -> String {
    String::from_utf8_lossy(&headers.value(&HeaderName::SessionExpires).unwrap_or_default()).into_owned()
}

/// A call from A to B, which have session timers, answered; with the legs.
fn timed(net: &mut Net, seconds: u32) -> (LegId, LegId) {
    let caller = net.act(A, |a, now| a.invite(asking(B, seconds), now));
    net.run(DELAY);
    let (callee, _) = net.event(B);
    assert!(net.act(B, |b, now| b.keep_session(callee, asks(1800), now)));
    net.act(B, |b, now| b.answer(callee, sdp("answer"), now));
    net.run(3 * DELAY);
    assert_eq!((net.events(A).len(), net.events(B).len()), (1, 1));
    (caller, callee)
}

/// A call from A to P, which answers with these headers.
fn answered_by_p(net: &mut Net, headers: &[(&str, &str)]) -> (LegId, Request) {
    let leg = net.act(A, |a, now| a.invite(asking(P, 600), now));
    let invite = net.request("INVITE");
    net.reply(&invite, 200, "p", headers, "answer");
    net.request("ACK");
    net.events(A);
    (leg, invite)
}

/// A call from P to B with these header lines, answered.
fn called_by_p(net: &mut Net, lines: &str) -> (LegId, Response) {
    net.inject(B, net.invite_from_p("p").replace("Content-Type", &format!("{lines}Content-Type")));
    let (leg, _) = net.event(B);
    assert!(net.act(B, |b, now| b.keep_session(leg, asks(1800), now)));
    net.act(B, |b, now| b.answer(leg, sdp("answer"), now));
    let answer = net.response_with(200);
    net.inject(B, net.ack_from_p("p", &answer));
    net.events(B);
    (leg, answer)
}

#[test]
fn the_callee_refreshes_by_update_and_nobody_else_hears_of_it() {
    let mut net = Net::new();
    let (caller, callee) = timed(&mut net, 600);
    assert_eq!(net.count("UPDATE"), 0);
    net.run(299_000);
    assert_eq!(net.count("UPDATE"), 0);
    net.run(1_000);
    assert_eq!(net.count("UPDATE"), 1);
    net.run(6_001_000);
    assert_eq!((net.count("UPDATE"), net.count("BYE")), (21, 0));
    assert!(net.events(A).is_empty() && net.events(B).is_empty());
    net.act(A, |a, now| a.hang_up(caller, None, now));
    net.run(100);
    assert_eq!(net.event(B), (callee, LegEvent::Ended(EndedBy::Bye(None))));
    net.events(A);
    net.run(40_000);
    net.assert_quiet();
}

#[test]
fn when_the_network_is_cut_both_sides_end_the_session() {
    let mut net = Net::new();
    let (caller, callee) = timed(&mut net, 600);
    net.lose.push(Box::new(|_| true));
    net.run(300_000 + 33_000);
    assert_eq!(net.event(B), (callee, LegEvent::Ended(EndedBy::Timeout)), "its refresh met silence");
    assert!(net.events(A).is_empty());
    net.run(600_000 - 32_000 - 333_000);
    assert_eq!(net.event(A), (caller, LegEvent::Ended(EndedBy::Expired)));
    net.run(40_000);
    net.assert_quiet();
}

#[test]
fn an_interval_that_is_too_small_is_refused_and_asked_for_anew() {
    let mut net = Net::new();
    let caller = net.act(A, |a, now| a.invite(asking(B, 100), now));
    net.run(DELAY);
    let (first, _) = net.event(B);
    let strict = SessionPolicy { min: 300, ask: Some(1800) };
    assert!(!net.act(B, |b, now| b.keep_session(first, strict, now)));
    net.run(2 * DELAY);
    assert_eq!(net.count("SIP/2.0 422"), 1);
    let events = net.events(B);
    assert_eq!(events[0], (first, LegEvent::Ended(EndedBy::Us)));
    let second = events[1].0;
    assert!(matches!(events[1].1, LegEvent::Incoming(_)));
    assert!(net.act(B, |b, now| b.keep_session(second, strict, now)));
    net.act(B, |b, now| b.answer(second, sdp("answer"), now));
    net.run(2 * DELAY);
    assert!(matches!(net.event(A), (leg, LegEvent::Answered { .. }) if leg == caller));
}

#[test]
fn a_peer_that_wants_a_longer_interval_gets_it_within_reason() {
    let mut net = Net::new();
    let leg = net.act(A, |a, now| a.invite(asking(P, 600), now));
    let invite = net.request("INVITE");
    assert_eq!(expires(&invite.headers), "600");
    assert!(invite.headers.value(&HeaderName::MinSe).is_none());
    net.reply(&invite, 422, "p", &[("Min-SE", "900")], "");
    let invite = net.request("INVITE");
    assert_eq!(expires(&invite.headers), "900");
    assert_eq!(header(&invite, &HeaderName::MinSe), "900");
    assert_eq!(header(&invite, &HeaderName::CSeq), "2 INVITE");
    net.reply(&invite, 422, "p", &[("Min-SE", "900")], "");
    let refused = LegEvent::Refused {
        code: 422,
        reason: "Session Interval Too Small".into(),
        by: crate::sip::event::RefusedBy::Response,
    };
    assert_eq!(net.event(A), (leg, refused), "the same again would be refused again");
}

#[test]
fn a_session_that_the_peer_should_refresh_and_does_not_is_ended_with_a_reason() {
    let mut net = Net::new();
    let (leg, answer) = called_by_p(&mut net, "Supported: timer\r\nSession-Expires: 300;refresher=uac\r\n");
    assert_eq!(expires(&answer.headers), "300;refresher=uac");
    assert_eq!(answer.headers.value(&HeaderName::Require).unwrap().as_ref(), b"timer");
    net.run(250_000);
    let lines = "Supported: timer\r\nSession-Expires: 300;refresher=uac\r\nContent-Length";
    net.inject(B, net.within_from_p("UPDATE", "p", 2, &answer).replace("Content-Length", lines));
    assert_eq!(expires(&net.response_with(200).headers), "300;refresher=uac");
    net.run(267_000);
    assert!(net.events(B).is_empty());
    net.run(1_000);
    assert_eq!(net.event(B), (leg, LegEvent::Ended(EndedBy::Expired)));
    assert_eq!(header(&net.request("BYE"), &HeaderName::Reason), EXPIRED);
}

#[test]
fn a_refresh_with_too_small_an_interval_is_refused_and_the_session_stands() {
    let mut net = Net::new();
    let (_, answer) = called_by_p(&mut net, "Supported: timer\r\nSession-Expires: 300;refresher=uac\r\n");
    for (cseq, method) in [(2, "UPDATE"), (3, "INVITE")] {
        let lines = "Supported: timer\r\nSession-Expires: 89\r\nContent-Length";
        net.inject(B, net.within_from_p(method, "p", cseq, &answer).replace("Content-Length", lines));
        let refused = net.response_with(422);
        assert_eq!(refused.headers.value(&HeaderName::MinSe).unwrap().as_ref(), b"90");
    }
    assert!(net.events(B).is_empty());
}

#[test]
fn a_call_with_less_than_ninety_seconds_is_refused_before_it_is_one() {
    let mut net = Net::new();
    let lines = "Supported: timer\r\nSession-Expires: 60\r\nContent-Type";
    net.inject(B, net.invite_from_p("p").replace("Content-Type", lines));
    assert_eq!(net.response_with(422).headers.value(&HeaderName::MinSe).unwrap().as_ref(), b"90");
    assert!(net.events(B).is_empty());
    net.assert_quiet();
}

#[test]
fn a_caller_who_demands_session_timers_is_served() {
    let mut net = Net::new();
    let (_, answer) = called_by_p(&mut net, "Require: timer\r\n");
    assert_eq!(expires(&answer.headers), "1800;refresher=uas");
}

#[test]
fn a_proxy_may_ask_for_a_caller_who_knows_nothing_of_it() {
    let mut net = Net::new();
    let (_, answer) = called_by_p(&mut net, "Session-Expires: 60\r\n");
    assert_eq!(expires(&answer.headers), "90;refresher=uas");
    assert!(answer.headers.value(&HeaderName::Require).is_none());
    net.run(45_000);
    assert_eq!(expires(&net.request("INVITE").headers), "90;refresher=uac", "it says nothing of UPDATE");
}

#[test]
fn a_peer_that_takes_no_update_is_refreshed_by_the_same_offer_again() {
    let mut net = Net::new();
    let (leg, _) = answered_by_p(&mut net, &[("Session-Expires", "600;refresher=uac")]);
    net.run(300_000);
    let refresh = net.request("INVITE");
    assert_eq!(refresh.body().as_ref(), b"offer");
    assert_eq!(expires(&refresh.headers), "600;refresher=uac");
    net.reply(&refresh, 200, "p", &[("Session-Expires", "600;refresher=uas")], "moved");
    net.request("ACK");
    let body = sdp("moved").unwrap();
    assert_eq!(net.event(A), (leg, LegEvent::Refreshed { body }));
    net.run(566_000);
    assert!(net.events(A).is_empty(), "from now on it is the peer's turn");
    net.run(3_000);
    assert_eq!(net.event(A), (leg, LegEvent::Ended(EndedBy::Expired)));
}

#[test]
fn a_refused_refresh_is_tried_again_until_the_session_ends() {
    let mut net = Net::new();
    let headers = [("Session-Expires", "600;refresher=uac"), ("Allow", "INVITE, UPDATE")];
    let (leg, _) = answered_by_p(&mut net, &headers);
    net.run(300_000);
    for _ in 0..3 {
        let update = net.request("UPDATE");
        net.reply(&update, 500, "p", &[], "");
        net.run(10_000);
    }
    let update = net.request("UPDATE");
    net.reply(&update, 200, "p", &[("Session-Expires", "600;refresher=uac")], "");
    net.run(299_000);
    assert!(net.inbox.is_empty());
    net.run(2_000);
    let update = net.request("UPDATE");
    net.reply(&update, 481, "p", &[], "");
    assert_eq!(net.event(A), (leg, LegEvent::Ended(EndedBy::Timeout)));
}

#[test]
fn a_refresh_that_the_peer_never_takes_ends_the_session() {
    let mut net = Net::new();
    let headers = [("Session-Expires", "600;refresher=uac"), ("Allow", "INVITE, UPDATE")];
    let (leg, _) = answered_by_p(&mut net, &headers);
    net.run(300_000);
    while net.now.0 < 569_000 {
        let update = net.request("UPDATE");
        net.reply(&update, 500, "p", &[], "");
        net.run(10_000 - 3 * DELAY);
    }
    assert_eq!(net.event(A), (leg, LegEvent::Ended(EndedBy::Expired)));
    assert_eq!(header(&net.request("BYE"), &HeaderName::Reason), EXPIRED);
}

#[test]
fn a_peer_without_session_timers_is_asked_whether_it_is_still_there() {
    let mut net = Net::new();
    let (leg, _) = answered_by_p(&mut net, &[]);
    for code in [200, 405, 500] {
        net.run(300_000);
        let options = net.request("OPTIONS");
        net.reply(&options, code, "p", &[], "");
        assert!(net.events(A).is_empty(), "any answer is one");
    }
    net.run(300_000);
    let options = net.request("OPTIONS");
    net.reply(&options, 481, "p", &[], "");
    assert_eq!(net.event(A), (leg, LegEvent::Ended(EndedBy::Timeout)));
}

#[test]
fn an_update_before_the_answer_changes_nothing_of_what_the_invite_asked_for() {
    let mut net = Net::new();
    let lines = "Supported: timer\r\nSession-Expires: 300;refresher=uac\r\nContent-Type";
    net.inject(B, net.invite_from_p("p").replace("Content-Type", lines));
    let (leg, _) = net.event(B);
    assert!(net.act(B, |b, now| b.keep_session(leg, asks(1800), now)));
    net.act(B, |b, now| b.progress(leg, 180, None, now));
    let ringing = net.response_with(180);
    net.inject(B, net.within_from_p("UPDATE", "p", 2, &ringing));
    assert_eq!(expires(&net.response_with(200).headers), "");
    net.act(B, |b, now| b.answer(leg, sdp("answer"), now));
    assert_eq!(expires(&net.response_with(200).headers), "300;refresher=uac");
}
