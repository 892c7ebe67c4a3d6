//! One test's stage: a namespace with an assistant, a number and a trunk, parties around it, and what went on if it fails.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::Value;

use super::cluster::{self, Cluster, Turn, items, text};
use super::control::Control;
use super::installation::{self, GATEWAY, NAMESPACE, NODE_PORT};
use super::probe;
use super::process::{say, succeed, tail};
use super::sipp::{Setup, Sipp, Transport};
use super::wait::{SOON, until};

/// The human's number.
pub const SALES: &str = "+31612345678";
/// The caller's number.
pub const CALLER: &str = "+31687654321";

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
    key: String,
    started: Instant,
}

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

/// The objects of an office: assistant, number, trunk and destination.
pub struct Office<'a> {
    /// Port of the agent.
    pub agent: u16,
    /// Port of the trunk.
    pub trunk: u16,
    /// Transport of the trunk.
    pub transport: &'a str,
    /// Further lines of the trunk's spec.
    pub trunk_spec: &'a str,
    /// Seconds that the human may ring.
    pub ring_seconds: u32,
}

impl Default for Office<'_> {
    fn default() -> Self {
        Self { agent: 9, trunk: 9, transport: "UDP", trunk_spec: "", ring_seconds: 30 }
    }
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
        Self { turn, namespace, directory, number, key, started: Instant::now() }
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

    /// A condition of an object of the test: status, reason, message.
    pub fn condition(&self, object: &str, condition: &str) -> (String, String, String) {
        let object = self.cluster().get(&["--namespace", &self.namespace, object]);
        let found =
            object["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == condition);
        let field = |name: &str| found.map_or_else(String::new, |found| text(&found[name]));
        (field("status"), field("reason"), field("message"))
    }

    /// The manifests of an office; see [`Office`].
    pub fn office(&self, office: &Office<'_>) -> String {
        let Office { agent, trunk, transport, trunk_spec, ring_seconds } = office;
        let (host, number) = (self.host(), &self.number);
        format!(
            r#"
apiVersion: voicedock.dev/v1alpha1
kind: SipTrunk
metadata: {{name: office}}
spec:
  host: {host}
  port: {trunk}
  transport: {transport}
  inbound: {{allowedSources: [{host}]}}
{trunk_spec}
---
apiVersion: voicedock.dev/v1alpha1
kind: TransferDestination
metadata: {{name: sales}}
spec: {{type: number, number: "{SALES}", description: Sales team, ringTimeoutSeconds: {ring_seconds}}}
---
apiVersion: voicedock.dev/v1alpha1
kind: Assistant
metadata: {{name: support}}
spec:
  llmConfig:
    tools:
    - {{type: transfer_call, destinations: [{{destinationRef: {{name: sales}}}}]}}
  agent: {{sip: {{uri: "sip:agent@{host}:{agent}"}}}}
---
apiVersion: voicedock.dev/v1alpha1
kind: PhoneNumber
metadata: {{name: main-line}}
spec:
  number: "{number}"
  assistantRef: {{name: support}}
  transferTrunkRef: {{name: office}}
"#
        )
    }

    /// An office with a gateway of its own (`own`, one pod, heard on a port of the nodes), whose table nobody else changes.
    pub fn secluded(&self, office: &Office<'_>, node_port: u16) -> String {
        let office = self
            .office(office)
            .replace("  transferTrunkRef", "  gatewayRef: {name: own}\n  transferTrunkRef");
        format!(
            r#"{office}---
apiVersion: voicedock.dev/v1alpha1
kind: SipGateway
metadata: {{name: own}}
spec:
  replicas: 1
  exposure: NodePort
  drainTimeoutSeconds: 1
  listeners:
  - {{transport: UDP, port: 5060, nodePort: {node_port}}}
"#
        )
    }

    /// The pod of [`Self::secluded`], once it takes calls.
    pub fn secluded_pod(&self, node_port: u16) -> Pod {
        self.ready("sipgateway/own");
        self.ready("phonenumber/main-line");
        let [pod] = &pods(self.cluster(), &self.namespace, "own")[..] else {
            panic!("one pod was asked for")
        };
        until("SIP is answered on the pod's node", SOON, || {
            probe::options(self.cluster(), pod.node, node_port)
        });
        pod.clone()
    }

    /// Applies an office and waits until every gateway pod has it.
    pub fn open(&self, office: &Office<'_>) {
        self.apply(&self.office(office));
        for object in
            ["siptrunk/office", "transferdestination/sales", "assistant/support", "phonenumber/main-line"]
        {
            self.ready(object);
        }
    }

    /// The default gateway's pods that take calls, by name.
    pub fn pods(&self) -> Vec<Pod> {
        pods(self.cluster(), NAMESPACE, GATEWAY)
    }

    /// Call control at a pod.
    pub fn control(&self, pod: &Pod) -> Control {
        Control::new(pod.address, &self.key)
    }

    /// A party that waits for calls on this machine. With `calls` it ends after that many, and writes down each message.
    pub fn party(&self, name: &str, scenario: &str, calls: Option<u32>) -> Sipp {
        let args = calls.map_or_else(Vec::new, |calls| vec!["-m".to_owned(), calls.to_string()]);
        self.sipp(name, scenario, args, Transport::Udp, calls.is_some())
    }

    /// A party that waits for many calls, with arguments of its own.
    pub fn party_with(&self, name: &str, scenario: &str, args: &[&str]) -> Sipp {
        self.sipp(name, scenario, args.iter().copied().map(str::to_owned).collect(), Transport::Udp, false)
    }

    /// A party that waits for one call over TCP. It can't be told anything.
    pub fn tcp_party(&self, name: &str, scenario: &str) -> Sipp {
        self.sipp(name, scenario, vec!["-m".to_owned(), "1".to_owned()], Transport::Tcp, true)
    }

    /// One caller who dials the number through the node of `pod`.
    pub fn caller(&self, pod: &Pod) -> Sipp {
        self.callers("caller", "caller", pod, NODE_PORT, &["-m", "1"])
    }

    /// Callers who dial the number through a port of the node of `pod`.
    pub fn callers(&self, name: &str, scenario: &str, pod: &Pod, port: u16, args: &[&str]) -> Sipp {
        let all = self.dialling(pod, port, args);
        self.sipp(name, scenario, all, Transport::Udp, !args.contains(&"-r"))
    }

    /// As [`Self::caller`], but over TCP and with another scenario. It can't be told anything.
    pub fn tcp_caller(&self, scenario: &str, pod: &Pod) -> Sipp {
        let all = self.dialling(pod, NODE_PORT, &["-m", "1"]);
        self.sipp("caller", scenario, all, Transport::Tcp, true)
    }

    fn dialling(&self, pod: &Pod, port: u16, args: &[&str]) -> Vec<String> {
        let fixed = ["-key", "called", &self.number, "-key", "caller", CALLER];
        let target = format!("{}:{port}", pod.node);
        fixed.iter().chain(args).copied().map(str::to_owned).chain([target]).collect()
    }

    fn sipp(
        &self,
        name: &str,
        scenario: &str,
        args: Vec<String>,
        transport: Transport,
        messages: bool,
    ) -> Sipp {
        let (directory, host) = (&*self.directory, self.host());
        let calls = format!("{}-{name}-", self.namespace);
        Sipp::start(Setup { name, scenario, directory, host, transport, calls, args, messages })
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

impl Cluster {
    /// `kubectl apply` of cluster-wide or fully named objects.
    pub fn apply(&self, manifests: &str) {
        let directory = cluster::directory();
        fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let file = directory.join("manifests.yaml");
        fs::write(&file, manifests).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        succeed(self.kubectl(&["apply", "--filename"]).arg(file));
    }
}

/// The pods of a gateway that take calls, by name.
pub fn pods(cluster: &Cluster, namespace: &str, gateway: &str) -> Vec<Pod> {
    let selector = format!("voicedock.dev/gateway={gateway}");
    let list = cluster.get(&["--namespace", namespace, "pods", "--selector", &selector]);
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

/// A pod of each node, once both nodes have one.
pub fn pod_per_node(scene: &Scene) -> [Pod; 2] {
    until("a gateway pod is ready on each node", Duration::from_secs(60), || match &scene.pods()[..] {
        [a, b] if a.node != b.node => Ok([a.clone(), b.clone()]),
        other => Err(format!("{other:?}")),
    })
}

/// The id of the call that an agent answered, from the header that the gateway gave it.
pub fn voicedock_id(agent: &Sipp) -> String {
    let line = agent.sees(&["answered: ", ", call call_"]);
    voicedock_ids(&line).next().expect("the line names the call")
}

/// The ids of the calls in an agent's log.
pub fn voicedock_ids(log: &str) -> impl Iterator<Item = String> {
    log.split(", call ").skip(1).filter_map(|rest| Some(rest.split_once(',')?.0.to_owned()))
}

/// Waits until a call is as it should be and returns it as the API shows it.
pub fn call_is(control: &Control, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    call_is_within(control, id, what, SOON, wanted)
}

/// As [`call_is`], with a time-out of your own.
pub fn call_is_within(
    control: &Control,
    id: &str,
    what: &str,
    limit: Duration,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    until(&format!("call {id} {what}"), limit, || {
        let answer = control.call(id);
        if answer.status == 200 && wanted(&answer.body) {
            Ok(answer.body)
        } else {
            Err(format!("{} {}", answer.status, answer.body))
        }
    })
}
