//! Goes through every state of a small world that can be reached, whatever happens in whatever order.
//!
//! Breadth first, so that the way to a broken promise is a shortest one. States are told apart by 128-bit fingerprints.
//! Liveness is checked on the whole graph: from every state, without any further mishap, a state can be reached in which
//! everything is done.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::hash::Hash;

use siphasher::sip128::{Hasher128, SipHasher13};

/// A world with everything that can happen in it.
pub(super) trait Model: Clone + Hash {
    type Action: Clone + Debug;

    /// All that can happen now.
    fn actions(&self) -> Vec<Self::Action>;

    /// The world after it has happened; what is wrong with it, if a promise is broken.
    fn after(&self, action: &Self::Action) -> Result<Self, String>;

    /// Whether an action is progress: it happens sooner or later if it stays possible. Mishaps and wishes of people aren't.
    fn is_progress(action: &Self::Action) -> bool;

    /// Whether everything is done.
    fn is_done(&self) -> bool;

    /// The same world for all that are alike.
    fn canonical(self) -> Self {
        self
    }
}

/// How much there was to see.
pub(super) struct Explored {
    /// Worlds.
    pub states: usize,
    /// Ways from one to another.
    pub steps: usize,
    /// Worlds in which everything is done.
    pub done: usize,
}

/// Explores everything from `start` on; panics with the way to what is wrong.
pub(super) fn explore<M: Model>(start: M) -> Explored {
    let mut known = HashMap::new();
    // How each state was reached first.
    let mut reached: Vec<(u32, Option<M::Action>)> = Vec::new();
    let mut done = Vec::new();
    // Who leads to a state by progress.
    let mut from: Vec<(u32, u32)> = Vec::new();
    let mut open = VecDeque::new();
    let mut steps = 0;
    let start = start.canonical();
    known.insert(fingerprint(&start), 0);
    reached.push((0, None));
    open.push_back((0_u32, start));
    while let Some((number, world)) = open.pop_front() {
        if world.is_done() {
            done.push(number);
        }
        for action in world.actions() {
            steps += 1;
            let next = match world.after(&action) {
                Ok(next) => next.canonical(),
                Err(wrong) => panic!("{wrong}\n{}{action:?}", way(&reached, number)),
            };
            let fresh = u32::try_from(reached.len()).unwrap();
            let target = *known.entry(fingerprint(&next)).or_insert(fresh);
            if target == fresh {
                reached.push((number, Some(action.clone())));
                open.push_back((fresh, next));
            }
            if M::is_progress(&action) && target != number {
                from.push((target, number));
            }
        }
    }
    let (states, finished) = (reached.len(), done.len());
    if let Some(stuck) = hopeless(states, done, from) {
        panic!("from here on nothing leads to the end\n{}", way(&reached, stuck));
    }
    Explored { states, steps, done: finished }
}

/// A state from which no progress leads to one that is done.
fn hopeless(states: usize, done: Vec<u32>, mut from: Vec<(u32, u32)>) -> Option<u32> {
    from.sort_unstable();
    let mut hopeful = vec![false; states];
    let mut open = done;
    while let Some(state) = open.pop() {
        if std::mem::replace(&mut hopeful[state as usize], true) {
            continue;
        }
        let first = from.partition_point(|(target, _)| *target < state);
        open.extend(
            from[first..].iter().take_while(|(target, _)| *target == state).map(|(_, source)| *source),
        );
    }
    hopeful.iter().position(|hopeful| !hopeful).map(|state| u32::try_from(state).unwrap())
}

fn way<A: Debug>(reached: &[(u32, Option<A>)], mut state: u32) -> String {
    let mut actions = Vec::new();
    while let (before, Some(action)) = &reached[state as usize] {
        actions.push(format!("{action:?}\n"));
        state = *before;
    }
    actions.into_iter().rev().collect()
}

fn fingerprint(world: &impl Hash) -> u128 {
    let mut hasher = SipHasher13::new();
    world.hash(&mut hasher);
    hasher.finish128().as_u128()
}
