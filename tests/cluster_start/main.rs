//! The page that everybody begins with, on a cluster where nothing is yet: `docs/start.md`.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]

#[path = "../support/pages.rs"]
#[allow(dead_code, reason = "shared with the tests of all pages")]
mod pages;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pages::Mark;

const NAME: &str = "start";
const THIS: &str = "a_person_who_follows_the_page_gets_from_an_empty_cluster_to_a_transferred_call";

/// A cluster of its own with one node and the image; it goes with the test.
struct Cluster {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Cluster {
    fn up() -> Self {
        let given = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.exists());
        let missing =
            |name: &str| panic!("{name} isn't set, or names nothing: run this test with hack/test.sh");
        let program = given("VOICEDOCK_CLUSTER_BIN").unwrap_or_else(|| missing("VOICEDOCK_CLUSTER_BIN"));
        let image = given("VOICEDOCK_IMAGE_TAR").unwrap_or_else(|| missing("VOICEDOCK_IMAGE_TAR"));
        let state = env::var_os("VOICEDOCK_STATE")
            .map_or_else(|| pages::root().join("target/cluster"), PathBuf::from);
        let cluster = Self { program, kubeconfig: state.join(NAME).join("kubeconfig") };
        let up = cluster
            .command("up")
            .args(["--nodes", "1", "--image"])
            .arg(image)
            .env("VOICEDOCK_STATE", state)
            .status();
        assert!(up.unwrap().success(), "the cluster doesn't come up: see above");
        cluster
    }

    fn command(&self, what: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args([what, "--name", NAME]).current_dir(pages::root());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if env::var_os("VOICEDOCK_KEEP_CLUSTER").is_none() {
            // A test that fails already says why.
            let _ = self.command("down").status();
        }
    }
}

#[test]
fn a_person_who_follows_the_page_gets_from_an_empty_cluster_to_a_transferred_call() {
    let cluster = Cluster::up();
    let blocks = pages::blocks(Path::new("docs/start.md"));
    let steps: Vec<_> = blocks.iter().filter(|block| block.mark == Mark::RunBy(THIS.into())).collect();
    assert!(steps.len() >= 5, "the page has {} steps", steps.len());
    let mut script = String::from("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    for step in &steps {
        script.push_str(&format!("echo '== {step}'\n{}\n", step.text));
    }
    let node = "$(kubectl get nodes --output jsonpath='{.items[*].status.addresses[?(@.type==\"InternalIP\")].address}')";
    let nobody_between = format!(
        "export no_proxy=172.31.0.0/16,localhost; export no_proxy=$no_proxy,{node} NO_PROXY=$no_proxy\n"
    );
    let done = Command::new("timeout")
        .args(["300", "bash", "-c", &(nobody_between + &script)])
        .env("KUBECONFIG", &cluster.kubeconfig)
        .current_dir(pages::root())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
    assert!(said.contains("now hears human sales"), "nobody was transferred by the assistant: {said}");
    assert!(said.contains("\"outcome\": \"answered\""), "nobody was transferred over the API: {said}");
}
