//! Our requests: sending, repeating, giving up; what a response means for the leg.

use std::time::Duration;

use bytes::Bytes;
use sipx_sip::{HeaderName, Response};

use super::calling;
use super::core::{Core, TimerId};
use super::ending;
use super::keeping;
use super::leg::{Leg, Phase, Referral, Retry};
use super::reliable;
use crate::sip::dialog::Dialog;
use crate::sip::digest::Digest;
use crate::sip::event::{Body, Flow, LegEvent, OutgoingRefer, RefusedBy, RequestId, Transport};
use crate::sip::read::{self, Identified};
use crate::sip::time::Millis;
use crate::sip::timer;
use crate::sip::transaction::{Again, Client, ClientState, OnGlare, Purpose};
use crate::sip::wire::{ALLOW, Lines, SUPPORTED, SUPPORTED_UNACKNOWLEDGED, reason_phrase};

/// A re-INVITE that has got a provisional response waits this long for the final one. (The INVITE that makes the leg waits
/// as long as the call machine likes.)
const REINVITE_PATIENCE: Duration = Duration::from_secs(64);

/// How often in a row a re-INVITE is sent again after 491.
const MOST_GLARES: u32 = 8;

/// Most often a request is sent again because of how it was refused: once for each of two proxies that challenge it, a stale
/// nonce, a session interval that is too small.
const MOST_CHALLENGES: u8 = 4;

/// Sends a request of a leg in a new client transaction.
pub fn send(leg: &mut Leg, core: &mut Core, purpose: Purpose, again: Again, now: Millis) {
    leg.dialog.local_cseq += 1;
    let cseq = leg.dialog.local_cseq;
    if let (Purpose::Request(request, _), Some(referral)) = (&purpose, &mut leg.referral)
        && referral.request == *request
    {
        referral.sent.push(cseq);
    }
    let seq = next_seq(leg);
    let dialog = dialog(leg, &purpose);
    let next = if purpose == Purpose::Invite { dialog.flow } else { dialog.next_hop() };
    let method = purpose.method();
    let uri = leg.digest.is_some().then(|| String::from_utf8_lossy(dialog.request_uri()).into_owned());
    let authorization = authorization(leg, core, method, &uri.unwrap_or_default());
    let encoded = |flow: Flow| {
        let via = core.via(flow.transport, &core.identity.branch(leg.id, seq));
        let mut w = self::dialog(leg, &purpose).request(method, cseq, &via, again.max_forwards, None);
        // It names the target of a dialog; BYE, INFO and MESSAGE must not have it (RFC 3261 §20.10, RFC 3428 §4).
        if matches!(method, "INVITE" | "NOTIFY" | "REFER" | "UPDATE") {
            w.line("Contact", core.contact(leg.id, next.transport));
        }
        if purpose.refreshes() {
            let acknowledged = purpose == Purpose::Invite && again.body.is_some();
            let supported = if acknowledged { SUPPORTED } else { SUPPORTED_UNACKNOWLEDGED };
            w.line("Allow", ALLOW).line("Supported", supported).lines(&leg.session.request());
        }
        if !core.config.user_agent.is_empty() {
            w.line("User-Agent", &core.config.user_agent);
        }
        w.lines(&authorization).lines(&again.headers);
        w.finish(again.body.as_ref())
    };
    let bytes = encoded(next);
    let (flow, bytes, large) = match core.datagram_peers.instead(next, bytes.len(), now) {
        Some(stream) => (stream, encoded(stream), true),
        None => (next, bytes, false),
    };
    core.transmit(flow, bytes.clone());
    let gives_up = now + timer::GIVE_UP;
    let first = if flow.transport == Transport::Udp { now + timer::T1 } else { gives_up };
    let first = leg.patience_ends.map_or(first, |end| first.min(end.max(now)));
    let id = TimerId::Client { leg: leg.id, seq, cancel: false };
    leg.clients.push(Client {
        seq,
        cseq,
        purpose,
        flow,
        large,
        bytes,
        state: ClientState::Trying,
        interval: timer::T1,
        gives_up: Some(gives_up),
        timer: Some(core.wheel.set(first, id)),
        cancel: None,
        challenges: 0,
        again,
        authorization,
    });
}

fn next_seq(leg: &mut Leg) -> u32 {
    let seq = leg.next_seq;
    leg.next_seq = leg.next_seq.wrapping_add(1);
    seq
}

/// The dialog that a request is sent in.
fn dialog<'a>(leg: &'a Leg, purpose: &Purpose) -> &'a Dialog {
    let Purpose::Prack(tag) = purpose else { return &leg.dialog };
    let early = leg.early.iter().find(|early| early.dialog.remote_tag == *tag);
    early.map_or(&leg.dialog, |early| &early.dialog)
}

fn authorization(leg: &mut Leg, core: &mut Core, method: &str, uri: &str) -> Lines {
    let Some(digest) = &mut leg.digest else { return Lines::default() };
    let cnonce = core.identity.unique();
    Lines::collect(digest.headers(method, uri, &cnonce))
}

/// Builds the ACK of a 2xx: a transaction of its own, but with the INVITE's CSeq number and authorisation.
pub fn acknowledge(
    leg: &mut Leg,
    core: &Core,
    cseq: u32,
    flow: Flow,
    authorization: &Lines,
    body: Option<&Body>,
) -> Bytes {
    let via = core.via(flow.transport, &core.identity.branch(leg.id, next_seq(leg)));
    let mut w = leg.dialog.request("ACK", cseq, &via, 70, None);
    w.lines(authorization);
    w.finish(body)
}

/// Sends CANCEL for the INVITE at `index` in `leg.clients`.
pub fn send_cancel(leg: &mut Leg, core: &mut Core, index: usize, now: Millis) {
    let Some(invite) = leg.clients.get_mut(index) else { return };
    let Some(cancel) = &mut invite.cancel else { return };
    cancel.sent = true;
    let reason = cancel.reason.clone();
    // RFC 3261 §9.1: without a final response after 64 × T1 the INVITE is considered cancelled.
    let gives_up = now + timer::GIVE_UP;
    invite.gives_up = Some(gives_up);
    core.wheel.cancel(&mut invite.timer);
    let (seq, cseq, flow) = (invite.seq, invite.cseq, invite.flow);
    invite.timer = Some(core.wheel.set(gives_up, TimerId::Client { leg: leg.id, seq, cancel: false }));
    let via = core.via(flow.transport, &core.identity.branch(leg.id, seq));
    let mut w = leg.dialog.request("CANCEL", cseq, &via, 70, None);
    if let Some(reason) = reason {
        w.line("Reason", reason.as_bytes());
    }
    let bytes = w.finish(None);
    core.transmit(flow, bytes.clone());
    let first = if flow.transport == Transport::Udp { now + timer::T1 } else { gives_up };
    let timer = core.wheel.set(first, TimerId::Client { leg: leg.id, seq, cancel: true });
    leg.clients.push(Client {
        seq,
        cseq,
        purpose: Purpose::Cancel,
        flow,
        large: false,
        bytes,
        state: ClientState::Trying,
        interval: timer::T1,
        gives_up: Some(gives_up),
        timer: Some(timer),
        cancel: None,
        challenges: 0,
        again: Again { headers: Lines::default(), body: None, max_forwards: 70 },
        authorization: Lines::default(),
    });
}

/// A client transaction's timer fired.
pub fn on_timer(leg: &mut Leg, core: &mut Core, seq: u32, cancel: bool, now: Millis) {
    let Some(index) = position(leg, seq, cancel) else { return };
    let Some(client) = leg.clients.get_mut(index) else { return };
    client.timer = None;
    if client.gives_up.is_some_and(|end| end <= now) {
        let client = leg.clients.swap_remove(index);
        if client.state != ClientState::Acknowledged {
            failed(leg, core, client, &Outcome::TIMEOUT, now);
        }
        return;
    }
    let invite = client.purpose.is_invite();
    let trying = client.purpose == Purpose::Invite && client.state == ClientState::Trying;
    if trying && leg.patience_ends.is_some_and(|end| end <= now) {
        leg.patience_ends = None;
        client.timer =
            client.gives_up.map(|end| core.wheel.set(end, TimerId::Client { leg: leg.id, seq, cancel }));
        let reason = reason_phrase(408).to_owned();
        core.end(leg, LegEvent::Refused { code: 408, reason, by: RefusedBy::Timeout });
        return ending::cancel(leg, core, None, now);
    }
    let repeats = match client.state {
        ClientState::Trying => true,
        ClientState::Proceeding => !invite,
        ClientState::Acknowledged => false,
    };
    if repeats && client.flow.transport == Transport::Udp {
        core.transmit(client.flow, client.bytes.clone());
        client.interval = match client.state {
            ClientState::Proceeding => timer::T2,
            _ if invite => timer::doubled(client.interval),
            _ => timer::doubled_to_t2(client.interval),
        };
        let next = now + client.interval;
        let next = client.gives_up.map_or(next, |end| end.min(next));
        let next = leg.patience_ends.map_or(next, |end| next.min(end.max(now)));
        client.timer = Some(core.wheel.set(next, TimerId::Client { leg: leg.id, seq, cancel }));
    } else if let Some(end) = client.gives_up {
        client.timer = Some(core.wheel.set(end, TimerId::Client { leg: leg.id, seq, cancel }));
    }
}

/// Fails the requests that were sent on a flow which doesn't work.
pub fn transport_failed(leg: &mut Leg, core: &mut Core, flow: Flow, now: Millis) {
    let concerned = |c: &Client| c.flow == flow && c.state != ClientState::Acknowledged;
    while let Some(index) = leg.clients.iter().position(concerned) {
        let mut client = leg.clients.swap_remove(index);
        core.wheel.cancel(&mut client.timer);
        failed(leg, core, client, &Outcome::TRANSPORT, now);
    }
}

fn position(leg: &Leg, seq: u32, cancel: bool) -> Option<usize> {
    leg.clients.iter().position(|c| c.seq == seq && (c.purpose == Purpose::Cancel) == cancel)
}

/// A response with our branch. False if it belongs to no client transaction of the leg.
pub fn on_response(
    leg: &mut Leg,
    core: &mut Core,
    response: &Response,
    id: &Identified,
    seq: u32,
    now: Millis,
) -> bool {
    let Some(index) = position(leg, seq, id.method.as_bytes() == b"CANCEL") else { return false };
    let Some(client) = leg.clients.get_mut(index) else { return false };
    if client.cseq != id.cseq || client.purpose.method().as_bytes() != id.method.as_bytes() {
        return false;
    }
    let code = response.status.code();
    if client.state == ClientState::Acknowledged {
        if code >= 300 {
            core.transmit(client.flow, client.bytes.clone());
        }
        return code >= 300;
    }
    leg.patience_ends = None;
    match code {
        100..200 => provisional(leg, core, index, response, now),
        200..300 => {
            let client = take(leg, core, index);
            succeeded(leg, core, &client, response, now);
        }
        _ if client.purpose.is_invite() => {
            let client = acknowledge_refusal(leg, core, index, response, now);
            failed(leg, core, client, &Outcome::of(response), now);
        }
        _ => {
            let client = take(leg, core, index);
            failed(leg, core, client, &Outcome::of(response), now);
        }
    }
    true
}

fn take(leg: &mut Leg, core: &mut Core, index: usize) -> Client {
    let mut client = leg.clients.swap_remove(index);
    core.wheel.cancel(&mut client.timer);
    client
}

fn provisional(leg: &mut Leg, core: &mut Core, index: usize, response: &Response, now: Millis) {
    let id = leg.id;
    let Some(client) = leg.clients.get_mut(index) else { return };
    let first = client.state == ClientState::Trying;
    client.state = ClientState::Proceeding;
    if !client.purpose.is_invite() {
        return;
    }
    if first {
        core.wheel.cancel(&mut client.timer);
        client.gives_up = None;
        if client.purpose != Purpose::Invite {
            let end = now + REINVITE_PATIENCE;
            client.gives_up = Some(end);
            client.timer =
                Some(core.wheel.set(end, TimerId::Client { leg: id, seq: client.seq, cancel: false }));
        }
    }
    let (cseq, offered) = (client.cseq, client.again.body.is_some());
    if client.cancel.as_ref().is_some_and(|cancel| !cancel.sent) {
        send_cancel(leg, core, index, now);
    } else if client.purpose == Purpose::Invite && response.status.code() > 100 && !leg.is_over() {
        leg.note_branch(read::tag(&response.headers, &HeaderName::To).unwrap_or_default());
        if offered && !reliable::received(leg, core, response, cseq, now) {
            return;
        }
        let progress =
            LegEvent::Progress { code: response.status.code(), body: read::response_body(response) };
        core.tell(leg, progress);
    }
}

/// Sends the ACK of a refusal, which belongs to the INVITE's transaction (RFC 3261 §17.1.1.3), and leaves it behind for
/// copies of the refusal.
fn acknowledge_refusal(
    leg: &mut Leg,
    core: &mut Core,
    index: usize,
    response: &Response,
    now: Millis,
) -> Client {
    let mut client = take(leg, core, index);
    let (seq, cseq, flow) = (client.seq, client.cseq, client.flow);
    let via = core.via(flow.transport, &core.identity.branch(leg.id, seq));
    let to = response.headers.value(&HeaderName::To).map(|to| to.into_owned());
    let mut w = leg.dialog.request("ACK", cseq, &via, 70, to.as_deref());
    w.lines(&client.authorization);
    let ack = w.finish(None);
    core.transmit(flow, ack.clone());
    if flow.transport == Transport::Udp {
        let end = now + timer::GIVE_UP;
        leg.clients.push(Client {
            seq,
            cseq,
            purpose: client.purpose.clone(),
            flow,
            large: false,
            bytes: ack,
            state: ClientState::Acknowledged,
            interval: timer::T1,
            gives_up: Some(end),
            timer: Some(core.wheel.set(end, TimerId::Client { leg: leg.id, seq, cancel: false })),
            cancel: None,
            challenges: 0,
            again: Again { headers: Lines::default(), body: None, max_forwards: 70 },
            authorization: Lines::default(),
        });
    }
    client.timer = None;
    client
}

fn succeeded(leg: &mut Leg, core: &mut Core, client: &Client, response: &Response, now: Millis) {
    match &client.purpose {
        Purpose::Invite | Purpose::Reinvite(_) | Purpose::Refresh => {
            calling::answered(leg, core, client, response, now);
        }
        Purpose::Update if !leg.is_over() => {
            leg.dialog.refresh_target(&response.headers);
            keeping::adopt(leg, core, &response.headers, now);
        }
        Purpose::Request(request, _) => {
            // RFC 4488: the peer did it without a subscription. Nobody will ever know.
            let silent = response.headers.value(&HeaderName::ReferSub);
            let silent = silent.is_some_and(|value| value.eq_ignore_ascii_case(b"false"));
            core.tell(leg, LegEvent::Response { request: *request, code: response.status.code() });
            if let Some(referral) = leg.referral.take_if(|referral| silent && referral.request == *request) {
                let event = LegEvent::Referred { request: referral.request, code: None, ended: true };
                core.tell(leg, event);
            }
        }
        Purpose::Cancel
        | Purpose::Bye
        | Purpose::Notify(_)
        | Purpose::Prack(_)
        | Purpose::Update
        | Purpose::Probe => {}
    }
    if let Some(digest) = &mut leg.digest {
        digest.accepted();
    }
}

/// How a request failed.
struct Outcome<'a> {
    code: u16,
    reason: String,
    by: RefusedBy,
    response: Option<&'a Response>,
}

impl Outcome<'static> {
    const TIMEOUT: Self = Self { code: 408, reason: String::new(), by: RefusedBy::Timeout, response: None };
    const TRANSPORT: Self =
        Self { code: 503, reason: String::new(), by: RefusedBy::Transport, response: None };
}

impl<'a> Outcome<'a> {
    fn of(response: &'a Response) -> Self {
        let reason = String::from_utf8_lossy(&response.reason).into_owned();
        Self { code: response.status.code(), reason, by: RefusedBy::Response, response: Some(response) }
    }
}

/// A request of ours was refused, met silence or could not be sent.
fn failed(leg: &mut Leg, core: &mut Core, client: Client, outcome: &Outcome<'_>, now: Millis) {
    let code = outcome.code;
    let mut by = outcome.by.clone();
    if client.large
        && client.state == ClientState::Trying
        && outcome.by == RefusedBy::Transport
        && !leg.is_over()
    {
        core.datagram_peers.add(client.flow.peer, now);
        return send_again(leg, core, client, now);
    }
    if matches!(code, 401 | 407)
        && let Some(response) = outcome.response
        && (!leg.is_over() || client.purpose == Purpose::Bye)
    {
        let answered = client.challenges < MOST_CHALLENGES
            && leg.digest.as_mut().is_some_and(|digest| digest.take(&response.headers).is_ok());
        if answered {
            return send_again(leg, core, client, now);
        }
        by = RefusedBy::Unauthorized;
    }
    if code == 422
        && client.purpose.refreshes()
        && client.challenges < MOST_CHALLENGES
        && !leg.is_over()
        && outcome.response.is_some_and(|response| leg.session.raise(&response.headers))
    {
        return send_again(leg, core, client, now);
    }
    match client.purpose {
        Purpose::Invite => {
            let reason = if outcome.reason.is_empty() {
                reason_phrase(code).to_owned()
            } else {
                outcome.reason.clone()
            };
            core.end(leg, LegEvent::Refused { code, reason, by });
        }
        Purpose::Reinvite(_) if leg.is_over() => {}
        Purpose::Reinvite(on_glare) => match code {
            491 if on_glare == OnGlare::Retry && leg.glares < MOST_GLARES => {
                retry_later(leg, core, client.again.body, now)
            }
            481 | 408 => ending::lost(leg, core, now),
            _ => {
                leg.glares = 0;
                let retry_after = outcome.response.and_then(|response| read::retry_after(&response.headers));
                core.tell(leg, LegEvent::ReofferRefused { code, retry_after });
                offer_next(leg, core, now);
            }
        },
        Purpose::Request(..) | Purpose::Refresh | Purpose::Update | Purpose::Probe
            if matches!(code, 481 | 408) =>
        {
            ending::lost(leg, core, now);
        }
        Purpose::Request(request, _) => {
            leg.referral.take_if(|referral| referral.request == request);
            core.tell(leg, LegEvent::Response { request, code });
        }
        Purpose::Notify(request) if ends_subscription(code) => {
            leg.subscriptions.retain(|s| s.request != request);
        }
        // The session's timer tries again as long as there is time.
        Purpose::Refresh => offer_next(leg, core, now),
        Purpose::Cancel
        | Purpose::Bye
        | Purpose::Notify(_)
        | Purpose::Prack(_)
        | Purpose::Update
        | Purpose::Probe => {}
    }
}

/// Whether a NOTIFY that failed is the last one (RFC 6665 §4.2.2). Any other failure is that one's alone: a repetition that a
/// newer one has overtaken is answered 500 for its CSeq, and the peer still waits for the outcome.
fn ends_subscription(code: u16) -> bool {
    matches!(code, 404 | 405 | 408 | 410 | 416 | 480..=485 | 489 | 501 | 604)
}

/// Sends a refused request again, as an answer to the refusal: with a higher CSeq number.
fn send_again(leg: &mut Leg, core: &mut Core, client: Client, now: Millis) {
    let challenges = client.challenges + 1;
    send(leg, core, client.purpose, client.again, now);
    if let Some(again) = leg.clients.last_mut() {
        again.challenges = challenges;
    }
}

/// After 491: the owner of the Call-ID waits 2.1–4 s, the other side 0–2 s, in units of 10 ms (RFC 3261 §14.1).
fn retry_later(leg: &mut Leg, core: &mut Core, offer: Option<Body>, now: Millis) {
    leg.glares += 1;
    let dice = core.identity.throw();
    let wait = if leg.caller { 2100 + dice % 191 * 10 } else { dice % 201 * 10 };
    let timer = core.wheel.set(now + Duration::from_millis(wait), TimerId::Retry(leg.id));
    leg.retry = Some(Retry { offer, timer: Some(timer) });
}

/// Sends a re-INVITE as soon as it may be sent.
pub fn offer(leg: &mut Leg, core: &mut Core, offer: Option<Body>, on_glare: OnGlare, now: Millis) {
    if !leg.is_over() {
        leg.offers.push_back((offer, on_glare));
        offer_next(leg, core, now);
    }
}

/// Sends the next re-INVITE that waits, if it may be sent now.
pub fn offer_next(leg: &mut Leg, core: &mut Core, now: Millis) {
    if leg.may_offer()
        && let Some((body, on_glare)) = leg.offers.pop_front()
    {
        let again = Again { headers: Lines::default(), body, max_forwards: 70 };
        send(leg, core, Purpose::Reinvite(on_glare), again, now);
    }
}

/// Sends NOTIFY about a REFER.
pub fn notify(
    leg: &mut Leg,
    core: &mut Core,
    request: RequestId,
    status: (u16, &str),
    last: bool,
    now: Millis,
) {
    let Some(index) = leg.subscriptions.iter().position(|s| s.request == request) else { return };
    let Some(id) = leg.subscriptions.get(index).map(|s| s.id) else { return };
    let event = id.map_or_else(|| "refer".to_owned(), |id| format!("refer;id={id}"));
    let state = if last { "terminated;reason=noresource" } else { "active;expires=180" };
    if last {
        leg.subscriptions.swap_remove(index);
    }
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let fragment = format!("SIP/2.0 {} {}\r\n", status.0, status.1.chars().map(clean).collect::<String>());
    let body = Body { content_type: "message/sipfrag;version=2.0".into(), bytes: Bytes::from(fragment) };
    let headers = Lines::collect([("Event", event.as_str()), ("Subscription-State", state)]);
    send(leg, core, Purpose::Notify(request), Again { headers, body: Some(body), max_forwards: 70 }, now);
}

/// Sends a request of the call machine's. On a leg that has no dialog it is answered with 481.
pub fn request(
    leg: &mut Leg,
    core: &mut Core,
    request: RequestId,
    method: &str,
    body: Option<Body>,
    now: Millis,
) {
    let again = Again { headers: Lines::default(), body, max_forwards: 70 };
    request_with(leg, core, request, method, again, now);
}

/// Sends REFER (RFC 3515) with our own identity as Referred-By (RFC 3892).
pub fn refer(leg: &mut Leg, core: &mut Core, request: RequestId, target: &str, now: Millis) {
    let transport = leg.dialog.next_hop().transport;
    let lines =
        [("Refer-To", format!("<{target}>")), ("Referred-By", format!("<sip:{}>", core.local(transport)))];
    let again = Again { headers: Lines::collect(lines), body: None, max_forwards: 70 };
    request_with(leg, core, request, "REFER", again, now);
}

/// Sends REFER whose outcome the peer tells with NOTIFY; once our answer is acknowledged, for a peer whose ACK was lost may
/// take each copy of the answer for a copy of what it answered last.
pub fn refer_away(leg: &mut Leg, core: &mut Core, request: RequestId, refer: OutgoingRefer, now: Millis) {
    let OutgoingRefer { target, referred_by, headers, credentials } = refer;
    leg.referred = true;
    if let Some(credentials) = credentials {
        leg.digest.get_or_insert_with(|| Box::new(Digest::new(credentials)));
    }
    let lines = [("Refer-To", format!("<{target}>")), ("Referred-By", referred_by)];
    let lines = lines.into_iter().chain(headers.iter().map(|(name, value)| (name.as_str(), value.clone())));
    let again = Again { headers: Lines::collect(lines), body: None, max_forwards: 70 };
    leg.referral = Some(Box::new(Referral { request, sent: Vec::new(), waits: Some(again) }));
    let unacknowledged = leg.phase == Phase::Unacknowledged && leg.invite.is_some();
    if !unacknowledged {
        refer_next(leg, core, now);
    }
}

/// Sends a REFER that waits.
pub fn refer_next(leg: &mut Leg, core: &mut Core, now: Millis) {
    let waiting = leg.referral.as_mut().and_then(|referral| Some((referral.request, referral.waits.take()?)));
    if let Some((request, again)) = waiting {
        request_with(leg, core, request, "REFER", again, now);
    }
}

fn request_with(leg: &mut Leg, core: &mut Core, request: RequestId, method: &str, again: Again, now: Millis) {
    if !matches!(leg.phase, Phase::Confirmed | Phase::Unacknowledged) {
        core.tell(leg, LegEvent::Response { request, code: 481 });
        return;
    }
    send(leg, core, Purpose::Request(request, method.into()), again, now);
}
