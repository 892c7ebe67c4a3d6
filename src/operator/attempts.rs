//! Work that is begun when it is due, and tried again with back-off when it fails.

use std::time::Duration;

use tokio::time::Instant;

use crate::routing::compile::Finding;

/// Longest pause between two attempts of what fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whether work is due, and what its last attempt came to.
#[derive(Debug, Default)]
pub struct Attempts {
    /// Whether it is to be begun.
    pub due: bool,
    /// Since when.
    pub since: Option<Instant>,
    /// When it is tried again.
    pub not_before: Option<Instant>,
    /// Attempts that failed since one succeeded.
    pub failures: u32,
    /// Whether one ever did.
    pub succeeded_once: bool,
    /// What keeps it from succeeding.
    pub hindrance: Option<Finding>,
}

impl Attempts {
    /// It is to be begun.
    pub fn want(&mut self, now: Instant) {
        self.due = true;
        self.since.get_or_insert(now);
    }

    /// Whether it is to be begun now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due && self.not_before.is_none_or(|at| at <= now)
    }

    /// It begins; returns since when it was due.
    pub fn begin(&mut self) -> Option<Instant> {
        self.due = false;
        self.since.take()
    }

    /// It succeeded; returns whether something had kept it from that.
    pub fn succeeded(&mut self) -> bool {
        self.succeeded_once = true;
        self.failures = 0;
        self.not_before = None;
        self.hindrance.take().is_some()
    }

    /// It failed and is tried again after a pause that grows; returns whether that is for another reason than before.
    pub fn failed(&mut self, now: Instant, hindrance: Finding) -> bool {
        let pause = Duration::from_millis(200).saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures += 1;
        self.due = true;
        self.not_before = Some(now + pause.mul_f64(rand::random_range(0.8..1.2)));
        self.hindrance.replace(hindrance.clone()) != Some(hindrance)
    }

    /// When it is tried again.
    pub fn wake(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.due)
    }
}
