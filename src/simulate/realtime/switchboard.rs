//! Who owns the calls: everything that happens to one comes here, one after the other.
//!
//! ```text
//! SIP (phone) ─┐                        ┌─▶ SIP: ringing, 200, refusals, BYE
//! REST, WebSocket (rest) ─┼─▶ switchboard ─┼─▶ the webhook
//! time, orders ┘          (conversation) └─▶ WebSockets
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::conversation::{Conversation, Effect, Tick};
use super::journal::{Journal, What};
use super::rest::{Asked, Outgoing};
use super::script::{CallScript, Fault, Line, Script, Step};
use super::webhook::{self, Delivery, Webhook};
use crate::simulate::phone::{Happening, Phone};
use crate::simulate::sdp::Audio;
use crate::simulate::{SimulateError, in_words};
use crate::sip::event::{Body, EndedBy, Flow, IncomingCall, LegEvent, LegId};
use wire::{Met, edited, meet};

/// How long a call that is over is still known in the journal.
const REMEMBERED: Duration = Duration::from_secs(30);

mod requests;
mod wire;

/// What the double's owner wants.
#[derive(Debug)]
pub(super) enum Order {
    Script(Box<Script>),
    ApiKey(String),
    WebhookUrl(String),
    Act(String, Box<Step>),
    Stop,
}

/// See the module.
pub(super) struct Switchboard {
    project: String,
    api_key: String,
    script: Script,
    webhook: Webhook,
    phone: Phone<Timer>,
    journal: Journal,
    calls: BTreeMap<String, Call>,
    legs: HashMap<LegId, String>,
    met: Arc<Mutex<Vec<Met>>>,
    line: Arc<Mutex<Line>>,
    sockets: u64,
    deliveries: JoinSet<()>,
    attempts: (mpsc::UnboundedSender<Attempt>, mpsc::UnboundedReceiver<Attempt>),
}

/// An attempt to send an event.
struct Attempt {
    call: String,
    id: String,
    attempt: u32,
    status: Option<u16>,
}

/// What is done later.
pub(super) struct Timer {
    call: String,
    due: Due,
}

enum Due {
    /// Tell the webhook.
    Webhook,
    /// It's too late to accept.
    TooLate,
    /// Answer the INVITE.
    Answer,
    /// Something in the conversation.
    Tick(Tick),
    /// The session has lasted too long.
    Expire,
    /// Nobody needs to know of it any more.
    Forget,
}

/// One call.
struct Call {
    leg: LegId,
    flow: Flow,
    sip_call_id: String,
    /// What people know it by.
    name: String,
    headers: Vec<(String, String)>,
    offer: Vec<u8>,
    script: CallScript,
    phase: Phase,
    conversation: Option<Conversation>,
    sockets: Vec<(u64, mpsc::Sender<Outgoing>)>,
    /// WebSockets that there were.
    joined: usize,
    /// Requests so far, by verb.
    attempts: HashMap<String, usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody has accepted or rejected it.
    Undecided,
    /// It is accepted, and not answered yet.
    Accepted,
    /// Its INVITE is answered.
    Answered,
    /// The caller is gone without anybody here knowing: it can be accepted still, and talks to nobody.
    Orphan,
    /// It is over.
    Over,
}

impl Switchboard {
    pub(super) fn new(
        mut phone: Phone<Timer>,
        journal: Journal,
        project: String,
        api_key: String,
        webhook: Webhook,
        script: Script,
    ) -> Self {
        let met = Arc::new(Mutex::new(Vec::new()));
        let line = Arc::new(Mutex::new(script.line));
        let (seen, habits) = (Arc::clone(&met), Arc::clone(&line));
        phone.set_guard(Box::new(move |message| {
            locked(&seen).extend(meet(message));
            None
        }));
        phone.set_editor(Box::new(move |bytes| edited(bytes, *locked(&habits))));
        Self {
            project,
            api_key,
            script,
            webhook,
            phone,
            journal,
            calls: BTreeMap::new(),
            legs: HashMap::new(),
            met,
            line,
            sockets: 0,
            deliveries: JoinSet::new(),
            attempts: mpsc::unbounded_channel(),
        }
    }

    /// Serves until it is told to stop, or SIP fails.
    pub(super) async fn run(
        mut self,
        mut asked: mpsc::Receiver<Asked>,
        mut orders: mpsc::UnboundedReceiver<Order>,
    ) -> Result<(), SimulateError> {
        loop {
            tokio::select! {
                happening = self.phone.next() => {
                    let happening = happening?;
                    self.happened(happening);
                }
                Some(asked) = asked.recv() => self.asked(asked),
                order = orders.recv() => match order {
                    Some(Order::Stop) | None => break,
                    Some(order) => self.ordered(order),
                },
                Some(Attempt { call, id, attempt, status }) = self.attempts.1.recv() => {
                    self.note(&call, What::Webhook { id, attempt, status });
                }
                Some(_) = self.deliveries.join_next() => {}
            }
        }
        self.phone.put_away(self.legs.into_keys()).await
    }

    fn ordered(&mut self, order: Order) {
        match order {
            Order::Script(script) => {
                *locked(&self.line) = script.line;
                self.script = *script;
            }
            Order::ApiKey(key) => self.api_key = key,
            Order::WebhookUrl(url) => self.webhook.set_url(url),
            Order::Act(call, step) => self.converse(&call, |conversation| conversation.act(*step)),
            Order::Stop => {}
        }
    }

    fn happened(&mut self, happening: Happening<Timer>) {
        let mut met = std::mem::take(&mut *locked(&self.met));
        match happening {
            Happening::Leg(leg, LegEvent::Incoming(call)) => {
                let of_it = |met: &mut Met| met.sip_call_id == call.call_id && met.headers.is_some();
                let headers = met.extract_if(.., of_it).next().and_then(|met| met.headers);
                self.called(leg, *call, headers.unwrap_or_default());
                self.note_requests(met);
            }
            Happening::Leg(leg, event) => {
                self.note_requests(met);
                self.on_leg(leg, event);
            }
            Happening::Timer(Timer { call, due }) => {
                self.note_requests(met);
                self.due(&call, due);
            }
        }
    }

    fn note_requests(&self, met: Vec<Met>) {
        for Met { method, sip_call_id, .. } in met {
            if let Some((id, _)) = self.calls.iter().find(|(_, call)| call.sip_call_id == sip_call_id) {
                self.note(id, What::Request { method });
            }
        }
    }

    fn called(&mut self, leg: LegId, call: IncomingCall, headers: Vec<(String, String)>) {
        let id = format!("rtc_u0_{:024x}", rand::random::<u128>() >> 32);
        let script = self.script.of_call(&headers);
        let offer = call.offer.map(|offer| offer.bytes.to_vec()).unwrap_or_default();
        let name = named(&headers, "X-VoiceDock-Call-Id").unwrap_or(&call.call_id).to_owned();
        let invited =
            What::Invited { headers: headers.clone(), offer: String::from_utf8_lossy(&offer).into_owned() };
        let wrong = self.objection(&call.called, &offer);
        let made = Call {
            leg,
            flow: call.flow,
            sip_call_id: call.call_id,
            name,
            headers,
            offer,
            phase: Phase::Undecided,
            conversation: None,
            sockets: Vec::new(),
            joined: 0,
            attempts: HashMap::new(),
            script: script.clone(),
        };
        self.calls.insert(id.clone(), made);
        self.legs.insert(leg, id.clone());
        self.note(&id, invited);
        if let Some((code, why)) = wrong {
            self.note(&id, What::Wrong(why));
            return self.refuse(&id, code);
        }
        if let Some(code) = script.invite.refuse {
            return self.refuse(&id, code);
        }
        let now = self.phone.now();
        for code in script.invite.ring {
            self.phone.endpoint.progress(leg, code, None, now);
        }
        self.later(&id, script.invite.accept_within.0, Due::TooLate);
        if !script.webhook.skip {
            self.later(&id, script.webhook.after.0, Due::Webhook);
        }
    }

    /// Why an INVITE isn't taken.
    fn objection(&self, called: &str, offer: &[u8]) -> Option<(u16, String)> {
        if called != self.project {
            return Some((404, format!("the INVITE is for '{called}', the project is '{}'", self.project)));
        }
        if self.audio(LegId(0), 0).answer(offer).is_none() {
            return Some((488, "the INVITE offers neither PCMU nor PCMA".to_owned()));
        }
        None
    }

    fn on_leg(&mut self, leg: LegId, event: LegEvent) {
        let Some(id) = self.legs.get(&leg).cloned() else { return };
        let now = self.phone.now();
        match event {
            LegEvent::Reoffer { request, body } => {
                let code = self.calls.get(&id).map_or(481, |call| call.script.invite.reoffer);
                let answer = match (code, &body) {
                    (200, Some(offer)) => self.audio(leg, 2).answer(&offer.bytes),
                    (200, None) => Some(self.audio(leg, 2).offer()),
                    _ => None,
                };
                if code != 0 {
                    self.phone.endpoint.respond(leg, request, code, answer, now);
                }
            }
            LegEvent::Request { request, .. } => self.phone.endpoint.respond(leg, request, 200, None, now),
            LegEvent::Refer { request, .. } => self.phone.endpoint.respond(leg, request, 603, None, now),
            LegEvent::Ended(by) => {
                let cancelled = by == EndedBy::Cancel;
                let why = match by {
                    EndedBy::Bye(Some(reason)) => format!("is hung up on: {}", in_words(&reason)),
                    EndedBy::Bye(None) => "is hung up on".to_owned(),
                    EndedBy::Cancel => "is no longer called (CANCEL)".to_owned(),
                    EndedBy::Timeout | EndedBy::Expired => "has lost the other side".to_owned(),
                    EndedBy::Us => return,
                };
                self.legs.remove(&leg);
                self.note(&id, What::Ended(why));
                self.over(&id);
                if let Some(call) = self.calls.get_mut(&id)
                    && cancelled
                {
                    call.phase = Phase::Orphan;
                }
            }
            _ => {}
        }
    }

    fn audio(&self, leg: LegId, version: u64) -> Audio {
        Audio { name: "OAI".into(), address: self.phone.address(), port: 20_000, session: leg.0, version }
    }

    fn due(&mut self, id: &str, due: Due) {
        let Some(call) = self.calls.get(id) else { return };
        match (due, call.phase) {
            (Due::Webhook, _) => self.tell_webhook(id),
            (Due::TooLate, Phase::Undecided) => self.refuse(id, 400),
            (Due::Answer, Phase::Accepted) => self.answer(id),
            (Due::Tick(tick), _) => self.converse(id, |conversation| conversation.tick(tick)),
            (Due::Expire, Phase::Answered) => {
                self.converse(id, Conversation::expire);
                self.hang_up(id);
            }
            (Due::Forget, Phase::Over | Phase::Orphan) => drop(self.calls.remove(id)),
            _ => {}
        }
    }

    fn tell_webhook(&mut self, id: &str) {
        let Some(call) = self.calls.get(id) else { return };
        let event = format!("evt_{:024x}", rand::random::<u128>() >> 32);
        let body = webhook::incoming(&event, id, &call.headers, Timestamp::now().as_second());
        let delivery = Delivery {
            id: format!("wh_{:024x}", rand::random::<u128>() >> 32),
            body: body.to_string().into_bytes(),
            signature: call.script.webhook.signature,
            age: call.script.webhook.age.0,
        };
        for _ in 0..call.script.webhook.copies {
            let (webhook, delivery, call) = (self.webhook.clone(), delivery.clone(), id.to_owned());
            let attempts = self.attempts.0.clone();
            self.deliveries.spawn(async move {
                let id = delivery.id.clone();
                webhook
                    .deliver(delivery, |attempt, status| {
                        let (call, id) = (call.clone(), id.clone());
                        // Nobody is interested if the double is gone.
                        let _ = attempts.send(Attempt { call, id, attempt, status });
                    })
                    .await;
            });
        }
    }

    fn answer(&mut self, id: &str) {
        let Some(call) = self.calls.get(id) else { return };
        let (leg, lasts) = (call.leg, call.script.lasts.0);
        let answer: Option<Body> = self.audio(leg, 0).answer(&call.offer);
        let now = self.phone.now();
        self.phone.endpoint.answer(leg, answer, now);
        if let Some(call) = self.calls.get_mut(id) {
            call.phase = Phase::Answered;
        }
        self.note(id, What::Answered);
        self.later(id, lasts, Due::Expire);
    }

    fn refuse(&mut self, id: &str, code: u16) {
        let Some(call) = self.calls.get(id) else { return };
        let (leg, now) = (call.leg, self.phone.now());
        self.phone.endpoint.refuse(leg, code, &[], now);
        self.legs.remove(&leg);
        self.note(id, What::Refused { code });
        self.over(id);
    }

    fn hang_up(&mut self, id: &str) {
        let Some(call) = self.calls.get(id) else { return };
        let leg = call.leg;
        self.phone.hang_up(leg);
        self.legs.remove(&leg);
        self.note(id, What::Ended("hangs up".into()));
        self.over(id);
    }

    /// A call is over: its sockets are closed at once, and what was on its way is lost.
    fn over(&mut self, id: &str) {
        let Some(call) = self.calls.get_mut(id) else { return };
        call.phase = Phase::Over;
        call.conversation = None;
        for (_, socket) in call.sockets.drain(..) {
            // A full one is of no use to anybody.
            let _ = socket.try_send(Outgoing::Close(1000, String::new()));
        }
        self.later(id, REMEMBERED, Due::Forget);
    }

    fn converse(&mut self, id: &str, action: impl FnOnce(&mut Conversation) -> Vec<Effect>) {
        let conversation = self.calls.get_mut(id).and_then(|call| call.conversation.as_mut());
        let effects = conversation.map(action).unwrap_or_default();
        for effect in effects {
            match effect {
                Effect::Send(event) => {
                    self.send(id, &Outgoing::Text(event.to_string()));
                    self.note(id, What::Server(event));
                }
                Effect::Frame(text) => self.send(id, &Outgoing::Text(text)),
                Effect::After(time, tick) => self.later(id, time, Due::Tick(tick)),
                Effect::Close(code, reason) => self.send(id, &Outgoing::Close(code, reason)),
                Effect::Drop => self.send(id, &Outgoing::Drop),
                Effect::DropLine => {
                    if let Some(call) = self.calls.get(id) {
                        self.phone.close(call.flow);
                    }
                }
                Effect::HangUp => self.hang_up(id),
                Effect::Wrong(why) => self.note(id, What::Wrong(why)),
            }
        }
    }

    fn send(&mut self, id: &str, outgoing: &Outgoing) {
        for (_, socket) in self.calls.get(id).map(|call| &call.sockets[..]).unwrap_or_default() {
            // Whoever doesn't read loses events.
            let _ = socket.try_send(outgoing.clone());
        }
    }

    fn later(&mut self, id: &str, after: Duration, due: Due) {
        self.phone.set_timer(after, Timer { call: id.to_owned(), due });
    }

    fn note(&self, id: &str, what: What) {
        let name = self.calls.get(id).map_or("", |call| &call.name);
        self.journal.add(id, name, what);
    }
}

impl Call {
    /// What the next request with a verb meets.
    fn fault(&self, verb: &str) -> Fault {
        let faults = match verb {
            "accept" => &self.script.accept,
            "reject" => &self.script.reject,
            "refer" => &self.script.refer,
            _ => &self.script.hangup,
        };
        faults.get(self.attempts.get(verb).copied().unwrap_or_default()).cloned().unwrap_or_default()
    }
}

fn named<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
