//! Our INVITE, from sending it to the ACK of its answer; answers that come too late or from another branch of a fork.

use bytes::Bytes;
use sipx_sip::{HeaderName, Response, Uri};

use super::client::{self, acknowledge};
use super::core::{Core, TimerId};
use super::ending;
use super::keeping;
use super::leg::{Ack, Leg, Phase};
use super::reliable;
use crate::sip::dialog::Dialog;
use crate::sip::digest::Digest;
use crate::sip::event::{Body, Flow, LegEvent, LegId, OutgoingInvite, RefusedBy};
use crate::sip::read::{self, Identified};
use crate::sip::slab::Slab;
use crate::sip::time::Millis;
use crate::sip::timer;
use crate::sip::transaction::{Again, Client, Purpose, ServerKey};
use crate::sip::wire::{Lines, escaped_user, quoted};

/// Makes a leg and sends its INVITE.
pub fn invite(legs: &mut Slab<Box<Leg>>, core: &mut Core, invite: OutgoingInvite, now: Millis) -> LegId {
    let call_id = core.identity.unique();
    let OutgoingInvite {
        flow,
        uri,
        route,
        from,
        headers,
        max_forwards,
        offer,
        credentials,
        patience,
        session,
    } = invite;
    let host = if from.host.is_empty() { core.local(flow.transport) } else { from.host };
    let at = if from.user.is_empty() { "" } else { "@" };
    let from = format!("{}<sip:{}{at}{host}>", quoted(&from.display), escaped_user(&from.user));
    let made = legs.insert_with(|id| {
        let dialog = Dialog {
            call_id: call_id.into_bytes().into_boxed_slice(),
            local: format!("{from};tag={}", core.identity.token(id)).into_bytes().into_boxed_slice(),
            remote: format!("<{uri}>").into_bytes().into_boxed_slice(),
            remote_tag: Box::default(),
            local_cseq: 0,
            remote_cseq: None,
            routes: route.into_iter().map(|route| route.into_bytes().into_boxed_slice()).collect(),
            target: uri.clone().into_bytes().into_boxed_slice(),
            flow,
            flow_lost: false,
        };
        let mut leg = Leg::new(id, true, Phase::Calling, dialog);
        leg.patience_ends = patience.map(|patience| now + patience);
        leg.session.policy = session;
        leg.digest = credentials.map(|credentials| Box::new(Digest::new(credentials)));
        Box::new(leg)
    });
    let refused = |code, reason: &str, by| LegEvent::Refused { code, reason: reason.to_owned(), by };
    let Some(id) = made else {
        let id = legs.void();
        core.out.push_back(super::Output::Leg(id, refused(503, "Too many calls", RefusedBy::Transport)));
        return id;
    };
    core.live += 1;
    let Some(leg) = legs.get_mut(id) else { return id };
    if Uri::parse(Bytes::from(uri)).map_or(true, |uri| uri.has_headers()) {
        core.end(leg, refused(400, "The Request-URI is malformed", RefusedBy::Response));
        legs.remove(id);
        return id;
    }
    let headers = Lines::collect(headers.iter().map(|(name, value)| (name.as_str(), value)));
    client::send(leg, core, Purpose::Invite, Again { headers, body: offer, max_forwards }, now);
    id
}

/// The first 2xx to our INVITE or re-INVITE.
pub fn answered(leg: &mut Leg, core: &mut Core, client: &Client, response: &Response, now: Millis) {
    let mut body = read::response_body(response);
    let offered = client.again.body.is_some();
    match client.purpose {
        Purpose::Invite => {
            leg.dialog.establish(&response.headers);
            leg.branches = None;
            let before = reliable::answer(leg, &response.headers);
            body = body.or(before);
        }
        _ => leg.dialog.refresh_target(&response.headers),
    }
    if let Some(digest) = &mut leg.digest {
        digest.accepted();
    }
    if let Some(ack) = &mut leg.ack {
        core.wheel.cancel(&mut ack.timer);
    }
    leg.ack = Some(Ack { cseq: client.cseq, sent: None, timer: None });
    if leg.is_over() {
        // It crossed our CANCEL or BYE. After a BYE the peer knows already.
        send_ack(leg, core, &client.authorization, None, now);
        if client.purpose == Purpose::Invite {
            ending::bye(leg, core, None, now);
        }
        return;
    }
    if offered {
        send_ack(leg, core, &client.authorization, None, now);
        leg.session.describe(client.again.body.as_ref());
    }
    keeping::adopt(leg, core, &response.headers, now);
    match client.purpose {
        Purpose::Invite => {
            leg.phase = if offered { Phase::Confirmed } else { Phase::Unacknowledged };
            core.tell(leg, LegEvent::Answered { body });
        }
        Purpose::Refresh => {
            if let Some(body) = body {
                core.tell(leg, LegEvent::Refreshed { body });
            }
        }
        _ => {
            leg.glares = 0;
            core.tell(leg, LegEvent::ReofferAccepted { body });
        }
    }
    client::offer_next(leg, core, now);
}

/// The call machine's answer to the offer in a 2xx.
pub fn owed_ack(leg: &mut Leg, core: &mut Core, body: Option<Body>, now: Millis) {
    if leg.is_over() || !leg.owes_ack() {
        return;
    }
    send_ack(leg, core, &Lines::default(), body.as_ref(), now);
    leg.session.describe(body.as_ref());
    if leg.phase == Phase::Unacknowledged {
        leg.phase = Phase::Confirmed;
    }
    client::offer_next(leg, core, now);
}

/// Sends the ACK that `leg.ack` stands for, and keeps it for copies of the 2xx.
pub fn send_ack(leg: &mut Leg, core: &mut Core, authorization: &Lines, body: Option<&Body>, now: Millis) {
    let Some(cseq) = leg.ack.as_ref().map(|ack| ack.cseq) else { return };
    let flow = leg.dialog.next_hop();
    let bytes = acknowledge(leg, core, cseq, flow, authorization, body);
    core.transmit(flow, bytes.clone());
    if let Some(ack) = &mut leg.ack {
        ack.sent = Some((flow, bytes));
        ack.timer = Some(core.wheel.set(now + timer::GIVE_UP, TimerId::ForgetAck(leg.id)));
    }
}

/// A copy of a 2xx that this leg knows is acknowledged again; true if it was one.
pub fn repeated_answer(leg: &Leg, core: &mut Core, id: &Identified) -> bool {
    if !leg.dialog.is_with(&id.call_id, id.to.tag().unwrap_or_default()) {
        return false;
    }
    if let Some(ack) = &leg.ack
        && ack.cseq == id.cseq
        && let Some((flow, bytes)) = &ack.sent
    {
        core.transmit(*flow, bytes.clone());
    }
    true
}

/// Ends a dialog that nobody wants: of another branch of a fork, or of an INVITE whose leg is gone. Acknowledges the 2xx
/// and sends BYE, both built from the response alone. That the INVITE was ours is proven by the branch.
pub fn end_fork(
    legs: &mut Slab<Box<Leg>>,
    core: &mut Core,
    response: &Response,
    id: &Identified,
    flow: Flow,
    now: Millis,
) {
    let key = ServerKey::fork(&core.identity, id);
    if let Some(leg) = core.forks.get(&key).copied().and_then(|known| legs.get_mut(known)) {
        repeated_answer(leg, core, id);
        return;
    }
    let local = response.headers.value(&HeaderName::From).unwrap_or_default().into_owned();
    let target = id.to.uri.to_bytes().to_vec();
    let made = legs.insert_with(|leg| {
        let dialog = Dialog {
            call_id: id.call_id.clone().into_boxed_slice(),
            local: local.into_boxed_slice(),
            remote: Box::default(),
            remote_tag: Box::default(),
            local_cseq: id.cseq,
            remote_cseq: None,
            routes: Box::default(),
            target: target.into_boxed_slice(),
            flow,
            flow_lost: false,
        };
        let mut leg = Leg::new(leg, true, Phase::Over, dialog);
        leg.dialog.establish(&response.headers);
        leg.ack = Some(Ack { cseq: id.cseq, sent: None, timer: None });
        leg.fork = Some(key);
        Box::new(leg)
    });
    let Some(leg) = made.and_then(|made| legs.get_mut(made)) else { return };
    core.forks.insert(key, leg.id);
    send_ack(leg, core, &Lines::default(), None, now);
    ending::bye(leg, core, None, now);
}
