//! What passes between joined legs: hold, new media, refreshes; and what ends with a leg that was lost.

use std::sync::Arc;

use super::world::*;
use crate::call::Status;
use crate::routing::table::{ObjectKey, SessionTimerEntry};
use crate::sip::event::*;
use crate::sip::session::SessionPolicy;

fn accepted(name: &str) -> LegEvent {
    LegEvent::ReofferAccepted { body: sdp(name) }
}

#[test]
fn hold_by_the_caller_passes_to_the_agent_and_its_answer_back() {
    let mut world = World::answered();
    let request = world.request_id();
    world.on(CALLER, LegEvent::Reoffer { request, body: sdp("caller on hold") });
    assert_eq!(world.hears(AGENT), "caller on hold");
    world.on(AGENT, accepted("agent holds"));
    assert_eq!(world.responses.last(), Some(&(CALLER, request, 200)));
    assert_eq!(world.hears(CALLER), "agent holds");
}

#[test]
fn a_change_while_the_caller_moves_is_asked_to_come_again() {
    let mut world = World::moving();
    let request = world.request_id();
    world.on(AGENT, LegEvent::Reoffer { request, body: sdp("agent elsewhere") });
    assert_eq!(world.responses.last(), Some(&(AGENT, request, 491)));
}

#[test]
fn a_human_who_changes_its_media_before_it_is_joined_is_asked_to_come_again() {
    let mut world = World::moving();
    let request = world.request_id();
    world.on(HUMAN, LegEvent::Reoffer { request, body: sdp("human elsewhere") });
    assert_eq!(world.responses.last(), Some(&(HUMAN, request, 491)), "481 would end its dialog");
}

#[test]
fn a_refresh_that_changes_nothing_is_answered_without_asking_the_other_side() {
    for (from, to, name, other) in [(CALLER, AGENT, "caller", "agent"), (AGENT, CALLER, "agent", "caller")] {
        let mut world = World::answered();
        let request = world.request_id();
        world.on(from, LegEvent::Reoffer { request, body: sdp(name) });
        assert_eq!(world.responses.last(), Some(&(from, request, 200)));
        assert_eq!(world.hears(from), other);
        assert!(world.leg(to).reoffers.is_empty());
    }
}

#[test]
fn a_refresh_during_a_transfer_is_answered_as_well() {
    let mut world = World::moving();
    let request = world.request_id();
    world.on(AGENT, LegEvent::Reoffer { request, body: sdp("agent") });
    assert_eq!(world.responses.last(), Some(&(AGENT, request, 200)));
    world.on(CALLER, accepted("caller"));
    assert_eq!(world.outcomes(), ["answered"]);
}

#[test]
fn a_peer_that_answers_a_refresh_with_new_media_is_made_known_to_the_other_side() {
    let mut world = World::answered();
    world.on(CALLER, LegEvent::Refreshed { body: sdp("caller").unwrap() });
    assert!(world.leg(AGENT).reoffers.is_empty(), "nothing is new");
    world.on(CALLER, LegEvent::Refreshed { body: sdp("caller-elsewhere").unwrap() });
    assert_eq!(world.hears(AGENT), "caller-elsewhere");
    world.on(AGENT, accepted("agent-elsewhere"));
    assert_eq!(world.hears(CALLER), "agent-elsewhere", "and so does it");
    world.on(CALLER, accepted("caller-nowhere"));
    assert_eq!(world.hears(AGENT), "caller-elsewhere", "but not for ever");
    let request = world.request_id();
    world.on(AGENT, LegEvent::Reoffer { request, body: sdp("agent on hold") });
    assert_eq!(world.hears(CALLER), "agent on hold", "the exchange is over");
}

#[test]
fn a_session_that_expires_ends_the_call_on_both_legs_and_says_why() {
    for (lost, other, reason) in [(CALLER, AGENT, "caller-lost"), (AGENT, CALLER, "assistant-lost")] {
        let mut world = World::answered();
        world.on(lost, LegEvent::Ended(EndedBy::Expired));
        assert_eq!((world.state(other), world.call.end_reason()), (State::HungUp, Some(reason)));
        assert!(world.leg(other).farewell.is_some_and(|told| told.contains("cause=4")));
        world.settle();
        assert_eq!((world.call.is_gone(), world.call.status()), (true, Status::Ended));
    }
}

#[test]
fn an_agent_whose_session_expires_is_followed_by_the_fallback() {
    let mut world = World::answered_with(table(true));
    world.on(AGENT, LegEvent::Ended(EndedBy::Expired));
    assert_ne!(world.state(CALLER), State::HungUp);
    world.on(HUMAN, LegEvent::Answered { body: sdp("reception") });
    world.on(CALLER, accepted("caller"));
    assert_eq!(world.hears(CALLER), "reception");
    world.on(HUMAN, LegEvent::Ended(EndedBy::Expired));
    assert_eq!((world.state(CALLER), world.call.end_reason()), (State::HungUp, Some("human-lost")));
}

#[test]
fn a_leg_has_the_session_timer_of_its_trunk() {
    let mut table = table(false);
    let timer = SessionTimerEntry { min_seconds: 120, seconds: 600 };
    let carrier = table.trunks.get_mut(&ObjectKey::new("acme", "carrier")).unwrap();
    Arc::make_mut(carrier).session_timer = timer;
    let mut world = World::answered_with(table);
    world.transfer("sales");
    let session = |world: &mut World, leg| world.leg(leg).dial.clone().unwrap().session;
    assert_eq!(session(&mut world, HUMAN), SessionPolicy { min: 120, ask: Some(600) });
    assert_eq!(session(&mut world, AGENT), SessionPolicy { min: 90, ask: Some(1800) });
}

#[test]
fn an_agent_changes_its_media_and_the_caller_follows() {
    let mut world = World::answered();
    let request = world.request_id();
    world.on(AGENT, LegEvent::Reoffer { request, body: sdp("agent elsewhere") });
    assert_eq!(world.hears(CALLER), "agent elsewhere");
    world.on(CALLER, accepted("caller follows"));
    assert_eq!(world.responses.last(), Some(&(AGENT, request, 200)));
    assert_eq!(world.hears(AGENT), "caller follows");
}

#[test]
fn a_side_that_asks_for_an_offer_gets_the_other_sides_and_its_answer_goes_back_in_the_ack() {
    for (from, to) in [(CALLER, AGENT), (AGENT, CALLER)] {
        let mut world = World::answered();
        let request = world.request_id();
        world.on(from, LegEvent::Reoffer { request, body: None });
        assert_eq!(world.leg(to).reoffers, [None]);
        world.on(to, accepted("offer"));
        assert_eq!(
            (world.hears(from), world.responses.last()),
            ("offer".into(), Some(&(from, request, 200)))
        );
        world.on(from, LegEvent::Acked { body: sdp("answer") });
        assert_eq!(world.hears(to), "answer");
        let next = world.request_id();
        world.on(to, LegEvent::Reoffer { request: next, body: sdp("next") });
        assert_eq!(world.hears(from), "next", "the exchange is over");
    }
}

#[test]
fn a_side_that_forgets_its_answer_in_the_ack_keeps_the_one_it_gave_before() {
    let mut world = World::answered();
    let request = world.request_id();
    world.on(CALLER, LegEvent::Reoffer { request, body: None });
    world.on(AGENT, accepted("offer"));
    world.on(CALLER, LegEvent::Acked { body: None });
    assert_eq!(world.hears(AGENT), "caller");
}

#[test]
fn changes_that_meet_are_refused_to_both_sides_who_wait_as_the_rfc_says() {
    let mut world = World::answered();
    let (first, second) = (world.request_id(), world.request_id());
    world.on(CALLER, LegEvent::Reoffer { request: first, body: sdp("caller elsewhere") });
    world.on(AGENT, LegEvent::ReofferRefused { code: 491, retry_after: None });
    assert_eq!(world.responses.last(), Some(&(CALLER, first, 491)));
    world.on(AGENT, LegEvent::Reoffer { request: second, body: sdp("agent elsewhere") });
    assert_eq!(world.hears(CALLER), "agent elsewhere", "whoever comes first the next time");
}

#[test]
fn a_refusal_is_passed_on_but_not_one_that_would_end_the_other_sides_dialog() {
    for (code, passed_on) in
        [(488, 488), (500, 500), (415, 415), (404, 488), (401, 488), (482, 488), (604, 488)]
    {
        let mut world = World::answered();
        let request = world.request_id();
        world.on(CALLER, LegEvent::Reoffer { request, body: sdp("caller elsewhere") });
        world.on(AGENT, LegEvent::ReofferRefused { code, retry_after: None });
        assert_eq!(world.responses.last(), Some(&(CALLER, request, passed_on)), "{code}");
        assert_eq!((world.state(CALLER), world.state(AGENT)), (State::Answered, State::Answered));
    }
}

#[test]
fn a_refusal_that_says_when_it_may_be_tried_again_says_so_to_the_other_side() {
    let mut world = World::answered();
    for (code, passed_on, told) in [(500, 500, Some(Some(7))), (404, 488, None)] {
        world.declined.clear();
        let request = world.request_id();
        world.on(CALLER, LegEvent::Reoffer { request, body: sdp("caller elsewhere") });
        world.on(AGENT, LegEvent::ReofferRefused { code, retry_after: Some(7) });
        assert_eq!(world.responses.last(), Some(&(CALLER, request, passed_on)));
        assert_eq!(world.declined.last().map(|(_, retry_after)| *retry_after), told);
    }
}

#[test]
fn digits_and_messages_pass_to_whoever_is_joined_also_while_a_transfer_rings() {
    let mut world = World::ringing();
    for (from, method) in [(CALLER, "INFO"), (AGENT, "MESSAGE")] {
        let request = world.request_id();
        world.on(from, LegEvent::Request { request, method: method.into(), body: sdp("5") });
        let to = if from == CALLER { AGENT } else { CALLER };
        assert_eq!(world.relayed.pop(), Some((from, to, method.to_owned())));
    }
}

#[test]
fn digits_of_somebody_who_is_joined_with_nobody_yet_are_to_come_again() {
    let mut world = World::moving();
    let request = world.request_id();
    world.on(HUMAN, LegEvent::Request { request, method: "INFO".into(), body: None });
    assert_eq!(world.responses.last(), Some(&(HUMAN, request, 500)));
    assert_eq!(world.declined.last().unwrap().1, Some(2));
}

#[test]
fn a_change_that_is_taken_back_before_it_is_answered_is_taken_back_on_the_other_side_as_well() {
    for agreed in [true, false] {
        let mut world = World::answered();
        let request = world.request_id();
        world.on(CALLER, LegEvent::Reoffer { request, body: sdp("caller on hold") });
        world.on(CALLER, LegEvent::Withdrawn { request });
        if agreed {
            world.on(AGENT, accepted("agent holds"));
            assert_eq!(world.hears(AGENT), "caller");
            world.on(AGENT, accepted("agent"));
        } else {
            world.on(AGENT, LegEvent::ReofferRefused { code: 488, retry_after: None });
        }
        assert!(world.responses.is_empty(), "nobody waits for an answer");
        assert_eq!((world.hears(AGENT), world.hears(CALLER)), ("caller".into(), "agent".into()));
        let request = world.request_id();
        world.on(AGENT, LegEvent::Reoffer { request, body: sdp("agent elsewhere") });
        assert_eq!(world.hears(CALLER), "agent elsewhere", "nothing is in the way");
    }
}

#[test]
fn an_offer_that_was_asked_for_and_is_not_wanted_any_more_is_answered_all_the_same() {
    let mut world = World::answered();
    let request = world.request_id();
    world.on(CALLER, LegEvent::Reoffer { request, body: None });
    world.on(CALLER, LegEvent::Withdrawn { request });
    world.on(AGENT, accepted("agent elsewhere"));
    assert_eq!(world.hears(AGENT), "caller", "the ACK must hold an answer");
    assert_eq!(world.hears(CALLER), "agent elsewhere", "and the caller must know of the offer");
}

#[test]
fn a_side_that_does_not_follow_when_a_change_is_taken_back_ends_the_call() {
    let mut world = World::answered();
    let request = world.request_id();
    world.on(CALLER, LegEvent::Reoffer { request, body: sdp("caller on hold") });
    world.on(CALLER, LegEvent::Withdrawn { request });
    world.on(AGENT, accepted("agent holds"));
    world.on(AGENT, LegEvent::ReofferRefused { code: 488, retry_after: None });
    assert_eq!((world.call.end_reason(), world.state(CALLER)), (Some("media-lost"), State::HungUp));
}

fn moved(name: &str) -> Option<Body> {
    let Body { bytes, .. } = sdp(name).unwrap();
    Some(Body::sdp(
        String::from_utf8(bytes.to_vec()).unwrap().replace("audio 4000", "audio 4002").into_bytes(),
    ))
}

#[test]
fn an_agent_over_openai_is_not_asked_about_what_changes_nothing_for_it() {
    let mut world = World::answered_with(table_over_openai());
    let timer = world.leg(AGENT).dial.clone().unwrap().session;
    assert_eq!(timer, SessionPolicy::default(), "nor is its leg refreshed");
    let request = world.request_id();
    world.on(CALLER, LegEvent::Reoffer { request, body: sdp("caller on hold") });
    assert_eq!(world.responses.last(), Some(&(CALLER, request, 200)));
    assert_eq!(world.hears(CALLER), "agent");
    world.on(CALLER, LegEvent::Refreshed { body: sdp("caller again").unwrap() });
    assert!(world.leg(AGENT).reoffers.is_empty());
    world.transfer("sales");
    assert_eq!(world.hears(HUMAN), "caller again", "others are offered what the caller says now");

    let mut world = World::answered_with(table_over_openai());
    let request = world.request_id();
    world.on(CALLER, LegEvent::Reoffer { request, body: moved("caller elsewhere") });
    assert_eq!(world.hears(AGENT), "caller elsewhere", "it would send to where nobody is");
    world.on(AGENT, LegEvent::ReofferRefused { code: 488, retry_after: None });
    assert_eq!(world.responses.last(), Some(&(CALLER, request, 488)));
    assert_eq!((world.state(CALLER), world.state(AGENT)), (State::Answered, State::Answered));
}

#[test]
fn a_caller_who_wants_an_offer_gets_that_of_an_agent_over_openai_who_is_asked_only_if_it_must_follow() {
    for (answer, asked) in [(sdp("caller again"), false), (moved("caller elsewhere"), true), (None, false)] {
        let mut world = World::answered_with(table_over_openai());
        let request = world.request_id();
        world.on(CALLER, LegEvent::Reoffer { request, body: None });
        assert_eq!(world.responses.last(), Some(&(CALLER, request, 200)));
        assert_eq!(world.hears(CALLER), "agent");
        let meanwhile = world.request_id();
        world.on(CALLER, LegEvent::Reoffer { request: meanwhile, body: sdp("caller") });
        assert_eq!(world.responses.last(), Some(&(CALLER, meanwhile, 491)), "one change at a time");
        world.on(CALLER, LegEvent::Acked { body: answer.clone() });
        assert_eq!(!world.leg(AGENT).reoffers.is_empty(), asked, "{answer:?}");
    }
}
