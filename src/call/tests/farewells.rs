//! What is said before the end: heard to its end before anybody is hung up, and never in the end's way.

use super::world::*;
use crate::call::{CommandRefusal, LegKey, Record, Telling, Timer};
use crate::sip::event::*;

/// A call that ends as soon as the agent has said goodbye.
fn ending() -> World {
    let mut world = World::answered();
    world.end(Some("Goodbye."));
    world
}

fn end_reason(world: &World) -> Option<&'static str> {
    world.call.end_reason()
}

fn not_told(world: &World) -> Vec<&str> {
    let records = world.records.iter();
    records
        .filter_map(|record| match record {
            Record::NotTold(why) => Some(why.as_str()),
            _ => None,
        })
        .collect()
}

#[test]
fn a_call_ends_once_the_goodbye_was_heard_to_the_end() {
    let mut world = ending();
    assert_eq!(world.replies, [Ok(())]);
    assert_eq!(world.tells[0].what, Telling::Say { content: "Goodbye.".into(), end_after: true });
    assert_eq!((world.state(CALLER), world.state(AGENT)), (State::Answered, State::Answered));
    world.told(Ok(()));
    assert_eq!((world.state(CALLER), world.state(AGENT)), (State::HungUp, State::HungUp));
    assert_eq!(end_reason(&world), Some("ended-by-api"));
    world.settle();
    assert!(world.call.is_gone() && world.timers.is_empty());
}

#[test]
fn a_goodbye_that_can_not_be_said_or_takes_too_long_does_not_hold_up_the_end() {
    let mut world = ending();
    world.told(Err("the agent's hook answered 500"));
    assert_eq!(
        (end_reason(&world), not_told(&world)),
        (Some("ended-by-api"), vec!["the agent's hook answered 500"])
    );

    let mut world = ending();
    world.fire(Timer::Farewell);
    assert_eq!(end_reason(&world), Some("ended-by-api"));

    let mut world = World::answered_with(table_without_hook());
    world.end(Some("Goodbye."));
    assert_eq!((end_reason(&world), world.replies.last()), (Some("ended-by-api"), Some(&Ok(()))));
    assert_eq!(not_told(&world), ["the agent of Assistant acme/support has no hook; set agent.sip.hook"]);
}

#[test]
fn a_goodbye_to_a_caller_who_talks_with_a_human_is_not_said() {
    let mut world = World::moving();
    world.on(CALLER, accepted("caller"));
    world.end(Some("Goodbye."));
    assert_eq!(
        (end_reason(&world), not_told(&world)),
        (Some("ended-by-api"), vec!["the caller talks with a human"])
    );
}

#[test]
fn whoever_leaves_over_the_goodbye_ends_the_call() {
    for (leg, by, reason) in [
        (CALLER, EndedBy::Bye(None), "caller-hung-up"),
        (AGENT, EndedBy::Bye(None), "ended-by-api"),
        (AGENT, EndedBy::Timeout, "ended-by-api"),
    ] {
        let mut world = ending();
        world.on(leg, LegEvent::Ended(by));
        assert_eq!(end_reason(&world), Some(reason));
        world.told(Ok(()));
        world.settle();
        assert!(world.call.is_gone() && world.timers.is_empty(), "{leg:?}");
    }
}

#[test]
fn nothing_new_begins_over_the_goodbye() {
    let mut world = ending();
    world.transfer("sales");
    world.say("One thing more.", false);
    world.say("One thing more.", true);
    world.end(Some("Goodbye again."));
    assert_eq!(world.replies[1..], vec![Err(CommandRefusal::Ending); 4]);
    let refer = world.refer(AGENT, "sales");
    assert!(world.responses.contains(&(AGENT, refer, 603)));
    let ask = world.ask(AGENT, "sales");
    assert_eq!(world.concluded(), [(ask, CommandRefusal::Ending.to_string())]);
    assert_eq!((world.legs.len(), world.tells.len()), (2, 1));
    world.end(None);
    assert_eq!(end_reason(&world), Some("ended-by-api"), "without a message it ends at once");
}

#[test]
fn a_goodbye_gives_up_a_transfer_that_nobody_has_answered() {
    let mut world = World::ringing();
    world.end(Some("Goodbye."));
    assert_eq!((world.state(HUMAN), world.outcomes()), (State::HungUp, vec!["unknown"]));
    assert_eq!(world.notified(AGENT).last(), Some(&(500, true)));
    assert_eq!(world.state(CALLER), State::Answered);
    world.told(Ok(()));
    world.settle();
    assert!(world.call.is_gone() && world.timers.is_empty());

    let mut world = World::answered();
    world.transfer(ANNOUNCED);
    world.end(Some("Goodbye."));
    assert_eq!((world.says(), world.outcomes()), (vec![MESSAGE, "Goodbye."], vec!["unknown"]));
    world.input(crate::call::Input::Told(world.tells[0].id, Ok(())));
    assert_eq!(
        (world.legs.len(), end_reason(&world)),
        (2, None),
        "nobody is dialled after the message any more"
    );
    world.told(Ok(()));
    assert_eq!(end_reason(&world), Some("ended-by-api"));
}

#[test]
fn a_caller_who_is_being_moved_is_not_told_goodbye() {
    let mut world = World::moving();
    world.end(Some("Goodbye."));
    assert_eq!((end_reason(&world), world.tells.len()), (Some("ended-by-api"), 0));
    world.settle();
    assert!(world.call.is_gone());
}

#[test]
fn a_call_that_nobody_answered_ends_without_a_goodbye() {
    let mut world = World::with(table(false), sdp("caller"));
    world.end(Some("Goodbye."));
    assert_eq!((end_reason(&world), world.tells.len()), (Some("ended-by-api"), 0));
}

#[test]
fn words_after_which_the_call_ends_are_refused_where_nobody_can_say_them() {
    let mut world = World::answered();
    world.say("Goodbye.", true);
    world.told(Ok(()));
    assert_eq!(end_reason(&world), Some("ended-by-api"));

    let mut world = World::ringing();
    world.say("Goodbye.", true);
    assert_eq!(world.replies, [Err(CommandRefusal::TransferUnderWay)]);
    world.on(HUMAN, LegEvent::Answered { body: sdp("human") });
    world.on(CALLER, accepted("caller"));
    world.say("Goodbye.", true);
    assert!(matches!(world.replies.last(), Some(Err(CommandRefusal::Untold(_)))));
    assert_eq!((end_reason(&world), world.state(LegKey::Caller)), (None, State::Answered));
}
