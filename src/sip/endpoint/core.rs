//! What all parts of an endpoint share: its configuration, timers, server transactions and outputs.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use sipx_sip::{HeaderName, Request, Via};

use super::large::DatagramPeers;
use super::leg::{Leg, Phase};
use super::reliable;
use super::{EndpointConfig, Opening, Output};
use crate::sip::event::{Body, Flow, LegEvent, LegId, RequestId, Transport};
use crate::sip::front_door::reply_stateless;
use crate::sip::identity::Identity;
use crate::sip::lately::Lately;
use crate::sip::read::Identified;
use crate::sip::time::Millis;
use crate::sip::timer;
use crate::sip::transaction::{ReplyHead, Server, ServerKey, ServerState, Servers};
use crate::sip::wheel::Wheel;
use crate::sip::wire::{ALLOW, Lines, SUPPORTED, Writer, reason_phrase};

/// Seconds after which a caller for whom there was no room may try again.
pub const RETRY_AFTER: &str = "5";
/// Most INVITEs without room that are remembered of one half minute: 2 MiB.
const MOST_TURNED_AWAY: usize = 1 << 15;

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerId {
    /// A client transaction: retransmission or end.
    Client {
        /// Its leg.
        leg: LegId,
        /// Its number.
        seq: u32,
        /// It is the CANCEL of that number, not the INVITE.
        cancel: bool,
    },
    /// A server transaction: retransmission or end.
    Server(ServerKey),
    /// Time to send a re-INVITE again after glare.
    Retry(LegId),
    /// No copy of a 2xx can come any more: its ACK is forgotten.
    ForgetAck(LegId),
    /// A provisional response was not acknowledged.
    Provisional(LegId),
    /// A session is to be refreshed, or ended.
    Session(LegId),
}

/// See the module.
#[derive(Debug)]
pub struct Core {
    /// As given.
    pub config: EndpointConfig,
    /// Our tags and branches.
    pub identity: Identity,
    /// Pending timers.
    pub wheel: Wheel<TimerId>,
    /// The peers' transactions.
    pub servers: Servers,
    /// Outputs that were not taken yet.
    pub out: VecDeque<Output>,
    /// Legs that are not over.
    pub live: usize,
    /// Forked dialogs that are being ended, by a digest of Call-ID and To tag.
    pub forks: HashMap<ServerKey, LegId>,
    /// What new calls meet.
    pub opening: Opening,
    /// Those that met no room: a copy that waits behind its INVITE while room is made would begin a call whose caller was told
    /// 503 and has gone elsewhere.
    pub turned_away: Lately<ServerKey>,
    /// Peers that large requests go to over UDP all the same.
    pub datagram_peers: DatagramPeers,
    requests: u64,
}

/// A request as the endpoint handles it.
#[derive(Debug)]
pub struct Inbound {
    /// The request.
    pub request: Request,
    /// Its identifying parts.
    pub id: Identified,
    /// The Via that its sender wrote.
    pub sender: Via,
    /// Its transaction.
    pub key: ServerKey,
    /// Who sent it; another than `flow` when a pod of ours passed it on.
    pub source: Flow,
    /// Where it came from.
    pub flow: Flow,
    /// Where responses go.
    pub reply_to: Flow,
}

impl Core {
    /// At the start.
    pub fn new(config: EndpointConfig) -> Self {
        Self {
            identity: Identity::new(config.instance, config.shard, config.seed),
            requests: u64::from(config.shard) << 48,
            config,
            wheel: Wheel::default(),
            servers: Servers::default(),
            out: VecDeque::new(),
            live: 0,
            forks: HashMap::new(),
            opening: Opening::Open,
            turned_away: Lately::new(MOST_TURNED_AWAY),
            datagram_peers: DatagramPeers::default(),
        }
    }

    /// Sends bytes.
    pub fn transmit(&mut self, flow: Flow, bytes: Bytes) {
        self.out.push_back(Output::Transmit { flow, bytes });
    }

    /// Leaves a request to somebody else.
    pub fn elsewhere(&mut self, inbound: &Inbound) {
        let request = Box::new(inbound.request.clone());
        self.out.push_back(Output::Elsewhere { request, flow: inbound.flow });
    }

    /// Tells the call machine, unless the leg is over.
    pub fn tell(&mut self, leg: &Leg, event: LegEvent) {
        if !leg.is_over() {
            self.out.push_back(Output::Leg(leg.id, event));
        }
    }

    /// Tells the call machine that the leg is over, once, and forgets what it was to do.
    pub fn end(&mut self, leg: &mut Leg, event: LegEvent) {
        if leg.is_over() {
            return;
        }
        self.out.push_back(Output::Leg(leg.id, event));
        leg.phase = Phase::Over;
        self.live -= 1;
        leg.offers = VecDeque::new();
        leg.subscriptions = Vec::new();
        self.wheel.cancel(&mut leg.session.timer);
        reliable::settle(&mut leg.reliable, self);
        leg.reliable = None;
        leg.early = Vec::new();
        leg.branches = None;
        if let Some(mut retry) = leg.retry.take() {
            self.wheel.cancel(&mut retry.timer);
        }
    }

    /// A new name for a request.
    pub fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    /// Our host and port as peers reach us over a transport.
    pub fn local(&self, transport: Transport) -> String {
        self.config.local.of(transport).to_string()
    }

    /// A Via value with our address.
    pub fn via(&self, transport: Transport, branch: &str) -> String {
        self.config.local.via(transport, branch)
    }

    /// A Contact value that names a leg.
    pub fn contact(&self, leg: LegId, transport: Transport) -> String {
        let (local, parameter) = (self.local(transport), transport.parameter());
        format!("<sip:vd@{local}{parameter};vd={}>", self.identity.token(leg))
    }

    /// Builds a response to a request of a leg. One that makes a dialog (101–299 to INVITE) copies the Record-Route.
    pub fn response(&self, head: &ReplyHead, leg: LegId, reply: &Reply<'_>) -> Bytes {
        let Reply { code, invite, transport, .. } = *reply;
        let mut w = Writer::response(code, reason_phrase(code));
        w.lines(&head.lines);
        let token = (!head.tagged && code > 100).then(|| self.identity.token(leg));
        match token {
            Some(token) => w.line("To", [&head.to, &b";tag="[..], token.as_bytes()].concat()),
            None => w.line("To", &head.to),
        };
        if (101..300).contains(&code) {
            if invite {
                w.lines(&head.record_route);
            }
            if reply.target {
                w.line("Contact", self.contact(leg, transport));
            }
        }
        if (200..300).contains(&code) {
            w.line("Allow", ALLOW).line("Supported", SUPPORTED);
        }
        for (name, value) in reply.headers {
            w.line(name, value);
        }
        if !self.config.user_agent.is_empty() {
            w.line("Server", &self.config.user_agent);
        }
        w.finish(reply.body)
    }

    /// Answers a request at once and keeps nothing of it; its repetition gets the same answer.
    pub fn reply(&mut self, inbound: &Inbound, code: u16, headers: &[(&str, String)]) {
        let bytes = reply_stateless(&inbound.request, code, reason_phrase(code), headers);
        self.transmit(inbound.reply_to, bytes);
    }

    /// Answers 503: there is no room, and may be some in a while.
    pub fn no_room(&mut self, inbound: &Inbound) {
        self.reply(inbound, 503, &[("Retry-After", RETRY_AFTER.to_owned())]);
    }

    /// Answers an INVITE 503, and its copies too.
    pub fn turn_away(&mut self, inbound: &Inbound, now: Millis) {
        // Over a stream there are no copies.
        if !inbound.flow.transport.is_reliable() {
            self.turned_away.add(inbound.key, now);
        }
        self.no_room(inbound);
        self.out.push_back(Output::TurnedAway);
    }

    /// Answers a request inside a leg at once, and repeats the answer when the request is repeated.
    pub fn reply_within(&mut self, leg: LegId, inbound: &Inbound, reply: &Reply<'_>, now: Millis) {
        let head = ReplyHead::of(&inbound.request);
        self.remember(leg, inbound, head, None, now);
        self.finish(inbound.key, leg, reply, now);
    }

    /// Adds the server transaction of a request that has no final response yet.
    pub fn remember(
        &mut self,
        leg: LegId,
        inbound: &Inbound,
        head: ReplyHead,
        merged: Option<ServerKey>,
        now: Millis,
    ) {
        let server = Server {
            flow: inbound.reply_to,
            leg,
            state: ServerState::Waiting(Box::new(head), None),
            interval: timer::T1,
            ends: now + timer::GIVE_UP,
            timer: None,
            merged,
        };
        self.servers.insert(inbound.key, server);
    }

    /// Sends a provisional response in a server transaction, and again whenever the request is repeated. Returns what was
    /// sent where.
    pub fn provisional(&mut self, key: ServerKey, leg: LegId, reply: &Reply<'_>) -> Option<(Flow, Bytes)> {
        let server = self.servers.get_mut(key)?;
        let ServerState::Waiting(head, _) = &server.state else { return None };
        let (flow, head) = (server.flow, head.clone());
        let bytes = self.response(&head, leg, &Reply { transport: flow.transport, ..*reply });
        if let Some(Server { state: ServerState::Waiting(_, last), .. }) = self.servers.get_mut(key) {
            *last = Some(bytes.clone());
        }
        self.transmit(flow, bytes.clone());
        Some((flow, bytes))
    }

    /// Sends the final response in a server transaction. False if there was one already.
    pub fn finish(&mut self, key: ServerKey, leg: LegId, reply: &Reply<'_>, now: Millis) -> bool {
        let Some(server) = self.servers.get_mut(key) else { return false };
        let ServerState::Waiting(head, _) = &server.state else { return false };
        let (flow, head) = (server.flow, head.clone());
        let bytes = self.response(&head, leg, &Reply { transport: flow.transport, ..*reply });
        self.transmit(flow, bytes.clone());
        let Some(server) = self.servers.get_mut(key) else { return false };
        server.ends = now + timer::GIVE_UP;
        server.interval = timer::T1;
        let next = match (reply.invite, reply.code) {
            (false, _) if server.reliable() => {
                // Timer J is zero over TCP.
                self.servers.remove(key);
                return true;
            }
            (false, _) => {
                server.state = ServerState::Answered(bytes);
                server.ends
            }
            (true, 200..300) => {
                server.state = ServerState::Accepted(bytes);
                now + timer::T1
            }
            (true, _) => {
                server.state = ServerState::Refused(bytes);
                if server.reliable() { server.ends } else { now + timer::T1 }
            }
        };
        server.timer = Some(self.wheel.set(next, TimerId::Server(key)));
        true
    }

    /// The peer acknowledged our final response to its INVITE, or will never do so: nothing is repeated any more, and a
    /// late copy of the INVITE does nothing for `span` (over UDP; over TCP there are none).
    pub fn acknowledged(&mut self, key: ServerKey, span: std::time::Duration, now: Millis) {
        let Some(server) = self.servers.get_mut(key) else { return };
        self.wheel.cancel(&mut server.timer);
        if server.reliable() {
            self.servers.remove(key);
            return;
        }
        server.state = ServerState::Done;
        server.ends = now + span;
        server.timer = Some(self.wheel.set(server.ends, TimerId::Server(key)));
    }

    /// The leg of an INVITE is over: refuses it if it has no final response, stops repeating a 2xx.
    pub fn settle_invite(&mut self, key: ServerKey, leg: LegId, now: Millis) {
        let Some(server) = self.servers.get_mut(key) else { return };
        match server.state {
            ServerState::Waiting(..) => {
                self.finish(key, leg, &Reply::code(487, true), now);
            }
            ServerState::Accepted(_) => self.acknowledged(key, timer::GIVE_UP, now),
            _ => {}
        }
    }

    /// A request came again.
    pub fn repeated(&mut self, key: ServerKey) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let again = match &server.state {
            ServerState::Waiting(_, last) => last.clone(),
            ServerState::Answered(bytes) | ServerState::Refused(bytes) | ServerState::Accepted(bytes) => {
                Some(bytes.clone())
            }
            ServerState::Done => None,
        };
        let flow = server.flow;
        if let Some(bytes) = again {
            self.transmit(flow, bytes);
        }
    }
}

/// A response to be built.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// Status code.
    pub code: u16,
    /// To an INVITE.
    pub invite: bool,
    /// Headers of its own.
    pub headers: &'a [(&'a str, String)],
    /// Its body.
    pub body: Option<&'a Body>,
    /// Whether a 2xx names our Contact: to requests that make or refresh a dialog.
    pub target: bool,
    /// The transport that its Contact names; filled in from the transaction.
    pub transport: Transport,
}

impl<'a> Reply<'a> {
    /// With a code only.
    pub fn code(code: u16, invite: bool) -> Self {
        Self { code, invite, headers: &[], body: None, target: invite, transport: Transport::Udp }
    }

    /// With our Contact.
    pub fn target(self) -> Self {
        Self { target: true, ..self }
    }

    /// With headers.
    pub fn with(self, headers: &'a [(&'a str, String)]) -> Self {
        Self { headers, ..self }
    }

    /// With a body.
    pub fn body(self, body: Option<&'a Body>) -> Self {
        Self { body, ..self }
    }
}

impl ReplyHead {
    /// Copies from a request what every response to it repeats (RFC 3261 §8.2.6.2).
    pub fn of(request: &Request) -> Self {
        let rows = |name: HeaderName, label: &'static str| {
            request.headers.get_all(&name).map(|row| (label, row.value().into_owned())).collect::<Vec<_>>()
        };
        let mut lines = rows(HeaderName::Via, "Via");
        lines.extend(rows(HeaderName::From, "From"));
        lines.extend(rows(HeaderName::CallId, "Call-ID"));
        lines.extend(rows(HeaderName::CSeq, "CSeq"));
        lines.extend(rows(HeaderName::Timestamp, "Timestamp"));
        Self {
            lines: Lines::collect(lines),
            record_route: Lines::collect(rows(HeaderName::RecordRoute, "Record-Route")),
            to: request.headers.value(&HeaderName::To).unwrap_or_default().into_owned().into_boxed_slice(),
            tagged: crate::sip::read::tag(&request.headers, &HeaderName::To).is_some(),
        }
    }
}
