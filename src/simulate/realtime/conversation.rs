//! One session's conversation: what the model and the caller do by the script, and what the client asks for.
//!
//! Pure: events of the client and ticks come in, effects go out. The order of events is that of the public reference, as far
//! as it says one:
//!
//! ```text
//! response.created, output_item.added, conversation.item.added, content_part.added, output_audio_buffer.started,
//! transcript deltas, output_audio.done … output_item.done, response.done        once it is made
//! output_audio_buffer.stopped                                                     once it has been played, often much later
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use super::events::{self, ClientEvent};
use super::schema::Misfit;
use super::script::{Answer, Awaited, CallScript, Step, Utterance};
use super::session::Session;

mod speaking;

/// What is to be done for a conversation.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send an event.
    Send(Value),
    /// Send a text.
    Frame(String),
    /// Call [`Conversation::tick`] with this after so long.
    After(Duration, Tick),
    /// Close the WebSockets with a code and a reason.
    Close(u16, String),
    /// Cut the WebSockets' connections.
    Drop,
    /// Cut the SIP connection.
    DropLine,
    /// Hang up.
    HangUp,
    /// Note that something is wrong.
    Wrong(String),
}

/// A moment that was waited for. The numbers are those of responses and of waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// All of a response is made.
    Made(u64),
    /// All of it has been played.
    Played(u64),
    /// The caller speaks into it.
    Interrupted(u64),
    /// The caller has spoken.
    Spoken(u64),
    /// A wait is over.
    Waited(u64),
}

/// What the script waits for.
#[derive(Clone, Debug)]
enum Waiting {
    /// Nothing: the next step can begin.
    Nothing,
    /// A `response.create`.
    Create(Answer),
    /// The end of a response.
    Response(u64),
    /// The end of whatever is being said.
    Silence,
    /// A tick.
    Tick(u64),
    /// An event of the client, or the tick that says that it took too long.
    Event(Awaited, u64),
}

/// A response.
#[derive(Clone, Debug)]
struct Response {
    serial: u64,
    id: String,
    answer: Answer,
    /// What is said.
    text: Option<String>,
    /// The client's words for it.
    metadata: Value,
    /// Outside of the conversation: nobody's voice cuts it short.
    apart: bool,
}

/// A response whose sound is in the buffer. The first one is being played.
#[derive(Clone, Debug)]
struct Sound {
    serial: u64,
    id: String,
    item: String,
    plays: Duration,
    apart: bool,
    endless: bool,
    /// It has been played as far as it is made.
    through: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Conversation {
    name: String,
    session: Session,
    steps: VecDeque<Step>,
    word: Duration,
    waiting: Waiting,
    /// The response that is being made.
    active: Option<Response>,
    sounds: VecDeque<Sound>,
    /// What was said and done, in order.
    items: Vec<Value>,
    /// Function calls, and whether their outcome was told.
    calls: BTreeMap<String, bool>,
    /// Events of the client that no step has waited for: type, and type of the item.
    unread: VecDeque<(String, Option<String>)>,
    /// What the caller will say into a response, by its number.
    interruptions: BTreeMap<u64, String>,
    /// What the caller is saying, and the item that it becomes, by the tick that ends it.
    saying: BTreeMap<u64, (String, String)>,
    spoken: bool,
    begun: bool,
    serial: u64,
    effects: Vec<Effect>,
}

impl Conversation {
    /// A conversation of the call `name`, in which nothing happens until it begins.
    pub fn new(name: &str, session: Session, script: &CallScript, word: Duration) -> Self {
        Self {
            name: name.to_owned(),
            session,
            steps: script.steps.clone().into(),
            word,
            waiting: Waiting::Nothing,
            active: None,
            sounds: VecDeque::new(),
            items: Vec::new(),
            calls: BTreeMap::new(),
            unread: VecDeque::new(),
            interruptions: BTreeMap::new(),
            saying: BTreeMap::new(),
            spoken: false,
            begun: false,
            serial: 0,
            effects: Vec::new(),
        }
    }

    /// The event that says that the session is there.
    pub fn created(&mut self) -> Value {
        let session = self.shown_session();
        self.event("session.created", json!({ "session": session }))
    }

    /// Begins with the script, if that has not begun.
    pub fn begin(&mut self) -> Vec<Effect> {
        if !std::mem::replace(&mut self.begun, true) {
            self.proceed();
        }
        std::mem::take(&mut self.effects)
    }

    /// Does one more thing, as soon as the script waits for nothing else.
    pub fn act(&mut self, step: Step) -> Vec<Effect> {
        self.steps.push_back(step);
        if self.begun {
            self.proceed();
        }
        std::mem::take(&mut self.effects)
    }

    /// Takes in an event of the client.
    pub fn receive(&mut self, text: &str) -> Vec<Effect> {
        let event: Value = serde_json::from_str(text).unwrap_or_default();
        let event_id = event["event_id"].clone();
        match events::read(&event) {
            Ok(client) => {
                self.obey(client, &event_id);
                let of = |value: &Value| value.as_str().map(str::to_owned);
                self.unread.push_back((of(&event["type"]).unwrap_or_default(), of(&event["item"]["type"])));
                if let Waiting::Event(awaited, _) = &self.waiting
                    && let Some(index) = self.unread_match(&awaited.clone())
                {
                    self.unread.drain(..=index);
                    self.waiting = Waiting::Nothing;
                }
            }
            Err(misfit) => self.refuse(&misfit, &event_id),
        }
        self.proceed();
        std::mem::take(&mut self.effects)
    }

    /// A moment has come.
    pub fn tick(&mut self, tick: Tick) -> Vec<Effect> {
        match tick {
            Tick::Made(serial) => self.made(serial),
            Tick::Played(serial) => self.played(serial),
            Tick::Interrupted(serial) => self.interrupted(serial),
            Tick::Spoken(number) => self.caller_spoke(number),
            Tick::Waited(number) => match &self.waiting {
                Waiting::Tick(awaited) if *awaited == number => self.waiting = Waiting::Nothing,
                Waiting::Event(awaited, deadline) if *deadline == number => {
                    let Awaited { event, item, .. } = awaited;
                    let of = item.as_ref().map(|item| format!(" of {item}")).unwrap_or_default();
                    self.effects
                        .push(Effect::Wrong(format!("the script waited for {event}{of}, and none came")));
                    self.waiting = Waiting::Nothing;
                }
                _ => {}
            },
        }
        self.proceed();
        std::mem::take(&mut self.effects)
    }

    /// Says that the session has lasted too long.
    pub fn expire(&mut self) -> Vec<Effect> {
        let said = "Your session hit the maximum duration of 60 minutes.";
        self.complain("session_expired", said, "", &Value::Null);
        self.effects.push(Effect::Close(1001, said.to_owned()));
        std::mem::take(&mut self.effects)
    }

    /// Goes on with the script until it has to wait.
    fn proceed(&mut self) {
        while self.begun && matches!(self.waiting, Waiting::Nothing) {
            let Some(step) = self.steps.pop_front() else { return };
            self.step(step);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Respond(answer) => self.waiting = Waiting::Create(answer),
            Step::Speak(_) if self.active.is_some() || !self.sounds.is_empty() => {
                self.steps.push_front(step);
                self.waiting = Waiting::Silence;
            }
            Step::Speak(answer) => {
                let serial = self.respond(answer, &Value::Null);
                self.wait_for_response(serial);
            }
            Step::Caller(Utterance { says, takes }) => {
                let takes = takes.map_or_else(|| self.time_to_say(&says), |takes| takes.0);
                let number = self.caller_speaks(says, takes);
                self.waiting = Waiting::Tick(number);
            }
            Step::Dtmf(key) => self.effects.push(Effect::Send(events::dtmf(key))),
            Step::Await(awaited) => match self.unread_match(&awaited) {
                Some(index) => drop(self.unread.drain(..=index)),
                None => {
                    let deadline = self.after(awaited.within.0, Tick::Waited);
                    self.waiting = Waiting::Event(awaited, deadline);
                }
            },
            Step::Wait(time) => self.waiting = Waiting::Tick(self.after(time.0, Tick::Waited)),
            Step::Send(event) => self.effects.push(Effect::Send(event)),
            Step::Frame(text) => self.effects.push(Effect::Frame(text)),
            Step::Error(complaint) => {
                self.complain(&complaint.code, &complaint.message, "", &Value::Null);
            }
            Step::Close(farewell) => self.effects.push(Effect::Close(farewell.code, farewell.reason)),
            Step::Drop => self.effects.push(Effect::Drop),
            Step::DropLine => self.effects.push(Effect::DropLine),
            Step::HangUp => self.effects.push(Effect::HangUp),
        }
    }

    fn unread_match(&self, awaited: &Awaited) -> Option<usize> {
        let fits = |(event, item): &(String, Option<String>)| {
            *event == awaited.event && (awaited.item.is_none() || *item == awaited.item)
        };
        self.unread.iter().position(fits)
    }

    /// Does what an event of the client asks for.
    fn obey(&mut self, event: ClientEvent<'_>, event_id: &Value) {
        match event {
            ClientEvent::Update(change) => match self.session.update(change, self.spoken) {
                Ok(()) => {
                    let session = self.shown_session();
                    self.send("session.updated", json!({ "session": session }));
                }
                Err(misfit) => self.refuse(&misfit, event_id),
            },
            ClientEvent::Create(_) if self.active.is_some() => {
                let active = self.active.as_ref().map(|response| response.id.clone()).unwrap_or_default();
                let said = format!("Conversation already has an active response in progress: {active}.");
                self.complain("conversation_already_has_active_response", &said, "", event_id);
            }
            ClientEvent::Create(response) => match std::mem::replace(&mut self.waiting, Waiting::Nothing) {
                Waiting::Create(answer) => {
                    let serial = self.respond(answer, response);
                    self.wait_for_response(serial);
                }
                other => {
                    self.waiting = other;
                    self.respond(Answer::default(), response);
                }
            },
            ClientEvent::Outcome { item, .. } | ClientEvent::Message(item)
                if self.item(&item["id"]).is_some() =>
            {
                // No mistake: whoever doesn't know whether it arrived sends it again.
                self.complain("invalid_value", "An item with this id exists already.", "item.id", event_id);
            }
            ClientEvent::Outcome { call_id, item } => match self.calls.get_mut(call_id) {
                Some(told @ false) => {
                    *told = true;
                    self.add_item(item);
                }
                Some(true) => self.refuse(
                    &Misfit::invalid("item.call_id", "the outcome of this function call was told already"),
                    event_id,
                ),
                None => self.refuse(
                    &Misfit::invalid("item.call_id", &format!("no function call has the id '{call_id}'")),
                    event_id,
                ),
            },
            ClientEvent::Message(item) => self.add_item(item),
            ClientEvent::Cancel if self.active.is_some() => self.cancel("client_cancelled"),
            ClientEvent::Cancel => self.complain(
                "response_cancel_not_active",
                "Cancellation failed: no active response found",
                "",
                event_id,
            ),
            ClientEvent::ClearOutput => self.silence(false),
            ClientEvent::ClearInput => self.send("input_audio_buffer.cleared", json!({})),
            ClientEvent::Retrieve(item_id) => match self.item(&json!(item_id)).cloned() {
                Some(item) => self.send("conversation.item.retrieved", json!({ "item": item })),
                None => {
                    let misfit = Misfit::invalid("item_id", &format!("no item has the id '{item_id}'"));
                    self.refuse(&misfit, event_id);
                }
            },
            ClientEvent::Item { done, item_id } => self.send(done, json!({ "item_id": item_id })),
        }
    }

    fn add_item(&mut self, item: &Value) {
        let mut item = item.clone();
        if item.get("id").is_none() {
            item["id"] = self.id("item").into();
        }
        item["object"] = "realtime.item".into();
        item["status"] = "completed".into();
        self.show_item("conversation.item.added", &item);
        self.show_item("conversation.item.done", &item);
    }

    fn item(&self, id: &Value) -> Option<&Value> {
        self.items.iter().find(|item| item["id"] == *id && !id.is_null())
    }

    /// Says that an item is in the conversation, after which one, and keeps it as it is now.
    fn show_item(&mut self, name: &str, item: &Value) {
        let place = self.items.iter().position(|known| known["id"] == item["id"]).unwrap_or(self.items.len());
        let before = place.checked_sub(1).map_or(Value::Null, |before| self.items[before]["id"].clone());
        self.items.splice(place..self.items.len().min(place + 1), [item.clone()]);
        self.send(name, json!({ "previous_item_id": before, "item": item }));
    }

    /// What the client sent is nothing that the API takes.
    fn refuse(&mut self, misfit: &Misfit, event_id: &Value) {
        self.effects.push(Effect::Wrong(format!("{} ({})", misfit.message, misfit.code)));
        self.complain(misfit.code, &misfit.message, &misfit.param, event_id);
    }

    fn complain(&mut self, code: &str, message: &str, param: &str, event_id: &Value) {
        let param = if param.is_empty() { Value::Null } else { param.into() };
        let error = json!({ "type": "invalid_request_error", "code": code, "message": message,
                            "param": param, "event_id": event_id });
        self.send("error", json!({ "error": error }));
    }

    fn send(&mut self, name: &str, fields: Value) {
        let event = self.event(name, fields);
        self.effects.push(Effect::Send(event));
    }

    fn send_with(&mut self, common: &Value, name: &str, mut fields: Value) {
        if let (Value::Object(common), Value::Object(fields)) = (common, &mut fields) {
            fields.extend(common.clone());
        }
        self.send(name, fields);
    }

    fn event(&mut self, name: &str, mut fields: Value) -> Value {
        fields["type"] = name.into();
        fields["event_id"] = self.id("event").into();
        fields
    }

    fn shown_session(&self) -> Value {
        let mut session = self.session.view().clone();
        session["id"] = format!("sess_{}", self.name).into();
        session
    }

    /// Has a new tick come after so long; returns its number.
    fn after(&mut self, time: Duration, tick: fn(u64) -> Tick) -> u64 {
        self.serial += 1;
        self.after_of(time, tick(self.serial));
        self.serial
    }

    fn after_of(&mut self, time: Duration, tick: Tick) {
        self.effects.push(Effect::After(time, tick));
    }

    fn id(&mut self, kind: &str) -> String {
        self.serial += 1;
        format!("{kind}_{}_{}", self.name, self.serial)
    }

    fn time_to_say(&self, text: &str) -> Duration {
        self.word * u32::try_from(text.split_whitespace().count().max(1)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
