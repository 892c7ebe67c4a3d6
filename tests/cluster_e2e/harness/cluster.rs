//! The cluster under test: the one that `KUBECONFIG` names, one test at a time.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::{env, fs};

use serde_json::{Value, json};

use super::installation;
use super::process::{run, say, succeed};

/// The program of `tests/cluster`.
const PROGRAM: &str = "VOICEDOCK_CLUSTER_BIN";

static CLUSTER: LazyLock<Cluster> = LazyLock::new(Cluster::start);
static TURN: Mutex<()> = Mutex::new(());

/// A cluster with voicedock on it.
pub struct Cluster {
    /// How `kubectl` reaches it.
    pub kubeconfig: PathBuf,
    /// This machine, as nodes and pods see it.
    pub host: Ipv4Addr,
    /// The nodes: name and address, by name.
    pub nodes: Vec<(String, Ipv4Addr)>,
    /// Whoever stops its parts; absent for a cluster of somebody else.
    own: Option<Own>,
}

struct Own {
    program: PathBuf,
    state: PathBuf,
    name: String,
}

/// The cluster, for one test at a time.
pub struct Turn {
    /// The cluster.
    pub cluster: &'static Cluster,
    _turn: MutexGuard<'static, ()>,
}

/// Waits for this test's turn with the cluster, on which the first test installs voicedock.
pub fn take_turn() -> Turn {
    // A test that fails while it has its turn poisons nothing: it cleared up behind itself.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Turn { cluster: LazyLock::force(&CLUSTER), _turn: turn }
}

/// Where this run keeps its files.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e")
}

impl Cluster {
    fn start() -> Self {
        for program in ["kubectl", "helm", "sipp", "kamailio", "curl", "openssl", "setpriv", "unshare", "ip"]
        {
            let there = say(Command::new("sh").args(["-c", &format!("command -v {program}")])).success;
            assert!(
                there,
                "{program} is missing: run `make tools`, and put ~/.cache/voicedock/bin on the PATH"
            );
        }
        let kubeconfig = env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).unwrap_or_else(|| {
            panic!("KUBECONFIG isn't set: run `make test`, which brings a cluster up, or set it to your own cluster's")
        });
        let cluster = Self::adopt(kubeconfig.into());
        installation::install(&cluster);
        cluster
    }

    /// One of `tests/cluster` is known by the file beside its kubeconfig.
    fn adopt(kubeconfig: PathBuf) -> Self {
        let program = env::var_os(PROGRAM).map(PathBuf::from);
        let beside = kubeconfig.parent().filter(|directory| directory.join("cluster.json").exists());
        if let (Some(directory), Some(program)) = (beside, program) {
            let config =
                fs::read(directory.join("cluster.json")).expect("the cluster's addresses can be read");
            let config: Value = serde_json::from_slice(&config).expect("cluster.json is JSON");
            let own = Own {
                name: text(&config["name"]),
                state: directory.parent().expect("a cluster's directory is in one").to_owned(),
                program,
            };
            let host = address(&config["hostAddress"]);
            return Self { kubeconfig, host, nodes: Vec::new(), own: Some(own) }.with_nodes();
        }
        let unknown = Self { kubeconfig, host: Ipv4Addr::UNSPECIFIED, nodes: Vec::new(), own: None };
        let cluster = unknown.with_nodes();
        let route = run("ip", &["-json", "route", "get", &cluster.nodes[0].1.to_string()]);
        let route: Value = serde_json::from_str(&route).expect("ip prints JSON");
        Self { host: address(&route[0]["prefsrc"]), ..cluster }
    }

    fn with_nodes(mut self) -> Self {
        let nodes = self.get(&["nodes"]);
        self.nodes = items(&nodes)
            .map(|node| {
                let addresses = node["status"]["addresses"].as_array().expect("a node has addresses");
                let internal = addresses.iter().find(|address| address["type"] == "InternalIP");
                (
                    text(&node["metadata"]["name"]),
                    address(&internal.expect("a node has an InternalIP")["address"]),
                )
            })
            .collect();
        self.nodes.sort();
        assert_eq!(self.nodes.len(), 2, "the tests need a cluster with two nodes");
        self
    }

    /// `kubectl` for this cluster.
    pub fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", &self.kubeconfig).args(args);
        command
    }

    /// `kubectl apply` of cluster-wide or fully named objects.
    pub fn apply(&self, manifests: &str) {
        let directory = directory();
        fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let file = directory.join("manifests.yaml");
        fs::write(&file, manifests).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        succeed(self.kubectl(&["apply", "--filename"]).arg(file));
    }

    /// What `kubectl get` finds, as JSON.
    pub fn get(&self, what: &[&str]) -> Value {
        let json = succeed(self.kubectl(&["get", "--output=json"]).args(what));
        serde_json::from_str(&json).expect("kubectl prints JSON")
    }

    /// Kills the API server; everything else runs on. It is started again when the guard is dropped.
    pub fn stop_api(&self) -> StoppedApi<'_> {
        succeed(&mut self.own("stopping the API server").command("stop-api"));
        StoppedApi(self)
    }

    /// Kills the only container of a pod with SIGKILL, without asking Kubernetes.
    pub fn kill_container(&self, namespace: &str, pod: &str) {
        let own = self.own("killing a container from outside");
        succeed(own.command("kill-container").args(["--namespace", namespace, "--pod", pod]));
    }

    /// Gives an image that the nodes have another tag beside its own.
    pub fn name_image(&self, (name, tag): &(String, String), other: &str) {
        let own = self.own("naming an image");
        for node in 0..self.nodes.len() {
            let mut command = own.command("exec");
            command.args([
                "--node",
                &node.to_string(),
                "--",
                "ctr",
                "-n",
                "k8s.io",
                "images",
                "tag",
                "--force",
            ]);
            succeed(command.args([format!("{name}:{tag}"), format!("{name}:{other}")]));
        }
    }

    /// Makes one UDP packet in twenty from or to a pod get lost on its node, at random, until the guard is dropped.
    pub fn lose_packets(&self, node: Ipv4Addr, pod: Ipv4Addr) -> LostPackets<'_> {
        let number =
            self.nodes.iter().position(|(_, address)| *address == node).expect("it is a node's address");
        let lossy = LostPackets { cluster: self, node: number.to_string(), pod: pod.to_string() };
        for direction in ["--source", "--destination"] {
            succeed(&mut lossy.rule("--insert", direction));
        }
        lossy
    }

    /// Has this machine send what is for `address` to a node, until the guard is dropped: as a load balancer's address does.
    pub fn route(&self, address: Ipv4Addr, node: Ipv4Addr) -> Route {
        run("ip", &["route", "replace", &format!("{address}/32"), "via", &node.to_string()]);
        Route(address)
    }

    /// Gives the default gateway an agent for Assistants that have none, until the guard is dropped.
    pub fn default_agent(&self, agent: &Value) -> DefaultAgent<'_> {
        succeed(&mut self.patch_gateway(agent));
        DefaultAgent(self)
    }

    fn patch_gateway(&self, agent: &Value) -> Command {
        let patch = json!({ "spec": { "defaultAgent": agent } }).to_string();
        let gateway = ["--namespace", installation::NAMESPACE, "patch", "sipgateway", installation::GATEWAY];
        let mut command = self.kubectl(&gateway);
        command.args(["--type=merge", "--patch", &patch]);
        command
    }

    fn own(&self, what: &str) -> &Own {
        self.own.as_ref().unwrap_or_else(|| {
            panic!(
                "{what} needs a cluster of tests/cluster: unset KUBECONFIG, or set it to the kubeconfig that \
                 `cluster up` wrote and {PROGRAM} to that program"
            )
        })
    }
}

impl Own {
    fn command(&self, command: &str) -> Command {
        let mut result = Command::new(&self.program);
        result.args([command, "--name", &self.name]).env("VOICEDOCK_STATE", &self.state);
        result
    }
}

/// An API server that is stopped.
pub struct StoppedApi<'a>(&'a Cluster);

impl Drop for StoppedApi<'_> {
    fn drop(&mut self) {
        let said = say(&mut self.0.own("starting the API server").command("start-api"));
        if !said.success {
            eprintln!("the API server doesn't start again:\n{}{}", said.output, said.errors);
        }
    }
}

/// A pod whose packets get lost.
pub struct LostPackets<'a> {
    cluster: &'a Cluster,
    node: String,
    pod: String,
}

impl LostPackets<'_> {
    fn rule(&self, action: &str, direction: &str) -> Command {
        let mut command = self.cluster.own("losing packets").command("exec");
        command.args(["--node", &self.node, "--", "iptables", action, "FORWARD", direction, &self.pod]);
        command.args([
            "--protocol",
            "udp",
            "--match",
            "statistic",
            "--mode",
            "random",
            "--probability",
            "0.05",
        ]);
        command.args(["--jump", "DROP"]);
        command
    }
}

impl Drop for LostPackets<'_> {
    fn drop(&mut self) {
        for direction in ["--source", "--destination"] {
            let _ = say(&mut self.rule("--delete", direction));
        }
    }
}

/// A default gateway with an agent.
pub struct DefaultAgent<'a>(&'a Cluster);

impl Drop for DefaultAgent<'_> {
    fn drop(&mut self) {
        let _ = say(&mut self.0.patch_gateway(&Value::Null));
    }
}

/// An address that leads to a node.
pub struct Route(Ipv4Addr);

impl Drop for Route {
    fn drop(&mut self) {
        let _ = say(Command::new("ip").args(["route", "delete", &format!("{}/32", self.0)]));
    }
}

/// The items of a list.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().expect("a list has items").iter()
}

/// A field that is a text.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a text")).to_owned()
}

fn address(value: &Value) -> Ipv4Addr {
    text(value).parse().unwrap_or_else(|_| panic!("{value} is not an IPv4 address"))
}
