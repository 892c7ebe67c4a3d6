//! One test for each way a call can go, races included.

use std::sync::Arc;
use std::time::Duration;

use super::world::*;
use crate::call::{CommandRefusal, LegKey, Record, Status, Telling, Timer};
use crate::routing::decide::Limit;
use crate::routing::table::ObjectKey;
use crate::sip::event::*;

#[test]
fn a_call_is_answered_with_the_agents_answer() {
    let mut world = World::new();
    assert_eq!(world.hears(AGENT), "caller");
    world.on(AGENT, LegEvent::Progress { code: 180, body: None });
    world.on(AGENT, LegEvent::Answered { body: sdp("agent") });
    assert_eq!(world.hears(CALLER), "agent");
    assert_eq!(world.call.status(), Status::InProgress);
}

#[test]
fn the_agent_learns_which_call_it_gets() {
    let mut world = World::new();
    let headers = world.leg(AGENT).dial.clone().unwrap().headers;
    for (name, value) in [
        ("X-VoiceDock-Call-Id", "call_1"),
        ("X-VoiceDock-Assistant", "acme/support"),
        ("X-VoiceDock-Number", "+31201234567"),
        ("X-Tenant", "acme"),
    ] {
        assert!(headers.contains(&(name.into(), value.into())), "{headers:?}");
    }
}

#[test]
fn an_agent_that_refuses_is_followed_by_its_next_address_and_then_480() {
    let mut world = World::new();
    world.on(AGENT, refused(503));
    assert_eq!(world.state(LegKey::Dialled(1)), State::Calling);
    world.on(LegKey::Dialled(1), refused(486));
    assert_eq!(world.state(CALLER), State::Over);
    assert_eq!(world.call.status(), Status::Failed);
    assert!(world.call.is_gone());
}

#[test]
fn a_silent_agent_is_cancelled_and_followed_by_its_next_address() {
    let mut world = World::new();
    world.fire(Timer::Ring);
    assert_eq!(world.state(AGENT), State::HungUp);
    world.on(LegKey::Dialled(1), LegEvent::Answered { body: sdp("second") });
    assert_eq!(world.hears(CALLER), "second");
}

#[test]
fn a_caller_whose_assistant_is_unavailable_gets_the_fallback() {
    let mut world = World::with(table(true), sdp("caller"));
    world.on(LegKey::Dialled(0), refused(500));
    world.on(LegKey::Dialled(1), refused(500));
    world.on(LegKey::Dialled(2), LegEvent::Answered { body: sdp("reception") });
    assert_eq!(world.hears(CALLER), "reception");
    assert_eq!(world.call.status(), Status::InProgress);
}

#[test]
fn a_caller_without_an_offer_gets_the_agents_offer_and_the_agent_its_answer() {
    let mut world = World::with(table(false), None);
    world.on(AGENT, LegEvent::Answered { body: sdp("agent") });
    assert_eq!(world.hears(CALLER), "agent");
    world.on(CALLER, LegEvent::Acked { body: sdp("caller") });
    assert_eq!(world.hears(AGENT), "caller");
}

#[test]
fn a_caller_who_cancels_takes_the_ringing_agent_along() {
    let mut world = World::new();
    world.on(CALLER, LegEvent::Ended(EndedBy::Cancel));
    assert_eq!(world.state(AGENT), State::HungUp);
    assert!(!world.call.is_gone(), "the agent's goodbye is awaited");
    world.settle();
    assert!(world.call.is_gone());
}

#[test]
fn whoever_hangs_up_takes_the_other_one_along() {
    for (first, second) in [(CALLER, AGENT), (AGENT, CALLER)] {
        let mut world = World::answered();
        world.on(first, LegEvent::Ended(EndedBy::Bye(None)));
        assert_eq!(world.state(second), State::HungUp);
        world.settle();
        assert!(world.call.is_gone());
        assert_eq!(world.call.status(), Status::Ended);
    }
}

#[test]
fn an_agent_that_is_lost_in_a_call_is_followed_by_the_fallback() {
    let mut world = World::with(table(true), sdp("caller"));
    world.on(AGENT, LegEvent::Answered { body: sdp("agent") });
    world.on(AGENT, LegEvent::Ended(EndedBy::Timeout));
    assert_ne!(world.state(CALLER), State::HungUp);
    world.on(HUMAN, LegEvent::Answered { body: sdp("reception") });
    world.on(CALLER, accepted("caller"));
    assert_eq!(world.hears(CALLER), "reception");
}

#[test]
fn a_transfer_by_refer_joins_caller_and_human_and_tells_the_agent() {
    let mut world = World::moving();
    assert_eq!(world.hears(HUMAN), "caller");
    assert_eq!(world.hears(CALLER), "human");
    assert_eq!(world.state(AGENT), State::Answered, "the agent is left alone until the caller has moved");
    world.on(CALLER, accepted("caller"));
    assert_eq!(world.outcomes(), ["answered"]);
    assert_eq!(world.notified(AGENT), [(100, false), (180, false), (200, true)]);
    world.fire(Timer::ReleaseAgent);
    assert_eq!(world.state(AGENT), State::HungUp);
    world.on(HUMAN, LegEvent::Ended(EndedBy::Bye(None)));
    assert_eq!(world.state(CALLER), State::HungUp);
    world.settle();
    assert!(world.call.is_gone());
}

#[test]
fn an_agent_that_hangs_up_after_its_transfers_success_ends_nothing() {
    let mut world = World::moving();
    world.on(CALLER, accepted("caller"));
    world.on(AGENT, LegEvent::Ended(EndedBy::Bye(None)));
    assert!(world.timers.is_empty(), "{:?}", world.timers);
    assert_eq!((world.state(CALLER), world.state(HUMAN)), (State::Answered, State::Answered));
}

#[test]
fn a_transfer_by_api_releases_the_agent_at_once() {
    let mut world = World::answered();
    world.transfer("sales");
    assert_eq!(world.replies, [Ok(())]);
    world.on(HUMAN, LegEvent::Answered { body: sdp("human") });
    world.on(CALLER, accepted("caller"));
    assert_eq!(world.state(AGENT), State::HungUp);
    assert_eq!(world.outcomes(), ["answered"]);
}

#[test]
fn a_caller_that_changes_its_media_while_moving_is_made_known_to_the_human() {
    let mut world = World::moving();
    world.on(CALLER, accepted("caller-elsewhere"));
    assert_eq!(world.hears(HUMAN), "caller-elsewhere");
    assert!(world.outcomes().is_empty(), "not joined before the human knows");
    world.on(HUMAN, accepted("human"));
    assert_eq!(world.outcomes(), ["answered"]);
}

#[test]
fn every_refusal_has_its_outcome_and_leaves_the_caller_with_the_assistant() {
    for (code, outcome, told) in [
        (486, "busy", 486),
        (600, "busy", 600),
        (480, "no-answer", 480),
        (408, "no-answer", 480),
        (603, "rejected", 603),
        (403, "rejected", 403),
        (404, "unreachable", 404),
        (503, "unreachable", 503),
    ] {
        let mut world = World::ringing();
        world.on(HUMAN, refused(code));
        assert_eq!(world.outcomes(), [outcome], "{code}");
        assert_eq!(world.notified(AGENT).last(), Some(&(told, true)), "{code}");
        assert_eq!(world.hears(CALLER), "agent");
        assert_eq!((world.state(CALLER), world.state(AGENT)), (State::Answered, State::Answered));
        world.refer(AGENT, "sales");
        assert_eq!(world.state(LegKey::Dialled(2)), State::Calling, "another transfer can follow");
    }
}

#[test]
fn a_human_who_does_not_answer_is_cancelled_and_the_caller_stays_with_the_assistant() {
    let mut world = World::ringing();
    world.fire(Timer::Ring);
    assert_eq!(world.state(HUMAN), State::HungUp);
    assert_eq!(world.outcomes(), ["no-answer"]);
    world.on(HUMAN, LegEvent::Refused { code: 487, reason: String::new(), by: RefusedBy::Cancelled });
    assert_eq!(world.outcomes(), ["no-answer"], "one outcome each");
    assert_eq!(world.state(AGENT), State::Answered);
}

#[test]
fn a_caller_who_hangs_up_while_the_human_rings_takes_the_human_along() {
    let mut world = World::ringing();
    world.on(CALLER, LegEvent::Ended(EndedBy::Bye(None)));
    assert_eq!((world.state(HUMAN), world.state(AGENT)), (State::HungUp, State::HungUp));
    assert_eq!(world.outcomes(), ["caller-hung-up"]);
    world.settle();
    assert!(world.call.is_gone());
}

#[test]
fn a_caller_who_hangs_up_while_being_moved_takes_everybody_along() {
    let mut world = World::moving();
    world.on(CALLER, LegEvent::Ended(EndedBy::Bye(None)));
    assert_eq!(world.outcomes(), ["caller-hung-up"]);
    world.settle();
    assert!(world.call.is_gone());
}

#[test]
fn a_human_who_hangs_up_while_the_re_invite_is_in_flight_sends_the_caller_back_to_the_assistant() {
    let mut world = World::moving();
    world.on(HUMAN, LegEvent::Ended(EndedBy::Bye(None)));
    assert!(world.outcomes().is_empty(), "the re-INVITE's answer is awaited");
    world.on(CALLER, accepted("caller"));
    assert_eq!(world.hears(CALLER), "agent");
    world.on(CALLER, accepted("caller"));
    assert_eq!(world.outcomes(), ["rejected"]);
    assert_eq!((world.state(CALLER), world.state(AGENT)), (State::Answered, State::Answered));
}

#[test]
fn a_caller_whose_phone_refuses_to_move_keeps_the_assistant() {
    let mut world = World::moving();
    world.on(CALLER, LegEvent::ReofferRefused { code: 488, retry_after: None });
    assert_eq!(world.outcomes(), ["rejected"]);
    assert_eq!(world.state(HUMAN), State::HungUp);
    assert_eq!(world.leg(CALLER).reoffers.len(), 0, "the session with the assistant stands as it is");
}

#[test]
fn a_human_who_refuses_the_callers_changed_media_is_released_and_the_caller_goes_back() {
    let mut world = World::moving();
    world.on(CALLER, accepted("caller-elsewhere"));
    world.on(HUMAN, LegEvent::ReofferRefused { code: 488, retry_after: None });
    assert_eq!(world.hears(CALLER), "agent");
    world.on(CALLER, accepted("caller"));
    assert_eq!(world.outcomes(), ["rejected"]);
    assert_eq!(world.state(HUMAN), State::HungUp);
}

#[test]
fn an_agent_that_hangs_up_while_its_transfer_rings_does_not_end_the_call() {
    let mut world = World::ringing();
    world.on(AGENT, LegEvent::Ended(EndedBy::Bye(None)));
    assert_eq!(world.state(CALLER), State::Answered);
    world.on(HUMAN, LegEvent::Answered { body: sdp("human") });
    world.on(CALLER, accepted("caller"));
    assert_eq!(world.outcomes(), ["answered"]);
}

#[test]
fn a_failed_transfer_whose_agent_left_calls_the_assistant_back() {
    let mut world = World::ringing();
    world.on(AGENT, LegEvent::Ended(EndedBy::Bye(None)));
    world.on(HUMAN, refused(486));
    assert_eq!(world.outcomes(), ["busy"]);
    let again = LegKey::Dialled(2);
    world.on(again, LegEvent::Answered { body: sdp("agent again") });
    world.on(CALLER, accepted("caller"));
    assert_eq!(world.hears(CALLER), "agent again");
    assert_eq!(world.joined, [(AGENT, false), (again, true)], "it doesn't greet a stranger");
    let Telling::Context { content, trigger_response: true } = &world.tells.last().unwrap().what else {
        panic!("{:?}", world.tells)
    };
    assert!(
        content.contains("to be transferred to sales, which did not work out (busy: 486 No)"),
        "{content}"
    );
    world.refer(again, "sales");
    assert_eq!(world.state(LegKey::Dialled(3)), State::Calling, "it is an agent as before");
}

#[test]
fn a_destination_that_says_hang_up_ends_the_call_when_it_fails() {
    let mut world = World::answered();
    world.transfer("strict");
    world.on(HUMAN, refused(486));
    assert_eq!((world.state(CALLER), world.state(AGENT)), (State::HungUp, State::HungUp));
    assert_eq!(world.outcomes(), ["busy"]);
}

#[test]
fn a_destination_that_can_not_be_had_is_followed_by_the_next_and_the_outcome_tells_of_all() {
    let mut world = World::answered();
    world.refer(AGENT, "team");
    world.on(HUMAN, LegEvent::Progress { code: 180, body: None });
    world.on(HUMAN, refused(486));
    assert!(world.outcomes().is_empty(), "the transfer goes on");
    let sales = LegKey::Dialled(2);
    assert_eq!(world.leg(sales).dial.clone().unwrap().target.uri, "sip:+31612345678@198.51.100.1:5060");
    world.fire(Timer::Ring);
    assert_eq!(world.state(sales), State::HungUp);
    let strict = LegKey::Dialled(3);
    world.on(strict, LegEvent::Answered { body: sdp("third") });
    world.on(CALLER, accepted("caller"));
    assert_eq!(world.hears(CALLER), "third");
    assert_eq!(world.outcomes(), ["answered"]);
    let tries = [("team", "busy"), ("sales", "unreachable"), ("night", "closed"), ("strict", "answered")];
    assert_eq!(world.tries(), tries.map(|(name, outcome)| (name.to_owned(), outcome)));
    let told = [(100, false), (180, false), (181, false), (181, false), (200, true)];
    assert_eq!(world.notified(AGENT), told);
}

#[test]
fn a_caller_whom_nobody_of_a_chain_took_goes_where_the_first_one_says() {
    let mut world = World::answered();
    world.transfer("team");
    for leg in [HUMAN, LegKey::Dialled(2), LegKey::Dialled(3)] {
        assert_eq!(world.state(leg), State::Calling);
        world.on(leg, refused(486));
    }
    assert_eq!(world.outcomes(), ["busy"]);
    assert_eq!((world.state(CALLER), world.hears(CALLER)), (State::Answered, "agent".into()));
}

#[test]
fn a_caller_who_hangs_up_ends_the_chain() {
    let mut world = World::answered();
    world.transfer("team");
    world.on(HUMAN, refused(486));
    world.on(CALLER, LegEvent::Ended(EndedBy::Bye(None)));
    assert_eq!(world.outcomes(), ["caller-hung-up"]);
    world.settle();
    assert!(world.call.is_gone());
    assert_eq!(world.legs.len(), 4, "nobody else is called");
}

#[test]
fn a_hand_over_that_fails_is_not_tried_with_the_next_one() {
    let mut world = World::answered();
    world.transfer("team");
    world.on(HUMAN, LegEvent::Answered { body: sdp("human") });
    world.on(CALLER, LegEvent::ReofferRefused { code: 488, retry_after: None });
    assert_eq!(world.outcomes(), ["rejected"]);
    assert_eq!(world.legs.len(), 3, "its phone would refuse the next one too");
}

#[test]
fn a_fallback_that_can_not_be_had_is_followed_by_the_next() {
    let mut table = table(true);
    let sales = table.destinations.get_mut(&ObjectKey::new("acme", "sales")).unwrap();
    Arc::make_mut(sales).then = vec![ObjectKey::new("acme", "night"), ObjectKey::new("acme", "strict")];
    let mut world = World::with(table, sdp("caller"));
    for leg in 0..3 {
        world.on(LegKey::Dialled(leg), refused(503));
    }
    world.on(LegKey::Dialled(3), LegEvent::Answered { body: sdp("reception") });
    assert_eq!(world.hears(CALLER), "reception");
}

#[test]
fn a_host_that_does_not_take_the_call_is_followed_by_the_trunks_next_one() {
    let by = |by, code| LegEvent::Refused { code, reason: String::new(), by };
    let mut world = World::answered_with(table_with_backups());
    world.transfer("sales");
    let hosts = |world: &mut World, leg: u16| {
        let dial = world.leg(LegKey::Dialled(leg)).dial.clone().unwrap();
        (dial.target.host, dial.target.uri, dial.patience.is_some())
    };
    let uri = "sip:+31612345678@198.51.100.1:5060";
    assert_eq!(hosts(&mut world, 1), ("198.51.100.1".into(), uri.into(), true));
    world.on(HUMAN, by(RefusedBy::Timeout, 408));
    let uri = "sip:+31612345678@198.51.100.2";
    assert_eq!(hosts(&mut world, 2), ("198.51.100.2".into(), uri.into(), true));
    world.on(LegKey::Dialled(2), by(RefusedBy::Transport, 503));
    assert!(!hosts(&mut world, 3).2, "there is no other host: it is waited for");
    world.on(LegKey::Dialled(3), LegEvent::Progress { code: 180, body: None });
    world.on(LegKey::Dialled(3), refused(486));
    assert_eq!(
        world.tries(),
        ["unreachable", "unreachable", "busy"].map(|outcome| ("sales".to_owned(), outcome))
    );
    assert_eq!(world.outcomes(), ["busy"]);
}

#[test]
fn an_answer_that_speaks_of_the_callee_or_is_final_is_not_tried_elsewhere() {
    for (code, legs) in
        [(503, 4), (500, 4), (408, 4), (502, 3), (486, 3), (404, 3), (480, 3), (603, 3), (302, 3)]
    {
        let mut world = World::answered_with(table_with_backups());
        world.transfer("sales");
        world.on(HUMAN, refused(code));
        assert_eq!(world.legs.len(), legs, "{code}");
    }
}

#[test]
fn a_destination_that_rings_on_a_backup_too_long_is_not_tried_elsewhere_but_a_silent_one_is() {
    let mut world = World::answered_with(table_with_backups());
    world.transfer("sales");
    world.fire(Timer::Ring);
    assert_eq!(world.state(LegKey::Dialled(2)), State::Calling, "the host never said that it rings");
    world.on(LegKey::Dialled(2), LegEvent::Progress { code: 180, body: None });
    world.fire(Timer::Ring);
    assert_eq!(world.outcomes(), ["no-answer"]);
}

#[test]
fn a_fallback_is_tried_at_the_trunks_next_host() {
    let mut world = World::with(table_with_backups(), sdp("caller"));
    for leg in 0..3 {
        world.on(LegKey::Dialled(leg), refused(503));
    }
    assert_eq!(world.leg(LegKey::Dialled(3)).dial.clone().unwrap().target.host, "198.51.100.2");
    world.on(LegKey::Dialled(3), LegEvent::Answered { body: sdp("reception") });
    assert_eq!(world.hears(CALLER), "reception");
}

#[test]
fn a_trunk_that_carries_as_much_as_it_may_is_not_dialled() {
    let mut world = World::answered();
    world.carried.0 = Some(Limit::Calls(50));
    let request = world.refer(AGENT, "sales");
    assert_eq!(world.responses.last(), Some(&(AGENT, request, 403)));
    assert!(world.declined[0].0.contains("outbound.maxConcurrentCalls"), "{:?}", world.declined);
    world.transfer("sales");
    assert!(matches!(world.replies.last(), Some(Err(CommandRefusal::Refused(_)))), "{:?}", world.replies);
    assert_eq!(world.outcomes(), ["not-allowed", "not-allowed"]);
    assert_eq!(world.legs.len(), 2);
}

#[test]
fn a_call_that_was_one_too_many_when_it_should_be_sent_is_not_allowed_and_the_next_one_is_tried() {
    let full = || LegEvent::Refused { code: 503, reason: "full".into(), by: RefusedBy::Limit };
    let mut world = World::answered();
    world.transfer("team");
    world.on(HUMAN, full());
    let sales = LegKey::Dialled(2);
    assert_eq!(world.leg(sales).dial.clone().unwrap().line.unwrap().0, ObjectKey::new("acme", "carrier"));
    world.on(sales, full());
    world.on(LegKey::Dialled(3), full());
    assert_eq!(world.outcomes(), ["not-allowed"]);
    let Some(Record::TransferEnded(ended)) = world.records.last() else { panic!("{:?}", world.records) };
    assert_eq!((ended.attempts(), ended.last.sip_code), (0, None), "nothing was sent");
    assert_eq!((world.state(CALLER), world.hears(CALLER)), (State::Answered, "agent".into()));
}

#[test]
fn the_time_that_a_human_rang_is_told_also_when_the_caller_hangs_up() {
    let mut world = World::ringing();
    world.now = world.now + Duration::from_secs(12);
    world.on(CALLER, LegEvent::Ended(EndedBy::Bye(None)));
    let Some(Record::TransferEnded(ended)) =
        world.records.iter().find(|record| matches!(record, Record::TransferEnded(_)))
    else {
        panic!("no outcome: {:?}", world.records);
    };
    assert_eq!((ended.attempts(), ended.ring_time()), (1, Duration::from_secs(12)));
}

#[test]
fn a_hand_over_that_hangs_is_undone() {
    let mut world = World::moving();
    world.fire(Timer::HandOver);
    assert_eq!(world.state(HUMAN), State::HungUp);
    world.on(CALLER, LegEvent::ReofferRefused { code: 408, retry_after: None });
    assert_eq!(world.outcomes(), ["unknown"]);
    assert_eq!(world.state(AGENT), State::Answered);
}

#[test]
fn an_unknown_destination_is_refused_and_nothing_is_dialled() {
    let mut world = World::answered();
    let request = world.refer(AGENT, "the-boss");
    assert_eq!(world.responses.last(), Some(&(AGENT, request, 404)));
    assert_eq!(world.outcomes(), ["not-allowed"]);
    world.transfer("the-boss");
    assert!(matches!(world.replies.last(), Some(Err(CommandRefusal::Refused(_)))), "{:?}", world.replies);
    assert_eq!(world.legs.len(), 2);
}

#[test]
fn a_destination_that_is_closed_is_not_dialled_and_the_agent_hears_when_it_opens() {
    let mut world = World::answered();
    let request = world.refer(AGENT, "night");
    assert_eq!(world.responses.last(), Some(&(AGENT, request, 480)));
    let why = "destination night is closed; it opens Monday 5 January 2026 at 22:00 in Europe/Amsterdam";
    let in_twelve_hours = 12 * 3600 - 1;
    assert_eq!(world.declined, [(why.to_owned(), Some(in_twelve_hours))]);
    assert_eq!(world.outcomes(), ["closed"]);
    assert_eq!(world.legs.len(), 2);
    assert_eq!((world.state(CALLER), world.hears(CALLER)), (State::Answered, "agent".into()));
    world.transfer("night");
    assert!(matches!(world.replies.last(), Some(Err(CommandRefusal::Refused(_)))), "{:?}", world.replies);
    world.now = world.now + Duration::from_secs(12 * 3600);
    world.transfer("night");
    assert_eq!(world.state(HUMAN), State::Calling, "it is open now");
}

#[test]
fn a_number_that_the_assistant_does_not_list_is_refused_to_the_agent() {
    let mut world = World::answered();
    let request = world.refer(AGENT, "+31699999999");
    assert_eq!(world.responses.last(), Some(&(AGENT, request, 404)));
    assert_eq!(world.legs.len(), 2);
}

#[test]
fn an_agent_may_leave_out_the_plus_of_a_number_that_is_listed() {
    let mut world = World::answered();
    let request = world.refer(AGENT, "31612345678");
    assert_eq!(world.responses.last(), Some(&(AGENT, request, 202)));
    assert_eq!(world.state(HUMAN), State::Calling);
}

#[test]
fn only_the_agent_may_ask_for_a_transfer() {
    let mut world = World::answered();
    let request = world.refer(CALLER, "sales");
    assert_eq!(world.responses.last(), Some(&(CALLER, request, 603)));
    assert_eq!(world.legs.len(), 2);
}

#[test]
fn one_transfer_at_a_time() {
    let mut world = World::ringing();
    world.transfer("sales");
    assert_eq!(world.replies, [Err(CommandRefusal::TransferUnderWay)]);
    let request = world.refer(AGENT, "sales");
    assert_eq!(world.responses.last(), Some(&(AGENT, request, 491)));
}

#[test]
fn a_call_that_is_not_answered_yet_can_not_be_transferred() {
    let mut world = World::new();
    world.transfer("sales");
    assert_eq!(world.replies, [Err(CommandRefusal::NotActive)]);
}

#[test]
fn the_end_of_a_drain_tells_every_leg() {
    let mut world = World::ringing();
    world.shut_down();
    for leg in [CALLER, AGENT, HUMAN] {
        assert_eq!(world.state(leg), State::HungUp);
    }
    assert_eq!(world.outcomes(), ["unknown"]);
    world.settle();
    assert!(world.call.is_gone());
}

#[test]
fn a_caller_whose_own_change_is_under_way_moves_after_it() {
    let mut world = World::ringing();
    let request = world.request_id();
    world.on(CALLER, LegEvent::Reoffer { request, body: sdp("caller-new") });
    world.on(HUMAN, LegEvent::Answered { body: sdp("human") });
    assert!(world.leg(CALLER).reoffers.is_empty(), "one change at a time");
    world.on(AGENT, accepted("agent-new"));
    assert!(world.responses.contains(&(CALLER, request, 200)));
    assert_eq!(world.hears(CALLER), "human", "asked to move after the answer to its own change");
    world.on(CALLER, accepted("caller-new"));
    assert_eq!(world.hears(HUMAN), "caller-new");
    world.on(HUMAN, accepted("human"));
    assert_eq!(world.outcomes(), ["answered"]);
}

#[test]
fn a_callers_answer_to_an_agent_that_left_is_not_taken_for_its_answer_to_the_hand_over() {
    let mut world = World::ringing();
    let request = world.request_id();
    world.on(AGENT, LegEvent::Reoffer { request, body: sdp("agent-new") });
    world.on(HUMAN, LegEvent::Answered { body: sdp("human") });
    world.on(AGENT, LegEvent::Ended(EndedBy::Bye(None)));
    assert_eq!(world.hears(CALLER), "agent-new");
    world.on(CALLER, accepted("caller"));
    assert!(world.outcomes().is_empty(), "the caller has only answered the agent");
    assert_eq!(world.hears(CALLER), "human");
    world.on(CALLER, accepted("caller"));
    assert_eq!(world.outcomes(), ["answered"]);
}

#[test]
fn a_human_who_leaves_before_the_caller_could_be_asked_to_move_changes_nothing() {
    let mut world = World::ringing();
    let request = world.request_id();
    world.on(CALLER, LegEvent::Reoffer { request, body: sdp("caller-new") });
    world.on(HUMAN, LegEvent::Answered { body: sdp("human") });
    world.on(HUMAN, LegEvent::Ended(EndedBy::Bye(None)));
    assert_eq!(world.outcomes(), ["rejected"]);
    world.on(AGENT, accepted("agent-new"));
    assert_eq!(world.hears(CALLER), "agent-new");
    assert!(world.leg(CALLER).reoffers.is_empty() && world.timers.is_empty());
}

#[test]
fn a_caller_who_can_not_follow_the_human_is_not_left_in_silence() {
    let mut world = World::moving();
    world.on(CALLER, accepted("caller-elsewhere"));
    world.on(HUMAN, accepted("human-elsewhere"));
    assert_eq!(world.hears(CALLER), "human-elsewhere");
    world.on(CALLER, LegEvent::ReofferRefused { code: 488, retry_after: None });
    assert_eq!(world.call.end_reason(), Some("hand-over-failed"));
    world.settle();
    assert!(world.call.is_gone());
}
