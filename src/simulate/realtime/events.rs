//! Events of the client, read; and the parts of which events to the client are made.

use serde_json::{Value, json};

use super::schema::{Kind, Misfit, may, must};
use super::session::{MAX_OUTPUT, METADATA, MODALITIES, TOOL_CHOICE, TOOLS};

/// What the client wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ClientEvent<'a> {
    /// `session.update`
    Update(&'a Value),
    /// `response.create`, with what it says of the response.
    Create(&'a Value),
    /// `response.cancel`
    Cancel,
    /// `output_audio_buffer.clear`
    ClearOutput,
    /// `input_audio_buffer.clear`
    ClearInput,
    /// `conversation.item.create` with what came of a function call.
    Outcome {
        /// Of which.
        call_id: &'a str,
        /// All of it.
        item: &'a Value,
    },
    /// `conversation.item.create` with words.
    Message(&'a Value),
    /// `conversation.item.retrieve`
    Retrieve(&'a str),
    /// `conversation.item.delete`, `.truncate`.
    Item {
        /// The event that says that it was done.
        done: &'static str,
        /// Which.
        item_id: &'a str,
    },
}

const TEXT: Kind = Kind::Text(1 << 20);
const ID: Kind = Kind::Text(512);
/// Of an item, where the client gives it.
const ITEM_ID: Kind = Kind::Text(32);
const EVENT_ID: super::schema::Field = may("event_id", ID);
const ITEM: Kind = Kind::Typed(&[
    (
        "message",
        &[
            may("id", ITEM_ID),
            may("object", Kind::Word(&["realtime.item"])),
            may("status", ID),
            must("role", Kind::Word(&["user", "system", "assistant"])),
            must(
                "content",
                Kind::List(&Kind::Typed(&[
                    ("input_text", &[must("text", TEXT)]),
                    ("output_text", &[must("text", TEXT)]),
                ])),
            ),
        ],
    ),
    (
        "function_call_output",
        &[
            may("id", ITEM_ID),
            may("object", Kind::Word(&["realtime.item"])),
            may("status", ID),
            must("call_id", ID),
            must("output", TEXT),
        ],
    ),
]);
const RESPONSE: Kind = Kind::Object(&[
    may("instructions", TEXT),
    may("input", Kind::List(&ITEM)),
    may("conversation", Kind::Word(&["auto", "none"])),
    may("tools", TOOLS),
    may("tool_choice", TOOL_CHOICE),
    may("output_modalities", MODALITIES),
    may("max_output_tokens", MAX_OUTPUT),
    may("metadata", METADATA),
    may("prompt", Kind::Map),
    may("audio", Kind::Map),
]);
const EVENT: Kind = Kind::Typed(&[
    ("session.update", &[EVENT_ID, must("session", Kind::Map)]),
    ("response.create", &[EVENT_ID, may("response", RESPONSE)]),
    ("response.cancel", &[EVENT_ID, may("response_id", ID)]),
    ("output_audio_buffer.clear", &[EVENT_ID]),
    ("input_audio_buffer.clear", &[EVENT_ID]),
    ("conversation.item.create", &[EVENT_ID, may("previous_item_id", Kind::OrNull(&ID)), must("item", ITEM)]),
    ("conversation.item.retrieve", &[EVENT_ID, must("item_id", ID)]),
    ("conversation.item.delete", &[EVENT_ID, must("item_id", ID)]),
    (
        "conversation.item.truncate",
        &[
            EVENT_ID,
            must("item_id", ID),
            must("content_index", Kind::Number(0.0, 64.0)),
            must("audio_end_ms", Kind::Number(0.0, 1e9)),
        ],
    ),
]);

/// Reads an event; audio, which a call gets from SIP, is none.
pub fn read(event: &Value) -> Result<ClientEvent<'_>, Misfit> {
    if !event.is_object() {
        let message = "We could not parse the JSON body of your event.".to_owned();
        return Err(Misfit { code: "invalid_json", param: String::new(), message });
    }
    EVENT.check(event, "")?;
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    Ok(match text("type") {
        "session.update" => ClientEvent::Update(&event["session"]),
        "response.create" => ClientEvent::Create(&event["response"]),
        "response.cancel" => ClientEvent::Cancel,
        "output_audio_buffer.clear" => ClientEvent::ClearOutput,
        "input_audio_buffer.clear" => ClientEvent::ClearInput,
        "conversation.item.create" => {
            let item = &event["item"];
            match item["call_id"].as_str() {
                Some(call_id) => ClientEvent::Outcome { call_id, item },
                None => said_by(item).map(|()| ClientEvent::Message(item))?,
            }
        }
        "conversation.item.retrieve" => ClientEvent::Retrieve(text("item_id")),
        "conversation.item.delete" => {
            ClientEvent::Item { done: "conversation.item.deleted", item_id: text("item_id") }
        }
        _ => ClientEvent::Item { done: "conversation.item.truncated", item_id: text("item_id") },
    })
}

/// Words of the assistant are output, all others input.
fn said_by(item: &Value) -> Result<(), Misfit> {
    let wanted = if item["role"] == "assistant" { "output_text" } else { "input_text" };
    let parts = item["content"].as_array().into_iter().flatten();
    match parts.enumerate().find(|(_, part)| part["type"] != wanted) {
        Some((index, _)) => Err(Misfit::invalid(
            &format!("item.content[{index}].type"),
            &format!("supported values are {wanted}"),
        )),
        None => Ok(()),
    }
}

/// What the model says that is told so: the quoted sentence of its instructions, else all of them.
pub fn told(instructions: Option<&str>) -> String {
    let Some(instructions) = instructions else { return "All right.".to_owned() };
    let quoted = instructions.split_once('"').and_then(|(_, rest)| Some(rest.rsplit_once('"')?.0));
    let read = quoted.or_else(|| Some(instructions.split_once("exactly:")?.1.trim()));
    read.unwrap_or(instructions).to_owned()
}

/// A response.
pub fn response(id: &str, status: &str, details: &Value, output: &[Value], metadata: &Value) -> Value {
    json!({ "object": "realtime.response", "id": id, "status": status, "status_details": details, "output": output,
            "output_modalities": ["audio"], "metadata": metadata, "usage": null })
}

/// What the model says.
pub fn speech(item: &str, status: &str, transcript: &str) -> Value {
    let content = match transcript {
        "" => json!([]),
        transcript => json!([{ "type": "output_audio", "transcript": transcript }]),
    };
    json!({ "id": item, "object": "realtime.item", "type": "message", "role": "assistant", "status": status,
            "content": content })
}

/// What the caller says.
pub fn heard(item: &str) -> Value {
    json!({ "id": item, "object": "realtime.item", "type": "message", "role": "user", "status": "completed",
            "content": [{ "type": "input_audio", "transcript": null }] })
}

/// A key that the caller pressed: the one event without an id.
pub fn dtmf(key: char) -> Value {
    json!({ "type": "input_audio_buffer.dtmf_event_received", "event": key.to_string(), "received_at": 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quoted_sentence_of_the_instructions_is_what_is_said() {
        for (instructions, said) in [
            (Some("Say exactly: \"One \"moment\".\" Add nothing."), "One \"moment\"."),
            (Some("Say exactly: One moment."), "One moment."),
            (Some("Greet the caller"), "Greet the caller"),
            (None, "All right."),
        ] {
            assert_eq!(told(instructions), said);
        }
    }

    #[test]
    fn an_event_that_the_api_does_not_take_is_refused() {
        for (event, code, param) in [
            (json!("x"), "invalid_json", ""),
            (json!({}), "missing_required_parameter", "type"),
            (json!({"type": "input_audio_buffer.append", "audio": ""}), "invalid_value", "type"),
            (json!({"type": "session.update"}), "missing_required_parameter", "session"),
            (json!({"type": "response.create", "model": "x"}), "unknown_parameter", "model"),
            (
                json!({"type": "conversation.item.create", "item": {"type": "message", "role": "system",
                    "content": [{"type": "output_text", "text": "x"}]}}),
                "invalid_value",
                "item.content[0].type",
            ),
            (
                json!({"type": "conversation.item.create",
                       "item": {"type": "function_call_output", "call_id": "c", "output": {"a": 1}}}),
                "invalid_type",
                "item.output",
            ),
        ] {
            let misfit = read(&event).unwrap_err();
            assert_eq!((misfit.code, &*misfit.param), (code, param), "{event}");
        }
    }
}
