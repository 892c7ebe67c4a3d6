//! What passes between a call and its agent beside SIP: what it is told, what it asks for, and its failure.

use std::time::Duration;

use super::world::*;
use crate::call::{AskId, Command, CommandRefusal, Input, LegKey, Record, Tell, Telling, Untold, Wish};
use crate::sip::event::*;

fn end_reason(world: &World) -> Option<&'static str> {
    world.call.end_reason()
}

#[test]
fn an_agent_is_told_what_to_say_and_what_to_know() {
    let mut world = World::answered();
    world.say("Are you still there?", false);
    let content = "The order has left.".to_owned();
    world.input(Input::Command(Command::Inject { content: content.clone(), trigger_response: true }));
    assert_eq!(world.replies, [Ok(()), Ok(())]);
    let what: Vec<_> = world.tells.iter().map(|tell| (tell.leg, tell.what.clone())).collect();
    assert_eq!(
        what,
        [
            (AGENT, Telling::Say { content: "Are you still there?".into(), end_after: false }),
            (AGENT, Telling::Context { content, trigger_response: true }),
        ]
    );
    world.told(Ok(()));
    world.told(Err("the agent's hook answered 500"));
    assert_eq!((end_reason(&world), world.state(AGENT)), (None, State::Answered));
}

#[test]
fn each_thing_has_the_time_that_it_and_all_before_it_may_take() {
    let mut world = World::answered();
    let seconds = |world: &World| world.tells.last().unwrap().within.as_secs();
    world.say(&"a".repeat(100), false);
    assert_eq!(seconds(&world), 10 + 10);
    world.now = world.now + Duration::from_secs(5);
    world.say(&"a".repeat(200), false);
    assert_eq!(seconds(&world), 15 + 10 + 20);
    for tell in world.tells.clone() {
        world.input(Input::Told(tell.id, Ok(())));
    }
    world.say("a", false);
    assert_eq!(seconds(&world), 10 + 1, "what is done takes no time any more");
}

#[test]
fn an_agent_is_told_only_so_much_at_a_time() {
    let mut world = World::answered();
    for _ in 0..9 {
        world.say("Hello.", false);
    }
    assert_eq!((world.tells.len(), world.replies.last()), (8, Some(&Err(Untold::Busy(8).into()))));
    world.told(Err("it was interrupted"));
    world.say("Hello.", false);
    assert_eq!((world.tells.len(), world.replies.last()), (9, Some(&Ok(()))));
}

#[test]
fn nobody_is_told_anything_who_is_not_there_or_can_not_be_told() {
    let mut world = World::with(table(false), sdp("caller"));
    world.say("Hello.", false);
    assert_eq!(world.replies, [Err(CommandRefusal::NotActive)]);

    let mut world = World::answered_with(table_without_hook());
    world.say("Hello.", false);
    assert!(matches!(world.replies[..], [Err(CommandRefusal::Untold(Untold::NoHook(_)))]));

    let mut world = World::ringing();
    world.say("Somebody will answer soon.", false);
    assert_eq!(world.replies, [Ok(())], "a caller who waits for a human still hears the assistant");
    world.on(AGENT, LegEvent::Ended(EndedBy::Bye(None)));
    world.say("Hello.", false);
    assert_eq!(world.replies.last(), Some(&Err(Untold::Gone.into())));
    world.on(HUMAN, LegEvent::Answered { body: sdp("human") });
    world.on(CALLER, accepted("caller"));
    world.say("Hello.", false);
    assert_eq!(world.replies.last(), Some(&Err(Untold::Human.into())));
    world.told(Ok(()));
    assert_eq!(end_reason(&world), None);
}

#[test]
fn an_agent_that_asks_by_a_tool_hears_how_its_transfer_ended() {
    let mut world = World::answered();
    let ask = world.ask(AGENT, "sales");
    assert_eq!(world.state(HUMAN), State::Calling);
    assert!(world.concluded().is_empty(), "nothing is told before there is an outcome");
    world.on(HUMAN, refused(486));
    assert_eq!(world.concluded(), [(ask, "busy".to_owned())]);
    assert_eq!((world.hears(CALLER), world.outcomes()), ("agent".into(), vec!["busy"]));

    let again = world.ask(AGENT, "sales");
    let second = LegKey::Dialled(2);
    world.on(second, LegEvent::Answered { body: sdp("human") });
    world.on(CALLER, accepted("caller"));
    assert_eq!(world.concluded().last(), Some(&(again, "answered".to_owned())));
    assert_eq!(world.state(AGENT), State::HungUp, "it is released at once: it has no NOTIFY to wait for");
}

#[test]
fn the_message_of_a_destination_is_said_also_when_a_tool_asks_for_it() {
    let mut world = World::answered();
    let ask = world.ask(AGENT, ANNOUNCED);
    assert_eq!((world.says(), world.legs.len()), (vec![MESSAGE], 2));
    world.told(Ok(()));
    world.on(HUMAN, refused(486));
    assert_eq!(world.concluded(), [(ask, "busy".to_owned())]);
}

#[test]
fn what_a_tool_may_not_have_is_refused_with_a_sentence() {
    let mut world = World::answered();
    let (unknown, night) = (world.ask(AGENT, "nobody"), world.ask(AGENT, "night"));
    let concluded = world.concluded();
    assert_eq!((concluded[0].0, concluded[1].0), (unknown, night));
    assert!(concluded[0].1.contains("nobody") && concluded[1].1.contains("night"), "{concluded:?}");
    assert_eq!(world.outcomes(), ["not-allowed", "closed"], "and that is on record");

    world.ask(AGENT, "sales");
    let second = world.ask(AGENT, "strict");
    assert_eq!(world.concluded().last(), Some(&(second, CommandRefusal::TransferUnderWay.to_string())));
    let human = world.ask(HUMAN, "strict");
    assert_eq!(world.concluded().last(), Some(&(human, CommandRefusal::NotActive.to_string())));
    assert_eq!(world.legs.len(), 3);
}

#[test]
fn an_agent_that_left_hears_nothing_of_its_transfer() {
    let mut world = World::answered();
    world.ask(AGENT, "sales");
    world.on(AGENT, LegEvent::Ended(EndedBy::Bye(None)));
    world.on(HUMAN, refused(486));
    assert!(world.concluded().is_empty());
    assert_eq!(world.state(LegKey::Dialled(2)), State::Calling, "the assistant is called back");
}

#[test]
fn an_agent_that_ends_the_call_by_a_tool_ends_it_for_everybody() {
    let mut world = World::answered();
    world.input(Input::Asked { leg: AGENT, ask: AskId(1), wish: Wish::End });
    assert_eq!((end_reason(&world), world.state(CALLER)), (Some("assistant-ended"), State::HungUp));

    let mut world = World::moving();
    world.on(CALLER, accepted("caller"));
    world.input(Input::Asked { leg: AGENT, ask: AskId(1), wish: Wish::End });
    assert_eq!(end_reason(&world), None, "one that the caller has left has no say");
}

#[test]
fn an_agent_that_is_given_up_before_it_answers_is_followed_by_the_next() {
    let mut world = World::with(table(true), sdp("caller"));
    world.fail_agent(AGENT);
    assert_eq!((world.state(AGENT), world.state(LegKey::Dialled(1))), (State::HungUp, State::Calling));
    world.fail_agent(AGENT);
    assert_eq!(world.legs.len(), 3, "once is enough");
    world.fail_agent(LegKey::Dialled(1));
    let fallback = LegKey::Dialled(2);
    assert!(world.leg(fallback).dial.clone().unwrap().target.uri.contains("+3161234567"));
    world.fail_agent(fallback);
    assert_eq!(world.state(fallback), State::Calling, "a human is no agent");
}

#[test]
fn an_agent_that_is_given_up_in_a_call_is_followed_by_the_fallback() {
    let mut world = World::answered_with(table(true));
    world.fail_agent(AGENT);
    assert_eq!((world.state(AGENT), world.state(LegKey::Dialled(1))), (State::HungUp, State::Calling));
    assert!(world.records.contains(&Record::AgentFailed("the key was refused".into())));

    let mut world = World::answered();
    world.fail_agent(AGENT);
    assert_eq!((end_reason(&world), world.state(CALLER)), (Some("assistant-lost"), State::HungUp));
}

#[test]
fn an_agent_that_is_given_up_over_its_transfer_does_not_end_it() {
    let mut world = World::answered();
    world.ask(AGENT, ANNOUNCED);
    world.fail_agent(AGENT);
    assert_eq!((world.state(CALLER), world.state(HUMAN)), (State::Answered, State::Calling));
    world.on(HUMAN, LegEvent::Answered { body: sdp("human") });
    world.on(CALLER, accepted("caller"));
    assert_eq!((world.outcomes(), world.hears(CALLER)), (vec!["answered"], "human".into()));
}

#[test]
fn an_agent_that_did_not_ask_for_a_transfer_is_told_that_it_failed() {
    let mut world = World::answered();
    world.transfer("sales");
    world.on(HUMAN, refused(486));
    let [Tell { leg: AGENT, what: Telling::Context { content, trigger_response: true }, .. }] =
        &world.tells[..]
    else {
        panic!("{:?}", world.tells)
    };
    assert!(content.contains("busy"), "{content}");

    // Whoever asked has its answer; whoever is gone, or saying goodbye, or can't be told, isn't told.
    let mut asked = World::answered();
    asked.refer(AGENT, "sales");
    asked.on(HUMAN, refused(486));
    let mut strict = World::answered();
    strict.transfer("strict");
    strict.on(HUMAN, refused(486));
    let mut left = World::answered();
    left.transfer("sales");
    left.on(CALLER, LegEvent::Ended(EndedBy::Bye(None)));
    let mut mute = World::answered_with(table_without_hook());
    mute.transfer("sales");
    mute.on(HUMAN, refused(486));
    for world in [asked, strict, left, mute] {
        assert_eq!(world.tells, [], "{:?}", world.outcomes());
    }
    let mut ending = World::answered();
    ending.transfer("sales");
    ending.end(Some("Goodbye."));
    assert_eq!((ending.says(), ending.tells.len()), (vec!["Goodbye."], 1));
}
