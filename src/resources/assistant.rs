//! Assistant: who answers: prompt, first message, tools, and how the AI is reached.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conditions::Condition;
use super::references::{LocalReference, SecretKeyReference};
use super::rules;
use super::sip_trunk::Transport;

/// Who answers a call: the prompt and tools of an AI, and how it is reached.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "voicedock.dev",
    version = "v1alpha1",
    kind = "Assistant",
    namespaced,
    status = "AssistantStatus",
    derive = "PartialEq",
    shortname = "asst",
    category = "voicedock",
    doc = "Who answers a call: prompt, first message, tools, and how the AI is reached.",
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.effective.agent"),
    printcolumn(name = "Destinations", type_ = "integer", json_path = ".status.effective.destinations"),
    printcolumn(name = "Numbers", type_ = "integer", json_path = ".status.numbers"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct AssistantSpec {
    /// Name for people; the object's name when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub display_name: Option<String>,
    /// What the assistant says first. Used by `agent.openai`, which begins in its own words when left out; an agent reached over
    /// SIP has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub first_message: Option<String>,
    /// The model, its instructions and its tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_config: Option<LlmConfig>,
    /// How the AI is reached; the gateway's `defaultAgent` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// Where signed call and transfer events are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<EventsSink>,
}

/// The model, its instructions and its tools; field names are the product's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LlmConfig {
    /// Who runs the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub provider: Option<String>,
    /// The model's name. A text model stands for a realtime model with `agent.openai`; `status.effective.model` says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub model: Option<String>,
    /// Instructions. Used by `agent.openai`; an agent reached over SIP has its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub messages: Vec<LlmMessage>,
    /// What the assistant may do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(validation = Rule::new("self.all(tool, self.exists_one(other, other.type == tool.type))")
        .message("write each type of tool once; one transfer_call lists all destinations"))]
    pub tools: Vec<Tool>,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LlmMessage {
    /// Whose words these are.
    pub role: LlmRole,
    /// The words.
    #[schemars(length(min = 1, max = 32768))]
    pub content: String,
}

/// Whose words a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LlmRole {
    /// Instructions to the model.
    System,
    /// As if the caller had said it.
    User,
    /// As if the assistant had said it.
    Assistant,
}

/// A tool of the assistant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type != 'transfer_call' || (has(self.destinations) && size(self.destinations) > 0)")
    .message("transfer_call needs destinations: list at least one destinationRef or inline number"))]
#[x_kube(validation = Rule::new("self.type == 'transfer_call' || !has(self.destinations) || size(self.destinations) == 0")
    .message("only transfer_call has destinations: remove them here"))]
pub struct Tool {
    /// What the tool does.
    #[serde(rename = "type")]
    pub type_: ToolType,
    /// Humans a caller may be handed to; only with `transfer_call`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(validation = Rule::new("self.all(x, !has(x.number) || self.exists_one(y, has(y.number) && y.number == x.number))")
        .message("write each inline number once"))]
    #[x_kube(validation = Rule::new("self.all(x, !has(x.destinationRef) || \
        self.exists_one(y, has(y.destinationRef) && y.destinationRef.name == x.destinationRef.name))")
        .message("write each destinationRef once"))]
    pub destinations: Vec<ToolDestination>,
}

/// What a tool does; the product's own letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolType {
    /// Hands the caller to one of `destinations`.
    TransferCall,
    /// Ends the call.
    EndCall,
}

/// A destination of `transfer_call`: a reference to a TransferDestination, or the product's inline form; exactly one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.destinationRef) != has(self.number)")
    .message("write either destinationRef: {name: …}, or the inline form with type, number and description"))]
#[x_kube(validation = Rule::new("!has(self.destinationRef) || !(has(self.type) || has(self.description) || has(self.message))")
    .message("destinationRef stands alone: type, description and message are those of the TransferDestination"))]
#[x_kube(validation = Rule::new("!has(self.number) || (has(self.type) && has(self.description))")
    .message("an inline number needs type: number and a description that tells the model when to use it"))]
pub struct ToolDestination {
    /// A TransferDestination in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_ref: Option<LocalReference>,
    /// Inline form: always `number`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<InlineDestinationType>,
    /// Inline form: E.164.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::e164())]
    pub number: Option<String>,
    /// Inline form: when to use this destination, for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub description: Option<String>,
    /// Inline form: said by the assistant and heard to its end before the destination is dialled; an agent that is reached over
    /// SIP needs a `hook` for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub message: Option<String>,
}

/// The kind of an inline destination; the product knows one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InlineDestinationType {
    /// A phone number.
    Number,
}

/// How the AI is reached; exactly one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.openai) != has(self.sip)")
    .message("write exactly one of openai and sip"))]
pub struct Agent {
    /// OpenAI Realtime over SIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openai: Option<OpenAiAgent>,
    /// Any agent that speaks SIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sip: Option<SipAgent>,
}

/// OpenAI Realtime over SIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenAiAgent {
    /// The project, `proj_…`: the user part of the SIP URI.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^proj_[A-Za-z0-9_-]+$')")
        .message("write the project's id, which begins with proj_"))]
    pub project_id: String,
    /// The API key; key `apiKey` of the Secret when left out.
    pub api_key_secret_ref: SecretKeyReference,
    /// The signing secret of the webhook; key `webhookSecret` of the Secret when left out.
    pub webhook_secret_ref: SecretKeyReference,
    /// The voice; the model's own default when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub voice: Option<String>,
    /// Base URL of the REST API, for other regions and compatible servers; `https://api.openai.com` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = rules::https_url())]
    pub api_base_url: Option<String>,
    /// Host and port of the SIP endpoint; `sip.api.openai.com` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = rules::host_and_port())]
    pub sip_host: Option<String>,
    /// The realtime model, or the name of an Azure deployment; what `llmConfig.model` stands for when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub model: Option<String>,
    /// The audio format that the session is told, for servers that don't take it from SIP; left to SIP when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_format: Option<AudioFormat>,
    /// Opaque Secret whose `ca.crt` has the authorities that are trusted for SIP, REST and WebSocket, for servers in one's own
    /// house; the public ones when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<LocalReference>,
    /// Seconds until an agent that doesn't answer counts as unavailable; 15 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 120))]
    pub answer_timeout_seconds: Option<i32>,
}

/// How a session encodes audio (RFC 3551).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum AudioFormat {
    /// G.711 mu-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
}

/// An agent that speaks SIP. It asks for a transfer with REFER to `sip:<destination>@<gateway>` or to a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SipAgent {
    /// The agent's SIP URI.
    #[schemars(length(min = 5, max = 512))]
    #[x_kube(validation = rules::sip_uri())]
    pub uri: String,
    /// Further URIs, tried in order when the first can't be reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 512)))]
    #[x_kube(validation = rules::sip_uris())]
    pub backup_uris: Vec<String>,
    /// Transport to the agent; the URI's `transport` parameter, else UDP, when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Headers on the INVITE to the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub headers: Vec<Header>,
    /// Seconds until an agent that doesn't answer counts as unavailable; 10 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 120))]
    pub answer_timeout_seconds: Option<i32>,
    /// Where the agent is told what to say. Without it the messages of destinations aren't said; transfers go on without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<AgentHook>,
}

/// Where an agent that speaks SIP is told what to say: signed HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentHook {
    /// An http or https URL. It gets a POST with `{"type": "say", "call_id": …, "content": …}`, and answers 2xx once the caller
    /// has heard the content to its end. `call_id` is what the INVITE to the agent says in `X-VoiceDock-Call-Id`.
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(validation = rules::http_url())]
    pub url: String,
    /// The secret that requests are signed with (`X-Webhook-Signature`); key `secret` of the Secret when left out.
    pub secret_ref: SecretKeyReference,
}

/// A header that is added to a request: `X-*` or `User-to-User` only, no line breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Name of the header.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = rules::header_name())]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 512))]
    #[x_kube(validation = rules::header_value())]
    pub value: String,
}

/// Where events of calls are sent: `status-update`, `transfer-update` and `end-of-call-report`, as signed HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventsSink {
    /// An https URL. What it leads to must be public, or in one of the SipGateway's `eventNetworks`; there an http URL will do
    /// as well.
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(validation = rules::http_url())]
    pub url: String,
    /// The secret that requests are signed with (`X-Webhook-Signature`); key `secret` of the Secret when left out.
    pub secret_ref: SecretKeyReference,
}

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssistantStatus {
    /// The generation of the spec that this status speaks of; -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `ResolvedRefs`, `Programmed`, `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What was decided for fields that the spec leaves out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<AssistantEffective>,
    /// How many PhoneNumbers name this assistant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<i64>,
}

/// Decided values of an Assistant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssistantEffective {
    /// How the AI is reached: `sip`, `openai`, or `default` when each gateway's own default agent is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The realtime model that answers; only with `agent.openai`, an own one or a gateway's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How many destinations the assistant can transfer to now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destinations: Option<i64>,
}
