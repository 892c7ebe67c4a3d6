//! Provisional responses that are acknowledged (RFC 3262, 100rel): ours to a peer's INVITE, a peer's to ours.
//!
//! Ours go out one at a time and are repeated until PRACK comes; a 2xx waits for the PRACK of a description, and an INVITE
//! whose responses are never acknowledged is refused. A peer's are acknowledged here and now: our INVITE has the offer (one
//! without says nothing of 100rel), so a description in them is the answer, and PRACK has none to bring.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use sipx_sip::rel::{OPTION_TAG, RAck, RSeq};
use sipx_sip::{HeaderName, Headers, Response};

use super::called;
use super::client;
use super::core::{Core, Inbound, Reply, TimerId};
use super::ending;
use super::leg::{Leg, MOST_BRANCHES, Phase};
use crate::sip::dialog::Dialog;
use crate::sip::event::{Body, EndedBy, Flow, LegEvent, Reliability};
use crate::sip::read;
use crate::sip::time::Millis;
use crate::sip::timer;
use crate::sip::transaction::{Again, Purpose};
use crate::sip::wheel::Handle;
use crate::sip::wire::Lines;

/// Most responses that wait for the PRACK of one before them.
const MOST_WAITING: usize = 8;

/// Our responses to a peer's INVITE.
#[derive(Debug)]
pub struct Reliable {
    /// What the peer says of them.
    peer: Reliability,
    /// RSeq of the last one.
    last: u32,
    unacknowledged: Option<Unacknowledged>,
    waiting: VecDeque<(u16, Option<Body>)>,
    /// A 2xx that waits for a PRACK; with its body.
    answer: Option<Option<Body>>,
    /// One of them described our side: the INVITE's offer has its answer.
    described: bool,
}

#[derive(Debug)]
struct Unacknowledged {
    rseq: u32,
    described: bool,
    flow: Flow,
    bytes: Bytes,
    interval: Duration,
    ends: Millis,
    timer: Option<Handle>,
}

/// A dialog that a peer's provisional response made.
#[derive(Debug)]
pub struct Early {
    /// It.
    pub dialog: Dialog,
    rseq: u32,
    /// What it described.
    answer: Option<Body>,
}

impl Reliable {
    /// For an INVITE that speaks of them.
    pub fn new(peer: Reliability) -> Option<Box<Self>> {
        let (last, unacknowledged, waiting, answer) = (0, None, VecDeque::new(), None);
        let new = Self { peer, last, unacknowledged, waiting, answer, described: false };
        (peer != Reliability::Unknown).then(|| Box::new(new))
    }

    /// Whether a response goes out reliably.
    pub fn takes(&self, body: Option<&Body>) -> bool {
        self.peer.wants(body.is_some())
    }

    /// Whether the INVITE's offer has its answer already.
    pub fn described(&self) -> bool {
        self.described
    }

    /// Holds a 2xx back, if it must be (RFC 3262 §3). Nothing else is of interest any more then.
    pub fn hold(&mut self, body: Option<&Body>) -> bool {
        self.waiting.clear();
        let held = self.unacknowledged.as_ref().is_some_and(|response| response.described);
        if held {
            self.answer = Some(body.cloned());
        }
        held
    }
}

/// The peer's INVITE has its final response, or is over: nothing is repeated any more. PRACK may still come.
pub fn settle(reliable: &mut Option<Box<Reliable>>, core: &mut Core) {
    if let Some(response) = reliable.as_mut().and_then(|reliable| reliable.unacknowledged.as_mut()) {
        core.wheel.cancel(&mut response.timer);
    }
}

/// Sends a provisional response, as soon as the one before it is acknowledged.
pub fn send(leg: &mut Leg, core: &mut Core, code: u16, body: Option<&Body>, now: Millis) {
    let Some(reliable) = &mut leg.reliable else { return };
    if reliable.unacknowledged.is_none() {
        transmit(leg, core, code, body, now);
    } else if reliable.waiting.len() < MOST_WAITING {
        reliable.waiting.push_back((code, body.cloned()));
    }
}

fn transmit(leg: &mut Leg, core: &mut Core, code: u16, body: Option<&Body>, now: Millis) {
    let (Some(reliable), Some((key, _))) = (&mut leg.reliable, leg.invite) else { return };
    // RFC 3262 §3: the first number is random, in the lower half of what there is.
    reliable.last =
        if reliable.last == 0 { 1 + (core.identity.throw() >> 34) as u32 } else { reliable.last + 1 };
    let headers = [("Require", OPTION_TAG.to_owned()), ("RSeq", reliable.last.to_string())];
    let reply = Reply::code(code, true).with(&headers).body(body);
    let Some((flow, bytes)) = core.provisional(key, leg.id, &reply) else { return };
    reliable.described |= body.is_some();
    reliable.unacknowledged = Some(Unacknowledged {
        rseq: reliable.last,
        described: body.is_some(),
        flow,
        bytes,
        interval: timer::T1,
        ends: now + timer::GIVE_UP,
        timer: Some(core.wheel.set(now + timer::T1, TimerId::Provisional(leg.id))),
    });
}

/// A response was not acknowledged yet: it is sent again, or the INVITE refused (RFC 3262 §3).
pub fn on_timer(leg: &mut Leg, core: &mut Core, now: Millis) {
    let Some(reliable) = &mut leg.reliable else { return };
    let Some(response) = &mut reliable.unacknowledged else { return };
    if response.ends > now {
        response.interval = timer::doubled(response.interval);
        let next = (now + response.interval).min(response.ends);
        response.timer = Some(core.wheel.set(next, TimerId::Provisional(leg.id)));
        return core.transmit(response.flow, response.bytes.clone());
    }
    if let Some((key, _)) = leg.invite.take() {
        core.finish(key, leg.id, &Reply::code(504, true), now);
    }
    core.end(leg, LegEvent::Ended(EndedBy::Timeout));
    ending::close_theirs(leg, core, now);
}

/// PRACK. An offer in it would need somebody who can answer it before the call is answered: there is nobody.
pub fn acknowledged(leg: &mut Leg, core: &mut Core, inbound: &Inbound, now: Millis) {
    let rack = inbound.request.headers.typed::<RAck>().and_then(Result::ok);
    let of_invite =
        |rack: &RAck| rack.method == b"INVITE" && leg.invite.is_some_and(|(_, cseq)| cseq == rack.cseq);
    let reliable = leg.reliable.as_mut().zip(rack.filter(of_invite));
    let known = reliable
        .and_then(|(reliable, rack)| reliable.unacknowledged.take_if(|response| response.rseq == rack.rseq));
    let Some(mut response) = known else {
        return core.reply_within(leg.id, inbound, &Reply::code(481, false), now);
    };
    core.wheel.cancel(&mut response.timer);
    let code = if inbound.request.body().is_empty() { 200 } else { 488 };
    core.reply_within(leg.id, inbound, &Reply::code(code, false), now);
    let Some(reliable) = &mut leg.reliable else { return };
    if let Some(body) = reliable.answer.take() {
        called::answer(leg, core, body.as_ref(), now);
    } else if leg.phase == Phase::Ringing
        && let Some((code, body)) = reliable.waiting.pop_front()
    {
        transmit(leg, core, code, body.as_ref(), now);
    }
}

/// A provisional response to our INVITE with CSeq number `cseq`. False if it is a copy of another, or came out of order
/// (RFC 3262 §4): then it counts for nothing.
pub fn received(leg: &mut Leg, core: &mut Core, response: &Response, cseq: u32, now: Millis) -> bool {
    let headers = &response.headers;
    let (Some(rseq), Some(tag)) = (rseq(headers), read::tag(headers, &HeaderName::To)) else { return true };
    let body = read::response_body(response);
    if let Some(early) = leg.early.iter_mut().find(|early| *early.dialog.remote_tag == *tag) {
        if early.rseq.checked_add(1) != Some(rseq) {
            return false;
        }
        early.rseq = rseq;
        early.dialog.refresh_target(headers);
        early.answer = early.answer.take().or(body);
    } else if leg.early.len() < MOST_BRANCHES {
        let mut dialog = leg.dialog.clone();
        dialog.establish(headers);
        leg.early.push(Early { dialog, rseq, answer: body });
    } else {
        return true;
    }
    let headers = Lines::collect([("RAck", format!("{rseq} {cseq} INVITE"))]);
    let purpose = Purpose::Prack(tag.into_boxed_slice());
    client::send(leg, core, purpose, Again { headers, body: None, max_forwards: 70 }, now);
    true
}

fn rseq(headers: &Headers) -> Option<u32> {
    let rseq = headers.typed::<RSeq>()?.ok()?.0;
    read::requires(headers, OPTION_TAG).then_some(rseq)
}

/// Our INVITE was answered: what that branch described before, which its 2xx need not repeat.
pub fn answer(leg: &mut Leg, headers: &Headers) -> Option<Body> {
    let tag = read::tag(headers, &HeaderName::To).unwrap_or_default();
    let early = std::mem::take(&mut leg.early).into_iter();
    early.filter(|early| *early.dialog.remote_tag == *tag).find_map(|early| early.answer)
}

/// A peer's request in a dialog that its provisional response made. UPDATE may say where the peer is; nothing else can be
/// done before it answers.
pub fn request(leg: &mut Leg, core: &mut Core, inbound: &Inbound, now: Millis) {
    let headers = &inbound.request.headers;
    let from_branch = |early: &&mut Early| early.dialog.is_with(&inbound.id.call_id, inbound.id.sender_tag());
    let Some(early) = leg.early.iter_mut().find(from_branch) else { return core.reply(inbound, 481, &[]) };
    if inbound.request.method == sipx_sip::Method::Update && inbound.request.body().is_empty() {
        early.dialog.refresh_target(headers);
        return core.reply_within(leg.id, inbound, &Reply::code(200, false).target(), now);
    }
    let headers = [("Retry-After", "5".to_owned())];
    core.reply_within(leg.id, inbound, &Reply::code(500, false).with(&headers), now);
}
