//! How many pods a gateway has, by the calls that they hold. Pure: what the pods say and the time in, a number out.
//!
//! Up at once: a caller whom no pod can take is not served by patience. Down only when fewer were enough for a whole window,
//! as the HorizontalPodAutoscaler does it (`--horizontal-pod-autoscaler-downscale-stabilization`, 5 minutes).
//!
//! Promises:
//! - never fewer than `min` nor more than `max`, whatever else holds;
//! - a pod that is on its way out counts for nothing, and neither do its calls: they end there;
//! - nobody is removed for not having been heard: a pod that is ready and silent counts as full when it is about fewer pods
//!   (and as empty when it is about more), and the number that a new leader finds holds for a window;
//! - what somebody else sets (`kubectl scale`) holds for a window, within `min` and `max`: nobody is fought with;
//! - the pods that go first are those with the fewest calls ([`marks`]).

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::resources::sip_gateway::Autoscaling;

/// Longest window, as that of an `autoscaling/v2` HorizontalPodAutoscaler (`stabilizationWindowSeconds`).
pub const LONGEST_WINDOW: Duration = Duration::from_secs(3600);

/// The annotation by which Kubernetes chooses the pods of a ReplicaSet that go: those with the lowest number first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// What it says on a pod that is to go; without it the number is 0.
const GOES_FIRST: &str = "-1";

/// A pod that is not on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Its name.
    pub pod: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Calls that it holds; `None` when it hasn't said.
    pub calls: Option<u32>,
    /// Its [`DELETION_COST`].
    pub deletion_cost: Option<String>,
}

/// The number of pods of one gateway, over time.
#[derive(Debug)]
pub struct Scaler {
    window: Duration,
    current: i32,
    /// How many were needed since the last look.
    needed: i32,
    /// How many were needed until when, as far back as the window: falling, so that the first is the most.
    past: VecDeque<(Instant, i32)>,
    why: String,
}

impl Scaler {
    /// Of a gateway that has `current` pods at `now`.
    pub fn new(window: Duration, current: i32, now: Instant) -> Self {
        let mut scaler = Self { window, current, needed: 0, past: VecDeque::new(), why: String::new() };
        scaler.remember(current, now);
        scaler
    }

    /// The number of pods that there should be.
    pub fn current(&self) -> i32 {
        self.current
    }

    /// Why it is that number, as a part of a sentence.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// Somebody else has set the number.
    pub fn set(&mut self, number: i32, now: Instant) {
        self.current = number;
        self.remember(number, now);
    }

    /// Decides anew by what the pods say; returns whether the number is another one now.
    pub fn decide(&mut self, wanted: &Autoscaling, loads: &[Load], now: Instant) -> bool {
        let Autoscaling { min, max, target_calls_per_pod: target } = *wanted;
        let calls: i64 = loads.iter().filter_map(|load| load.calls).map(i64::from).sum();
        let silent = count(loads.iter().filter(|load| load.ready && load.calls.is_none()));
        let full =
            i32::try_from((calls + i64::from(target) - 1) / i64::from(target.max(1))).unwrap_or(i32::MAX);
        let within = |number: i32| number.min(max).max(min);
        let least = within(full);

        self.remember(self.needed, now);
        self.needed = within(full.saturating_add(silent));
        let most = self.past.front().map_or(self.needed, |(_, most)| within(*most).max(self.needed));

        let before = self.current;
        self.current = before.clamp(least, most);
        if self.current == before {
            return false;
        }
        let because = if self.current == max && (full > max || before > max) {
            format!("autoscaling.max is {max}; ")
        } else if self.current == min && before < min {
            format!("autoscaling.min is {min}; ")
        } else if self.current < before {
            format!("no more were needed for {} s; ", self.window.as_secs_f64())
        } else {
            String::new()
        };
        self.why = format!("{because}the pods hold {calls} calls, at a target of {target} a pod");
        true
    }

    /// When to look again although nothing has changed: fewer are enough, but not for long enough yet.
    pub fn wake(&self) -> Option<Instant> {
        let waits = self.past.front().filter(|_| self.current > self.needed);
        waits.map(|(until, _)| *until + self.window)
    }

    /// So many were needed until `now`.
    fn remember(&mut self, needed: i32, now: Instant) {
        while self.past.back().is_some_and(|(_, fewer)| *fewer <= needed) {
            self.past.pop_back();
        }
        self.past.push_back((now, needed));
        while self.past.front().is_some_and(|(until, _)| *until + self.window <= now) {
            self.past.pop_front();
        }
    }
}

/// The marks that have to change before `fewer` pods go, so that these are the ones with the fewest calls: pods, and what
/// their [`DELETION_COST`] becomes, `None` for nothing. Kubernetes takes those that aren't ready before all others anyway.
///
/// Pods that have the right mark already are left alone, and so are marks of others.
pub fn marks(loads: &[Load], fewer: i32) -> Vec<(String, Option<&'static str>)> {
    let mut by_calls: Vec<&Load> = loads.iter().collect();
    by_calls.sort_by_key(|load| (load.ready, load.calls.unwrap_or(u32::MAX), &load.pod));
    let fewer = usize::try_from(fewer).unwrap_or_default();
    let changed = by_calls.into_iter().enumerate().filter_map(|(place, load)| {
        let marked = load.deletion_cost.as_deref() == Some(GOES_FIRST);
        match place < fewer {
            true if !marked => Some((load.pod.clone(), Some(GOES_FIRST))),
            false if marked => Some((load.pod.clone(), None)),
            _ => None,
        }
    });
    changed.collect()
}

fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
