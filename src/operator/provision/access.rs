//! What a gateway's pods may do at the API server: as little as they need. Pure.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::ResourceExt;

use crate::operator::names;
use crate::resources::SipGateway;

/// The identity of the pods. Its token is mounted by the pods themselves and by nobody who borrows the account.
pub fn service_account(gateway: &SipGateway) -> ServiceAccount {
    ServiceAccount {
        metadata: names::owned_metadata(gateway, names::base(&gateway.name_any())),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// Read its own head and credentials, and slices; write Leases (pods of the version before patch them until they are
/// replaced). Slices are named by their content, so that their names can't be listed here; Leases are of all gateways of the
/// namespace, because a pod finds its peers by them.
pub fn role(gateway: &SipGateway) -> Role {
    let name = gateway.name_any();
    Role {
        metadata: names::owned_metadata(gateway, names::base(&name)),
        rules: Some(vec![
            rule("voicedock.dev", "routingtables", &["get", "list", "watch"], Some(&name)),
            rule("voicedock.dev", "routingslices", &["get"], None),
            rule("", "secrets", &["get"], Some(&names::credentials(&name))),
            rule(
                "coordination.k8s.io",
                "leases",
                &["create", "get", "list", "patch", "update", "watch"],
                None,
            ),
        ]),
    }
}

/// Gives the role to the account.
pub fn role_binding(gateway: &SipGateway) -> RoleBinding {
    let name = names::base(&gateway.name_any());
    RoleBinding {
        metadata: names::owned_metadata(gateway, name.clone()),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: name.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name,
            namespace: gateway.namespace(),
            api_group: None,
        }]),
    }
}

fn rule(group: &str, resource: &str, verbs: &[&str], name: Option<&str>) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        resource_names: name.map(|name| vec![name.to_owned()]),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        non_resource_urls: None,
    }
}
