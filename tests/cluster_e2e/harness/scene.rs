//! One test's stage: its turn, its namespace and its files, and what went on around it if it fails. What happens on it is in
//! `office` and `parties`.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;

use super::cluster::{self, Cluster, Turn, text};
use super::control::Control;
use super::installation::{self, GATEWAY, NAMESPACE};
use super::pods::{Pod, pods};
use super::process::{say, succeed, tail};

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A stage; see the module.
pub struct Scene {
    turn: Turn,
    /// The test's own namespace.
    pub namespace: String,
    /// The test's own files.
    pub directory: PathBuf,
    /// The number that callers dial.
    pub number: String,
    /// Port of the nodes for a gateway of the test's own: another one for each test, because the last one's may not be
    /// free yet.
    pub node_port: u16,
    key: String,
    started: Instant,
}

impl Scene {
    /// Waits for the test's turn and sets up a namespace.
    pub fn new(name: &str) -> Self {
        let turn = cluster::take_turn();
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("{name}-{}-{serial}", std::process::id() % 10_000);
        let directory = cluster::directory().join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let cluster = turn.cluster;
        succeed(&mut cluster.kubectl(&["create", "namespace", &namespace]));
        let secret = cluster.get(&["--namespace", NAMESPACE, "secret", "default-api-keys"]);
        let key = BASE64.decode(text(&secret["data"]["default"])).expect("Secrets are base64");
        let key = String::from_utf8(key).expect("the key is text");
        let number = format!("+31{}", 201_000_000 + (std::process::id() % 10_000) * 100 + serial);
        let run = u16::try_from(std::process::id() % 30).expect("it is below 30");
        let node_port = 30_600 + run * 50 + u16::try_from(serial % 50).expect("it is below 50");
        Self { turn, namespace, directory, number, node_port, key, started: Instant::now() }
    }

    /// The cluster.
    pub fn cluster(&self) -> &'static Cluster {
        self.turn.cluster
    }

    /// This machine, as the cluster sees it.
    pub fn host(&self) -> Ipv4Addr {
        self.cluster().host
    }

    /// `kubectl apply` in the test's namespace.
    pub fn apply(&self, manifests: &str) {
        let file = self.write("manifests.yaml", manifests);
        succeed(&mut self.kubectl(&["apply", "--filename", &file]));
    }

    /// Writes a file of the test and returns its path.
    pub fn write(&self, name: &str, content: &str) -> String {
        let path = self.directory.join(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path.display().to_string()
    }

    /// `kubectl` in the test's namespace.
    pub fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = self.cluster().kubectl(&["--namespace", &self.namespace]);
        command.args(args);
        command
    }

    /// Waits for an object of the test to be `Ready`.
    pub fn ready(&self, object: &str) {
        installation::ready(self.cluster(), &self.namespace, object);
    }

    /// The default gateway's pods that take calls, by name.
    pub fn pods(&self) -> Vec<Pod> {
        pods(self.cluster(), NAMESPACE, GATEWAY)
    }

    /// Call control at a pod.
    pub fn control(&self, pod: &Pod) -> Control {
        Control::new(pod.address, &self.key)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if thread::panicking() {
            let since = format!("--since={}s", self.started.elapsed().as_secs() + 1);
            let show = |args: &[&str]| {
                let said = say(&mut self.cluster().kubectl(args));
                eprintln!("---- kubectl {}\n{}", args.join(" "), tail(&(said.output + &said.errors), 20_000));
            };
            show(&["get", "pods", "--all-namespaces", "--output=wide"]);
            show(&["--namespace", &self.namespace, "get", "voicedock,sipgateways,pods", "--output=wide"]);
            for selector in ["voicedock.dev/gateway", "app.kubernetes.io/name=voicedock-operator"] {
                let logs =
                    ["logs", "--all-containers", "--prefix", "--tail=-1", &since, "--selector", selector];
                for namespace in [NAMESPACE, &self.namespace] {
                    show(&[&["--namespace", namespace], &logs[..]].concat());
                }
            }
        }
        let _ = say(&mut self.cluster().kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]));
    }
}
