//! SipGateway: a pool of gateway pods, how they are exposed, and who may attach numbers to them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration, TopologySpreadConstraint};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::assistant::Agent;
use super::conditions::Condition;
use super::references::{AllowedNamespaces, LocalReference};
use super::rules;
use super::sip_trunk::Transport;

/// A pool of gateway pods.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "voicedock.dev",
    version = "v1alpha1",
    kind = "SipGateway",
    namespaced,
    status = "SipGatewayStatus",
    derive = "PartialEq",
    shortname = "sgw",
    category = "voicedock",
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("name a SipGateway with at most 40 lower case letters, digits and -, a letter first: its Service is named after it"),
    doc = "A pool of gateway pods: replicas, exposure, addresses, drain, and which namespaces may attach.",
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Calls", type_ = "integer", json_path = ".status.calls"),
    printcolumn(name = "Generation", type_ = "integer", json_path = ".status.tableGeneration"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.replicas) && has(self.autoscaling))")
    .message("write either replicas or autoscaling"))]
#[x_kube(validation = Rule::new("!has(self.listeners) || self.listeners.all(listener, !has(listener.nodePort)) || \
    (has(self.exposure) && self.exposure in ['NodePort', 'LoadBalancer'])")
    .message("a listener's nodePort is only read with exposure: NodePort or LoadBalancer; write that, or remove nodePort"))]
#[x_kube(validation = Rule::new("!has(self.autoscaling) || self.autoscaling.targetCallsPerPod <= \
    (has(self.limits) && has(self.limits.maxConcurrentCalls) ? self.limits.maxConcurrentCalls : 10000)")
    .message("a pod would refuse calls before another one is started: write an autoscaling.targetCallsPerPod that is not above \
    limits.maxConcurrentCalls (10000 when left out)"))]
#[x_kube(validation = Rule::new("!has(self.httpPort) || !has(self.listeners) || \
    self.listeners.all(listener, listener.transport == 'UDP' || listener.port != self.httpPort)")
    .message("httpPort is the port of health, metrics and call control: write another port for it, or for the TCP or TLS listener"))]
pub struct SipGatewaySpec {
    /// Number of gateway pods; 2 when left out. Not together with `autoscaling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: Option<i32>,
    /// Scale with the number of calls. Not together with `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// Where SIP is heard; UDP and TCP on 5060 when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.all(x, self.exists_one(y, y.port == x.port && (y.transport == 'UDP') == (x.transport == 'UDP')))")
        .message("two listeners can't share a port: give each UDP listener its own, and each TCP or TLS listener its own"))]
    #[x_kube(validation = Rule::new("self.all(x, !has(x.nodePort) || self.exists_one(y, has(y.nodePort) && y.nodePort == x.nodePort && \
        (y.transport == 'UDP') == (x.transport == 'UDP')))")
        .message("two listeners can't share a nodePort: give each UDP listener its own, and each TCP or TLS listener its own"))]
    pub listeners: Vec<Listener>,
    /// How the pods are reached from outside; `ClusterIP` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposure: Option<Exposure>,
    /// Port of the pods for health, metrics and call control; 8080 when left out. Services keep 8080. With
    /// `exposure: HostNetwork` it is a port of the nodes: two SipGateways that may meet on a node need two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 65535))]
    pub http_port: Option<i32>,
    /// What Contact and Via say; by exposure the Service's, the node's or the pod's address when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<Advertise>,
    /// Seconds that a pod which is told to stop waits for its calls; 3600 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub drain_timeout_seconds: Option<i32>,
    /// What one pod takes; calls beyond get 503 with Retry-After.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Networks that the events of Assistants may be sent to although they are not public, in CIDR form; none when empty. What is
    /// in them must be safe to be asked by whoever may write an Assistant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    #[x_kube(validation = Rule::new("self.all(network, isCIDR(network) && cidr(network) == cidr(network).masked())")
        .message("write networks in CIDR form without host bits, such as 10.0.0.0/8 or fd00::/8"))]
    #[x_kube(validation = rules::unique("network"))]
    pub event_networks: Vec<String>,
    /// Which namespaces may attach PhoneNumbers; only its own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
    /// The agent of Assistants that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_agent: Option<Agent>,
    /// The Secret in the gateway's namespace whose values are the bearer keys of call control, one a key; call control
    /// answers 401 to everybody when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_keys_secret_ref: Option<LocalReference>,
    /// Compute resources of a gateway container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::crds::any_object")]
    pub resources: Option<ResourceRequirements>,
    /// Labels that a node must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "rules::labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::crds::any_objects")]
    pub tolerations: Vec<Toleration>,
    /// How the pods spread; one a node as far as possible when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::crds::any_objects")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::object_name())]
    pub priority_class_name: Option<String>,
    /// Annotations on the Service, for the load balancer of a cloud.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "rules::annotations")]
    pub annotations: BTreeMap<String, String>,
}

/// Scale with the number of calls that the pods hold: up at once, down when fewer pods have been enough for five minutes (the
/// operator's `--scale-down-after-seconds`). The pods with the fewest calls go first, and not before these have ended or
/// `drainTimeoutSeconds` is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.min <= self.max").message("min must not be above max"))]
pub struct Autoscaling {
    /// Fewest pods.
    #[schemars(range(min = 1, max = 100))]
    pub min: i32,
    /// Most pods.
    #[schemars(range(min = 1, max = 100))]
    pub max: i32,
    /// Calls that one pod should hold: above that another pod is started. Well below `limits.maxConcurrentCalls`, so that no call
    /// is refused meanwhile.
    #[schemars(range(min = 1, max = 100000))]
    pub target_calls_per_pod: i32,
}

/// What one pod takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Calls at the same time; 10000 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub max_concurrent_calls: Option<i32>,
    /// New calls a second; 1000 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub max_calls_per_second: Option<i32>,
    /// Requests a second that one address may begin, beside those of calls and requests that are under way; more are held up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests_per_second: Option<MaxRequestsPerSecond>,
}

/// How many requests a second an address may begin, by whose it is; 0 stands for any number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaxRequestsPerSecond {
    /// One that calls of a SipTrunk come from (`inbound.allowedSources`); 20000 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000000))]
    pub trunk_address: Option<i32>,
    /// Any other one; 100 when left out. Phones and PBXs that come from anywhere and authenticate are such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000000))]
    pub stranger_address: Option<i32>,
}

/// Where SIP is heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.port != 8080 || self.transport == 'UDP'")
    .message("port 8080 over TCP is the gateway's own, for health, metrics and call control: write another port"))]
#[x_kube(validation = Rule::new("(self.transport == 'TLS') == has(self.certificateRef)")
    .message("write a certificateRef with transport: TLS, and only with it"))]
pub struct Listener {
    /// Transport.
    pub transport: Transport,
    /// Port of the pods and of the Service.
    #[schemars(range(min = 1024, max = 65535))]
    pub port: i32,
    /// Port on the nodes, with `exposure: NodePort`; chosen by Kubernetes when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub node_port: Option<i32>,
    /// `kubernetes.io/tls` Secret; only with TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_ref: Option<LocalReference>,
}

/// How gateway pods are reached from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Exposure {
    /// A Service of type LoadBalancer.
    LoadBalancer,
    /// A Service of type NodePort that keeps the source address (`externalTrafficPolicy: Local`).
    NodePort,
    /// The nodes' own network, one pod a node, at the address that Kubernetes has for the node. The namespace has to admit
    /// such pods (Pod Security `privileged`), and NetworkPolicies don't guard them.
    HostNetwork,
    /// Only inside the cluster, and where pod addresses are routed.
    ClusterIP,
}

/// What Contact and Via say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Advertise {
    /// An IP address or host name at which every pod can be reached.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = rules::host())]
    pub address: String,
}

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SipGatewayStatus {
    /// The generation of the spec that this status speaks of; -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `ResolvedRefs`, `Programmed`, `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What is in force where the spec leaves something out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<SipGatewayEffective>,
    /// Gateway pods that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i64>,
    /// Calls that the pods hold, as of their last acknowledgement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<i64>,
    /// Generation of the table that every ready pod holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_generation: Option<i64>,
    /// Addresses at which SIP is heard from outside, `transport:address:port`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// What is in force where the spec leaves something out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SipGatewayEffective {
    /// Number of pods that there should be: `replicas`, or what `autoscaling` came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
}
