//! The message before a transfer: heard to its end before anybody is dialled, and never in a transfer's way.

use std::time::Duration;

use super::world::*;
use crate::call::{Channel, CommandRefusal, Input, LegKey, Message, Record, TellId, Timer};
use crate::routing::decide::TransferRefusal;
use crate::routing::table::ObjectKey;
use crate::sip::event::*;

/// A call whose agent asked for the desk by REFER: the message is being said.
fn announced() -> World {
    let mut world = World::answered();
    world.refer(AGENT, ANNOUNCED);
    world
}

/// Where the agent was told its first thing.
fn hook(world: &World) -> &str {
    match &world.tells[0].channel {
        Channel::Hook(hook) => &hook.url,
        Channel::Session => "its session",
    }
}

fn not_heard(why: &str) -> Option<Message> {
    Some(Message::NotHeard(why.to_owned()))
}

#[test]
fn a_destination_is_dialled_once_its_message_was_heard_to_the_end() {
    let mut world = announced();
    assert_eq!(world.says().len(), 1);
    assert_eq!((world.says()[0], hook(&world)), (MESSAGE, "http://192.0.2.10/hook"));
    assert_eq!(world.legs.len(), 2, "nobody is dialled yet");
    assert_eq!(world.notified(AGENT), [(100, false)], "whoever asked knows that it goes on");
    world.told(Ok(()));
    assert_eq!(world.state(HUMAN), State::Calling);
    assert!(!world.timers.contains_key(&Timer::Message));
    world.on(HUMAN, LegEvent::Answered { body: sdp("human") });
    world.on(CALLER, accepted("caller"));
    assert_eq!((world.outcomes(), world.messages()), (vec!["answered"], vec![Some(Message::Heard)]));
}

#[test]
fn a_message_that_can_not_be_said_does_not_hold_up_its_transfer() {
    let mut world = announced();
    world.told(Err("the agent's hook answered 500"));
    world.on(HUMAN, LegEvent::Answered { body: sdp("human") });
    world.on(CALLER, accepted("caller"));
    assert_eq!(world.outcomes(), ["answered"]);
    assert_eq!(world.messages(), [not_heard("the agent's hook answered 500")]);

    let mut world = World::answered_with(table_without_hook());
    world.refer(AGENT, ANNOUNCED);
    assert_eq!(world.state(HUMAN), State::Calling);
    assert!(world.tells.is_empty());
    world.on(HUMAN, refused(486));
    assert_eq!(
        world.messages(),
        [not_heard("the agent of Assistant acme/support has no hook; set agent.sip.hook")]
    );
}

#[test]
fn a_message_has_so_much_time_as_it_takes_to_be_spoken_and_then_the_destination_is_dialled() {
    let mut world = announced();
    assert_eq!(
        world.tells[0].within,
        Duration::from_secs(10 + 6),
        "a second for every ten bytes that were begun"
    );
    let before = world.now;
    world.fire(Timer::Message);
    assert_eq!((world.now, world.state(HUMAN)), (before + Duration::from_secs(16), State::Calling));
    world.told(Ok(()));
    assert_eq!(world.legs.len(), 3, "what comes later changes nothing");
    world.on(HUMAN, refused(486));
    assert_eq!(world.messages(), [not_heard("the agent did not say within 16 s that it was heard")]);
}

#[test]
fn a_caller_who_hangs_up_over_the_message_has_nobody_dialled() {
    let mut world = announced();
    world.on(CALLER, LegEvent::Ended(EndedBy::Bye(None)));
    assert_eq!(
        (world.outcomes(), world.tries()),
        (vec!["caller-hung-up"], vec![("desk".into(), "caller-hung-up")])
    );
    assert_eq!(world.messages(), [not_heard("the caller hung up")]);
    let Some(Record::TransferEnded(ended)) =
        world.records.iter().find(|it| matches!(it, Record::TransferEnded(_)))
    else {
        panic!("no record")
    };
    assert_eq!((ended.attempts(), ended.last.host.as_deref()), (0, None), "no INVITE was sent");
    world.told(Ok(()));
    world.settle();
    assert_eq!(world.legs.len(), 2);
    assert!(world.call.is_gone() && world.timers.is_empty());
}

#[test]
fn an_agent_that_leaves_over_the_message_has_its_caller_transferred_at_once() {
    for by in [EndedBy::Bye(None), EndedBy::Timeout] {
        let mut world = announced();
        world.on(AGENT, LegEvent::Ended(by));
        assert_eq!((world.state(CALLER), world.state(HUMAN)), (State::Answered, State::Calling));
        world.told(Ok(()));
        world.on(HUMAN, LegEvent::Answered { body: sdp("human") });
        world.on(CALLER, accepted("caller"));
        assert_eq!((world.outcomes(), world.hears(CALLER)), (vec!["answered"], "human".into()));
        assert_eq!(world.messages(), [not_heard("the agent hung up")]);
    }
}

#[test]
fn a_call_that_is_ended_over_the_message_has_nobody_dialled() {
    let mut world = announced();
    world.end(None);
    assert_eq!((world.replies.last(), world.outcomes()), (Some(&Ok(())), vec!["unknown"]));
    assert_eq!(world.notified(AGENT), [(100, false), (500, true)]);
    world.settle();
    assert!(world.call.is_gone() && world.timers.is_empty() && world.legs.len() == 2);
}

#[test]
fn another_transfer_waits_for_the_one_whose_message_is_being_said() {
    let mut world = announced();
    world.transfer("sales");
    assert_eq!(world.replies, [Err(CommandRefusal::TransferUnderWay)]);
    let again = world.refer(AGENT, "sales");
    assert!(world.responses.contains(&(AGENT, again, 491)));
    world.told(Ok(()));
    assert_eq!(world.leg(HUMAN).dial.clone().unwrap().target.uri, "sip:+31612345673@198.51.100.1:5060");
}

#[test]
fn the_caller_may_put_the_agent_on_hold_over_the_message() {
    let mut world = announced();
    let request = world.request_id();
    world.on(CALLER, LegEvent::Reoffer { request, body: sdp("caller-holds") });
    world.told(Ok(()));
    world.on(AGENT, accepted("agent"));
    assert!(world.responses.contains(&(CALLER, request, 200)));
    assert_eq!((world.state(HUMAN), world.hears(AGENT)), (State::Calling, "caller-holds".into()));
}

#[test]
fn what_the_api_wants_said_is_said_instead_of_the_destinations_own() {
    let mut world = World::answered();
    world.transfer_with(ANNOUNCED, Some("Until soon."));
    assert_eq!((world.replies.as_slice(), world.says()[0]), (&[Ok(())][..], "Until soon."));
    world.told(Ok(()));
    assert_eq!(world.says().len(), 1, "and not both");
    world.on(HUMAN, refused(486));

    world.transfer_with("sales", Some("To one without a message."));
    assert_eq!(world.says().last().copied().unwrap(), "To one without a message.");
}

#[test]
fn each_destination_of_a_chain_is_announced_by_its_own_message() {
    let mut world = World::answered();
    world.transfer_with("lobby", Some("The lobby."));
    assert!(world.leg(CALLER).referrals.is_empty(), "a trunk isn't asked over the message either");
    world.told(Ok(()));
    let request = world.request_id();
    world.on(CALLER, LegEvent::Response { request, code: 603 });
    assert_eq!((world.says().len(), world.says()[1]), (2, MESSAGE));
    assert_eq!(world.legs.len(), 2);
    world.input(Input::Told(world.tells[0].id, Ok(())));
    assert_eq!(world.legs.len(), 2, "what was said before is not what is waited for");
    world.told(Err("no"));
    world.on(HUMAN, refused(486));
    assert_eq!(world.messages(), [Some(Message::Heard), not_heard("no")]);
    assert_eq!(world.tries(), [("lobby".into(), "rejected"), ("desk".into(), "busy")]);
}

#[test]
fn a_message_is_said_once_also_when_the_trunk_has_further_hosts() {
    let mut world = World::answered_with(table_with_backups());
    world.refer(AGENT, ANNOUNCED);
    world.told(Ok(()));
    world.on(HUMAN, refused(503));
    assert_eq!((world.state(LegKey::Dialled(2)), world.says().len()), (State::Calling, 1));
    world.on(LegKey::Dialled(2), refused(486));
    assert_eq!(world.messages(), [Some(Message::Heard), None]);
}

#[test]
fn a_human_is_not_asked_to_say_anything() {
    let mut world = World::answered();
    world.transfer("sales");
    world.on(HUMAN, LegEvent::Answered { body: sdp("human") });
    world.on(CALLER, accepted("caller"));
    world.transfer(ANNOUNCED);
    assert!(world.tells.is_empty());
    world.on(LegKey::Dialled(2), refused(486));
    assert_eq!(world.messages(), [not_heard("the caller talks with a human")]);
}

#[test]
fn a_fallback_is_dialled_without_a_message() {
    let mut table = table(true);
    let number = table.numbers.values().next().unwrap().clone();
    let entry = crate::routing::table::NumberEntry {
        fallback: Some(ObjectKey::new("acme", "desk")),
        ..(*number).clone()
    };
    table.numbers.insert("+31201234567".parse().unwrap(), entry.into());
    let mut world = World::with(table, sdp("caller"));
    world.on(AGENT, refused(503));
    world.on(LegKey::Dialled(1), refused(503));
    assert_eq!(world.state(LegKey::Dialled(2)), State::Calling);
    assert!(world.tells.is_empty());
}

#[test]
fn a_transfer_that_is_refused_has_nothing_said() {
    let mut world = World::answered();
    world.transfer_with("night", Some("Good night."));
    assert!(matches!(world.replies[..], [Err(CommandRefusal::Refused(TransferRefusal::Closed { .. }))]));
    assert!(world.tells.is_empty());
    world.input(Input::Told(TellId(7), Ok(())));
    assert_eq!(world.legs.len(), 2);
}
