//! The JSON of the API, in the product's names, and what it means as a spec. Pure.
//!
//! A body is read strictly: a field that nobody acts on is refused. `null` is the same as absent in a new object, and takes a
//! field away in a change (RFC 7396).

pub mod assistant;
pub mod number;
pub mod trunk;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::http::error::ApiError;
use crate::resources::conditions::{Condition, ConditionStatus, condition};

/// Reads a body that must be a JSON object.
pub fn object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        ApiError::unreadable(format!("the body is not JSON (line {}): {error}", error.line()))
    })?;
    if let Some(field) = unprintable(&value) {
        let message = format!("{field} holds a control character; only tabs and line breaks can be kept");
        return Err(ApiError::invalid(field, message));
    }
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(ApiError::unreadable("the body is not a JSON object")),
    }
}

/// The first field whose text, or name, can't stand in an apply: its body is YAML, which has no such characters (YAML 1.2 §5.1).
fn unprintable(value: &Value) -> Option<String> {
    let refused = |text: &str| {
        let kept = |c: char| {
            matches!(c, '\t' | '\n' | '\r') || !(c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))
        };
        !text.chars().all(kept)
    };
    let below = |value: &Value| {
        let path = unprintable(value)?;
        Some(if path.is_empty() || path.starts_with('[') { path } else { format!(".{path}") })
    };
    match value {
        Value::String(text) => refused(text).then(String::new),
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.find_map(|(place, item)| below(item).map(|path| format!("[{place}]{path}")))
        }
        Value::Object(fields) => fields.iter().find_map(|(name, field)| {
            if refused(name) {
                Some("a name".to_owned())
            } else {
                below(field).map(|path| format!("{name}{path}"))
            }
        }),
        _ => None,
    }
}

/// Reads an object as a type; an error names the field.
pub fn typed<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let path = error.path().to_string();
        let why = error.into_inner().to_string();
        // A field that is missing is one of the object around it; one that is unknown is in the path already.
        let missing = why.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        match (path.as_str(), missing) {
            (".", Some(field)) => ApiError::invalid(field, why.clone()),
            (".", None) => ApiError::unreadable(why),
            (path, Some(field)) => ApiError::invalid(format!("{path}.{field}"), why.clone()),
            (path, None) => ApiError::invalid(path, why),
        }
    })
}

/// `target` with a JSON merge patch (RFC 7396): `null` takes a field away, objects are merged, everything else is replaced.
pub fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => drop(target.remove(&name)),
            Value::Object(below) => {
                let place = target.entry(name).or_insert(Value::Null);
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                if let Value::Object(inner) = place {
                    merge(inner, below);
                }
            }
            value => drop(target.insert(name, value)),
        }
    }
}

/// The fields of a type that is written as an object.
pub fn fields<T: Serialize>(value: &T) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Whether a resource works, and what to do if it doesn't: its condition `Ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    /// Whether every gateway pod has it as it stands here; null until somebody has looked.
    pub ready: Option<bool>,
    /// A fixed word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl State {
    /// From conditions that speak of `generation`; older ones say nothing about what there is now.
    pub fn of(conditions: &[Condition], generation: Option<i64>) -> Self {
        let ready = conditions.iter().find(|found| found.type_ == condition::READY);
        match ready.filter(|found| Some(found.observed_generation) == generation) {
            Some(found) => Self {
                ready: match found.status {
                    ConditionStatus::True => Some(true),
                    ConditionStatus::False => Some(false),
                    ConditionStatus::Unknown => None,
                },
                reason: found.reason.clone(),
                message: found.message.clone(),
            },
            None => Self {
                ready: None,
                reason: "Pending".to_owned(),
                message: "The operator has not looked at this version yet.".to_owned(),
            },
        }
    }
}

/// RFC 3339 in UTC, with milliseconds as everywhere in the API.
pub fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// A name for a resource that people recognise: at most 40 lower-case letters, digits and hyphens of `text`, else `otherwise`.
pub fn slug(text: &str, otherwise: &str) -> String {
    let mut slug = String::new();
    for letter in text.chars() {
        let letter = letter.to_ascii_lowercase();
        if letter.is_ascii_alphanumeric() {
            slug.push(letter);
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
        if slug.len() == 40 {
            break;
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { otherwise.to_owned() } else { slug.to_owned() }
}

/// Whether a text can name a resource (RFC 1123 §2.1); anything else names none and is never put into a path.
pub fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(fields) => fields,
            _ => panic!("no object"),
        }
    }

    #[test]
    fn a_patch_merges_objects_replaces_lists_and_takes_away_with_null() {
        let mut target = map(json!({ "a": { "x": 1, "y": [1, 2] }, "b": 1, "c": 2 }));
        merge(
            &mut target,
            map(json!({ "a": { "y": [3], "z": { "n": null } }, "b": null, "d": { "e": null } })),
        );
        assert_eq!(Value::Object(target), json!({ "a": { "x": 1, "y": [3], "z": {} }, "c": 2, "d": {} }));
    }

    #[test]
    fn a_text_that_no_resource_can_hold_is_refused_by_the_name_of_its_field() {
        let param =
            |body: Value| object(body.to_string().as_bytes()).err().and_then(|error| error.body.param);
        assert_eq!(param(json!({ "a": { "b": ["x", { "c": "\u{9a}" }] } })).as_deref(), Some("a.b[1].c"));
        assert_eq!(param(json!({ "name": "a\u{0}" })).as_deref(), Some("name"));
        assert_eq!(param(json!({ "name": "two\r\n\tlines, Zürich, 呼叫, 🙂" })), None);
    }

    #[test]
    fn a_name_becomes_one_of_a_resource() {
        for (text, expected) in [
            ("Office PBX", "office-pbx"),
            ("  Support -- Assistant! ", "support-assistant"),
            ("Zürich", "z-rich"),
            ("呼叫", "trunk"),
            ("", "trunk"),
            ("--", "trunk"),
        ] {
            assert_eq!(slug(text, "trunk"), expected);
            assert!(is_name(expected));
        }
        assert_eq!(slug(&"a b".repeat(40), "x").len(), 40);
    }

    #[test]
    fn what_can_not_name_a_resource_is_told_from_what_can() {
        assert!(is_name("office-pbx.2"));
        for wrong in ["", ".", "..", "a/b", "A", "-a", "a-", "a..b", "a%2f", &"a".repeat(254)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_condition_of_an_older_version_says_nothing() {
        let condition: Condition = serde_json::from_value(json!({
            "type": "Ready", "status": "True", "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
            "reason": "Ready", "message": "",
        }))
        .unwrap();
        assert_eq!(State::of(std::slice::from_ref(&condition), Some(1)).ready, Some(true));
        assert_eq!(State::of(&[condition], Some(2)).ready, None);
    }
}
