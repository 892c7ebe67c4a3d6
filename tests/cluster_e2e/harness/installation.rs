//! voicedock on the cluster: the chart, as a person installs it, with the default gateway on a port of the nodes.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

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
    let started = Instant::now();
    // A kind can't be used in the same run that makes it: the second run adds the SipGateway.
    let runs = if known(cluster) { 1 } else { 2 };
    for _ in 0..runs {
        succeed(&mut upgrade(cluster));
    }
    for role in ["operator", "api"] {
        let deployment = format!("deployment/voicedock-{role}");
        let timeout = format!("--timeout={}s", READY.as_secs());
        succeed(&mut cluster.kubectl(&[
            "--namespace",
            NAMESPACE,
            "rollout",
            "status",
            &timeout,
            &deployment,
        ]));
    }
    let gateway = format!("sipgateway/{GATEWAY}");
    ready(cluster, NAMESPACE, &gateway);
    note(&format!(
        "{runs} runs of helm until operator, API and gateways are ready: {:.1?}",
        started.elapsed()
    ));
    // The Service's rules are on the nodes a moment after its pods are ready.
    for (_, node) in &cluster.nodes {
        until("SIP is answered on every node", READY, || super::probe::options(cluster, *node, NODE_PORT));
    }
}

/// Whether the definitions are there.
fn known(cluster: &Cluster) -> bool {
    say(&mut cluster.kubectl(&["get", "customresourcedefinition", "sipgateways.voicedock.dev"])).success
}

/// Keeps a figure of this run, which no test judges: `installation.txt` beside the tests' files.
fn note(figure: &str) {
    let directory = super::cluster::directory();
    let kept = fs::create_dir_all(&directory).and_then(|()| {
        let mut file =
            OpenOptions::new().create(true).append(true).open(directory.join("installation.txt"))?;
        writeln!(file, "{figure}")
    });
    kept.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
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

/// The image under test: name and tag.
pub fn image() -> (String, String) {
    let image = env::var("VOICEDOCK_IMAGE").unwrap_or_else(|_| "voicedock.local/voicedock:dev".to_owned());
    let (name, tag) = image.rsplit_once(':').expect("an image's name has a tag");
    (name.to_owned(), tag.to_owned())
}

/// The chart under test.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/voicedock")
}

/// `helm` in the release's namespace.
pub fn helm(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new("helm");
    command.env("KUBECONFIG", &cluster.kubeconfig).args(arguments).args(["--namespace", NAMESPACE]);
    command
}

/// `helm upgrade --install` with the settings of all tests.
pub fn upgrade(cluster: &Cluster) -> Command {
    let (name, tag) = image();
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
    let mut command = helm(cluster, &["upgrade", "--install", "voicedock"]);
    command.arg(chart()).args(settings);
    command
}
