//! New calls for which there is no room.

use sipx_sip::HeaderName;

use super::net::*;
use crate::sip::endpoint::Opening;
use crate::sip::event::LegEvent;

#[test]
fn a_call_without_room_is_refused_at_once_and_what_is_there_goes_on() {
    let mut net = Net::new();
    let (caller, callee) = net.connected();
    net.at(B).set_opening(Opening::Full);
    let refused = net.invite_from_p("late");
    net.inject(B, refused);
    let response = net.response();
    assert_eq!(response.status.code(), 503);
    assert!(response.headers.value(&HeaderName::RetryAfter).is_some());
    assert!(net.inbox.is_empty(), "no 100 before: {:?}", net.inbox);
    assert!(net.events(B).is_empty(), "nobody is asked");
    net.inject(B, request_from_p("OPTIONS", "sip:192.0.2.2", "probe", 1, ""));
    assert_eq!(net.response().status.code(), 200, "whoever asks if we are there is told");
    net.act(A, |a, now| a.reoffer(caller, sdp("hold"), now));
    net.run(DELAY);
    assert!(matches!(net.event(B), (leg, LegEvent::Reoffer { .. }) if leg == callee));
}

#[test]
fn the_copy_of_an_invite_of_a_call_that_is_there_is_not_refused_for_lack_of_room() {
    let mut net = Net::new();
    let invite = net.invite_from_p("one");
    net.inject(B, invite.clone());
    assert_eq!(net.response().status.code(), 100);
    net.at(B).set_opening(Opening::Full);
    net.inject(B, invite);
    assert_eq!(net.response().status.code(), 100);
}

#[test]
fn what_was_refused_for_lack_of_room_stays_refused_when_there_is_some_again() {
    let mut net = Net::new();
    net.at(B).set_opening(Opening::Full);
    let invite = net.invite_from_p("one");
    net.inject(B, invite.clone());
    let first = net.response();
    net.at(B).set_opening(Opening::Open);
    net.run(10_000);
    net.inject(B, invite);
    let copy = net.response();
    assert_eq!(copy.status.code(), 503);
    let to = |response: &sipx_sip::Response| response.headers.value(&HeaderName::To).map(|to| to.to_vec());
    assert_eq!(to(&copy), to(&first), "the same answer");
    assert!(net.events(B).is_empty(), "the caller has gone elsewhere");
    let other = net.invite_from_p("two");
    net.inject(B, other);
    assert!(matches!(net.event(B), (_, LegEvent::Incoming(_))));
}
