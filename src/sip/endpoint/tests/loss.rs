//! Whatever two endpoints are told to do, and whatever the network loses or delays: every leg ends once, and nothing is left.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::net::*;
use crate::sip::endpoint::leg::Leg;
use crate::sip::event::{LegEvent, LegId, RequestId};

#[derive(Clone, Debug)]
enum Step {
    Invite { offer: bool },
    Progress { media: bool },
    Answer,
    Refuse,
    Reoffer { offer: bool },
    Respond(u16),
    Ack,
    Info,
    HangUp,
    Fail,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<bool>().prop_map(|offer| Step::Invite { offer }),
        2 => any::<bool>().prop_map(|media| Step::Progress { media }),
        4 => Just(Step::Answer),
        1 => Just(Step::Refuse),
        3 => any::<bool>().prop_map(|offer| Step::Reoffer { offer }),
        4 => prop_oneof![Just(200u16), Just(488), Just(183)].prop_map(Step::Respond),
        3 => Just(Step::Ack),
        2 => Just(Step::HangUp),
        1 => prop::bool::weighted(0.3).prop_map(|fail| if fail { Step::Fail } else { Step::Info }),
        8 => prop_oneof![4 => 0u64..60, 2 => 100u64..6_000, 1 => Just(33_000)].prop_map(Step::Wait),
    ]
}

/// The legs of both sides as their events tell.
#[derive(Default)]
struct Book {
    legs: Vec<(&'static str, LegId)>,
    open: HashMap<(&'static str, LegId), RequestId>,
    ended: HashSet<(&'static str, LegId)>,
}

impl Book {
    fn of(&self, side: &str) -> Vec<(&'static str, LegId)> {
        self.legs.iter().filter(|leg| leg.0 == side).copied().collect()
    }

    fn read(&mut self, net: &mut Net) {
        for side in [A, B] {
            for (leg, event) in net.events(side) {
                assert!(!self.ended.contains(&(side, leg)), "{event:?} after the end of {leg:?} of {side}");
                match event {
                    LegEvent::Incoming(_) => self.legs.push((side, leg)),
                    LegEvent::Reoffer { request, .. } | LegEvent::Request { request, .. } => {
                        self.open.insert((side, leg), request);
                    }
                    LegEvent::Ended(_) | LegEvent::Refused { .. } => {
                        self.ended.insert((side, leg));
                    }
                    _ => {}
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_leg_ends_once_and_leaves_nothing(
        steps in proptest::collection::vec((step(), any::<bool>(), any::<prop::sample::Index>()), 1..40),
        loss in prop_oneof![2 => Just(0u64), 1 => 5u64..60],
        dice in 1u64..,
        first in any::<bool>(),
        jitter in prop_oneof![Just(0u64), 1u64..800],
    ) {
        let mut net = Net::new();
        (net.loss, net.dice, net.jitter) = (loss, dice, jitter);
        let mut book = Book::default();
        let (us, them) = if first { (A, B) } else { (B, A) };
        book.legs.push((us, net.act(us, |e, now| e.invite(call_to(them), now))));
        net.run(15);
        book.read(&mut net);
        let failed = steps.iter().any(|(step, ..)| matches!(step, Step::Fail));
        for (step, side, which) in steps {
            let (us, them) = if side { (A, B) } else { (B, A) };
            if let Step::Invite { offer } = step {
                let mut invite = call_to(them);
                invite.offer = invite.offer.filter(|_| offer);
                book.legs.push((us, net.act(us, |e, now| e.invite(invite, now))));
            } else if let Step::Wait(millis) = step {
                net.run(millis);
            } else if !book.legs.is_empty() {
                let (side, leg) = book.legs[which.index(book.legs.len())];
                let request = book.open.get(&(side, leg)).copied();
                net.act(side, |e, now| match step {
                    Step::Progress { media } => e.progress(leg, 183, sdp("early").filter(|_| media), now),
                    Step::Answer => e.answer(leg, sdp("answer"), now),
                    Step::Refuse => e.refuse(leg, 486, &[], now),
                    Step::Reoffer { offer } => e.reoffer(leg, sdp("new").filter(|_| offer), now),
                    Step::Respond(code) => {
                        if let Some(request) = request {
                            e.respond(leg, request, code, sdp("fine"), now);
                        }
                    }
                    Step::Ack => e.ack(leg, sdp("answer"), now),
                    Step::Info => {
                        e.request(leg, "INFO", sdp("5"), now);
                    }
                    Step::HangUp => e.hang_up(leg, None, now),
                    Step::Fail => e.transport_failed(flow(if side == A { B } else { A }), now),
                    Step::Invite { .. } | Step::Wait(_) => {}
                });
            }
            book.read(&mut net);
        }
        // On a network that lost nothing it is enough that one side hangs up.
        if loss == 0 && !failed {
            net.run(5_000);
            book.read(&mut net);
            for leg in book.of(if first { A } else { B }) {
                net.act(leg.0, |e, now| e.hang_up(leg.1, None, now));
            }
            net.run(64_000);
            book.read(&mut net);
            for leg in &book.legs {
                prop_assert!(book.ended.contains(leg), "{leg:?} never heard that the other side hung up");
            }
        }
        for _ in 0..2 {
            // Twice, for a call whose INVITE arrives only after the first time.
            for side in [A, B] {
                for leg in book.of(side) {
                    net.act(side, |e, now| e.hang_up(leg.1, None, now));
                }
            }
            net.run(64_000);
            book.read(&mut net);
        }
        for leg in &book.legs {
            prop_assert!(book.ended.contains(leg), "{leg:?} never ended");
        }
        net.assert_quiet();
    }
}

#[test]
fn a_held_leg_stays_small() {
    let bytes = size_of::<Leg>();
    assert!(bytes <= 704, "a leg has {bytes} bytes without what its dialog's values need (about 400)");
}
