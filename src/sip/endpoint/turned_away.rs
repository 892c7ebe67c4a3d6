//! INVITEs that were refused without a transaction, because there was no room: what was refused stays refused.
//!
//! In overload a copy of an INVITE may wait in the same queue as the INVITE itself. If room is made between the two, the
//! copy would begin a call whose caller was told 503 and has gone elsewhere.
//!
//! Bounded: about 2 MiB at most, given back a minute after the overload.

use std::collections::HashSet;
use std::time::Duration;

use crate::sip::time::Millis;
use crate::sip::timer;
use crate::sip::transaction::ServerKey;

/// Callers repeat an INVITE for so long (RFC 3261 §17.1.1.2, Timer B).
const SPAN: Duration = timer::GIVE_UP;
/// Most that are remembered of one span; beyond, the span ends early.
const MOST: usize = 1 << 15;

/// See the module.
#[derive(Debug, Default)]
pub struct TurnedAway {
    /// Since `since`.
    lately: HashSet<ServerKey>,
    /// In the span before.
    before: HashSet<ServerKey>,
    since: Millis,
}

impl TurnedAway {
    /// Remembers one for at least [`SPAN`].
    pub fn add(&mut self, key: ServerKey, now: Millis) {
        self.turn(now);
        if self.lately.len() >= MOST {
            self.before = std::mem::take(&mut self.lately);
            self.since = now;
        }
        self.lately.insert(key);
    }

    /// Whether one was turned away.
    pub fn has(&mut self, key: ServerKey, now: Millis) -> bool {
        if self.lately.is_empty() && self.before.is_empty() {
            return false;
        }
        self.turn(now);
        self.lately.contains(&key) || self.before.contains(&key)
    }

    fn turn(&mut self, now: Millis) {
        let age = now.since(self.since);
        if age >= SPAN * 2 {
            *self = Self { since: now, ..Self::default() };
        } else if age >= SPAN {
            self.before = std::mem::take(&mut self.lately);
            self.since = now;
        }
    }
}
