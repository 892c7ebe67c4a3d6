//! When a trunk is sent OPTIONS, and what the answers say about it. Pure.
//!
//! One lost packet doesn't make a trunk unreachable: what is known changes only when several probes in a row say so, and as
//! long as they disagree with it, or nothing is known yet, they come faster.

use std::time::Duration;

use crate::routing::ack::TrunkReport;
use crate::sip::time::Millis;

/// Probes in a row that must fail until a trunk counts as unreachable.
const DOWN_AFTER: u32 = 3;
/// Probes in a row that must be answered until a trunk that was unreachable counts as reachable again.
const UP_AFTER: u32 = 2;
/// Longest time between two probes while it isn't clear how the trunk is.
const HURRY: Duration = Duration::from_secs(5);

/// One trunk's probes.
#[derive(Debug)]
pub(super) struct Probe {
    interval: Duration,
    /// When the next one is sent; absent while one is under way.
    due: Option<Millis>,
    /// When the last one was sent.
    sent: Millis,
    report: Option<TrunkReport>,
    /// Results in a row that disagree with the report, or with nothing being known.
    against: u32,
}

/// What one probe came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProbeResult {
    /// Whether the trunk is there.
    pub(super) reached: bool,
    /// The answer, or why there is none.
    pub(super) said: String,
}

impl Probe {
    /// The first one is due at once. `inherited` is what the pod found that kept the trunk before.
    pub(super) fn new(interval: Duration, inherited: Option<TrunkReport>, now: Millis) -> Self {
        Self { interval, due: Some(now), sent: now, report: inherited, against: 0 }
    }

    /// When the next probe is to be sent; `None` while one is under way.
    pub(super) fn due(&self) -> Option<Millis> {
        self.due
    }

    /// A probe is under way.
    pub(super) fn begin(&mut self, now: Millis) {
        self.due = None;
        self.sent = now;
    }

    /// The probe that was under way, of what is at `address`, has ended. `dice` is a random number: it spreads probes that began together over a
    /// tenth of the interval.
    pub(super) fn end(&mut self, result: ProbeResult, address: &str, dice: u64, now: Millis) {
        let known = self.report.as_ref().map(|report| report.reachable);
        if known == Some(result.reached) {
            self.against = 0;
            self.take(result, address);
        } else {
            self.against += 1;
            let enough = match (known, result.reached) {
                (None, true) => 1,
                (_, true) => UP_AFTER,
                (_, false) => DOWN_AFTER,
            };
            if self.against >= enough {
                self.against = 0;
                self.take(result, address);
            }
        }
        let clear = self.against == 0 && self.report.is_some();
        let wait = if clear { self.interval } else { self.interval.min(HURRY) };
        let spread = wait.mul_f64((dice % 1024) as f64 / 10_240.0);
        self.due = Some((self.sent + wait + spread).max(now));
    }

    /// What is known of the trunk; `None` until something is.
    pub(super) fn report(&self) -> Option<&TrunkReport> {
        self.report.as_ref()
    }

    fn take(&mut self, ProbeResult { reached, said }: ProbeResult, address: &str) {
        self.report = Some(TrunkReport { reachable: reached, said, address: address.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    /// Runs probes, one a letter: `+` is answered, `-` isn't. Returns what is known after each, and the seconds to the next.
    fn run(probe: &mut Probe, results: &str) -> Vec<(Option<bool>, u64)> {
        let step = |letter| {
            let now = probe.due().unwrap();
            probe.begin(now);
            assert_eq!(probe.due(), None, "one at a time");
            let reached = letter == '+';
            let said = if reached { "200 OK" } else { "no answer" };
            probe.end(ProbeResult { reached, said: said.into() }, "pbx", 0, now + Duration::from_millis(20));
            let known = probe.report().map(|report| report.reachable);
            (known, probe.due().unwrap().since(now).as_secs())
        };
        results.chars().map(step).collect()
    }

    fn fresh() -> Probe {
        Probe::new(INTERVAL, None, Millis(0))
    }

    #[test]
    fn the_first_answer_makes_a_trunk_reachable() {
        assert_eq!(run(&mut fresh(), "+"), [(Some(true), 30)]);
    }

    #[test]
    fn a_trunk_that_never_answered_is_unknown_and_then_unreachable() {
        assert_eq!(run(&mut fresh(), "---"), [(None, 5), (None, 5), (Some(false), 30)]);
    }

    #[test]
    fn lost_packets_do_not_make_a_trunk_unreachable() {
        let mut probe = fresh();
        run(&mut probe, "+");
        assert_eq!(run(&mut probe, "--+--+"), [5, 5, 30, 5, 5, 30].map(|wait| (Some(true), wait)));
        assert_eq!(run(&mut probe, "---"), [(Some(true), 5), (Some(true), 5), (Some(false), 30)]);
    }

    #[test]
    fn one_answer_does_not_make_an_unreachable_trunk_reachable_again() {
        let mut probe = fresh();
        run(&mut probe, "---");
        assert_eq!(run(&mut probe, "+-+-"), [5, 30, 5, 30].map(|wait| (Some(false), wait)));
        assert_eq!(run(&mut probe, "++"), [(Some(false), 5), (Some(true), 30)]);
    }

    #[test]
    fn what_a_predecessor_found_holds_until_probes_say_otherwise() {
        let inherited = TrunkReport { reachable: true, said: "200 OK".into(), address: "pbx".into() };
        let mut probe = Probe::new(INTERVAL, Some(inherited.clone()), Millis(0));
        assert_eq!(probe.report(), Some(&inherited));
        assert_eq!(run(&mut probe, "---").last(), Some(&(Some(false), 30)));
    }

    #[test]
    fn a_short_interval_is_kept_and_a_slow_answer_delays_nothing_but_the_next_probe() {
        let mut probe = Probe::new(Duration::from_secs(1), None, Millis(0));
        assert_eq!(run(&mut probe, "-+"), [(None, 1), (Some(true), 1)]);
        let now = probe.due().unwrap();
        probe.begin(now);
        probe.end(
            ProbeResult { reached: false, said: String::new() },
            "pbx",
            0,
            now + Duration::from_secs(8),
        );
        assert_eq!(probe.due(), Some(now + Duration::from_secs(8)));
    }

    #[test]
    fn the_answer_that_is_shown_is_the_last_of_those_that_agree() {
        let mut probe = fresh();
        run(&mut probe, "+-");
        assert_eq!(probe.report().map(|report| report.said.as_str()), Some("200 OK"));
        run(&mut probe, "--");
        assert_eq!(probe.report().map(|report| report.said.as_str()), Some("no answer"));
    }

    #[test]
    fn probes_that_began_together_drift_apart() {
        let due = |dice| {
            let mut probe = fresh();
            probe.begin(Millis(0));
            probe.end(ProbeResult { reached: true, said: String::new() }, "pbx", dice, Millis(1));
            probe.due().unwrap().0
        };
        assert_eq!((due(0), due(512)), (30_000, 31_500));
        assert!((0..2000).all(|dice| due(dice) < 33_000));
    }
}
