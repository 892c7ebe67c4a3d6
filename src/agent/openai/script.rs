//! What a session is told of its task when its call is accepted: instructions, voice, and the tools that the Assistant has.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::events::{self, Speaker};
use crate::routing::schedule::State;
use crate::routing::table::{AssistantEntry, DestinationEntry, OpenAiEntry, ScriptEntry, Table, TurnEntry};

/// The tool that hands the caller to a human.
pub const TRANSFER: &str = "transfer_call";
/// The tool that ends the call.
pub const END: &str = "end_call";

/// The session of `assistant`, whose agent is `openai`, as `POST …/accept` takes it; `now` decides which destinations are closed.
///
/// The audio format isn't named unless it has to be: SIP negotiates it.
pub fn session(table: &Table, assistant: &AssistantEntry, openai: &OpenAiEntry, now: Timestamp) -> Value {
    let mut session = json!({ "type": "realtime", "output_modalities": ["audio"] });
    if let Some(script) = &assistant.script {
        session["model"] = script.model.clone().into();
        if !script.instructions.is_empty() {
            session["instructions"] = script.instructions.clone().into();
        }
    }
    if let Some(voice) = &openai.voice {
        // One of one's own has an id.
        let own = voice.starts_with("voice_");
        session["audio"]["output"]["voice"] = if own { json!({ "id": voice }) } else { json!(voice) };
    }
    if let Some(format) = &openai.audio_format {
        for direction in ["input", "output"] {
            session["audio"][direction]["format"] = json!({ "type": format });
        }
    }
    let tools = tools(table, assistant, now);
    if !tools.is_empty() {
        session["tools"] = tools.into();
        session["tool_choice"] = "auto".into();
    }
    session
}

/// What the session is to take for the conversation so far.
pub fn turns(script: &ScriptEntry) -> Vec<Value> {
    let turns = script.turns.iter().map(|turn| match turn {
        TurnEntry::Caller(text) => events::turn(Speaker::Caller, text),
        TurnEntry::Assistant(text) => events::turn(Speaker::Assistant, text),
    });
    turns.collect()
}

fn tools(table: &Table, assistant: &AssistantEntry, now: Timestamp) -> Vec<Value> {
    let found = assistant.destinations.iter();
    let listed: Vec<(&str, &DestinationEntry)> = found
        .filter_map(|(name, key)| Some((name.as_str(), table.destinations.get(key)?.as_ref())))
        .collect();
    let end = assistant.script.as_ref().is_some_and(|script| script.can_end).then(|| {
        json!({
            "type": "function",
            "name": END,
            "description": "Ends the call. Say goodbye before you use it, and use it only when the caller is done.",
            "parameters": { "type": "object", "properties": {}, "required": [] },
        })
    });
    let transfer = (!listed.is_empty()).then(|| transfer(&listed, now));
    transfer.into_iter().chain(end).collect()
}

fn transfer(listed: &[(&str, &DestinationEntry)], now: Timestamp) -> Value {
    let names: Vec<&str> = listed.iter().map(|(name, _)| *name).collect();
    let lines = listed.iter().map(|(name, destination)| {
        let closed = match destination.schedule.as_ref().map(|schedule| schedule.at(now)) {
            Some(State::Closed(Some(opens))) => format!(" [closed now, opens {opens}]"),
            Some(State::Closed(None)) => " [closed]".to_owned(),
            Some(State::Open) | None => String::new(),
        };
        let announced = if destination.message.is_some() { " [announced for you]" } else { "" };
        format!("\n- {name}: {}{announced}{closed}", destination.description.trim())
    });
    let description = format!(
        "Hands the caller to one of the destinations below. Tell the caller first, in one short sentence, unless the destination is \
         marked as announced for you. If nobody takes the call, the result says why: tell the caller, and go on helping. Destinations:{}",
        lines.collect::<String>()
    );
    json!({
        "type": "function",
        "name": TRANSFER,
        "description": description,
        "parameters": {
            "type": "object",
            "properties": {
                "destination": { "type": "string", "enum": names, "description": "Who gets the caller." },
            },
            "required": ["destination"],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let destination = |number: &str, more: Value| {
            let mut entry = json!({
                "target": { "number": number }, "description": "Sales - for quotes", "ringTimeoutSeconds": 30,
                "callerId": "preserve", "returnToAssistant": true,
            });
            entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            entry
        };
        let night =
            json!({ "timeZone": "Europe/Amsterdam", "open": [{ "from": "Mon 22:00", "to": "Mon 23:00" }] });
        serde_json::from_value(json!({
            "numbers": {}, "trunks": {},
            "assistants": { "acme/support": {
                "agent": { "openai": {
                    "target": { "uri": "sip:proj_a@sip.api.openai.com;transport=tls", "host": "sip.api.openai.com", "transport": "TLS" },
                    "api": "https://api.openai.com/v1", "answerTimeoutSeconds": 15,
                } },
                "destinations": { "sales": "acme/sales", "night": "acme/night", "gone": "acme/gone" },
                "script": { "model": "gpt-realtime", "instructions": "Be kind.", "canEnd": true },
            } },
            "destinations": {
                "acme/sales": destination("+31612345678", json!({ "message": "One moment." })),
                "acme/night": destination("+31612345679", json!({ "schedule": night })),
            },
        }))
        .unwrap()
    }

    fn session_of(table: &Table, change: impl Fn(&mut OpenAiEntry)) -> Value {
        let assistant = table.assistants.values().next().unwrap();
        let mut openai = assistant.agent.openai().unwrap().clone();
        change(&mut openai);
        // A Monday, noon in Amsterdam.
        session(table, assistant, &openai, "2026-11-23T11:00:00Z".parse().unwrap())
    }

    #[test]
    fn tools_are_made_from_the_destinations_that_there_are() {
        let session = session_of(&table(), |_| {});
        assert_eq!((&session["type"], &session["model"]), (&json!("realtime"), &json!("gpt-realtime")));
        let tools = session["tools"].as_array().unwrap();
        assert_eq!(tools.iter().map(|tool| &tool["name"]).collect::<Vec<_>>(), [TRANSFER, END]);
        let names = &tools[0]["parameters"]["properties"]["destination"]["enum"];
        assert_eq!(names, &json!(["night", "sales"]), "what is in no table can't be chosen");
        let described = tools[0]["description"].as_str().unwrap();
        assert!(
            described.contains("- sales: Sales - for quotes [announced for you]\n")
                || described.ends_with("[announced for you]"),
            "{described}"
        );
        assert!(described.contains("- night: Sales - for quotes [closed now, opens "), "{described}");
    }

    #[test]
    fn an_assistant_without_tools_offers_none() {
        let mut table = table();
        let key = table.assistants.keys().next().unwrap().clone();
        let mut entry = table.assistants.get(&key).unwrap().as_ref().clone();
        entry.destinations.clear();
        entry.script.as_mut().unwrap().can_end = false;
        table.assistants.insert(key, entry.into());
        let session = session_of(&table, |_| {});
        assert!(session.get("tools").is_none() && session.get("tool_choice").is_none(), "{session}");
    }

    #[test]
    fn sip_negotiates_the_audio_unless_a_format_is_named() {
        assert!(session_of(&table(), |_| {}).get("audio").is_none());
        let session = session_of(&table(), |openai| {
            openai.audio_format = Some("audio/pcmu".into());
            openai.voice = Some("marin".into());
        });
        let audio = json!({
            "input": { "format": { "type": "audio/pcmu" } },
            "output": { "format": { "type": "audio/pcmu" }, "voice": "marin" },
        });
        assert_eq!(session["audio"], audio);
        let own = session_of(&table(), |openai| openai.voice = Some("voice_1".into()));
        assert_eq!(own["audio"]["output"]["voice"], json!({ "id": "voice_1" }));
    }
}
