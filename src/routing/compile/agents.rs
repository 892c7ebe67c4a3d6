//! How an AI is reached: `agent` of an Assistant, `defaultAgent` of a SipGateway.

use crate::resources::assistant::{Agent as Spec, AgentHook};
use crate::resources::conditions::reason;
use crate::routing::table::{AgentEntry, CredentialId, HookEntry, ObjectKey, SipTarget};

use super::verdict::{Checked, Problems, problem};
use super::{CredentialSource, Objects, fields, secrets};

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
    /// Where the secret of its hook is.
    pub credentials: Vec<(CredentialId, CredentialSource)>,
    /// Whether it is meant to be told what to say, also if the secret for it is missing now.
    pub has_hook: bool,
}

/// Checks an agent that `field` of an object in `namespace` describes. `agent.openai` is named by `not_implemented`; here it only
/// has no entry. An agent whose hook can't be used answers all the same.
pub(super) fn check(objects: &Objects, field: &str, namespace: &str, spec: &Spec) -> Checked<Agent> {
    let mut accepted = Problems::default();
    let mut resolved = Problems::default();
    let agent = accepted.take(entry(field, spec));
    let hook = spec.sip.as_ref().and_then(|sip| sip.hook.as_ref());
    let url = hook.and_then(|hook| accepted.take(fields::url(&format!("{field}.sip.hook.url"), &hook.url)));
    let secret = hook.and_then(|hook| {
        let (secret, key) = secret(namespace, hook);
        let field = format!("{field}.sip.hook.secretRef");
        resolved.take(secrets::signing(objects, &field, &secret, key, NOT_SAID))
    });
    let usable = agent.filter(|_| accepted.is_empty()).map(
        |AgentEntry::Sip { targets, headers, answer_timeout_seconds, .. }| {
            let id = secret.as_ref().map(|(id, _)| id.clone());
            let hook = url.zip(id).map(|(url, secret)| HookEntry { url, secret });
            Agent {
                entry: AgentEntry::Sip { targets, headers, answer_timeout_seconds, hook },
                credentials: secret.into_iter().collect(),
                has_hook: spec.sip.as_ref().is_some_and(|sip| sip.hook.is_some()),
            }
        },
    );
    Checked { accepted, resolved, usable }
}

/// The Secret that an agent names, in the namespace of the object that describes it.
pub(super) fn named_secret(namespace: &str, spec: &Spec) -> Option<ObjectKey> {
    let hook = spec.sip.as_ref()?.hook.as_ref()?;
    Some(secret(namespace, hook).0)
}

fn secret<'a>(namespace: &str, hook: &'a AgentHook) -> (ObjectKey, &'a str) {
    let key = hook.secret_ref.key.as_deref().unwrap_or(DEFAULT_SECRET_KEY);
    (ObjectKey::new(namespace, &hook.secret_ref.name), key)
}

/// The entry, without the hook.
fn entry(field: &str, agent: &Spec) -> Result<AgentEntry, Problems> {
    let sip = match (&agent.sip, &agent.openai) {
        (Some(sip), None) => sip,
        (None, Some(_)) => return Err(Problems::default()),
        _ => {
            return Err(problem(
                reason::INVALID,
                format!("{field} must have exactly one of openai and sip."),
            ));
        }
    };
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
        (Some(headers), Some(answer_timeout_seconds)) if problems.is_empty() => {
            Ok(AgentEntry::Sip { targets, headers, answer_timeout_seconds, hook: None })
        }
        _ => Err(problems),
    }
}
