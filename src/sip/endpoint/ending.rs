//! How a leg ends on the wire: CANCEL, BYE, and what becomes of requests that are still under way.

use super::calling;
use super::client::{self, send};
use super::core::{Core, Reply, TimerId};
use super::leg::{Leg, PendingKind, Phase};
use crate::sip::event::{EndedBy, LegEvent, RefusedBy};
use crate::sip::time::Millis;
use crate::sip::timer;
use crate::sip::transaction::{Again, Cancel, Client, ClientState, Purpose};
use crate::sip::wire::{Lines, reason_phrase};

/// Ends the leg.
pub fn hang_up(leg: &mut Leg, core: &mut Core, reason: Option<&str>, now: Millis) {
    let phase = leg.phase;
    if phase == Phase::Calling {
        let reason_text = reason_phrase(487).to_owned();
        core.end(leg, LegEvent::Refused { code: 487, reason: reason_text, by: RefusedBy::Cancelled });
        cancel(leg, core, reason, now);
        return;
    }
    if phase == Phase::Over {
        return;
    }
    core.end(leg, LegEvent::Ended(EndedBy::Us));
    match phase {
        Phase::Ringing => {
            let headers: Vec<_> = reason.map(|reason| ("Reason", reason.to_owned())).into_iter().collect();
            if let Some((key, _)) = leg.invite.take() {
                core.finish(key, leg.id, &Reply::code(480, true).with(&headers), now);
            }
            close_theirs(leg, core, now);
        }
        // The peer's ACK is awaited: BYE comes after it (RFC 3261 §15).
        Phase::Unacknowledged if leg.invite.is_some() => {
            let awaited = leg.invite.take();
            close_theirs(leg, core, now);
            leg.invite = awaited;
            leg.bye_after_ack = Some(reason.map(Into::into));
        }
        _ => {
            if leg.owes_ack() {
                calling::send_ack(leg, core, &Lines::default(), None, now);
            }
            close_theirs(leg, core, now);
            bye(leg, core, reason, now);
        }
    }
}

/// The peer has no such dialog, or is gone: so is the leg (RFC 3261 §12.2.1.2).
pub fn lost(leg: &mut Leg, core: &mut Core, now: Millis) {
    if !leg.is_over() {
        core.end(leg, LegEvent::Ended(EndedBy::Timeout));
        close_theirs(leg, core, now);
        close_ours(leg, core, now);
        bye(leg, core, None, now);
    }
}

/// Cancels our INVITE, now or when a provisional response comes.
pub fn cancel(leg: &mut Leg, core: &mut Core, reason: Option<&str>, now: Millis) {
    let unanswered = |c: &Client| c.purpose == Purpose::Invite && c.state != ClientState::Acknowledged;
    let Some(index) = leg.clients.iter().position(unanswered) else { return };
    let Some(client) = leg.clients.get_mut(index) else { return };
    client.cancel = Some(Cancel { reason: reason.map(Into::into), sent: false });
    if client.state == ClientState::Proceeding {
        client::send_cancel(leg, core, index, now);
    }
}

/// Sends BYE.
pub fn bye(leg: &mut Leg, core: &mut Core, reason: Option<&str>, now: Millis) {
    let headers = Lines::collect(reason.map(|reason| ("Reason", reason)));
    send(leg, core, Purpose::Bye, Again { headers, body: None, max_forwards: 70 }, now);
}

/// The dialog is over: the peer's open requests get 487 (RFC 3261 §15.1.2), accepted INVITEs are not repeated any more.
pub fn close_theirs(leg: &mut Leg, core: &mut Core, now: Millis) {
    for pending in std::mem::take(&mut leg.pending) {
        core.finish(pending.key, leg.id, &Reply::code(487, pending.kind == PendingKind::Reinvite), now);
    }
    if let Some((key, _)) = leg.invite.take() {
        core.settle_invite(key, leg.id, now);
    }
}

/// The peer has ended the dialog: our own requests are given up as well, but for an INVITE, whose final response must be
/// acknowledged. (When we end it, what was sent before is still brought to its end: a NOTIFY tells the outcome of a REFER.)
pub fn close_ours(leg: &mut Leg, core: &mut Core, now: Millis) {
    let id = leg.id;
    leg.clients.retain_mut(|client| {
        let keep = client.purpose.is_invite();
        if !keep {
            core.wheel.cancel(&mut client.timer);
        } else if client.state != ClientState::Acknowledged {
            let end = now + timer::GIVE_UP;
            if client.gives_up.is_none_or(|old| old > end) {
                core.wheel.cancel(&mut client.timer);
                client.gives_up = Some(end);
                let timer = TimerId::Client { leg: id, seq: client.seq, cancel: false };
                client.timer = Some(core.wheel.set(end, timer));
            }
        }
        keep
    });
}
