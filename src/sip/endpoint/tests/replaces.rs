//! An INVITE with Replaces (RFC 3891): which dialog it means, and the code when it means none that it could have.

use sipx_sip::HeaderName;

use super::net::*;
use super::within::call_from_p;
use crate::sip::event::{EndedBy, LegEvent};
use crate::sip::read;

/// An INVITE of P's with this Replaces.
fn invite(net: &Net, name: &str, replaces: &str) -> String {
    net.invite_from_p(name).replace("Content-Length", &format!("{replaces}Content-Length"))
}

#[test]
fn an_invite_with_replaces_names_the_leg_by_our_own_tag() {
    let mut net = Net::new();
    let (callee, answer) = call_from_p(&mut net);
    let ours = String::from_utf8(read::tag(&answer.headers, &HeaderName::To).unwrap()).unwrap();
    let theirs = String::from_utf8(read::tag(&answer.headers, &HeaderName::From).unwrap()).unwrap();
    let call_id = read::text(&answer.headers, &HeaderName::CallId).unwrap();
    let good = format!("{call_id};to-tag={ours};from-tag={theirs}");
    for (number, (value, code)) in [
        (format!("{call_id};to-tag={theirs};from-tag={ours}"), 481),
        (format!("{call_id};to-tag={ours};from-tag=x"), 481),
        (format!("other;to-tag={ours};from-tag={theirs}"), 481),
        (format!("{good};early-only"), 486),
        (format!("{call_id};to-tag={ours}"), 400),
        (format!("{good}\r\nReplaces: {good}"), 400),
    ]
    .into_iter()
    .enumerate()
    {
        net.inject(B, invite(&net, &format!("r{number}"), &format!("Replaces: {value}\r\n")));
        net.response_with(code);
        assert!(net.events(B).is_empty(), "{value}");
    }
    net.inject(B, invite(&net, "good", &format!("Require: replaces\r\nReplaces: {good}\r\n")));
    let (new, LegEvent::Incoming(incoming)) = net.event(B) else { panic!("a call") };
    assert_eq!((incoming.replaces, new != callee), (Some(callee), true));
    net.act(B, |b, now| b.hang_up(callee, None, now));
    assert_eq!(net.event(B), (callee, LegEvent::Ended(EndedBy::Us)));
    net.inject(B, invite(&net, "late", &format!("Replaces: {good}\r\n")));
    net.response_with(603);
}

#[test]
fn a_call_of_somebody_else_that_is_not_answered_yet_is_not_replaced() {
    let mut net = Net::new();
    net.inject(B, net.invite_from_p("p"));
    let (leg, _) = net.event(B);
    net.act(B, |b, now| b.progress(leg, 180, None, now));
    let ringing = net.response_with(180);
    let tag = |name| String::from_utf8(read::tag(&ringing.headers, &name).unwrap()).unwrap();
    let call_id = read::text(&ringing.headers, &HeaderName::CallId).unwrap();
    let value = format!("{call_id};to-tag={};from-tag={}", tag(HeaderName::To), tag(HeaderName::From));
    net.inject(B, invite(&net, "r", &format!("Replaces: {value}\r\n")));
    net.response_with(481);
}

#[test]
fn a_call_of_ours_that_rings_is_replaced_by_whoever_knows_one_of_its_branches() {
    let mut net = Net::new();
    let ours = net.act(B, |b, now| b.invite(call_to(P), now));
    let sent = net.request("INVITE");
    let call_id = read::text(&sent.headers, &HeaderName::CallId).unwrap();
    let tag = String::from_utf8(read::tag(&sent.headers, &HeaderName::From).unwrap()).unwrap();
    let value = |branch: &str| format!("Replaces: {call_id};to-tag={tag};from-tag={branch}");
    net.inject(B, invite(&net, "early", &format!("{}\r\n", value("desk"))));
    net.response_with(481);
    for branch in ["desk", "mobile"] {
        net.reply_from(B, &sent, 180, branch, &[], "");
    }
    net.events(B);
    net.inject(B, invite(&net, "stranger", &format!("{}\r\n", value("attic"))));
    net.response_with(481);
    for (number, extra) in ["", ";early-only"].into_iter().enumerate() {
        net.inject(B, invite(&net, &format!("pickup{number}"), &format!("{}{extra}\r\n", value("mobile"))));
        let (_, LegEvent::Incoming(incoming)) = net.event(B) else { panic!("a call") };
        assert_eq!(incoming.replaces, Some(ours));
    }
    net.reply_from(B, &sent, 200, "desk", &[], "");
    net.events(B);
    net.inject(B, invite(&net, "late", &format!("{}\r\n", value("mobile"))));
    net.response_with(481);
}
