//! How many requests a key may make: the generic cell rate algorithm (ITU-T I.371), one number a key.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A rate, and as much of it at once as comes in a second.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    interval: Duration,
}

/// When everything that was let through would have come at the exact rate.
#[derive(Debug, Default)]
pub struct Bucket(Mutex<Duration>);

impl Rate {
    /// So many a second.
    pub fn per_second(rate: NonZeroU32) -> Self {
        Self { interval: Duration::from_secs(1) / rate.get() }
    }

    /// Lets one request through at `now`, counted from any fixed moment, or says how long it is until there is room for one.
    pub fn take(self, bucket: &Bucket, now: Duration) -> Result<(), Duration> {
        let mut due = bucket.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = now.max(*due) + self.interval;
        let full = now + Duration::from_secs(1);
        if next > full {
            return Err(next - full);
        }
        *due = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_let_through_at_once_and_then_the_rate() {
        let rate = Rate::per_second(NonZeroU32::new(10).unwrap());
        let (bucket, start) = (Bucket::default(), Duration::from_secs(100));
        let through = (0..50).filter(|_| rate.take(&bucket, start).is_ok()).count();
        assert_eq!(through, 10);
        let wait = rate.take(&bucket, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(rate.take(&bucket, start + wait).is_ok());
        assert!(rate.take(&bucket, start + wait).is_err());
    }
}
