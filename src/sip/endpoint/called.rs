//! A peer's INVITE outside of a dialog, from its arrival to the ACK of our answer; other requests outside of dialogs.

use sipx_sip::{Headers, Method};

use super::Opening;
use super::client;
use super::core::{Core, Inbound, Reply};
use super::ending;
use super::keeping;
use super::leg::{Leg, Pending, PendingKind, Phase};
use super::reliable::{self, Reliable};
use crate::sip::content;
use crate::sip::dialog::Dialog;
use crate::sip::event::{Body, EndedBy, IncomingCall, LegEvent, Reliability};
use crate::sip::read;
use crate::sip::session::{Asked, SessionPolicy, TooSmall};
use crate::sip::slab::Slab;
use crate::sip::time::Millis;
use crate::sip::timer;
use crate::sip::transaction::{ReplyHead, ServerKey, ServerState};
use crate::sip::wire::{ALLOW, SUPPORTED};

/// Body types that we pass on or understand.
pub const ACCEPT: &str = "application/sdp, message/sipfrag, application/dtmf-relay, text/plain";

/// A new call.
pub fn invite(legs: &mut Slab<Box<Leg>>, core: &mut Core, inbound: &Inbound, now: Millis) {
    // First: in overload nothing else may cost anything.
    if core.opening == Opening::Full || core.turned_away.has(&inbound.key, now) {
        return core.turn_away(inbound, now);
    }
    let merged = ServerKey::merged(&core.identity, &inbound.id);
    if core.servers.is_merged(merged, inbound.key) {
        return core.reply(inbound, 482, &[]);
    }
    let replaced = match replaced(legs, core, &inbound.request.headers) {
        Ok(replaced) => replaced,
        Err(code) => return core.reply(inbound, code, &[]),
    };
    if core.opening == Opening::Draining && replaced.is_none() {
        return core.elsewhere(inbound);
    }
    if core.live >= core.config.max_legs {
        return core.turn_away(inbound, now);
    }
    if let Err(unacceptable) = content::judge(&inbound.request) {
        let (code, header) = unacceptable.answer();
        return core.reply(inbound, code, header.as_slice());
    }
    let asked = Asked::of(&inbound.request.headers);
    if let Err(TooSmall(min)) = SessionPolicy::default().answer(asked) {
        return core.reply(inbound, 422, &[("Min-SE", min.to_string())]);
    }
    let head = ReplyHead::of(&inbound.request);
    let made = legs
        .insert_with(|id| Box::new(Leg::new(id, false, Phase::Ringing, dialog(core, inbound, &head, id))));
    let Some(leg) = made.and_then(|id| legs.get_mut(id)) else {
        return core.turn_away(inbound, now);
    };
    core.live += 1;
    leg.invite = Some((inbound.key, inbound.id.cseq));
    leg.ack_answers = content::offer(&inbound.request).is_none();
    leg.session.met(asked, &inbound.request.headers);
    leg.reliable = Reliable::new(reliability(&inbound.request.headers));
    core.remember(leg.id, inbound, head, Some(merged), now);
    core.provisional(inbound.key, leg.id, &Reply::code(100, true));
    let call = IncomingCall { replaces: replaced, ..incoming_call(inbound) };
    core.tell(leg, LegEvent::Incoming(Box::new(call)));
}

/// The leg in whose place an INVITE comes, if it says so; or the code with which it is refused (RFC 3891 §3). Our tag is the one
/// that we gave that leg, the other its peer's. A dialog that isn't answered yet can be replaced if we began it: its peer
/// rings, and another phone picks the call up.
fn replaced(
    legs: &mut Slab<Box<Leg>>,
    core: &Core,
    headers: &Headers,
) -> Result<Option<crate::sip::event::LegId>, u16> {
    let Some(replaces) = read::replaces(headers).map_err(|_| 400_u16)? else { return Ok(None) };
    let id = core.identity.leg_of_token(replaces.to_tag()).ok_or(481_u16)?;
    let is_with = |leg: &&mut Box<Leg>| leg.has_dialog(replaces.call_id(), replaces.from_tag());
    match legs.get_mut(id).filter(is_with).ok_or(481_u16)?.phase {
        Phase::Ringing => Err(481),
        Phase::Calling => Ok(Some(id)),
        Phase::Over => Err(603),
        Phase::Unacknowledged | Phase::Confirmed if replaces.early_only() => Err(486),
        Phase::Unacknowledged | Phase::Confirmed => Ok(Some(id)),
    }
}

/// The dialog that our answer will make (RFC 3261 §12.1.1).
fn dialog(core: &Core, inbound: &Inbound, head: &ReplyHead, leg: crate::sip::event::LegId) -> Dialog {
    let Inbound { request, id, source, .. } = inbound;
    let headers = &request.headers;
    let from = headers.value(&sipx_sip::HeaderName::From).unwrap_or_default().into_owned();
    let target = read::contact(headers).unwrap_or_else(|| id.from.uri.to_bytes().to_vec());
    let token = core.identity.token(leg);
    Dialog {
        call_id: id.call_id.clone().into_boxed_slice(),
        local: [&head.to, &b";tag="[..], token.as_bytes()].concat().into_boxed_slice(),
        remote: from.into_boxed_slice(),
        remote_tag: id.sender_tag().to_vec().into_boxed_slice(),
        local_cseq: 0,
        remote_cseq: Some(id.cseq),
        routes: read::record_route(headers).into_boxed_slice(),
        target: target.into_boxed_slice(),
        flow: *source,
        flow_lost: false,
    }
}

fn incoming_call(inbound: &Inbound) -> IncomingCall {
    let Inbound { request, id, source, .. } = inbound;
    let headers = &request.headers;
    let max_forwards = match headers.typed::<sipx_sip::headers::MaxForwards>() {
        Some(Ok(max)) => max.0,
        _ => 70,
    };
    IncomingCall {
        flow: *source,
        called: read::user_of(&request.uri),
        from: read::party(&id.from),
        to: read::party(&id.to),
        asserted: read::asserted(headers),
        privacy: read::privacy(headers),
        max_forwards,
        call_id: String::from_utf8_lossy(&id.call_id).into_owned(),
        authorization: headers
            .get_all(&sipx_sip::HeaderName::Authorization)
            .map(|row| row.value().into_owned())
            .collect(),
        identity: headers
            .get_all(&sipx_sip::HeaderName::Identity)
            .map(|row| String::from_utf8_lossy(&row.value()).into_owned())
            .collect(),
        date: read::text(headers, &sipx_sip::HeaderName::Date),
        headers: read::passed_headers(headers),
        reliability: reliability(headers),
        replaces: None,
        offer: content::offer(request),
    }
}

fn reliability(headers: &Headers) -> Reliability {
    if read::requires(headers, "100rel") {
        Reliability::Demanded
    } else if read::supports(headers, "100rel") {
        Reliability::Known
    } else {
        Reliability::Unknown
    }
}

/// Any other request outside of a dialog. Answered without a trace: its repetition gets the same answer.
pub fn outside(core: &mut Core, inbound: &Inbound) {
    let allow = ("Allow", ALLOW.to_owned());
    match inbound.request.method {
        Method::Options if core.opening == Opening::Draining => core.elsewhere(inbound),
        Method::Options => {
            let headers = [allow, ("Accept", ACCEPT.to_owned()), ("Supported", SUPPORTED.to_owned())];
            core.reply(inbound, 200, &headers);
        }
        // They make sense in a dialog only.
        Method::Bye | Method::Info | Method::Update | Method::Prack | Method::Notify => {
            core.reply(inbound, 481, &[]);
        }
        Method::Refer => core.reply(inbound, 403, &[]),
        Method::Subscribe => core.reply(inbound, 489, &[("Allow-Events", "refer".into())]),
        // Nobody here will ever know it (RFC 3261 §21.5.2).
        Method::Other(_) => core.reply(inbound, 501, &[allow]),
        _ => core.reply(inbound, 405, &[allow]),
    }
}

/// Sends a provisional response.
pub fn progress(leg: &mut Leg, core: &mut Core, code: u16, body: Option<&Body>, now: Millis) {
    if leg.phase != Phase::Ringing || !(101..200).contains(&code) {
        return;
    }
    if leg.reliable.as_ref().is_some_and(|reliable| reliable.takes(body)) {
        reliable::send(leg, core, code, body, now);
    } else if let Some((key, _)) = leg.invite {
        core.provisional(key, leg.id, &Reply::code(code, true).body(body));
    }
}

/// Sets how long the session shall last, or refuses the call.
pub fn keep_session(leg: &mut Leg, core: &mut Core, policy: SessionPolicy, now: Millis) -> bool {
    leg.session.policy = policy;
    match leg.session.judged() {
        Ok(()) => true,
        Err(TooSmall(min)) => {
            refuse(leg, core, 422, &[("Min-SE", min.to_string())], now);
            false
        }
    }
}

/// Accepts the call, once the description that it was given before is acknowledged.
pub fn answer(leg: &mut Leg, core: &mut Core, body: Option<&Body>, now: Millis) {
    if leg.phase != Phase::Ringing || leg.reliable.as_mut().is_some_and(|reliable| reliable.hold(body)) {
        return;
    }
    let Some((key, _)) = leg.invite else { return };
    let headers = keeping::accept(leg, core, now);
    if core.finish(key, leg.id, &Reply::code(200, true).with(&headers).body(body), now) {
        leg.session.describe(body);
        leg.phase = Phase::Unacknowledged;
        reliable::settle(&mut leg.reliable, core);
    }
}

/// Refuses the call.
pub fn refuse(leg: &mut Leg, core: &mut Core, code: u16, headers: &[(&str, String)], now: Millis) {
    if leg.phase != Phase::Ringing {
        return;
    }
    // Anything else would be no refusal, and the leg would stay.
    let code = if (300..700).contains(&code) { code } else { 500 };
    if let Some((key, _)) = leg.invite.take() {
        core.finish(key, leg.id, &Reply::code(code, true).with(headers), now);
    }
    core.end(leg, LegEvent::Ended(EndedBy::Us));
    ending::close_theirs(leg, core, now);
}

/// The peer acknowledged our 2xx, and perhaps answered our offer.
pub fn acked(leg: &mut Leg, core: &mut Core, body: Option<Body>, now: Millis) {
    let Some((key, _)) = leg.invite else { return };
    let accepted = core.servers.get_mut(key).is_some_and(|s| matches!(s.state, ServerState::Accepted(_)));
    if !accepted {
        return;
    }
    leg.invite = None;
    core.acknowledged(key, timer::GIVE_UP, now);
    if let Some(reason) = leg.bye_after_ack.take() {
        ending::bye(leg, core, reason.as_deref(), now);
        return;
    }
    if leg.phase == Phase::Unacknowledged {
        leg.phase = Phase::Confirmed;
        leg.reliable = None;
    }
    core.tell(leg, LegEvent::Acked { body });
    client::refer_next(leg, core, now);
    client::offer_next(leg, core, now);
}

/// The peer sends another INVITE, so it has our answer to the last one: where nothing but the ACK of that is missing, this
/// stands for it (RFC 5407 §3.1.4). The answer to an offer of ours is waited for (§3.1.5).
pub fn acked_by_another(leg: &mut Leg, core: &mut Core, now: Millis) {
    if !leg.ack_answers {
        acked(leg, core, None, now);
    }
}

/// The peer never acknowledged our 2xx: the dialog is ended (RFC 3261 §13.3.1.4, §14.2).
pub fn never_acked(leg: &mut Leg, core: &mut Core, key: ServerKey, now: Millis) {
    if leg.invite.is_none_or(|(awaited, _)| awaited != key) {
        return;
    }
    leg.invite = None;
    let reason = leg.bye_after_ack.take().flatten();
    core.end(leg, LegEvent::Ended(EndedBy::Timeout));
    ending::close_theirs(leg, core, now);
    ending::close_ours(leg, core, now);
    ending::bye(leg, core, reason.as_deref(), now);
}

/// The peer cancelled its INVITE or re-INVITE before our final response.
pub fn cancelled(leg: &mut Leg, core: &mut Core, key: ServerKey, now: Millis) {
    if leg.invite.is_none_or(|(waiting, _)| waiting != key) {
        return;
    }
    leg.invite = None;
    core.finish(key, leg.id, &Reply::code(487, true), now);
    if leg.phase == Phase::Ringing {
        core.end(leg, LegEvent::Ended(EndedBy::Cancel));
        ending::close_theirs(leg, core, now);
        return;
    }
    let withdrawn = |pending: &Pending| pending.kind == PendingKind::Reinvite && pending.key == key;
    if let Some(index) = leg.pending.iter().position(withdrawn) {
        let request = leg.pending.swap_remove(index).request;
        core.tell(leg, LegEvent::Withdrawn { request });
    }
    client::offer_next(leg, core, now);
}
