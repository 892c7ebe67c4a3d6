//! Attended transfers: the agent has called the human itself, and asks that the caller take its place (RFC 5589 §7).

use super::world::*;
use crate::call::LegKey;
use crate::sip::event::*;

/// The value of Replaces in the INVITE to a leg.
fn replaces(world: &mut World, leg: LegKey) -> Option<String> {
    let headers = world.leg(leg).dial.clone().unwrap().headers;
    headers.into_iter().find(|(name, _)| name == "Replaces").map(|(_, value)| value)
}

#[test]
fn an_agent_that_has_called_the_human_itself_hands_that_call_over_to_the_caller() {
    let mut world = World::answered_with(table_with_backups());
    let consulted = "c7@pbx;to-tag=human;from-tag=agent";
    world.refer_replacing(AGENT, "team", Some(consulted));
    assert_eq!(replaces(&mut world, HUMAN).as_deref(), Some(consulted));
    // Another host of the trunk may know of the call; another destination has no part in it.
    world.on(HUMAN, refused(503));
    assert_eq!(replaces(&mut world, LegKey::Dialled(2)).as_deref(), Some(consulted));
    world.on(LegKey::Dialled(2), refused(486));
    assert_eq!(replaces(&mut world, LegKey::Dialled(3)), None);
    world.on(LegKey::Dialled(3), LegEvent::Answered { body: sdp("human") });
    world.on(CALLER, accepted("caller"));
    assert_eq!((world.outcomes(), world.hears(CALLER)), (vec!["answered"], "human".into()));
}

#[test]
fn a_call_that_replaces_the_agents_own_is_dialled_by_us_although_the_destination_is_one_for_refer() {
    let mut world = World::answered();
    world.refer_replacing(AGENT, "queue", Some("c7@pbx;to-tag=human;from-tag=agent"));
    assert!(world.leg(CALLER).referrals.is_empty());
    assert!(replaces(&mut world, HUMAN).is_some());
}

#[test]
fn only_the_agent_may_have_a_call_replaced() {
    let mut world = World::answered();
    let request = world.refer_replacing(CALLER, "sales", Some("c7@pbx;to-tag=human;from-tag=agent"));
    assert!(world.responses.contains(&(CALLER, request, 603)));
    assert_eq!(world.legs.len(), 2);
}
