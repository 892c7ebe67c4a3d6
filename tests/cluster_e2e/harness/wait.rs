//! Waiting for something to become true, never for time to pass.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for anything that the tests wait for unless they say otherwise, on a machine with two busy processors.
pub const SOON: Duration = Duration::from_secs(20);

const PAUSE: Duration = Duration::from_millis(20);

/// Asks until there is an answer and returns it.
///
/// # Panics
/// When there is none within `limit`; the message is `what` and the last reason why not.
pub fn until<T, E: Display>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(reason) if start.elapsed() >= limit => {
                panic!("{what}: not within {limit:?}; at last: {reason}")
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Asks until the answer is yes.
pub fn until_true(what: &str, limit: Duration, mut ask: impl FnMut() -> bool) {
    until(what, limit, || if ask() { Ok(()) } else { Err("it isn't so") });
}
