//! The call and its dispatch: which part of the machine an input belongs to.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::routing::decide::{Answer, CallFacts};
use crate::routing::table::{E164, ObjectKey};
use crate::sip::event::{Body, IncomingCall, LegEvent, Transport};
use crate::sip::time::Millis;

use super::agent::Told;
use super::announcement::Announcement;
use super::attempt::{Attempt, Failure, Purpose};
use super::farewell::Farewell;
use super::input::{Command, CommandRefusal, Context, Effect, Input, LegKey, Record, Telling, Timer};
use super::newcomer::Newcomer;
use super::outcome::{Outcome, Try};
use super::referral::Referral;
use super::relay::Exchange;
use super::sdp::Origin;
use super::transfer::Asker;

/// Text of the Reason header (RFC 3326) on legs that end because the call does.
pub(super) const NORMAL: &str = "SIP;cause=200;text=\"Call ended\"";
/// Text of the Reason header on legs that end because another one was lost without a word.
const LOST: &str = "SIP;cause=408;text=\"The other side was lost\"";
/// Text of the Reason header on legs that end because the caller left: right for a BYE and for a CANCEL.
pub(super) const CALLER_GONE: &str = "Q.850;cause=16;text=\"Caller hung up\"";
/// How long an agent that was told of its transfer's success may take to hang up by itself.
const RELEASE_AGENT_AFTER: Duration = Duration::from_secs(2);

/// What a call starts with.
#[derive(Clone, Debug)]
pub struct CallStart {
    /// The call's id: unique, in answers, headers and logs.
    pub id: String,
    /// The INVITE.
    pub incoming: IncomingCall,
    /// Who answers, by the table at that moment.
    pub answer: Answer,
}

/// How far a call is; the product's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nobody answered yet.
    Connecting,
    /// The caller talks with the assistant or a human.
    InProgress,
    /// It was in progress and is over.
    Ended,
    /// It ended before anybody answered.
    Failed,
}

/// How far the caller's leg is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallerPhase {
    /// There is none: a destination is tested.
    Absent,
    /// INVITE received, no final answer sent.
    Calling,
    /// 200 sent.
    Answered,
    /// Over, or about to be.
    Gone,
}

/// The caller's leg.
#[derive(Debug)]
pub(super) struct CallerLeg {
    pub(super) phase: CallerPhase,
    /// What the caller last said about its media.
    pub(super) sdp: Option<Body>,
    /// What the caller has been shown.
    pub(super) origin: Origin,
    /// The answer that it was given before the call was answered, in a response that it acknowledges: it can't be taken back
    /// until then (RFC 3262 §5).
    pub(super) given: Option<Body>,
}

/// Who is joined with the caller.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) leg: LegKey,
    pub(super) kind: PeerKind,
    /// What the peer last said about its media.
    pub(super) sdp: Option<Body>,
    /// What the peer has been shown.
    pub(super) origin: Origin,
    /// The trunk that carries it.
    pub(super) trunk: Option<ObjectKey>,
    /// Its 2xx carried an offer, and the caller's ACK brings the answer.
    pub(super) awaits_ack: bool,
}

/// What a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerKind {
    /// The assistant's agent: it may ask for transfers.
    Agent,
    /// A human.
    Human,
}

/// One call.
#[derive(Debug)]
pub struct Call {
    pub(super) start: CallStart,
    pub(super) status: Status,
    pub(super) caller: CallerLeg,
    pub(super) peer: Option<Peer>,
    /// The assistant says what is to be said before a transfer.
    pub(super) announcement: Option<Announcement>,
    /// The assistant says what is to be said before the end.
    pub(super) farewell: Option<Farewell>,
    pub(super) attempt: Option<Box<Attempt>>,
    /// The caller's trunk was sent a REFER.
    pub(super) referral: Option<Referral>,
    /// It has not said the last word about that REFER. Until then it isn't sent another one: what it says next could be
    /// about either.
    pub(super) owes_notify: bool,
    /// An agent that was told of its transfer's success and may hang up by itself.
    pub(super) releasing: Option<LegKey>,
    pub(super) exchange: Option<Exchange>,
    /// Somebody who called to come in the caller's place, and whom the peer is being told of.
    pub(super) newcomer: Option<Box<Newcomer>>,
    /// Legs that are there.
    pub(super) live: BTreeSet<LegKey>,
    /// Legs that were hung up and have not said goodbye yet.
    leaving: BTreeSet<LegKey>,
    /// The caller is being told of a party that moved once more while it settled.
    pub(super) catching_up: bool,
    /// What an agent is to know that is called back.
    pub(super) before: Option<String>,
    /// Parties dialled so far.
    pub(super) dialled: u16,
    pub(super) told: Told,
    /// When the last input came.
    pub(super) now: Millis,
    /// Why the call ended, once it did.
    end_reason: Option<&'static str>,
}

impl Call {
    /// A new call: the assistant's agent is dialled, or the fallback when there is no assistant.
    pub fn start(start: CallStart, context: Context<'_>) -> (Self, Vec<Effect>) {
        let mut call = Self::new(start, CallerPhase::Calling, context);
        let mut effects = Vec::new();
        call.dial_agent_or_fallback(0, context, &mut effects);
        (call, effects)
    }

    pub(super) fn new(start: CallStart, phase: CallerPhase, context: Context<'_>) -> Self {
        let sdp = start.incoming.offer.clone();
        let caller = CallerLeg { phase, sdp, origin: Origin::default(), given: None };
        let live = if phase == CallerPhase::Absent { None } else { Some(LegKey::Caller) };
        Self {
            start,
            status: Status::Connecting,
            caller,
            peer: None,
            announcement: None,
            farewell: None,
            attempt: None,
            referral: None,
            owes_notify: false,
            releasing: None,
            exchange: None,
            newcomer: None,
            catching_up: false,
            live: live.into_iter().collect(),
            leaving: BTreeSet::new(),
            before: None,
            dialled: 0,
            told: Told::default(),
            now: context.now,
            end_reason: None,
        }
    }

    /// What happens now.
    pub fn step(&mut self, input: Input, context: Context<'_>) -> Vec<Effect> {
        let mut out = Vec::new();
        self.now = context.now;
        match input {
            Input::Leg(leg, event) => {
                self.leg_event(leg, event, context, &mut out);
                self.move_caller_who_is_free(&mut out);
            }
            Input::Timer(timer) => self.timer(timer, context, &mut out),
            Input::Replaces { new, old, incoming } => self.comes_instead(new, old, *incoming, &mut out),
            Input::Told(id, done) => self.was_told(id, done, &mut out),
            Input::Asked { leg, ask, wish } => self.asked(leg, ask, wish, context, &mut out),
            Input::AgentFailed { leg, why } => {
                self.agent_failed(leg, why, context, &mut out);
                self.move_caller_who_is_free(&mut out);
            }
            Input::Command(command) => {
                let result = self.command(command, context, &mut out);
                out.push(Effect::Reply(result));
            }
        }
        out
    }

    /// Whether every leg has ended: the call can be forgotten.
    pub fn is_gone(&self) -> bool {
        self.live.is_empty() && self.leaving.is_empty()
    }

    /// How far the call is.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Why the call ended, once it did.
    pub fn end_reason(&self) -> Option<&'static str> {
        self.end_reason
    }

    /// The call's id.
    pub fn id(&self) -> &str {
        &self.start.id
    }

    /// The transport that the caller's leg is on.
    pub fn transport(&self) -> Transport {
        self.start.incoming.flow.transport
    }

    /// The number that was dialled.
    pub fn number(&self) -> &E164 {
        self.start.answer.number()
    }

    /// The PhoneNumber object.
    pub fn object(&self) -> &ObjectKey {
        self.start.answer.object()
    }

    /// The assistant.
    pub fn assistant(&self) -> Option<&ObjectKey> {
        self.start.answer.assistant().map(|(key, _)| key)
    }

    /// The trunk that the call came in over.
    pub fn trunk(&self) -> &ObjectKey {
        self.start.answer.trunk()
    }

    /// The caller's number as its trunk vouches for it, else as it says itself.
    pub fn caller_number(&self) -> &str {
        self.start.incoming.asserted.as_deref().unwrap_or(&self.start.incoming.from.user)
    }

    /// Ends the call now, for example at the end of a drain; each leg is told `reason` (a Reason header).
    pub fn shut_down(&mut self, end_reason: &'static str, header: &'static str) -> Vec<Effect> {
        let mut out = Vec::new();
        self.end(end_reason, header, &mut out);
        out
    }

    pub(super) fn facts(&self, may_be_referred: bool) -> CallFacts {
        CallFacts {
            number: self.start.answer.number().clone(),
            inbound_trunk: self.start.answer.trunk().clone(),
            may_be_referred: may_be_referred && !self.owes_notify,
        }
    }

    fn leg_event(&mut self, leg: LegKey, event: LegEvent, context: Context<'_>, out: &mut Vec<Effect>) {
        if matches!(event, LegEvent::Ended(_) | LegEvent::Refused { .. }) {
            self.leaving.remove(&leg);
            self.live.remove(&leg);
        }
        if matches!(event, LegEvent::Ended(_)) && self.releasing == Some(leg) {
            self.releasing = None;
            out.push(Effect::ClearTimer(Timer::ReleaseAgent));
            return;
        }
        if self.end_reason.is_some() {
            // Only the legs' own goodbyes are awaited; a peer that still asks for something is told that it is late.
            if let LegEvent::Reoffer { request, .. }
            | LegEvent::Request { request, .. }
            | LegEvent::Refer { request, .. } = event
            {
                out.push(Effect::Respond(leg, request, 481, None));
            }
            return;
        }
        match event {
            LegEvent::Reoffer { request, body } => self.reoffer(leg, request, body, out),
            LegEvent::Request { request, method, body } => self.request(leg, request, method, body, out),
            LegEvent::Refer { request, target, .. } => self.refer(leg, request, &target, context, out),
            LegEvent::ReofferAccepted { .. } | LegEvent::ReofferRefused { .. }
                if self.is_exchange_to(leg) =>
            {
                self.exchange_concluded(event, out);
            }
            LegEvent::Withdrawn { request } => self.withdrawn(request),
            LegEvent::Refreshed { body } => self.refreshed(leg, body, out),
            LegEvent::Ended(_) if self.is_newcomer(leg) => self.newcomer_left(out),
            event if leg == LegKey::Caller => self.caller_event(event, context, out),
            event if self.attempt.as_ref().is_some_and(|attempt| attempt.leg == leg) => {
                self.attempt_event(event, context, out);
            }
            event if self.peer.as_ref().is_some_and(|peer| peer.leg == leg) => {
                self.peer_event(event, context, out)
            }
            // A leg that was hung up says its goodbyes.
            _ => {}
        }
    }

    fn caller_event(&mut self, event: LegEvent, context: Context<'_>, out: &mut Vec<Effect>) {
        match event {
            LegEvent::Acked { body } => self.caller_acked(body, out),
            LegEvent::ReofferAccepted { .. } | LegEvent::ReofferRefused { .. } => {
                self.caller_moved(event, context, out);
            }
            LegEvent::Response { .. } | LegEvent::Referred { .. } => self.referral_event(event, context, out),
            LegEvent::Ended(by) => {
                self.caller.phase = CallerPhase::Gone;
                if self.newcomer.is_some() {
                    // Whoever comes in its place goes on with the call.
                } else if by.is_loss() {
                    self.end("caller-lost", LOST, out);
                } else {
                    self.end("caller-hung-up", CALLER_GONE, out);
                }
            }
            _ => {}
        }
    }

    fn caller_acked(&mut self, body: Option<Body>, out: &mut Vec<Effect>) {
        if self.exchange_acked(LegKey::Caller, &body, out) {
            return;
        }
        if body.is_some() {
            self.caller.sdp.clone_from(&body);
        }
        if let Some(peer) = &mut self.peer
            && std::mem::take(&mut peer.awaits_ack)
        {
            let shown = peer.origin.show(body);
            out.push(Effect::Ack(peer.leg, shown));
        }
    }

    fn peer_event(&mut self, event: LegEvent, context: Context<'_>, out: &mut Vec<Effect>) {
        match event {
            LegEvent::Acked { body } => {
                if let Some(peer) = &self.peer {
                    let leg = peer.leg;
                    self.exchange_acked(leg, &body, out);
                }
            }
            LegEvent::Ended(by) => self.peer_left(by.is_loss(), context, out),
            _ => {}
        }
    }

    /// Whoever the caller talks with is gone.
    pub(super) fn peer_left(&mut self, lost: bool, context: Context<'_>, out: &mut Vec<Effect>) {
        let Some(peer) = self.peer.take() else { return };
        self.exchange_lost(peer.leg, peer.sdp, out);
        if self.end_reason.is_some() {
            return;
        }
        if self.farewell.is_some() {
            return self.end_after_farewell(out);
        }
        if self.is_under_way() {
            // An agent that hangs up after it asked for a transfer doesn't end its caller's call.
            return self.message_broke_off(out);
        }
        match (peer.kind, lost) {
            (PeerKind::Agent, true) => self.dial_fallback("assistant-lost", context, out),
            (PeerKind::Agent, false) => self.end("assistant-ended", NORMAL, out),
            (PeerKind::Human, true) => self.end("human-lost", LOST, out),
            (PeerKind::Human, false) => self.end("human-hung-up", NORMAL, out),
        }
    }

    fn timer(&mut self, timer: Timer, context: Context<'_>, out: &mut Vec<Effect>) {
        if self.end_reason.is_some() && timer != Timer::ReleaseAgent {
            return;
        }
        match timer {
            Timer::Message => self.message_timed_out(out),
            Timer::Farewell => self.end_after_farewell(out),
            Timer::Ring => self.rung_long_enough(context, out),
            Timer::HandOver => self.hand_over_timed_out(context, out),
            Timer::Referral => self.referral_timed_out(context, out),
            Timer::ReleaseAgent => {
                if let Some(leg) = self.releasing.take() {
                    self.hang_up(leg, "SIP;cause=200;text=\"Transferred\"", out);
                }
            }
        }
    }

    fn command(
        &mut self,
        command: Command,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) -> Result<(), CommandRefusal> {
        if self.end_reason.is_some() {
            return Err(CommandRefusal::NotActive);
        }
        match command {
            Command::End { message } => self.end_by_api(message, context, out),
            Command::Transfer { wanted, message } => {
                self.transfer(Asker::Api, &wanted, message, context, out)
            }
            Command::Say { content, end_after: true } => self.say_and_end(content, context, out),
            Command::Say { content, end_after: false } => {
                self.tell_by_api(Telling::Say { content, end_after: false }, context, out)
            }
            Command::Inject { content, trigger_response } => {
                self.tell_by_api(Telling::Context { content, trigger_response }, context, out)
            }
        }
    }

    /// Hangs a leg up, once.
    pub(super) fn hang_up(&mut self, leg: LegKey, reason: &'static str, out: &mut Vec<Effect>) {
        if self.live.remove(&leg) {
            self.leaving.insert(leg);
            out.push(Effect::HangUp(leg, reason));
        }
    }

    /// Lets an agent go that was told of its transfer's success: it may hang up by itself, and what it was told may have to
    /// be repeated, which no agent would hear after a BYE.
    pub(super) fn release(&mut self, leg: LegKey, out: &mut Vec<Effect>) {
        self.releasing = Some(leg);
        out.push(Effect::SetTimer(Timer::ReleaseAgent, RELEASE_AGENT_AFTER));
    }

    /// Whoever is being dialled is no longer wanted, nor what is said before that; a transfer has its outcome.
    pub(super) fn give_up_transfer(&mut self, failure: Failure, header: &'static str, out: &mut Vec<Effect>) {
        if self.announcement.is_some() {
            self.announcement_ended(failure, out);
        } else if let Some(mut attempt) = self.attempt.take() {
            attempt.stop_ringing(self.now);
            out.push(Effect::ClearTimer(Timer::Ring));
            out.push(Effect::ClearTimer(Timer::HandOver));
            match attempt.purpose {
                Purpose::Transfer(transfer) => self.transfer_ended(transfer, failure, attempt.rung, out),
                Purpose::Test(route, mut tries) => {
                    tries.push(Try::dialled(&route, failure, attempt.rung, None));
                    self.report_test(tries, out);
                }
                Purpose::Agent(_) | Purpose::Fallback(..) | Purpose::Replacement(_) => {}
            }
            self.hang_up(attempt.leg, header, out);
        }
    }

    /// Ends the call: every leg that is still there is told, a transfer in flight gets its outcome.
    pub(super) fn end(&mut self, reason: &'static str, header: &'static str, out: &mut Vec<Effect>) {
        self.end_for_all_but(None, reason, header, out);
    }

    /// Ends the call; an agent that has just been told of its transfer's success is released last.
    pub(super) fn end_for_all_but(
        &mut self,
        told: Option<LegKey>,
        reason: &'static str,
        header: &'static str,
        out: &mut Vec<Effect>,
    ) {
        if let Some(leg) = self.releasing.take() {
            out.push(Effect::ClearTimer(Timer::ReleaseAgent));
            self.hang_up(leg, header, out);
        }
        if self.end_reason.is_some() {
            return;
        }
        self.end_reason = Some(reason);
        let (outcome, why) = match self.caller.phase {
            CallerPhase::Gone => (Outcome::CallerHungUp, "the caller hung up".to_owned()),
            _ => (Outcome::Unknown, format!("the call ended: {reason}")),
        };
        let failure = Failure { outcome, code: None, reason: why };
        self.give_up_transfer(failure, header, out);
        if self.referral.is_some() {
            let reason = "the call ended before the caller's trunk said what became of it".to_owned();
            self.referral_ended(Failure { outcome: Outcome::Unknown, code: None, reason }, out);
        }
        if self.farewell.take().is_some() {
            out.push(Effect::ClearTimer(Timer::Farewell));
        }
        self.exchange = None;
        self.newcomer = None;
        self.peer = None;
        if self.caller.phase == CallerPhase::Calling && self.live.remove(&LegKey::Caller) {
            // A refusal is final (RFC 3261 §17.2.1): no further event tells that this leg is over.
            out.push(Effect::Refuse(LegKey::Caller, 480, header));
        }
        for leg in self.live.clone() {
            if told == Some(leg) {
                self.release(leg, out);
            } else {
                self.hang_up(leg, header, out);
            }
        }
        if !self.is_test() {
            self.caller.phase = CallerPhase::Gone;
        }
        self.status = if self.status == Status::InProgress { Status::Ended } else { Status::Failed };
        out.push(Effect::Record(Record::Ended { reason }));
    }
}
