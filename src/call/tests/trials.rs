//! Destinations that are tested, without a caller.

use std::sync::Arc;

use super::world::*;
use crate::call::{LegKey, Record, Status, Timer};
use crate::routing::decide::{Index, Limit, TestRefusal, TransferRefusal};
use crate::routing::table::{DestinationTarget, Table};
use crate::sip::event::*;

/// The first leg that is dialled.
const DIALLED: LegKey = LegKey::Dialled(0);
const SECOND: LegKey = LegKey::Dialled(1);

/// What was tried, and what became of it; and that the test has one outcome and is over.
fn tried(world: &mut World) -> Vec<(String, &'static str)> {
    let mut tests = world.records.iter().filter_map(|record| match record {
        Record::Tested(ended) => Some(ended),
        _ => None,
    });
    let ended = tests.next().expect("the test has an outcome");
    assert!(tests.next().is_none(), "it has one outcome");
    let tries = ended.tries().map(|tried| (tried.host.clone().unwrap_or_default(), tried.outcome.as_str()));
    let tries = tries.collect();
    assert_eq!(world.call.end_reason(), Some("tested"));
    world.settle();
    assert!(world.call.is_gone() && world.timers.is_empty());
    tries
}

fn refusal(table: Table, destination: &str) -> TransferRefusal {
    World::testing(table, destination).err().expect("nothing is dialled")
}

#[test]
fn a_destination_that_answers_is_hung_up_on_at_once() {
    let mut world = World::testing(table(false), "sales").unwrap();
    let dial = world.leg(DIALLED).dial.clone().unwrap();
    assert_eq!(dial.target.uri, "sip:+31612345678@198.51.100.1:5060");
    assert!(dial.line.is_some(), "it counts among the calls of the trunk");
    assert_eq!(dial.from.user, "+31201234567", "it sees the number");
    world.on(DIALLED, LegEvent::Progress { code: 180, body: None });
    world.now = world.now + std::time::Duration::from_secs(3);
    world.on(DIALLED, LegEvent::Answered { body: sdp("human") });
    assert_eq!((world.state(DIALLED), world.call.status()), (State::HungUp, Status::Ended));
    assert_eq!(tried(&mut world), [("198.51.100.1".into(), "answered")]);
    assert!(world.outcomes().is_empty(), "it is no transfer");
}

#[test]
fn one_that_does_not_answer_is_cancelled_and_nobody_else_is_tried() {
    let mut world = World::testing(table(false), "team").unwrap();
    world.on(DIALLED, LegEvent::Progress { code: 180, body: None });
    world.fire(Timer::Ring);
    assert_eq!((world.state(DIALLED), world.call.status()), (State::HungUp, Status::Failed));
    assert_eq!(tried(&mut world), [("198.51.100.1".into(), "no-answer")]);
    assert_eq!(world.legs.len(), 1, "those that follow in onFailure are left alone");

    let mut world = World::testing(table(false), "sales").unwrap();
    world.on(DIALLED, refused(486));
    assert_eq!(tried(&mut world), [("198.51.100.1".into(), "busy")]);
}

#[test]
fn the_other_hosts_of_its_trunk_are_tried() {
    let mut world = World::testing(table_with_backups(), "sales").unwrap();
    world.on(DIALLED, refused(503));
    world.on(SECOND, LegEvent::Answered { body: sdp("human") });
    assert_eq!(
        tried(&mut world),
        [("198.51.100.1".into(), "unreachable"), ("198.51.100.2".into(), "answered")]
    );
}

#[test]
fn one_that_transfers_reach_by_refer_is_dialled() {
    let mut world = World::testing(table(false), "queue").unwrap();
    world.on(DIALLED, LegEvent::Answered { body: sdp("human") });
    assert_eq!(tried(&mut world), [("198.51.100.1".into(), "answered")]);
}

#[test]
fn what_a_transfer_may_not_do_a_test_may_not_either() {
    assert!(matches!(refusal(table(false), "night"), TransferRefusal::Closed { .. }));
    let mut followed = table(false);
    let night = followed.destinations.get_mut(&key("night")).unwrap();
    Arc::make_mut(night).then = vec![key("sales")];
    let refused = refusal(followed, "night");
    assert!(
        matches!(refused, TransferRefusal::Closed { .. }),
        "who follows is not what is tested: {refused}"
    );

    let mut expensive = table(false);
    let sales = expensive.destinations.get_mut(&key("sales")).unwrap();
    Arc::make_mut(sales).target = DestinationTarget::Number("+31900123456".parse().unwrap());
    assert!(matches!(refusal(expensive, "sales"), TransferRefusal::NotAllowed { .. }));

    let mut world = World::testing(table(false), "sales").unwrap();
    let reason = Limit::Calls(1).to_string();
    world.on(DIALLED, LegEvent::Refused { code: 503, reason, by: RefusedBy::Limit });
    assert_eq!(tried(&mut world), [(String::new(), "not-allowed")]);
}

#[test]
fn a_numbers_fallback_can_be_tested_too() {
    let mut table = table(true);
    let assistant = table.assistants.get_mut(&key("support")).unwrap();
    Arc::make_mut(assistant).destinations.remove("sales");
    let mut world = World::testing(table, "sales").unwrap();
    world.on(DIALLED, LegEvent::Answered { body: sdp("human") });
    assert_eq!(tried(&mut world), [("198.51.100.1".into(), "answered")]);
}

#[test]
fn a_test_that_is_cut_short_has_an_outcome_too() {
    let mut world = World::testing(table(false), "sales").unwrap();
    world.on(DIALLED, LegEvent::Progress { code: 180, body: None });
    world.end(None);
    let ended = world.records.iter().find_map(|record| match record {
        Record::Tested(ended) => Some(ended.last.outcome.as_str()),
        _ => None,
    });
    assert_eq!(ended, Some("unknown"));
    assert_eq!(world.state(DIALLED), State::HungUp);
    world.settle();
    assert!(world.call.is_gone());
}

#[test]
fn nobody_takes_the_place_of_one_that_is_tested_and_nobody_is_transferred() {
    let mut world = World::testing(table(false), "sales").unwrap();
    world.on(DIALLED, LegEvent::Progress { code: 180, body: None });
    let other = world.replace(DIALLED, None);
    assert_eq!(world.state(other), State::Over);
    world.transfer("desk");
    assert!(world.replies[0].is_err());
    world.on(DIALLED, LegEvent::Answered { body: sdp("human") });
    assert_eq!(tried(&mut world), [("198.51.100.1".into(), "answered")]);
}

#[test]
fn a_test_is_of_a_destination_that_somebody_who_calls_could_get_to() {
    let index = Index::new(Arc::new(table(false)));
    let number = "+31201234567".parse().unwrap();
    for (own, namespace) in [(None, None), (Some(&number), None), (None, Some("acme"))] {
        let answer = index.test("sales", own, namespace).unwrap();
        assert_eq!((answer.number(), answer.trunk()), (&number, &key("carrier")));
    }
    let unknown = |name: &str| Err(TestRefusal::UnknownDestination(name.into()));
    assert_eq!(index.test("marketing", None, None), unknown("marketing"));
    assert_eq!(index.test("sales", None, Some("others")), unknown("sales"));
    let theirs = index.test("sales", Some(&number), Some("others"));
    assert_eq!(theirs, Err(TestRefusal::UnknownNumber(number.clone())));

    let mut silent = table(false);
    let main = silent.numbers.get_mut(&number).unwrap();
    Arc::make_mut(main).transfer_trunk = None;
    assert_eq!(
        Index::new(Arc::new(silent.clone())).test("sales", None, None).unwrap().trunk(),
        &key("carrier")
    );
    let carrier = silent.trunks.get_mut(&key("carrier")).unwrap();
    Arc::make_mut(carrier).allowed_sources.clear();
    let refused = Index::new(Arc::new(silent)).test("sales", None, None);
    assert_eq!(refused, Err(TestRefusal::NoCalls(number)));
}
