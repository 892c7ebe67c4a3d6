//! One shard's SIP: legs, transactions, timers. Inputs: admitted messages, time, commands. Outputs: bytes and leg events.
//!
//! Promises:
//! - each leg ends with exactly one [`LegEvent::Ended`] or [`LegEvent::Refused`]; commands on it are ignored from then on;
//! - what is owed to the peer after that (an ACK, a CANCEL, a BYE, and the BYE to an answer that crossed our CANCEL) is done
//!   all the same, without further events;
//! - a repeated message does nothing twice; an unanswered one is repeated as RFC 3261 §17 says and given up after 32 s.
//!
//! Read on in `calling` (our INVITE), `called` (the peer's INVITE), `inside` (the peer's requests in a dialog),
//! `client` (our requests in a dialog and what their responses mean), `ending` (CANCEL and BYE),
//! `keeping` (session timers), `reliable` (PRACK).

mod called;
mod calling;
mod client;
mod core;
mod ending;
mod inside;
mod keeping;
mod large;
mod leg;
mod reliable;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;

use bytes::Bytes;
use sipx_sip::{Message, Method, Request, Response};

pub use self::core::RETRY_AFTER;
use self::core::{Core, Inbound, TimerId};
use self::leg::Leg;
use super::copies::InviteName;
use super::event::{Body, Flow, LegEvent, LegId, OutgoingInvite, OutgoingRefer, RequestId, Transport};
use super::read::{self, Identified};
use super::session::SessionPolicy;
use super::slab::Slab;
use super::time::Millis;
use super::timer;
use super::transaction::{OnGlare, ServerKey, ServerState};
use super::{proxy, via, wire};
use crate::memory::give_back;

/// What a shard's endpoint produces.
#[derive(Clone, Debug)]
pub enum Output {
    /// Bytes to send.
    Transmit {
        /// Where to.
        flow: Flow,
        /// One whole SIP message.
        bytes: Bytes,
    },
    /// Something happened on a leg.
    Leg(LegId, LegEvent),
    /// A CANCEL of an INVITE that was not begun here, or, while draining, a request that would begin something (INVITE,
    /// OPTIONS). Nothing was done with it and nothing is remembered: another pod takes it, or [`Endpoint::turn_away`] does.
    Elsewhere {
        /// The request as it came.
        request: Box<Request>,
        /// Where it came from.
        flow: Flow,
    },
    /// An INVITE was answered 503, because there is no room ([`Opening::Full`]).
    TurnedAway,
}

/// What a request that would begin something here meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opening {
    /// It is taken.
    #[default]
    Open,
    /// An INVITE is answered 503 before anything else is done with it ([`Output::TurnedAway`]); OPTIONS is answered as ever:
    /// whoever asks wants to know whether there is somebody.
    Full,
    /// It goes elsewhere ([`Output::Elsewhere`]), while what is there goes on.
    Draining,
}

/// What an endpoint is told at its start.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Names this process among all pods: part of every tag, branch and Contact. Another one after each restart.
    pub instance: u32,
    /// Number of the shard, below [`super::identity::MAX_SHARDS`].
    pub shard: u16,
    /// Secret random bytes, the same for all shards of a process and another for each process.
    pub seed: [u8; 16],
    /// How peers reach us.
    pub local: LocalAddresses,
    /// Value of User-Agent and Server; empty for none.
    pub user_agent: String,
    /// Most legs that calls from outside may bring about; more get 503. Our own INVITEs are not limited here.
    pub max_legs: usize,
}

/// What we write into Via and Contact, by transport.
#[derive(Clone, Debug)]
pub struct LocalAddresses {
    /// For UDP.
    pub udp: LocalAddress,
    /// For TCP.
    pub tcp: LocalAddress,
    /// For TLS.
    pub tls: LocalAddress,
}

/// An advertised address.
#[derive(Clone, Debug)]
pub struct LocalAddress {
    /// IP address (without brackets) or name.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl LocalAddresses {
    /// The one for a transport.
    pub fn of(&self, transport: Transport) -> &LocalAddress {
        match transport {
            Transport::Udp => &self.udp,
            Transport::Tcp => &self.tcp,
            Transport::Tls(_) => &self.tls,
        }
    }

    /// A Via value with our address.
    pub fn via(&self, transport: Transport, branch: &str) -> String {
        format!("SIP/2.0/{} {};branch={branch};rport", transport.name(), self.of(transport))
    }
}

/// `host:port`, an IPv6 address in brackets.
impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        if host.contains(':') && !host.starts_with('[') {
            write!(f, "[{host}]:{}", self.port)
        } else {
            write!(f, "{host}:{}", self.port)
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Endpoint {
    legs: Slab<Box<Leg>>,
    core: Core,
}

impl Endpoint {
    /// An endpoint without legs.
    pub fn new(config: EndpointConfig) -> Self {
        Self { legs: Slab::new(config.shard), core: Core::new(config) }
    }

    /// Takes in a message that the front door admitted.
    pub fn receive(&mut self, message: Message, flow: Flow, now: Millis) {
        self.receive_from(flow, message, flow, now);
    }

    /// Takes in a message that came from `source` and that another pod of ours may have passed on: `flow` is its last hop.
    /// Whoever calls this vouches for `source`.
    pub fn receive_from(&mut self, source: Flow, message: Message, flow: Flow, now: Millis) {
        match message {
            Message::Request(request) => self.on_request(source, request, flow, now),
            Message::Response(response) => self.on_response(response, flow, now),
        }
    }

    /// A connection was lost or could not be made: requests of ours on it fail at once, later ones go another way.
    pub fn transport_failed(&mut self, flow: Flow, now: Millis) {
        let concerned = |leg: &Leg| leg.dialog.flow == flow || leg.clients.iter().any(|c| c.flow == flow);
        let ids: Vec<LegId> = self.legs.values().filter(|leg| concerned(leg)).map(|leg| leg.id).collect();
        for id in ids {
            self.with(id, |leg, core| {
                leg.dialog.flow_lost |= leg.dialog.flow == flow;
                client::transport_failed(leg, core, flow, now);
            });
        }
    }

    /// What new calls and OPTIONS meet from now on.
    pub fn set_opening(&mut self, opening: Opening) {
        self.core.opening = opening;
    }

    /// Answers a request of [`Output::Elsewhere`] that nobody else takes: 503 (Retry-After: 5), or 481 if it is a CANCEL.
    pub fn turn_away(&mut self, request: Request, flow: Flow) {
        if let Some(inbound) = self.inbound(flow, request, flow) {
            match inbound.request.method {
                Method::Cancel => self.core.reply(&inbound, 481, &[]),
                _ => self.core.no_room(&inbound),
            }
        }
    }

    /// Legs that are not over.
    pub fn legs(&self) -> usize {
        self.core.live
    }

    /// Whether nothing is owed to any peer: no leg, and no request of ours on its way.
    pub fn is_idle(&self) -> bool {
        self.legs.is_empty()
    }

    /// Sends an INVITE.
    pub fn invite(&mut self, invite: OutgoingInvite, now: Millis) -> LegId {
        calling::invite(&mut self.legs, &mut self.core, invite, now)
    }

    /// What the INVITE of a call that came in, and has no final answer yet, is called on every pod if its copies may come anywhere:
    /// over a stream there are none.
    pub fn name_of(&mut self, leg: LegId) -> Option<InviteName> {
        let leg = self.legs.get_mut(leg)?;
        let (_, cseq) = leg.invite.filter(|_| !leg.dialog.flow.transport.is_reliable())?;
        Some(InviteName::new(&leg.dialog.call_id, &leg.dialog.remote_tag, cseq))
    }

    /// The Call-ID of a leg.
    pub fn call_id_of(&mut self, leg: LegId) -> Option<&[u8]> {
        Some(&self.legs.get_mut(leg)?.dialog.call_id)
    }

    /// How long the session of a call that came in shall last without a refresh; none is asked for otherwise. False if the
    /// caller wants a shorter one than that: it was refused with 422 (RFC 4028 §9), and the leg is over.
    pub fn keep_session(&mut self, leg: LegId, policy: SessionPolicy, now: Millis) -> bool {
        let mut kept = false;
        self.with(leg, |leg, core| kept = called::keep_session(leg, core, policy, now));
        kept
    }

    /// Sends a provisional response (101–199) to the leg's INVITE, one that is acknowledged where
    /// [`super::event::Reliability::wants`] says so.
    pub fn progress(&mut self, leg: LegId, code: u16, body: Option<Body>, now: Millis) {
        self.with(leg, |leg, core| called::progress(leg, core, code, body.as_ref(), now));
    }

    /// Sends 200 to the leg's INVITE and repeats it until it is acknowledged.
    pub fn answer(&mut self, leg: LegId, body: Option<Body>, now: Millis) {
        self.with(leg, |leg, core| called::answer(leg, core, body.as_ref(), now));
    }

    /// Refuses the leg's INVITE with 300–699; `headers` such as Retry-After or Reason.
    pub fn refuse(&mut self, leg: LegId, code: u16, headers: &[(&str, String)], now: Millis) {
        self.with(leg, |leg, core| called::refuse(leg, core, code, headers, now));
    }

    /// Acknowledges the 2xx to an INVITE or re-INVITE that carried no offer.
    pub fn ack(&mut self, leg: LegId, body: Option<Body>, now: Millis) {
        self.with(leg, |leg, core| calling::owed_ack(leg, core, body, now));
    }

    /// Sends a re-INVITE; one that meets another in flight waits its turn, also when the peer says so (491).
    pub fn reoffer(&mut self, leg: LegId, offer: Option<Body>, now: Millis) {
        self.with(leg, |leg, core| client::offer(leg, core, offer, OnGlare::Retry, now));
    }

    /// Sends a re-INVITE for somebody else's; it is refused when the peer refuses it with 491.
    pub fn pass_on(&mut self, leg: LegId, offer: Option<Body>, now: Millis) {
        self.with(leg, |leg, core| client::offer(leg, core, offer, OnGlare::Refuse, now));
    }

    /// Answers a request inside the leg.
    pub fn respond(&mut self, leg: LegId, request: RequestId, code: u16, body: Option<Body>, now: Millis) {
        self.with(leg, |leg, core| inside::respond(leg, core, request, code, &[], body.as_ref(), now));
    }

    /// Refuses a request inside the leg with a sentence for whoever sent it (Warning, RFC 3261 §20.43), and with the
    /// seconds after which the same request can be granted (Retry-After) where that is known.
    pub fn decline(
        &mut self,
        leg: LegId,
        request: RequestId,
        code: u16,
        why: &str,
        retry_after: Option<u32>,
        now: Millis,
    ) {
        let warning = format!("399 voicedock {}", wire::quoted(why).trim_end());
        let retry_after = retry_after.map(|seconds| ("Retry-After", seconds.to_string()));
        let headers: Vec<_> = std::iter::once(("Warning", warning)).chain(retry_after).collect();
        self.with(leg, |leg, core| inside::respond(leg, core, request, code, &headers, None, now));
    }

    /// Sends NOTIFY with a sipfrag body (`SIP/2.0 code reason`) about a REFER that was answered 2xx; `last` ends the
    /// subscription.
    #[allow(clippy::too_many_arguments)]
    pub fn notify(
        &mut self,
        leg: LegId,
        request: RequestId,
        code: u16,
        reason: &str,
        last: bool,
        now: Millis,
    ) {
        self.with(leg, |leg, core| client::notify(leg, core, request, (code, reason), last, now));
    }

    /// Sends a request inside the leg (INFO, MESSAGE).
    pub fn request(&mut self, leg: LegId, method: &str, body: Option<Body>, now: Millis) -> RequestId {
        let request = self.core.next_request();
        self.with(leg, |leg, core| client::request(leg, core, request, method, body, now));
        request
    }

    /// Sends REFER to `target` (a URI, without angle brackets) inside the leg. Its outcome comes as NOTIFY requests with a
    /// `message/sipfrag` body.
    pub fn refer(&mut self, leg: LegId, target: &str, now: Millis) -> RequestId {
        let request = self.core.next_request();
        self.with(leg, |leg, core| client::refer(leg, core, request, target, now));
        request
    }

    /// Sends the peer elsewhere with REFER (RFC 3515), one at a time. Its response comes as `Response`, what becomes of it as
    /// `Referred`, also before the response.
    pub fn refer_away(&mut self, leg: LegId, refer: OutgoingRefer, now: Millis) -> RequestId {
        let request = self.core.next_request();
        self.with(leg, |leg, core| client::refer_away(leg, core, request, refer, now));
        request
    }

    /// Ends the leg in whatever way its state asks for: CANCEL (once a 1xx came), refusal of an unanswered INVITE (480),
    /// BYE (after the ACK), ACK + BYE for a 2xx that crosses. `reason` becomes the Reason header. The leg is over at once:
    /// `Refused` by `Cancelled` if it was our unanswered INVITE, else `Ended` by `Us`.
    pub fn hang_up(&mut self, leg: LegId, reason: Option<&str>, now: Millis) {
        self.with(leg, |leg, core| ending::hang_up(leg, core, reason, now));
    }

    /// When [`Self::handle_timeout`] must be called next.
    pub fn next_timeout(&self) -> Option<Millis> {
        self.core.wheel.next()
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Millis) {
        while let Some(timer) = self.core.wheel.pop_due(now) {
            match timer {
                TimerId::Client { leg, seq, cancel } => {
                    self.with(leg, |leg, core| client::on_timer(leg, core, seq, cancel, now));
                }
                TimerId::Server(key) => self.on_server_timer(key, now),
                TimerId::Retry(leg) => self.with(leg, |leg, core| {
                    if let Some(retry) = leg.retry.take() {
                        leg.offers.push_front((retry.offer, OnGlare::Retry));
                        client::offer_next(leg, core, now);
                    }
                }),
                TimerId::Provisional(leg) => self.with(leg, |leg, core| reliable::on_timer(leg, core, now)),
                TimerId::Session(leg) => self.with(leg, |leg, core| keeping::on_timer(leg, core, now)),
                TimerId::ForgetAck(leg) => self.with(leg, |leg, _| leg.ack = None),
            }
        }
    }

    /// The next output; drain after every call.
    pub fn poll(&mut self) -> Option<Output> {
        self.core.out.pop_front()
    }

    /// Runs `action` on a leg, if it is still there, and removes the leg when nothing is left to be done for it.
    fn with(&mut self, id: LegId, action: impl FnOnce(&mut Leg, &mut Core)) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        action(leg, &mut self.core);
        leg.shrink();
        if leg.is_done() {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: LegId) {
        let Some(mut leg) = self.legs.remove(id) else { return };
        if let Some(ack) = &mut leg.ack {
            self.core.wheel.cancel(&mut ack.timer);
        }
        if let Some(fork) = leg.fork {
            self.core.forks.remove(&fork);
            give_back(&mut self.core.forks);
        }
    }

    fn inbound(&self, source: Flow, request: Request, flow: Flow) -> Option<Inbound> {
        let id = Identified::of(&request.headers)?;
        let passed_on = source != flow;
        let sender = if passed_on { proxy::sender_via(&request)? } else { id.via.clone() };
        let key = ServerKey::of(&self.core.identity, &sender, &id, &request.method);
        let reply_to = via::response_flow(&id.via, flow);
        Some(Inbound { request, id, sender, key, source, flow, reply_to })
    }

    fn on_request(&mut self, source: Flow, request: Request, flow: Flow, now: Millis) {
        let Some(inbound) = self.inbound(source, request, flow) else { return };
        match inbound.request.method {
            Method::Ack => self.on_ack(&inbound, now),
            Method::Cancel => self.on_cancel(&inbound, now),
            _ if self.core.servers.get_mut(inbound.key).is_some() => self.core.repeated(inbound.key),
            _ if inbound.id.to.tag().is_some() => self.on_request_within(&inbound, now),
            Method::Invite => called::invite(&mut self.legs, &mut self.core, &inbound, now),
            _ => called::outside(&mut self.core, &inbound),
        }
    }

    /// A request with a To tag: it belongs to a leg, or to none that exists (481).
    fn on_request_within(&mut self, inbound: &Inbound, now: Millis) {
        let id = inbound.id.to.tag().and_then(|tag| self.core.identity.leg_of_token(tag));
        let Some(id) = id.filter(|id| self.legs.get_mut(*id).is_some()) else {
            return self.core.reply(inbound, 481, &[]);
        };
        self.with(id, |leg, core| inside::request(leg, core, inbound, now));
    }

    fn on_ack(&mut self, inbound: &Inbound, now: Millis) {
        let key = inbound.key;
        if let Some(server) = self.core.servers.get_mut(key) {
            let leg = server.leg;
            match server.state {
                ServerState::Refused(_) => self.core.acknowledged(key, timer::T4, now),
                // A peer that acknowledges a 2xx with the INVITE's branch.
                ServerState::Accepted(_) => {
                    self.with(leg, |leg, core| {
                        called::acked(leg, core, read::request_body(&inbound.request), now)
                    });
                }
                _ => {}
            }
            return;
        }
        let id = inbound.id.to.tag().and_then(|tag| self.core.identity.leg_of_token(tag));
        let Some(id) = id else { return };
        self.with(id, |leg, core| {
            let awaited = leg.invite.is_some_and(|(_, cseq)| cseq == inbound.id.cseq);
            if awaited && leg.dialog.is_with(&inbound.id.call_id, inbound.id.sender_tag()) {
                called::acked(leg, core, read::request_body(&inbound.request), now);
            }
        });
    }

    fn on_cancel(&mut self, inbound: &Inbound, now: Millis) {
        let key = ServerKey::of(&self.core.identity, &inbound.sender, &inbound.id, &Method::Invite);
        let Some(server) = self.core.servers.get_mut(key) else {
            // Inside a dialog it is known whose it would be: nobody else has it.
            if inbound.id.to.tag().is_some() {
                return self.core.reply(inbound, 481, &[]);
            }
            return self.core.elsewhere(inbound);
        };
        let (leg, waiting) = (server.leg, server.waiting());
        self.core.reply(inbound, 200, &[]);
        if waiting {
            self.with(leg, |leg, core| called::cancelled(leg, core, key, now));
        }
    }

    fn on_server_timer(&mut self, key: ServerKey, now: Millis) {
        let Some(server) = self.core.servers.get_mut(key) else { return };
        server.timer = None;
        let (leg, flow) = (server.leg, server.flow);
        match &server.state {
            ServerState::Accepted(_) if server.ends <= now => {
                self.core.acknowledged(key, timer::GIVE_UP, now);
                self.with(leg, |leg, core| called::never_acked(leg, core, key, now));
            }
            ServerState::Refused(bytes) | ServerState::Accepted(bytes) if server.ends > now => {
                let bytes = bytes.clone();
                server.interval = timer::doubled_to_t2(server.interval);
                let next = (now + server.interval).min(server.ends);
                server.timer = Some(self.core.wheel.set(next, TimerId::Server(key)));
                self.core.transmit(flow, bytes);
            }
            _ => {
                self.core.servers.remove(key);
            }
        }
    }

    fn on_response(&mut self, response: Response, flow: Flow, now: Millis) {
        let Some(id) = Identified::of(&response.headers) else { return };
        let Some((leg, seq)) = id.via.branch().and_then(|b| self.core.identity.transaction_of_branch(b))
        else {
            return;
        };
        let answer = response.status.is_success() && id.method == Method::Invite;
        let mut orphan = answer;
        self.with(leg, |leg, core| {
            let known = client::on_response(leg, core, &response, &id, seq, now);
            orphan &= !known && !calling::repeated_answer(leg, core, &id);
        });
        if orphan {
            calling::end_fork(&mut self.legs, &mut self.core, &response, &id, flow, now);
        }
    }
}

/// Figures for tests and metrics.
impl Endpoint {
    /// Server transactions that are remembered, those of finished calls included.
    pub fn server_transactions(&self) -> usize {
        self.core.servers.len()
    }

    /// Client transactions under way.
    pub fn client_transactions(&self) -> usize {
        self.legs.values().map(|leg| leg.clients.len()).sum()
    }

    /// Pending timers.
    pub fn timers(&self) -> usize {
        self.core.wheel.len()
    }
}
