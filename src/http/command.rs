//! The body of `POST /api/v1/calls/{id}/control` → a [`Command`] to the call machine, or an error that names what is wrong with it.
//!
//! Nothing is silently ignored: a field that this version doesn't act on is refused.

use schemars::JsonSchema;
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::call::Command;
use crate::routing::decide::Wanted;
use crate::routing::uri;

/// Longest message before a transfer, characters: that of a destination's own.
const LONGEST_MESSAGE: usize = 1024;
/// Longest thing that is said on its own, characters: about five minutes.
const LONGEST_SPEECH: usize = 4096;
/// Longest context, characters.
const LONGEST_CONTEXT: usize = 16_384;

/// Reads a body.
///
/// ```json
/// {"type": "transfer", "destination": "+31612345678", "message": "One moment, I'm transferring you."}
/// {"type": "say", "content": "Are you still there?", "end_after": false}
/// {"type": "inject-context", "content": "The caller's order has left.", "trigger_response": true}
/// {"type": "end-call", "message": "Thank you for calling."}
/// ```
pub fn parse(body: &[u8]) -> Result<Command, ApiError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        ApiError::unreadable(format!("the body is not JSON (line {}): {error}", error.line()))
    })?;
    let Value::Object(mut fields) = value else {
        return Err(ApiError::unreadable(
            "the body is not a JSON object such as {\"type\": \"transfer\", \"destination\": \"+31612345678\"}",
        ));
    };
    let name = match fields.remove("type") {
        Some(Value::String(name)) => name,
        _ => return Err(ApiError::invalid("type", format!("type is missing; {TYPES}"))),
    };
    of_type(&name, fields).map_err(|error| error.of_command(name.chars().take(64).collect::<String>()))
}

/// What there is to write, as the OpenAPI document says it; [`parse`] reads it.
#[derive(JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used: what is wrong is refused by the name of its field")]
pub enum Shape {
    /// Hands the caller over.
    Transfer {
        /// E.164, a SIP URI, or the name of one of the assistant's destinations.
        destination: String,
        /// What the assistant says before.
        #[schemars(length(min = 1, max = LONGEST_MESSAGE))]
        message: Option<String>,
    },
    /// Has the assistant say something.
    Say {
        /// What.
        #[schemars(length(min = 1, max = LONGEST_SPEECH))]
        content: String,
        /// Whether the call ends when it was heard.
        end_after: Option<bool>,
    },
    /// Tells the assistant something that the caller doesn't hear.
    InjectContext {
        /// What.
        #[schemars(length(min = 1, max = LONGEST_CONTEXT))]
        content: String,
        /// Whether the assistant answers to it.
        trigger_response: Option<bool>,
    },
    /// Hangs up.
    EndCall {
        /// What the assistant says before.
        #[schemars(length(min = 1, max = LONGEST_MESSAGE))]
        message: Option<String>,
    },
}

/// What there is to write.
const TYPES: &str = "write \"transfer\", \"say\", \"inject-context\" or \"end-call\"";

fn of_type(name: &str, mut fields: Map<String, Value>) -> Result<Command, ApiError> {
    fields.retain(|_, value| !value.is_null());
    let fields_of = &mut fields;
    let command = match name {
        "transfer" => Command::Transfer {
            message: text(fields_of, "message", LONGEST_MESSAGE)?,
            wanted: destination(&required(fields_of, "destination", usize::MAX)?)?,
        },
        "say" => Command::Say {
            content: required(fields_of, "content", LONGEST_SPEECH)?,
            end_after: flag(fields_of, "end_after")?,
        },
        "inject-context" => Command::Inject {
            content: required(fields_of, "content", LONGEST_CONTEXT)?,
            trigger_response: flag(fields_of, "trigger_response")?,
        },
        "end-call" => Command::End { message: text(fields_of, "message", LONGEST_SPEECH)? },
        _ => return Err(ApiError::invalid("type", format!("no such command; {TYPES}"))),
    };
    match fields.keys().next() {
        Some(field) => {
            let field: String = field.chars().take(64).collect();
            Err(ApiError::invalid(field.clone(), format!("{name} has no field '{field}'; leave it out")))
        }
        None => Ok(command),
    }
}

/// E.164, a SIP URI, or the name of one of the assistant's destinations (which the routing table knows).
fn destination(text: &str) -> Result<Wanted, ApiError> {
    let wrong = |why: String| ApiError::invalid("destination", why);
    let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    if let Some("sip" | "sips") = scheme.as_deref() {
        return uri::parse_target(text, None).map(Wanted::Uri).map_err(|error| wrong(error.to_string()));
    }
    if text.starts_with('+') {
        return text.parse().map(Wanted::Number).map_err(wrong);
    }
    let name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if (1..=253).contains(&text.len()) && text.bytes().all(name) {
        return Ok(Wanted::Name(text.to_owned()));
    }
    let shown: String = text.chars().take(64).collect();
    Err(wrong(format!(
        "'{shown}' is neither a number in E.164 such as +31612345678, nor a SIP URI such as sip:sales@pbx.example.com, nor \
         the name of one of the assistant's destinations"
    )))
}

/// A text that has to be there.
fn required(fields: &mut Map<String, Value>, field: &str, longest: usize) -> Result<String, ApiError> {
    text(fields, field, longest)?.ok_or_else(|| ApiError::invalid(field, format!("{field} is missing")))
}

/// A text of 1 to so many characters, if there is one.
fn text(fields: &mut Map<String, Value>, field: &str, longest: usize) -> Result<Option<String>, ApiError> {
    match fields.remove(field) {
        None => Ok(None),
        Some(Value::String(text)) if (1..=longest).contains(&text.chars().count()) => Ok(Some(text)),
        Some(Value::String(text)) if text.is_empty() => {
            Err(ApiError::invalid(field, format!("{field} is empty")))
        }
        Some(Value::String(_)) => {
            Err(ApiError::invalid(field, format!("{field} has more than {longest} characters")))
        }
        Some(_) => Err(ApiError::invalid(field, format!("{field} is not a string"))),
    }
}

/// A switch that is off when it is left out.
fn flag(fields: &mut Map<String, Value>, field: &str) -> Result<bool, ApiError> {
    match fields.remove(field) {
        None => Ok(false),
        Some(Value::Bool(on)) => Ok(on),
        Some(_) => Err(ApiError::invalid(field, format!("{field} is neither true nor false"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(body: Value) -> Result<Command, ApiError> {
        parse(body.to_string().as_bytes())
    }

    fn transfer_to(destination: &str) -> Result<Wanted, ApiError> {
        match parsed(json!({ "type": "transfer", "destination": destination }))? {
            Command::Transfer { wanted, .. } => Ok(wanted),
            _ => panic!("not a transfer"),
        }
    }

    #[test]
    fn a_destination_is_a_number_a_uri_or_a_name() {
        assert_eq!(transfer_to("+31612345678"), Ok(Wanted::Number("+31612345678".parse().unwrap())));
        assert_eq!(transfer_to("sales"), Ok(Wanted::Name("sales".to_owned())));
        let target = uri::parse_target("sip:sales@pbx.example.com", None).unwrap();
        assert_eq!(transfer_to("sip:sales@pbx.example.com"), Ok(Wanted::Uri(target)));
    }

    #[test]
    fn a_wrong_destination_is_refused_by_the_name_of_its_field() {
        for wrong in [
            "",
            "+0612345678",
            "+31 6 12345678",
            "06-12345678 ",
            "tel:+31612345678",
            "sip:",
            "sips:sales@pbx.example.com",
            "sip:sales@pbx.example.com?Replaces=1",
            "sip:sales@pbx.example.com\r\nX-Injected: 1",
            "Sales Team",
            "sales@pbx.example.com",
        ] {
            let error = transfer_to(wrong).unwrap_err();
            assert_eq!(error.status, 400, "{wrong}");
            assert_eq!(error.body.param.as_deref(), Some("destination"), "{wrong}");
            assert_eq!(error.body.command.as_deref(), Some("transfer"), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_acted_on_is_refused() {
        for (body, param) in [
            (json!({ "type": "transfer", "destination": "sales", "message": "" }), "message"),
            (json!({ "type": "transfer", "destination": "sales", "message": "a".repeat(1025) }), "message"),
            (json!({ "type": "transfer", "destination": "sales", "message": 1 }), "message"),
            (json!({ "type": "transfer", "destination": "sales", "trunk": "x" }), "trunk"),
            (json!({ "type": "transfer", "destination": 31 }), "destination"),
            (json!({ "type": "transfer" }), "destination"),
            (json!({ "type": "end-call", "message": "" }), "message"),
            (json!({ "type": "end-call", "destination": "sales" }), "destination"),
            (json!({ "type": "say" }), "content"),
            (json!({ "type": "say", "content": "" }), "content"),
            (json!({ "type": "say", "content": "a".repeat(4097) }), "content"),
            (json!({ "type": "say", "content": "Hello", "end_after": "yes" }), "end_after"),
            (json!({ "type": "say", "content": "Hello", "trigger_response": true }), "trigger_response"),
            (json!({ "type": "inject-context", "trigger_response": true }), "content"),
            (json!({ "type": "inject-context", "content": "x", "end_after": true }), "end_after"),
            (json!({ "type": "dance" }), "type"),
            (json!({ "type": 1 }), "type"),
            (json!({}), "type"),
        ] {
            let error = parsed(body.clone()).unwrap_err();
            assert_eq!((error.status.as_u16(), error.body.param.as_deref()), (400, Some(param)), "{body}");
        }
    }

    #[test]
    fn a_transfer_may_have_a_message() {
        let body = json!({ "type": "transfer", "destination": "sales", "message": "One moment…" });
        let Ok(Command::Transfer { message, .. }) = parsed(body) else { panic!("not a transfer") };
        assert_eq!(message.as_deref(), Some("One moment…"));
    }

    #[test]
    fn an_agent_can_be_told_what_to_say_and_what_to_know() {
        let content = || "Hello".to_owned();
        for (body, command) in [
            (
                json!({ "type": "say", "content": "Hello" }),
                Command::Say { content: content(), end_after: false },
            ),
            (
                json!({ "type": "say", "content": "Hello", "end_after": true }),
                Command::Say { content: content(), end_after: true },
            ),
            (
                json!({ "type": "inject-context", "content": "Hello", "trigger_response": true }),
                Command::Inject { content: content(), trigger_response: true },
            ),
            (json!({ "type": "end-call", "message": "Hello" }), Command::End { message: Some(content()) }),
        ] {
            assert_eq!(parsed(body.clone()), Ok(command), "{body}");
        }
    }

    #[test]
    fn an_absent_message_may_be_spelled_null() {
        assert_eq!(
            parsed(json!({ "type": "end-call", "message": null })),
            Ok(Command::End { message: None })
        );
    }

    #[test]
    fn a_body_that_is_no_json_object_is_refused() {
        for body in ["", "{", "[]", "null", "\"transfer\"", "type=transfer", "\u{0}"] {
            assert_eq!(parse(body.as_bytes()).unwrap_err().status, 400, "{body}");
        }
        let deep = "[".repeat(60_000);
        assert_eq!(parse(deep.as_bytes()).unwrap_err().status, 400);
    }
}
