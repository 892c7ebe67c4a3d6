//! One shard: the thin driver around its SIP endpoint and its calls. No decision is made here.
//!
//! A shard is one task that owns its endpoint, calls and timers; nothing in it is locked or awaited but its inputs. It
//! turns messages, timers, commands and resolved names into inputs of the machines, and carries their outputs out.

mod admission;
mod dialling;
mod entry;
mod replacing;
mod sessions;
mod taps;
mod telling;
mod testing;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand::Rng as _;
use sipx_sip::Method;
use tokio::sync::{mpsc, oneshot};

pub(super) use self::admission::Callers;
use self::admission::NotAdmitted;
use self::entry::{Entry, Leg};
use self::taps::Taps;
use super::assistant_metrics::OTHER;
use super::call_id::CallId;
use super::control::{ControlError, ControlRequest};
use super::lines::Lines;
use super::plane::Shared;
use super::resolve::ResolveError;
use super::snapshot::{Credential, Snapshot};
use crate::call::{
    AskId, Call, CallStart, CommandRefusal, Context, Effect, Input, LegKey, Record, Refer, TellId, Timer,
    Wish, passed_on,
};
use crate::memory::give_back;
use crate::routing::table::{AssistantEntry, CredentialId, ObjectKey};
use crate::sip::endpoint::{Endpoint, Output};
use crate::sip::event::{
    Credentials, EndedBy, Flow, IncomingCall, LegEvent, LegId, OutgoingRefer, RequestId,
};
use crate::sip::time::Millis;

/// Inputs that are taken before outputs are sent: bounds the time that a burst keeps timers waiting.
const BATCH: usize = 64;

/// Seconds after which a request may be sent again that nobody answered.
const SOON: u32 = 2;

/// What a shard is told.
pub(super) enum ShardInput {
    /// A message that the front door let in: who sent it, and its last hop.
    Message { source: Flow, message: Box<sipx_sip::Message>, flow: Flow },
    /// Nothing can be sent to this peer.
    TransportFailed(Flow),
    /// A name was looked up for a leg that is to be dialled: the ways to it, at least one.
    Resolved { call: u64, leg: LegKey, result: Result<Vec<Flow>, ResolveError> },
    /// No pod has the INVITE that this CANCEL is about.
    Unclaimed { request: Box<sipx_sip::Request>, flow: Flow },
    /// An agent did what it was told, or why not.
    Told { call: u64, id: TellId, done: Result<(), String> },
    /// A call waits at OpenAI under this name; answered whether it is one of these.
    Waiting { call: CallId, assistant: ObjectKey, at: String, reply: oneshot::Sender<bool> },
    /// An agent asks for something in its session.
    Asked { call: u64, leg: LegKey, ask: AskId, wish: Wish },
    /// The session of an agent is of no use, and why.
    AgentFailed { call: u64, leg: LegKey, why: String },
    /// The time for draining is over: every call is told goodbye.
    Cut,
}

pub(super) struct Shard {
    shared: Arc<Shared>,
    number: u8,
    endpoint: Endpoint,
    calls: HashMap<u64, Box<Entry>>,
    legs: HashMap<LegId, (u64, LegKey)>,
    /// Requests that were relayed → where the response goes.
    relayed: BTreeMap<(LegId, RequestId), (LegId, RequestId)>,
    /// Inputs that carrying out an effect gave rise to: taken once the effects before them are carried out.
    pending: VecDeque<(u64, Input)>,
    timers: BTreeSet<(Millis, u64, Timer)>,
    /// The traces of its calls.
    taps: Taps,
    inputs: mpsc::Receiver<ShardInput>,
    self_sender: mpsc::Sender<ShardInput>,
    control: mpsc::Receiver<ControlRequest>,
    started: Instant,
}

impl Shard {
    pub(super) fn new(
        shared: Arc<Shared>,
        number: u8,
        endpoint: Endpoint,
        inputs: (mpsc::Sender<ShardInput>, mpsc::Receiver<ShardInput>),
        control: mpsc::Receiver<ControlRequest>,
    ) -> Self {
        Self {
            shared,
            number,
            endpoint,
            calls: HashMap::new(),
            legs: HashMap::new(),
            relayed: BTreeMap::new(),
            pending: VecDeque::new(),
            timers: BTreeSet::new(),
            taps: Taps::default(),
            inputs: inputs.1,
            self_sender: inputs.0,
            control,
            started: Instant::now(),
        }
    }

    /// Runs until the plane is dropped.
    pub(super) async fn run(mut self) {
        let closing = self.shared.closing.clone();
        loop {
            let due = [self.endpoint.next_timeout(), self.timers.first().map(|(at, ..)| *at)]
                .into_iter()
                .flatten()
                .min();
            let sleep = due.map_or(Duration::from_secs(3600), |at| at.since(self.now()));
            tokio::select! {
                () = closing.cancelled() => return,
                Some(input) = self.inputs.recv() => self.input(input),
                Some(request) = self.control.recv() => self.control(request),
                () = tokio::time::sleep(sleep), if due.is_some() => {}
            }
            for _ in 0..BATCH {
                match self.inputs.try_recv() {
                    Ok(input) => self.input(input),
                    Err(_) => break,
                }
            }
            self.fire_timers();
            self.shared.owing[usize::from(self.number)].store(!self.endpoint.is_idle(), Ordering::Release);
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn input(&mut self, input: ShardInput) {
        let now = self.now();
        match input {
            ShardInput::Message { source, message, flow } => {
                if !self.taps.is_empty() {
                    self.taps.received(&message, source, &self.shared.snapshot.load());
                }
                self.endpoint.set_opening(self.shared.intake.opening());
                self.endpoint.receive_from(source, *message, flow, now);
            }
            ShardInput::TransportFailed(flow) => self.endpoint.transport_failed(flow, now),
            ShardInput::Resolved { call, leg, result } => self.resolved(call, leg, result),
            ShardInput::Unclaimed { request, flow } => self.endpoint.turn_away(*request, flow),
            ShardInput::Told { call, id, done } => self.step(call, Input::Told(id, done), None),
            ShardInput::Waiting { call, assistant, at, reply } => self.waits(call, &assistant, at, reply),
            ShardInput::Asked { call, leg, ask, wish } => {
                self.step(call, Input::Asked { leg, ask, wish }, None);
            }
            ShardInput::AgentFailed { call, leg, why } => {
                self.step(call, Input::AgentFailed { leg, why }, None);
            }
            ShardInput::Cut => {
                for key in self.calls.keys().copied().collect::<Vec<_>>() {
                    let Some(entry) = self.calls.get_mut(&key) else { continue };
                    self.shared.metrics.cut.inc();
                    let effects =
                        entry.call.shut_down("gateway-shut-down", "SIP;cause=503;text=\"Gateway shut down\"");
                    self.carry_out(key, effects, None);
                }
            }
        }
        self.drain();
    }

    fn fire_timers(&mut self) {
        let now = self.now();
        if self.endpoint.next_timeout().is_some_and(|at| at <= now) {
            self.endpoint.handle_timeout(now);
            self.drain();
        }
        while let Some(&(at, key, timer)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(entry) = self.calls.get_mut(&key) {
                entry.timers.remove(&timer);
            }
            self.step(key, Input::Timer(timer), None);
            self.drain();
        }
    }

    /// Carries out what the endpoint wants, until it wants nothing more.
    fn drain(&mut self) {
        loop {
            if let Some((key, input)) = self.pending.pop_front() {
                self.step(key, input, None);
                continue;
            }
            let Some(output) = self.endpoint.poll() else { return };
            match output {
                Output::Transmit { flow, bytes } => {
                    if !self.taps.is_empty() {
                        self.taps.sent(flow, &bytes);
                    }
                    self.shared.sockets.send(flow, bytes);
                }
                Output::Elsewhere { request, flow } if request.method == Method::Cancel => {
                    if let Err(request) = self.shared.sockets.ask_around(request, flow, &self.self_sender) {
                        self.endpoint.turn_away(*request, flow);
                    }
                }
                Output::Elsewhere { request, flow } => {
                    // Calls arrive here as long as somebody's packets are pinned to this pod, which may be for the whole
                    // drain: behind a load balancer the caller has no other pod to turn to.
                    if !self.shared.sockets.hand_on(&request, flow) {
                        self.shared.metrics.refuse("draining");
                        self.endpoint.turn_away(*request, flow);
                    }
                }
                Output::TurnedAway => self.shared.metrics.refuse("overload"),
                Output::Leg(leg, LegEvent::Incoming(incoming)) => self.incoming(leg, *incoming),
                Output::Leg(leg, LegEvent::Response { request, code }) => {
                    if let Some((origin, request)) = self.relayed.remove(&(leg, request)) {
                        self.endpoint.respond(origin, request, passed_on(code, 500), None, self.now());
                    } else if let Some(&(call, key)) = self.legs.get(&leg) {
                        self.step(call, Input::Leg(key, LegEvent::Response { request, code }), None);
                    }
                }
                Output::Leg(leg, event) if self.goes_another_way(leg, &event) => {}
                Output::Leg(leg, event) => {
                    let over = matches!(event, LegEvent::Ended(_) | LegEvent::Refused { .. });
                    let Some(&(call, key)) = self.legs.get(&leg) else { continue };
                    if over {
                        self.nobody_answers(leg);
                        self.legs.remove(&leg);
                        if let Some(entry) = self.calls.get_mut(&call) {
                            entry.legs.remove(&key);
                        }
                    }
                    self.step(call, Input::Leg(key, event), None);
                }
            }
        }
    }

    /// A leg is over: what was passed on to it gets its answer from us, or its sender would wait and take the call for lost.
    fn nobody_answers(&mut self, leg: LegId) {
        let now = self.now();
        let of_leg = (leg, RequestId(0))..=(leg, RequestId(u64::MAX));
        let open: Vec<_> = self.relayed.range(of_leg).map(|(passed_on, sent)| (*passed_on, *sent)).collect();
        for (passed_on, (origin, request)) in open {
            self.relayed.remove(&passed_on);
            let why = "the other side left before it answered";
            self.endpoint.decline(origin, request, 500, why, Some(SOON), now);
        }
    }

    fn incoming(&mut self, leg: LegId, incoming: IncomingCall) {
        if let Some(replaced) = incoming.replaces {
            return self.comes_instead(leg, incoming, replaced);
        }
        let now = self.now();
        let shared = Arc::clone(&self.shared);
        let snapshot = shared.snapshot.load();
        let (answer, place) = match self.admit(&incoming, &snapshot) {
            Ok(admitted) => admitted,
            Err(NotAdmitted { code, headers, why }) => {
                if let Some((label, why)) = why {
                    shared.metrics.refuse(label);
                    tracing::info!(code, "call refused: {why}");
                }
                return self.endpoint.refuse(leg, code, &headers, now);
            }
        };
        // Nobody needs it any more.
        let incoming = IncomingCall { authorization: Vec::new(), ..incoming };
        if !self.endpoint.keep_session(leg, answer.session_timer().into(), now) {
            return shared.metrics.refuse("session-interval");
        }
        if let Some(invite) = self.endpoint.name_of(leg) {
            shared.sockets.took(invite);
        }
        let id = self.new_call();
        tracing::info!(call = %id, number = %answer.object(), trunk = %answer.trunk(), "call came in");
        let start = CallStart { id: id.to_string(), incoming, answer };
        let (call, effects) = Call::start(start, context(now, &snapshot, &shared.lines));
        shared.metrics.calls.inc();
        self.legs.insert(leg, (id.serial, LegKey::Caller));
        self.trace_call(id, leg);
        let legs = BTreeMap::from([(LegKey::Caller, Leg::Live(leg, None))]);
        let entry = Entry { place, ..Entry::new(id, call, legs) };
        self.begin(entry, effects);
    }

    fn new_call(&self) -> CallId {
        CallId { instance: self.shared.instance, shard: self.number, serial: rand::rng().next_u64() }
    }

    fn begin(&mut self, entry: Entry, effects: Vec<Effect>) {
        self.shared.intake.begin();
        let key = entry.id.serial;
        self.calls.insert(key, Box::new(entry));
        self.carry_out(key, effects, None);
    }

    fn control(&mut self, request: ControlRequest) {
        match request {
            ControlRequest::Command { call, command, reply } if self.calls.contains_key(&call.serial) => {
                self.step(call.serial, Input::Command(command), Some(reply));
            }
            ControlRequest::Command { reply, .. } => {
                // Calls that are over are known to the registry only; the one who asked may look there.
                let _ = reply.send(Err(ControlError::NotActive("over")));
            }
            ControlRequest::Test { test, reply } => {
                let _ = reply.send(self.test(&test));
            }
            ControlRequest::Trace { trace, reply } => {
                let _ = reply.send(self.tap(trace));
            }
        }
        self.drain();
    }

    /// One step of one call's machine. A panic in it ends that call, not the shard.
    fn step(&mut self, key: u64, input: Input, reply: Option<oneshot::Sender<Result<(), ControlError>>>) {
        let now = self.now();
        self.end_session(key, &input);
        let Some(entry) = self.calls.get_mut(&key) else { return };
        if let (Some(spans), Input::Leg(leg, event)) = (&mut entry.spans, &input) {
            spans.heard(*leg, event);
        }
        let snapshot = self.shared.snapshot.load();
        let context = context(now, &snapshot, &self.shared.lines);
        let stepped = std::panic::catch_unwind(AssertUnwindSafe(|| entry.call.step(input, context)));
        match stepped {
            Ok(effects) => self.carry_out(key, effects, reply),
            Err(_) => {
                tracing::error!(call = %entry.id, "a fault in the call machine ended this call; please report it");
                self.shared.metrics.faults.inc();
                self.abandon(key);
            }
        }
    }

    fn carry_out(
        &mut self,
        key: u64,
        effects: Vec<Effect>,
        mut reply: Option<oneshot::Sender<Result<(), ControlError>>>,
    ) {
        let now = self.now();
        for effect in effects {
            match effect {
                Effect::Dial(leg, dial) => self.dial(key, leg, dial),
                Effect::Progress(leg, code, body) => {
                    self.on(key, leg, |e, leg| e.progress(leg, code, body, now))
                }
                Effect::Answer(leg, body) => self.on(key, leg, |e, leg| e.answer(leg, body, now)),
                Effect::Refuse(leg, code, reason) => self.refuse(key, leg, code, reason),
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
                Effect::Refer(leg, refer) => self.refer(key, leg, *refer),
                Effect::Tell(tell) => self.tell(key, *tell),
                Effect::Joined { leg, again } => self.joined(key, leg, again),
                Effect::Conclude { leg, ask, conclusion } => self.conclude(key, leg, ask, &conclusion),
                Effect::BecomesCaller(leg) => self.becomes_caller(key, leg),
                Effect::HangUp(leg, reason) => self.hang_up(key, leg, reason),
                Effect::SetTimer(timer, after) => self.set_timer(key, timer, Some(now + after)),
                Effect::ClearTimer(timer) => self.set_timer(key, timer, None),
                Effect::Reply(result) => {
                    if let Some(reply) = reply.take() {
                        let _ = reply.send(result.map_err(refusal));
                    }
                }
                Effect::Record(record) => self.record(key, record),
            }
        }
        self.forget_if_gone(key);
    }

    fn live(&self, key: u64, leg: LegKey) -> Option<LegId> {
        match self.calls.get(&key)?.legs.get(&leg)? {
            Leg::Live(id, _) => Some(*id),
            Leg::Resolving(..) => None,
        }
    }

    fn on(&mut self, key: u64, leg: LegKey, act: impl FnOnce(&mut Endpoint, LegId)) {
        if let Some(id) = self.live(key, leg) {
            act(&mut self.endpoint, id);
        }
    }

    fn refuse(&mut self, key: u64, leg: LegKey, code: u16, reason: &str) {
        let now = self.now();
        self.on(key, leg, |endpoint, id| endpoint.refuse(id, code, &[("Reason", reason.to_owned())], now));
        // The machine doesn't wait for anything from a leg that it refused.
        if let Some(entry) = self.calls.get_mut(&key)
            && let Some(Leg::Live(id, _)) = entry.legs.remove(&leg)
        {
            self.legs.remove(&id);
        }
    }

    fn hang_up(&mut self, key: u64, leg: LegKey, reason: &str) {
        let now = self.now();
        match self.calls.get_mut(&key).and_then(|entry| entry.legs.get(&leg)) {
            Some(Leg::Live(id, _)) => self.endpoint.hang_up(*id, Some(reason), now),
            Some(Leg::Resolving(..)) => {
                // Nothing was sent yet: the look-up's result will find no leg.
                if let Some(entry) = self.calls.get_mut(&key) {
                    entry.legs.remove(&leg);
                }
                self.pending.push_back((key, Input::Leg(leg, LegEvent::Ended(EndedBy::Us))));
            }
            None => {}
        }
    }

    fn refer(&mut self, key: u64, leg: LegKey, refer: Refer) {
        let now = self.now();
        let Some(id) = self.live(key, leg) else { return };
        let Some(entry) = self.calls.get(&key) else { return };
        let Some(credentials) = credentials(&self.shared, refer.credential) else {
            tracing::warn!(call = %entry.id, "a REFER could not be sent: credentials are gone");
            let refused = LegEvent::Response { request: RequestId(0), code: 401 };
            return self.pending.push_back((key, Input::Leg(leg, refused)));
        };
        let host = self.shared.advertised_host(entry.call.transport());
        let referred_by = refer.referred_by.replace("{host}", &host);
        let refer = OutgoingRefer { target: refer.target, referred_by, headers: refer.headers, credentials };
        self.endpoint.refer_away(id, refer, now);
    }

    fn set_timer(&mut self, key: u64, timer: Timer, at: Option<Millis>) {
        let Some(entry) = self.calls.get_mut(&key) else { return };
        if let Some(old) = entry.timers.remove(&timer) {
            self.timers.remove(&(old, key, timer));
        }
        if let Some(at) = at {
            entry.timers.insert(timer, at);
            self.timers.insert((at, key, timer));
        }
    }

    fn record(&mut self, key: u64, record: Record) {
        let Some(entry) = self.calls.get_mut(&key) else { return };
        let Entry { call, view, spans, .. } = &mut **entry;
        // Calls that are over are counted beside those that came in.
        if !(call.is_test() && matches!(record, Record::Ended { .. })) {
            self.shared.metrics.record(&record);
        }
        view.note(&record, call);
        view.publish(call, &self.shared.calls);
        let snapshot = self.shared.snapshot.load();
        let row = call.assistant().and_then(|key| snapshot.index.table().assistants.get(key));
        let destination = match &record {
            Record::TransferEnded(ended) => listed(row, &ended.last.destination),
            _ => "",
        };
        view.log(&record, call.trunk(), destination);
        if let Some(spans) = spans {
            spans.note(&record, destination);
        }
        let Some(assistant) = call.assistant().filter(|_| !call.is_test()) else { return };
        self.shared.assistants.record(assistant, destination, &record, view);
        if row.is_some_and(|row| row.events.is_some()) {
            for message in view.messages(&record) {
                self.shared.events.send(key, assistant, message);
            }
        }
    }

    fn forget_if_gone(&mut self, key: u64) {
        if self.calls.get(&key).is_some_and(|entry| entry.call.is_gone()) {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: u64) {
        let Some(entry) = self.calls.remove(&key) else { return };
        give_back(&mut self.calls);
        if !self.taps.is_empty() {
            self.taps.over(key);
        }
        for (timer, at) in entry.timers {
            self.timers.remove(&(at, key, timer));
        }
        for leg in entry.legs.into_values() {
            if let Leg::Live(id, _) = leg {
                self.legs.remove(&id);
                let of_leg = (id, RequestId(0))..=(id, RequestId(u64::MAX));
                let open: Vec<_> = self.relayed.range(of_leg).map(|(request, _)| *request).collect();
                for request in open {
                    self.relayed.remove(&request);
                }
            }
        }
        give_back(&mut self.legs);
        // Before the call stops counting: its BYEs may still have to be repeated.
        self.shared.owing[usize::from(self.number)].store(true, Ordering::Release);
        self.shared.intake.end();
    }

    /// Gives up a call whose machine failed: every leg is told, nothing is awaited.
    fn abandon(&mut self, key: u64) {
        let now = self.now();
        let Some(entry) = self.calls.get_mut(&key) else { return };
        let legs: Vec<LegId> = entry
            .legs
            .values()
            .filter_map(|leg| match leg {
                Leg::Live(id, _) => Some(*id),
                Leg::Resolving(..) => None,
            })
            .collect();
        let ended = entry.view.fault();
        for leg in legs {
            self.endpoint.hang_up(leg, Some("SIP;cause=500;text=\"Internal fault\""), now);
        }
        if let Some(ended) = ended {
            self.record(key, ended);
        }
        self.forget(key);
    }
}

/// The login that a credential stands for: none for none. `None` for one that is gone: a revoked credential is never used
/// again, and an unauthenticated try would only tell lies.
fn credentials(
    shared: &Shared,
    credential: Option<(CredentialId, Option<String>)>,
) -> Option<Option<Credentials>> {
    let Some((id, realm)) = credential else { return Some(None) };
    let snapshot = shared.snapshot.load();
    match snapshot.credentials.get(&id)? {
        Credential::Login { username, password } => {
            Some(Some(Credentials { username: username.clone(), password: password.clone(), realm }))
        }
        Credential::Signing { .. } | Credential::Certificate { .. } | Credential::Authorities { .. } => None,
    }
}

/// What a step may look at: now.
fn context<'a>(now: Millis, snapshot: &'a Snapshot, lines: &'a Lines) -> Context<'a> {
    Context { now, wall: Timestamp::now(), dice: rand::rng().next_u64(), lines, index: &snapshot.index }
}

/// The name that an assistant lists a destination by. Others, such as a number that the API gave, are nobody's business in logs
/// and metrics.
fn listed<'a>(row: Option<&Arc<AssistantEntry>>, destination: &'a str) -> &'a str {
    if row.is_some_and(|row| row.destinations.contains_key(destination)) { destination } else { OTHER }
}

fn refusal(refusal: CommandRefusal) -> ControlError {
    match refusal {
        CommandRefusal::NotActive => ControlError::NotActive("not in progress"),
        CommandRefusal::TransferUnderWay => ControlError::TransferUnderWay,
        CommandRefusal::Ending => ControlError::Ending,
        CommandRefusal::Untold(untold) => ControlError::Untold(untold),
        CommandRefusal::Refused(refusal) => ControlError::Refused(refusal),
    }
}
