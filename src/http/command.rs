//! The body of `POST /api/v1/calls/{id}/control` → a [`Command`], or an error that names what is wrong with it.
//!
//! Nothing is silently ignored: a field that this version doesn't act on is refused.

use serde_json::{Map, Value};

use super::error::ApiError;
use crate::gateway::control::TransferCommand;
use crate::routing::decide::Wanted;
use crate::routing::uri;

/// Longest message before a transfer, characters: that of a destination's own.
const LONGEST_MESSAGE: usize = 1024;

/// What a call is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `{"type": "transfer", "destination": "…", "message": "…"?}`.
    Transfer(TransferCommand),
    /// `{"type": "end-call"}`.
    EndCall,
}

impl Command {
    /// Its `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Transfer(_) => "transfer",
            Self::EndCall => "end-call",
        }
    }

    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
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
            _ => {
                return Err(ApiError::invalid("type", "type is missing; write \"transfer\" or \"end-call\""));
            }
        };
        Self::of_type(&name, fields)
            .map_err(|error| error.of_command(name.chars().take(64).collect::<String>()))
    }

    fn of_type(name: &str, mut fields: Map<String, Value>) -> Result<Self, ApiError> {
        fields.retain(|_, value| !value.is_null());
        match name {
            "transfer" => {
                let message = message(&mut fields)?;
                let wanted = match fields.remove("destination") {
                    Some(Value::String(text)) => destination(&text)?,
                    Some(_) => return Err(ApiError::invalid("destination", "destination is not a string")),
                    None => return Err(ApiError::invalid("destination", "destination is missing")),
                };
                refuse_others(name, &fields)?;
                Ok(Self::Transfer(TransferCommand { wanted, message }))
            }
            "end-call" => {
                refuse_message(&fields)?;
                refuse_others(name, &fields)?;
                Ok(Self::EndCall)
            }
            "say" | "inject-context" => Err(ApiError::not_supported(
                "type",
                format!("{name}: an agent that is reached over SIP can't be told what to say yet"),
            )),
            _ => Err(ApiError::invalid("type", "no such command; write \"transfer\" or \"end-call\"")),
        }
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

/// What is said before a transfer.
fn message(fields: &mut Map<String, Value>) -> Result<Option<String>, ApiError> {
    match fields.remove("message") {
        None => Ok(None),
        Some(Value::String(text)) if (1..=LONGEST_MESSAGE).contains(&text.chars().count()) => Ok(Some(text)),
        Some(Value::String(_)) => Err(ApiError::invalid(
            "message",
            format!(
                "message has 1 to {LONGEST_MESSAGE} characters; leave it out where nothing is to be said"
            ),
        )),
        Some(_) => Err(ApiError::invalid("message", "message is not a string")),
    }
}

fn refuse_message(fields: &Map<String, Value>) -> Result<(), ApiError> {
    if fields.contains_key("message") {
        let why = "an agent that is reached over SIP can't be told what to say yet; leave message out";
        return Err(ApiError::not_supported("message", why));
    }
    Ok(())
}

fn refuse_others(name: &str, fields: &Map<String, Value>) -> Result<(), ApiError> {
    match fields.keys().next() {
        Some(field) => {
            let field: String = field.chars().take(64).collect();
            Err(ApiError::invalid(field.clone(), format!("{name} has no field '{field}'; leave it out")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(body: Value) -> Result<Command, ApiError> {
        Command::parse(body.to_string().as_bytes())
    }

    fn transfer_to(destination: &str) -> Result<Wanted, ApiError> {
        match parsed(json!({ "type": "transfer", "destination": destination }))? {
            Command::Transfer(command) => Ok(command.wanted),
            Command::EndCall => panic!("not a transfer"),
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
            (json!({ "type": "end-call", "message": "Bye" }), "message"),
            (json!({ "type": "end-call", "destination": "sales" }), "destination"),
            (json!({ "type": "say", "content": "Hello" }), "type"),
            (json!({ "type": "inject-context", "content": "x" }), "type"),
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
        let Ok(Command::Transfer(command)) = parsed(body) else { panic!("not a transfer") };
        assert_eq!(command.message.as_deref(), Some("One moment…"));
    }

    #[test]
    fn an_absent_message_may_be_spelled_null() {
        assert_eq!(parsed(json!({ "type": "end-call", "message": null })), Ok(Command::EndCall));
    }

    #[test]
    fn a_body_that_is_no_json_object_is_refused() {
        for body in ["", "{", "[]", "null", "\"transfer\"", "type=transfer", "\u{0}"] {
            assert_eq!(Command::parse(body.as_bytes()).unwrap_err().status, 400, "{body}");
        }
        let deep = "[".repeat(60_000);
        assert_eq!(Command::parse(deep.as_bytes()).unwrap_err().status, 400);
    }
}
