//! Timers of one endpoint. One entry a pending timer; cancelling removes it at once, so nothing stale ever fires or is held.

use std::collections::BTreeMap;

use super::time::Millis;

/// Names one pending timer, so that it can be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Handle {
    at: Millis,
    serial: u64,
}

/// Pending timers in the order in which they fire; set and cancel in O(log n).
#[derive(Debug)]
pub struct Wheel<K> {
    pending: BTreeMap<Handle, K>,
    serial: u64,
}

impl<K> Default for Wheel<K> {
    fn default() -> Self {
        Self { pending: BTreeMap::new(), serial: 0 }
    }
}

impl<K> Wheel<K> {
    /// Sets a timer.
    pub fn set(&mut self, at: Millis, key: K) -> Handle {
        self.serial += 1;
        let handle = Handle { at, serial: self.serial };
        self.pending.insert(handle, key);
        handle
    }

    /// Cancels the timer in `slot`, if there is one that has not fired.
    pub fn cancel(&mut self, slot: &mut Option<Handle>) {
        if let Some(handle) = slot.take() {
            self.pending.remove(&handle);
        }
    }

    /// When the next timer fires.
    pub fn next(&self) -> Option<Millis> {
        self.pending.first_key_value().map(|(handle, _)| handle.at)
    }

    /// Takes the next timer that is due at `now`.
    pub fn pop_due(&mut self, now: Millis) -> Option<K> {
        let first = self.pending.first_entry()?;
        (first.key().at <= now).then(|| first.remove())
    }

    /// How many timers are pending.
    pub fn len(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_and_cancelled_ones_never() {
        let mut wheel = Wheel::default();
        wheel.set(Millis(30), "c");
        let mut b = Some(wheel.set(Millis(20), "b"));
        wheel.set(Millis(10), "a");
        wheel.cancel(&mut b);
        assert_eq!(b, None);
        assert_eq!(wheel.next(), Some(Millis(10)));
        assert_eq!(wheel.pop_due(Millis(9)), None);
        assert_eq!(wheel.pop_due(Millis(100)), Some("a"));
        assert_eq!(wheel.pop_due(Millis(100)), Some("c"));
        assert_eq!(wheel.len(), 0);
    }
}
