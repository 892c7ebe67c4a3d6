//! What happened within the last half minute, by key: for decisions that a copy of a message must meet again.
//!
//! Callers repeat an INVITE for 32 s (RFC 3261 §17.1.1.2, Timer B), so nothing needs to be known for longer. Bounded; given
//! back a minute after the last use.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use super::time::Millis;
use super::timer;

/// For so long an entry is remembered at least, unless there are too many.
const SPAN: Duration = timer::GIVE_UP;

/// See the module. An entry may carry a value.
#[derive(Debug)]
pub struct Lately<K, V = ()> {
    /// Since `since`.
    lately: HashMap<K, V>,
    /// In the span before.
    before: HashMap<K, V>,
    since: Millis,
    /// Most of one span; beyond, the span ends early.
    most: usize,
    /// What came before this was forgotten.
    forgotten: Option<Millis>,
}

impl<K: Eq + Hash> Lately<K> {
    /// Remembers one.
    pub fn add(&mut self, key: K, now: Millis) {
        self.put(key, (), now);
    }

    /// Whether one is remembered.
    pub fn has(&mut self, key: &K, now: Millis) -> bool {
        self.get(key, now).is_some()
    }
}

impl<K: Eq + Hash, V: Copy> Lately<K, V> {
    /// Remembers twice `most` entries at most.
    pub fn new(most: usize) -> Self {
        let (lately, before) = (HashMap::new(), HashMap::new());
        Self { lately, before, since: Millis(0), most, forgotten: None }
    }

    /// Remembers one with a value, in place of an earlier one.
    pub fn put(&mut self, key: K, value: V, now: Millis) {
        self.turn(now);
        if self.lately.len() >= self.most {
            self.next(now);
        }
        self.lately.insert(key, value);
    }

    /// The value of one that is remembered.
    pub fn get(&mut self, key: &K, now: Millis) -> Option<V> {
        if self.lately.is_empty() && self.before.is_empty() {
            return None;
        }
        self.turn(now);
        self.lately.get(key).or_else(|| self.before.get(key)).copied()
    }

    /// Whether everything of the last half minute is remembered.
    pub fn is_complete(&self, now: Millis) -> bool {
        self.forgotten.is_none_or(|at| now.since(at) >= SPAN)
    }

    fn turn(&mut self, now: Millis) {
        let age = now.since(self.since);
        if age >= SPAN * 2 {
            (self.lately, self.before, self.since) = (HashMap::new(), HashMap::new(), now);
        } else if age >= SPAN {
            self.next(now);
        }
    }

    fn next(&mut self, now: Millis) {
        if !self.before.is_empty() {
            self.forgotten = Some(self.since);
        }
        self.before = std::mem::take(&mut self.lately);
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Millis {
        Millis(seconds * 1_000)
    }

    #[test]
    fn an_entry_is_remembered_for_as_long_as_copies_come_and_then_given_up() {
        let mut lately = Lately::new(10);
        lately.add(1, at(100));
        lately.add(2, at(131));
        lately.add(3, at(132));
        assert!((1..=3).all(|key| lately.has(&key, at(132))));
        assert!(lately.has(&3, at(163)));
        assert!(!lately.has(&3, at(300)));
    }

    #[test]
    fn it_knows_when_it_had_to_forget_too_early() {
        let mut lately = Lately::new(2);
        for key in 0..4 {
            lately.add(key, at(1));
            assert!(lately.is_complete(at(1)), "{key}");
        }
        lately.add(4, at(2));
        assert!(!lately.has(&0, at(2)) && lately.has(&2, at(2)) && lately.has(&4, at(2)));
        assert!(!lately.is_complete(at(2)) && !lately.is_complete(at(32)));
        assert!(lately.is_complete(at(33)), "what was forgotten is older than any copy");
    }
}
