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
use super::script::{Answer, Awaited, CallScript, Ending, FunctionCall, Step, Utterance};
use super::session::Session;

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
        self.send("conversation.item.added", json!({ "previous_item_id": null, "item": item }));
        self.send("conversation.item.done", json!({ "previous_item_id": null, "item": item }));
    }

    /// Begins a response; `create` is what the client says of it.
    fn respond(&mut self, answer: Answer, create: &Value) -> u64 {
        self.serial += 1;
        let serial = self.serial;
        let text = match (&answer.say, &answer.call) {
            (Some(say), _) => Some(say.clone()),
            (None, Some(_)) => None,
            (None, None) if answer.status == Ending::Failed => None,
            (None, None) => Some(events::told(create["instructions"].as_str())),
        };
        let response = Response {
            serial,
            id: self.id("resp"),
            text,
            metadata: create["metadata"].clone(),
            apart: create["conversation"] == "none",
            answer,
        };
        let shown = events::response(&response.id, "in_progress", &Value::Null, &[], &response.metadata);
        self.send("response.created", json!({ "response": shown }));
        self.after_of(response.answer.takes.0, Tick::Made(serial));
        if let Some(interruption) = response.answer.interrupted.clone() {
            self.interruptions.insert(serial, interruption.says);
            self.after_of(interruption.after.0, Tick::Interrupted(serial));
        }
        if let Some(text) = response.text.clone() {
            self.spoken = true;
            let item = self.id("item");
            let shown = events::speech(&item, "in_progress", "");
            let at = json!({ "response_id": response.id, "output_index": 0 });
            self.send_with(&at, "response.output_item.added", json!({ "item": shown }));
            if !response.apart {
                self.send("conversation.item.added", json!({ "previous_item_id": null, "item": shown }));
            }
            let part = json!({ "type": "audio", "transcript": "" });
            let at =
                json!({ "response_id": response.id, "item_id": item, "output_index": 0, "content_index": 0 });
            self.send_with(&at, "response.content_part.added", json!({ "part": part }));
            let plays = response.answer.plays.map_or_else(|| self.time_to_say(&text), |plays| plays.0);
            self.sounds.push_back(Sound {
                serial,
                id: response.id.clone(),
                item,
                plays,
                apart: response.apart,
                endless: response.answer.endless,
                through: false,
            });
            if self.sounds.len() == 1 {
                self.play();
            }
            for word in text.split_inclusive(' ') {
                self.send_with(&at, "response.output_audio_transcript.delta", json!({ "delta": word }));
            }
        }
        self.active = Some(response);
        serial
    }

    /// Begins to play the first sound.
    fn play(&mut self) {
        let Some(sound) = self.sounds.front() else { return };
        let (id, serial, plays) = (sound.id.clone(), sound.serial, sound.plays);
        self.send("output_audio_buffer.started", json!({ "response_id": id }));
        self.after_of(plays, Tick::Played(serial));
    }

    fn made(&mut self, serial: u64) {
        let Some(response) = self.active.take_if(|response| response.serial == serial) else { return };
        let (status, details) = match response.answer.status {
            Ending::Completed => ("completed", Value::Null),
            Ending::Incomplete => {
                let reason = response.answer.code.as_deref().unwrap_or("max_output_tokens");
                ("incomplete", json!({ "type": "incomplete", "reason": reason }))
            }
            Ending::Failed => {
                let code = response.answer.code.as_deref().unwrap_or("server_error");
                ("failed", json!({ "type": "failed", "error": { "type": "server_error", "code": code } }))
            }
        };
        let mut output = Vec::new();
        if let Some(text) = &response.text {
            output.push(self.finish_speech(&response, text, "completed"));
        }
        if let Some(call) = &response.answer.call {
            output.push(self.call(&response, call, output.len(), status));
        }
        self.finish(&response, status, &details, &output);
        if self.sounds.iter().any(|sound| sound.serial == serial && sound.through) {
            self.played(serial);
        }
        self.at_rest(serial);
    }

    /// Ends the response that is being made.
    fn finish(&mut self, response: &Response, status: &str, details: &Value, output: &[Value]) {
        let shown = events::response(&response.id, status, details, output, &response.metadata);
        self.send("response.done", json!({ "response": shown }));
        self.send("rate_limits.updated", json!({ "rate_limits": [] }));
    }

    fn finish_speech(&mut self, response: &Response, text: &str, status: &str) -> Value {
        let item = self.sounds.iter().find(|sound| sound.serial == response.serial);
        let item = item.map_or_else(String::new, |sound| sound.item.clone());
        let at =
            json!({ "response_id": response.id, "item_id": item, "output_index": 0, "content_index": 0 });
        self.send_with(&at, "response.output_audio.done", json!({}));
        self.send_with(&at, "response.output_audio_transcript.done", json!({ "transcript": text }));
        let part = json!({ "type": "audio", "transcript": text });
        self.send_with(&at, "response.content_part.done", json!({ "part": part }));
        let shown = events::speech(&item, status, text);
        if !response.apart {
            self.send("conversation.item.done", json!({ "previous_item_id": null, "item": shown }));
        }
        let at = json!({ "response_id": response.id, "output_index": 0 });
        self.send_with(&at, "response.output_item.done", json!({ "item": shown }));
        shown
    }

    /// Calls a function.
    fn call(&mut self, response: &Response, call: &FunctionCall, index: usize, status: &str) -> Value {
        let call_id = call.call_id.clone().unwrap_or_else(|| self.id("call"));
        let arguments = match &call.arguments {
            Value::String(text) => text.clone(),
            Value::Null => "{}".to_owned(),
            other => other.to_string(),
        };
        if status == "completed" {
            self.calls.entry(call_id.clone()).or_insert(false);
        }
        let item = self.id("item");
        let shown = |status: &str, arguments: &str| {
            json!({ "id": item, "object": "realtime.item", "type": "function_call", "status": status,
                    "name": call.name, "call_id": call_id, "arguments": arguments })
        };
        let at = json!({ "response_id": response.id, "output_index": index });
        self.send_with(&at, "response.output_item.added", json!({ "item": shown("in_progress", "") }));
        let added = json!({ "previous_item_id": null, "item": shown("in_progress", "") });
        self.send("conversation.item.added", added);
        let part =
            json!({ "response_id": response.id, "item_id": item, "output_index": index, "call_id": call_id });
        self.send_with(&part, "response.function_call_arguments.delta", json!({ "delta": arguments }));
        let whole = json!({ "name": call.name, "arguments": arguments });
        self.send_with(&part, "response.function_call_arguments.done", whole);
        let status = if status == "completed" { "completed" } else { "incomplete" };
        let done = shown(status, &arguments);
        self.send("conversation.item.done", json!({ "previous_item_id": null, "item": done }));
        self.send_with(&at, "response.output_item.done", json!({ "item": done }));
        done
    }

    fn played(&mut self, serial: u64) {
        if self.active.as_ref().is_some_and(|response| response.serial == serial) {
            // The buffer runs dry until more is made.
            self.sounds
                .iter_mut()
                .filter(|sound| sound.serial == serial)
                .for_each(|sound| sound.through = true);
            return;
        }
        let Some(sound) = self.sounds.pop_front_if(|sound| sound.serial == serial && !sound.endless) else {
            return;
        };
        self.send("output_audio_buffer.stopped", json!({ "response_id": sound.id }));
        self.play();
        self.at_rest(serial);
    }

    /// A response may be over for those who wait for that.
    fn at_rest(&mut self, serial: u64) {
        let active = self.active.as_ref().is_some_and(|response| response.serial == serial);
        let sounds = self.sounds.iter().any(|sound| sound.serial == serial && !sound.endless);
        match self.waiting {
            Waiting::Response(awaited) if awaited == serial && !active && !sounds => {
                self.waiting = Waiting::Nothing;
            }
            Waiting::Silence if self.active.is_none() && self.sounds.is_empty() => {
                self.waiting = Waiting::Nothing;
            }
            _ => {}
        }
    }

    fn wait_for_response(&mut self, serial: u64) {
        self.waiting = Waiting::Response(serial);
        self.at_rest(serial);
    }

    /// Ends the response that is being made early.
    fn cancel(&mut self, reason: &str) {
        let Some(response) = self.active.take() else { return };
        let mut output = Vec::new();
        if let Some(text) = &response.text {
            output.push(self.finish_speech(&response, text, "incomplete"));
        }
        if let Some(call) = &response.answer.call {
            output.push(self.call(&response, call, output.len(), "cancelled"));
        }
        let details = json!({ "type": "cancelled", "reason": reason });
        self.finish(&response, "cancelled", &details, &output);
        self.at_rest(response.serial);
    }

    /// Empties the buffer; `keep`: what is apart from the conversation stays.
    fn silence(&mut self, keep: bool) {
        let (kept, cut): (VecDeque<_>, VecDeque<_>) =
            self.sounds.drain(..).partition(|sound| keep && sound.apart);
        self.sounds = kept;
        let Some(first) = cut.front() else { return };
        self.send("output_audio_buffer.cleared", json!({ "response_id": first.id }));
        let truncated = json!({ "item_id": first.item, "content_index": 0, "audio_end_ms": 100 });
        self.send("conversation.item.truncated", truncated);
        for sound in cut {
            self.at_rest(sound.serial);
        }
    }

    fn interrupted(&mut self, serial: u64) {
        let Some(says) = self.interruptions.remove(&serial) else { return };
        let active = self.active.as_ref().is_some_and(|response| response.serial == serial);
        if active || self.sounds.iter().any(|sound| sound.serial == serial) {
            let takes = self.time_to_say(&says);
            self.caller_speaks(says, takes);
        }
    }

    /// The caller begins to speak; returns the number of the tick that ends it.
    fn caller_speaks(&mut self, says: String, takes: Duration) -> u64 {
        let item = self.id("item");
        self.send("input_audio_buffer.speech_started", json!({ "audio_start_ms": 0, "item_id": item }));
        if self.session.interrupts() {
            if self.active.as_ref().is_some_and(|response| !response.apart) {
                self.cancel("turn_detected");
            }
            self.silence(true);
        }
        let number = self.after(takes, Tick::Spoken);
        self.saying.insert(number, (item, says));
        number
    }

    fn caller_spoke(&mut self, number: u64) {
        let Some((item, says)) = self.saying.remove(&number) else { return };
        let at = json!({ "item_id": item });
        self.send_with(&at, "input_audio_buffer.speech_stopped", json!({ "audio_end_ms": 0 }));
        self.send_with(&at, "input_audio_buffer.committed", json!({ "previous_item_id": null }));
        let shown = events::heard(&item);
        self.send("conversation.item.added", json!({ "previous_item_id": null, "item": shown }));
        self.send("conversation.item.done", json!({ "previous_item_id": null, "item": shown }));
        let transcript = json!({ "content_index": 0, "transcript": says });
        self.send_with(&at, "conversation.item.input_audio_transcription.completed", transcript);
        if matches!(self.waiting, Waiting::Tick(awaited) if awaited == number) {
            self.waiting = Waiting::Nothing;
        }
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
