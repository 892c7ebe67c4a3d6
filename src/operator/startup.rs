//! Why a gateway's pods don't come up, in a sentence with the remedy: Kubernetes doesn't admit them, or no node takes them. Pure.
//!
//! What Kubernetes says is shortened to what doesn't change by itself: no names of single pods.

use crate::resources::conditions::{ConditionStatus, reason};
use crate::routing::compile::Finding;
use crate::routing::table::ObjectKey;

/// Pods of `gateway` are not admitted; `said` is the message of the Deployment's condition `ReplicaFailure`.
pub fn refused(gateway: &ObjectKey, said: &str) -> Finding {
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
    not_yet(reason::PODS_REFUSED, format!("Kubernetes admits no pods of gateway {gateway}: {why}. {remedy}."))
}

/// No pod of `gateway` is ready and one waits for a node; `said` is the scheduler's message.
pub fn unschedulable(gateway: &ObjectKey, said: &str) -> Finding {
    let why = said.split(" preemption:").next().unwrap_or(said).trim().trim_end_matches('.');
    let remedy = if why.contains("free ports") {
        "Another pod has one of its ports on each node: give it other listeners and another httpPort, or add nodes"
    } else {
        "Add nodes, or change its nodeSelector, tolerations or resources"
    };
    not_yet(
        reason::NO_GATEWAYS,
        format!("No pod of gateway {gateway} is ready, because no node takes one: {why}. {remedy}."),
    )
}

fn not_yet(reason: &'static str, message: String) -> Finding {
    Finding { status: ConditionStatus::False, reason, message }
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
