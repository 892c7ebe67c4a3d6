//! One endpoint and its calls, driven as a shard drives them, with time that a script moves.
//!
//! What must hold: nothing panics; whatever the gateway sends would be let in at a front door; a leg that is over says nothing
//! more; and when every call was told to end and time has passed, nothing is left of anything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use sipx_sip::{Limits, Message};
use voicedock::call::{
    AskId, Call, CallStart, Command, Context, Effect, Input, LegKey, TellId, Timer, Wish, passed_on,
};
use voicedock::routing::decide::{Index, Limit, Lines, Wanted};
use voicedock::routing::table::{Limits as LineLimits, ObjectKey, Table};
use voicedock::sip::endpoint::{Endpoint, EndpointConfig, LocalAddress, LocalAddresses, Opening, Output};
use voicedock::sip::event::{
    EndedBy, Flow, LegEvent, LegId, OutgoingInvite, OutgoingRefer, RequestId, Transport,
};
use voicedock::sip::front_door::{Verdict, admit};
use voicedock::sip::time::Millis;

/// Where the gateway is.
pub const OWN: &str = "192.0.2.1:5060";

struct Unlimited;

impl Lines for Unlimited {
    fn full(&self, _: &ObjectKey, _: LineLimits) -> Option<Limit> {
        None
    }
}

struct Entry {
    call: Call,
    legs: BTreeMap<LegKey, LegId>,
    timers: BTreeMap<Timer, Millis>,
}

/// See the module.
pub struct Gateway {
    endpoint: Endpoint,
    calls: BTreeMap<u64, Entry>,
    legs: BTreeMap<LegId, (u64, LegKey)>,
    relayed: BTreeMap<(LegId, RequestId), (LegId, RequestId)>,
    pending: VecDeque<(u64, Input)>,
    over: BTreeSet<LegId>,
    /// What agents were asked to say, oldest first.
    telling: VecDeque<(u64, TellId)>,
    index: Index,
    now: Millis,
    serial: u64,
    /// What it sent and to whom, oldest first; takers remove what they have seen.
    pub sent: VecDeque<(Flow, Message)>,
}

impl Gateway {
    /// With this table.
    pub fn new(table: Table) -> Self {
        let local = LocalAddress { host: "192.0.2.1".into(), port: 5060 };
        let endpoint = Endpoint::new(EndpointConfig {
            instance: 7,
            shard: 0,
            seed: [7; 16],
            local: LocalAddresses { udp: local.clone(), tcp: local.clone(), tls: local },
            user_agent: "fuzz".into(),
            max_legs: 64,
        });
        Self {
            endpoint,
            calls: BTreeMap::new(),
            legs: BTreeMap::new(),
            relayed: BTreeMap::new(),
            pending: VecDeque::new(),
            over: BTreeSet::new(),
            telling: VecDeque::new(),
            index: Index::new(Arc::new(table)),
            now: Millis(1_000),
            serial: 0,
            sent: VecDeque::new(),
        }
    }

    /// A datagram comes in.
    pub fn receive(&mut self, bytes: &[u8], from: Flow) {
        match admit(Bytes::copy_from_slice(bytes), from, &Limits::datagram()) {
            Verdict::Message(message) => self.endpoint.receive(*message, from, self.now),
            Verdict::Reply { .. } | Verdict::Drop(_) | Verdict::Nothing => {}
        }
        self.drain();
    }

    /// Nothing can be sent there any more.
    pub fn lose(&mut self, flow: Flow) {
        self.endpoint.transport_failed(flow, self.now);
        self.drain();
    }

    /// Whether new calls are taken.
    pub fn set_opening(&mut self, opening: Opening) {
        self.endpoint.set_opening(opening);
    }

    /// Somebody wants something of a call.
    pub fn command(&mut self, number: usize, command: Command) {
        if let Some(key) = self.calls.keys().nth(number).copied() {
            self.step(key, Input::Command(command));
            self.drain();
        }
    }

    /// The oldest thing that an agent was told is done, or not.
    pub fn told(&mut self, result: Result<(), String>) {
        if let Some((key, id)) = self.telling.pop_front() {
            self.step(key, Input::Told(id, result));
            self.drain();
        }
    }

    /// The agent of a call asks for a transfer by a tool.
    pub fn agent_asks(&mut self, number: usize, destination: &str) {
        if let Some(key) = self.calls.keys().nth(number).copied() {
            let wish = Wish::Transfer { wanted: Wanted::Name(destination.into()), message: None };
            self.step(key, Input::Asked { leg: LegKey::Dialled(0), ask: AskId(1), wish });
            self.drain();
        }
    }

    /// Time passes, with all that is due in it.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let timer = self.calls.iter().flat_map(|(key, entry)| {
                entry.timers.iter().map(move |(timer, at)| (*at, Some((*key, *timer))))
            });
            let next =
                timer.chain(self.endpoint.next_timeout().map(|at| (at, None))).min_by_key(|(at, _)| *at);
            let Some((at, what)) = next.filter(|(at, _)| *at <= until) else { break };
            self.now = self.now.max(at);
            match what {
                None => self.endpoint.handle_timeout(self.now),
                Some((key, timer)) => {
                    if let Some(entry) = self.calls.get_mut(&key) {
                        entry.timers.remove(&timer);
                    }
                    self.step(key, Input::Timer(timer));
                }
            }
            self.drain();
        }
        self.now = until;
    }

    /// Everything is told to end, and nothing is left.
    pub fn end(mut self) {
        while !self.telling.is_empty() {
            self.told(Err("nobody said anything".into()));
        }
        for key in self.calls.keys().copied().collect::<Vec<_>>() {
            let Some(entry) = self.calls.get_mut(&key) else { continue };
            let effects = entry.call.shut_down("gateway-shut-down", "SIP;cause=503");
            self.carry_out(key, effects);
            self.drain();
        }
        self.pass(Duration::from_secs(4 * 3600));
        assert_eq!((self.endpoint.legs(), self.endpoint.is_idle()), (0, true), "a leg is left");
        let left = (
            self.endpoint.server_transactions(),
            self.endpoint.client_transactions(),
            self.endpoint.timers(),
        );
        assert_eq!(left, (0, 0, 0), "transactions or timers are left");
        assert!(self.calls.is_empty(), "a call is left");
    }

    fn drain(&mut self) {
        loop {
            if let Some((key, input)) = self.pending.pop_front() {
                self.step(key, input);
                continue;
            }
            let Some(output) = self.endpoint.poll() else { return };
            match output {
                Output::Transmit { flow, bytes } => match admit(bytes.clone(), flow, &Limits::datagram()) {
                    Verdict::Message(message) => self.sent.push_back((flow, *message)),
                    other => panic!("{other:?} would be the answer to {}", String::from_utf8_lossy(&bytes)),
                },
                Output::Elsewhere { request, flow } => self.endpoint.turn_away(*request, flow),
                Output::TurnedAway => {}
                Output::Leg(leg, event) => self.event(leg, event),
            }
            if self.sent.len() > 256 {
                self.sent.pop_front();
            }
        }
    }

    fn event(&mut self, leg: LegId, event: LegEvent) {
        assert!(!self.over.contains(&leg), "a leg that is over says {event:?}");
        let over = matches!(event, LegEvent::Ended(_) | LegEvent::Refused { .. });
        if over {
            self.over.insert(leg);
        }
        if let LegEvent::Incoming(incoming) = event {
            let Ok(answer) = self.index.who_answers(incoming.flow.peer.ip(), &incoming.called) else {
                return self.endpoint.refuse(leg, 404, &[], self.now);
            };
            if !self.endpoint.keep_session(leg, answer.session_timer().into(), self.now) {
                return;
            }
            self.serial += 1;
            let key = self.serial;
            let start = CallStart { id: format!("call_{key}"), incoming: *incoming, answer };
            let (call, effects) = Call::start(start, context(self.now, &self.index));
            let legs = BTreeMap::from([(LegKey::Caller, leg)]);
            self.calls.insert(key, Entry { call, legs, timers: BTreeMap::new() });
            self.legs.insert(leg, (key, LegKey::Caller));
            return self.carry_out(key, effects);
        }
        if let LegEvent::Response { request, code } = event
            && let Some((origin, request)) = self.relayed.remove(&(leg, request))
        {
            return self.endpoint.respond(origin, request, passed_on(code, 500), None, self.now);
        }
        let Some(&(call, key)) = self.legs.get(&leg) else { return };
        if over {
            self.legs.remove(&leg);
            if let Some(entry) = self.calls.get_mut(&call) {
                entry.legs.remove(&key);
            }
        }
        self.step(call, Input::Leg(key, event));
    }

    fn step(&mut self, key: u64, input: Input) {
        let context = context(self.now, &self.index);
        if let Some(entry) = self.calls.get_mut(&key) {
            let effects = entry.call.step(input, context);
            self.carry_out(key, effects);
        }
    }

    fn carry_out(&mut self, key: u64, effects: Vec<Effect>) {
        let now = self.now;
        for effect in effects {
            match effect {
                Effect::Dial(leg, dial) => {
                    let Ok(ip) = dial.target.host.parse() else {
                        let refused = LegEvent::Refused {
                            code: 503,
                            reason: "nobody knows the host".into(),
                            by: voicedock::sip::event::RefusedBy::Transport,
                        };
                        self.pending.push_back((key, Input::Leg(leg, refused)));
                        continue;
                    };
                    let peer = std::net::SocketAddr::new(ip, dial.target.port.unwrap_or(5060));
                    let invite = OutgoingInvite {
                        flow: Flow { transport: Transport::Udp, peer },
                        uri: dial.target.uri.clone(),
                        route: dial.target.route.clone(),
                        from: dial.from.clone(),
                        headers: dial.headers.clone(),
                        max_forwards: dial.max_forwards,
                        offer: dial.offer.clone(),
                        credentials: None,
                        patience: dial.patience,
                        session: dial.session,
                    };
                    let id = self.endpoint.invite(invite, now);
                    self.legs.insert(id, (key, leg));
                    if let Some(entry) = self.calls.get_mut(&key) {
                        entry.legs.insert(leg, id);
                    }
                }
                Effect::Progress(leg, code, body) => {
                    self.on(key, leg, |e, leg| e.progress(leg, code, body, now))
                }
                Effect::Answer(leg, body) => self.on(key, leg, |e, leg| e.answer(leg, body, now)),
                Effect::Refuse(leg, code, reason) => {
                    self.on(key, leg, |e, leg| e.refuse(leg, code, &[("Reason", reason.to_owned())], now));
                    if let Some(id) = self.calls.get_mut(&key).and_then(|entry| entry.legs.remove(&leg)) {
                        self.legs.remove(&id);
                    }
                }
                Effect::Ack(leg, body) => self.on(key, leg, |e, leg| e.ack(leg, body, now)),
                Effect::Reoffer(leg, body) => self.on(key, leg, |e, leg| e.reoffer(leg, body, now)),
                Effect::PassOn(leg, body) => self.on(key, leg, |e, leg| e.pass_on(leg, body, now)),
                Effect::Respond(leg, request, code, body) => {
                    self.on(key, leg, |e, leg| e.respond(leg, request, code, body, now));
                }
                Effect::Decline { leg, request, code, why, retry_after } => {
                    self.on(key, leg, |e, leg| e.decline(leg, request, code, &why, retry_after, now));
                }
                Effect::Notify { leg, request, code, reason, last } => {
                    self.on(key, leg, |e, leg| e.notify(leg, request, code, reason, last, now));
                }
                Effect::Relay { from, request, to, method, body } => {
                    if let (Some(origin), Some(target)) = (self.live(key, from), self.live(key, to)) {
                        let sent = self.endpoint.request(target, &method, body, now);
                        self.relayed.insert((target, sent), (origin, request));
                    }
                }
                Effect::Refer(leg, refer) => {
                    let refer = OutgoingRefer {
                        target: refer.target.clone(),
                        referred_by: refer.referred_by.replace("{host}", "192.0.2.1"),
                        headers: refer.headers.clone(),
                        credentials: None,
                    };
                    self.on(key, leg, |e, leg| {
                        e.refer_away(leg, refer, now);
                    });
                }
                // Nobody comes in anybody's place here.
                Effect::BecomesCaller(_) => {}
                Effect::HangUp(leg, reason) => match self.live(key, leg) {
                    Some(id) => self.endpoint.hang_up(id, Some(reason), now),
                    None => self.pending.push_back((key, Input::Leg(leg, LegEvent::Ended(EndedBy::Us)))),
                },
                Effect::SetTimer(timer, after) => {
                    if let Some(entry) = self.calls.get_mut(&key) {
                        entry.timers.insert(timer, now + after);
                    }
                }
                Effect::ClearTimer(timer) => {
                    if let Some(entry) = self.calls.get_mut(&key) {
                        entry.timers.remove(&timer);
                    }
                }
                Effect::Tell(tell) => self.telling.push_back((key, tell.id)),
                Effect::Joined { .. } | Effect::Conclude { .. } => {}
                // Told to people, who do nothing here.
                Effect::Reply(_) | Effect::Record(_) => {}
            }
        }
        if self.calls.get(&key).is_some_and(|entry| entry.call.is_gone()) {
            for leg in self.calls.remove(&key).into_iter().flat_map(|entry| entry.legs.into_values()) {
                self.legs.remove(&leg);
            }
        }
    }

    fn live(&self, key: u64, leg: LegKey) -> Option<LegId> {
        self.calls.get(&key)?.legs.get(&leg).copied()
    }

    fn on(&mut self, key: u64, leg: LegKey, act: impl FnOnce(&mut Endpoint, LegId)) {
        if let Some(id) = self.live(key, leg) {
            act(&mut self.endpoint, id);
        }
    }
}

fn context(now: Millis, index: &Index) -> Context<'_> {
    let wall = 1_767_603_600_000 + i64::try_from(now.0).unwrap_or(0);
    Context {
        now,
        wall: Timestamp::from_millisecond(wall).unwrap_or_default(),
        dice: now.0,
        lines: &Unlimited,
        index,
    }
}
