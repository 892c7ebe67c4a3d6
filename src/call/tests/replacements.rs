//! Another phone comes in the place of the human that the caller talks with, or that it waits for (RFC 3891).

use super::world::*;
use crate::call::{LegKey, Record, Timer};
use crate::sip::event::*;

const COLLEAGUE: LegKey = LegKey::Dialled(2);

/// A call that was transferred to a human.
fn with_human() -> World {
    let mut world = World::answered();
    world.transfer("sales");
    world.on(HUMAN, LegEvent::Answered { body: sdp("human") });
    world.on(CALLER, accepted("caller"));
    world.on(AGENT, LegEvent::Ended(EndedBy::Us));
    world
}

#[test]
fn a_colleague_takes_the_humans_place_and_the_human_is_released_after_that() {
    let mut world = with_human();
    assert_eq!(world.call.trunk_of(HUMAN).map(ToString::to_string).as_deref(), Some("acme/carrier"));
    assert_eq!(world.replace(HUMAN, sdp("colleague")), COLLEAGUE);
    assert_eq!((world.hears(CALLER), world.state(COLLEAGUE)), ("colleague".into(), State::Calling));
    assert_eq!(world.state(HUMAN), State::Answered, "not before the caller has moved");
    world.on(CALLER, accepted("caller-moved"));
    assert_eq!((world.hears(COLLEAGUE), world.state(COLLEAGUE)), ("caller-moved".into(), State::Answered));
    assert_eq!(world.state(HUMAN), State::HungUp);
    world.on(HUMAN, LegEvent::Ended(EndedBy::Us));
    world.on(COLLEAGUE, LegEvent::Acked { body: None });

    // And once more: the place is the colleague's now.
    assert!(world.call.trunk_of(HUMAN).is_none() && world.call.trunk_of(COLLEAGUE).is_some());
    world.on(COLLEAGUE, LegEvent::Ended(EndedBy::Bye(None)));
    assert_eq!((world.state(CALLER), world.call.end_reason()), (State::HungUp, Some("human-hung-up")));
    world.settle();
    assert!(world.call.is_gone() && world.timers.is_empty());
}

#[test]
fn a_caller_whose_phone_does_not_follow_keeps_the_human() {
    let mut world = with_human();
    world.replace(HUMAN, sdp("colleague"));
    world.on(CALLER, LegEvent::ReofferRefused { code: 488, retry_after: None });
    assert_eq!((world.state(COLLEAGUE), world.state(HUMAN)), (State::HungUp, State::Answered));
    assert_eq!((world.hears(CALLER), world.outcomes()), ("human".into(), vec!["answered"]));
}

#[test]
fn a_human_who_leaves_while_its_colleague_comes_does_not_end_the_call() {
    let mut world = with_human();
    world.replace(HUMAN, sdp("colleague"));
    world.on(HUMAN, LegEvent::Ended(EndedBy::Bye(None)));
    assert_eq!(world.state(CALLER), State::Answered);
    world.on(CALLER, accepted("caller"));
    assert_eq!((world.hears(COLLEAGUE), world.state(COLLEAGUE)), ("caller".into(), State::Answered));
}

#[test]
fn a_colleague_who_gives_up_leaves_the_caller_with_the_human() {
    let mut world = with_human();
    world.replace(HUMAN, sdp("colleague"));
    world.on(COLLEAGUE, LegEvent::Ended(EndedBy::Cancel));
    world.on(CALLER, accepted("caller"));
    assert_eq!(world.hears(CALLER), "human", "it had moved already, and goes back");
    world.on(CALLER, accepted("caller"));
    assert!(!world.timers.contains_key(&Timer::HandOver));
    assert_eq!((world.state(CALLER), world.state(HUMAN)), (State::Answered, State::Answered));
}

#[test]
fn a_caller_who_hangs_up_meanwhile_takes_both_along() {
    let mut world = with_human();
    world.replace(HUMAN, sdp("colleague"));
    world.on(CALLER, LegEvent::Ended(EndedBy::Bye(None)));
    assert_eq!((world.state(HUMAN), world.state(COLLEAGUE)), (State::HungUp, State::HungUp));
    world.settle();
    assert!(world.call.is_gone() && world.timers.is_empty());
}

#[test]
fn a_change_that_is_under_way_comes_first() {
    let mut world = with_human();
    let request = world.request_id();
    world.on(CALLER, LegEvent::Reoffer { request, body: sdp("caller-holds") });
    world.replace(HUMAN, sdp("colleague"));
    assert_eq!(world.hears(CALLER), "human", "the caller is asked one thing at a time");
    world.on(HUMAN, accepted("human"));
    assert_eq!(world.hears(CALLER), "colleague");
    world.on(CALLER, accepted("caller-holds"));
    assert_eq!(world.hears(COLLEAGUE), "caller-holds");
}

#[test]
fn a_colleague_who_makes_no_offer_is_given_the_callers() {
    let mut world = with_human();
    world.replace(HUMAN, None);
    assert_eq!((world.hears(COLLEAGUE), world.hears(CALLER)), ("caller".into(), "human".into()));
    world.on(COLLEAGUE, LegEvent::Acked { body: sdp("colleague") });
    assert_eq!((world.hears(CALLER), world.state(HUMAN)), ("colleague".into(), State::Answered));
    world.on(CALLER, accepted("caller-moved"));
    assert_eq!(world.hears(COLLEAGUE), "caller-moved");
    world.on(COLLEAGUE, accepted("colleague"));
    assert_eq!((world.state(COLLEAGUE), world.state(HUMAN)), (State::Answered, State::HungUp));
}

#[test]
fn a_colleague_who_never_acknowledges_or_says_nothing_of_itself_leaves_the_caller_with_the_human() {
    for event in [LegEvent::Ended(EndedBy::Timeout), LegEvent::Acked { body: None }] {
        let mut world = with_human();
        world.replace(HUMAN, None);
        world.on(COLLEAGUE, event);
        assert_eq!((world.hears(CALLER), world.state(HUMAN)), ("human".into(), State::Answered));
        assert!(matches!(world.state(COLLEAGUE), State::Over | State::HungUp));
    }
}

#[test]
fn another_phone_picks_up_a_call_that_rings_at_a_human() {
    for offer in [sdp("colleague"), None] {
        let mut world = World::ringing();
        assert_eq!(world.call.trunk_of(HUMAN).map(ToString::to_string).as_deref(), Some("acme/carrier"));
        let offered = offer.is_some();
        assert_eq!(world.replace(HUMAN, offer), COLLEAGUE);
        assert_eq!(world.state(HUMAN), State::HungUp);
        assert_eq!(world.leg(HUMAN).farewell, Some("SIP;cause=200;text=\"Call completed elsewhere\""));
        assert!(!world.timers.contains_key(&Timer::Ring));
        world.on(HUMAN, refused(487));
        if !offered {
            world.on(COLLEAGUE, LegEvent::Acked { body: sdp("colleague") });
        }
        assert_eq!((world.hears(CALLER), world.state(AGENT)), ("colleague".into(), State::Answered));
        world.on(CALLER, accepted("caller"));
        assert_eq!((world.hears(COLLEAGUE), world.outcomes()), ("caller".into(), vec!["answered"]));
        assert_eq!(world.notified(AGENT).last(), Some(&(200, true)));
        assert!(world.records.contains(&Record::PickedUp));
    }
}

#[test]
fn whoever_picks_a_call_up_and_gives_up_leaves_the_caller_with_the_assistant() {
    let mut world = World::ringing();
    world.replace(HUMAN, sdp("colleague"));
    world.on(COLLEAGUE, LegEvent::Ended(EndedBy::Cancel));
    world.on(CALLER, LegEvent::ReofferRefused { code: 488, retry_after: None });
    assert_eq!((world.hears(CALLER), world.outcomes()), ("agent".into(), vec!["rejected"]));
    assert_eq!((world.state(HUMAN), world.state(AGENT)), (State::HungUp, State::Answered));
}

#[test]
fn a_caller_whom_nobody_has_answered_is_picked_up_by_one_who_takes_its_offer() {
    let mut world = World::with(table(true), sdp("caller"));
    world.on(AGENT, refused(503));
    world.on(LegKey::Dialled(1), refused(503));
    let rings = *world.legs.keys().next_back().unwrap();
    world.on(rings, LegEvent::Progress { code: 180, body: None });
    let new = world.replace(rings, sdp("colleague"));
    assert_eq!(
        (world.state(new), world.state(rings)),
        (State::Over, State::Ringing),
        "two offers, no answer"
    );
    let new = world.replace(rings, None);
    assert_eq!((world.hears(new), world.state(CALLER)), ("caller".into(), State::Calling));
    world.on(new, LegEvent::Acked { body: sdp("colleague") });
    assert_eq!((world.hears(CALLER), world.state(CALLER)), ("colleague".into(), State::Answered));
}

#[test]
fn only_a_place_that_somebody_has_is_taken_and_nothing_else_may_be_under_way() {
    let mut world = with_human();
    let new = world.replace(AGENT, sdp("new"));
    assert_eq!(world.state(new), State::Over, "it is with the caller no more");
    world.transfer("strict");
    for place in [HUMAN, CALLER] {
        let new = world.replace(place, sdp("new"));
        assert_eq!((world.state(new), world.hears(CALLER)), (State::Over, "human".into()), "{place:?}");
    }
}
