//! What objects need from Secrets, and the sentence when it isn't there. Facts only: no value is ever looked at here.

use sha2::{Digest, Sha256};

use crate::resources::conditions::reason;
use crate::routing::table::{CredentialId, ObjectKey};

use super::verdict::{Problems, problem};
use super::{
    AUTHORITIES_KEY, CERTIFICATE_KEY, CredentialKeys, CredentialSource, Objects, PRIVATE_KEY_KEY, SecretFacts,
};

/// A user name and a password. `field` names the Secret, `effect` says what doesn't work without it.
pub(super) fn login(
    objects: &Objects,
    field: &str,
    secret: &ObjectKey,
    (username, password): (&str, &str),
    effect: &str,
) -> Result<(CredentialId, CredentialSource), Problems> {
    let facts = find(objects, field, secret, "kubernetes.io/basic-auth", effect)?;
    let mut problems = Problems::default();
    for (option, key) in [("usernameKey", username), ("passwordKey", password)] {
        if !facts.has_value(key) {
            problems.add(
                reason::SECRET_KEY_MISSING,
                format!(
                    "Secret {secret} has no value under key '{key}'; add it, or name another key in {field}.{option}. \
                     {effect}"
                ),
            );
        }
    }
    let keys = CredentialKeys::Login { username: username.to_owned(), password: password.to_owned() };
    named(problems, facts, secret, keys)
}

/// A certificate with its private key.
pub(super) fn certificate(
    objects: &Objects,
    field: &str,
    secret: &ObjectKey,
    effect: &str,
) -> Result<(CredentialId, CredentialSource), Problems> {
    let facts = find(objects, field, secret, "kubernetes.io/tls", effect)?;
    let mut problems = Problems::default();
    let held = [
        (CERTIFICATE_KEY, "certificate", facts.has_certificates(CERTIFICATE_KEY)),
        (PRIVATE_KEY_KEY, "private key", facts.has_private_key(PRIVATE_KEY_KEY)),
    ];
    for (key, what, _) in held.into_iter().filter(|(.., there)| !there) {
        problems.add(
            reason::SECRET_KEY_MISSING,
            format!("Secret {secret} has no {what} in PEM under key '{key}'; add it. {effect}"),
        );
    }
    named(problems, facts, secret, CredentialKeys::Certificate)
}

/// A secret that requests are signed with.
pub(super) fn signing(
    objects: &Objects,
    field: &str,
    secret: &ObjectKey,
    key: &str,
    effect: &str,
) -> Result<(CredentialId, CredentialSource), Problems> {
    let facts = find(objects, field, secret, "Opaque", effect)?;
    let mut problems = Problems::default();
    if !facts.has_value(key) {
        problems.add(
            reason::SECRET_KEY_MISSING,
            format!(
                "Secret {secret} has no value under key '{key}'; add it, or name another key in {field}.key. {effect}"
            ),
        );
    }
    named(problems, facts, secret, CredentialKeys::Signing { key: key.to_owned() })
}

/// Authorities.
pub(super) fn authorities(
    objects: &Objects,
    field: &str,
    secret: &ObjectKey,
    effect: &str,
) -> Result<(CredentialId, CredentialSource), Problems> {
    let facts = find(objects, field, secret, "Opaque", effect)?;
    let mut problems = Problems::default();
    if !facts.has_certificates(AUTHORITIES_KEY) {
        problems.add(
            reason::SECRET_KEY_MISSING,
            format!(
                "Secret {secret} has no certificates in PEM under key '{AUTHORITIES_KEY}'; add them. {effect}"
            ),
        );
    }
    named(problems, facts, secret, CredentialKeys::Authorities)
}

fn find<'a>(
    objects: &'a Objects,
    field: &str,
    secret: &ObjectKey,
    type_: &str,
    effect: &str,
) -> Result<&'a SecretFacts, Problems> {
    objects.secrets.get(secret).ok_or_else(|| {
        let sentence = format!(
            "{field} names Secret {secret}, which does not exist; create it with type {type_}. {effect}"
        );
        problem(reason::REF_NOT_FOUND, sentence)
    })
}

fn named(
    problems: Problems,
    facts: &SecretFacts,
    secret: &ObjectKey,
    keys: CredentialKeys,
) -> Result<(CredentialId, CredentialSource), Problems> {
    let source = CredentialSource { secret: secret.clone(), keys };
    if problems.is_empty() { Ok((credential_id(&source, facts), source)) } else { Err(problems) }
}

/// A name for this version of the credentials: over the Secret's identity and version and the keys that are read, never
/// over a value, so that the name gives nothing away and a rotated Secret has another one.
pub fn credential_id(source: &CredentialSource, facts: &SecretFacts) -> CredentialId {
    // What is read in different ways must not have the same name: each way has other parts, or another number of them.
    let keys = match &source.keys {
        CredentialKeys::Login { username, password } => vec![username.as_str(), password.as_str()],
        CredentialKeys::Certificate => vec![CERTIFICATE_KEY, PRIVATE_KEY_KEY],
        CredentialKeys::Authorities => vec![AUTHORITIES_KEY, ""],
        CredentialKeys::Signing { key } => vec![key.as_str()],
    };
    let mut digest = Sha256::new();
    let secret = source.secret.to_string();
    for part in [secret.as_str(), &facts.uid, &facts.resource_version].into_iter().chain(keys) {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    CredentialId(digest.finalize().iter().take(10).map(|byte| format!("{byte:02x}")).collect())
}
