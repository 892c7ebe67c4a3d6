//! SipGateways.

use std::collections::{BTreeMap, BTreeSet};

use crate::resources::conditions::reason;
use crate::resources::sip_gateway::SipGatewaySpec;
use crate::routing::table::ObjectKey;

use super::agents::{self, Agent};
use super::verdict::{Checked, Problems, problem};
use super::{Objects, secrets};

/// A gateway that numbers can attach to.
#[derive(PartialEq)]
pub(in crate::routing) struct Gateway {
    /// The agent of Assistants that name none.
    pub default_agent: Option<Agent>,
}

/// Checks every SipGateway.
pub(in crate::routing) fn check(objects: &Objects) -> BTreeMap<ObjectKey, Checked<Gateway>> {
    let gateways = objects.gateways.iter();
    gateways.map(|(key, gateway)| (key.clone(), check_one(objects, key, &gateway.spec))).collect()
}

/// Checks one SipGateway. A listener whose certificate is missing keeps nothing else of the gateway from working.
pub(in crate::routing) fn check_one(
    objects: &Objects,
    key: &ObjectKey,
    spec: &SipGatewaySpec,
) -> Checked<Gateway> {
    let mut accepted = Problems::default();
    let default_agent = spec.default_agent.as_ref();
    let default_agent =
        default_agent.map(|agent| agents::check(objects, "defaultAgent", &key.namespace, agent));
    let mut resolved = Problems::default();
    let default_agent = default_agent.and_then(|agent| agent.within(&mut accepted, &mut resolved));
    for listener in &spec.listeners {
        let Some(named) = &listener.certificate_ref else { continue };
        let secret = ObjectKey::new(&key.namespace, &named.name);
        let effect = format!("Until then nobody can connect to port {} over TLS.", listener.port);
        let found = secrets::certificate(objects, "listeners[].certificateRef", &secret, &effect);
        let _ = resolved.take(found);
    }
    if let Some(named) = &spec.api_keys_secret_ref {
        resolved.extend(api_keys(objects, &ObjectKey::new(&key.namespace, &named.name)));
    }
    let usable = accepted.is_empty().then_some(Gateway { default_agent });
    Checked { accepted, resolved, usable }
}

/// The Secrets that a gateway names for its listeners, its API keys and its default agent, in its own namespace; each once.
pub(in crate::routing) fn secrets(key: &ObjectKey, spec: &SipGatewaySpec) -> BTreeSet<ObjectKey> {
    let named = spec.listeners.iter().filter_map(|listener| listener.certificate_ref.as_ref());
    let named = named.chain(&spec.api_keys_secret_ref);
    let agent = spec.default_agent.iter().flat_map(|agent| agents::named_secrets(&key.namespace, agent));
    named.map(|named| ObjectKey::new(&key.namespace, &named.name)).chain(agent).collect()
}

/// What is wrong with the Secret of API keys. Calls go on without it.
fn api_keys(objects: &Objects, secret: &ObjectKey) -> Problems {
    let (reason, wrong) = match objects.secrets.get(secret) {
        None => (reason::REF_NOT_FOUND, "which does not exist; create it"),
        Some(facts) if facts.keys.is_empty() && !facts.is_sealed => {
            (reason::SECRET_KEY_MISSING, "which holds no key; add one")
        }
        Some(_) => return Problems::default(),
    };
    problem(
        reason,
        format!(
            "apiKeysSecretRef names Secret {secret}, {wrong}. Until then call control answers 401 to everybody; calls \
             aren't affected."
        ),
    )
}
