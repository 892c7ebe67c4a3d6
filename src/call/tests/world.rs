//! A world around one call: legs that behave as the SIP endpoint promises, timers, and a record of what was said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

pub(super) use super::tables::*;

use crate::call::{
    AskId, Call, CallStart, Command, CommandRefusal, Conclusion, Context, Dial, Effect, Input, LegKey,
    Message, Record, Refer, Tell, TellId, Telling, Timer, Wish,
};
use crate::routing::decide::{Index, Limit, Lines, TransferRefusal, Wanted};
use crate::routing::table::*;
use crate::sip::event::*;
use crate::sip::replaces::Replaces;
use crate::sip::time::Millis;

/// What a leg is in, as the endpoint would know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The caller's INVITE waits for us, or ours for the party.
    Calling,
    Ringing,
    Answered,
    /// We hung up and wait for the other side's goodbye.
    HungUp,
    Over,
}

#[derive(Clone, Debug)]
pub(super) struct FakeLeg {
    pub(super) state: State,
    /// Re-INVITEs of ours that wait for an answer; the body that was offered.
    pub(super) reoffers: Vec<Option<Body>>,
    /// Requests of the peer that wait for our answer.
    pub(super) requests: BTreeSet<RequestId>,
    /// Its re-INVITE that waits for our answer.
    pub(super) changing: Option<RequestId>,
    /// Bodies that the leg was shown, in order.
    pub(super) shown: Vec<Option<Body>>,
    pub(super) dial: Option<Dial>,
    pub(super) acked: bool,
    /// It called without an offer: its ACK brings the answer to ours.
    pub(super) offerless: bool,
    /// Bodies of provisional responses to the leg's INVITE.
    pub(super) early: Vec<Option<Body>>,
    /// The Reason that it was hung up with.
    pub(super) farewell: Option<&'static str>,
    /// Our REFERs, and whether the last one's outcome is awaited.
    pub(super) referrals: Vec<Refer>,
    pub(super) referred: bool,
    /// NOTIFYs by the REFER that they are about: status code, and whether it is the last.
    pub(super) notified: BTreeMap<RequestId, Vec<(u16, bool)>>,
}

impl FakeLeg {
    fn new(dial: Option<Dial>) -> Self {
        Self {
            state: State::Calling,
            reoffers: Vec::new(),
            requests: BTreeSet::new(),
            changing: None,
            shown: Vec::new(),
            dial,
            acked: false,
            offerless: false,
            early: Vec::new(),
            farewell: None,
            referrals: Vec::new(),
            referred: false,
            notified: BTreeMap::new(),
        }
    }
}

pub(super) struct World {
    pub(super) call: Call,
    pub(super) index: Index,
    pub(super) now: Millis,
    pub(super) legs: BTreeMap<LegKey, FakeLeg>,
    pub(super) timers: BTreeMap<Timer, Millis>,
    pub(super) records: Vec<Record>,
    pub(super) replies: Vec<Result<(), CommandRefusal>>,
    pub(super) responses: Vec<(LegKey, RequestId, u16)>,
    /// What is said to those whose request was declined: the sentence, and when it may be granted.
    pub(super) declined: Vec<(String, Option<u32>)>,
    pub(super) carried: Carried,
    /// Requests that were passed on: from, to, method.
    pub(super) relayed: Vec<(LegKey, LegKey, String)>,
    /// What the agent was told.
    pub(super) tells: Vec<Tell>,
    /// What a transfer waits for: nobody may be dialled before it was heard, or can't be.
    pub(super) saying: Option<TellId>,
    /// What the end waits for.
    pub(super) farewell: Option<TellId>,
    /// Who says the one or the other.
    spoken_by: Option<LegKey>,
    /// What became of what an agent asked for.
    pub(super) conclusions: Vec<(LegKey, AskId, Conclusion)>,
    /// Agents that the caller heard, and whether one was there before.
    pub(super) joined: Vec<(LegKey, bool)>,
    next_request: u64,
}

pub(super) const CALLER: LegKey = LegKey::Caller;
pub(super) const AGENT: LegKey = LegKey::Dialled(0);
pub(super) const HUMAN: LegKey = LegKey::Dialled(1);

pub(super) fn sdp(name: &str) -> Option<Body> {
    Some(Body::sdp(
        format!(
            "v=0\r\no={name} 1 1 IN IP4 192.0.2.1\r\ns=-\r\nm=audio 4000 RTP/AVP 0\r\na=x-name:{name}\r\n"
        )
        .into_bytes(),
    ))
}

pub(super) fn accepted(name: &str) -> LegEvent {
    LegEvent::ReofferAccepted { body: sdp(name) }
}

pub(super) fn refused(code: u16) -> LegEvent {
    LegEvent::Refused { code, reason: "No".into(), by: RefusedBy::Response }
}

/// Whose media a body describes.
pub(super) fn whose(body: &Option<Body>) -> String {
    let text = body.as_ref().map(|body| String::from_utf8(body.bytes.to_vec()).unwrap()).unwrap_or_default();
    text.split("a=x-name:").nth(1).and_then(|rest| rest.lines().next()).unwrap_or("nobody").to_owned()
}

/// An INVITE of the caller's trunk.
fn invite() -> IncomingCall {
    let peer = "203.0.113.5:5060".parse().unwrap();
    IncomingCall {
        flow: Flow { transport: Transport::Udp, peer },
        called: "+31201234567".into(),
        from: Party { display: "Ann".into(), user: "+31687654321".into(), host: "carrier.example".into() },
        to: Party::default(),
        asserted: None,
        privacy: false,
        max_forwards: 70,
        call_id: "a".into(),
        authorization: Vec::new(),
        identity: Vec::new(),
        date: None,
        headers: Vec::new(),
        reliability: Reliability::Unknown,
        replaces: None,
        offer: sdp("caller"),
    }
}

/// The clock on the wall began on a Monday, 10:00 in Amsterdam.
fn context<'a>(now: Millis, index: &'a Index, carried: &'a Carried) -> Context<'a> {
    let wall = 1_767_603_600_000 + i64::try_from(now.0).unwrap();
    Context { now, wall: Timestamp::from_millisecond(wall).unwrap(), dice: 0, lines: carried, index }
}

/// What trunks carry: too much, perhaps.
#[derive(Clone, Copy, Default)]
pub(super) struct Carried(pub(super) Option<Limit>);

impl Lines for Carried {
    fn full(&self, _: &ObjectKey, _: Limits) -> Option<Limit> {
        self.0
    }
}

impl World {
    /// A call that just came in: the agent's first address is being dialled.
    pub(super) fn new() -> Self {
        Self::with(table(false), sdp("caller"))
    }

    pub(super) fn with(table: Table, offer: Option<Body>) -> Self {
        Self::called(table, |incoming| incoming.offer = offer)
    }

    /// A call that came in otherwise.
    pub(super) fn called(table: Table, change: impl FnOnce(&mut IncomingCall)) -> Self {
        let index = Index::new(Arc::new(table));
        let mut incoming = invite();
        change(&mut incoming);
        let answer = index.who_answers(incoming.flow.peer.ip(), &incoming.called).unwrap();
        let now = Millis(1_000);
        let (call, effects) = Call::start(
            CallStart { id: "call_1".into(), incoming, answer },
            context(now, &index, &Carried::default()),
        );
        Self::around(call, effects, index, now)
    }

    /// A destination that is tested.
    pub(super) fn testing(table: Table, destination: &str) -> Result<Self, TransferRefusal> {
        let index = Index::new(Arc::new(table));
        let answer = index.test(destination, None, None).expect("it is somebody's");
        let number = Some(answer.number().to_string());
        let incoming = IncomingCall { asserted: number, ..invite() };
        let now = Millis(1_000);
        let start = CallStart { id: "call_1".into(), incoming, answer };
        let (call, effects) = Call::test(start, destination, context(now, &index, &Carried::default()))?;
        let mut world = Self::around(call, Vec::new(), index, now);
        world.legs.clear();
        world.carry_out(effects);
        Ok(world)
    }

    fn around(call: Call, effects: Vec<Effect>, index: Index, now: Millis) -> Self {
        let mut world = Self {
            call,
            index,
            now,
            legs: BTreeMap::from([(CALLER, FakeLeg::new(None))]),
            timers: BTreeMap::new(),
            records: Vec::new(),
            replies: Vec::new(),
            responses: Vec::new(),
            declined: Vec::new(),
            carried: Carried::default(),
            relayed: Vec::new(),
            tells: Vec::new(),
            saying: None,
            farewell: None,
            spoken_by: None,
            conclusions: Vec::new(),
            joined: Vec::new(),
            next_request: 1,
        };
        world.carry_out(effects);
        world
    }

    /// A call that the agent answered.
    pub(super) fn answered() -> Self {
        Self::answered_with(table(false))
    }

    pub(super) fn answered_with(table: Table) -> Self {
        let mut world = Self::with(table, sdp("caller"));
        world.on(AGENT, LegEvent::Answered { body: sdp("agent") });
        world.on(CALLER, LegEvent::Acked { body: None });
        world
    }

    /// A call whose transfer to sales is ringing, asked for by REFER.
    pub(super) fn ringing() -> Self {
        let mut world = Self::answered();
        world.refer(AGENT, "sales");
        world.on(HUMAN, LegEvent::Progress { code: 180, body: None });
        world
    }

    /// A transfer whose human answered: the caller is being moved.
    pub(super) fn moving() -> Self {
        let mut world = Self::ringing();
        world.on(HUMAN, LegEvent::Answered { body: sdp("human") });
        world
    }

    pub(super) fn on(&mut self, leg: LegKey, event: LegEvent) {
        let fake = self.legs.get_mut(&leg).unwrap_or_else(|| panic!("no leg {leg:?}"));
        match &event {
            LegEvent::Progress { .. } => fake.state = State::Ringing,
            LegEvent::Answered { .. } => fake.state = State::Answered,
            LegEvent::Acked { .. } => fake.acked = true,
            LegEvent::ReofferAccepted { .. } => {
                fake.reoffers.remove(0);
            }
            LegEvent::ReofferRefused { .. } => {
                // What was refused does not count as heard.
                let refused = fake.reoffers.remove(0);
                let at = fake.shown.iter().rposition(|shown| *shown == refused);
                at.map(|at| fake.shown.remove(at));
            }
            LegEvent::Withdrawn { request } => {
                assert!(fake.requests.remove(request), "{request:?} was answered already");
                fake.changing = None;
            }
            LegEvent::Reoffer { request, .. }
            | LegEvent::Refer { request, .. }
            | LegEvent::Request { request, .. } => {
                fake.requests.insert(*request);
                if matches!(event, LegEvent::Reoffer { .. }) {
                    fake.changing = Some(*request);
                }
            }
            LegEvent::Response { code: 300.., .. }
            | LegEvent::Referred { ended: true, .. }
            | LegEvent::Referred { code: Some(200..), .. } => fake.referred = false,
            LegEvent::Ended(_) | LegEvent::Refused { .. } => {
                fake.referred = false;
                fake.state = State::Over;
                fake.requests.clear();
                fake.reoffers.clear();
            }
            _ => {}
        }
        self.input(Input::Leg(leg, event));
    }

    /// Another phone calls to take the place of a leg; returns its own.
    pub(super) fn replace(&mut self, old: LegKey, offer: Option<Body>) -> LegKey {
        let new = self.call.new_leg();
        let leg = FakeLeg { offerless: offer.is_none(), ..FakeLeg::new(None) };
        assert!(self.legs.insert(new, leg).is_none());
        let from = Party { user: "+31612340000".into(), ..Party::default() };
        self.input(Input::Replaces {
            new,
            old,
            incoming: Box::new(IncomingCall { from, offer, ..invite() }),
        });
        new
    }

    pub(super) fn refer(&mut self, leg: LegKey, user: &str) -> RequestId {
        self.refer_replacing(leg, user, None)
    }

    /// The same with the dialog that the call is to replace.
    pub(super) fn refer_replacing(&mut self, leg: LegKey, user: &str, replaces: Option<&str>) -> RequestId {
        let request = self.request_id();
        let target = ReferTarget {
            scheme: "sip".into(),
            user: user.into(),
            host: "gateway".into(),
            uri: format!("sip:{user}@gateway"),
            replaces: replaces.map(|value| Replaces::parse(value.as_bytes()).unwrap()),
        };
        self.on(leg, LegEvent::Refer { request, target: Box::new(target), referred_by: None });
        request
    }

    pub(super) fn request_id(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    pub(super) fn transfer(&mut self, name: &str) {
        self.transfer_with(name, None);
    }

    pub(super) fn transfer_with(&mut self, name: &str, message: Option<&str>) {
        let (wanted, message) = (Wanted::Name(name.into()), message.map(str::to_owned));
        self.input(Input::Command(Command::Transfer { wanted, message }));
    }

    pub(super) fn say(&mut self, content: &str, end_after: bool) {
        self.input(Input::Command(Command::Say { content: content.into(), end_after }));
    }

    pub(super) fn end(&mut self, message: Option<&str>) {
        self.input(Input::Command(Command::End { message: message.map(str::to_owned) }));
    }

    /// The agent asks for a transfer by a tool.
    pub(super) fn ask(&mut self, leg: LegKey, name: &str) -> AskId {
        self.next_request += 1;
        let ask = AskId(u32::try_from(self.next_request).unwrap());
        let wish = Wish::Transfer { wanted: Wanted::Name(name.into()), message: None };
        self.input(Input::Asked { leg, ask, wish });
        ask
    }

    /// The driver gives an agent up. Its leg is hung up if it is there, and is nobody's any more.
    pub(super) fn fail_agent(&mut self, leg: LegKey) {
        self.input(Input::AgentFailed { leg, why: "the key was refused".into() });
    }

    /// The agent answers about the last thing that it was told.
    pub(super) fn told(&mut self, done: Result<(), &str>) {
        let id = self.tells.last().expect("nothing was told").id;
        self.input(Input::Told(id, done.map_err(str::to_owned)));
    }

    /// What the agent was told to say, in order.
    pub(super) fn says(&self) -> Vec<&str> {
        let said = self.tells.iter().filter_map(|tell| match &tell.what {
            Telling::Say { content, .. } => Some(content.as_str()),
            Telling::Context { .. } => None,
        });
        said.collect()
    }

    /// What became of what an agent asked for by tools, in words.
    pub(super) fn concluded(&self) -> Vec<(AskId, String)> {
        let word = |conclusion: &Conclusion| match conclusion {
            Conclusion::Refused(refusal) => refusal.to_string(),
            Conclusion::Ended(record) => record.last.outcome.as_str().to_owned(),
        };
        self.conclusions.iter().map(|(_, ask, conclusion)| (*ask, word(conclusion))).collect()
    }

    pub(super) fn input(&mut self, input: Input) {
        // What ends a message: it was heard or not, it takes too long, whoever says it or hears it is gone. A goodbye takes
        // its place.
        let ends = match &input {
            Input::Told(id, _) => self.saying == Some(*id),
            Input::Timer(Timer::Message) => true,
            Input::Leg(leg, LegEvent::Ended(_)) => *leg == CALLER || self.spoken_by == Some(*leg),
            Input::AgentFailed { leg, .. } => self.spoken_by == Some(*leg),
            Input::Command(Command::End { message: Some(_) }) => true,
            _ => false,
        };
        self.saying.take_if(|_| ends);
        let effects = self.call.step(input, context(self.now, &self.index, &self.carried));
        // The end of the call ends it, whatever brought that about.
        self.saying.take_if(|_| self.call.end_reason().is_some());
        self.farewell.take_if(|_| self.call.end_reason().is_some());
        self.carry_out(effects);
    }

    /// Lets time pass until the timer fires.
    pub(super) fn fire(&mut self, timer: Timer) {
        let at = self.timers.remove(&timer).unwrap_or_else(|| panic!("{timer:?} is not set"));
        self.now = self.now.max(at);
        self.input(Input::Timer(timer));
    }

    /// The gateway is at the end of its drain.
    pub(super) fn shut_down(&mut self) {
        let effects = self.call.shut_down("gateway-shut-down", "SIP;cause=503");
        self.carry_out(effects);
    }

    /// Carries effects out, and complains about those that no endpoint could.
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Dial(key, dial) => {
                    assert_eq!(self.saying, None, "{key:?} is dialled over the message");
                    assert_eq!(self.farewell, None, "{key:?} is dialled over the goodbye");
                    let mut leg = FakeLeg::new(Some((*dial).clone()));
                    leg.shown.push(dial.offer.clone());
                    assert!(self.legs.insert(key, leg).is_none(), "{key:?} is dialled twice");
                }
                Effect::Progress(key, _, body) => {
                    assert_eq!(self.leg(key).state, State::Calling, "progress on {key:?}");
                    self.leg(key).early.push(body);
                }
                Effect::Answer(key, body) => {
                    let leg = self.leg(key);
                    assert_eq!(leg.state, State::Calling, "{key:?} is answered twice");
                    leg.state = State::Answered;
                    leg.shown.push(body);
                }
                Effect::Refuse(key, ..) => {
                    assert_eq!(self.leg(key).state, State::Calling, "{key:?} is refused after its answer");
                    self.leg(key).state = State::Over;
                }
                Effect::Ack(key, body) => self.leg(key).shown.push(body),
                Effect::Reoffer(key, body) | Effect::PassOn(key, body) => {
                    let leg = self.leg(key);
                    assert_eq!(leg.state, State::Answered, "re-INVITE on {key:?}");
                    leg.shown.push(body.clone());
                    leg.reoffers.push(body);
                }
                Effect::Respond(key, request, code, body) => {
                    let leg = self.leg(key);
                    if leg.state != State::Over {
                        assert!(leg.requests.remove(&request), "{request:?} on {key:?} is answered twice");
                        leg.changing.take_if(|changing| *changing == request);
                        if body.is_some() {
                            leg.shown.push(body);
                        }
                        self.responses.push((key, request, code));
                    }
                }
                Effect::Decline { leg: key, request, code, why, retry_after } => {
                    let leg = self.leg(key);
                    assert_ne!(leg.state, State::Over);
                    assert!(leg.requests.remove(&request), "{request:?} on {key:?} is answered twice");
                    self.responses.push((key, request, code));
                    self.declined.push((why, retry_after));
                }
                Effect::Notify { leg, request, code, last, .. } => {
                    assert!(!matches!(self.leg(leg).state, State::HungUp | State::Over), "NOTIFY on {leg:?}");
                    let notified = self.leg(leg).notified.entry(request).or_default();
                    assert!(!notified.iter().any(|(_, last)| *last), "NOTIFY after the last one");
                    notified.push((code, last));
                }
                Effect::Relay { from, request, to, method, .. } => {
                    assert_eq!(self.leg(to).state, State::Answered);
                    self.relayed.push((from, to, method));
                    assert!(self.leg(from).requests.remove(&request));
                }
                Effect::Tell(tell) => self.tell(*tell),
                Effect::Joined { leg, again } => self.joined.push((leg, again)),
                Effect::Conclude { leg, ask, conclusion } => {
                    assert!(
                        !matches!(self.leg(leg).state, State::HungUp | State::Over),
                        "{ask:?} is concluded"
                    );
                    assert!(self.conclusions.iter().all(|(_, before, _)| *before != ask), "{ask:?} twice");
                    self.conclusions.push((leg, ask, conclusion));
                }
                Effect::Refer(key, refer) => {
                    assert_eq!(self.saying, None, "{key:?} is referred over the message");
                    let leg = self.leg(key);
                    assert_eq!(leg.state, State::Answered, "REFER on {key:?}");
                    assert!(!leg.referred, "one REFER at a time");
                    leg.referrals.push(*refer);
                    leg.referred = true;
                }
                Effect::BecomesCaller(key) => {
                    let new = self.legs.remove(&key).unwrap_or_else(|| panic!("no leg {key:?}"));
                    assert_eq!(new.state, State::Answered, "{key:?} has no answer");
                    let old = self.legs.insert(CALLER, new);
                    self.legs.extend(old.map(|old| (key, old)));
                }
                Effect::HangUp(key, reason) => {
                    let leg = self.leg(key);
                    assert!(!matches!(leg.state, State::HungUp | State::Over), "{key:?} is hung up twice");
                    leg.state = State::HungUp;
                    leg.farewell = Some(reason);
                }
                Effect::SetTimer(timer, after) => {
                    self.timers.insert(timer, self.now + after);
                }
                Effect::ClearTimer(timer) => {
                    self.timers.remove(&timer);
                }
                Effect::Reply(result) => self.replies.push(result),
                Effect::Record(record) => self.records.push(record),
            }
        }
    }

    fn tell(&mut self, tell: Tell) {
        // The caller talks with the party that was dialled last of those that are there.
        let there = |(key, leg): (&LegKey, &FakeLeg)| {
            (*key != CALLER && leg.state == State::Answered).then_some(*key)
        };
        assert!(self.legs.iter().any(|leg| there(leg) == Some(tell.leg)), "nobody is there to be told");
        assert!(self.tells.last().is_none_or(|before| before.id < tell.id), "numbers count up");
        match &tell.what {
            Telling::Say { end_after: true, .. } => {
                assert_eq!(self.farewell, None, "one goodbye");
                (self.farewell, self.spoken_by) = (Some(tell.id), Some(tell.leg));
            }
            // Only what a transfer waits for holds anything up.
            _ if self.call.is_announcing(tell.id) => {
                assert_eq!(self.saying, None, "one message at a time");
                (self.saying, self.spoken_by) = (Some(tell.id), Some(tell.leg));
            }
            _ => {}
        }
        self.tells.push(tell);
    }

    pub(super) fn leg(&mut self, key: LegKey) -> &mut FakeLeg {
        self.legs.get_mut(&key).unwrap_or_else(|| panic!("no leg {key:?}"))
    }

    pub(super) fn state(&self, key: LegKey) -> State {
        self.legs[&key].state
    }

    /// What the leg was shown last.
    pub(super) fn hears(&self, key: LegKey) -> String {
        self.legs[&key].shown.last().map(whose).unwrap_or_else(|| "nobody".into())
    }

    /// Outcomes of the transfers so far.
    pub(super) fn outcomes(&self) -> Vec<&'static str> {
        self.records
            .iter()
            .filter_map(|record| match record {
                Record::TransferEnded(ended) => Some(ended.last.outcome.as_str()),
                _ => None,
            })
            .collect()
    }

    /// What was tried in the last transfer: whom, and what became of it.
    pub(super) fn tries(&self) -> Vec<(String, &'static str)> {
        let ended = self.records.iter().rev().find_map(|record| match record {
            Record::TransferEnded(ended) => Some(ended),
            _ => None,
        });
        let tries = ended.into_iter().flat_map(|ended| ended.tries());
        tries.map(|tried| (tried.destination.clone(), tried.outcome.as_str())).collect()
    }

    /// What became of the messages of the last transfer, in order.
    pub(super) fn messages(&self) -> Vec<Option<Message>> {
        let ended = self.records.iter().rev().find_map(|record| match record {
            Record::TransferEnded(ended) => Some(ended),
            _ => None,
        });
        let tries = ended.into_iter().flat_map(|ended| ended.tries());
        tries.map(|tried| tried.message.clone()).collect()
    }

    /// The NOTIFYs about the leg's last REFER.
    pub(super) fn notified(&self, key: LegKey) -> Vec<(u16, bool)> {
        self.legs[&key].notified.values().last().cloned().unwrap_or_default()
    }

    /// Every leg that was hung up says goodbye; the call must be gone then.
    pub(super) fn settle(&mut self) {
        let hung_up: Vec<_> =
            self.legs.iter().filter(|(_, leg)| leg.state == State::HungUp).map(|(key, _)| *key).collect();
        for key in hung_up {
            self.on(key, LegEvent::Ended(EndedBy::Us));
        }
    }
}
