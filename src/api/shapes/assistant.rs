//! An assistant: the product's JSON and the spec of an Assistant.
//!
//! How the AI is reached (`spec.agent`) and where events go (`spec.events`) are not written here: both name Secrets, and
//! whoever may write them could have any Secret of the namespace sent to a host of their own. They are set on the resource;
//! without an `agent` the gateway's `defaultAgent` is used.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::State;
use crate::resources::assistant::{
    AssistantSpec, InlineDestinationType, LlmConfig as LlmConfigSpec, LlmMessage, LlmRole, Tool as ToolSpec,
    ToolDestination, ToolType as ToolTypeSpec,
};
use crate::resources::references::LocalReference;

/// What can be written of an assistant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssistantFields {
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    /// What the assistant says first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub first_message: Option<String>,
    /// The model, its instructions and its tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_config: Option<LlmConfig>,
}

/// The model, its instructions and its tools.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LlmConfig {
    /// Who runs the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub provider: Option<String>,
    /// The model's name. A text model is mapped to a realtime model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub model: Option<String>,
    /// Instructions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub messages: Vec<Message>,
    /// What the assistant may do; each type once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub tools: Vec<Tool>,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Whose words these are.
    pub role: Role,
    /// The words.
    #[schemars(length(min = 1, max = 32768))]
    pub content: String,
}

/// Whose words a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions to the model.
    System,
    /// As if the caller had said it.
    User,
    /// As if the assistant had said it.
    Assistant,
}

/// A tool of the assistant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// What the tool does.
    #[serde(rename = "type")]
    pub type_: ToolType,
    /// Humans a caller may be handed to; with `transfer_call`, and only with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub destinations: Vec<Destination>,
}

/// What a tool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolType {
    /// Hands the caller to one of `destinations`. `transferCall` is read too.
    #[serde(alias = "transferCall")]
    TransferCall,
    /// Ends the call. `endCall` is read too.
    #[serde(alias = "endCall")]
    EndCall,
}

/// A destination of `transfer_call`: a number with its description, or a TransferDestination of the namespace by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["type", "number", "description"] }, { "required": ["destination_ref"] }]))]
pub struct Destination {
    /// Always `number`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<DestinationType>,
    /// E.164.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^\+[1-9][0-9]{6,14}$"))]
    pub number: Option<String>,
    /// When to use this destination, for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub description: Option<String>,
    /// Said by the assistant before the transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub message: Option<String>,
    /// A TransferDestination, in place of everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_ref: Option<DestinationRef>,
}

/// The kind of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DestinationType {
    /// A phone number.
    Number,
}

/// Names a TransferDestination of the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DestinationRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// An assistant as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Assistant {
    /// Name of the resource.
    pub id: String,
    /// Name for people.
    pub name: Option<String>,
    /// What the assistant says first.
    pub first_message: Option<String>,
    /// The model, its instructions and its tools.
    pub llm_config: Option<LlmConfig>,
    /// Whether it works.
    pub status: State,
    /// When it was created, RFC 3339.
    pub created_at: String,
    /// When it was last changed, RFC 3339.
    pub updated_at: String,
}

impl AssistantFields {
    /// What a spec says.
    pub fn of(spec: &AssistantSpec) -> Self {
        Self {
            name: spec.display_name.clone(),
            first_message: spec.first_message.clone(),
            llm_config: spec.llm_config.as_ref().map(LlmConfig::of),
        }
    }

    /// The spec that says it.
    pub fn into_spec(self) -> AssistantSpec {
        AssistantSpec {
            display_name: self.name,
            first_message: self.first_message,
            llm_config: self.llm_config.map(LlmConfig::into_spec),
            agent: None,
            events: None,
        }
    }
}

impl LlmConfig {
    fn of(spec: &LlmConfigSpec) -> Self {
        let message = |message: &LlmMessage| Message {
            role: match message.role {
                LlmRole::System => Role::System,
                LlmRole::User => Role::User,
                LlmRole::Assistant => Role::Assistant,
            },
            content: message.content.clone(),
        };
        Self {
            provider: spec.provider.clone(),
            model: spec.model.clone(),
            messages: spec.messages.iter().map(message).collect(),
            tools: spec.tools.iter().map(Tool::of).collect(),
        }
    }

    fn into_spec(self) -> LlmConfigSpec {
        let message = |message: Message| LlmMessage {
            role: match message.role {
                Role::System => LlmRole::System,
                Role::User => LlmRole::User,
                Role::Assistant => LlmRole::Assistant,
            },
            content: message.content,
        };
        LlmConfigSpec {
            provider: self.provider,
            model: self.model,
            messages: self.messages.into_iter().map(message).collect(),
            tools: self.tools.into_iter().map(Tool::into_spec).collect(),
        }
    }
}

impl Tool {
    fn of(spec: &ToolSpec) -> Self {
        let type_ = match spec.type_ {
            ToolTypeSpec::TransferCall => ToolType::TransferCall,
            ToolTypeSpec::EndCall => ToolType::EndCall,
        };
        Self { type_, destinations: spec.destinations.iter().map(Destination::of).collect() }
    }

    fn into_spec(self) -> ToolSpec {
        let type_ = match self.type_ {
            ToolType::TransferCall => ToolTypeSpec::TransferCall,
            ToolType::EndCall => ToolTypeSpec::EndCall,
        };
        ToolSpec { type_, destinations: self.destinations.into_iter().map(Destination::into_spec).collect() }
    }
}

impl Destination {
    fn of(spec: &ToolDestination) -> Self {
        Self {
            type_: spec.type_.map(|InlineDestinationType::Number| DestinationType::Number),
            number: spec.number.clone(),
            description: spec.description.clone(),
            message: spec.message.clone(),
            destination_ref: spec
                .destination_ref
                .as_ref()
                .map(|named| DestinationRef { name: named.name.clone() }),
        }
    }

    fn into_spec(self) -> ToolDestination {
        ToolDestination {
            destination_ref: self.destination_ref.map(|named| LocalReference { name: named.name }),
            type_: self.type_.map(|DestinationType::Number| InlineDestinationType::Number),
            number: self.number,
            description: self.description,
            message: self.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{object, typed};
    use super::*;

    fn read(body: &Value) -> Result<AssistantFields, crate::http::error::ApiError> {
        typed(object(body.to_string().as_bytes())?)
    }

    #[test]
    fn the_products_example_becomes_a_spec_and_comes_back_as_it_was() {
        let body = json!({
            "name": "Support Assistant", "first_message": "Welcome",
            "llm_config": {
                "provider": "openai", "model": "gpt-4o-mini", "messages": [{ "role": "system", "content": "Help." }],
                "tools": [
                    { "type": "transfer_call", "destinations": [
                        { "type": "number", "number": "+31612345678", "description": "A human", "message": "One moment." },
                        { "destination_ref": { "name": "sales" } },
                    ] },
                    { "type": "end_call" },
                ],
            },
        });
        let spec = read(&body).unwrap().into_spec();
        assert_eq!(serde_json::to_value(AssistantFields::of(&spec)).unwrap(), body);
        let spec = serde_json::to_value(spec).unwrap();
        assert_eq!(spec["displayName"], "Support Assistant");
        assert_eq!(
            spec["llmConfig"]["tools"][0]["destinations"][1],
            json!({ "destinationRef": { "name": "sales" } })
        );
    }

    #[test]
    fn tools_may_be_written_in_camel_case() {
        let fields = read(&json!({ "llm_config": { "tools": [{ "type": "endCall" }] } })).unwrap();
        assert_eq!(fields.llm_config.unwrap().tools[0].type_, ToolType::EndCall);
    }

    #[test]
    fn what_is_wrong_is_refused_by_the_name_of_its_field() {
        for (body, param) in [
            (json!({ "name": 7 }), "name"),
            (json!({ "nme": "x" }), "nme"),
            (json!({ "agent": {} }), "agent"),
            (json!({ "llm_config": { "tools": [{ "destinations": [] }] } }), "llm_config.tools[0].type"),
            (json!({ "llm_config": { "tools": [{ "type": "dance" }] } }), "llm_config.tools[0].type"),
            (json!({ "llm_config": { "temperature": 1 } }), "llm_config.temperature"),
            (
                json!({ "llm_config": { "messages": [{ "role": "system", "content": 1 }] } }),
                "llm_config.messages[0].content",
            ),
        ] {
            let error = read(&body).unwrap_err();
            assert_eq!((error.status.as_u16(), error.body.param.as_deref()), (400, Some(param)), "{body}");
        }
    }
}
