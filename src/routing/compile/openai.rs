//! `openai` of an agent, and which realtime model a name in `llmConfig.model` stands for.

use crate::resources::assistant::{AudioFormat, LlmConfig, LlmRole, OpenAiAgent, ToolType};
use crate::resources::conditions::reason;
use crate::resources::references::SecretKeyReference;
use crate::routing::table::{
    AgentEntry, ObjectKey, OpenAiEntry, OpenAiKeys, ScriptEntry, TlsEntry, TransportEntry, TurnEntry,
};
use crate::routing::uri::parse_target;

use super::agents::Agent;
use super::verdict::{Checked, Problems, problem};
use super::{Objects, fields, secrets};

/// Seconds until a project that doesn't answer counts as unavailable: the webhook, its answer and the session's start included.
const DEFAULT_ANSWER_TIMEOUT_SECONDS: i32 = 15;
const DEFAULT_API: &str = "https://api.openai.com";
const DEFAULT_SIP_HOST: &str = "sip.api.openai.com";
const DEFAULT_API_KEY: &str = "apiKey";
const DEFAULT_WEBHOOK_SECRET: &str = "webhookSecret";
/// What doesn't work without a Secret.
const NOT_REACHED: &str =
    "Until then the assistant is not called: callers go to their PhoneNumber's fallbackRef.";
/// Most that all messages of a script may hold, bytes: a table's slice must stay small.
const LONGEST_SCRIPT: usize = 64 * 1024;

/// Checks `openai` of the agent that `field` of an object in `namespace` describes. Without a Secret that it names, nobody is
/// dialled: the agent of somebody else never takes its place.
pub(super) fn check(objects: &Objects, field: &str, namespace: &str, spec: &OpenAiAgent) -> Checked<Agent> {
    let field = format!("{field}.openai");
    let mut accepted = Problems::default();
    let mut resolved = Problems::default();
    let target = accepted.take(target(&field, spec));
    let api = accepted.take(api(&field, spec));
    let seconds = spec.answer_timeout_seconds.unwrap_or(DEFAULT_ANSWER_TIMEOUT_SECONDS);
    let seconds = accepted.take(fields::bounded(&format!("{field}.answerTimeoutSeconds"), seconds, 1, 120));

    let mut secret = |name: &str, reference: &SecretKeyReference, default: &str| {
        let key = reference.key.as_deref().unwrap_or(default);
        let secret = ObjectKey::new(namespace, &reference.name);
        resolved.take(secrets::signing(objects, &format!("{field}.{name}"), &secret, key, NOT_REACHED))
    };
    let api_key = secret("apiKeySecretRef", &spec.api_key_secret_ref, DEFAULT_API_KEY);
    let webhook = secret("webhookSecretRef", &spec.webhook_secret_ref, DEFAULT_WEBHOOK_SECRET);
    let authorities = spec.ca_bundle_ref.as_ref().map(|named| {
        let secret = ObjectKey::new(namespace, &named.name);
        resolved.take(secrets::authorities(objects, &format!("{field}.caBundleRef"), &secret, NOT_REACHED))
    });

    let usable = target.zip(api).zip(seconds).map(|((mut target, api), answer_timeout_seconds)| {
        let mut credentials = Vec::new();
        let mut keys = None;
        if let (Some(api_key), Some(webhook)) = (api_key, webhook)
            && authorities.as_ref().is_none_or(Option::is_some)
        {
            keys = Some(OpenAiKeys { api: api_key.0.clone(), webhook: webhook.0.clone() });
            credentials.extend([api_key, webhook]);
            if let Some(Some((id, source))) = authorities {
                target.tls = Some(TlsEntry { authorities: Some(id.clone()), ..TlsEntry::default() });
                credentials.push((id, source));
            }
        }
        let audio_format = spec.audio_format.map(|format| match format {
            AudioFormat::Pcmu => "audio/pcmu".to_owned(),
            AudioFormat::Pcma => "audio/pcma".to_owned(),
        });
        let entry = OpenAiEntry {
            target,
            api,
            keys,
            voice: spec.voice.clone(),
            audio_format,
            answer_timeout_seconds,
        };
        Agent {
            entry: AgentEntry::OpenAi(Box::new(entry)),
            credentials,
            is_told: true,
            model: spec.model.clone(),
        }
    });
    Checked { accepted, resolved, usable }
}

/// The Secrets that it names.
pub(super) fn named_secrets(namespace: &str, spec: &OpenAiAgent) -> impl Iterator<Item = ObjectKey> {
    let keys = [&spec.api_key_secret_ref.name, &spec.webhook_secret_ref.name];
    let bundle = spec.ca_bundle_ref.as_ref().map(|named| &named.name);
    keys.into_iter().chain(bundle).map(move |name| ObjectKey::new(namespace, name))
}

fn target(field: &str, spec: &OpenAiAgent) -> Result<crate::routing::table::SipTarget, Problems> {
    let host = spec.sip_host.as_deref().unwrap_or(DEFAULT_SIP_HOST);
    let uri = format!("sip:{}@{host};transport=tls", spec.project_id);
    parse_target(&uri, Some(TransportEntry::Tls)).map_err(|error| {
        problem(reason::INVALID, format!("{field}: projectId and sipHost make no SIP address: {error}."))
    })
}

/// The base of every request: with `/v1` at its end, also where it isn't written.
fn api(field: &str, spec: &OpenAiAgent) -> Result<String, Problems> {
    let text = spec.api_base_url.as_deref().unwrap_or(DEFAULT_API);
    let url = fields::url(&format!("{field}.apiBaseUrl"), text)?;
    if url.contains(['?', '#']) {
        let sentence =
            format!("{field}.apiBaseUrl has a query or a fragment; write scheme, host and path only.");
        return Err(problem(reason::INVALID, sentence));
    }
    let url = url.trim_end_matches('/');
    Ok(if url.ends_with("/v1") { url.to_owned() } else { format!("{url}/v1") })
}

/// What an Assistant tells a session, before it is known which agent runs it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(in crate::routing) struct Script {
    model: Option<String>,
    instructions: String,
    turns: Vec<TurnEntry>,
    first_message: Option<String>,
    can_end: bool,
}

impl Script {
    /// What an Assistant says of itself. What is too long is refused: every call would fail on it.
    pub(super) fn new(first_message: Option<&String>, llm: Option<&LlmConfig>) -> Result<Self, Problems> {
        let messages = llm.map(|llm| llm.messages.as_slice()).unwrap_or_default();
        let length: usize = messages.iter().map(|message| message.content.len()).sum();
        if length > LONGEST_SCRIPT {
            return Err(problem(
                reason::INVALID,
                format!(
                    "llmConfig.messages hold {length} bytes all together; an agent over OpenAI takes {LONGEST_SCRIPT} at most, \
                     shorten them."
                ),
            ));
        }
        let system = messages.iter().filter(|message| message.role == LlmRole::System);
        let turns = messages.iter().filter_map(|message| match message.role {
            LlmRole::System => None,
            LlmRole::User => Some(TurnEntry::Caller(message.content.clone())),
            LlmRole::Assistant => Some(TurnEntry::Assistant(message.content.clone())),
        });
        Ok(Self {
            model: llm.and_then(|llm| llm.model.clone()),
            instructions: system.map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n\n"),
            turns: turns.collect(),
            first_message: first_message.cloned(),
            can_end: llm.is_some_and(|llm| llm.tools.iter().any(|tool| tool.type_ == ToolType::EndCall)),
        })
    }

    /// With the model that `agent` runs for it.
    pub(in crate::routing) fn entry(&self, agent: &Agent) -> ScriptEntry {
        ScriptEntry {
            model: self.model_on(agent),
            instructions: self.instructions.clone(),
            turns: self.turns.clone(),
            first_message: self.first_message.clone(),
            can_end: self.can_end,
        }
    }

    /// The realtime model that `agent` runs for it.
    pub(in crate::routing) fn model_on(&self, agent: &Agent) -> String {
        agent.model.clone().unwrap_or_else(|| realtime_model(self.model.as_deref()))
    }
}

/// The realtime model that a name stands for. Realtime models stand for themselves; of text models, small ones stand for the small
/// realtime model and all others for the large one. `docs/openai.md` has the table.
pub(in crate::routing) fn realtime_model(named: Option<&str>) -> String {
    let Some(named) = named else { return LARGE.to_owned() };
    let name = named.to_ascii_lowercase();
    let is_realtime = name.contains("realtime") || name.starts_with("gpt-audio");
    let is_small = ["mini", "nano", "flash", "haiku", "small"].iter().any(|word| name.contains(word));
    match (is_realtime, is_small) {
        (true, _) => named.to_owned(),
        (false, true) => SMALL.to_owned(),
        (false, false) => LARGE.to_owned(),
    }
}

const LARGE: &str = "gpt-realtime";
const SMALL: &str = "gpt-realtime-mini";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_model_stands_for_a_realtime_model_of_its_size() {
        for (named, model) in [
            (None, "gpt-realtime"),
            (Some("gpt-realtime"), "gpt-realtime"),
            (Some("gpt-realtime-2.1-mini"), "gpt-realtime-2.1-mini"),
            (Some("gpt-4o-realtime-preview-2025-06-03"), "gpt-4o-realtime-preview-2025-06-03"),
            (Some("gpt-audio-1.5"), "gpt-audio-1.5"),
            (Some("gpt-4o-mini"), "gpt-realtime-mini"),
            (Some("GPT-5-Nano"), "gpt-realtime-mini"),
            (Some("gpt-4o"), "gpt-realtime"),
            (Some("gpt-5.1"), "gpt-realtime"),
            (Some("claude-sonnet-4-5"), "gpt-realtime"),
        ] {
            assert_eq!(realtime_model(named), model, "{named:?}");
        }
    }
}
