//! voicedock on the cluster: the chart, as a person installs it, with the default gateway on a port of the nodes.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::cluster::Cluster;
use super::process::{say, succeed};
use super::wait::until;

/// Namespace of the release.
pub const NAMESPACE: &str = "voicedock-system";
/// Name of the default gateway.
pub const GATEWAY: &str = "default";
/// Port of the nodes on which the default gateway takes SIP, over UDP and TCP.
pub const NODE_PORT: u16 = 30560;

/// Longest that anything of the installation may take, image start included.
const READY: Duration = Duration::from_secs(90);

/// Installs the release, or brings one that is there up to date, and waits until its gateway takes calls.
pub fn install(cluster: &Cluster) {
    let namespace = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  labels: \
         {{pod-security.kubernetes.io/enforce: restricted}}\n"
    );
    cluster.apply(&namespace);
    // A kind can't be used in the same run that makes it: the second run adds the SipGateway.
    for _ in 0..2 {
        succeed(&mut helm(cluster));
    }
    let gateway = format!("sipgateway/{GATEWAY}");
    ready(cluster, NAMESPACE, &gateway);
    // The Service's rules are on the nodes a moment after its pods are ready.
    for (_, node) in &cluster.nodes {
        until("SIP is answered on every node", READY, || super::probe::options(cluster, *node, NODE_PORT));
    }
}

/// Waits for an object to be `Ready`.
pub fn ready(cluster: &Cluster, namespace: &str, object: &str) {
    let timeout = format!("--timeout={}s", READY.as_secs());
    let wait = ["--namespace", namespace, "wait", "--for=condition=Ready", &timeout, object];
    let said = say(&mut cluster.kubectl(&wait));
    if !said.success {
        let seen = say(&mut cluster.kubectl(&["--namespace", namespace, "get", object, "--output=yaml"]));
        panic!("{object} in {namespace} is not Ready: {}\n{}{}", said.errors, seen.output, seen.errors);
    }
}

fn helm(cluster: &Cluster) -> Command {
    let image = env::var("VOICEDOCK_IMAGE").unwrap_or_else(|_| "voicedock.local/voicedock:dev".to_owned());
    let (name, tag) = image.rsplit_once(':').expect("an image's name has a tag");
    let listener = |transport| json!({ "transport": transport, "port": 5060, "nodePort": NODE_PORT });
    let settings = [
        "--set-string=image.registry=".to_owned(),
        format!("--set-string=image.repository={name}"),
        format!("--set-string=image.tag={tag}"),
        "--set=gateway.exposure=NodePort".to_owned(),
        format!("--set-json=gateway.listeners={}", json!([listener("UDP"), listener("TCP")])),
        // So that a test of autoscaling takes seconds.
        "--set=operator.scaleDownAfterSeconds=3".to_owned(),
        // Bounds what a test that fails can make the next one wait for.
        "--set=gateway.drainTimeoutSeconds=60".to_owned(),
    ];
    let mut command = Command::new("helm");
    command
        .env("KUBECONFIG", &cluster.kubeconfig)
        .args(["upgrade", "--install", "voicedock", "--namespace", NAMESPACE])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/voicedock"))
        .args(settings);
    command
}
