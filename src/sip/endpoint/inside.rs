//! A peer's requests inside a dialog: BYE, re-INVITE, UPDATE, REFER and the rest; and our answers to them.

use sipx_sip::{HeaderName, Method};

use super::called::{self, ACCEPT};
use super::client;
use super::core::{Core, Inbound, Reply};
use super::ending;
use super::keeping;
use super::leg::{Leg, Pending, PendingKind, Phase, Referral, Subscription};
use super::reliable;
use crate::sip::content;
use crate::sip::event::{Body, EndedBy, LegEvent, RefusedBy, RequestId};
use crate::sip::read;
use crate::sip::session::TooSmall;
use crate::sip::time::Millis;
use crate::sip::transaction::ReplyHead;
use crate::sip::wire::ALLOW;

/// A request with the tag of this leg.
pub fn request(leg: &mut Leg, core: &mut Core, inbound: &Inbound, now: Millis) {
    let id = &inbound.id;
    let bye = inbound.request.method == Method::Bye;
    if leg.phase == Phase::Calling {
        // The callee ends a call whose answer we have not seen: the answer was lost, or there will be none (RFC 5407 §3.1).
        if bye && *leg.dialog.call_id == *id.call_id {
            return ended_before_answer(leg, core, inbound, now);
        }
        return reliable::request(leg, core, inbound, now);
    }
    if !leg.dialog.is_with(&id.call_id, id.sender_tag()) || (leg.is_over() && !bye) {
        return core.reply(inbound, 481, &[]);
    }
    if leg.dialog.remote_cseq.is_some_and(|last| id.cseq < last) {
        return core.reply(inbound, 500, &[("Retry-After", "1".into())]);
    }
    leg.dialog.remote_cseq = Some(id.cseq);
    if inbound.source != inbound.flow || !crate::sip::proxy::is_forwarded(&id.via) {
        leg.dialog.seen_on(inbound.source);
    }
    match inbound.request.method {
        Method::Bye => ended_by_peer(leg, core, inbound, now),
        Method::Invite => reinvite(leg, core, inbound, now),
        Method::Update => update(leg, core, inbound, now),
        Method::Refer => refer(leg, core, inbound, now),
        Method::Options => {
            let headers = [("Accept", ACCEPT.to_owned())];
            core.reply_within(leg.id, inbound, &Reply::code(200, false).with(&headers).target(), now);
        }
        Method::Notify if leg.referred && is_about_refer(inbound) => referred(leg, core, inbound, now),
        // We have offered no package (RFC 6086 §4.2.2).
        Method::Info if read::has(&inbound.request.headers, "Info-Package") => {
            let headers = [("Recv-Info", String::new())];
            core.reply_within(leg.id, inbound, &Reply::code(469, false).with(&headers), now);
        }
        Method::Info | Method::Message | Method::Notify => {
            let method = inbound.request.method.to_string();
            let request = wait(leg, core, inbound, PendingKind::Other, now);
            let body = read::request_body(&inbound.request);
            core.tell(leg, LegEvent::Request { request, method, body });
        }
        Method::Subscribe => core.reply(inbound, 489, &[("Allow-Events", "refer".into())]),
        Method::Prack => reliable::acknowledged(leg, core, inbound, now),
        Method::Other(_) => core.reply(inbound, 501, &[("Allow", ALLOW.to_owned())]),
        _ => core.reply(inbound, 405, &[("Allow", ALLOW.to_owned())]),
    }
}

fn is_about_refer(inbound: &Inbound) -> bool {
    let event = inbound.request.headers.value(&HeaderName::Event).unwrap_or_default();
    event.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().eq_ignore_ascii_case(b"refer")
}

/// NOTIFY about our REFER (RFC 3515 §2.4.4). One about another is answered as if there had been none.
fn referred(leg: &mut Leg, core: &mut Core, inbound: &Inbound, now: Millis) {
    let headers = &inbound.request.headers;
    let event = read::text(headers, &HeaderName::Event).unwrap_or_default();
    let id = event.split(';').find_map(|parameter| parameter.trim().strip_prefix("id="));
    let id = id.map(|id| id.trim().parse::<u32>().ok());
    let about =
        |referral: &&mut Box<Referral>| id.is_none_or(|id| id.is_some_and(|id| referral.sent.contains(&id)));
    let Some(referral) = leg.referral.as_mut().filter(about) else {
        return core.reply_within(leg.id, inbound, &Reply::code(481, false), now);
    };
    let request = referral.request;
    core.reply_within(leg.id, inbound, &Reply::code(200, false), now);
    let state = read::text(headers, &HeaderName::SubscriptionState).unwrap_or_default();
    let state = state.split(';').next().unwrap_or_default().trim();
    let ended = state.eq_ignore_ascii_case("terminated");
    let code = read::request_body(&inbound.request).and_then(|body| read::status_of_fragment(&body.bytes));
    if ended || code.is_some_and(|code| code >= 200) {
        leg.referral = None;
    }
    core.tell(leg, LegEvent::Referred { request, code, ended });
}

/// Keeps a request until the call machine answers it.
fn wait(leg: &mut Leg, core: &mut Core, inbound: &Inbound, kind: PendingKind, now: Millis) -> RequestId {
    core.remember(leg.id, inbound, ReplyHead::of(&inbound.request), None, now);
    let request = core.next_request();
    leg.pending.push(Pending { request, key: inbound.key, kind });
    request
}

fn ended_by_peer(leg: &mut Leg, core: &mut Core, inbound: &Inbound, now: Millis) {
    core.reply_within(leg.id, inbound, &Reply::code(200, false), now);
    leg.bye_after_ack = None;
    if leg.is_over() {
        return;
    }
    let reason = read::text(&inbound.request.headers, &HeaderName::Reason);
    core.end(leg, LegEvent::Ended(EndedBy::Bye(reason)));
    ending::close_theirs(leg, core, now);
    ending::close_ours(leg, core, now);
}

fn ended_before_answer(leg: &mut Leg, core: &mut Core, inbound: &Inbound, now: Millis) {
    core.reply_within(leg.id, inbound, &Reply::code(200, false), now);
    let reason = "Ended by the callee before its answer came".to_owned();
    core.end(leg, LegEvent::Refused { code: 480, reason, by: RefusedBy::Response });
    ending::cancel(leg, core, None, now);
}

fn reinvite(leg: &mut Leg, core: &mut Core, inbound: &Inbound, now: Millis) {
    if let Err(unacceptable) = content::judge(&inbound.request) {
        let (code, header) = unacceptable.answer();
        return core.reply_within(leg.id, inbound, &Reply::code(code, true).with(header.as_slice()), now);
    }
    called::acked_by_another(leg, core, now);
    if let Some(code) = in_the_way(leg, core) {
        let headers = retry_after(code);
        return core.reply_within(leg.id, inbound, &Reply::code(code, true).with(&headers), now);
    }
    if let Err(TooSmall(min)) = leg.session.asks(&inbound.request.headers) {
        let reply = &[("Min-SE", min.to_string())];
        return core.reply_within(leg.id, inbound, &Reply::code(422, true).with(reply), now);
    }
    leg.dialog.refresh_target(&inbound.request.headers);
    let request = wait(leg, core, inbound, PendingKind::Reinvite, now);
    leg.invite = Some((inbound.key, inbound.id.cseq));
    leg.ack_answers = inbound.request.body().is_empty();
    core.provisional(inbound.key, leg.id, &Reply::code(100, true));
    core.tell(leg, LegEvent::Reoffer { request, body: read::request_body(&inbound.request) });
}

/// UPDATE (RFC 3311). Without a body it only refreshes the target and the session: nobody else needs to know.
fn update(leg: &mut Leg, core: &mut Core, inbound: &Inbound, now: Millis) {
    let body = read::request_body(&inbound.request);
    if body.is_some()
        && let Some(code) = in_the_way(leg, core)
    {
        let headers = retry_after(code);
        return core.reply_within(leg.id, inbound, &Reply::code(code, false).with(&headers), now);
    }
    let answered = leg.phase != Phase::Ringing;
    if answered && let Err(TooSmall(min)) = leg.session.asks(&inbound.request.headers) {
        let headers = [("Min-SE", min.to_string())];
        return core.reply_within(leg.id, inbound, &Reply::code(422, false).with(&headers), now);
    }
    leg.dialog.refresh_target(&inbound.request.headers);
    if body.is_some() {
        let request = wait(leg, core, inbound, PendingKind::Update, now);
        return core.tell(leg, LegEvent::Reoffer { request, body });
    }
    // Before the answer there is no session yet that it could refresh.
    let headers = if answered { keeping::accept(leg, core, now) } else { Vec::new() };
    core.reply_within(leg.id, inbound, &Reply::code(200, false).target().with(&headers), now);
}

/// The code that an offer gets when another exchange is not over: 491 if it is ours or its ACK is outstanding, 500 if it
/// is the peer's own, or has its answer but nobody is there yet who could take another (RFC 3261 §14.2, RFC 3311 §5.2).
fn in_the_way(leg: &Leg, core: &mut Core) -> Option<u16> {
    if leg.phase == Phase::Ringing && leg.reliable.as_ref().is_some_and(|reliable| reliable.described()) {
        return Some(500);
    }
    if leg.offers_itself() || !matches!(leg.phase, Phase::Confirmed) {
        return Some(491);
    }
    if leg.pending.iter().any(|p| matches!(p.kind, PendingKind::Update | PendingKind::Reinvite)) {
        return Some(500);
    }
    let (key, _) = leg.invite?;
    core.servers.get_mut(key).map(|_| 491)
}

fn retry_after(code: u16) -> Vec<(&'static str, String)> {
    if code == 500 { vec![("Retry-After", "3".to_owned())] } else { Vec::new() }
}

fn refer(leg: &mut Leg, core: &mut Core, inbound: &Inbound, now: Millis) {
    let headers = &inbound.request.headers;
    let Some(target) = read::refer_target(headers) else {
        return core.reply_within(leg.id, inbound, &Reply::code(400, false), now);
    };
    if !matches!(leg.phase, Phase::Confirmed | Phase::Unacknowledged) {
        return core.reply_within(leg.id, inbound, &Reply::code(491, false), now);
    }
    let referred_by = read::text(headers, &HeaderName::ReferredBy);
    let unwanted = headers.value(&HeaderName::ReferSub).is_some_and(|v| v.eq_ignore_ascii_case(b"false"));
    let kind = PendingKind::Refer { cseq: inbound.id.cseq, subscribed: !unwanted };
    let request = wait(leg, core, inbound, kind, now);
    core.tell(leg, LegEvent::Refer { request, target: Box::new(target), referred_by });
}

/// The call machine answers a request.
pub fn respond(
    leg: &mut Leg,
    core: &mut Core,
    request: RequestId,
    code: u16,
    headers: &[(&str, String)],
    body: Option<&Body>,
    now: Millis,
) {
    if leg.is_over() {
        return;
    }
    let Some(index) = leg.pending.iter().position(|p| p.request == request) else { return };
    let Some(pending) = leg.pending.get(index).copied() else { return };
    let invite = pending.kind == PendingKind::Reinvite;
    let mut reply = Reply::code(code, invite).with(headers).body(body);
    reply.target = pending.kind != PendingKind::Other;
    if code < 200 {
        core.provisional(pending.key, leg.id, &reply);
        return;
    }
    leg.pending.swap_remove(index);
    let accepted = code < 300;
    let refreshed = accepted && matches!(pending.kind, PendingKind::Reinvite | PendingKind::Update);
    let agreed = if refreshed { keeping::accept(leg, core, now) } else { Vec::new() };
    if refreshed {
        leg.session.describe(body);
        reply = reply.with(&agreed);
    }
    let unsubscribed = [("Refer-Sub", "false".to_owned())];
    if let PendingKind::Refer { cseq, subscribed } = pending.kind
        && accepted
    {
        if subscribed {
            leg.subscriptions.push(Subscription { request, id: (leg.refers > 0).then_some(cseq) });
            leg.refers += 1;
        } else {
            reply = reply.with(&unsubscribed);
        }
    }
    core.finish(pending.key, leg.id, &reply, now);
    if invite && !accepted {
        leg.invite = None;
    }
    client::offer_next(leg, core, now);
}
