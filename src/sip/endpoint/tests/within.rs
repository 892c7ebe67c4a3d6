//! What happens inside an answered call: re-INVITE, UPDATE, REFER, INFO.

use sipx_sip::{HeaderName, Message, Response};

use super::net::*;
use crate::sip::event::{EndedBy, LegEvent, LegId, RequestId};

fn reoffer(event: (LegId, LegEvent)) -> (RequestId, Option<crate::sip::event::Body>) {
    match event.1 {
        LegEvent::Reoffer { request, body } => (request, body),
        other => panic!("{other:?}"),
    }
}

/// A call from P to B, answered and acknowledged.
pub fn call_from_p(net: &mut Net) -> (LegId, Response) {
    net.inject(B, net.invite_from_p("p"));
    let (callee, _) = net.event(B);
    net.act(B, |b, now| b.answer(callee, sdp("answer"), now));
    let answer = net.response_with(200);
    net.inject(B, net.ack_from_p("p", &answer));
    net.events(B);
    (callee, answer)
}

#[test]
fn either_side_changes_the_session() {
    for caller_changes in [true, false] {
        let mut net = Net::new();
        let (caller, callee) = net.connected();
        let ((us, our), (them, their)) =
            if caller_changes { ((A, caller), (B, callee)) } else { ((B, callee), (A, caller)) };
        net.act(us, |e, now| e.reoffer(our, sdp("new"), now));
        net.run(DELAY);
        let (request, body) = reoffer(net.event(them));
        assert_eq!(body, sdp("new"));
        net.act(them, |e, now| e.respond(their, request, 200, sdp("fine"), now));
        net.run(DELAY);
        assert_eq!(net.event(us), (our, LegEvent::ReofferAccepted { body: sdp("fine") }));
        net.run(DELAY);
        assert_eq!(net.event(them), (their, LegEvent::Acked { body: None }));
        net.act(us, |e, now| e.reoffer(our, sdp("newer"), now));
        net.run(DELAY);
        let (request, _) = reoffer(net.event(them));
        net.act(them, |e, now| e.respond(their, request, 488, None, now));
        net.run(DELAY);
        assert_eq!(net.event(us), (our, LegEvent::ReofferRefused { code: 488, retry_after: None }));
        net.run(40_000);
        assert_eq!((net.at(us).legs(), net.at(them).legs(), net.at(us).timers()), (1, 1, 0));
    }
}

#[test]
fn a_reinvite_without_an_offer_brings_one_and_the_ack_answers_it() {
    let mut net = Net::new();
    let (caller, callee) = net.connected();
    net.act(A, |a, now| a.reoffer(caller, None, now));
    net.run(DELAY);
    let (request, body) = reoffer(net.event(B));
    assert_eq!(body, None);
    net.act(B, |b, now| b.respond(callee, request, 200, sdp("offer"), now));
    net.run(700);
    assert_eq!(net.event(A), (caller, LegEvent::ReofferAccepted { body: sdp("offer") }));
    net.act(A, |a, now| a.reoffer(caller, sdp("too early"), now));
    assert_eq!(net.count("INVITE"), 2, "the next one waits for the ACK of this one");
    net.act(A, |a, now| a.ack(caller, sdp("answer"), now));
    net.run(DELAY);
    let events = net.events(B);
    assert_eq!(events[0], (callee, LegEvent::Acked { body: sdp("answer") }));
    assert!(matches!(events[1].1, LegEvent::Reoffer { .. }));
}

#[test]
fn reinvites_that_meet_are_both_carried_out_in_the_end() {
    let mut net = Net::new();
    let (caller, callee) = net.connected();
    net.act(A, |a, now| a.reoffer(caller, sdp("of a"), now));
    net.act(B, |b, now| b.reoffer(callee, sdp("of b"), now));
    net.run(2 * DELAY);
    assert_eq!(net.count("SIP/2.0 491"), 2);
    assert!(net.events(A).is_empty() && net.events(B).is_empty());
    net.run(2_050);
    let (request, body) = reoffer(net.event(A));
    assert_eq!(body, sdp("of b"), "the side that doesn't own the Call-ID comes first");
    net.act(A, |a, now| a.respond(caller, request, 200, sdp("yes"), now));
    net.run(2_000);
    let events = net.events(B);
    assert_eq!(events[0], (callee, LegEvent::ReofferAccepted { body: sdp("yes") }));
    let (request, body) = reoffer(events[1].clone());
    assert_eq!(body, sdp("of a"));
    net.act(B, |b, now| b.respond(callee, request, 200, sdp("yes"), now));
    net.run(DELAY);
    let accepted = (caller, LegEvent::ReofferAccepted { body: sdp("yes") });
    assert!(net.events(A).contains(&accepted));
}

#[test]
fn offers_wait_for_their_turn() {
    let mut net = Net::new();
    let (caller, callee) = net.connected();
    net.act(A, |a, now| a.reoffer(caller, sdp("first"), now));
    net.act(A, |a, now| a.reoffer(caller, sdp("second"), now));
    net.run(DELAY);
    let (request, body) = reoffer(net.event(B));
    assert_eq!(body, sdp("first"));
    net.act(B, |b, now| b.respond(callee, request, 200, sdp("one"), now));
    net.run(2 * DELAY);
    assert_eq!(net.event(A), (caller, LegEvent::ReofferAccepted { body: sdp("one") }));
    let events = net.events(B);
    assert!(matches!(events[0].1, LegEvent::Acked { .. }));
    let (request, body) = reoffer(events[1].clone());
    assert_eq!(body, sdp("second"));
    net.act(A, |a, now| a.reoffer(caller, sdp("third"), now));
    net.act(B, |b, now| b.respond(callee, request, 488, None, now));
    net.run(2 * DELAY);
    assert_eq!(net.event(A), (caller, LegEvent::ReofferRefused { code: 488, retry_after: None }));
    assert_eq!(reoffer(net.event(B)).1, sdp("third"));
}

#[test]
fn a_peer_that_knows_no_such_dialog_or_is_silent_ends_the_leg() {
    for silent in [false, true] {
        let mut net = Net::new();
        let (caller, callee) = net.connected();
        net.lose.push(Box::new(|message| message.starts_with("BYE")));
        net.act(B, |b, now| b.hang_up(callee, None, now));
        net.events(B);
        net.run(33_000);
        net.lose.pop();
        net.lose.push(Box::new(move |message| silent && message.contains("INVITE")));
        net.act(A, |a, now| a.reoffer(caller, sdp("anybody there?"), now));
        net.run(33_000);
        assert_eq!(net.event(A), (caller, LegEvent::Ended(EndedBy::Timeout)));
        net.run(40_000);
        net.assert_quiet();
    }
}

#[test]
fn hanging_up_while_a_reinvite_is_under_way_leaves_nothing() {
    for (us, them) in [(A, B), (B, A)] {
        let mut net = Net::new();
        let (caller, callee) = net.connected();
        net.act(A, |a, now| a.reoffer(caller, sdp("new"), now));
        net.run(DELAY);
        let leg = |side: &str| if side == A { caller } else { callee };
        net.events(B);
        net.act(us, |e, now| e.hang_up(leg(us), None, now));
        net.run(100);
        assert_eq!(net.event(us), (leg(us), LegEvent::Ended(EndedBy::Us)));
        let last = net.events(them).pop();
        assert_eq!(last, Some((leg(them), LegEvent::Ended(EndedBy::Bye(None)))));
        assert_eq!(net.count("SIP/2.0 487"), 1);
        net.run(40_000);
        net.assert_quiet();
    }
}

#[test]
fn a_refer_is_accepted_and_its_outcome_told() {
    let mut net = Net::new();
    let (callee, answer) = call_from_p(&mut net);
    for (cseq, event) in [(2, "refer"), (3, "refer;id=3")] {
        let extra = "Refer-To: <sip:+49301@gateway?X-Evil=1&Replaces=a%40p%3Bto-tag%3Db%3Bfrom-tag%3Dc>\r\nReferred-By: <sip:agent@p>\r\nContent-Length";
        let refer = net.within_from_p("REFER", "p", cseq, &answer).replace("Content-Length", extra);
        net.inject(B, refer);
        let (leg, LegEvent::Refer { request, target, referred_by }) = net.event(B) else { panic!("a REFER") };
        assert_eq!(leg, callee);
        assert_eq!(
            (target.user.as_str(), target.host.as_str(), target.scheme.as_str()),
            ("+49301", "gateway", "sip")
        );
        assert_eq!(target.uri, "sip:+49301@gateway");
        let replaces = target.replaces.as_ref().map(ToString::to_string);
        assert_eq!(replaces.as_deref(), Some("a@p;to-tag=b;from-tag=c"));
        assert_eq!(referred_by.as_deref(), Some("<sip:agent@p>"));
        net.act(B, |b, now| b.respond(callee, request, 202, None, now));
        net.response_with(202);
        net.act(B, |b, now| b.notify(callee, request, 100, "Trying", false, now));
        let notify = net.request("NOTIFY");
        assert_eq!(header(&notify, &HeaderName::Event), event);
        assert!(header(&notify, &HeaderName::SubscriptionState).starts_with("active"));
        assert_eq!(header(&notify, &HeaderName::ContentType), "message/sipfrag;version=2.0");
        assert_eq!(notify.body().as_ref(), b"SIP/2.0 100 Trying\r\n");
        net.reply_from(B, &notify, 200, "", &[], "");
        net.act(B, |b, now| b.notify(callee, request, 486, "Busy Here", true, now));
        let notify = net.request("NOTIFY");
        assert!(header(&notify, &HeaderName::SubscriptionState).starts_with("terminated"));
        net.reply_from(B, &notify, 200, "", &[], "");
        net.act(B, |b, now| b.notify(callee, request, 200, "OK", true, now));
        net.run(2 * DELAY);
        assert!(net.inbox.is_empty(), "the subscription is over");
    }
}

/// What a peer hears of its REFER after it refused the first NOTIFY about it with `code`.
fn heard_after_a_refusal(code: u16) -> Vec<String> {
    let mut net = Net::new();
    let (callee, answer) = call_from_p(&mut net);
    let extra = "Refer-To: <sip:sales@gateway>\r\nContent-Length";
    net.inject(B, net.within_from_p("REFER", "p", 2, &answer).replace("Content-Length", extra));
    let (_, LegEvent::Refer { request, .. }) = net.event(B) else { panic!("a REFER") };
    net.act(B, |b, now| b.respond(callee, request, 202, None, now));
    net.response_with(202);
    net.act(B, |b, now| b.notify(callee, request, 100, "Trying", false, now));
    let notify = net.request("NOTIFY");
    net.reply_from(B, &notify, code, "", &[], "");
    net.act(B, |b, now| b.notify(callee, request, 200, "OK", true, now));
    net.run(2 * DELAY);
    let told = net.inbox.iter().filter_map(Message::as_request);
    told.map(|request| String::from_utf8_lossy(request.body()).into_owned()).collect()
}

#[test]
fn a_notify_that_came_too_late_to_count_is_not_the_last_one() {
    for code in [500, 503, 491, 400] {
        assert_eq!(heard_after_a_refusal(code), ["SIP/2.0 200 OK\r\n"], "{code}");
    }
    for code in [481, 489, 408, 604] {
        assert!(heard_after_a_refusal(code).is_empty(), "{code}: nobody listens any more");
    }
}

#[test]
fn a_refer_without_exactly_one_target_is_refused() {
    for extra in [
        "",
        "Refer-To: <sip:a@b>\r\nRefer-To: <sip:c@d>\r\n",
        "Refer-To: <sip:a@b>, <sip:c@d>\r\n",
        "Refer-To: <http://a>\r\n",
        "Refer-To: <sip:a@b?Replaces=c%3Bto-tag%3Dd>\r\n",
        "Refer-To: <sip:a@b?Replaces=c%3Bto-tag%3Dd%0D%0AX-Evil:%201%3Bfrom-tag%3De>\r\n",
        "Refer-To: <sip:a@b?Replaces=c%3Bto-tag%3Dd%3Bfrom-tag%3De&Replaces=f%3Bto-tag%3Dg%3Bfrom-tag%3Dh>\r\n",
    ] {
        let mut net = Net::new();
        let (_, answer) = call_from_p(&mut net);
        let refer = net.within_from_p("REFER", "p", 2, &answer);
        net.inject(B, refer.replace("Content-Length", &format!("{extra}Content-Length")));
        net.response_with(400);
        assert!(net.events(B).is_empty());
    }
}

#[test]
fn a_refer_that_wants_no_subscription_gets_none() {
    let mut net = Net::new();
    let (callee, answer) = call_from_p(&mut net);
    let extra = "Refer-To: tel:+49-301\r\nRefer-Sub: false\r\nContent-Length";
    net.inject(B, net.within_from_p("REFER", "p", 2, &answer).replace("Content-Length", extra));
    let (_, LegEvent::Refer { request, target, .. }) = net.event(B) else { panic!("a REFER") };
    assert_eq!((target.scheme.as_str(), target.user.as_str()), ("tel", "+49-301"));
    net.act(B, |b, now| b.respond(callee, request, 202, None, now));
    assert_eq!(net.response_with(202).headers.value(&HeaderName::ReferSub).unwrap().as_ref(), b"false");
    net.act(B, |b, now| b.notify(callee, request, 200, "OK", true, now));
    net.run(100);
    assert!(net.inbox.is_empty());
}

#[test]
fn requests_are_passed_on_and_answered() {
    let mut net = Net::new();
    let (caller, callee) = net.connected();
    let sent = net.act(A, |a, now| a.request(caller, "INFO", sdp("Signal=5"), now));
    net.run(DELAY);
    let (_, LegEvent::Request { request, method, body }) = net.event(B) else { panic!("a request") };
    assert_eq!((method.as_str(), body), ("INFO", sdp("Signal=5")));
    net.act(B, |b, now| b.respond(callee, request, 200, None, now));
    net.run(DELAY);
    assert_eq!(net.event(A), (caller, LegEvent::Response { request: sent, code: 200 }));
}

#[test]
fn a_request_out_of_order_is_refused_with_500() {
    let mut net = Net::new();
    let (_, answer) = call_from_p(&mut net);
    net.inject(B, net.within_from_p("INFO", "p", 7, &answer));
    net.inject(B, net.within_from_p("INFO", "p", 6, &answer));
    net.response_with(500);
}

#[test]
fn what_needs_no_call_machine_is_answered_here() {
    let mut net = Net::new();
    let (_, answer) = call_from_p(&mut net);
    for (cseq, method, code) in [
        (2, "OPTIONS", 200),
        (3, "UPDATE", 200),
        (4, "PRACK", 481),
        (5, "SUBSCRIBE", 489),
        (6, "PUBLISH", 405),
        (7, "FLY", 501),
    ] {
        net.inject(B, net.within_from_p(method, "p", cseq, &answer));
        net.response_with(code);
    }
    for (method, code) in [
        ("OPTIONS", 200),
        ("BYE", 481),
        ("NOTIFY", 481),
        ("REGISTER", 405),
        ("REFER", 403),
        ("SUBSCRIBE", 489),
    ] {
        net.inject(B, request_from_p(method, "sip:192.0.2.2", method, 1, ""));
        net.response_with(code);
    }
    assert!(net.events(B).is_empty());
}

#[test]
fn an_update_with_an_offer_changes_the_session() {
    let mut net = Net::new();
    let (callee, answer) = call_from_p(&mut net);
    let with_offer = |text: String| {
        text.replace(
            "Content-Length: 0\r\n\r\n",
            "Content-Type: application/sdp\r\nContent-Length: 3\r\n\r\nnew",
        )
    };
    net.inject(B, with_offer(net.within_from_p("UPDATE", "p", 2, &answer)));
    let (request, body) = reoffer(net.event(B));
    assert_eq!(body, sdp("new"));
    net.inject(B, with_offer(net.within_from_p("UPDATE", "p", 3, &answer)));
    net.response_with(500);
    net.act(B, |b, now| b.reoffer(callee, sdp("ours"), now));
    assert_eq!(net.count("INVITE sip:p@"), 0, "ours waits for theirs");
    net.act(B, |b, now| b.respond(callee, request, 200, sdp("ok"), now));
    net.response_with(200);
    net.request("INVITE");
    net.inject(B, with_offer(net.within_from_p("UPDATE", "p", 4, &answer)));
    net.response_with(491);
}

#[test]
fn requests_go_where_the_peer_moved_to() {
    let mut net = Net::new();
    let (callee, answer) = call_from_p(&mut net);
    let moved =
        net.within_from_p("UPDATE", "p", 2, &answer).replace("Contact: <sip:p@", "Contact: <sip:moved@");
    net.inject(B, moved);
    net.response_with(200);
    net.act(B, |b, now| b.hang_up(callee, None, now));
    assert_eq!(net.request("BYE").uri.to_bytes(), format!("sip:moved@{P}").as_bytes());
}

#[test]
fn a_reinvite_for_somebody_else_that_meets_the_peers_is_refused_at_once() {
    let mut net = Net::new();
    let (caller, callee) = net.connected();
    net.act(A, |a, now| a.pass_on(caller, sdp("of a"), now));
    net.act(B, |b, now| b.reoffer(callee, sdp("of b"), now));
    net.run(2 * DELAY);
    assert_eq!(net.event(A), (caller, LegEvent::ReofferRefused { code: 491, retry_after: None }));
    net.run(2_050);
    assert_eq!(reoffer(net.event(A)).1, sdp("of b"), "it is not sent again and stands in nobody's way");
}

#[test]
fn info_of_a_package_is_refused_because_none_was_offered() {
    let mut net = Net::new();
    let (_, answer) = call_from_p(&mut net);
    let package = net.within_from_p("INFO", "p", 2, &answer);
    net.inject(B, package.replace("Content-Length", "Info-Package: dtmf\r\nContent-Length"));
    net.response_with(469);
    assert!(net.events(B).is_empty());
}
