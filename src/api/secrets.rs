//! The Secrets that the API knows, by their label [`HOLDS`]: its keys, the user names of trunks that it has
//! made, and the keys of gateways.
//!
//! Nothing else of them is kept: passwords are dropped at the door.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use axum::http::HeaderValue;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::keys::{API_KEY, HOLDS, Key, KeyRing};
use crate::operator::watch::Delta;
use crate::routing::ack;
use crate::routing::table::ObjectKey;

/// Value of [`HOLDS`] of a trunk's user name and password.
pub const TRUNK_LOGIN: &str = "trunk-login";

/// Value of [`HOLDS`] of the keys of a SipGateway, which the label `voicedock.dev/gateway` names.
pub const GATEWAY_KEYS: &str = "gateway-keys";

/// What is kept of a Secret.
#[derive(Clone, Debug)]
pub enum Held {
    /// A key.
    Key(Arc<Key>),
    /// The user name of a trunk.
    Username(String),
    /// What opens the pods of a gateway.
    Gateway(GatewayKeys),
}

/// The keys of a gateway, as headers. Nothing prints them.
#[derive(Clone)]
pub struct GatewayKeys {
    gateway: ObjectKey,
    keys: Vec<HeaderValue>,
}

impl fmt::Debug for GatewayKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GatewayKeys({})", self.gateway)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Secrets {
    held: Mutex<BTreeMap<ObjectKey, Held>>,
    keys: ArcSwap<KeyRing>,
    usernames: ArcSwap<HashMap<ObjectKey, String>>,
    gateways: ArcSwap<HashMap<ObjectKey, Vec<HeaderValue>>>,
    listed: AtomicBool,
}

/// Selects them.
pub fn selector() -> String {
    format!("{HOLDS} in ({API_KEY},{TRUNK_LOGIN},{GATEWAY_KEYS})")
}

/// What is kept of a Secret; nothing, and a log line, when it can't be read.
pub fn reduce(secret: Secret) -> Option<Held> {
    match secret.labels().get(HOLDS).map(String::as_str) {
        Some(TRUNK_LOGIN) => {
            let username = secret.data?.remove("username")?;
            return String::from_utf8(username.0).ok().map(Held::Username);
        }
        Some(GATEWAY_KEYS) => return gateway_keys(secret).map(Held::Gateway),
        _ => {}
    }
    match Key::of(&secret) {
        Ok(key) => Some(Held::Key(Arc::new(key))),
        Err(error) => {
            let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
            tracing::warn!("Secret {namespace}/{name} opens nothing as an API key: {error}");
            None
        }
    }
}

fn gateway_keys(secret: Secret) -> Option<GatewayKeys> {
    let gateway = ObjectKey::new(secret.namespace()?, secret.labels().get(ack::GATEWAY_LABEL)?);
    Some(GatewayKeys { gateway, keys: bearers(secret) })
}

/// The values of a Secret as keys, each as the header that shows it.
pub fn bearers(secret: Secret) -> Vec<HeaderValue> {
    let header = |key: ByteString| {
        let mut header = HeaderValue::from_bytes(&[b"Bearer ", key.0.trim_ascii()].concat()).ok()?;
        header.set_sensitive(true);
        Some(header)
    };
    secret.data.unwrap_or_default().into_values().filter_map(header).collect()
}

impl Secrets {
    /// Whether the watch has listed once.
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    /// The keys as they are now.
    pub fn keys(&self) -> arc_swap::Guard<Arc<KeyRing>> {
        self.keys.load()
    }

    /// The user name in a trunk's Secret.
    pub fn username(&self, secret: &ObjectKey) -> Option<String> {
        self.usernames.load().get(secret).cloned()
    }

    /// The keys of a gateway, as headers.
    pub fn gateway_keys(&self, gateway: &ObjectKey) -> Vec<HeaderValue> {
        self.gateways.load().get(gateway).cloned().unwrap_or_default()
    }

    /// Takes in what the watch says.
    pub fn hear(&self, delta: Delta<Held>) {
        let listed = matches!(delta, Delta::Replace(_));
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match delta {
            Delta::Put(key, what) => drop(held.insert(key, what)),
            Delta::Gone(key) => drop(held.remove(&key)),
            Delta::Replace(all) => *held = all,
        }
        let keys = held.values().filter_map(|held| match held {
            Held::Key(key) => Some(Arc::clone(key)),
            Held::Username(_) | Held::Gateway(_) => None,
        });
        self.keys.store(Arc::new(keys.collect()));
        let usernames = held.iter().filter_map(|(key, held)| match held {
            Held::Username(username) => Some((key.clone(), username.clone())),
            Held::Key(_) | Held::Gateway(_) => None,
        });
        self.usernames.store(Arc::new(usernames.collect()));
        let mut gateways: HashMap<ObjectKey, Vec<HeaderValue>> = HashMap::new();
        for held in held.values() {
            if let Held::Gateway(GatewayKeys { gateway, keys }) = held {
                gateways.entry(gateway.clone()).or_default().extend(keys.iter().cloned());
            }
        }
        self.gateways.store(Arc::new(gateways));
        if listed {
            self.listed.store(true, Ordering::Release);
        }
    }

    /// Takes in the user name of a trunk that was just made.
    pub fn put_username(&self, secret: ObjectKey, username: String) {
        self.hear(Delta::Put(secret, Held::Username(username)));
    }
}
