//! The moment in which a caller moves from one party to another (third-party call control, RFC 3725).
//!
//! The party that answered was offered the caller's media. The caller is re-INVITEd with the party's answer; if it accepts
//! with other media than the party was offered, the party is re-INVITEd with those. Only then is the old peer released.
//! Whatever fails on the way leads back: until the caller accepted, nothing has changed for it; afterwards it is
//! re-INVITEd with the old peer's media.

use std::time::Duration;

use crate::sip::event::LegEvent;

use super::attempt::{Attempt, Failure, Phase, Purpose};
use super::input::{Context, Effect, LegKey, Place, Record, Timer};
use super::machine::{Call, Peer, PeerKind};
use super::outcome::{Joined, Outcome};
use super::sdp::same_session;

/// A hand-over that takes longer is undone: longer than one re-INVITE with a glare retry may take.
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(40);

impl Call {
    /// The party answered: the caller, who is already talking or waiting, is asked to move over.
    pub(super) fn move_caller(&mut self, out: &mut Vec<Effect>) {
        let Some(attempt) = &mut self.attempt else { return };
        out.push(Effect::SetTimer(Timer::HandOver, HAND_OVER_DEADLINE));
        if self.exchange.is_some() {
            attempt.phase = Phase::AwaitingCaller;
            return;
        }
        attempt.phase = Phase::MovingCaller { lost: None };
        let shown = self.caller.origin.show(attempt.answer.clone());
        out.push(Effect::Reoffer(LegKey::Caller, shown));
    }

    /// Whatever else was asked of the caller, or by it, is concluded: now it can be asked to move.
    pub(super) fn move_caller_who_is_free(&mut self, out: &mut Vec<Effect>) {
        let waiting = |attempt: &Attempt| matches!(attempt.phase, Phase::AwaitingCaller);
        if self.exchange.is_none() && self.attempt.as_deref().is_some_and(waiting) {
            self.move_caller(out);
        }
    }

    /// The caller answered a re-INVITE of ours.
    pub(super) fn caller_moved(&mut self, event: LegEvent, context: Context<'_>, out: &mut Vec<Effect>) {
        if std::mem::take(&mut self.catching_up) {
            match event {
                LegEvent::ReofferAccepted { body: Some(body) } => self.refreshed(LegKey::Caller, body, out),
                // Its party has moved on already: from now on the caller would talk to nobody.
                LegEvent::ReofferRefused { .. } => {
                    self.end("hand-over-failed", "SIP;cause=488;text=\"Caller could not follow\"", out);
                }
                _ => {}
            }
            return;
        }
        let Some(attempt) = &mut self.attempt else { return };
        let phase = std::mem::replace(&mut attempt.phase, Phase::Settling);
        match (phase, &event) {
            (Phase::MovingCaller { lost: None }, LegEvent::ReofferAccepted { body }) => {
                if body.is_some() {
                    self.caller.sdp.clone_from(body);
                }
                match (&attempt.offer, body) {
                    (None, _) => {
                        // The party's 2xx carried the offer: the caller's answer goes back in the ACK. Or its INVITE did.
                        let answer = body.clone().or_else(|| self.caller.sdp.clone());
                        let shown = attempt.origin.show(answer);
                        out.push(if attempt.called {
                            Effect::Answer(attempt.leg, shown)
                        } else {
                            Effect::Ack(attempt.leg, shown)
                        });
                        self.joined(event, context, out);
                    }
                    (Some(offered), Some(now)) if !same_session(&offered.bytes, &now.bytes) => {
                        let shown = attempt.origin.show(body.clone());
                        out.push(Effect::Reoffer(attempt.leg, shown));
                    }
                    _ => self.joined(event, context, out),
                }
            }
            (Phase::MovingCaller { lost: None }, LegEvent::ReofferRefused { code, .. }) => {
                let leg = attempt.leg;
                out.push(Effect::ClearTimer(Timer::HandOver));
                self.hang_up(leg, "SIP;cause=488;text=\"Caller could not be joined\"", out);
                let reason = format!("the caller's phone refused the hand-over with {code}");
                let failure = Failure { outcome: Outcome::Rejected, code: Some(*code), reason };
                self.attempt_failed(failure, context, out);
            }
            (Phase::MovingCaller { lost: Some(failure) }, LegEvent::ReofferAccepted { .. }) => {
                self.roll_back(failure, context, out);
            }
            (Phase::MovingCaller { lost: Some(failure) }, _) => {
                out.push(Effect::ClearTimer(Timer::HandOver));
                self.attempt_failed(failure, context, out);
            }
            (Phase::RollingBack(failure), LegEvent::ReofferAccepted { body }) => {
                out.push(Effect::ClearTimer(Timer::HandOver));
                if body.is_some() {
                    self.caller.sdp.clone_from(body);
                }
                self.attempt_failed(failure, context, out);
            }
            (Phase::RollingBack(failure), _) => {
                out.push(Effect::ClearTimer(Timer::HandOver));
                self.attempt_failed(failure, context, out);
                // The caller hears nobody and its phone refuses to go back: silence would be worse than the end.
                self.end("hand-over-failed", "SIP;cause=488;text=\"Caller could not be moved back\"", out);
            }
            (phase, _) => attempt.phase = phase,
        }
    }

    /// The party accepted the caller's changed media.
    pub(super) fn party_settled(&mut self, event: LegEvent, context: Context<'_>, out: &mut Vec<Effect>) {
        let Some(attempt) = &mut self.attempt else { return };
        if !matches!(attempt.phase, Phase::Settling) {
            return;
        }
        let mut moved_as_well = None;
        if let LegEvent::ReofferAccepted { body: Some(body) } = &event {
            let before = attempt.answer.replace(body.clone());
            if before.is_some_and(|before| !same_session(&before.bytes, &body.bytes)) {
                moved_as_well = Some(body.clone());
            }
        }
        self.joined(event, context, out);
        if moved_as_well.is_some() {
            // Once more, and then no more: two parties that both keep moving would never come to rest.
            self.catching_up = true;
            let shown = self.caller.origin.show(moved_as_well);
            out.push(Effect::Reoffer(LegKey::Caller, shown));
        }
    }

    /// The party refused the caller's changed media: it can't hear the caller where the caller is now.
    pub(super) fn party_did_not_settle(&mut self, code: u16, context: Context<'_>, out: &mut Vec<Effect>) {
        let Some(attempt) = &mut self.attempt else { return };
        if matches!(attempt.phase, Phase::Settling) {
            let leg = attempt.leg;
            self.hang_up(leg, "SIP;cause=488;text=\"No common media\"", out);
            let reason = format!("the destination refused the caller's media with {code}");
            self.roll_back(Failure { outcome: Outcome::Rejected, code: Some(code), reason }, context, out);
        }
    }

    /// The party hung up, or was lost, before the caller was joined with it.
    pub(super) fn party_left(&mut self, lost: bool, context: Context<'_>, out: &mut Vec<Effect>) {
        let Some(attempt) = &mut self.attempt else { return };
        let (outcome, reason) = if lost {
            (Outcome::Unreachable, "the destination was lost before the caller was joined")
        } else {
            (Outcome::Rejected, "the destination hung up before the caller was joined")
        };
        let failure = Failure { outcome, code: None, reason: reason.into() };
        match &mut attempt.phase {
            Phase::MovingCaller { lost } => {
                lost.get_or_insert(failure);
            }
            Phase::Settling => self.roll_back(failure, context, out),
            Phase::RollingBack(_) => {}
            Phase::AwaitingCaller | Phase::Answering => {
                out.push(Effect::ClearTimer(Timer::HandOver));
                self.attempt_failed(failure, context, out);
            }
            Phase::Dialling => {
                out.push(Effect::ClearTimer(Timer::Ring));
                self.attempt_failed(failure, context, out);
            }
        }
    }

    /// The hand-over takes too long: the party is released, and the caller goes back once its phone has said where it is.
    pub(super) fn hand_over_timed_out(&mut self, context: Context<'_>, out: &mut Vec<Effect>) {
        let Some(attempt) = &mut self.attempt else { return };
        let reason = "the hand-over took too long".to_owned();
        let failure = Failure { outcome: Outcome::Unknown, code: None, reason };
        let leg = attempt.leg;
        match &mut attempt.phase {
            Phase::MovingCaller { lost } if lost.is_none() => {
                *lost = Some(failure);
                self.hang_up(leg, "SIP;cause=408;text=\"Caller could not be joined\"", out);
            }
            Phase::AwaitingCaller => {
                self.hang_up(leg, "SIP;cause=408;text=\"Caller could not be joined\"", out);
                self.attempt_failed(failure, context, out);
            }
            Phase::Settling => {
                self.hang_up(leg, "SIP;cause=408;text=\"Caller could not be joined\"", out);
                self.roll_back(failure, context, out);
            }
            _ => {}
        }
    }

    /// The caller and the party hear each other: the old peer is released, the transfer has its outcome.
    fn joined(&mut self, proof: LegEvent, context: Context<'_>, out: &mut Vec<Effect>) {
        let (Some(joined), Some(attempt)) = (Joined::by(&proof), self.attempt.take()) else { return };
        out.push(Effect::ClearTimer(Timer::HandOver));
        let old = self.peer.take();
        let Attempt { leg, purpose, answer, origin, rung, .. } = *attempt;
        let kind = if matches!(purpose, Purpose::Agent(_)) { PeerKind::Agent } else { PeerKind::Human };
        let trunk = purpose.trunk().cloned();
        if matches!(purpose, Purpose::Replacement(_)) {
            out.push(Effect::Record(Record::Replaced { place: Place::Human, joined: true }));
        }
        let mut refer_leg = None;
        if let Purpose::Transfer(transfer) = purpose {
            refer_leg = transfer.asker.refer().map(|(leg, _)| leg);
            let answered =
                Failure { outcome: Outcome::Answered(joined), code: Some(200), reason: "answered".into() };
            self.transfer_ended(transfer, answered, rung, out);
        }
        if let Some(old) = old {
            self.exchange_lost(old.leg, old.sdp, out);
            if refer_leg == Some(old.leg) {
                self.release(old.leg, out);
            } else {
                self.hang_up(old.leg, "SIP;cause=200;text=\"Transferred\"", out);
            }
        }
        self.peer = Some(Peer { leg, kind, sdp: answer, origin, trunk, awaits_ack: false });
        if kind == PeerKind::Agent {
            let before = self.before.take();
            out.push(Effect::Joined { leg, again: before.is_some() });
            if let Some(what) = before {
                self.let_know(what, context, out);
            }
        }
    }

    /// Asks the caller to move back to its peer.
    fn roll_back(&mut self, failure: Failure, context: Context<'_>, out: &mut Vec<Effect>) {
        let back_to = self.peer.as_ref().and_then(|peer| peer.sdp.clone());
        match (&mut self.attempt, back_to) {
            (Some(attempt), Some(body)) => {
                attempt.phase = Phase::RollingBack(failure);
                let shown = self.caller.origin.show(Some(body));
                out.push(Effect::SetTimer(Timer::HandOver, HAND_OVER_DEADLINE));
                out.push(Effect::Reoffer(LegKey::Caller, shown));
            }
            _ => {
                // Nobody is left to go back to: what follows a failed attempt finds somebody else, or ends the call.
                out.push(Effect::ClearTimer(Timer::HandOver));
                self.attempt_failed(failure, context, out);
            }
        }
    }
}
