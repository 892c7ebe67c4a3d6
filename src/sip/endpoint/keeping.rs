//! Keeping a session: refreshing it, and ending one that nobody refreshed (RFC 4028).
//!
//! Each leg has a timer of its own, whoever its call joins it with. A session is refreshed with UPDATE, which touches
//! nothing else, or with a re-INVITE that repeats what was described last where the peer takes no UPDATE. A peer that has no
//! session timers is asked with OPTIONS whether it is still there, as often as it would be refreshed.

use std::time::Duration;

use sipx_sip::Headers;

use super::client;
use super::core::{Core, TimerId};
use super::ending;
use super::leg::Leg;
use crate::sip::event::{Body, EndedBy, LegEvent};
use crate::sip::read;
use crate::sip::session::{Agreed, Asked, SessionPolicy, TooSmall, min_se};
use crate::sip::time::Millis;
use crate::sip::transaction::{Again, Client, ClientState, Purpose};
use crate::sip::wheel::Handle;
use crate::sip::wire::Lines;

/// Text of the Reason header on a leg whose session expired.
const EXPIRED: &str = "SIP;cause=408;text=\"Session expired\"";
/// A refresh that could not be sent, or was refused, is tried again after so long.
const AGAIN: Duration = Duration::from_secs(10);

/// What a leg knows of its session.
#[derive(Debug, Default)]
pub struct Session {
    /// What we want.
    pub policy: SessionPolicy,
    /// When it is to be refreshed, or ended.
    pub timer: Option<Handle>,
    /// What the peer's request that waits for our answer says of it.
    asked: Asked,
    /// What holds; nothing with a peer that has no session timers.
    agreed: Option<Agreed>,
    /// When it ends.
    ends: Millis,
    /// The largest Min-SE with which the peer refused a request of ours.
    heard: u32,
    /// The peer takes UPDATE.
    updates: bool,
    /// What we described to the peer last, for a peer that takes no UPDATE.
    described: Option<Box<Body>>,
}

impl Session {
    /// The peer's INVITE came.
    pub fn met(&mut self, asked: Asked, headers: &Headers) {
        self.asked = asked;
        self.updates = read::allows(headers, "UPDATE");
    }

    /// The peer's re-INVITE or UPDATE came.
    pub fn asks(&mut self, headers: &Headers) -> Result<(), TooSmall> {
        self.asked = Asked::of(headers);
        self.judged()
    }

    /// Whether we accept what the peer asks for.
    pub fn judged(&self) -> Result<(), TooSmall> {
        self.policy.answer(self.asked).map(drop)
    }

    /// The headers of an INVITE or UPDATE of ours.
    pub fn request(&self) -> Lines {
        self.policy.request(self.agreed, self.heard)
    }

    /// The peer refused a request of ours with 422. True if a longer interval than the refused one may do (RFC 4028 §7.3).
    pub fn raise(&mut self, headers: &Headers) -> bool {
        let asked = self.agreed.map(|agreed| agreed.interval).or(self.policy.ask);
        let asked = asked.map(|asked| asked.max(self.policy.floor()).max(self.heard));
        let Some(min) = min_se(headers).filter(|min| asked.is_some_and(|asked| *min > asked)) else {
            return false;
        };
        self.heard = min;
        true
    }

    /// We described our side so.
    pub fn describe(&mut self, body: Option<&Body>) {
        if !self.updates && body.is_some() {
            self.described = body.cloned().map(Box::new);
        }
    }
}

/// We accept the peer's INVITE or UPDATE: the session begins, or is refreshed. Returns the headers that say so.
pub fn accept(leg: &mut Leg, core: &mut Core, now: Millis) -> Vec<(&'static str, String)> {
    let session = &mut leg.session;
    session.agreed = session.policy.answer(session.asked).unwrap_or_default();
    let headers = session.agreed.map(|agreed| agreed.headers(session.asked)).unwrap_or_default();
    arm(leg, core, now);
    headers
}

/// The peer accepted an INVITE or UPDATE of ours.
pub fn adopt(leg: &mut Leg, core: &mut Core, headers: &Headers, now: Millis) {
    leg.session.agreed = Agreed::of(headers);
    leg.session.updates |= read::allows(headers, "UPDATE");
    if leg.session.updates {
        leg.session.described = None;
    }
    arm(leg, core, now);
}

fn arm(leg: &mut Leg, core: &mut Core, now: Millis) {
    let Session { agreed, policy, .. } = leg.session;
    let next = match agreed {
        Some(agreed) => {
            leg.session.ends = now + agreed.ends_after();
            if agreed.we_refresh { now + agreed.refresh_after() } else { leg.session.ends }
        }
        None => match policy.ask {
            Some(ask) => now + Agreed { interval: ask.max(policy.floor()), we_refresh: true }.refresh_after(),
            None => return core.wheel.cancel(&mut leg.session.timer),
        },
    };
    set_timer(leg, core, next);
}

fn set_timer(leg: &mut Leg, core: &mut Core, at: Millis) {
    core.wheel.cancel(&mut leg.session.timer);
    leg.session.timer = Some(core.wheel.set(at, TimerId::Session(leg.id)));
}

/// The session is to be refreshed, or ended.
pub fn on_timer(leg: &mut Leg, core: &mut Core, now: Millis) {
    leg.session.timer = None;
    if leg.is_over() {
        return;
    }
    if leg.session.agreed.is_none() {
        if !leg.clients.iter().any(|client| client.purpose == Purpose::Probe) {
            client::send(leg, core, Purpose::Probe, empty(), now);
        }
        return arm(leg, core, now);
    }
    if leg.session.ends <= now {
        core.end(leg, LegEvent::Ended(EndedBy::Expired));
        ending::close_theirs(leg, core, now);
        ending::close_ours(leg, core, now);
        return ending::bye(leg, core, Some(EXPIRED), now);
    }
    refresh(leg, core, now);
    let next = (now + AGAIN).min(leg.session.ends);
    set_timer(leg, core, next);
}

/// Refreshes the session, unless that is under way already or waits for another exchange, which refreshes it as well.
fn refresh(leg: &mut Leg, core: &mut Core, now: Millis) {
    let under_way = |client: &Client| client.purpose.refreshes() && client.state != ClientState::Acknowledged;
    if leg.clients.iter().any(under_way) {
        return;
    }
    match leg.session.described.as_deref().cloned() {
        _ if leg.session.updates => client::send(leg, core, Purpose::Update, empty(), now),
        Some(body) if leg.may_offer() => {
            client::send(leg, core, Purpose::Refresh, Again { body: Some(body), ..empty() }, now);
        }
        _ => {}
    }
}

fn empty() -> Again {
    Again { headers: Lines::default(), body: None, max_forwards: 70 }
}
