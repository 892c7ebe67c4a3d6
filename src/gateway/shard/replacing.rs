//! A call that comes in the place of a leg of another call (RFC 3891): whether it may, and to which call it belongs.

use std::sync::Arc;

use super::admission::NotAdmitted;
use super::{Leg, Shard};
use crate::call::{Input, LegKey};
use crate::sip::event::{IncomingCall, LegId};

impl Shard {
    /// `leg` called to come in the place of `replaced`. It may if it is let in over the trunk that carries that leg.
    pub(super) fn comes_instead(&mut self, leg: LegId, incoming: IncomingCall, replaced: LegId) {
        let now = self.now();
        let shared = Arc::clone(&self.shared);
        let snapshot = shared.snapshot.load();
        let found = self.legs.get(&replaced).copied();
        let found = found.and_then(|(call, old)| Some((call, old, self.calls.get(&call)?)));
        let Some((call, old, entry)) = found else { return self.endpoint.refuse(leg, 481, &[], now) };
        let trunk = entry.call.trunk_of(old);
        let trunk = trunk.and_then(|key| Some((key, snapshot.index.table().trunks.get(key)?)));
        let admitted = match trunk {
            Some((key, trunk)) => {
                self.admit_over(&incoming, &snapshot, key, trunk).map(|()| trunk.session_timer)
            }
            None => Err(NotAdmitted::new(403, "may-not-replace", "no trunk carries that leg")),
        };
        let session_timer = match admitted {
            Ok(session_timer) => session_timer,
            Err(NotAdmitted { code, headers, why }) => {
                if let Some((label, why)) = why {
                    shared.metrics.refuse(label);
                    tracing::info!(call = %entry.id, code, "a call that would replace a leg is refused: {why}");
                }
                return self.endpoint.refuse(leg, code, &headers, now);
            }
        };
        if !self.endpoint.keep_session(leg, session_timer.into(), now) {
            return shared.metrics.refuse("session-interval");
        }
        let Some(entry) = self.calls.get_mut(&call) else { return };
        let new = entry.call.new_leg();
        entry.legs.insert(new, Leg::Live(leg, None));
        self.legs.insert(leg, (call, new));
        self.traced(call, new, leg);
        // Nobody needs it any more.
        let incoming = Box::new(IncomingCall { authorization: Vec::new(), ..incoming });
        self.step(call, Input::Replaces { new, old, incoming }, None);
    }

    /// The leg that came in the caller's place is the caller's from now on.
    pub(super) fn becomes_caller(&mut self, key: u64, leg: LegKey) {
        let Some(entry) = self.calls.get_mut(&key) else { return };
        let Some(new) = entry.legs.remove(&leg) else { return };
        if let Some(old) = entry.legs.insert(LegKey::Caller, new) {
            entry.legs.insert(leg, old);
        }
        for (name, leg) in &entry.legs {
            if let Leg::Live(id, _) = leg {
                self.legs.insert(*id, (key, *name));
            }
        }
    }
}
