//! Whether this pod takes another call: it drains, it has as many as it may have, or they come too fast.
//!
//! Counted over all shards. Nothing here is locked: the question is asked for every message that comes in, and its answer
//! must cost the same however many calls there are.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::sip::endpoint::Opening;

/// For so long calls may come faster than the limit: callers don't come evenly spaced.
const BURST: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(super) struct Intake {
    live: AtomicUsize,
    max_calls: usize,
    pace: Pace,
    draining: AtomicBool,
}

impl Intake {
    /// For at most this many calls at the same time, and about so many new ones a second.
    pub(super) fn new(max_calls: usize, calls_per_second: u32) -> Self {
        Self {
            live: AtomicUsize::new(0),
            max_calls,
            pace: Pace::new(calls_per_second),
            draining: AtomicBool::new(false),
        }
    }

    /// What a call that came in now would meet.
    pub(super) fn opening(&self) -> Opening {
        if self.draining.load(Ordering::Relaxed) {
            Opening::Draining
        } else if self.live() >= self.max_calls || !self.pace.has_room(Instant::now()) {
            Opening::Full
        } else {
            Opening::Open
        }
    }

    /// Counts a call that was taken.
    pub(super) fn begin(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
        self.pace.count(Instant::now());
    }

    /// A call is over.
    pub(super) fn end(&self) {
        self.live.fetch_sub(1, Ordering::AcqRel);
    }

    /// From now on nothing new is taken.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Calls that are not over.
    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }
}

/// How fast calls come, by the generic cell rate algorithm (ITU-T I.371, Annex A): one number, the time at which the calls
/// that were taken are as many as the limit lets in by then.
#[derive(Debug)]
struct Pace {
    start: Instant,
    interval: u64,
    /// Nanoseconds since `start`.
    paid_until: AtomicU64,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        let interval = 1_000_000_000 / u64::from(per_second.max(1));
        Self { start: Instant::now(), interval, paid_until: AtomicU64::new(0) }
    }

    fn has_room(&self, now: Instant) -> bool {
        let now = self.nanoseconds(now);
        let burst = (BURST.as_nanos() as u64).max(self.interval);
        self.paid_until.load(Ordering::Relaxed).max(now) + self.interval <= now + burst
    }

    fn count(&self, now: Instant) {
        let now = self.nanoseconds(now);
        let paid = |until: u64| Some(until.max(now) + self.interval);
        let _ = self.paid_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid);
    }

    /// Good for 584 years.
    fn nanoseconds(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls that are taken when one comes every `every` for `span`.
    fn taken(pace: &Pace, from: Instant, every: Duration, span: Duration) -> u32 {
        let times = (0..).map(|n| from + every * n).take_while(|at| *at < from + span);
        times.filter(|at| pace.has_room(*at)).inspect(|at| pace.count(*at)).count() as u32
    }

    #[test]
    fn as_many_calls_are_taken_as_the_limit_says_and_a_burst_is_not_refused() {
        let pace = Pace::new(100);
        let (start, second) = (pace.start, Duration::from_secs(1));
        assert_eq!(
            taken(&pace, start, Duration::from_millis(10), second),
            100,
            "at the limit none is refused"
        );
        let flood = taken(&pace, start + second, Duration::from_micros(100), second);
        assert!((100..=110).contains(&flood), "{flood}");
        let later = start + second * 10;
        assert_eq!(
            taken(&pace, later, Duration::ZERO.max(Duration::from_nanos(1)), Duration::from_nanos(50)),
            10
        );
    }

    #[test]
    fn one_call_a_second_is_a_limit_like_any_other() {
        let pace = Pace::new(1);
        let every = Duration::from_millis(100);
        assert_eq!(taken(&pace, pace.start, every, Duration::from_secs(10)), 10);
    }

    #[test]
    fn a_pod_is_full_with_its_last_call_and_takes_another_when_one_is_over() {
        let intake = Intake::new(2, 1_000);
        intake.begin();
        assert_eq!(intake.opening(), Opening::Open);
        intake.begin();
        assert_eq!(intake.opening(), Opening::Full);
        intake.end();
        assert_eq!(intake.opening(), Opening::Open);
        intake.drain();
        assert_eq!((intake.opening(), intake.live()), (Opening::Draining, 1));
    }
}
