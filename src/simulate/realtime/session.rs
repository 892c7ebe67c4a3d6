//! A session as `accept` and `session.update` describe it, and what of it the double acts on.
//!
//! Strict where the public reference says what the API takes; what it is known to refuse on a call though the reference lists
//! it (the thresholds of `turn_detection`) is refused here as well.

use serde_json::{Value, json};

use super::schema::{Field, Kind, Misfit, may, must};

/// Models with which a session can be had.
const MODELS: &[&str] = &[
    "gpt-realtime",
    "gpt-realtime-2025-08-28",
    "gpt-realtime-1.5",
    "gpt-realtime-2",
    "gpt-realtime-2.1",
    "gpt-realtime-2.1-mini",
    "gpt-realtime-mini",
    "gpt-realtime-mini-2025-10-06",
    "gpt-realtime-mini-2025-12-15",
    "gpt-4o-realtime-preview",
    "gpt-4o-realtime-preview-2024-10-01",
    "gpt-4o-realtime-preview-2024-12-17",
    "gpt-4o-realtime-preview-2025-06-03",
    "gpt-4o-mini-realtime-preview",
    "gpt-4o-mini-realtime-preview-2024-12-17",
    "gpt-audio-1.5",
    "gpt-audio-mini",
    "gpt-audio-mini-2025-10-06",
    "gpt-audio-mini-2025-12-15",
];
const VOICES: &[&str] =
    &["alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"];
const LONG: usize = 1 << 20;

const TEXT: Kind = Kind::Text(LONG);
const FORMAT: Kind = Kind::Typed(&[
    ("audio/pcm", &[may("rate", Kind::Number(24_000.0, 24_000.0))]),
    ("audio/pcmu", &[]),
    ("audio/pcma", &[]),
]);
const VOICE: Kind = Kind::Either(&[Kind::Object(&[must("id", TEXT)]), Kind::Word(VOICES)]);
const TURN_DETECTION: Kind = Kind::OrNull(&Kind::Typed(&[
    (
        "server_vad",
        &[
            may("idle_timeout_ms", Kind::OrNull(&Kind::Number(5_000.0, 30_000.0))),
            may("create_response", Kind::Bool),
            may("interrupt_response", Kind::Bool),
        ],
    ),
    (
        "semantic_vad",
        &[
            may("eagerness", Kind::Word(&["low", "medium", "high", "auto"])),
            may("create_response", Kind::Bool),
            may("interrupt_response", Kind::Bool),
        ],
    ),
]));
const TRANSCRIPTION: Kind = Kind::OrNull(&Kind::Object(&[
    may("model", Kind::Text(64)),
    may("language", Kind::Text(16)),
    may("prompt", TEXT),
]));
const AUDIO: Kind = Kind::Object(&[
    may(
        "input",
        Kind::Object(&[
            may("format", FORMAT),
            may("transcription", TRANSCRIPTION),
            may(
                "noise_reduction",
                Kind::OrNull(&Kind::Object(&[must("type", Kind::Word(&["near_field", "far_field"]))])),
            ),
            may("turn_detection", TURN_DETECTION),
        ]),
    ),
    may(
        "output",
        Kind::Object(&[may("format", FORMAT), may("voice", VOICE), may("speed", Kind::Number(0.25, 1.5))]),
    ),
]);
/// What makes a function known.
const FUNCTION: &[Field] =
    &[must("name", Kind::Text(64)), may("description", TEXT), may("parameters", Kind::Map)];
/// Tools of a session or a response.
pub const TOOLS: Kind = Kind::List(&Kind::Typed(&[("function", FUNCTION)]));
/// Which of them is to be used.
pub const TOOL_CHOICE: Kind = Kind::Either(&[
    Kind::Typed(&[("function", &[must("name", Kind::Text(64))])]),
    Kind::Word(&["none", "auto", "required"]),
]);
/// How much may come out.
pub const MAX_OUTPUT: Kind = Kind::Either(&[Kind::Word(&["inf"]), Kind::Number(1.0, 4096.0)]);
/// Speech or text.
pub const MODALITIES: Kind = Kind::List(&Kind::Word(&["audio", "text"]));
/// Up to 16 texts of the client's own.
pub const METADATA: Kind = Kind::OrNull(&Kind::Map);

const SESSION: Kind = Kind::Object(&[
    must("type", Kind::Word(&["realtime"])),
    may("model", Kind::Text(128)),
    may("instructions", TEXT),
    may("output_modalities", MODALITIES),
    may("max_output_tokens", MAX_OUTPUT),
    may("tools", TOOLS),
    may("tool_choice", TOOL_CHOICE),
    may("parallel_tool_calls", Kind::Bool),
    may(
        "reasoning",
        Kind::OrNull(&Kind::Object(&[may(
            "effort",
            Kind::Word(&["minimal", "low", "medium", "high", "xhigh"]),
        )])),
    ),
    may(
        "truncation",
        Kind::Either(&[
            Kind::Typed(&[(
                "retention_ratio",
                &[
                    must("retention_ratio", Kind::Number(0.0, 1.0)),
                    may("token_limits", Kind::Object(&[may("post_instructions", Kind::Number(0.0, 1e9))])),
                ],
            )]),
            Kind::Word(&["auto", "disabled"]),
        ]),
    ),
    may(
        "tracing",
        Kind::OrNull(&Kind::Either(&[
            Kind::Object(&[may("workflow_name", TEXT), may("group_id", TEXT), may("metadata", Kind::Map)]),
            Kind::Word(&["auto"]),
        ])),
    ),
    may(
        "prompt",
        Kind::OrNull(&Kind::Object(&[must("id", TEXT), may("version", TEXT), may("variables", Kind::Map)])),
    ),
    may("include", Kind::OrNull(&Kind::List(&TEXT))),
    may("audio", AUDIO),
]);

/// A session.
#[derive(Clone, Debug)]
pub struct Session(Value);

impl Session {
    /// The one that the body of `accept` describes.
    pub fn of(body: &Value) -> Result<Self, Misfit> {
        check(body)?;
        let model = body["model"].as_str().ok_or_else(|| Misfit {
            code: "missing_required_parameter",
            param: "session.model".into(),
            message: "Missing required parameter: 'session.model'.".into(),
        })?;
        if !MODELS.contains(&model) {
            return Err(Misfit {
                code: "invalid_model",
                param: "session.model".into(),
                message: format!("Model \"{model}\" is not supported in realtime mode."),
            });
        }
        let mut session = json!({
            "object": "realtime.session", "output_modalities": ["audio"], "tools": [], "tool_choice": "auto",
            "audio": {"input": {"turn_detection": {
                "type": "server_vad", "create_response": true, "interrupt_response": true,
            }}, "output": {"voice": "marin"}},
        });
        merge(&mut session, body);
        Ok(Self(session))
    }

    /// Changes what a `session.update` names. `spoken`: the model was heard already, its voice stays.
    pub fn update(&mut self, change: &Value, spoken: bool) -> Result<(), Misfit> {
        check(change)?;
        if change.get("model").is_some_and(|model| *model != self.0["model"]) {
            return Err(Misfit::invalid("session.model", "the model of a session can't be changed"));
        }
        let voice = change.pointer("/audio/output/voice");
        if spoken && voice.is_some_and(|voice| Some(voice) != self.0.pointer("/audio/output/voice")) {
            return Err(Misfit {
                code: "cannot_update_voice",
                param: "session.audio.output.voice".into(),
                message: "Cannot update a conversation's voice if assistant audio is present.".into(),
            });
        }
        merge(&mut self.0, change);
        Ok(())
    }

    /// As the API shows it.
    pub fn view(&self) -> &Value {
        &self.0
    }

    /// Whether the caller's voice cuts the model's short.
    pub fn interrupts(&self) -> bool {
        let detection = &self.0["audio"]["input"]["turn_detection"];
        !detection.is_null() && detection["interrupt_response"] != false
    }
}

fn check(session: &Value) -> Result<(), Misfit> {
    SESSION.check(session, "session")?;
    if session["output_modalities"].as_array().is_some_and(|modalities| modalities.len() != 1) {
        return Err(Misfit::invalid(
            "session.output_modalities",
            "supported combinations are ['text'] and ['audio']",
        ));
    }
    let mut names = Vec::new();
    for (index, tool) in session["tools"].as_array().into_iter().flatten().enumerate() {
        let name = tool["name"].as_str().unwrap_or_default();
        let at = format!("session.tools[{index}]");
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || !name.chars().all(fits) || names.contains(&name) {
            return Err(Misfit::invalid(
                &format!("{at}.name"),
                "it must be of letters, digits, _ and -, and of one tool",
            ));
        }
        if tool.get("parameters").is_some_and(|parameters| parameters["type"] != "object") {
            return Err(Misfit::invalid(
                &format!("{at}.parameters"),
                "it must be a schema of type \"object\"",
            ));
        }
        names.push(name);
    }
    Ok(())
}

/// Takes over what `change` names; objects field by field, all else as a whole.
fn merge(value: &mut Value, change: &Value) {
    match (value, change) {
        (Value::Object(value), Value::Object(change)) => {
            for (name, change) in change {
                merge(value.entry(name).or_insert(Value::Null), change);
            }
        }
        (value, change) => *value = change.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &Value) -> (&'static str, String) {
        let misfit = Session::of(body).unwrap_err();
        (misfit.code, misfit.param)
    }

    #[test]
    fn a_whole_session_is_taken() {
        let session = Session::of(&json!({
            "type": "realtime", "model": "gpt-realtime", "instructions": "Be kind.", "output_modalities": ["audio"],
            "max_output_tokens": "inf", "tool_choice": "auto", "truncation": "auto", "tracing": null,
            "tools": [{"type": "function", "name": "end_call", "description": "Ends it.",
                       "parameters": {"type": "object", "properties": {}}}],
            "audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "auto"},
                                "format": {"type": "audio/pcmu"}, "noise_reduction": {"type": "far_field"}},
                      "output": {"voice": "cedar", "speed": 1.1, "format": {"type": "audio/pcmu"}}},
        }))
        .unwrap();
        assert!(session.interrupts());
        assert_eq!(session.view()["tools"][0]["name"], "end_call");
    }

    #[test]
    fn what_the_api_is_known_to_refuse_is_refused() {
        let vad = |name: &str| {
            json!({"type": "realtime", "model": "gpt-realtime",
                   "audio": {"input": {"turn_detection": {"type": "server_vad", name: 300}}}})
        };
        for (body, code, param) in [
            (json!({"session": {"type": "realtime"}}), "unknown_parameter", "session.session"),
            (json!({"model": "gpt-realtime"}), "missing_required_parameter", "session.type"),
            (json!({"type": "realtime"}), "missing_required_parameter", "session.model"),
            (json!({"type": "realtime", "model": "gpt-4o-mini"}), "invalid_model", "session.model"),
            (
                json!({"type": "realtime", "model": "gpt-realtime", "temperature": 0.8}),
                "unknown_parameter",
                "session.temperature",
            ),
            (vad("threshold"), "unknown_parameter", "session.audio.input.turn_detection.threshold"),
            (
                vad("silence_duration_ms"),
                "unknown_parameter",
                "session.audio.input.turn_detection.silence_duration_ms",
            ),
            (
                json!({"type": "realtime", "model": "gpt-realtime", "output_modalities": ["audio", "text"]}),
                "invalid_value",
                "session.output_modalities",
            ),
            (
                json!({"type": "realtime", "model": "gpt-realtime", "tools": [{"type": "function", "name": "a b"}]}),
                "invalid_value",
                "session.tools[0].name",
            ),
        ] {
            assert_eq!(refused(&body), (code, param.to_owned()), "{body}");
        }
    }

    #[test]
    fn an_update_changes_what_it_names_and_nothing_else() {
        let mut session =
            Session::of(&json!({"type": "realtime", "model": "gpt-realtime", "instructions": "a"})).unwrap();
        let quiet = json!({"type": "realtime", "audio": {"input": {"turn_detection":
            {"type": "server_vad", "create_response": false, "interrupt_response": false}}}});
        session.update(&quiet, true).unwrap();
        assert!(!session.interrupts());
        assert_eq!(session.view()["instructions"], "a");
        let voice = json!({"type": "realtime", "audio": {"output": {"voice": "ash"}}});
        assert_eq!(session.update(&voice, true).unwrap_err().code, "cannot_update_voice");
        session.update(&voice, false).unwrap();
        let model = json!({"type": "realtime", "model": "gpt-realtime-mini"});
        assert_eq!(session.update(&model, false).unwrap_err().param, "session.model");
        let untyped = json!({"instructions": "b"});
        assert_eq!(
            session.update(&untyped, false).unwrap_err().message,
            "Missing required parameter: 'session.type'."
        );
    }
}
