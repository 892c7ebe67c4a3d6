//! What passes between the caller and the party it is joined with: new offers (hold, codec change), INFO, MESSAGE.

use crate::sip::event::{Body, LegEvent, RequestId};

use super::attempt::Phase;
use super::input::{Effect, LegKey};
use super::machine::{Call, CallerPhase, Peer, PeerKind};
use super::media;
use super::sdp::same_session;

/// Seconds after which a request that came too early may be sent again.
const SOON: u32 = 2;

/// What a refusal of one side is for the other one: the same, unless it would be about that other side's own dialog, whose
/// end many a code means (RFC 5057 §5.3), or about its credentials.
pub fn passed_on(code: u16, otherwise: u16) -> u16 {
    match code {
        200..300
        | 403
        | 406
        | 413
        | 415
        | 469
        | 488
        | 491
        | 493
        | 500
        | 503
        | 504
        | 513
        | 600
        | 603
        | 606 => code,
        _ => otherwise,
    }
}

/// A new offer of one side that waits for the other side's answer.
#[derive(Debug)]
pub struct Exchange {
    from: LegKey,
    cause: Cause,
    to: LegKey,
    /// The offer; absent when the other side was asked to offer.
    offer: Option<Body>,
    /// The other side offered, and the ACK of `from` brings the answer.
    awaits_ack: bool,
    /// `from` has left, and the caller's answer is still on its way: it must not be taken for the answer to anything else.
    /// Holds what `from` described last.
    orphaned: Option<Option<Body>>,
}

/// Why a new offer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// `from` sent one, and waits for the answer.
    Request(RequestId),
    /// `from` sent one, and took it back (CANCEL) before it was answered.
    Withdrawn,
    /// The other side has agreed to what was taken back, and must follow.
    TakenBack,
    /// Somebody called, with this offer, to come in the place of `from`: the caller.
    Newcomer,
    /// `from` described itself anew in an answer.
    News,
    /// `from` sent one, and was answered without asking the other side.
    Unasked,
    /// `from` did so in its answer to such news. Two sides that both keep moving would never come to rest: what is answered
    /// now is left to the next refresh.
    NewsOfNews,
}

impl Exchange {
    fn respond(&self, code: u16, body: Option<Body>, out: &mut Vec<Effect>) {
        if let Cause::Request(request) = self.cause {
            out.push(Effect::Respond(self.from, request, code, body));
        }
    }

    /// The other side refused, and perhaps said when it may be tried again (RFC 3261 §20.33).
    fn refuse(&self, code: u16, retry_after: Option<u32>, out: &mut Vec<Effect>) {
        let told = passed_on(code, 488);
        match self.cause {
            Cause::Request(request) if retry_after.is_some() && told == code => {
                let why = "the other side does not take it now".to_owned();
                out.push(Effect::Decline { leg: self.from, request, code, why, retry_after });
            }
            _ => self.respond(told, None, out),
        }
    }
}

/// Whether two descriptions are there and say the same.
pub(super) fn same(a: &Option<Body>, b: &Option<Body>) -> bool {
    a.as_ref().zip(b.as_ref()).is_some_and(|(a, b)| same_session(&a.bytes, &b.bytes))
}

impl Call {
    /// A party wants to change the session.
    pub(super) fn reoffer(
        &mut self,
        from: LegKey,
        request: RequestId,
        body: Option<Body>,
        out: &mut Vec<Effect>,
    ) {
        if from == LegKey::Caller
            && !self.is_being_changed(from)
            && self.answered_unasked(request, &body, out)
        {
            return;
        }
        match self.other_side(from) {
            // It only refreshes the session, which each leg does for itself: the other side isn't asked.
            Some(to)
                if body.is_some()
                    && !self.is_being_changed(from)
                    && same(self.said(from), &body)
                    && self.said(to).is_some() =>
            {
                let last = self.said(to).clone();
                let shown = self.show(from, last);
                out.push(Effect::Respond(from, request, 200, shown));
            }
            // One change at a time; 491 makes the sender try again soon (RFC 3261 §14.2).
            Some(_) if self.is_changing() => out.push(Effect::Respond(from, request, 491, None)),
            Some(to) => self.pass_on(from, Cause::Request(request), to, body, out),
            // A caller whose agent left while a human is being dialled, or a human who is not joined with it yet: soon.
            None => out.push(Effect::Respond(from, request, 491, None)),
        }
    }

    /// A party answered a refresh of the session, perhaps with another description than before. While something else is
    /// changing, or if the other side doesn't follow, the next refresh brings it up again.
    pub(super) fn refreshed(&mut self, from: LegKey, body: Body, out: &mut Vec<Effect>) {
        let body = Some(body);
        let news = !same(self.said(from), &body) && !self.is_changing();
        if news && from == LegKey::Caller && self.unasked(&body).is_some() {
            return self.remember(from, body);
        }
        if let Some(to) = self.other_side(from).filter(|_| news) {
            self.pass_on(from, Cause::News, to, body, out);
        }
    }

    /// Answers the caller in the place of an agent that is best left alone, if nothing changes for it.
    fn answered_unasked(&mut self, request: RequestId, offer: &Option<Body>, out: &mut Vec<Effect>) -> bool {
        let Some(leg) = self.left_alone().map(|peer| peer.leg) else { return false };
        let answer = match offer {
            Some(_) => self.unasked(offer),
            None => self.said(leg).clone(),
        };
        if answer.is_none() {
            return false;
        }
        if offer.is_some() {
            self.remember(LegKey::Caller, offer.clone());
        } else {
            let (from, cause, to) = (LegKey::Caller, Cause::Unasked, leg);
            self.exchange = Some(Exchange { from, cause, to, offer: None, awaits_ack: true, orphaned: None });
        }
        let shown = self.show(LegKey::Caller, answer);
        out.push(Effect::Respond(LegKey::Caller, request, 200, shown));
        true
    }

    /// What an agent that is best left alone would answer the caller; `None` if it has to be asked.
    fn unasked(&self, offer: &Option<Body>) -> Option<Body> {
        let peer = self.left_alone()?;
        media::unasked(peer.sdp.as_ref()?, peer.origin.last()?, offer.as_ref()?)
    }

    /// An agent that is joined and that may not take a re-INVITE: what OpenAI's does with one is not documented.
    fn left_alone(&self) -> Option<&Peer> {
        let peer = self.peer.as_ref().filter(|peer| peer.kind == PeerKind::Agent && !peer.awaits_ack)?;
        self.start.answer.assistant().filter(|(_, agent)| agent.openai().is_some()).map(|_| peer)
    }

    /// A party takes its change back. The other side has been told of it, and may already have agreed.
    pub(super) fn withdrawn(&mut self, request: RequestId) {
        if let Some(exchange) = &mut self.exchange
            && exchange.cause == Cause::Request(request)
        {
            exchange.cause = Cause::Withdrawn;
        }
    }

    /// Somebody called, with this offer, to come in the caller's place: the party that the caller talks with is told.
    pub(super) fn pass_newcomer_on(&mut self, to: LegKey, offer: Option<Body>, out: &mut Vec<Effect>) {
        self.pass_on(LegKey::Caller, Cause::Newcomer, to, offer, out);
    }

    /// That one left before the other party has said anything.
    pub(super) fn newcomer_withdrawn(&mut self) {
        if let Some(exchange) = self.exchange.as_mut().filter(|exchange| exchange.cause == Cause::Newcomer) {
            exchange.cause = Cause::Withdrawn;
        }
    }

    /// The other side agreed to a change that was taken back, and said `body`: both are brought together again.
    fn take_back(&mut self, exchange: Exchange, body: Option<Body>, out: &mut Vec<Effect>) {
        let Exchange { from, to, offer, .. } = exchange;
        let before = self.said(from).clone();
        if offer.is_none() {
            // It was asked to offer: the answer is what the first one said before.
            let shown = self.show(to, before);
            out.push(Effect::Ack(to, shown));
            if body.is_some() && !same(self.said(to), &body) {
                self.pass_on(to, Cause::TakenBack, from, body, out);
            }
        } else if before.is_some() {
            self.pass_on(from, Cause::TakenBack, to, before, out);
        }
    }

    fn pass_on(
        &mut self,
        from: LegKey,
        cause: Cause,
        to: LegKey,
        offer: Option<Body>,
        out: &mut Vec<Effect>,
    ) {
        let shown = self.show(to, offer.clone());
        self.exchange = Some(Exchange { from, cause, to, offer, awaits_ack: false, orphaned: None });
        out.push(match cause {
            Cause::Request(_) => Effect::PassOn(to, shown),
            _ => Effect::Reoffer(to, shown),
        });
    }

    /// Whether a change of the session is under way.
    pub(super) fn is_changing(&self) -> bool {
        let moving = self.attempt.as_ref().is_some_and(|attempt| !matches!(attempt.phase, Phase::Dialling));
        moving || self.catching_up || self.exchange.is_some()
    }

    /// Whether an offer to a party, or one of its own, has no answer yet: what it is told now would be out of date at once.
    fn is_being_changed(&self, leg: LegKey) -> bool {
        match leg {
            LegKey::Caller => self.is_changing(),
            leg => self.exchange.as_ref().is_some_and(|exchange| exchange.to == leg || exchange.from == leg),
        }
    }

    /// A request that is none of ours is passed on.
    pub(super) fn request(
        &mut self,
        from: LegKey,
        request: RequestId,
        method: String,
        body: Option<Body>,
        out: &mut Vec<Effect>,
    ) {
        match self.other_side(from) {
            Some(to) => out.push(Effect::Relay { from, request, to, method, body }),
            None => out.push(Effect::Decline {
                leg: from,
                request,
                code: 500,
                why: "nobody is joined with this leg yet".to_owned(),
                retry_after: Some(SOON),
            }),
        }
    }

    /// Whether `leg` owes the answer of an exchange.
    pub(super) fn is_exchange_to(&self, leg: LegKey) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.to == leg && !exchange.awaits_ack)
    }

    /// The other side answered, or refused.
    pub(super) fn exchange_concluded(&mut self, event: LegEvent, out: &mut Vec<Effect>) {
        let Some(mut exchange) = self.exchange.take() else { return };
        if let Some(last) = exchange.orphaned {
            if let LegEvent::ReofferAccepted { body } = event {
                self.remember(exchange.to, body);
                if exchange.offer.is_none() {
                    let shown = self.show(exchange.to, last);
                    out.push(Effect::Ack(exchange.to, shown));
                }
            }
            return;
        }
        if exchange.cause == Cause::Newcomer {
            let joined = self.newcomer_concluded(event, out);
            if joined && exchange.offer.is_none() {
                self.exchange = Some(Exchange { cause: Cause::News, awaits_ack: true, ..exchange });
            }
            return;
        }
        match event {
            LegEvent::ReofferAccepted { body } if exchange.cause == Cause::Withdrawn => {
                self.take_back(exchange, body, out);
            }
            LegEvent::ReofferAccepted { body } if !matches!(exchange.cause, Cause::Request(_)) => {
                self.remember(exchange.from, exchange.offer);
                let news = body.is_some() && !same(self.said(exchange.to), &body);
                if news && exchange.cause != Cause::NewsOfNews {
                    self.pass_on(exchange.to, Cause::NewsOfNews, exchange.from, body, out);
                }
            }
            LegEvent::ReofferAccepted { body } => {
                let shown = self.show(exchange.from, body.clone());
                exchange.respond(200, shown, out);
                self.remember(exchange.to, body);
                if exchange.offer.is_some() {
                    self.remember(exchange.from, exchange.offer);
                } else {
                    exchange.awaits_ack = true;
                    self.exchange = Some(exchange);
                }
            }
            LegEvent::ReofferRefused { .. } if exchange.cause == Cause::TakenBack => {
                // It would send its media to where nobody is.
                self.end("media-lost", "SIP;cause=488;text=\"No common media\"", out);
            }
            LegEvent::ReofferRefused { code, retry_after } => exchange.refuse(code, retry_after, out),
            _ => self.exchange = Some(exchange),
        }
    }

    /// The ACK of a side that asked the other one to offer: it holds the answer. True when it was awaited.
    pub(super) fn exchange_acked(&mut self, leg: LegKey, body: &Option<Body>, out: &mut Vec<Effect>) -> bool {
        let Some(exchange) = self.exchange.take_if(|exchange| exchange.awaits_ack && exchange.from == leg)
        else {
            return false;
        };
        if exchange.cause == Cause::Unasked {
            match (body, self.unasked(body)) {
                (None, _) => {}
                (Some(_), Some(_)) => self.remember(leg, body.clone()),
                (Some(_), None) => self.pass_on(leg, Cause::News, exchange.to, body.clone(), out),
            }
            return true;
        }
        // Without an answer in it, what was said before still holds.
        let answer = body.clone().or_else(|| self.said(leg).clone());
        let shown = self.show(exchange.to, answer.clone());
        out.push(Effect::Ack(exchange.to, shown));
        self.remember(leg, answer);
        true
    }

    /// The caller's peer left, having described `last`: what the caller waits for is answered, what the caller owes is
    /// still awaited.
    pub(super) fn exchange_lost(&mut self, leg: LegKey, last: Option<Body>, out: &mut Vec<Effect>) {
        let Some(mut exchange) = self.exchange.take() else { return };
        if exchange.to == leg {
            if exchange.cause == Cause::Newcomer {
                self.newcomer_failed(480, "SIP;cause=480;text=\"The other party hung up\"", out);
            } else if !exchange.awaits_ack {
                exchange.respond(491, None, out);
            }
        } else if exchange.awaits_ack {
            // The caller's offer has no answer yet.
            let shown = self.show(exchange.to, last);
            out.push(Effect::Ack(exchange.to, shown));
        } else {
            exchange.orphaned = Some(last);
            self.exchange = Some(exchange);
        }
    }

    /// Who is joined with a leg. A caller who has left while somebody comes in its place isn't.
    fn other_side(&self, leg: LegKey) -> Option<LegKey> {
        let peer = self.peer.as_ref()?.leg;
        match leg {
            LegKey::Caller => Some(peer),
            leg if leg == peer && self.caller.phase != CallerPhase::Gone => Some(LegKey::Caller),
            _ => None,
        }
    }

    /// What a party that is joined said last about its media.
    fn said(&self, leg: LegKey) -> &Option<Body> {
        match (&self.peer, leg) {
            (_, LegKey::Caller) => &self.caller.sdp,
            (Some(peer), leg) if peer.leg == leg => &peer.sdp,
            _ => &None,
        }
    }

    fn show(&mut self, leg: LegKey, body: Option<Body>) -> Option<Body> {
        match (&mut self.peer, leg) {
            (_, LegKey::Caller) => self.caller.origin.show(body),
            (Some(peer), leg) if peer.leg == leg => peer.origin.show(body),
            _ => body,
        }
    }

    fn remember(&mut self, leg: LegKey, body: Option<Body>) {
        let Some(body) = body else { return };
        match (&mut self.peer, leg) {
            (_, LegKey::Caller) => self.caller.sdp = Some(body),
            (Some(peer), leg) if peer.leg == leg => peer.sdp = Some(body),
            _ => {}
        }
    }
}
