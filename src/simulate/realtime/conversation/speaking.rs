//! Responses and the caller's words: how they begin, are heard, cut each other short, and end.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Conversation, Response, Sound, Tick, Waiting};
use crate::simulate::realtime::events;
use crate::simulate::realtime::script::{Answer, Ending, FunctionCall};

impl Conversation {
    /// Begins a response; `create` is what the client says of it.
    pub(super) fn respond(&mut self, answer: Answer, create: &Value) -> u64 {
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
                self.show_item("conversation.item.added", &shown);
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

    pub(super) fn made(&mut self, serial: u64) {
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
            self.show_item("conversation.item.done", &shown);
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
        self.show_item("conversation.item.added", &shown("in_progress", ""));
        let part =
            json!({ "response_id": response.id, "item_id": item, "output_index": index, "call_id": call_id });
        self.send_with(&part, "response.function_call_arguments.delta", json!({ "delta": arguments }));
        let whole = json!({ "name": call.name, "arguments": arguments });
        self.send_with(&part, "response.function_call_arguments.done", whole);
        let status = if status == "completed" { "completed" } else { "incomplete" };
        let done = shown(status, &arguments);
        self.show_item("conversation.item.done", &done);
        self.send_with(&at, "response.output_item.done", json!({ "item": done }));
        done
    }

    pub(super) fn played(&mut self, serial: u64) {
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

    pub(super) fn wait_for_response(&mut self, serial: u64) {
        self.waiting = Waiting::Response(serial);
        self.at_rest(serial);
    }

    /// Ends the response that is being made early.
    pub(super) fn cancel(&mut self, reason: &str) {
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
    pub(super) fn silence(&mut self, keep: bool) {
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

    pub(super) fn interrupted(&mut self, serial: u64) {
        let Some(says) = self.interruptions.remove(&serial) else { return };
        let active = self.active.as_ref().is_some_and(|response| response.serial == serial);
        if active || self.sounds.iter().any(|sound| sound.serial == serial) {
            let takes = self.time_to_say(&says);
            self.caller_speaks(says, takes);
        }
    }

    /// The caller begins to speak; returns the number of the tick that ends it.
    pub(super) fn caller_speaks(&mut self, says: String, takes: Duration) -> u64 {
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

    pub(super) fn caller_spoke(&mut self, number: u64) {
        let Some((item, says)) = self.saying.remove(&number) else { return };
        let at = json!({ "item_id": item });
        self.send_with(&at, "input_audio_buffer.speech_stopped", json!({ "audio_end_ms": 0 }));
        let before = self.items.last().map_or(Value::Null, |item| item["id"].clone());
        self.send_with(&at, "input_audio_buffer.committed", json!({ "previous_item_id": before }));
        let shown = events::heard(&item);
        self.show_item("conversation.item.added", &shown);
        self.show_item("conversation.item.done", &shown);
        let transcript = json!({ "content_index": 0, "transcript": says });
        self.send_with(&at, "conversation.item.input_audio_transcription.completed", transcript);
        if matches!(self.waiting, Waiting::Tick(awaited) if awaited == number) {
            self.waiting = Waiting::Nothing;
        }
    }
}
