//! Somebody comes in the place of whom the caller talks with (RFC 3891): a PBX hands its side of the call to another phone. Or of
//! whom the caller is still waiting for: another phone picks up the call that rings.
//!
//! The new party is an attempt like any other, but that it called us. With an offer it has answered before it was dialled: the
//! caller is asked to move over to it, and the caller's answer answers its INVITE. Without one it is answered with the
//! caller's media at once, and its ACK is its answer. Only once the caller has moved is the old party released; one that rings
//! stops ringing at once. Whatever fails on the way leaves the caller with whom it had.
//!
//! Who may come is the driver's to say: whoever the trunk lets in that carries the leg whose place it is. No trunk carries an
//! agent's. For the caller's own place see `newcomer`.

use crate::routing::table::ObjectKey;
use crate::sip::event::{Body, IncomingCall};

use super::attempt::{Attempt, Phase, Purpose};
use super::input::{Effect, LegKey, Place, Record, Timer};
use super::machine::{Call, CallerPhase};

/// Why an INVITE is refused that would take somebody's place: the code and the text of its Reason header.
type Refusal = (u16, &'static str);

impl Call {
    /// The trunk that carries a leg which somebody else may take: the caller's, that of whom it talks with, or of whom it is
    /// waiting for.
    pub fn trunk_of(&self, leg: LegKey) -> Option<&ObjectKey> {
        if leg == LegKey::Caller {
            return Some(self.trunk()).filter(|_| self.caller.phase == CallerPhase::Answered);
        }
        let ringing = self.attempt.as_ref().filter(|attempt| attempt.is_dialling(leg));
        let peer = self.peer.as_ref().filter(|peer| peer.leg == leg);
        ringing.and_then(|attempt| attempt.purpose.trunk()).or_else(|| peer?.trunk.as_ref())
    }

    /// A name for a leg that comes in.
    pub fn new_leg(&mut self) -> LegKey {
        let leg = LegKey::Dialled(self.dialled);
        self.dialled = self.dialled.saturating_add(1);
        leg
    }

    /// `new` called to come in the place of `old`.
    pub(super) fn comes_instead(
        &mut self,
        new: LegKey,
        old: LegKey,
        incoming: IncomingCall,
        out: &mut Vec<Effect>,
    ) {
        let comes = if self.end_reason().is_some() {
            Err((603, "SIP;cause=603;text=\"The call is over\""))
        } else if old == LegKey::Caller {
            return self.comes_for_caller(new, incoming, out);
        } else if !self.is_test() && self.attempt.as_ref().is_some_and(|attempt| attempt.is_dialling(old)) {
            self.picks_up(new, incoming.offer, out)
        } else if self.peer.as_ref().is_some_and(|peer| peer.leg == old) {
            self.comes_for_human(new, incoming.offer, out)
        } else {
            Err((603, "SIP;cause=603;text=\"This leg is not replaced\""))
        };
        if let Err((code, why)) = comes {
            out.push(Effect::Refuse(new, code, why));
        }
    }

    /// In the place of whom the caller talks with.
    fn comes_for_human(
        &mut self,
        new: LegKey,
        offer: Option<Body>,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let busy = self.is_under_way() || self.farewell.is_some() || self.catching_up;
        if busy || self.caller.phase != CallerPhase::Answered {
            return Err((491, "SIP;cause=491;text=\"The caller is being moved already\""));
        }
        let trunk = self.peer.as_ref().and_then(|peer| peer.trunk.clone());
        self.take_in(Attempt::come(new, Purpose::Replacement(trunk)), offer, out)
    }

    /// In the place of one that rings.
    fn picks_up(&mut self, new: LegKey, offer: Option<Body>, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        if offer.is_some() && self.caller.phase == CallerPhase::Calling {
            // Each of the two has made an offer, and nobody could answer either.
            return Err((488, "SIP;cause=488;text=\"Come without an offer: the caller has made one\""));
        }
        if offer.is_none() && self.caller.sdp.is_none() {
            return Err(NO_OFFER);
        }
        let Some(mut rings) = self.attempt.take() else { return Ok(()) };
        rings.stop_ringing(self.now);
        out.push(Effect::ClearTimer(Timer::Ring));
        // So that the phone doesn't count it among those that it missed (RFC 3326 §2).
        self.hang_up(rings.leg, "SIP;cause=200;text=\"Call completed elsewhere\"", out);
        out.push(Effect::Record(Record::PickedUp));
        let mut comes = Attempt::come(new, rings.purpose);
        comes.rung = rings.rung;
        self.take_in(comes, offer, out)
    }

    fn take_in(
        &mut self,
        mut attempt: Attempt,
        offer: Option<Body>,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        if offer.is_some() {
            attempt.answer = offer;
        } else if self.caller.sdp.is_some() {
            attempt.offer.clone_from(&self.caller.sdp);
            attempt.phase = Phase::Answering;
            let shown = attempt.origin.show(self.caller.sdp.clone());
            out.push(Effect::Answer(attempt.leg, shown));
        } else {
            return Err(NO_OFFER);
        }
        self.live.insert(attempt.leg);
        let moves = attempt.offer.is_none();
        self.attempt = Some(Box::new(attempt));
        if moves {
            self.move_caller(out);
        }
        Ok(())
    }

    /// The new party wasn't joined with the caller. The old one may have left meanwhile.
    pub(super) fn replacement_failed(&mut self, out: &mut Vec<Effect>) {
        out.push(Effect::Record(Record::Replaced { place: Place::Human, joined: false }));
        if self.peer.is_none() {
            self.end("human-hung-up", "SIP;cause=200;text=\"Call ended\"", out);
        }
    }
}

/// Neither the new party nor the caller has said anything that could be offered to the other.
const NO_OFFER: Refusal = (488, "SIP;cause=488;text=\"An offer is needed\"");
