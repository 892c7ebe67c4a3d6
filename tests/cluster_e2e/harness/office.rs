//! What a person applies: an assistant, a number, a trunk and a destination; with the default gateway or one of its own.

use super::model::Model;
use super::pods::{Pod, pods};
use super::probe;
use super::scene::Scene;
use super::wait::{SOON, until};

/// The human's number.
pub const SALES: &str = "+31612345678";

/// The objects of an office: assistant, number, trunk and destination.
pub struct Office<'a> {
    /// Port of the agent.
    pub agent: u16,
    /// Further fields of the way to the agent, `name: value, …`.
    pub agent_spec: &'a str,
    /// Further lines of the Assistant's spec.
    pub assistant_spec: &'a str,
    /// Who answers in place of that agent.
    pub model: Option<&'a Model>,
    /// Port of the trunk.
    pub trunk: u16,
    /// Transport of the trunk.
    pub transport: &'a str,
    /// Further lines of the trunk's spec.
    pub trunk_spec: &'a str,
    /// Seconds that the human may ring.
    pub ring_seconds: u32,
    /// Further fields of the destination's spec, `name: value, …`.
    pub destination_spec: &'a str,
}

impl Default for Office<'_> {
    fn default() -> Self {
        Self {
            agent: 9,
            agent_spec: "",
            assistant_spec: "",
            model: None,
            trunk: 9,
            transport: "UDP",
            trunk_spec: "",
            ring_seconds: 30,
            destination_spec: "",
        }
    }
}

impl Scene {
    /// The manifests of an office; see [`Office`].
    pub fn office(&self, office: &Office<'_>) -> String {
        let Office {
            agent,
            agent_spec,
            assistant_spec,
            trunk,
            transport,
            trunk_spec,
            ring_seconds,
            destination_spec,
            ..
        } = office;
        let (host, number) = (self.host(), &self.number);
        let agent = office.model.map_or_else(
            || format!("{{sip: {{uri: \"sip:agent@{host}:{agent}\", {agent_spec}}}}}"),
            Model::agent,
        );
        let secret = office.model.map_or_else(String::new, Model::secret);
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
spec: {{type: number, number: "{SALES}", description: Sales team, ringTimeoutSeconds: {ring_seconds}, {destination_spec}}}
---
apiVersion: voicedock.dev/v1alpha1
kind: Assistant
metadata: {{name: support}}
spec:
  llmConfig:
    tools:
    - {{type: transfer_call, destinations: [{{destinationRef: {{name: sales}}}}]}}
  agent: {agent}
{assistant_spec}
---
apiVersion: voicedock.dev/v1alpha1
kind: PhoneNumber
metadata: {{name: main-line}}
spec:
  number: "{number}"
  assistantRef: {{name: support}}
  transferTrunkRef: {{name: office}}
{secret}"#
        )
    }

    /// An office with a gateway of its own (`own`, one pod, heard on a port of the nodes), whose table nobody else changes.
    pub fn secluded(&self, office: &Office<'_>) -> String {
        self.secluded_with(office, "")
    }

    /// The same with further lines of the gateway's spec.
    pub fn secluded_with(&self, office: &Office<'_>, spec: &str) -> String {
        let spec = format!(
            "  replicas: 1\n  exposure: NodePort\n  drainTimeoutSeconds: 1\n{spec}  listeners:\n  \
             - {{transport: UDP, port: 5060, nodePort: {}}}\n",
            self.node_port
        );
        self.with_gateway(office, &spec)
    }

    /// An office with a gateway of its own (`own`), by the lines of its spec.
    pub fn with_gateway(&self, office: &Office<'_>, spec: &str) -> String {
        let office = self
            .office(office)
            .replace("  transferTrunkRef", "  gatewayRef: {name: own}\n  transferTrunkRef");
        format!(
            r#"{office}---
apiVersion: voicedock.dev/v1alpha1
kind: SipGateway
metadata: {{name: own}}
spec:
{spec}"#
        )
    }

    /// The pod of [`Self::secluded`], once it takes calls.
    pub fn secluded_pod(&self) -> Pod {
        self.ready("sipgateway/own");
        self.ready("phonenumber/main-line");
        let [pod] = &pods(self.cluster(), &self.namespace, "own")[..] else {
            panic!("one pod was asked for")
        };
        until("SIP is answered on the pod's node", SOON, || {
            probe::options(self.cluster(), pod.node, self.node_port)
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
}
