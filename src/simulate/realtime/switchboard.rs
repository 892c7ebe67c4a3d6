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

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use sipx_sip::{HeaderName, Message, Method};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::conversation::{Conversation, Effect, Tick};
use super::journal::{Journal, What};
use super::rest::{Asked, JoinRequest, Outgoing, Reply, Unwelcome, VerbRequest};
use super::script::{CallScript, Fault, Line, Script, Step};
use super::session::Session;
use super::webhook::{self, Delivery, Webhook};
use crate::simulate::phone::{Happening, Phone};
use crate::simulate::sdp::Audio;
use crate::simulate::{SimulateError, in_words};
use crate::sip::event::{Body, EndedBy, Flow, IncomingCall, LegEvent, LegId};
use crate::sip::read;

/// The Contact that all of OpenAI's nodes share.
const SHARED_CONTACT: &str = "Contact: <sip:OAI@sip.api.openai.com:5061>";
/// How long a call that is over is still known in the journal.
const REMEMBERED: Duration = Duration::from_secs(30);

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

/// A request that came over SIP, as it was before anybody looked at it.
struct Met {
    method: String,
    sip_call_id: String,
    /// Of an INVITE that begins a call.
    headers: Option<Vec<(String, String)>>,
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

    // ------------------------------------------------------------------------------------------------------------- SIP

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

    // ------------------------------------------------------------------------------------------------------------ HTTP

    fn asked(&mut self, asked: Asked) {
        // Whoever no longer waits for the answer is gone.
        match asked {
            Asked::Ahead { verb, call, answer } => {
                let _ = answer.send(self.ahead(&verb, &call));
            }
            Asked::Verb { request, answer } => {
                let _ = answer.send(self.verb(&request));
            }
            Asked::Join { request, answer } => {
                let _ = answer.send(self.join(&request));
            }
            Asked::Joined { call, socket, unwelcome, outgoing } => {
                self.joined(&call, socket, unwelcome, outgoing);
            }
            Asked::Text { call, socket, text } => {
                let known = |call: &&mut Call| call.sockets.iter().any(|(id, _)| *id == socket);
                if self.calls.get_mut(&call).as_ref().is_some_and(known) {
                    let event = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.clone()));
                    self.note(&call, What::Client(event));
                    self.converse(&call, |conversation| conversation.receive(&text));
                }
            }
            Asked::Left { call, socket } => {
                if let Some(call) = self.calls.get_mut(&call) {
                    call.sockets.retain(|(id, _)| *id != socket);
                }
                self.note(&call, What::SocketClosed);
            }
        }
    }

    fn ahead(&self, verb: &str, id: &str) -> Duration {
        match self.calls.get(id) {
            None => self.script.unknown_after.0,
            Some(call) if call.phase == Phase::Over => self.script.unknown_after.0,
            Some(call) if verb == "socket" => {
                let script = call.script.socket.get(call.attempts.get(verb).copied().unwrap_or_default());
                script.map(|script| script.after.0).unwrap_or_default()
            }
            Some(call) => call.fault(verb).after.0,
        }
    }

    fn verb(&mut self, request: &VerbRequest) -> Reply {
        let (verb, id) = (request.verb.clone(), request.call.clone());
        let fault = self.calls.get_mut(&id).map(|call| {
            let fault = call.fault(&verb);
            *call.attempts.entry(verb.clone()).or_default() += 1;
            fault
        });
        let reply = self.decide(request, &fault.unwrap_or_default());
        let status = match &reply {
            Reply::Status { status, .. } => *status,
            Reply::Nothing | Reply::Welcome { .. } => 0,
        };
        let body = request.body.clone().unwrap_or_else(|| Value::String("no JSON".into()));
        self.note(&id, What::Rest { verb, body, status });
        reply
    }

    fn decide(&mut self, request: &VerbRequest, fault: &Fault) -> Reply {
        let VerbRequest { verb, call: id, bearer, body } = request;
        if bearer.as_ref() != Some(&self.api_key) {
            return Reply::error(401, "invalid_api_key", "Incorrect API key provided.", None);
        }
        if let Some(status) = fault.status {
            let code = fault.code.as_deref().unwrap_or("server_error");
            let Reply::Status { status, body, .. } = Reply::error(status, code, "As the script says.", None)
            else {
                return Reply::Nothing;
            };
            return Reply::Status { status, body, retry_after: fault.retry_after };
        }
        let phase = self.calls.get(id).map_or(Phase::Over, |call| call.phase);
        if phase == Phase::Over {
            return Reply::error(404, "call_id_not_found", "No session found for the provided call_id", None);
        }
        let done = match verb.as_str() {
            "accept" => self.accept(id, phase, body.as_ref(), fault),
            "reject" => self.reject(id, phase, body.as_ref()),
            "refer" => self.refer(id, phase, body.as_ref(), fault),
            _ => self.hangup(id, phase, body.as_ref(), fault),
        };
        match done {
            Ok(()) if fault.lost => Reply::Nothing,
            Ok(()) => Reply::done(),
            Err(reply) => reply,
        }
    }

    fn accept(&mut self, id: &str, phase: Phase, body: Option<&Value>, fault: &Fault) -> Result<(), Reply> {
        let session = body.ok_or("We could not parse the JSON body of your request.".to_owned());
        let session = session.map_err(|said| ("invalid_json", said, String::new())).and_then(|body| {
            Session::of(body).map_err(|misfit| (misfit.code, misfit.message.clone(), misfit.param))
        });
        let session = session.map_err(|(code, said, param)| {
            self.note(id, What::Wrong(format!("accept: {said} ({code})")));
            Reply::error(400, code, &said, Some(&param))
        })?;
        if !matches!(phase, Phase::Undecided | Phase::Orphan) {
            return Err(decided());
        }
        if let (Some(code), Phase::Undecided) = (fault.sip, phase) {
            self.refuse(id, code);
            return Ok(());
        }
        let word = self.script.word.0;
        let Some(call) = self.calls.get_mut(id) else { return Ok(()) };
        call.conversation = Some(Conversation::new(&id[id.len() - 6..], session, &call.script, word));
        if phase == Phase::Undecided {
            call.phase = Phase::Accepted;
            let after = call.script.invite.answer_after.0;
            self.later(id, after, Due::Answer);
        }
        Ok(())
    }

    fn reject(&mut self, id: &str, phase: Phase, body: Option<&Value>) -> Result<(), Reply> {
        let code = match body {
            Some(Value::Null) => 603,
            Some(body) => match body["status_code"].as_u64().and_then(|code| u16::try_from(code).ok()) {
                Some(code @ 300..=699) => code,
                _ => return Err(self.wrong_body(id, "reject", "status_code", "it must be from 300 to 699")),
            },
            None => return Err(self.wrong_body(id, "reject", "status_code", "the body is no JSON")),
        };
        match phase {
            Phase::Undecided => self.refuse(id, code),
            Phase::Orphan => self.over(id),
            _ => return Err(decided()),
        }
        Ok(())
    }

    fn refer(&mut self, id: &str, phase: Phase, body: Option<&Value>, fault: &Fault) -> Result<(), Reply> {
        let target = body.and_then(|body| body["target_uri"].as_str()).unwrap_or_default().to_owned();
        if !["tel:", "sip:", "sips:"].iter().any(|scheme| target.starts_with(scheme)) {
            return Err(self.wrong_body(id, "refer", "target_uri", "it must be a tel or sip URI"));
        }
        let now = self.phone.now();
        if let (Phase::Answered, None, Some(call)) = (phase, fault.sip, self.calls.get(id)) {
            self.phone.endpoint.refer(call.leg, &target, now);
        }
        Ok(())
    }

    fn hangup(&mut self, id: &str, phase: Phase, body: Option<&Value>, fault: &Fault) -> Result<(), Reply> {
        if body.is_none_or(|body| !body.is_null()) {
            return Err(self.wrong_body(id, "hangup", "body", "there must be none"));
        }
        match phase {
            _ if fault.sip.is_some() => {}
            Phase::Orphan => self.over(id),
            _ => self.hang_up(id),
        }
        Ok(())
    }

    fn wrong_body(&self, id: &str, verb: &str, param: &str, why: &str) -> Reply {
        self.note(id, What::Wrong(format!("{verb}: '{param}' can't be used: {why}")));
        Reply::error(400, "invalid_value", &format!("Invalid value for '{param}': {why}."), Some(param))
    }

    fn join(&mut self, request: &JoinRequest) -> Reply {
        let Some(id) = &request.call else {
            return Reply::error(
                400,
                "missing_required_parameter",
                "There must be a call_id.",
                Some("call_id"),
            );
        };
        let Some(bearer) = &request.bearer else {
            return Reply::error(401, "invalid_api_key", "Missing bearer authentication in header", None);
        };
        let unknown =
            || Reply::error(404, "call_id_not_found", "No session found for the provided call_id", None);
        let Some(call) = self.calls.get_mut(id) else { return unknown() };
        if call.conversation.is_none() {
            return unknown();
        }
        let index = call.attempts.entry("socket".to_owned()).or_default();
        let script = call.script.socket.get(*index).cloned().unwrap_or_default();
        *index += 1;
        if let Some(status) = script.status {
            return Reply::error(status, "server_error", "As the script says.", None);
        }
        let unwelcome = if *bearer != self.api_key {
            Some(("invalid_api_key", 3000))
        } else if request.beta {
            self.note(id, What::Wrong("the WebSocket was asked for with OpenAI-Beta".into()));
            Some(("beta_api_shape_disabled", 4000))
        } else {
            None
        };
        self.sockets += 1;
        Reply::Welcome { socket: self.sockets, unwelcome }
    }

    fn joined(&mut self, id: &str, socket: u64, unwelcome: Unwelcome, outgoing: mpsc::Sender<Outgoing>) {
        // A socket whose queue is full at its beginning, or that is gone, gets nothing.
        let send = |outgoing_text: Outgoing| drop(outgoing.try_send(outgoing_text));
        if let Some((code, close)) = unwelcome {
            let error = serde_json::json!({ "type": "error", "event_id": "event_0",
                "error": { "type": "invalid_request_error", "code": code, "message": "You are not welcome." } });
            send(Outgoing::Text(error.to_string()));
            return send(Outgoing::Close(close, format!("invalid_request_error.{code}")));
        }
        let Some(call) = self.calls.get_mut(id) else { return };
        let Some(conversation) = &mut call.conversation else {
            return send(Outgoing::Close(1000, String::new()));
        };
        let greeted = call.script.socket.get(call.joined).is_none_or(|script| script.session_created);
        call.joined += 1;
        let created = greeted.then(|| conversation.created());
        call.sockets.push((socket, outgoing.clone()));
        self.note(id, What::SocketOpened);
        if let Some(created) = created {
            send(Outgoing::Text(created.to_string()));
            self.note(id, What::Server(created));
        }
        self.converse(id, Conversation::begin);
    }

    // ---------------------------------------------------------------------------------------------------- conversations

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

fn decided() -> Reply {
    let said = "This call was accepted or rejected already.";
    Reply::error(409, "decision_already_made", said, None)
}

fn named<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
}

fn meet(message: &Message) -> Option<Met> {
    let Message::Request(request) = message else { return None };
    let begins = request.method == Method::Invite && read::tag(&request.headers, &HeaderName::To).is_none();
    let headers = || {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let secret =
            |name: &HeaderName| matches!(name, HeaderName::Authorization | HeaderName::ProxyAuthorization);
        let shown = request.headers.iter().filter(|header| !secret(header.name()));
        shown.map(|header| (header.name().to_string(), text(&header.value()))).collect()
    };
    Some(Met {
        method: request.method.to_string(),
        sip_call_id: read::text(&request.headers, &HeaderName::CallId)?,
        headers: begins.then(headers),
    })
}

/// A message to the caller with the habits of the real API.
fn edited(bytes: Bytes, line: Line) -> Bytes {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return bytes };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut out = Vec::with_capacity(bytes.len());
    for header in head.split("\r\n") {
        let header = match header.split_once(':') {
            Some(("Contact", _)) if !line.own_contact => SHARED_CONTACT,
            Some(("Content-Type", _)) if !line.content_type => continue,
            // It refers on nobody's behalf.
            Some(("Referred-By", _)) => continue,
            _ => header,
        };
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(&bytes[end + 2..]);
    out.into()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
