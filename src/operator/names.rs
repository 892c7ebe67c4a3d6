//! Names and labels of what the operator makes: in one place, so that people and selectors find them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};

use crate::resources::SipGateway;
use crate::routing::ack;
use crate::routing::table::ObjectKey;

/// Label `app.kubernetes.io/managed-by` of what the operator makes.
pub const MANAGED_BY: &str = "voicedock-operator";

/// Longest name of a SipGateway from which the names of its Service and Pods still fit into 63 characters.
pub const LONGEST_GATEWAY: usize = 40;

/// Deployment, Service, ServiceAccount, Role, RoleBinding, PodDisruptionBudget and NetworkPolicy of a gateway.
pub fn base(gateway: &str) -> String {
    format!("{gateway}-voicedock")
}

/// The Service for call control alone, never reached from outside the cluster.
pub fn api_service(gateway: &str) -> String {
    format!("{gateway}-voicedock-api")
}

/// The Secret with the credentials of a gateway's table.
pub fn credentials(gateway: &str) -> String {
    format!("{gateway}-voicedock-credentials")
}

/// The gateway whose credentials Secret has this name, if it has such a name.
pub fn gateway_of_credentials(secret: &ObjectKey) -> Option<ObjectKey> {
    let gateway = secret.name.strip_suffix("-voicedock-credentials")?;
    Some(ObjectKey::new(secret.namespace.clone(), gateway))
}

/// A RoutingSlice: its name ends with the hash of its content, which `routing::slice::hash_in` finds.
pub fn slice(gateway: &str, part: &str, hash: &str) -> String {
    format!("{gateway}-{part}-{hash}")
}

/// Whether names for the gateway's Service and Pods can be made.
pub fn usable(gateway: &str) -> bool {
    let bytes = gateway.as_bytes();
    let inner = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    inner && gateway.len() <= LONGEST_GATEWAY && bytes.first().is_some_and(u8::is_ascii_alphabetic)
}

/// Labels that select the pods of a gateway. Part of immutable selectors: they never change.
pub fn selector(gateway: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "voicedock-gateway".to_owned()),
        (ack::GATEWAY_LABEL.to_owned(), gateway.to_owned()),
    ])
}

/// Labels of everything that is made for a gateway.
pub fn labels(gateway: &str) -> BTreeMap<String, String> {
    let mut labels = selector(gateway);
    labels.insert("app.kubernetes.io/part-of".to_owned(), "voicedock".to_owned());
    labels.insert(ack::MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    labels
}

/// Labels of the SipGateway that what is made for it may carry as well. Labels by which GitOps tools track
/// what they applied are left out: with them, Argo CD and Flux would prune our objects or call them out of sync.
pub fn inherited(gateway: &SipGateway) -> BTreeMap<String, String> {
    let tracking = |name: &str| {
        name.starts_with("argocd.argoproj.io/")
            || name.contains("toolkit.fluxcd.io/")
            || name.starts_with("app.kubernetes.io/")
            || name.starts_with("helm.sh/")
            || name.starts_with("voicedock.dev/")
    };
    gateway.labels().iter().filter(|(name, _)| !tracking(name)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Metadata of an object `name` that is deleted with the gateway.
pub fn owned_metadata(gateway: &SipGateway, name: String) -> ObjectMeta {
    let mut all = inherited(gateway);
    all.extend(labels(&gateway.name_any()));
    ObjectMeta {
        name: Some(name),
        namespace: gateway.namespace(),
        labels: Some(all),
        owner_references: Some(vec![owner(gateway)]),
        ..ObjectMeta::default()
    }
}

/// The gateway as controlling owner. Its deletion does not wait for what it owns.
pub fn owner(gateway: &SipGateway) -> OwnerReference {
    owner_of(gateway)
}

/// An object as controlling owner. Its deletion does not wait for what it owns.
pub fn owner_of<K: Resource<DynamicType = ()>>(object: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// `namespace/name` of an object.
pub fn key<K: Resource>(object: &K) -> ObjectKey {
    ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_gitops_tools_are_not_copied() {
        let mut gateway = SipGateway::new("default", serde_json::from_str("{}").unwrap());
        gateway.metadata.labels = Some(BTreeMap::from([
            ("team".to_owned(), "voice".to_owned()),
            ("argocd.argoproj.io/instance".to_owned(), "x".to_owned()),
            ("kustomize.toolkit.fluxcd.io/name".to_owned(), "x".to_owned()),
            ("app.kubernetes.io/managed-by".to_owned(), "Helm".to_owned()),
        ]));
        assert_eq!(inherited(&gateway), BTreeMap::from([("team".to_owned(), "voice".to_owned())]));
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        assert!(usable("default"));
        assert!(!usable("with.dot"));
        assert!(!usable("9-lives"));
        assert!(!usable(&"a".repeat(LONGEST_GATEWAY + 1)));
    }
}
