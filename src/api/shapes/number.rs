//! A phone number: the product's JSON and the spec of a PhoneNumber.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{State, is_name};
use crate::http::error::ApiError;
use crate::resources::phone_number::PhoneNumberSpec;
use crate::resources::references::ObjectReference;

/// What can be written of a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NumberFields {
    /// The number, E.164; never changed.
    #[schemars(regex(pattern = r"^\+[1-9][0-9]{6,14}$"))]
    pub phone_number: String,
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    /// The assistant that answers; null detaches. `agent_id` is read too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub assistant_id: Option<String>,
    /// The trunk that carries transfers, or `namespace/id` of one that another namespace shares; null detaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub transfer_trunk_id: Option<String>,
}

/// What can be changed of a number: RFC 7396, absent fields stay as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NumberChange {
    /// Name for people.
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    /// The assistant that answers; null detaches.
    #[schemars(length(min = 1, max = 253))]
    pub assistant_id: Option<String>,
    /// The trunk that carries transfers; null detaches.
    #[schemars(length(min = 1, max = 317))]
    pub transfer_trunk_id: Option<String>,
}

/// A number as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Number {
    /// Name of the resource.
    pub id: String,
    /// The number, E.164.
    pub phone_number: String,
    /// Name for people.
    pub name: Option<String>,
    /// The assistant that answers.
    pub assistant_id: Option<String>,
    /// The trunk that carries transfers.
    pub transfer_trunk_id: Option<String>,
    /// That trunk's name for people.
    pub transfer_trunk_name: Option<String>,
    /// Whether calls to it are answered.
    pub is_active: bool,
    /// Whether it works.
    pub status: State,
    /// When it was created, RFC 3339.
    pub created_at: String,
    /// When it was last changed, RFC 3339.
    pub updated_at: String,
}

impl NumberFields {
    /// What a spec says.
    pub fn of(spec: &PhoneNumberSpec) -> Self {
        Self {
            phone_number: spec.number.clone(),
            name: spec.display_name.clone(),
            assistant_id: spec.assistant_ref.as_ref().map(|named| named.name.clone()),
            transfer_trunk_id: spec.transfer_trunk_ref.as_ref().map(trunk_id),
        }
    }

    /// The part of a spec that says it.
    ///
    /// # Errors
    /// When the trunk's id can't be one.
    pub fn spec(&self) -> Result<Value, ApiError> {
        let mut spec = json!({ "number": self.phone_number });
        if let Some(name) = &self.name {
            spec["displayName"] = json!(name);
        }
        if let Some(assistant) = &self.assistant_id {
            spec["assistantRef"] = json!({ "name": assistant });
        }
        if let Some(trunk) = &self.transfer_trunk_id {
            spec["transferTrunkRef"] = match trunk.split_once('/') {
                Some((namespace, name)) if is_name(namespace) => {
                    json!({ "namespace": namespace, "name": name })
                }
                Some(_) => {
                    let message =
                        "write the id of a trunk, or namespace/id of one that another namespace shares";
                    return Err(ApiError::invalid("transfer_trunk_id", message));
                }
                None => json!({ "name": trunk }),
            };
        }
        Ok(spec)
    }
}

fn trunk_id(named: &ObjectReference) -> String {
    match &named.namespace {
        Some(namespace) => format!("{namespace}/{}", named.name),
        None => named.name.clone(),
    }
}

/// Reads the product's other word for the assistant.
pub fn normalised(mut fields: Map<String, Value>) -> Map<String, Value> {
    if !fields.contains_key("assistant_id")
        && let Some(agent) = fields.remove("agent_id")
    {
        fields.insert("assistant_id".to_owned(), agent);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trunk_of_another_namespace_keeps_its_namespace() {
        let spec: PhoneNumberSpec = serde_json::from_value(json!({
            "number": "+31201234567", "transferTrunkRef": { "name": "pbx", "namespace": "shared" },
        }))
        .unwrap();
        let fields = NumberFields::of(&spec);
        assert_eq!(fields.transfer_trunk_id.as_deref(), Some("shared/pbx"));
        assert_eq!(fields.spec().unwrap(), serde_json::to_value(spec).unwrap());
    }

    #[test]
    fn agent_id_is_the_assistant() {
        let Value::Object(fields) = json!({ "agent_id": "support" }) else { panic!("no object") };
        assert_eq!(Value::Object(normalised(fields)), json!({ "assistant_id": "support" }));
    }
}
