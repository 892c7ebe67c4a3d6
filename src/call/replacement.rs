//! Somebody comes in the place of whom the caller talks with (RFC 3891): a PBX hands its side of the call to another phone.
//!
//! The new party is an attempt like any other, but that it called us: it has answered before it was dialled. It brings the offer,
//! the caller is asked to move over to it, and the caller's answer answers its INVITE. Only then is the old party released.
//! Whatever fails on the way leaves the caller with whom it had.
//!
//! Who may come is the driver's to say: whoever the trunk lets in that carries the old party's leg. The caller's own leg isn't
//! replaced, nor is an agent's (no trunk carries it).

use crate::routing::table::ObjectKey;
use crate::sip::event::Body;

use super::attempt::{Attempt, Purpose};
use super::input::{Effect, LegKey, Record};
use super::machine::{Call, CallerPhase};

impl Call {
    /// The trunk that carries the leg of whom the caller talks with.
    pub fn trunk_of(&self, leg: LegKey) -> Option<&ObjectKey> {
        self.peer.as_ref().filter(|peer| peer.leg == leg)?.trunk.as_ref()
    }

    /// A name for a leg that comes in.
    pub fn new_leg(&mut self) -> LegKey {
        let leg = LegKey::Dialled(self.dialled);
        self.dialled = self.dialled.saturating_add(1);
        leg
    }

    /// `new` called, with this offer, to come in the place of `old`.
    pub(super) fn comes_instead(
        &mut self,
        new: LegKey,
        old: LegKey,
        offer: Option<Body>,
        out: &mut Vec<Effect>,
    ) {
        let peer = self.peer.as_ref().filter(|peer| peer.leg == old);
        let refusal = match peer {
            _ if self.end_reason().is_some() => Some((603, "SIP;cause=603;text=\"The call is over\"")),
            None => Some((603, "SIP;cause=603;text=\"This leg is not replaced\"")),
            Some(_)
                if self.is_under_way()
                    || self.farewell.is_some()
                    || self.catching_up
                    || self.caller.phase != CallerPhase::Answered =>
            {
                Some((491, "SIP;cause=491;text=\"The caller is being moved already\""))
            }
            // Our own offer would have to be somebody's: the caller has made none.
            Some(_) if offer.is_none() => Some((488, "SIP;cause=488;text=\"An offer is needed\"")),
            Some(_) => None,
        };
        if let Some((code, why)) = refusal {
            return out.push(Effect::Refuse(new, code, why));
        }
        let trunk = peer.and_then(|peer| peer.trunk.clone());
        self.live.insert(new);
        self.attempt = Some(Attempt::answered(new, Purpose::Replacement(trunk), offer));
        self.move_caller(out);
    }

    /// The new party wasn't joined with the caller. The old one may have left meanwhile.
    pub(super) fn replacement_failed(&mut self, out: &mut Vec<Effect>) {
        out.push(Effect::Record(Record::Replaced { joined: false }));
        if self.peer.is_none() {
            self.end("human-hung-up", "SIP;cause=200;text=\"Call ended\"", out);
        }
    }
}
