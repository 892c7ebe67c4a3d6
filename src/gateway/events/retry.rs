//! When an event is sent once more: where the receiver may take it later. What it refuses for good, and what it sends elsewhere,
//! isn't repeated.

use std::time::Duration;

/// Times that an event is sent at most: with waits that double from a second up to a minute, over about two minutes.
pub(super) const ATTEMPTS: usize = 8;
/// The first wait.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait, also if the receiver asks for a longer one.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Whether an answer with this status means that the same request may succeed later (RFC 9110 §15, RFC 6585 §4).
pub(super) fn may_succeed_later(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// How long is waited: what the receiver asks for in Retry-After (seconds), but not less than `planned` nor too long.
pub(super) fn wait(planned: Duration, retry_after: Option<&str>) -> Duration {
    let asked = retry_after.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
    asked.unwrap_or_default().max(planned).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_for_good_is_not_sent_again() {
        for (status, later) in
            [(200, false), (301, false), (307, false), (400, false), (401, false), (404, false), (410, false)]
                .into_iter()
                .chain([(408, true), (429, true), (500, true), (502, true), (503, true), (504, true)])
        {
            assert_eq!(may_succeed_later(status), later, "{status}");
        }
    }

    #[test]
    fn a_receiver_that_asks_for_time_is_given_it_within_bounds() {
        let seconds = |seconds| Duration::from_secs(seconds);
        assert_eq!(wait(seconds(2), None), seconds(2));
        assert_eq!(wait(seconds(2), Some("30")), seconds(30));
        assert_eq!(wait(seconds(2), Some("1")), seconds(2));
        assert_eq!(wait(seconds(2), Some("86400")), LONGEST_WAIT);
        assert_eq!(wait(seconds(2), Some("Wed, 21 Oct 2026 07:28:00 GMT")), seconds(2));
    }
}
