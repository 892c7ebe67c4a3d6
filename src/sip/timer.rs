//! Timer values of RFC 3261 §17 (table 4) and the retransmission schedules built from them.

use std::time::Duration;

/// Round-trip estimate: the first retransmission interval.
pub const T1: Duration = Duration::from_millis(500);
/// Longest retransmission interval of a non-INVITE request and of a response to INVITE.
pub const T2: Duration = Duration::from_secs(4);
/// How long a message may stay in the network.
pub const T4: Duration = Duration::from_secs(5);
/// Timers B, D, F, H, J, L: 64 × T1. (Timer D is "at least 32 s".)
pub const GIVE_UP: Duration = Duration::from_secs(32);

/// The interval after `interval` when it doubles without bound (Timer A).
pub fn doubled(interval: Duration) -> Duration {
    interval * 2
}

/// The interval after `interval` when it doubles up to T2 (Timers E and G, and the 2xx of §13.3.1.4).
pub fn doubled_to_t2(interval: Duration) -> Duration {
    (interval * 2).min(T2)
}
