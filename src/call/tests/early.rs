//! What a caller hears before its call is answered.

use super::world::*;
use crate::call::LegKey;
use crate::sip::event::*;

const SECOND: LegKey = LegKey::Dialled(1);

fn rings(name: &str) -> LegEvent {
    LegEvent::Progress { code: 183, body: sdp(name) }
}

fn refused() -> LegEvent {
    LegEvent::Refused { code: 503, reason: "No".into(), by: RefusedBy::Response }
}

fn called(reliability: Reliability) -> World {
    World::called(table(false), |incoming| incoming.reliability = reliability)
}

fn early(world: &mut World) -> Vec<String> {
    world.leg(CALLER).early.iter().map(whose).collect()
}

#[test]
fn a_caller_hears_the_early_media_of_each_party_if_it_acknowledges_nothing() {
    let mut world = called(Reliability::Unknown);
    world.on(AGENT, rings("first"));
    world.on(AGENT, refused());
    world.on(SECOND, rings("second"));
    assert_eq!(early(&mut world), ["first", "second"]);
    world.on(SECOND, LegEvent::Answered { body: sdp("second") });
    assert_eq!(world.hears(CALLER), "second");
    assert!(world.leg(CALLER).reoffers.is_empty());
}

#[test]
fn an_answer_that_was_acknowledged_early_is_repeated_by_the_same_party() {
    let mut world = called(Reliability::Known);
    world.on(AGENT, rings("agent"));
    world.on(AGENT, LegEvent::Answered { body: sdp("agent") });
    assert_eq!((early(&mut world), world.hears(CALLER)), (vec!["agent".to_owned()], "agent".to_owned()));
    assert!(world.leg(CALLER).reoffers.is_empty());
}

#[test]
fn a_caller_who_acknowledged_one_partys_answer_is_moved_to_the_one_that_takes_the_call() {
    for reliability in [Reliability::Known, Reliability::Demanded] {
        let mut world = called(reliability);
        world.on(AGENT, rings("first"));
        world.on(AGENT, refused());
        world.on(SECOND, rings("second"));
        assert_eq!(early(&mut world), ["first", "nobody"], "its offer has an answer already");
        world.on(SECOND, LegEvent::Answered { body: sdp("second") });
        let shown: Vec<_> = world.leg(CALLER).shown.iter().map(whose).collect();
        assert_eq!(
            shown,
            ["first", "second"],
            "the 2xx repeats what was given, a re-INVITE brings what holds"
        );
        let request = world.request_id();
        world.on(SECOND, LegEvent::Reoffer { request, body: sdp("elsewhere") });
        assert_eq!(world.responses.last(), Some(&(SECOND, request, 491)), "one change at a time");
        world.on(CALLER, LegEvent::ReofferAccepted { body: sdp("caller moved") });
        assert_eq!(world.hears(SECOND), "caller moved");
    }
}

#[test]
fn a_caller_without_an_offer_is_not_offered_anything_early() {
    let mut world = World::called(table(false), |incoming| {
        incoming.reliability = Reliability::Demanded;
        incoming.offer = None;
    });
    world.on(AGENT, rings("agent"));
    assert_eq!(early(&mut world), ["nobody"]);
    world.on(AGENT, LegEvent::Answered { body: sdp("agent") });
    assert_eq!(world.hears(CALLER), "agent");
}
