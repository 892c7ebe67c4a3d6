//! Somebody comes in the caller's place (RFC 3891): a receptionist who has asked the assistant something hands it the one
//! who wanted to know (RFC 5589 §7).
//!
//! The party that the caller talks with is asked to move over to the newcomer's media, and its answer answers the newcomer's
//! INVITE. From then on the newcomer is the caller, with everything that hangs on being that, and the leg of the old one is
//! released. Until then nothing has changed: a newcomer who gives up, or whom the other party doesn't take, leaves both as
//! they were. An old caller who hangs up meanwhile has done its part.
//!
//! Who may come is the driver's to say: whoever is let in over the trunk that the call came in over.

use crate::sip::event::{Body, IncomingCall, LegEvent};

use super::input::{Effect, LegKey, Place, Record};
use super::machine::{CALLER_GONE, Call, CallerLeg, CallerPhase};
use super::relay::passed_on;
use super::sdp::Origin;

/// Somebody whose INVITE waits for what the other party says.
#[derive(Debug)]
pub(super) struct Newcomer {
    leg: LegKey,
    incoming: IncomingCall,
}

impl Call {
    /// `new` called to come in the caller's place.
    pub(super) fn comes_for_caller(&mut self, new: LegKey, incoming: IncomingCall, out: &mut Vec<Effect>) {
        let busy = self.is_under_way() || self.is_changing() || self.farewell.is_some();
        let free = !busy && self.caller.phase == CallerPhase::Answered;
        let Some(peer) = self.peer.as_ref().filter(|peer| free && !peer.awaits_ack) else {
            return out.push(Effect::Refuse(
                new,
                491,
                "SIP;cause=491;text=\"The caller is being moved already\"",
            ));
        };
        let (peer, offer) = (peer.leg, incoming.offer.clone());
        self.live.insert(new);
        self.newcomer = Some(Box::new(Newcomer { leg: new, incoming }));
        self.pass_newcomer_on(peer, offer, out);
    }

    /// Whether this leg is the newcomer's.
    pub(super) fn is_newcomer(&self, leg: LegKey) -> bool {
        self.newcomer.as_ref().is_some_and(|newcomer| newcomer.leg == leg)
    }

    /// The other party answered: whether the newcomer has become the caller.
    pub(super) fn newcomer_concluded(&mut self, event: LegEvent, out: &mut Vec<Effect>) -> bool {
        match event {
            LegEvent::ReofferAccepted { body } => {
                self.becomes_caller(body, out);
                true
            }
            LegEvent::ReofferRefused { code, .. } => {
                let why = "SIP;cause=488;text=\"The other party does not follow\"";
                self.newcomer_failed(passed_on(code, 488), why, out);
                false
            }
            _ => false,
        }
    }

    fn becomes_caller(&mut self, body: Option<Body>, out: &mut Vec<Effect>) {
        let (Some(newcomer), Some(peer)) = (self.newcomer.take(), &mut self.peer) else { return };
        let Newcomer { leg, incoming } = *newcomer;
        // An answer that describes nothing leaves what was described before.
        peer.sdp = body.or_else(|| peer.sdp.take());
        let mut origin = Origin::default();
        out.push(Effect::Answer(leg, origin.show(peer.sdp.clone())));
        out.push(Effect::BecomesCaller(leg));
        let sdp = incoming.offer.clone();
        self.caller = CallerLeg { phase: CallerPhase::Answered, sdp, origin, given: None };
        self.start.incoming = incoming;
        // What the old leg was asked for is of no interest any more.
        self.owes_notify = false;
        if self.live.insert(LegKey::Caller) {
            self.live.remove(&leg);
        } else {
            self.hang_up(leg, "SIP;cause=200;text=\"Replaced\"", out);
        }
        out.push(Effect::Record(Record::Replaced { place: Place::Caller, joined: true }));
    }

    /// The newcomer can't have the caller's place. If the caller has left it already, nobody is there any more.
    pub(super) fn newcomer_failed(&mut self, code: u16, why: &'static str, out: &mut Vec<Effect>) {
        let Some(newcomer) = self.newcomer.take() else { return };
        self.live.remove(&newcomer.leg);
        out.push(Effect::Refuse(newcomer.leg, code, why));
        self.remains_as_it_was(out);
    }

    /// The newcomer gave up. The other party goes back to the caller's media once it has said that it followed.
    pub(super) fn newcomer_left(&mut self, out: &mut Vec<Effect>) {
        self.newcomer = None;
        self.newcomer_withdrawn();
        self.remains_as_it_was(out);
    }

    fn remains_as_it_was(&mut self, out: &mut Vec<Effect>) {
        out.push(Effect::Record(Record::Replaced { place: Place::Caller, joined: false }));
        if self.caller.phase == CallerPhase::Gone {
            self.end("caller-hung-up", CALLER_GONE, out);
        }
    }
}
