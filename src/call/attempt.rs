//! Dialling somebody: the assistant's agent, the fallback, or the destination of a transfer.

use std::time::Duration;

use crate::routing::decide::TransferRoute;
use crate::routing::table::{ObjectKey, SessionTimerEntry};
use crate::sip::event::{Body, LegEvent, Party, RefusedBy};
use crate::sip::session::SessionPolicy;
use crate::sip::time::Millis;

use super::identity::Retarget;
use super::input::{Context, Dial, Effect, LegKey, Record, Timer};
use super::machine::{Call, CallerPhase, Peer, PeerKind, Status};
use super::outcome::{Outcome, Try};
use super::relay::same;
use super::sdp::Origin;
use super::stir;
use super::transfer::Transfer;

/// Somebody who is being dialled.
#[derive(Debug)]
pub struct Attempt {
    pub(super) leg: LegKey,
    pub(super) purpose: Purpose,
    pub(super) phase: Phase,
    /// The caller's media as the party was offered it.
    pub(super) offer: Option<Body>,
    /// The party's answer.
    pub(super) answer: Option<Body>,
    /// What the party has been shown.
    pub(super) origin: Origin,
    /// It called by itself, so that its INVITE is to be answered; else it was dialled.
    pub(super) called: bool,
    /// When it began to ring.
    pub(super) ringing: Option<Millis>,
    /// How long it rang, once it stopped.
    pub(super) rung: Duration,
    /// It failed, and that was the host's fault.
    by_the_host: bool,
}

/// Why somebody is dialled.
#[derive(Debug)]
pub(super) enum Purpose {
    /// To answer the caller; which of the agent's addresses.
    Agent(usize),
    /// Because the assistant can't be reached; and who is tried next.
    Fallback(Box<TransferRoute>, Vec<ObjectKey>),
    /// Because a transfer was asked for.
    Transfer(Box<Transfer>),
    /// Because it is tested, for no caller; and what became of the trunk's hosts before.
    Test(Box<TransferRoute>, Vec<Try>),
    /// To come in the place of whom the caller talks with: it called by itself, over this trunk.
    Replacement(Option<ObjectKey>),
}

/// How far an attempt is.
#[derive(Debug)]
pub(super) enum Phase {
    /// INVITE sent.
    Dialling,
    /// The party called by itself, without an offer, and was given the caller's: its ACK brings the answer. One that never
    /// comes ends the leg (RFC 3261 §13.3.1.4).
    Answering,
    /// The party answered, and a change between caller and peer is concluded before the caller is asked to move: a phone
    /// takes one change at a time (RFC 3261 §14.1), what it is shown must come in the order of its versions, and each of
    /// its answers belongs to one question.
    AwaitingCaller,
    /// The party answered, and the caller has been asked to move over to it.
    MovingCaller {
        /// The party is gone meanwhile: the caller must be moved back if it accepts.
        lost: Option<Failure>,
    },
    /// The caller moved and changed its media with it: the party has been told.
    Settling,
    /// The caller is asked to move back to the peer that it had before.
    RollingBack(Failure),
}

/// Why an attempt failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) outcome: Outcome,
    pub(super) code: Option<u16>,
    pub(super) reason: String,
}

/// How an attempt ended that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) failure: Failure,
    /// Nobody had answered.
    pub(super) unanswered: bool,
    /// It was the host's fault, so that another one of the trunk's may do better.
    pub(super) by_the_host: bool,
    /// How long it rang.
    pub(super) rung: Duration,
}

/// Sends the route to the trunk's next host, if another host may help and there is one.
pub(super) fn next_host(
    route: &mut TransferRoute,
    failed: &Failed,
    context: Context<'_>,
    out: &mut Vec<Effect>,
) -> bool {
    if !(failed.unanswered && failed.by_the_host) {
        return false;
    }
    let Some(target) = route.failover.take(context.dice) else { return false };
    out.push(Effect::Record(Record::NextHost { trunk: route.trunk.clone() }));
    route.target = target;
    true
}

impl Call {
    /// Dials the agent's address number `index`; the fallback when there is none; refuses the caller when there is no
    /// fallback either.
    pub(super) fn dial_agent_or_fallback(
        &mut self,
        index: usize,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        if let Some((key, agent)) = self.start.answer.assistant()
            && let Some(target) = agent.targets().get(index)
        {
            let mut all = vec![
                ("X-VoiceDock-Call-Id".to_owned(), self.start.id.clone()),
                ("X-VoiceDock-Assistant".to_owned(), key.to_string()),
                ("X-VoiceDock-Number".to_owned(), self.start.answer.number().to_string()),
            ];
            all.extend(agent.headers().iter().cloned());
            let from = Party { host: String::new(), ..self.start.incoming.from.clone() };
            all.extend(stir::headers(&self.start.incoming, &from, &target.uri));
            // A leg that is best left alone isn't refreshed either; its session tells whether the agent is there.
            let session = if agent.openai().is_some() {
                SessionPolicy::default()
            } else {
                SessionTimerEntry::default().into()
            };
            let dial = Dial {
                target: target.clone(),
                from,
                headers: all,
                max_forwards: self.max_forwards(),
                offer: None,
                credential: None,
                line: None,
                patience: None,
                session,
                assistant: agent.openai().map(|_| key.clone()),
            };
            let ring = Duration::from_secs(u64::from(agent.answer_timeout_seconds()));
            self.dial(Purpose::Agent(index), dial, ring, out);
        } else {
            self.dial_fallback("assistant-unavailable", context, out);
        }
    }

    /// Dials the number's fallback; ends the call with `reason` when there is none.
    pub(super) fn dial_fallback(
        &mut self,
        reason: &'static str,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        let key = self.start.answer.fallback();
        match key.map(|key| context.index.fallback(&self.facts(false), key, context.moment())) {
            Some(Ok(plan)) => self.dial_human(plan.route, plan.then, out),
            Some(Err(refusal)) => {
                out.push(Effect::Record(Record::FallbackRefused(refusal)));
                self.end(reason, "SIP;cause=480;text=\"Assistant unavailable\"", out);
            }
            None => self.end(reason, "SIP;cause=480;text=\"Assistant unavailable\"", out),
        }
    }

    fn dial_human(&mut self, route: TransferRoute, then: Vec<ObjectKey>, out: &mut Vec<Effect>) {
        let dial = self.dial_for(&route, Retarget::Fallback);
        let ring = Duration::from_secs(u64::from(route.ring_timeout_seconds));
        self.dial(Purpose::Fallback(Box::new(route), then), dial, ring, out);
    }

    /// Nobody answered at the fallback, or not well: as long as nobody has answered, the trunk's next host is tried, then the
    /// next destination.
    fn fallback_failed(
        &mut self,
        mut route: TransferRoute,
        then: Vec<ObjectKey>,
        failed: Failed,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        if next_host(&mut route, &failed, context, out) {
            return self.dial_human(route, then, out);
        }
        let next =
            context.index.next(&self.facts(false), &then, context.moment()).1.filter(|_| failed.unanswered);
        match next {
            Some((route, then)) => self.dial_human(route, then, out),
            None => self.end("fallback-unavailable", "SIP;cause=480;text=\"Nobody available\"", out),
        }
    }

    pub(super) fn dial(&mut self, purpose: Purpose, mut dial: Dial, ring: Duration, out: &mut Vec<Effect>) {
        let leg = LegKey::Dialled(self.dialled);
        self.dialled = self.dialled.saturating_add(1);
        self.live.insert(leg);
        let mut origin = Origin::default();
        dial.offer = origin.show(self.caller.sdp.clone());
        self.attempt = Some(Box::new(Attempt {
            leg,
            purpose,
            phase: Phase::Dialling,
            offer: self.caller.sdp.clone(),
            answer: None,
            origin,
            called: false,
            ringing: None,
            rung: Duration::ZERO,
            by_the_host: false,
        }));
        out.push(Effect::SetTimer(Timer::Ring, ring));
        out.push(Effect::Dial(leg, Box::new(dial)));
    }

    /// RFC 3261 §16.6: a back-to-back user agent that doesn't count down would let loops run for ever.
    pub(super) fn max_forwards(&self) -> u8 {
        self.start.incoming.max_forwards.saturating_sub(1)
    }

    /// Something happened on the leg that is being dialled or handed over to.
    pub(super) fn attempt_event(&mut self, event: LegEvent, context: Context<'_>, out: &mut Vec<Effect>) {
        let Some(attempt) = &mut self.attempt else { return };
        match event {
            LegEvent::Progress { code, body } => {
                if code >= 180 && attempt.ringing.is_none() {
                    attempt.ringing = Some(context.now);
                    if let Some(Attempt { purpose: Purpose::Transfer(transfer), .. }) =
                        self.attempt.as_deref()
                    {
                        self.transfer_rings(transfer, out);
                    }
                }
                if code >= 180 && self.caller.phase == CallerPhase::Calling {
                    let shown = self.early_media(body);
                    out.push(Effect::Progress(LegKey::Caller, code, shown));
                }
            }
            LegEvent::Answered { .. } if matches!(attempt.purpose, Purpose::Test(..)) => {
                self.test_answered(&event, context, out);
            }
            LegEvent::Answered { body } => {
                attempt.stop_ringing(context.now);
                attempt.answer = body;
                out.push(Effect::ClearTimer(Timer::Ring));
                self.bring_together(out);
            }
            LegEvent::Refused { code, reason, by } => {
                out.push(Effect::ClearTimer(Timer::Ring));
                attempt.stop_ringing(context.now);
                attempt.by_the_host = match by {
                    RefusedBy::Timeout | RefusedBy::Transport => true,
                    RefusedBy::Response => {
                        attempt.purpose.route().is_some_and(|route| route.failover.after(code))
                    }
                    RefusedBy::Cancelled | RefusedBy::Unauthorized | RefusedBy::Limit => false,
                };
                let sent = by != RefusedBy::Limit;
                let reason = match by {
                    RefusedBy::Response => format!("{code} {reason}"),
                    RefusedBy::Timeout => "no response to the INVITE".into(),
                    RefusedBy::Transport => "the address could not be resolved or reached".into(),
                    RefusedBy::Cancelled => "cancelled".into(),
                    RefusedBy::Limit => reason,
                    RefusedBy::Unauthorized => {
                        "the trunk refused the credentials; check its Secret and realm".into()
                    }
                };
                let failure =
                    Failure { outcome: Outcome::of_refusal(code, &by), code: sent.then_some(code), reason };
                self.attempt_failed(failure, context, out);
            }
            LegEvent::Acked { body } if matches!(attempt.phase, Phase::Answering) => {
                self.party_acknowledged(body, context, out);
            }
            LegEvent::ReofferAccepted { .. } => self.party_settled(event, context, out),
            LegEvent::ReofferRefused { code, .. } => self.party_did_not_settle(code, context, out),
            LegEvent::Ended(by) => self.party_left(by.is_loss(), context, out),
            _ => {}
        }
    }

    /// A party that called by itself has acknowledged our answer, and so answered our offer.
    fn party_acknowledged(&mut self, body: Option<Body>, context: Context<'_>, out: &mut Vec<Effect>) {
        let Some(attempt) = &mut self.attempt else { return };
        if body.is_some() {
            attempt.answer = body;
            return self.bring_together(out);
        }
        let leg = attempt.leg;
        self.hang_up(leg, "SIP;cause=488;text=\"The ACK has no answer\"", out);
        let reason = "it acknowledged the caller's offer without an answer".to_owned();
        self.attempt_failed(Failure { outcome: Outcome::Rejected, code: None, reason }, context, out);
    }

    /// The party has said where it is: the caller, who waits for an answer or talks with somebody already, hears it.
    fn bring_together(&mut self, out: &mut Vec<Effect>) {
        match self.caller.phase {
            CallerPhase::Calling => self.answer_caller(out),
            _ => self.move_caller(out),
        }
    }

    /// What a caller is told of the media of a party that has not answered yet. A caller without an offer is told nothing: it
    /// would be an offer, and the caller's answer would come before there is anybody to take it. Nor is one who was given an
    /// answer before, perhaps another party's.
    fn early_media(&mut self, body: Option<Body>) -> Option<Body> {
        let body = body.filter(|_| self.caller.sdp.is_some() && self.caller.given.is_none())?;
        if self.start.incoming.reliability.wants(true) {
            self.caller.given = Some(body.clone());
        }
        self.caller.origin.show(Some(body))
    }

    /// The caller hears the party that answered.
    fn answer_caller(&mut self, out: &mut Vec<Effect>) {
        let Some(attempt) = self.attempt.take() else { return };
        let kind = match attempt.purpose {
            Purpose::Agent(_) => PeerKind::Agent,
            Purpose::Fallback(..) | Purpose::Transfer(_) | Purpose::Replacement(_) | Purpose::Test(..) => {
                PeerKind::Human
            }
        };
        let trunk = attempt.purpose.trunk().cloned();
        let answer = attempt.answer.clone();
        let given = self.caller.given.take();
        let moved = given.is_some() && answer.is_some() && !same(&given, &answer);
        let shown = self.caller.origin.show(given.filter(|_| moved).or_else(|| answer.clone()));
        out.push(Effect::Answer(LegKey::Caller, shown));
        if moved {
            // It was given another party's answer, or an older one of this party's.
            self.catching_up = true;
            let shown = self.caller.origin.show(answer);
            out.push(Effect::Reoffer(LegKey::Caller, shown));
        }
        self.caller.phase = CallerPhase::Answered;
        self.status = Status::InProgress;
        self.peer = Some(Peer {
            leg: attempt.leg,
            kind,
            sdp: attempt.answer,
            origin: attempt.origin,
            trunk,
            awaits_ack: attempt.offer.is_none(),
        });
        if kind == PeerKind::Agent {
            out.push(Effect::Joined { leg: attempt.leg, again: false });
        }
        out.push(Effect::Record(Record::Answered));
    }

    /// The party that is being dialled has rung long enough.
    pub(super) fn rung_long_enough(&mut self, context: Context<'_>, out: &mut Vec<Effect>) {
        let Some(attempt) = &mut self.attempt else { return };
        if !matches!(attempt.phase, Phase::Dialling) {
            return;
        }
        attempt.stop_ringing(context.now);
        attempt.by_the_host = attempt.ringing.is_none();
        let outcome = if attempt.ringing.is_some() { Outcome::NoAnswer } else { Outcome::Unreachable };
        let reason = if attempt.ringing.is_some() { "not answered in time" } else { "no ringing in time" };
        let leg = attempt.leg;
        self.hang_up(leg, "SIP;cause=480;text=\"No answer\"", out);
        self.attempt_failed(Failure { outcome, code: Some(408), reason: reason.into() }, context, out);
    }

    /// Nobody was joined; what follows depends on why somebody was dialled. The leg has ended or was hung up.
    pub(super) fn attempt_failed(&mut self, failure: Failure, context: Context<'_>, out: &mut Vec<Effect>) {
        let Some(attempt) = self.attempt.take() else { return };
        let failed = Failed {
            failure,
            unanswered: matches!(attempt.phase, Phase::Dialling),
            by_the_host: attempt.by_the_host,
            rung: attempt.rung,
        };
        match attempt.purpose {
            Purpose::Agent(index) => {
                let code = failed.failure.code.unwrap_or(503);
                out.push(Effect::Record(Record::AgentUnavailable { code }));
                self.dial_agent_or_fallback(index + 1, context, out);
            }
            Purpose::Fallback(route, then) => self.fallback_failed(*route, then, failed, context, out),
            Purpose::Transfer(transfer) => self.transfer_failed(transfer, failed, context, out),
            Purpose::Replacement(_) => self.replacement_failed(out),
            Purpose::Test(route, tries) => self.test_failed(*route, tries, failed, context, out),
        }
    }
}

impl Purpose {
    /// How the party is dialled, unless it is an agent.
    fn route(&self) -> Option<&TransferRoute> {
        match self {
            Self::Agent(_) | Self::Replacement(_) => None,
            Self::Fallback(route, _) | Self::Test(route, _) => Some(route),
            Self::Transfer(transfer) => Some(&transfer.route),
        }
    }

    /// The trunk that carries the party's leg.
    pub(super) fn trunk(&self) -> Option<&ObjectKey> {
        match self {
            Self::Replacement(trunk) => trunk.as_ref(),
            purpose => purpose.route()?.trunk.as_ref(),
        }
    }
}

impl Attempt {
    /// Whether it is an agent that is dialled on this leg.
    pub(super) fn is_agent_on(&self, leg: LegKey) -> bool {
        self.leg == leg && matches!(self.purpose, Purpose::Agent(_))
    }

    /// Of a party that called by itself and waits for the caller.
    pub(super) fn come(leg: LegKey, purpose: Purpose) -> Self {
        Self {
            leg,
            purpose,
            phase: Phase::AwaitingCaller,
            offer: None,
            answer: None,
            origin: Origin::default(),
            called: true,
            ringing: None,
            rung: Duration::ZERO,
            by_the_host: false,
        }
    }

    /// Whether this leg is being dialled for it and has not answered.
    pub(super) fn is_dialling(&self, leg: LegKey) -> bool {
        self.leg == leg && matches!(self.phase, Phase::Dialling)
    }

    pub(super) fn stop_ringing(&mut self, now: Millis) {
        if let Some(since) = self.ringing
            && matches!(self.phase, Phase::Dialling)
        {
            self.rung = now.since(since);
        }
    }
}
