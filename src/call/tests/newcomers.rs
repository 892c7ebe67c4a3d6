//! Somebody comes in the caller's place (RFC 3891): a receptionist hands the assistant the one who wanted to speak with it.

use super::world::*;
use crate::call::{LegKey, Place, Record};
use crate::sip::event::*;

/// The leg that comes; the receptionist's once the newcomer is the caller.
const NEW: LegKey = LegKey::Dialled(1);

fn replaced(joined: bool) -> Record {
    Record::Replaced { place: Place::Caller, joined }
}

#[test]
fn a_newcomer_becomes_the_caller_once_the_assistant_has_moved_and_the_old_one_is_released() {
    let mut world = World::answered();
    assert!(world.call.trunk_of(CALLER).is_some());
    assert_eq!(world.replace(CALLER, sdp("newcomer")), NEW);
    assert_eq!((world.hears(AGENT), world.state(NEW)), ("newcomer".into(), State::Calling));
    assert_eq!(world.state(CALLER), State::Answered, "not before the agent has moved");
    world.on(AGENT, accepted("agent-moved"));
    assert_eq!((world.hears(CALLER), world.state(CALLER)), ("agent-moved".into(), State::Answered));
    assert_eq!(
        (world.state(NEW), world.leg(NEW).farewell),
        (State::HungUp, Some("SIP;cause=200;text=\"Replaced\""))
    );
    assert_eq!((world.records.last(), world.call.caller_number()), (Some(&replaced(true)), "+31612340000"));
    world.on(NEW, LegEvent::Ended(EndedBy::Us));
    world.on(CALLER, LegEvent::Acked { body: None });

    // It is the caller in everything.
    world.transfer("sales");
    let human = LegKey::Dialled(2);
    assert_eq!(
        (world.hears(human), world.leg(human).dial.clone().unwrap().from.user),
        ("newcomer".into(), "+31612340000".into())
    );
    world.on(human, LegEvent::Answered { body: sdp("human") });
    assert_eq!(world.hears(CALLER), "human");
    world.on(CALLER, accepted("newcomer"));
    world.on(CALLER, LegEvent::Ended(EndedBy::Bye(None)));
    assert_eq!(world.call.end_reason(), Some("caller-hung-up"));
    world.settle();
    assert!(world.call.is_gone() && world.timers.is_empty());
}

#[test]
fn a_newcomer_without_an_offer_hears_the_assistants() {
    let mut world = World::answered();
    world.replace(CALLER, None);
    assert_eq!(world.hears(AGENT), "nobody", "it is asked to offer");
    world.on(AGENT, accepted("agent-offers"));
    assert_eq!((world.hears(CALLER), world.state(CALLER)), ("agent-offers".into(), State::Answered));
    world.on(CALLER, LegEvent::Acked { body: sdp("newcomer") });
    assert_eq!(world.hears(AGENT), "newcomer");
}

#[test]
fn an_assistant_that_does_not_follow_keeps_its_caller() {
    let mut world = World::answered();
    world.replace(CALLER, sdp("newcomer"));
    world.on(AGENT, LegEvent::ReofferRefused { code: 488, retry_after: None });
    assert_eq!((world.state(NEW), world.state(CALLER)), (State::Over, State::Answered));
    assert_eq!((world.hears(AGENT), world.records.last()), ("caller".into(), Some(&replaced(false))));
    assert_eq!(world.call.caller_number(), "+31687654321");
}

#[test]
fn a_newcomer_who_gives_up_leaves_both_as_they_were() {
    let mut world = World::answered();
    world.replace(CALLER, sdp("newcomer"));
    world.on(NEW, LegEvent::Ended(EndedBy::Cancel));
    world.on(AGENT, accepted("agent"));
    assert_eq!(world.hears(AGENT), "caller", "it had moved already, and goes back");
    world.on(AGENT, accepted("agent"));
    assert_eq!((world.state(CALLER), world.hears(CALLER)), (State::Answered, "agent".into()));
}

#[test]
fn a_caller_who_hangs_up_while_its_place_is_taken_does_not_end_the_call() {
    let mut world = World::answered();
    world.replace(CALLER, sdp("newcomer"));
    world.on(CALLER, LegEvent::Ended(EndedBy::Bye(None)));
    assert_eq!((world.state(AGENT), world.call.end_reason()), (State::Answered, None));
    world.on(AGENT, accepted("agent"));
    assert_eq!((world.state(CALLER), world.hears(CALLER)), (State::Answered, "agent".into()));
    world.on(AGENT, LegEvent::Ended(EndedBy::Bye(None)));
    world.settle();
    assert!(world.call.is_gone());
}

#[test]
fn when_the_caller_has_left_and_its_place_is_not_taken_the_call_ends() {
    type Then = fn(&mut World);
    let ways: [Then; 3] = [
        |world| world.on(AGENT, LegEvent::ReofferRefused { code: 488, retry_after: None }),
        |world| world.on(NEW, LegEvent::Ended(EndedBy::Cancel)),
        |world| world.on(AGENT, LegEvent::Ended(EndedBy::Timeout)),
    ];
    for then in ways {
        let mut world = World::answered_with(table(true));
        world.replace(CALLER, sdp("newcomer"));
        world.on(CALLER, LegEvent::Ended(EndedBy::Bye(None)));
        then(&mut world);
        assert_eq!(world.call.end_reason(), Some("caller-hung-up"));
        world.settle();
        assert!(world.call.is_gone() && world.legs.len() == 3, "nobody else is dialled");
    }
}

#[test]
fn an_assistant_that_leaves_meanwhile_ends_the_call_for_both() {
    let mut world = World::answered();
    world.replace(CALLER, sdp("newcomer"));
    world.on(AGENT, LegEvent::Ended(EndedBy::Bye(None)));
    assert_eq!((world.state(NEW), world.state(CALLER)), (State::Over, State::HungUp));
    assert_eq!(world.call.end_reason(), Some("assistant-ended"));
}

#[test]
fn one_change_at_a_time() {
    let mut world = World::answered();
    let request = world.request_id();
    world.on(AGENT, LegEvent::Reoffer { request, body: sdp("agent-holds") });
    let new = world.replace(CALLER, sdp("newcomer"));
    assert_eq!(world.state(new), State::Over, "the caller is being changed");
    world.on(CALLER, accepted("caller"));
    world.replace(CALLER, sdp("newcomer"));
    assert_eq!(world.hears(AGENT), "newcomer");
    // And nobody is dialled for one who may be the caller no more.
    world.transfer("queue");
    assert!(world.replies.last().unwrap().is_err());
}
