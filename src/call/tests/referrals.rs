//! Transfers that the caller's trunk is asked to do (`method: Refer`): each ends as the NOTIFYs prove, or as unknown.

use std::sync::Arc;

use super::world::*;
use crate::call::{CommandRefusal, LegKey, Status, Timer};
use crate::routing::table::ObjectKey;
use crate::sip::event::*;

/// A call whose caller's trunk was asked to dial the queue, by the agent's REFER, and is trying.
fn referred() -> World {
    let mut world = World::answered();
    world.refer(AGENT, "queue");
    let request = world.request_id();
    world.on(CALLER, LegEvent::Response { request, code: 202 });
    world
}

fn told_by_trunk(world: &mut World, code: Option<u16>, ended: bool) {
    let request = world.request_id();
    world.on(CALLER, LegEvent::Referred { request, code, ended });
}

#[test]
fn a_caller_is_referred_by_its_trunk_and_the_call_is_over_once_that_has_been_proven() {
    let mut world = referred();
    let refer = world.leg(CALLER).referrals[0].clone();
    assert_eq!(refer.target, "sip:+31612345672@carrier.example");
    assert_eq!(refer.referred_by, "<sip:+31201234567@{host}>");
    assert_eq!(world.legs.len(), 2, "nobody is dialled");
    told_by_trunk(&mut world, Some(100), false);
    told_by_trunk(&mut world, Some(180), false);
    assert!(world.outcomes().is_empty());
    assert_eq!(world.hears(CALLER), "agent");
    told_by_trunk(&mut world, Some(200), true);
    assert_eq!(world.outcomes(), ["answered"]);
    assert_eq!(world.notified(AGENT), [(100, false), (180, false), (200, true)]);
    assert_eq!((world.call.end_reason(), world.call.status()), (Some("transferred"), Status::Ended));
    let before_it_is_told_again = (State::HungUp, State::Answered);
    assert_eq!((world.state(CALLER), world.state(AGENT)), before_it_is_told_again);
    world.fire(Timer::ReleaseAgent);
    assert_eq!(world.state(AGENT), State::HungUp);
    world.settle();
    assert!(world.call.is_gone() && world.timers.is_empty());
}

#[test]
fn an_agent_that_was_told_that_its_caller_was_sent_on_may_hang_up_by_itself() {
    let mut world = referred();
    told_by_trunk(&mut world, Some(200), true);
    world.on(AGENT, LegEvent::Ended(EndedBy::Bye(None)));
    assert!(world.timers.is_empty(), "{:?}", world.timers);
    world.settle();
    assert!(world.call.is_gone());
}

#[test]
fn an_agent_that_is_still_being_told_goes_with_the_gateway() {
    let mut world = referred();
    told_by_trunk(&mut world, Some(200), true);
    world.shut_down();
    assert_eq!(world.state(AGENT), State::HungUp);
    assert_eq!(world.call.end_reason(), Some("transferred"), "that is how it ended");
    world.settle();
    assert!(world.call.is_gone() && world.timers.is_empty());
}

#[test]
fn any_2xx_to_a_refer_means_that_it_tries_and_proves_nothing() {
    for code in [200, 202, 204, 299] {
        let mut world = World::answered();
        world.refer(AGENT, "queue");
        let request = world.request_id();
        world.on(CALLER, LegEvent::Response { request, code });
        assert!(world.outcomes().is_empty(), "{code}");
        told_by_trunk(&mut world, Some(200), true);
        assert_eq!(world.outcomes(), ["answered"], "{code}");
    }
}

#[test]
fn a_final_status_without_the_end_of_the_subscription_counts() {
    let mut world = referred();
    told_by_trunk(&mut world, Some(200), false);
    assert_eq!(world.outcomes(), ["answered"]);
}

#[test]
fn a_trunk_that_reaches_nobody_leaves_the_caller_and_the_next_destination_is_tried() {
    let mut world = referred();
    told_by_trunk(&mut world, Some(486), true);
    assert!(world.outcomes().is_empty());
    world.on(HUMAN, refused(603));
    assert_eq!(world.tries(), [("queue".into(), "busy"), ("sales".into(), "rejected")]);
    assert_eq!((world.state(CALLER), world.hears(CALLER)), (State::Answered, "agent".into()));
    assert_eq!(world.notified(AGENT).last(), Some(&(603, true)));
}

#[test]
fn a_subscription_that_ends_without_a_status_proves_nothing() {
    let mut world = referred();
    told_by_trunk(&mut world, Some(100), true);
    assert_eq!(world.outcomes(), ["unknown"]);
    assert_eq!(world.legs.len(), 2, "the caller may be with somebody: nobody else is called");
    assert_eq!((world.state(CALLER), world.state(AGENT)), (State::Answered, State::Answered));
}

#[test]
fn a_caller_who_leaves_before_its_trunk_has_said_anything_final_proves_nothing() {
    let mut world = referred();
    told_by_trunk(&mut world, Some(180), false);
    world.on(CALLER, LegEvent::Ended(EndedBy::Bye(None)));
    assert_eq!(world.outcomes(), ["unknown"]);
    assert_eq!(world.state(AGENT), State::HungUp);
    world.settle();
    assert!(world.call.is_gone() && world.timers.is_empty());
}

#[test]
fn a_trunk_that_never_says_what_became_of_it_is_waited_for_and_then_the_outcome_is_unknown() {
    let mut world = referred();
    world.fire(Timer::Referral);
    assert_eq!(world.outcomes(), ["unknown"]);
    assert_eq!((world.state(CALLER), world.state(AGENT)), (State::Answered, State::Answered));
    world.transfer("queue");
    assert_eq!(world.leg(CALLER).referrals.len(), 1, "what it says next could be about either REFER");
    world.on(HUMAN, refused(486));
    told_by_trunk(&mut world, Some(200), true);
    assert_eq!(world.outcomes(), ["unknown"], "one outcome each; the second transfer goes on");
    world.on(LegKey::Dialled(2), refused(486));
    world.transfer("queue");
    assert_eq!(world.leg(CALLER).referrals.len(), 2);
}

#[test]
fn a_trunk_that_takes_no_refer_is_named_and_the_next_destination_is_tried() {
    for (code, outcome) in [(405, "rejected"), (603, "rejected"), (401, "unreachable")] {
        let mut world = World::answered();
        world.transfer("queue");
        let request = world.request_id();
        world.on(CALLER, LegEvent::Response { request, code });
        world.on(HUMAN, refused(486));
        assert_eq!(world.tries()[0], ("queue".into(), outcome), "{code}");
        assert_eq!(world.state(CALLER), State::Answered);
    }
}

#[test]
fn an_agent_that_leaves_while_its_caller_is_referred_does_not_end_the_call() {
    let mut world = referred();
    world.on(AGENT, LegEvent::Ended(EndedBy::Bye(None)));
    assert_eq!(world.state(CALLER), State::Answered);
    world.transfer("sales");
    assert_eq!(world.replies.last(), Some(&Err(CommandRefusal::TransferUnderWay)));
    told_by_trunk(&mut world, Some(200), true);
    assert_eq!(world.outcomes(), ["answered"]);
    world.settle();
    assert!(world.call.is_gone());
}

#[test]
fn a_trunk_that_can_not_be_sent_a_refer_is_bridged() {
    let mut table = table(false);
    let carrier = table.trunks.get_mut(&ObjectKey::new("acme", "carrier")).unwrap();
    Arc::make_mut(carrier).refer = None;
    let mut world = World::answered_with(table);
    world.transfer("queue");
    assert_eq!(world.state(HUMAN), State::Calling);
    assert!(world.leg(CALLER).referrals.is_empty());
}
