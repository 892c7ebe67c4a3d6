//! How many calls this pod has dialled out through each trunk, or has from it: what `maxConcurrentCalls` and `maxCallsPerSecond`
//! of `outbound` and `inbound` are held against, each direction by itself.
//!
//! Counted in the pod, over all its shards: a limit holds exactly here, and a gateway of n pods lets n times as many out or in.
//! A call is counted from before its INVITE is sent, or answered, until its leg is over.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::routing::decide::{self, Limit};
use crate::routing::table::{Limits, ObjectKey};

/// Calls per second are counted over this span, wherever it begins.
const SECOND: Duration = Duration::from_secs(1);

/// The calls of this pod by trunk.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<HashMap<ObjectKey, Line>>);

/// What one trunk carries.
#[derive(Debug, Default)]
struct Line {
    calls: u32,
    /// When calls were dialled, oldest first; as many as the limit asks for.
    dialled: VecDeque<Instant>,
}

/// One call that is counted; it no longer is when this is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    lines: Arc<Lines>,
    trunk: ObjectKey,
}

impl Lines {
    /// Counts a call, unless that is one too many.
    pub(super) fn take(
        self: &Arc<Self>,
        trunk: &ObjectKey,
        limits: Limits,
        now: Instant,
    ) -> Result<Taken, Limit> {
        let mut lines = self.locked();
        let line = lines.entry(trunk.clone()).or_default();
        if let Some(limit) = line.full(limits, now) {
            return Err(limit);
        }
        line.calls += 1;
        if let Some(most) = limits.calls_per_second {
            line.dialled.push_back(now);
            while line.dialled.len() > most as usize {
                line.dialled.pop_front();
            }
        }
        Ok(Taken { lines: Arc::clone(self), trunk: trunk.clone() })
    }

    /// A panic elsewhere can't leave the map half changed: each change is one of numbers.
    fn locked(&self) -> MutexGuard<'_, HashMap<ObjectKey, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl decide::Lines for Lines {
    fn full(&self, trunk: &ObjectKey, limits: Limits) -> Option<Limit> {
        if limits == Limits::default() {
            return None;
        }
        self.locked().get(trunk)?.full(limits, Instant::now())
    }
}

impl Line {
    /// The limit that lets no further call out now.
    fn full(&self, limits: Limits, now: Instant) -> Option<Limit> {
        if let Some(most) = limits.calls.filter(|most| self.calls >= *most) {
            return Some(Limit::Calls(most));
        }
        let lately = |at: &&Instant| now.saturating_duration_since(**at) < SECOND;
        let most = limits.calls_per_second?;
        (self.dialled.iter().rev().take_while(lately).count() >= most as usize)
            .then_some(Limit::PerSecond(most))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut lines = self.lines.locked();
        let Some(line) = lines.get_mut(&self.trunk) else { return };
        line.calls = line.calls.saturating_sub(1);
        // What was dialled in the last second still counts.
        if line.calls == 0 && line.dialled.back().is_none_or(|last| last.elapsed() >= SECOND) {
            lines.remove(&self.trunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::decide::Lines as _;

    fn trunk(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    #[test]
    fn a_trunk_carries_as_many_calls_as_its_limit_and_another_when_one_is_over() {
        let (lines, now) = (Arc::new(Lines::default()), Instant::now());
        let limits = Limits { calls: Some(2), calls_per_second: None };
        let first = lines.take(&trunk("pbx"), limits, now).unwrap();
        let _second = lines.take(&trunk("pbx"), limits, now).unwrap();
        assert_eq!(lines.take(&trunk("pbx"), limits, now).unwrap_err(), Limit::Calls(2));
        assert_eq!(lines.full(&trunk("pbx"), limits), Some(Limit::Calls(2)));
        assert!(lines.take(&trunk("other"), limits, now).is_ok(), "each trunk has its own");
        drop(first);
        assert!(lines.take(&trunk("pbx"), limits, now).is_ok());
    }

    #[test]
    fn in_no_second_more_calls_are_dialled_than_the_limit() {
        let (lines, start) = (Arc::new(Lines::default()), Instant::now());
        let limits = Limits { calls: None, calls_per_second: Some(2) };
        let dial =
            |millis| lines.take(&trunk("pbx"), limits, start + Duration::from_millis(millis)).map(drop);
        assert_eq!(dial(0), Ok(()));
        assert_eq!(dial(900), Ok(()));
        assert_eq!(dial(999), Err(Limit::PerSecond(2)), "also when the calls are over already");
        assert_eq!(dial(1000), Ok(()));
        assert_eq!(dial(1899), Err(Limit::PerSecond(2)));
        assert_eq!(dial(1900), Ok(()));
    }

    #[test]
    fn calls_without_a_limit_count_for_a_limit_that_comes_later_and_leave_nothing_behind() {
        let (lines, now) = (Arc::new(Lines::default()), Instant::now());
        let call = lines.take(&trunk("pbx"), Limits::default(), now).unwrap();
        let limits = Limits { calls: Some(1), calls_per_second: Some(9) };
        assert_eq!(lines.full(&trunk("pbx"), limits), Some(Limit::Calls(1)));
        drop(call);
        assert!(lines.locked().is_empty());
    }

    #[test]
    fn shards_that_dial_at_once_do_not_exceed_the_limit_together() {
        let lines = Arc::new(Lines::default());
        let limits = Limits { calls: Some(50), calls_per_second: None };
        let dial = || -> Vec<Taken> {
            (0..100).filter_map(|_| lines.take(&trunk("pbx"), limits, Instant::now()).ok()).collect()
        };
        let dialled: Vec<Taken> = std::thread::scope(|scope| {
            let shards: Vec<_> = (0..4).map(|_| scope.spawn(dial)).collect();
            shards.into_iter().flat_map(|shard| shard.join().unwrap()).collect()
        });
        assert_eq!(dialled.len(), 50);
    }
}
