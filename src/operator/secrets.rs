//! Reading the Secrets that objects name: facts for the compiler, values for the credentials Secret and nobody else.
//!
//! Secrets are watched by metadata; one is read only when `Index::secrets_needed` names it and its version is
//! new. A value never reaches a log, an event, a status or a slice: [`Value`] can't be printed.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::routing::compile::SecretFacts;
use crate::routing::index::Index;
use crate::routing::protocol::Version;
use crate::routing::table::ObjectKey;

use super::api::{ApiError, read, redact};

/// What a Secret holds, as far as it can be used.
pub struct Content {
    /// What the compiler may know.
    pub facts: SecretFacts,
    values: BTreeMap<String, String>,
    documents: BTreeMap<String, String>,
}

impl Content {
    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<Value<'_>> {
        self.values.get(key).map(|value| Value(value))
    }

    /// The PEM document under a key.
    pub fn document(&self, key: &str) -> Option<Value<'_>> {
        self.documents.get(key).map(|document| Value(document))
    }
}

/// A value of a Secret: without Debug, Display or Serialize, so that it can't be written by accident.
pub struct Value<'a>(&'a str);

impl<'a> Value<'a> {
    /// The value, for the credentials Secret.
    pub fn reveal(&self) -> &'a str {
        self.0
    }
}

/// Reads a Secret; `None` when it isn't there.
pub async fn fetch(client: &Client, key: &ObjectKey) -> Result<Option<Content>, ApiError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &key.namespace);
    let found = read(format!("read Secret {key}"), api.get_opt(&key.name)).await.map_err(redact)?;
    Ok(found.map(content))
}

/// What the compiler may know of a Secret.
pub fn facts(secret: Secret) -> SecretFacts {
    content(secret).facts
}

fn content(secret: Secret) -> Content {
    let usable = |bytes: &[u8]| usable(bytes).map(str::to_owned);
    let data = secret.data.unwrap_or_default();
    let values: BTreeMap<_, _> =
        data.iter().filter_map(|(key, value)| Some((key.clone(), usable(&value.0)?))).collect();
    let documents: BTreeMap<_, _> =
        data.iter().filter_map(|(key, value)| Some((key.clone(), pem(&value.0)?.to_owned()))).collect();
    let keys_with = |holds: fn(&str) -> bool| {
        documents.iter().filter(|(_, document)| holds(document)).map(|(key, _)| key.clone()).collect()
    };
    let facts = SecretFacts {
        uid: secret.metadata.uid.unwrap_or_default(),
        resource_version: secret.metadata.resource_version.unwrap_or_default(),
        keys: values.keys().cloned().collect(),
        certificates: keys_with(has_certificate),
        private_keys: keys_with(has_private_key),
        is_sealed: false,
    };
    Content { facts, values, documents }
}

/// A document in PEM (RFC 7468).
fn pem(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.contains("-----BEGIN "))
}

/// Whether there are certificates, all of them readable.
fn has_certificate(document: &str) -> bool {
    let mut certificates = CertificateDer::pem_slice_iter(document.as_bytes()).peekable();
    certificates.peek().is_some() && certificates.all(|certificate| certificate.is_ok())
}

fn has_private_key(document: &str) -> bool {
    PrivateKeyDer::from_pem_slice(document.as_bytes()).is_ok()
}

/// A value that can stand in a SIP header: text that isn't empty, without control characters. The newline that
/// `echo` and editors leave at the end is not part of it.
fn usable(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches(['\r', '\n']);
    (!text.is_empty() && !text.chars().any(char::is_control)).then_some(text)
}

/// Which Secrets are known in which version.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The version of which each Secret was read, whatever came out of it.
    asked: BTreeMap<ObjectKey, Version>,
    reading: BTreeSet<ObjectKey>,
    /// Secrets that couldn't be read; they wait for their next attempt and hold nothing up meanwhile.
    failed: BTreeSet<ObjectKey>,
}

impl Ledger {
    /// Drops facts that no longer hold, and names the Secrets that have to be read now; each is named once.
    /// Returns as well whether the facts changed.
    pub fn due(
        &mut self,
        index: &mut Index,
        versions: &BTreeMap<ObjectKey, Version>,
    ) -> (Vec<ObjectKey>, bool) {
        let needed: BTreeSet<ObjectKey> = index.secrets_needed().cloned().collect();
        let known = index.objects().secrets.keys();
        let useless = known.filter(|key| !(needed.contains(*key) && versions.contains_key(*key)));
        let useless: Vec<ObjectKey> = useless.cloned().collect();
        for key in &useless {
            index.set_secret(key, None);
        }
        let changed = !useless.is_empty();
        self.asked.retain(|key, _| needed.contains(key) && versions.contains_key(key));
        self.failed.retain(|key| needed.contains(key) && versions.contains_key(key));

        let mut due = Vec::new();
        for key in needed {
            let Some(version) = versions.get(&key) else { continue };
            let current = index.objects().secrets.get(&key).is_some_and(|facts| {
                facts.uid == version.uid && facts.resource_version == version.resource_version
            });
            let asked = self.asked.get(&key) == Some(version);
            if !current && !asked && !self.failed.contains(&key) && self.reading.insert(key.clone()) {
                due.push(key);
            }
        }
        (due, changed)
    }

    /// Whether a read is under way, for which a compile should wait.
    pub fn is_reading(&self) -> bool {
        !self.reading.is_empty()
    }

    /// Whether a Secret has never been answered for: then a compile would wrongly miss it.
    pub fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Takes in an answer; `asked` is the version that the watch showed when it was read. Returns whether the facts changed.
    pub fn answered(
        &mut self,
        key: ObjectKey,
        asked: Option<Version>,
        answer: Option<SecretFacts>,
        index: &mut Index,
    ) -> bool {
        self.reading.remove(&key);
        self.failed.remove(&key);
        if let Some(version) = asked {
            self.asked.insert(key.clone(), version);
        }
        index.set_secret(&key, answer)
    }

    /// Notes that a read failed; what was known of the Secret stays until [`Self::retry`].
    pub fn failed(&mut self, key: ObjectKey) {
        self.reading.remove(&key);
        self.failed.insert(key);
    }

    /// Lets a Secret be read again, although its version seems to be known.
    pub fn retry(&mut self, key: &ObjectKey) {
        self.failed.remove(key);
        self.asked.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_would_break_a_header_is_not_usable() {
        assert_eq!(usable(b"secret\n"), Some("secret"));
        assert_eq!(usable(b"\n"), None);
        assert_eq!(usable(b"a\r\nInjected: yes"), None);
        assert_eq!(usable(&[0xff, 0xfe]), None);
    }
}
