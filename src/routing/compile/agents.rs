//! How an AI is reached: `agent` of an Assistant, `defaultAgent` of a SipGateway.

use crate::resources::assistant::{Agent as Spec, AgentHook, SipAgent};
use crate::resources::conditions::reason;
use crate::routing::table::{AgentEntry, CredentialId, HookEntry, ObjectKey, SipTarget};

use super::verdict::{Checked, Problems, problem};
use super::{CredentialSource, Objects, fields, openai, secrets};

/// Seconds until an agent that doesn't answer counts as unavailable.
const DEFAULT_ANSWER_TIMEOUT_SECONDS: i32 = 10;
/// Key of the signing secret.
const DEFAULT_SECRET_KEY: &str = "secret";
/// What an agent doesn't do whose signing secret is missing.
const NOT_SAID: &str =
    "Until then the assistant says no message before a transfer; transfers go on without it.";

/// An agent that can be reached.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::routing) struct Agent {
    /// How.
    pub entry: AgentEntry,
    /// Where its secrets are.
    pub credentials: Vec<(CredentialId, CredentialSource)>,
    /// Whether it is meant to be told what to say, also if the secret for it is missing now.
    pub is_told: bool,
    /// The realtime model that it runs, whatever an Assistant's `llmConfig` names.
    pub model: Option<String>,
}

/// Checks an agent that `field` of an object in `namespace` describes. An agent whose hook can't be used answers all the same.
pub(super) fn check(objects: &Objects, field: &str, namespace: &str, spec: &Spec) -> Checked<Agent> {
    match (&spec.sip, &spec.openai) {
        (Some(sip), None) => check_sip(objects, field, namespace, sip),
        (None, Some(agent)) => openai::check(objects, field, namespace, agent),
        _ => {
            let sentence = format!("{field} must have exactly one of openai and sip.");
            let accepted = problem(reason::INVALID, sentence);
            Checked { accepted, resolved: Problems::default(), usable: None }
        }
    }
}

fn check_sip(objects: &Objects, field: &str, namespace: &str, sip: &SipAgent) -> Checked<Agent> {
    let mut accepted = Problems::default();
    let mut resolved = Problems::default();
    let agent = accepted.take(entry(field, sip));
    let hook = sip.hook.as_ref();
    let url = hook.and_then(|hook| accepted.take(fields::url(&format!("{field}.sip.hook.url"), &hook.url)));
    let secret = hook.and_then(|hook| {
        let (secret, key) = secret(namespace, hook);
        let field = format!("{field}.sip.hook.secretRef");
        resolved.take(secrets::signing(objects, &field, &secret, key, NOT_SAID))
    });
    let usable = agent.filter(|_| accepted.is_empty()).map(|Reached { targets, headers, seconds }| {
        let id = secret.as_ref().map(|(id, _)| id.clone());
        let hook = url.zip(id).map(|(url, secret)| HookEntry { url, secret });
        Agent {
            entry: AgentEntry::Sip { targets, headers, answer_timeout_seconds: seconds, hook },
            credentials: secret.into_iter().collect(),
            is_told: sip.hook.is_some(),
            model: None,
        }
    });
    Checked { accepted, resolved, usable }
}

/// The Secrets that an agent names, in the namespace of the object that describes it.
pub(super) fn named_secrets(namespace: &str, spec: &Spec) -> Vec<ObjectKey> {
    let hook = spec.sip.as_ref().and_then(|sip| sip.hook.as_ref()).map(|hook| secret(namespace, hook).0);
    let openai = spec.openai.iter().flat_map(|agent| openai::named_secrets(namespace, agent));
    hook.into_iter().chain(openai).collect()
}

fn secret<'a>(namespace: &str, hook: &'a AgentHook) -> (ObjectKey, &'a str) {
    let key = hook.secret_ref.key.as_deref().unwrap_or(DEFAULT_SECRET_KEY);
    (ObjectKey::new(namespace, &hook.secret_ref.name), key)
}

struct Reached {
    targets: Vec<SipTarget>,
    headers: Vec<(String, String)>,
    seconds: u32,
}

fn entry(field: &str, sip: &SipAgent) -> Result<Reached, Problems> {
    let mut problems = Problems::default();
    let uris =
        std::iter::once(("uri", &sip.uri)).chain(sip.backup_uris.iter().map(|uri| ("backupUris", uri)));
    let targets: Vec<SipTarget> = uris
        .filter_map(|(name, uri)| {
            problems.take(fields::target(&format!("{field}.sip.{name}"), uri, sip.transport))
        })
        .collect();
    let headers = problems.take(fields::headers(&format!("{field}.sip.headers"), &sip.headers));
    let seconds = sip.answer_timeout_seconds.unwrap_or(DEFAULT_ANSWER_TIMEOUT_SECONDS);
    let seconds =
        problems.take(fields::bounded(&format!("{field}.sip.answerTimeoutSeconds"), seconds, 1, 120));
    match (headers, seconds) {
        (Some(headers), Some(seconds)) if problems.is_empty() => Ok(Reached { targets, headers, seconds }),
        _ => Err(problems),
    }
}
