//! REFER that we send, and the NOTIFYs that answer it.

use sipx_sip::{HeaderName, Request, Response};

use super::net::*;
use crate::sip::event::{Credentials, LegEvent, LegId, OutgoingRefer, RequestId};

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

/// B sends A, whose call it has answered, elsewhere.
fn away(credentials: Option<Credentials>) -> OutgoingRefer {
    let referred_by = "<sip:+31201234567@192.0.2.2>".to_owned();
    let headers = vec![("X-Reason".to_owned(), "sales".to_owned())];
    OutgoingRefer { target: "tel:+31612345678".into(), referred_by, headers, credentials }
}

#[test]
fn what_becomes_of_a_peer_that_was_sent_elsewhere_is_told_until_it_is_final() {
    let mut net = Net::new();
    let (caller, callee) = net.connected();
    let sent = net.act(B, |b, now| b.refer_away(callee, away(None), now));
    net.run(DELAY);
    let (_, LegEvent::Refer { request, target, referred_by }) = net.event(A) else { panic!("no REFER") };
    assert_eq!(target.uri, "tel:+31612345678");
    assert_eq!(referred_by.as_deref(), Some("<sip:+31201234567@192.0.2.2>"));
    net.act(A, |a, now| {
        a.respond(caller, request, 202, None, now);
        a.notify(caller, request, 100, "Trying", false, now);
        a.notify(caller, request, 180, "Ringing", false, now);
        a.notify(caller, request, 200, "OK", true, now);
    });
    net.run(DELAY);
    let told = |code, ended| LegEvent::Referred { request: sent, code: Some(code), ended };
    let events: Vec<_> = net.events(B).into_iter().map(|(_, event)| event).collect();
    let answered = LegEvent::Response { request: sent, code: 202 };
    assert_eq!(events, [answered, told(100, false), told(180, false), told(200, true)]);
    assert_eq!(net.count("SIP/2.0 200"), 1 + 3, "the INVITE's, and one for each NOTIFY");
}

#[test]
fn a_peer_is_sent_elsewhere_once_it_has_acknowledged_the_answer() {
    let mut net = Net::new();
    net.inject(A, net.invite_from_p("p"));
    let (leg, _) = net.event(A);
    net.act(A, |a, now| a.answer(leg, sdp("answer"), now));
    let answer = net.response_with(200);
    net.act(A, |a, now| a.refer_away(leg, away(None), now));
    net.run(DELAY);
    assert_eq!(net.count("REFER"), 0);
    net.inject(A, net.ack_from_p("p", &answer));
    net.request("REFER");
}

/// A call of P's that A has answered and then sends elsewhere; with the REFER.
fn referred_p(net: &mut Net, credentials: Option<Credentials>) -> (LegId, RequestId, Response, Request) {
    net.inject(A, net.invite_from_p("p"));
    let (leg, _) = net.event(A);
    net.act(A, |a, now| a.answer(leg, sdp("answer"), now));
    let answer = net.response_with(200);
    net.inject(A, net.ack_from_p("p", &answer));
    net.events(A);
    let sent = net.act(A, |a, now| a.refer_away(leg, away(credentials), now));
    let refer = net.request("REFER");
    (leg, sent, answer, refer)
}

fn notify(net: &mut Net, answer: &Response, cseq: u32, event: &str, state: &str, fragment: &str) -> u16 {
    let text = net.within_from_p("NOTIFY", "p", cseq, answer);
    let headers =
        format!("Event: {event}\r\nSubscription-State: {state}\r\nContent-Type: message/sipfrag\r\n");
    let body = format!("{headers}Content-Length: {}\r\n\r\n{fragment}", fragment.len());
    net.inject(A, text.replace("Content-Length: 0\r\n\r\n", &body));
    net.response().status.code()
}

#[test]
fn a_notify_may_come_before_the_answer_and_must_be_about_this_refer() {
    let mut net = Net::new();
    let (_, sent, answer, refer) = referred_p(&mut net, None);
    assert_eq!(
        crate::sip::read::passed_headers(&refer.headers),
        [("X-Reason".to_owned(), "sales".to_owned())]
    );
    let id: u32 = header(&refer, &HeaderName::CSeq).split(' ').next().unwrap().parse().unwrap();
    assert_eq!(notify(&mut net, &answer, 2, "refer", "active;expires=60", "SIP/2.0 100 Trying\r\n"), 200);
    assert_eq!(
        notify(&mut net, &answer, 3, &format!("refer;id={}", id + 7), "active", "SIP/2.0 200 OK"),
        481
    );
    assert_eq!(
        notify(&mut net, &answer, 4, &format!("refer;id={id}"), "terminated;reason=noresource", "oops"),
        200
    );
    assert_eq!(
        notify(&mut net, &answer, 5, "refer", "active", "SIP/2.0 200 OK"),
        481,
        "nobody waits any more"
    );
    let told = |code, ended| LegEvent::Referred { request: sent, code, ended };
    let events: Vec<_> = net.events(A).into_iter().map(|(_, event)| event).collect();
    assert_eq!(events, [told(Some(100), false), told(None, true)]);
}

#[test]
fn a_challenged_refer_is_authorised_once() {
    for password in ["right", "wrong"] {
        let mut net = Net::new();
        let realm = Some("trunk".to_owned());
        let credentials = Credentials { username: "vd".into(), password: password.into(), realm };
        let (_, sent, answer, refer) = referred_p(&mut net, Some(credentials));
        let challenge = [("WWW-Authenticate", "Digest realm=\"trunk\", nonce=\"n1\", qop=\"auth\"")];
        net.reply(&refer, 401, "", &challenge, "");
        let again = net.request("REFER");
        assert!(header(&again, &HeaderName::Authorization).contains("username=\"vd\""));
        if password == "wrong" {
            let challenge = [("WWW-Authenticate", "Digest realm=\"trunk\", nonce=\"n2\", qop=\"auth\"")];
            net.reply(&again, 401, "", &challenge, "");
            let refused = LegEvent::Response { request: sent, code: 401 };
            assert_eq!(net.events(A).into_iter().map(|(_, event)| event).collect::<Vec<_>>(), [refused]);
            assert_eq!(notify(&mut net, &answer, 2, "refer", "active", "SIP/2.0 200 OK"), 481);
            continue;
        }
        net.reply(&again, 202, "", &[], "");
        let id = header(&again, &HeaderName::CSeq).split(' ').next().unwrap().to_owned();
        assert_eq!(notify(&mut net, &answer, 2, &format!("refer;id={id}"), "active", "SIP/2.0 200 OK"), 200);
        let events: Vec<_> = net.events(A).into_iter().map(|(_, event)| event).collect();
        let told = LegEvent::Referred { request: sent, code: Some(200), ended: false };
        assert_eq!(events, [LegEvent::Response { request: sent, code: 202 }, told]);
    }
}

#[test]
fn a_peer_that_refers_without_a_subscription_is_never_heard_of_again() {
    let mut net = Net::new();
    let (_, sent, _, refer) = referred_p(&mut net, None);
    net.reply(&refer, 200, "", &[("Refer-Sub", "false")], "");
    let events: Vec<_> = net.events(A).into_iter().map(|(_, event)| event).collect();
    let told = LegEvent::Referred { request: sent, code: None, ended: true };
    assert_eq!(events, [LegEvent::Response { request: sent, code: 200 }, told]);
}

#[test]
fn a_refer_names_its_target_in_brackets_and_whose_transfer_it_is() {
    let mut net = Net::new();
    let (_, _, _, refer) = referred_p(&mut net, None);
    assert_eq!(header(&refer, &HeaderName::ReferTo), "<tel:+31612345678>");
    assert_eq!(header(&refer, &HeaderName::ReferredBy), "<sip:+31201234567@192.0.2.2>");
}
