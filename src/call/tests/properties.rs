//! Whatever happens in whichever order: the promises of `call` hold.

use proptest::prelude::*;

use super::world::*;
use crate::call::{AskId, Command, Input, LegKey, Record, Timer, Wish};
use crate::sip::event::*;

/// Something that can happen now, given what each leg is in.
fn possible(world: &World, step: usize) -> Vec<(LegKey, u8)> {
    let mut events = Vec::new();
    for (key, leg) in &world.legs {
        let mut add = |kinds: &[u8]| events.extend(kinds.iter().map(|kind| (*key, *kind)));
        let (called_us, called) = (leg.dial.is_none(), *key != LegKey::Caller);
        match (key, leg.state) {
            (_, State::Over) => {}
            (_, State::Calling) if called_us => add(&[0]),
            (_, State::Answered) if called_us && !leg.acked => add(&[1, 2, 4]),
            (LegKey::Dialled(_), State::Calling | State::Ringing) => add(&[5, 6, 7, 8, 9, 10, 20, 30]),
            (_, State::HungUp) => add(&[3]),
            (_, _) => add(&[2, 11, 12, 13, 14, 15, 19, 27, 28, 29, 32, 34]),
        }
        if matches!(leg.state, State::Answered | State::HungUp) || called && !called_us {
            events.push((*key, 33));
        }
        if called && leg.dial.is_some() && leg.state != State::Over && step.is_multiple_of(4) {
            events.extend([(*key, 35), (*key, 36)]);
        }
        if leg.referred && leg.state == State::Answered {
            events.extend((21..27).map(|kind| (*key, kind)));
        }
        if leg.changing.is_some() && leg.state == State::Answered {
            events.push((*key, 31));
        }
        if !leg.reoffers.is_empty() && leg.state == State::Answered {
            events.extend([(*key, 16), (*key, 17), (*key, 18)]);
        }
    }
    events.extend(world.timers.keys().map(|timer| (LegKey::Caller, 100 + *timer as u8)));
    if !world.tells.is_empty() {
        events.extend([(LegKey::Caller, 130), (LegKey::Caller, 131), (LegKey::Caller, 132)]);
    }
    if world.saying.is_some() || world.farewell.is_some() {
        // Likely enough to be seen among all that can happen to a call meanwhile.
        events.extend([(LegKey::Caller, 130), (LegKey::Caller, 131)]);
    }
    events.extend([
        (LegKey::Caller, 133),
        (LegKey::Caller, 134),
        (LegKey::Caller, 135),
        (LegKey::Caller, 127),
        (LegKey::Caller, 124),
        (LegKey::Caller, 125),
        (LegKey::Caller, 126),
        (LegKey::Caller, 120),
        (LegKey::Caller, 121),
        (LegKey::Caller, 122),
        (LegKey::Caller, 123),
    ]);
    events
}

fn happen(world: &mut World, leg: LegKey, kind: u8, step: usize) {
    let request = world.request_id();
    let name = format!("{leg:?}-{step}");
    let event = match kind {
        0 => LegEvent::Ended(EndedBy::Cancel),
        1 => LegEvent::Acked { body: sdp(&name).filter(|_| world.leg(leg).offerless) },
        2 => LegEvent::Ended(EndedBy::Bye(None)),
        3 => LegEvent::Ended(EndedBy::Us),
        4 | 15 => LegEvent::Ended(EndedBy::Timeout),
        5 => LegEvent::Progress { code: 180, body: None },
        30 => LegEvent::Progress { code: 183, body: sdp(&name) },
        6 | 7 => LegEvent::Answered { body: sdp(&name) },
        8 => LegEvent::Refused { code: 486, reason: "Busy Here".into(), by: RefusedBy::Response },
        9 => LegEvent::Refused { code: 408, reason: String::new(), by: RefusedBy::Timeout },
        10 => LegEvent::Refused { code: 503, reason: String::new(), by: RefusedBy::Transport },
        21 => LegEvent::Response { request, code: 202 },
        22 => LegEvent::Response { request, code: 603 },
        23 => LegEvent::Referred { request, code: Some(180), ended: false },
        24 => LegEvent::Referred { request, code: Some(200), ended: true },
        25 => LegEvent::Referred { request, code: Some(486), ended: true },
        26 => LegEvent::Referred { request, code: None, ended: true },
        20 => LegEvent::Refused { code: 503, reason: String::new(), by: RefusedBy::Limit },
        11 => LegEvent::Reoffer { request, body: sdp(&name) },
        27 => LegEvent::Reoffer { request, body: sdp("caller") },
        31 => LegEvent::Withdrawn { request: world.leg(leg).changing.unwrap() },
        28 => LegEvent::Refreshed { body: sdp(&name).unwrap() },
        29 => LegEvent::Ended(EndedBy::Expired),
        12 => LegEvent::Request { request, method: "INFO".into(), body: None },
        13 => {
            world.refer(leg, "sales");
            return;
        }
        14 => {
            world.refer(leg, "strict");
            return;
        }
        19 => {
            world.refer(leg, "team");
            return;
        }
        16 => LegEvent::ReofferAccepted { body: sdp("caller") },
        17 => LegEvent::ReofferAccepted { body: sdp(&name) },
        18 => LegEvent::ReofferRefused { code: 488, retry_after: None },
        120 => return world.transfer("sales"),
        121 => return world.transfer("strict"),
        122 => return world.transfer("team"),
        123 => return world.transfer("queue"),
        124 => return world.transfer("desk"),
        125 => return world.transfer("lobby"),
        126 => return world.transfer_with("queue", Some("Until soon.")),
        32 => {
            world.refer(leg, "desk");
            return;
        }
        127 => return world.end(None),
        133 => return world.end(Some("Goodbye.")),
        134 => return world.say("Hello.", step.is_multiple_of(5)),
        135 => {
            let content = "The order has left.".to_owned();
            return world.input(Input::Command(Command::Inject { content, trigger_response: true }));
        }
        34 => {
            world.ask(leg, ["sales", "strict", "team", "desk", "night"][step % 5]);
            return;
        }
        35 => return world.input(Input::Asked { leg, ask: AskId(0), wish: Wish::End }),
        36 => return world.fail_agent(leg),
        33 => {
            world.replace(leg, sdp(&name).filter(|_| !step.is_multiple_of(7)));
            return;
        }
        130 => return world.told(Ok(())),
        131 => return world.told(Err("the hook answered 500")),
        // About something that was said before.
        132 => return world.input(Input::Told(world.tells[0].id, Ok(()))),
        timer => {
            let timer = [
                Timer::Message,
                Timer::Farewell,
                Timer::Ring,
                Timer::HandOver,
                Timer::Referral,
                Timer::ReleaseAgent,
            ][usize::from(timer - 100)];
            return world.fire(timer);
        }
    };
    world.on(leg, event);
}

/// How many transfers were started and how many of them have an outcome. One that was refused at once wasn't started.
fn transfers(world: &World) -> (usize, usize) {
    let (mut started, mut ended) = (0, 0);
    for record in &world.records {
        match record {
            Record::TransferStarted { .. } => started += 1,
            Record::TransferEnded(_) if ended < started => ended += 1,
            _ => {}
        }
    }
    (started, ended)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_leaves_a_leg_or_a_transfer_behind(
        fallback in any::<bool>(),
        backups in any::<bool>(),
        over_openai in any::<bool>(),
        choices in prop::collection::vec(any::<u16>(), 0..60),
    ) {
        let table = match (backups, over_openai) {
            (true, _) => table_with_backups(),
            (false, true) => table_over_openai(),
            (false, false) => table(fallback),
        };
        let mut world = World::with(table, sdp("caller"));
        for (step, choice) in choices.into_iter().enumerate() {
            let events = possible(&world, step);
            let (leg, kind) = events[usize::from(choice) % events.len()];
            happen(&mut world, leg, kind, step);
            let (started, ended) = transfers(&world);
            prop_assert!(started - ended <= 1, "one transfer at a time, one outcome each");
            let steps = [
                world.call.announcement.is_some(), world.call.attempt.is_some(), world.call.referral.is_some(),
            ];
            prop_assert!(steps.into_iter().filter(|there| *there).count() <= 1, "one step at a time");
            let waits = [world.call.farewell.is_some(), steps.contains(&true)];
            prop_assert!(waits != [true, true], "nothing goes on over a goodbye");
            prop_assert_eq!(world.call.farewell.is_some(), world.farewell.is_some());
            prop_assert_eq!(world.call.farewell.is_some(), world.timers.contains_key(&Timer::Farewell));
            prop_assert_eq!(world.call.announcement.is_some(), world.saying.is_some());
            prop_assert_eq!(world.call.announcement.is_some(), world.timers.contains_key(&Timer::Message));
            let live = |key: &LegKey| !matches!(world.state(*key), State::Over | State::HungUp);
            let dialled = world.legs.keys().filter(|key| **key != LegKey::Caller && live(key)).count();
            prop_assert!(dialled <= 3, "at most a peer, an attempt and an agent that is being released: {dialled}");
        }
        // The caller leaves, and whoever would take its place; whoever was hung up says goodbye: nothing may be left.
        let newcomers = world.legs.keys().copied().filter(|key| world.call.is_newcomer(*key)).collect::<Vec<_>>();
        for key in newcomers {
            world.on(key, LegEvent::Ended(EndedBy::Cancel));
        }
        if !matches!(world.state(LegKey::Caller), State::Over | State::HungUp) {
            world.on(LegKey::Caller, LegEvent::Ended(EndedBy::Bye(None)));
        }
        if world.timers.contains_key(&Timer::ReleaseAgent) {
            world.fire(Timer::ReleaseAgent);
        }
        world.settle();
        for (key, leg) in &world.legs {
            prop_assert_eq!(leg.state, State::Over, "{:?} was left behind", key);
            prop_assert!(leg.requests.is_empty(), "a request on {:?} was never answered", key);
        }
        prop_assert!(world.call.is_gone());
        prop_assert!(world.timers.is_empty(), "timers are left: {:?}", world.timers);
        let (started, ended) = transfers(&world);
        prop_assert_eq!(started, ended);
        let over = world.records.iter().filter(|record| matches!(record, Record::Ended { .. })).count();
        prop_assert_eq!(over, 1);
    }

    #[test]
    fn a_caller_always_hears_whoever_the_call_says_it_is_joined_with(
        reliable in any::<bool>(),
        over_openai in any::<bool>(),
        choices in prop::collection::vec(any::<u16>(), 0..60),
    ) {
        let table = if over_openai { table_over_openai() } else { table(false) };
        let reliability = if reliable { Reliability::Known } else { Reliability::Unknown };
        let mut world = World::called(table, |incoming| incoming.reliability = reliability);
        for (step, choice) in choices.into_iter().enumerate() {
            let events = possible(&world, step);
            let (leg, kind) = events[usize::from(choice) % events.len()];
            happen(&mut world, leg, kind, step);
            let changing = world.call.attempt.is_some() || world.call.exchange.is_some() || world.call.catching_up;
            let quiet = !changing && world.call.end_reason().is_none();
            if let (true, Some(peer)) = (quiet, &world.call.peer) {
                prop_assert_eq!(world.hears(LegKey::Caller), whose(&peer.sdp));
            }
        }
        // A late timer finds nothing to do.
        world.input(Input::Timer(Timer::HandOver));
    }
}
