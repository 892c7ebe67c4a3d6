//! How calls come about.

use sipx_sip::{HeaderName, Limits, Message, Method};

use super::net::*;
use crate::sip::endpoint::{Endpoint, Opening, Output};
use crate::sip::event::{EndedBy, Flow, LegEvent, OutgoingInvite, RefusedBy, Transport};
use crate::sip::front_door::{Verdict, admit};

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
    let counts = ["INVITE", "PRACK", "ACK", "SIP/2.0 200"].map(|start| net.count(start));
    assert_eq!(counts, [1, 1, 1, 2], "both PRACK and INVITE are answered with 200");
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
fn a_call_through_a_proxy_says_so_until_its_end() {
    let mut net = Net::new();
    let invite = OutgoingInvite { route: Some("<sip:192.0.2.99;lr>".into()), ..call_to(P) };
    let caller = net.act(A, |a, now| a.invite(invite, now));
    net.run(DELAY);
    let invite = net.request("INVITE");
    net.reply(&invite, 180, "p", &[], "");
    net.run(DELAY);
    net.act(A, |a, now| a.hang_up(caller, None, now));
    net.run(DELAY);
    for sent in [invite, net.request("CANCEL")] {
        assert_eq!(header(&sent, &HeaderName::Route), "<sip:192.0.2.99;lr>");
    }
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

#[test]
fn a_repeated_invite_makes_no_second_call() {
    let mut net = Net::new();
    net.lose_some("SIP/2.0", 3);
    net.act(A, |a, now| a.invite(call_to(B), now));
    net.run(5_000);
    let (callee, _) = net.event(B);
    assert_eq!(net.count("INVITE"), 4);
    net.act(B, |b, now| b.answer(callee, None, now));
    net.run(1_000);
    assert!(matches!(net.event(B), (_, LegEvent::Acked { .. })));
    assert_eq!(net.at(B).legs(), 1);
}

#[test]
fn an_invite_that_comes_late_is_no_new_call() {
    let mut net = Net::new();
    let invite = net.invite_from_p("late");
    net.inject(B, invite.clone());
    let (callee, _) = net.event(B);
    net.act(B, |b, now| b.answer(callee, None, now));
    let answer = net.response_with(200);
    net.inject(B, net.ack_from_p("late", &answer));
    net.act(B, |b, now| b.hang_up(callee, None, now));
    net.events(B);
    net.run(20_000);
    net.inject(B, invite);
    assert!(net.events(B).is_empty());
}

#[test]
fn the_same_invite_by_two_paths_is_refused_with_482() {
    let mut net = Net::new();
    let invite = net.invite_from_p("merged");
    net.inject(B, invite.clone());
    net.inject(B, invite.replace("branch=z9hG4bKmerged", "branch=z9hG4bKother"));
    assert!(matches!(net.event(B), (_, LegEvent::Incoming(_))));
    net.response_with(482);
    net.inject(
        B,
        invite.replace("branch=z9hG4bKmerged", "branch=z9hG4bKthird").replace("CSeq: 1 ", "CSeq: 2 "),
    );
    assert!(
        matches!(net.event(B), (_, LegEvent::Incoming(_))),
        "a new attempt with a higher CSeq is none of them"
    );
}

#[test]
fn a_lost_answer_or_ack_is_repeated() {
    for lost in ["SIP/2.0 200", "ACK sip"] {
        let mut net = Net::new();
        net.act(A, |a, now| a.invite(call_to(B), now));
        net.run(DELAY);
        let (callee, _) = net.event(B);
        net.lose_some(lost, 2);
        net.act(B, |b, now| b.answer(callee, sdp("answer"), now));
        net.run(3_000);
        assert!(matches!(net.event(A), (_, LegEvent::Answered { .. })));
        assert_eq!(net.event(B), (callee, LegEvent::Acked { body: None }));
    }
}

#[test]
fn draining_leaves_new_calls_to_others_but_not_what_is_there() {
    let mut net = Net::new();
    let (caller, callee) = net.connected();
    net.at(B).set_opening(Opening::Draining);
    let refused = net.act(A, |a, now| a.invite(call_to(B), now));
    net.run(DELAY);
    let (_, invite, from) = net.elsewhere.pop().unwrap();
    assert_eq!((invite.method.clone(), from), (Method::Invite, flow(A)));
    assert!(net.events(B).is_empty(), "nothing was begun");
    // Nobody else takes it.
    net.act(B, |b, _| b.turn_away(invite, from));
    net.run(DELAY);
    assert!(matches!(net.event(A), (leg, LegEvent::Refused { code: 503, .. }) if leg == refused));
    net.act(A, |a, now| a.reoffer(caller, sdp("hold"), now));
    net.run(DELAY);
    assert!(matches!(net.event(B), (leg, LegEvent::Reoffer { .. }) if leg == callee));
}

#[test]
fn a_call_that_a_draining_pod_passed_on_is_the_callers_and_not_that_pods() {
    let mut net = Net::new();
    net.at(B).set_opening(Opening::Draining);
    net.act(A, |a, now| a.invite(call_to(B), now));
    net.run(DELAY);
    let (_, invite, from) = net.elsewhere.pop().unwrap();
    let mut taker = Endpoint::new(config(P, 3));
    let now = net.now;
    taker.receive_from(from, Message::Request(invite), flow(B), now);
    let mut outputs = std::iter::from_fn(|| taker.poll()).collect::<Vec<_>>();
    let Some(Output::Leg(callee, LegEvent::Incoming(incoming))) = outputs.pop() else {
        panic!("{outputs:?}")
    };
    assert_eq!(incoming.flow, flow(A), "the caller is who called");
    taker.answer(callee, sdp("answer"), now);
    taker.hang_up(callee, None, now);
    let Some(Output::Transmit { flow: back, .. }) = taker.poll() else { panic!("no answer") };
    assert_eq!(back, flow(B), "the answer goes the way that the INVITE came");
}

#[test]
fn draining_leaves_the_cancel_of_a_call_that_was_passed_on_to_others() {
    let mut net = Net::new();
    net.at(B).set_opening(Opening::Draining);
    let text = format!(
        "CANCEL sip:+4930123@{B} SIP/2.0\r\nVia: SIP/2.0/UDP {P};branch=z9hG4bKp\r\nMax-Forwards: 70\r\n\
         From: <sip:p@{P}>;tag=p\r\nTo: <sip:+4930123@{B}>\r\nCall-ID: p\r\nCSeq: 1 CANCEL\r\n\r\n"
    );
    let Verdict::Message(cancel) = admit(text.into(), flow(P), &Limits::datagram()) else {
        panic!("it is valid")
    };
    net.act(B, |b, now| b.receive(*cancel, flow(P), now));
    assert_eq!(net.elsewhere.len(), 1);
    assert!(net.sent.is_empty(), "no 481: {:?}", net.sent);
}

#[test]
fn the_first_branch_that_answers_wins_and_the_others_are_ended() {
    let mut net = Net::new();
    let caller = net.act(A, |a, now| a.invite(call_to(P), now));
    let invite = net.request("INVITE");
    net.reply(&invite, 180, "one", &[], "");
    net.reply(&invite, 183, "two", &[], "early");
    net.reply(&invite, 200, "two", &[], "answer");
    let events = net.events(A);
    assert_eq!(events[0], (caller, LegEvent::Progress { code: 180, body: None }));
    assert_eq!(events[1], (caller, LegEvent::Progress { code: 183, body: sdp("early") }));
    assert_eq!(events[2], (caller, LegEvent::Answered { body: sdp("answer") }));
    let ack = net.request("ACK");
    assert!(header(&ack, &HeaderName::To).ends_with("tag=two"));
    for _ in 0..2 {
        net.reply(&invite, 200, "one", &[], "answer");
        let ack = net.request("ACK");
        assert!(header(&ack, &HeaderName::To).ends_with("tag=one"));
        assert_eq!(ack.uri.to_bytes(), format!("sip:p-one@{P}").as_bytes());
    }
    let bye = net.request("BYE");
    assert!(header(&bye, &HeaderName::To).ends_with("tag=one"));
    net.reply(&bye, 200, "", &[], "");
    assert!(net.inbox.is_empty(), "one BYE is enough: {:?}", net.inbox);
    assert!(net.events(A).is_empty());
    assert_eq!(net.at(A).legs(), 1);
    net.act(A, |a, now| a.hang_up(caller, None, now));
    let bye = net.request("BYE");
    assert!(header(&bye, &HeaderName::To).ends_with("tag=two"));
    net.reply(&bye, 200, "", &[], "");
    net.assert_quiet();
}

#[test]
fn an_answer_after_everything_was_forgotten_is_still_ended() {
    let mut net = Net::new();
    let caller = net.act(A, |a, now| a.invite(call_to(P), now));
    let invite = net.request("INVITE");
    net.reply(&invite, 180, "p", &[], "");
    net.act(A, |a, now| a.hang_up(caller, None, now));
    let cancel = net.request("CANCEL");
    net.reply(&cancel, 200, "p", &[], "");
    net.run(40_000);
    assert!(net.at(A).is_idle());
    net.reply(&invite, 200, "p", &[], "answer");
    net.request("ACK");
    let bye = net.request("BYE");
    assert_eq!(header(&bye, &HeaderName::CSeq), "2 BYE");
    net.reply(&bye, 200, "", &[], "");
    net.assert_quiet();
}

#[test]
fn an_answer_with_a_branch_that_is_not_ours_is_nothing() {
    let mut net = Net::new();
    net.act(A, |a, now| a.invite(call_to(P), now));
    let mut invite = net.request("INVITE");
    let via = header(&invite, &HeaderName::Via);
    let forged = via.replace("z9hG4bKvd00000001", "z9hG4bKvd00000009");
    invite.headers.remove_all(&HeaderName::Via);
    invite.headers.push_front(sipx_sip::Header::build(HeaderName::Via, forged).unwrap());
    net.reply(&invite, 200, "p", &[], "answer");
    assert!(net.events(A).is_empty() && net.inbox.is_empty());
}

#[test]
fn requests_follow_the_record_route_on_both_sides() {
    let mut net = Net::new();
    let caller = net.act(A, |a, now| a.invite(call_to(P), now));
    let invite = net.request("INVITE");
    let route = format!("<sip:far.example;lr>, <sip:{P};lr>");
    net.reply(&invite, 200, "p", &[("Record-Route", &route)], "answer");
    let routes = |request: &sipx_sip::Request| -> Vec<String> {
        let rows = request.headers.get_all(&HeaderName::Route);
        rows.map(|row| String::from_utf8(row.value().to_vec()).unwrap()).collect()
    };
    let expected = [format!("<sip:{P};lr>"), "<sip:far.example;lr>".to_owned()];
    assert_eq!(routes(&net.request("ACK")), expected);
    net.act(A, |a, now| a.hang_up(caller, None, now));
    let bye = net.request("BYE");
    assert_eq!(routes(&bye), expected);
    assert_eq!(bye.uri.to_bytes(), format!("sip:p-p@{P}").as_bytes());

    let recorded =
        format!("Record-Route: <sip:{P};lr>\r\nRecord-Route: <sip:far.example;lr>\r\nMax-Forwards");
    let invite = net.invite_from_p("routed").replace("Max-Forwards", &recorded);
    net.inject(B, invite);
    let (callee, _) = net.event(B);
    net.act(B, |b, now| b.answer(callee, None, now));
    let answer = net.response_with(200);
    assert_eq!(answer.headers.count(&HeaderName::RecordRoute), 2);
    net.inject(B, net.ack_from_p("routed", &answer));
    net.act(B, |b, now| b.hang_up(callee, None, now));
    assert_eq!(routes(&net.request("BYE")), expected);
}

#[test]
fn over_tcp_nothing_is_repeated_and_everything_stays_on_the_connection() {
    let mut net = Net::new();
    let mut invite = call_to(B);
    invite.flow = Flow { transport: Transport::Tcp, ..invite.flow };
    let caller = net.act(A, |a, now| a.invite(invite, now));
    net.run(20_000);
    let (callee, LegEvent::Incoming(call)) = net.event(B) else { panic!("a call") };
    assert_eq!(call.flow.transport, Transport::Tcp);
    net.act(B, |b, now| b.answer(callee, sdp("answer"), now));
    net.run(2 * DELAY);
    net.act(B, |b, now| b.hang_up(callee, None, now));
    net.run(2 * DELAY);
    assert_eq!(net.events(A).pop(), Some((caller, LegEvent::Ended(EndedBy::Bye(None)))));
    assert_eq!(net.sent.len(), 6, "{:?}", net.sent);
    assert!(net.targets.iter().all(|flow| flow.transport == Transport::Tcp));
    assert_eq!(net.at(A).server_transactions() + net.at(B).server_transactions(), 0, "Timer J is zero");
    net.assert_quiet();
}

#[test]
fn after_its_connection_was_lost_a_leg_is_reached_at_its_contact() {
    let mut net = Net::new();
    let ephemeral = Flow { transport: Transport::Tcp, peer: "192.0.2.3:49152".parse().unwrap() };
    let invite = net.invite_from_p("lost").replace("192.0.2.3:5060>", "192.0.2.3:5060;transport=tcp>");
    net.inject_on(B, ephemeral, invite);
    let (callee, _) = net.event(B);
    net.act(B, |b, now| b.answer(callee, None, now));
    let answer = net.response_with(200);
    net.inject_on(B, ephemeral, net.ack_from_p("lost", &answer));
    net.act(B, |b, now| b.transport_failed(ephemeral, now));
    net.run(DELAY);
    assert_eq!(net.at(B).legs(), 1, "a lost connection ends no call");
    net.act(B, |b, now| b.hang_up(callee, None, now));
    assert_eq!(net.targets.last(), Some(&Flow { transport: Transport::Tcp, peer: P.parse().unwrap() }));
}

#[test]
fn each_invite_has_a_call_id_and_a_tag_of_its_own() {
    let mut net = Net::new();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let leg = net.act(A, |a, now| a.invite(call_to(P), now));
        let invite = net.request("INVITE");
        let (call_id, from) = (header(&invite, &HeaderName::CallId), header(&invite, &HeaderName::From));
        assert!(seen.insert(call_id) && seen.insert(from.rsplit(";tag=").next().unwrap().to_owned()));
        net.act(A, |a, now| a.hang_up(leg, None, now));
    }
}

#[test]
fn ringing_after_the_answer_is_nothing() {
    let mut net = Net::new();
    net.inject(B, net.invite_from_p("p"));
    let (callee, _) = net.event(B);
    net.act(B, |b, now| {
        b.answer(callee, sdp("answer"), now);
        b.progress(callee, 180, None, now);
    });
    let answer = net.response_with(200);
    net.inject(B, net.ack_from_p("p", &answer));
    assert_eq!(net.event(B), (callee, LegEvent::Acked { body: None }));
    assert_eq!(net.count("SIP/2.0 180"), 0);
}
