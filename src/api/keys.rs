//! Keys of the API: Secrets with the label `voicedock.dev/holds: api-key`, in the namespace that the key opens.
//!
//! ```yaml
//! metadata:
//!   labels: {voicedock.dev/holds: api-key}
//!   annotations:                                     # both optional
//!     voicedock.dev/scopes: numbers:read,calls:write   # everything when left out
//!     voicedock.dev/expires-at: "2027-01-01T00:00:00Z"
//! stringData: {sha256: <the key's SHA-256, 64 hexadecimal digits>}
//! ```
//!
//! The key itself is nowhere but with whoever uses it. It holds 256 random bits, so that a plain hash of it can't be turned
//! round. A Secret that can't be read opens nothing. One that is deleted, or whose time is over, opens nothing from then on.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use rand::Rng;
use sha2::{Digest, Sha256};

use super::rate::Bucket;
use super::scopes::Scopes;
use crate::routing::table::ObjectKey;

/// Label of Secrets that the API knows; its value says what is in them.
pub const HOLDS: &str = "voicedock.dev/holds";
/// Value of [`HOLDS`] of a key's Secret.
pub const API_KEY: &str = "api-key";
/// Annotation: what the key may do; see [`Scopes`].
pub const SCOPES: &str = "voicedock.dev/scopes";
/// Annotation: until when it may, RFC 3339.
pub const EXPIRES_AT: &str = "voicedock.dev/expires-at";
/// Key of the Secret that holds the hash.
pub const HASH: &str = "sha256";
/// What every key begins with, so that one that leaked is recognised as such.
const PREFIX: &str = "vdk_";

/// The SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

/// What a key opens.
#[derive(Debug)]
pub struct Key {
    /// The Secret; its namespace is the only one that the key opens.
    pub object: ObjectKey,
    /// What it may do there.
    pub scopes: Scopes,
    /// Until when; for ever when `None`.
    pub expires: Option<Timestamp>,
    /// How much it has been used lately.
    pub bucket: Bucket,
    hash: KeyHash,
    created: Timestamp,
}

/// Why a Secret opens nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no hash.
    #[error("its entry {HASH} is not the SHA-256 of a key in 64 hexadecimal digits")]
    Hash,
    /// The scopes can't be read.
    #[error("annotation {SCOPES}: {0}")]
    Scopes(String),
    /// The time can't be read.
    #[error("annotation {EXPIRES_AT} is no time such as 2027-01-01T00:00:00Z")]
    Expiry,
}

/// A new key, as it is shown once.
pub fn generate() -> String {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

impl KeyHash {
    /// The hash of a key.
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.trim();
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, place) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(text.get(place..place + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash")
    }
}

impl Key {
    /// Reads a Secret.
    pub fn of(secret: &Secret) -> Result<Self, KeyError> {
        let hash = secret.data.as_ref().and_then(|data| KeyHash::parse(&data.get(HASH)?.0));
        let scopes = secret.annotations().get(SCOPES);
        let scopes = scopes.map_or(Ok(Scopes::All), |text| text.parse());
        let expires = secret.annotations().get(EXPIRES_AT).map(|text| text.parse()).transpose();
        Ok(Self {
            object: ObjectKey::new(secret.namespace().unwrap_or_default(), secret.name_any()),
            scopes: scopes.map_err(|error| KeyError::Scopes(error.to_string()))?,
            expires: expires.map_err(|_| KeyError::Expiry)?,
            bucket: Bucket::default(),
            hash: hash.ok_or(KeyError::Hash)?,
            created: secret.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        })
    }
}

/// Every key, found by what is sent.
#[derive(Debug, Default)]
pub struct KeyRing(HashMap<KeyHash, Arc<Key>>);

impl KeyRing {
    /// The key that this is, if it opens anything at `now`. (Which hash is looked for is nothing that a stranger can choose, so
    /// the time that it takes tells nothing.)
    pub fn find(&self, sent: &[u8], now: Timestamp) -> Option<&Arc<Key>> {
        let key = self.0.get(&KeyHash::of(sent))?;
        key.expires.is_none_or(|end| now < end).then_some(key)
    }
}

/// A hash that stands in two Secrets opens the namespace of the older one: nobody can lead a key elsewhere by copying it.
impl FromIterator<Arc<Key>> for KeyRing {
    fn from_iter<T: IntoIterator<Item = Arc<Key>>>(keys: T) -> Self {
        let mut ring: HashMap<KeyHash, Arc<Key>> = HashMap::new();
        let age = |key: &Key| (key.created, key.object.clone());
        for key in keys {
            match ring.entry(key.hash) {
                Entry::Vacant(place) => drop(place.insert(key)),
                Entry::Occupied(mut place) => {
                    let (older, newer) = if age(&key) < age(place.get()) {
                        (key.clone(), place.insert(key))
                    } else {
                        (Arc::clone(place.get()), key)
                    };
                    tracing::warn!(
                        "Secret {} holds the same key as {} and opens nothing; delete it",
                        newer.object,
                        older.object
                    );
                }
            }
        }
        Self(ring)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn secret(namespace: &str, key: &str, created: &str, annotations: Value) -> Secret {
        let hash = base64::engine::general_purpose::STANDARD.encode(KeyHash::of(key.as_bytes()).to_string());
        serde_json::from_value(json!({
            "metadata": {
                "name": "crm", "namespace": namespace, "creationTimestamp": created, "annotations": annotations,
            },
            "data": { HASH: hash },
        }))
        .unwrap()
    }

    fn ring(secrets: &[Secret]) -> KeyRing {
        secrets.iter().map(|secret| Arc::new(Key::of(secret).unwrap())).collect()
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    const FIRST: &str = "2026-01-01T00:00:00Z";
    const LATER: &str = "2026-06-01T00:00:00Z";

    #[test]
    fn a_key_opens_its_own_namespace_and_another_opens_nothing() {
        let ring =
            ring(&[secret("acme", "one", FIRST, json!({})), secret("globex", "two", FIRST, json!({}))]);
        let opens = |key: &str| ring.find(key.as_bytes(), at(LATER)).map(|key| key.object.namespace.clone());
        assert_eq!(opens("one").as_deref(), Some("acme"));
        assert_eq!(opens("two").as_deref(), Some("globex"));
        assert_eq!(opens("three"), None);
    }

    #[test]
    fn a_key_opens_nothing_from_the_moment_on_at_which_it_expires() {
        let ring = ring(&[secret("acme", "one", FIRST, json!({ EXPIRES_AT: LATER }))]);
        assert!(ring.find(b"one", at("2026-05-31T23:59:59Z")).is_some());
        assert!(ring.find(b"one", at(LATER)).is_none());
    }

    #[test]
    fn a_copied_hash_opens_the_namespace_of_the_older_secret() {
        for order in [[("acme", FIRST), ("evil", LATER)], [("evil", LATER), ("acme", FIRST)]] {
            let secrets = order.map(|(namespace, created)| secret(namespace, "one", created, json!({})));
            assert_eq!(ring(&secrets).find(b"one", at(LATER)).unwrap().object.namespace, "acme");
        }
    }

    #[test]
    fn a_secret_that_can_not_be_read_opens_nothing() {
        let wrong = |annotations| Key::of(&secret("acme", "one", FIRST, annotations)).unwrap_err();
        assert!(matches!(wrong(json!({ SCOPES: "" })), KeyError::Scopes(_)), "no scope isn't every scope");
        assert_eq!(wrong(json!({ EXPIRES_AT: "soon" })), KeyError::Expiry);
        let mut empty = secret("acme", "one", FIRST, json!({}));
        for hash in ["", "ab", &"g".repeat(64)] {
            empty.data = Some([(HASH.to_owned(), k8s_openapi::ByteString(hash.into()))].into());
            assert_eq!(Key::of(&empty).unwrap_err(), KeyError::Hash);
        }
    }

    #[test]
    fn every_new_key_is_another_and_looks_like_one() {
        let (one, two) = (generate(), generate());
        assert_ne!(one, two);
        assert!(one.starts_with(PREFIX) && one.len() == PREFIX.len() + 43, "{one}");
    }
}
