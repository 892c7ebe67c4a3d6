//! Events of a session as far as they matter here: what the server tells, and what it is told.
//!
//! The server's list of events and fields grows without notice: what isn't known is passed over, every field may be missing,
//! and words that have a fixed list today are text.

use serde::Deserialize;
use serde_json::{Value, json};

/// What the server tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// A response begins; `tag` is ours if we asked for it.
    Begun {
        /// Its id.
        id: String,
        /// See [`respond`].
        tag: Option<u32>,
    },
    /// A response was made; it may still be playing.
    Done(Response),
    /// A response is heard from now on.
    Playing(String),
    /// It was heard to its end.
    Played(String),
    /// It was cut off.
    CutOff(String),
    /// An item is in the conversation.
    Item {
        /// Its id.
        id: String,
        /// That of the one before it.
        before: Option<String>,
    },
    /// An item that was asked for is a call of a tool: see [`retrieve`].
    Found(Call),
    /// Something didn't work.
    Error {
        /// A fixed word, if there is one.
        code: String,
        /// A sentence.
        message: String,
        /// The number of the request that it is about, if it is one for a response.
        tag: Option<u32>,
    },
    /// Something else.
    Other,
}

/// A response that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Its id.
    pub id: String,
    /// How it ended.
    pub ending: Ending,
    /// Whether something is to be heard.
    pub speaks: bool,
    /// What the model wants done; only if the response is whole.
    pub calls: Vec<Call>,
}

/// How a response ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is whole.
    Completed,
    /// The caller spoke, or we cancelled it.
    Cancelled,
    /// It broke off at a limit.
    Incomplete,
    /// There is none; why.
    Failed(String),
}

/// A tool that the model calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Names the call; the result carries it.
    pub id: String,
    /// The tool.
    pub name: String,
    /// JSON, as the model writes it: it may be wrong.
    pub arguments: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    #[serde(rename = "type")]
    kind: String,
    response_id: Option<String>,
    previous_item_id: Option<String>,
    item: RawItem,
    response: RawResponse,
    error: RawError,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawResponse {
    id: Option<String>,
    status: Option<String>,
    status_details: Option<Value>,
    metadata: Option<Value>,
    output: Vec<RawItem>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawItem {
    id: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    status: Option<String>,
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    content: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawError {
    code: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    message: Option<String>,
    event_id: Option<String>,
}

impl RawItem {
    /// The call of a tool, if it is one.
    fn call(self) -> Option<Call> {
        (self.kind == "function_call").then_some(())?;
        Some(Call { id: self.call_id?, name: self.name?, arguments: self.arguments.unwrap_or_default() })
    }
}

/// Reads an event. One that can't be read is one that isn't known.
pub fn read(text: &str) -> Told {
    let Ok(raw) = serde_json::from_str::<Raw>(text) else { return Told::Other };
    let of_response = |told: fn(String) -> Told| raw.response_id.clone().map_or(Told::Other, told);
    match raw.kind.as_str() {
        "response.created" => match raw.response.id {
            Some(id) => Told::Begun { id, tag: raw.response.metadata.as_ref().and_then(tag_of) },
            None => Told::Other,
        },
        "response.done" => response(raw.response).map_or(Told::Other, Told::Done),
        "output_audio_buffer.started" => of_response(Told::Playing),
        "output_audio_buffer.stopped" => of_response(Told::Played),
        "output_audio_buffer.cleared" => of_response(Told::CutOff),
        "conversation.item.added" | "conversation.item.created" | "conversation.item.done" => {
            match raw.item.id {
                Some(id) => Told::Item { id, before: raw.previous_item_id },
                None => Told::Other,
            }
        }
        "conversation.item.retrieved"
            if raw.item.status.as_deref().is_none_or(|status| status == "completed") =>
        {
            raw.item.call().map_or(Told::Other, Told::Found)
        }
        "error" => Told::Error {
            code: raw.error.code.or(raw.error.kind).unwrap_or_default(),
            message: raw.error.message.unwrap_or_default(),
            tag: raw.error.event_id.and_then(|id| id.strip_prefix(EVENT)?.parse().ok()),
        },
        _ => Told::Other,
    }
}

fn response(raw: RawResponse) -> Option<Response> {
    let ending = match raw.status.as_deref() {
        Some("completed") => Ending::Completed,
        Some("cancelled") => Ending::Cancelled,
        Some("incomplete") => Ending::Incomplete,
        _ => {
            let details = raw.status_details.unwrap_or_default();
            let code = ["/error/code", "/error/type", "/reason"]
                .iter()
                .find_map(|path| details.pointer(path).and_then(Value::as_str).map(str::to_owned));
            Ending::Failed(code.unwrap_or_else(|| "no reason given".to_owned()))
        }
    };
    let speaks = raw.output.iter().any(|item| item.kind == "message" && !item.content.is_empty());
    let calls = raw.output.into_iter().filter_map(RawItem::call);
    let calls = if ending == Ending::Completed { calls.collect() } else { Vec::new() };
    Some(Response { id: raw.id?, ending, speaks, calls })
}

/// Key of our number in a response's metadata.
const TAG: &str = "voicedock";
/// How the ids of our requests for responses begin.
const EVENT: &str = "voicedock-";

fn tag_of(metadata: &Value) -> Option<u32> {
    metadata.get(TAG)?.as_str()?.parse().ok()
}

/// Whom a turn is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// Whoever set the assistant up.
    System,
    /// The caller.
    Caller,
    /// The assistant.
    Assistant,
}

/// Asks for a response; what it says by itself, or with these instructions for it. `tag` comes back in [`Told::Begun`].
pub fn respond(tag: u32, instructions: Option<&str>) -> Value {
    let mut response = json!({ "metadata": { TAG: tag.to_string() } });
    if let Some(instructions) = instructions {
        response["instructions"] = instructions.into();
    }
    json!({ "type": "response.create", "event_id": format!("{EVENT}{tag}"), "response": response })
}

/// Asks for a response that says these words and nothing else.
pub fn say(tag: u32, words: &str) -> Value {
    // What was said before would tempt the model to answer that.
    let instructions = format!(
        "Say exactly the following, word for word, in its own language, and nothing else: \"{words}\""
    );
    let mut event = respond(tag, Some(&instructions));
    event["response"]["input"] = json!([]);
    event["response"]["tool_choice"] = "none".into();
    event
}

/// Stops whatever is being said.
pub fn be_silent(generating: bool) -> Vec<Value> {
    let cancel = generating.then(|| json!({ "type": "response.cancel" }));
    cancel.into_iter().chain([json!({ "type": "output_audio_buffer.clear" })]).collect()
}

/// Whether what the caller says interrupts the assistant, and is answered.
pub fn listen(listens: bool) -> Value {
    let detection =
        json!({ "type": "server_vad", "create_response": listens, "interrupt_response": listens });
    json!({
        "type": "session.update",
        "session": { "type": "realtime", "audio": { "input": { "turn_detection": detection } } },
    })
}

/// The result of a tool.
pub fn result(call: &str, output: &Value) -> Value {
    let item = json!({ "type": "function_call_output", "call_id": call, "output": output.to_string() });
    json!({ "type": "conversation.item.create", "item": item })
}

/// Asks for an item of the conversation.
pub fn retrieve(item: &str) -> Value {
    json!({ "type": "conversation.item.retrieve", "item_id": item })
}

/// Adds a turn to the conversation that nobody hears.
pub fn turn(speaker: Speaker, text: &str) -> Value {
    let (role, kind) = match speaker {
        Speaker::System => ("system", "input_text"),
        Speaker::Caller => ("user", "input_text"),
        Speaker::Assistant => ("assistant", "output_text"),
    };
    let item = json!({ "type": "message", "role": role, "content": [{ "type": kind, "text": text }] });
    json!({ "type": "conversation.item.create", "item": item })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_passed_over() {
        for text in [
            "",
            "no JSON",
            "[]",
            r#"{"type":"rate_limits.updated"}"#,
            r#"{"type":"response.cancelled","response":{"id":"r"}}"#,
            r#"{"type":"input_audio_buffer.dtmf_event_received","event":"5"}"#,
            r#"{"type":"response.created","response":{}}"#,
            r#"{"type":"output_audio_buffer.stopped"}"#,
        ] {
            assert_eq!(read(text), Told::Other, "{text}");
        }
    }

    #[test]
    fn a_response_comes_back_with_its_number() {
        let asked = say(7, "One moment.");
        let created = json!({
            "type": "response.created", "event_id": "e",
            "response": { "id": "resp_1", "metadata": asked["response"]["metadata"], "obfuscation": "x" },
        });
        assert_eq!(read(&created.to_string()), Told::Begun { id: "resp_1".into(), tag: Some(7) });
        let by_itself = r#"{"type":"response.created","response":{"id":"resp_2","metadata":null}}"#;
        assert_eq!(read(by_itself), Told::Begun { id: "resp_2".into(), tag: None });
        let error =
            json!({ "type": "error", "error": { "code": "invalid_value", "event_id": asked["event_id"] } });
        let told = Told::Error { code: "invalid_value".into(), message: String::new(), tag: Some(7) };
        assert_eq!(read(&error.to_string()), told);
    }

    #[test]
    fn an_item_that_was_asked_for_counts_if_it_is_a_whole_call_of_a_tool() {
        let retrieved = |item: Value| {
            read(&json!({ "type": "conversation.item.retrieved", "event_id": "e", "item": item }).to_string())
        };
        let call = json!({ "id": "i", "type": "function_call", "status": "completed", "call_id": "c", "name": "end_call" });
        let found = Call { id: "c".into(), name: "end_call".into(), arguments: String::new() };
        assert_eq!(retrieved(call.clone()), Told::Found(found));
        let broken_off =
            json!({ "type": "function_call", "status": "incomplete", "call_id": "c", "name": "end_call" });
        let words = json!({ "id": "i", "type": "message", "status": "completed", "content": [] });
        assert_eq!((retrieved(broken_off), retrieved(words)), (Told::Other, Told::Other));
        let added = json!({ "type": "conversation.item.added", "previous_item_id": "i", "item": call });
        assert_eq!(read(&added.to_string()), Told::Item { id: "i".into(), before: Some("i".into()) });
    }

    #[test]
    fn tools_count_in_whole_responses_only() {
        let done = |status: &str| {
            let done = json!({ "type": "response.done", "response": {
                "id": "resp_1", "status": status, "status_details": { "error": { "code": "model_not_found" } },
                "output": [
                    { "type": "message", "content": [{ "type": "output_audio", "transcript": "Sure." }] },
                    { "type": "function_call", "call_id": "call_1", "name": "end_call", "arguments": "{}" },
                    { "type": "function_call", "call_id": "call_2" },
                ],
            } });
            match read(&done.to_string()) {
                Told::Done(response) => response,
                other => panic!("{other:?}"),
            }
        };
        let call = Call { id: "call_1".into(), name: "end_call".into(), arguments: "{}".into() };
        let whole = done("completed");
        assert_eq!((whole.ending, whole.calls, whole.speaks), (Ending::Completed, vec![call], true));
        assert_eq!(done("cancelled").calls, []);
        assert_eq!(done("incomplete").calls, []);
        assert_eq!(done("failed").ending, Ending::Failed("model_not_found".into()));
    }
}
