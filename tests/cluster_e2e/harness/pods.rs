//! The gateway's pods.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;

use super::cluster::{Cluster, items, text};
use super::installation::NAMESPACE;
use super::scene::Scene;
use super::wait::until;

/// A gateway pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The address of its node.
    pub node: Ipv4Addr,
}

/// The pods of a gateway that are being ended, by name. Until they are gone a call may still reach them.
pub fn leaving(cluster: &Cluster, namespace: &str, gateway: &str) -> Vec<String> {
    let selector = format!("voicedock.dev/gateway={gateway}");
    let list = cluster.get(&["--namespace", namespace, "pods", "--selector", &selector]);
    let ended = items(&list).filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null());
    ended.map(|pod| text(&pod["metadata"]["name"])).collect()
}

/// The pods of a gateway that take calls, by name.
pub fn pods(cluster: &Cluster, namespace: &str, gateway: &str) -> Vec<Pod> {
    ready_pods(cluster, namespace, &format!("voicedock.dev/gateway={gateway}"))
}

/// The pods with these labels that are ready, by name.
pub fn ready_pods(cluster: &Cluster, namespace: &str, selector: &str) -> Vec<Pod> {
    let list = cluster.get(&["--namespace", namespace, "pods", "--selector", selector]);
    let ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        pod["metadata"]["deletionTimestamp"].is_null()
            && conditions
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let address = |value: &Value| text(value).parse().expect("an IPv4 address");
    let mut pods: Vec<_> = items(&list)
        .filter(|pod| ready(pod))
        .map(|pod| Pod {
            name: text(&pod["metadata"]["name"]),
            address: address(&pod["status"]["podIP"]),
            node: address(&pod["status"]["hostIP"]),
        })
        .collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods
}

/// How often the container of a pod of the default gateway was started again.
pub fn restarts(cluster: &Cluster, pod: &Pod) -> u64 {
    let pod = cluster.get(&["--namespace", NAMESPACE, "pod", &pod.name]);
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().expect("restarts are counted")
}

/// What the Lease of a gateway's pod says: `instance`, with which its call ids begin, `calls`, or `generation`, by which it routes.
pub fn said(cluster: &Cluster, namespace: &str, pod: &Pod, what: &str) -> String {
    let lease = cluster.get(&["--namespace", namespace, "lease", &pod.name]);
    text(&lease["metadata"]["annotations"][format!("voicedock.dev/{what}")])
}

/// A pod of each node, once both nodes have one.
pub fn pod_per_node(scene: &Scene) -> [Pod; 2] {
    until("a gateway pod is ready on each node", Duration::from_secs(60), || match &scene.pods()[..] {
        [a, b] if a.node != b.node => Ok([a.clone(), b.clone()]),
        other => Err(format!("{other:?}")),
    })
}
