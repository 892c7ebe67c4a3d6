//! Acknowledged provisional responses (RFC 3262) in both directions.

use sipx_sip::{HeaderName, Request, Response};

use super::net::*;
use crate::sip::event::{EndedBy, LegEvent, LegId, RefusedBy, Reliability};

/// A call from P to B that says this of acknowledged responses.
fn called_by_p(net: &mut Net, line: &str) -> LegId {
    let line = format!("{line}: 100rel\r\nContent-Type");
    net.inject(B, net.invite_from_p("p").replace("Content-Type", &line));
    let (leg, LegEvent::Incoming(call)) = net.event(B) else { panic!("a call") };
    let reliability = if line.starts_with("Require") { Reliability::Demanded } else { Reliability::Known };
    assert_eq!(call.reliability, reliability);
    net.response_with(100);
    leg
}

fn rseq(response: &Response) -> Option<u32> {
    let value = response.headers.value(&HeaderName::RSeq)?;
    assert_eq!(response.headers.value(&HeaderName::Require).unwrap().as_ref(), b"100rel");
    Some(std::str::from_utf8(&value).unwrap().parse().unwrap())
}

/// P acknowledges a provisional response; returns the code of the answer.
fn prack(net: &mut Net, response: &Response, cseq: u32, rseq: u32, offer: bool) -> u16 {
    let text = net.within_from_p("PRACK", "p", cseq, response);
    let rack = format!("RAck: {rseq} 1 INVITE\r\n");
    let text = if offer {
        let body = format!("{rack}Content-Type: application/sdp\r\nContent-Length: 3\r\n\r\nnew");
        text.replace("Content-Length: 0\r\n\r\n", &body)
    } else {
        text.replace("Content-Length", &format!("{rack}Content-Length"))
    };
    net.inject(B, text);
    loop {
        let answer = net.response();
        if answer.headers.value(&HeaderName::CSeq).unwrap().ends_with(b"PRACK") {
            return answer.status.code();
        }
    }
}

#[test]
fn an_early_answer_is_repeated_until_it_is_acknowledged_and_the_call_is_answered_then() {
    let mut net = Net::new();
    let leg = called_by_p(&mut net, "Supported");
    net.act(B, |b, now| b.progress(leg, 183, sdp("early"), now));
    let early = net.response_with(183);
    net.run(1_600);
    assert_eq!(net.count("SIP/2.0 183"), 3, "after 0.5 s and 1.5 s");
    net.act(B, |b, now| b.answer(leg, sdp("early"), now));
    net.run(500);
    assert_eq!(net.count("SIP/2.0 200"), 0);
    let number = rseq(&early).unwrap();
    assert_eq!(prack(&mut net, &early, 2, number, false), 200);
    let answer = net.response_with(200);
    net.inject(B, net.ack_from_p("p", &answer));
    assert_eq!(net.event(B), (leg, LegEvent::Acked { body: None }));
    net.run(10_000);
    assert_eq!(net.count("SIP/2.0 183"), 3);
    net.act(B, |b, now| b.hang_up(leg, None, now));
    let bye = net.request("BYE");
    net.reply_from(B, &bye, 200, "", &[], "");
    net.assert_quiet();
}

#[test]
fn a_peer_that_does_not_demand_it_hears_ringing_as_ever() {
    let mut net = Net::new();
    let leg = called_by_p(&mut net, "Supported");
    net.act(B, |b, now| b.progress(leg, 180, None, now));
    assert_eq!(rseq(&net.response_with(180)), None);
    net.act(B, |b, now| b.answer(leg, sdp("answer"), now));
    net.response_with(200);
}

#[test]
fn a_peer_that_demands_it_gets_one_at_a_time_with_growing_numbers() {
    let mut net = Net::new();
    let leg = called_by_p(&mut net, "Require");
    for code in [180, 181, 183] {
        net.act(B, |b, now| b.progress(leg, code, None, now));
    }
    let ringing = net.response_with(180);
    assert_eq!(net.count("SIP/2.0 181"), 0);
    let first = rseq(&ringing).unwrap();
    assert_eq!(prack(&mut net, &ringing, 2, first, false), 200);
    assert_eq!(rseq(&net.response_with(181)), Some(first + 1));
    assert_eq!(prack(&mut net, &ringing, 3, first, false), 481, "that one is acknowledged already");
    assert_eq!(prack(&mut net, &ringing, 4, first + 1, false), 200);
    assert_eq!(rseq(&net.response_with(183)), Some(first + 2));
    net.act(B, |b, now| b.answer(leg, sdp("answer"), now));
    let answer = net.response_with(200);
    let before = net.count("SIP/2.0 183");
    net.run(5_000);
    assert_eq!(net.count("SIP/2.0 183"), before, "an answer doesn't wait for what describes nothing");
    assert_eq!(prack(&mut net, &ringing, 5, first + 2, false), 200, "which may be acknowledged late");
    net.inject(B, net.ack_from_p("p", &answer));
    assert_eq!(net.event(B), (leg, LegEvent::Acked { body: None }));
}

#[test]
fn a_response_that_is_never_acknowledged_ends_the_call() {
    let mut net = Net::new();
    let leg = called_by_p(&mut net, "Supported");
    net.act(B, |b, now| b.progress(leg, 183, sdp("early"), now));
    net.act(B, |b, now| b.answer(leg, sdp("early"), now));
    net.run(32_100);
    assert_eq!(net.event(B), (leg, LegEvent::Ended(EndedBy::Timeout)));
    net.response_with(504);
    assert_eq!(net.count("SIP/2.0 200"), 0);
    net.run(33_000);
    net.assert_quiet();
}

#[test]
fn a_caller_who_cancels_acknowledges_nothing_any_more() {
    let mut net = Net::new();
    let leg = called_by_p(&mut net, "Require");
    net.act(B, |b, now| b.progress(leg, 183, sdp("early"), now));
    net.inject(B, request_from_p("CANCEL", "sip:+4930123@192.0.2.2", "p", 1, ""));
    assert_eq!(net.event(B), (leg, LegEvent::Ended(EndedBy::Cancel)));
    net.response_with(487);
    let before = net.count("SIP/2.0 183");
    net.run(33_000);
    assert_eq!(net.count("SIP/2.0 183"), before);
    net.assert_quiet();
}

#[test]
fn a_new_offer_before_the_answer_is_refused_and_the_call_goes_on() {
    let mut net = Net::new();
    let leg = called_by_p(&mut net, "Supported");
    net.act(B, |b, now| b.progress(leg, 183, sdp("early"), now));
    let early = net.response_with(183);
    let number = rseq(&early).unwrap();
    assert_eq!(prack(&mut net, &early, 2, number, true), 488);
    let update = net.within_from_p("UPDATE", "p", 3, &early).replace(
        "Content-Length: 0\r\n\r\n",
        "Content-Type: application/sdp\r\nContent-Length: 3\r\n\r\nnew",
    );
    net.inject(B, update);
    assert!(net.response_with(500).headers.value(&HeaderName::RetryAfter).is_some());
    net.act(B, |b, now| b.answer(leg, sdp("early"), now));
    net.response_with(200);
    assert!(net.events(B).is_empty());
}

/// A's INVITE to P.
fn calling_p(net: &mut Net) -> (LegId, Request) {
    let leg = net.act(A, |a, now| a.invite(call_to(P), now));
    let invite = net.request("INVITE");
    assert_eq!(header(&invite, &HeaderName::Supported), "100rel, norefersub, replaces, timer");
    (leg, invite)
}

fn reliably(rseq: &str) -> [(&str, &str); 2] {
    [("Require", "100rel"), ("RSeq", rseq)]
}

#[test]
fn a_peers_responses_are_acknowledged_on_every_branch_and_its_early_answer_counts() {
    let mut net = Net::new();
    let (leg, invite) = calling_p(&mut net);
    for (tag, first, second) in [("one", "7", "8"), ("two", "1000", "1001")] {
        for (code, number, body) in [(183, first, "early"), (180, second, "")] {
            net.reply(&invite, code, tag, &reliably(number), body);
            let prack = net.request("PRACK");
            assert_eq!(prack.uri.to_bytes(), format!("sip:p-{tag}@{P}").as_bytes());
            assert!(header(&prack, &HeaderName::To).ends_with(&format!(";tag={tag}")));
            assert_eq!(header(&prack, &HeaderName::RAck), format!("{number} 1 INVITE"));
            net.reply(&prack, 200, "", &[], "");
            assert!(matches!(net.event(A).1, LegEvent::Progress { code: heard, .. } if heard == code));
        }
    }
    net.reply(&invite, 200, "two", &[], "");
    assert_eq!(net.event(A), (leg, LegEvent::Answered { body: sdp("early") }));
    let ack = net.request("ACK");
    assert_eq!(header(&ack, &HeaderName::CSeq), "1 ACK");
}

#[test]
fn copies_and_responses_out_of_order_count_for_nothing() {
    let mut net = Net::new();
    let (_, invite) = calling_p(&mut net);
    net.reply(&invite, 183, "p", &reliably("7"), "early");
    let prack = net.request("PRACK");
    net.event(A);
    for number in ["7", "9", "6", "4294967295"] {
        net.reply(&invite, 180, "p", &reliably(number), "");
    }
    assert!(net.events(A).is_empty());
    net.run(400);
    assert!(net.inbox.is_empty(), "not acknowledged again: PRACK repeats itself");
    net.run(200);
    assert_eq!(net.request("PRACK").headers.value(&HeaderName::CSeq), prack.headers.value(&HeaderName::CSeq));
    net.reply(&prack, 200, "", &[], "");
    net.reply(&invite, 180, "p", &reliably("8"), "");
    assert!(matches!(net.event(A).1, LegEvent::Progress { code: 180, .. }));
}

#[test]
fn an_invite_without_an_offer_says_nothing_of_it() {
    let mut net = Net::new();
    let offerless = crate::sip::event::OutgoingInvite { offer: None, ..call_to(P) };
    net.act(A, |a, now| a.invite(offerless, now));
    assert_eq!(header(&net.request("INVITE"), &HeaderName::Supported), "norefersub, replaces, timer");
}

#[test]
fn a_peer_that_has_not_answered_may_say_where_it_is_but_change_nothing() {
    let mut net = Net::new();
    let (leg, invite) = calling_p(&mut net);
    net.reply(&invite, 183, "p", &reliably("1"), "early");
    net.request("PRACK");
    net.event(A);
    let own = header(&invite, &HeaderName::From);
    let within = |method: &str, cseq: u32| {
        let call_id = header(&invite, &HeaderName::CallId);
        format!(
            "{method} sip:a@{A} SIP/2.0\r\nVia: SIP/2.0/UDP {P};branch=z9hG4bKearly{cseq};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:p@p>;tag=p\r\nTo: {own}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:moved@{P}>\r\nContent-Length: 0\r\n\r\n"
        )
    };
    net.inject(A, within("UPDATE", 1));
    net.response_with(200);
    net.inject(A, within("INFO", 2));
    net.response_with(500);
    net.inject(A, within("INFO", 3).replace("tag=p", "tag=stranger"));
    net.response_with(481);
    net.act(A, |a, now| a.hang_up(leg, None, now));
    let cancelled =
        LegEvent::Refused { code: 487, reason: "Request Terminated".into(), by: RefusedBy::Cancelled };
    assert_eq!(net.event(A), (leg, cancelled));
    assert_eq!(header(&net.request("CANCEL"), &HeaderName::CSeq), "1 CANCEL");
}

#[test]
fn what_is_lost_on_the_way_is_made_up_for() {
    for lost in ["SIP/2.0 183", "PRACK", "CSeq: 2 PRACK"] {
        let mut net = Net::new();
        let caller = net.act(A, |a, now| a.invite(call_to(B), now));
        net.run(DELAY);
        let (callee, _) = net.event(B);
        net.lose_some(lost, 2);
        net.act(B, |b, now| b.progress(callee, 183, sdp("early"), now));
        net.act(B, |b, now| b.answer(callee, sdp("early"), now));
        net.run(4_000);
        let events = net.events(A);
        let progress = LegEvent::Progress { code: 183, body: sdp("early") };
        assert_eq!(events[0], (caller, progress), "{lost}");
        assert_eq!(events[1], (caller, LegEvent::Answered { body: sdp("early") }), "{lost}");
        assert_eq!(net.event(B), (callee, LegEvent::Acked { body: None }), "{lost}");
        net.act(A, |a, now| a.hang_up(caller, None, now));
        net.run(40_000);
        net.events(A);
        net.assert_quiet();
    }
}
