//! The highest rate at which fewer than one in a thousand calls fail: doubled until that isn't so, then halved in between.

use std::time::{Duration, Instant};

use crate::report::say;
use crate::stage::{Stage, Subject};

/// Where the search begins, calls a second.
const FIRST: u32 = 500;
/// Where it ends: SIPp can't do more.
const LAST: u32 = 16_000;
/// How long calls are placed at each rate.
const SECONDS: u32 = 3;
/// The search ends when what is left is this share of the rate.
const NEAR: f64 = 0.1;
/// Or after this time.
const LONGEST: Duration = Duration::from_secs(75);

/// Looks for it. Each failure is followed by a second try, and each try after a failure by a stage that has never been
/// overloaded.
pub fn highest(subject: Subject, set: impl Fn() -> Stage) -> Option<u32> {
    let start = Instant::now();
    let mut stage: Option<Stage> = None;
    let mut is_clean = |rate: u32| {
        for again in [false, true] {
            let here = stage.get_or_insert_with(&set);
            let load = here.load(rate, SECONDS);
            let outcome = load.run(&here.directory, here.entrance);
            let clean = outcome.is_clean(&load);
            say(&format!(
                "{subject:?} at {rate}/s: {} of {} calls failed, {:.0}/s{}{}",
                outcome.failed,
                outcome.calls,
                outcome.rate,
                if clean { "" } else { ": too many" },
                if again { " (second try)" } else { "" }
            ));
            if clean {
                return true;
            }
            stage = None;
        }
        false
    };
    let (mut good, mut bad): (u32, Option<u32>) = (0, None);
    while start.elapsed() < LONGEST {
        let rate = match bad {
            None if good == 0 => FIRST,
            None if good >= LAST => break,
            None => good * 2,
            Some(bad) if f64::from(bad - good) <= f64::from(bad) * NEAR => break,
            Some(bad) => (good + bad) / 2,
        };
        if is_clean(rate) {
            good = rate;
        } else {
            bad = Some(rate);
        }
    }
    (good > 0).then_some(good)
}
