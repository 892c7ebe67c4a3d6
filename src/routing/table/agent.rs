//! How an AI is reached, and what it is told of its task.

use serde::{Deserialize, Serialize};

use super::{CredentialId, SipTarget};

/// What an AI is told of its task whose session the gateway runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScriptEntry {
    /// A realtime model.
    pub model: String,
    /// Instructions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instructions: String,
    /// What it is to take for the conversation so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub turns: Vec<TurnEntry>,
    /// What it says first; its own words when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_message: Option<String>,
    /// Whether it may end the call.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub can_end: bool,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub enum TurnEntry {
    Caller(String),
    Assistant(String),
}

/// How an AI is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum AgentEntry {
    /// Any agent that speaks SIP.
    Sip {
        /// Where it is reached, in the order of trying.
        targets: Vec<SipTarget>,
        /// Headers on the INVITE.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
        /// Seconds until silence counts as unavailable.
        answer_timeout_seconds: u32,
        /// Where it is told what to say; absent when it can't be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hook: Option<HookEntry>,
    },
    /// OpenAI Realtime over SIP, or a server that speaks like it.
    #[serde(rename = "openai")]
    OpenAi(Box<OpenAiEntry>),
}

/// OpenAI Realtime over SIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenAiEntry {
    /// Where the project takes calls; its authorities are those of the API too.
    pub target: SipTarget,
    /// Base URL of the REST API without a slash at its end, `https://api.openai.com/v1`.
    pub api: String,
    /// Absent when a Secret is missing: then nobody is dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<OpenAiKeys>,
    /// The voice; the model's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voice: Option<String>,
    /// The audio format that the session is told, `audio/pcmu`; left to SIP when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_format: Option<String>,
    /// Seconds until silence counts as unavailable.
    pub answer_timeout_seconds: u32,
}

/// The secrets of a project, in the gateway's credentials Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenAiKeys {
    /// The API key.
    pub api: CredentialId,
    /// What webhooks are signed with.
    pub webhook: CredentialId,
}

impl AgentEntry {
    /// Where it is reached, in the order of trying.
    pub fn targets(&self) -> &[SipTarget] {
        match self {
            Self::Sip { targets, .. } => targets,
            Self::OpenAi(openai) if openai.keys.is_some() => std::slice::from_ref(&openai.target),
            Self::OpenAi(_) => &[],
        }
    }

    /// Headers on the INVITE.
    pub fn headers(&self) -> &[(String, String)] {
        match self {
            Self::Sip { headers, .. } => headers,
            Self::OpenAi(_) => &[],
        }
    }

    /// Seconds until silence counts as unavailable.
    pub fn answer_timeout_seconds(&self) -> u32 {
        match self {
            Self::Sip { answer_timeout_seconds, .. } => *answer_timeout_seconds,
            Self::OpenAi(openai) => openai.answer_timeout_seconds,
        }
    }

    /// Where it is told what to say over HTTP, if it is.
    pub fn hook(&self) -> Option<&HookEntry> {
        match self {
            Self::Sip { hook, .. } => hook.as_ref(),
            Self::OpenAi(_) => None,
        }
    }

    /// It, if the gateway runs its session.
    pub fn openai(&self) -> Option<&OpenAiEntry> {
        match self {
            Self::OpenAi(openai) => Some(openai),
            Self::Sip { .. } => None,
        }
    }

    /// Everything of the gateway's credentials Secret that it names.
    pub fn credentials(&self) -> impl Iterator<Item = &CredentialId> {
        let hook = self.hook().map(|hook| &hook.secret);
        let openai = self.openai().into_iter().flat_map(|openai| {
            let keys = openai.keys.iter().flat_map(|keys| [&keys.api, &keys.webhook]);
            keys.chain(openai.target.tls.iter().filter_map(|tls| tls.authorities.as_ref()))
        });
        hook.into_iter().chain(openai)
    }
}

/// Where an agent is told what to say, with signed HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookEntry {
    /// An http or https URL.
    pub url: String,
    /// The secret that requests are signed with, in the gateway's credentials Secret.
    pub secret: CredentialId,
}
