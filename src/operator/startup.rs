//! Why a gateway doesn't come up, in a sentence with the remedy: Kubernetes doesn't admit its pods, no node takes them, or nobody
//! can reach them yet. Pure.
//!
//! What Kubernetes says is shortened to what doesn't change by itself: no names of single pods.

use k8s_openapi::api::core::v1::Service;

use crate::resources::SipGateway;
use crate::resources::conditions::{ConditionStatus, reason};
use crate::routing::compile::Finding;
use crate::routing::table::ObjectKey;

use super::acknowledge::Roll;
use super::names;
use super::provision::waits_for_balancer;
use super::watch::OwnedFacts;

/// What keeps a gateway from coming up, if anything; `programmed` is what its pods hold.
pub fn hindrance(
    object: &SipGateway,
    deployment: Option<&OwnedFacts>,
    roll: Option<&Roll>,
    service: Option<&Service>,
    programmed: &Finding,
) -> Option<Finding> {
    let gateway = names::key(object);
    if let Some(said) = deployment.and_then(|deployment| deployment.pods_refused.as_deref()) {
        return Some(refused(&gateway, said));
    }
    let nowhere = service.is_some_and(|service| waits_for_balancer(object, service));
    if nowhere && deployment.is_none() {
        return Some(unassigned(&gateway));
    }
    if programmed.reason == reason::NO_GATEWAYS {
        return Some(unschedulable(&gateway, roll?.unschedulable()?));
    }
    (nowhere && programmed.status == ConditionStatus::True).then(|| unassigned(&gateway))
}

/// Pods of `gateway` are not admitted; `said` is the message of the Deployment's condition `ReplicaFailure`.
fn refused(gateway: &ObjectKey, said: &str) -> Finding {
    // `pods "default-voicedock-5d8f-x2lq7" is forbidden: …`
    let why = said.split_once(" is forbidden: ").map_or(said, |(_, why)| why).trim_end_matches('.');
    let remedy = if why.contains("violates PodSecurity") {
        format!(
            "Pods with exposure: HostNetwork need a namespace that admits them: label {} with \
             pod-security.kubernetes.io/enforce=privileged, or move the SipGateway to a namespace of its own that has this \
             label, or choose another exposure",
            gateway.namespace
        )
    } else {
        "Remove what forbids them, and they are made".to_owned()
    };
    Finding::not_yet(
        reason::PODS_REFUSED,
        format!("Kubernetes admits no pods of gateway {gateway}: {why}. {remedy}."),
    )
}

/// No pod of `gateway` is ready and one waits for a node; `said` is the scheduler's message.
fn unschedulable(gateway: &ObjectKey, said: &str) -> Finding {
    let why = said.split(" preemption:").next().unwrap_or(said).trim().trim_end_matches('.');
    let remedy = if why.contains("free ports") {
        "Another pod has one of its ports on each node: give it other listeners and another httpPort, or add nodes"
    } else {
        "Add nodes, or change its nodeSelector, tolerations or resources"
    };
    Finding::not_yet(
        reason::NO_GATEWAYS,
        format!("No pod of gateway {gateway} is ready, because no node takes one: {why}. {remedy}."),
    )
}

/// The Service of `gateway` is of type LoadBalancer and has no address.
fn unassigned(gateway: &ObjectKey) -> Finding {
    let ObjectKey { namespace, name } = gateway;
    let service = names::base(name);
    Finding::not_yet(
        reason::ADDRESS_NOT_ASSIGNED,
        format!(
            "Service {namespace}/{service} waits for the address of its load balancer; no pod is started before, and those that \
             there are go on with the address that they know. If none comes, `kubectl -n {namespace} describe service {service}` may show why: install a load balancer, write \
             advertise.address, or choose another exposure."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway() -> ObjectKey {
        ObjectKey::new("vd", "default")
    }

    #[test]
    fn pod_security_that_forbids_the_nodes_network_is_named_with_the_remedy_and_without_the_pod() {
        let said = "pods \"default-voicedock-5d8f4-x2lq7\" is forbidden: violates PodSecurity \"baseline:latest\": host \
                    namespaces (hostNetwork=true)";
        let message = refused(&gateway(), said).message;
        assert!(message.contains("host namespaces (hostNetwork=true)"), "{message}");
        assert!(message.contains("label vd with pod-security.kubernetes.io/enforce=privileged"), "{message}");
        assert!(!message.contains("x2lq7"), "another pod is refused each time: {message}");
    }

    #[test]
    fn a_quota_that_is_used_up_is_not_taken_for_pod_security() {
        let message =
            refused(&gateway(), "pods \"a\" is forbidden: exceeded quota: pods, used: pods=2").message;
        assert!(message.contains("exceeded quota") && !message.contains("pod-security"), "{message}");
    }

    #[test]
    fn a_port_that_another_gateway_has_on_every_node_is_named_as_the_reason() {
        let said = "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports. preemption: \
                    0/2 nodes are available: 2 No preemption victims found for incoming pod.";
        let message = unschedulable(&gateway(), said).message;
        assert!(message.contains("httpPort") && !message.contains("preemption"), "{message}");
    }
}
