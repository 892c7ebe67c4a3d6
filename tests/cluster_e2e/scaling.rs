//! The number of gateway pods follows the calls, and no call is lost on the way.

use std::time::Duration;

use crate::harness::control::voicedock_ids;
use crate::harness::office::Office;
use crate::harness::pods::{self, Pod};
use crate::harness::probe;
use crate::harness::process::say;
use crate::harness::scene::Scene;
use crate::harness::sipp::Sipp;
use crate::harness::wait::{SOON, until};

/// Longest that pods may take to come or to go: a number of calls is told every five seconds, and a pod is to start.
const SCALED: Duration = Duration::from_secs(60);

/// A call that is under way.
struct Held {
    caller: Sipp,
    /// Name of the pod that has it.
    pod: String,
}

/// Calls that are placed one by one.
struct Calls<'a> {
    scene: &'a Scene,
    agent: &'a Sipp,
    held: Vec<Held>,
}

impl Calls<'_> {
    /// Places one over a node. Which of the node's pods gets it is the kernel's choice.
    fn place(&mut self, node: &Pod) {
        let name = format!("caller-{}", self.held.len());
        let before: Vec<String> = voicedock_ids(&self.agent.log()).collect();
        let caller = self.scene.callers(&name, "caller", node, self.scene.node_port, &["-m", "1"]);
        caller.sees(&["answered"]);
        let id = until("the agent has the call", SOON, || {
            let log = self.agent.log();
            let new = voicedock_ids(&log).find(|id| !before.contains(id));
            new.ok_or(log)
        });
        let pod = ready(self.scene)
            .into_iter()
            .find(|pod| id.starts_with(&format!("call_{}_", said(self.scene, pod, "instance"))));
        let pod = pod.unwrap_or_else(|| panic!("no pod has call {id}")).name;
        self.held.push(Held { caller, pod });
    }

    fn of(&self, pod: &Pod) -> usize {
        self.held.iter().filter(|held| held.pod == pod.name).count()
    }

    /// Ends calls of a pod until it has `left`.
    fn end(&mut self, pod: &Pod, left: usize) {
        while self.of(pod) > left {
            let place = self.held.iter().position(|held| held.pod == pod.name).expect("it has one");
            let mut held = self.held.remove(place);
            held.caller.go_on(&held.caller.placed(1));
            held.caller.ends_well();
        }
    }
}

fn ready(scene: &Scene) -> Vec<Pod> {
    pods::pods(scene.cluster(), &scene.namespace, "own")
}

fn count_is(scene: &Scene, count: usize) -> Vec<Pod> {
    until(&format!("{count} pods take calls"), SCALED, || match ready(scene) {
        pods if pods.len() == count => Ok(pods),
        pods => Err(format!("{pods:?}")),
    })
}

fn said(scene: &Scene, pod: &Pod, what: &str) -> String {
    pods::said(scene.cluster(), &scene.namespace, pod, what)
}

#[test]
fn a_third_pod_comes_with_the_calls_and_the_one_with_the_fewest_goes_when_they_end() {
    let scene = Scene::new("scaling");
    let agent = scene.party("agent", "agent", None);
    let port = scene.node_port;
    let spread = "{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, \
                  labelSelector: {matchLabels: {voicedock.dev/gateway: own}}}";
    let spec = format!(
        "  autoscaling: {{min: 2, max: 3, targetCallsPerPod: 3}}\n  exposure: NodePort\n  drainTimeoutSeconds: 60\n  \
         topologySpreadConstraints: [{spread}]\n  listeners: [{{transport: UDP, port: 5060, nodePort: {port}}}]\n"
    );
    scene.apply(&scene.with_gateway(&Office { agent: agent.port, ..Office::default() }, &spec));
    scene.ready("sipgateway/own");
    scene.ready("phonenumber/main-line");
    let [a, b] = &count_is(&scene, 2)[..] else { panic!("two pods were asked for") };
    assert_ne!(a.node, b.node);
    for pod in [a, b] {
        until("SIP is answered on the pod's node", SOON, || probe::options(scene.cluster(), pod.node, port));
    }

    let mut calls = Calls { scene: &scene, agent: &agent, held: Vec::new() };
    for node in [a, b, a, b, a, b, a] {
        calls.place(node);
    }
    let three = count_is(&scene, 3);
    let young = three.iter().find(|pod| ![a, b].contains(pod)).expect("one of three is new");
    let (neighbour, lonely) = if a.node == young.node { (a, b) } else { (b, a) };
    for _ in 0..30 {
        if calls.of(young) < 2 {
            calls.place(young);
        }
    }
    assert_eq!(calls.of(young), 2, "the third pod takes calls");
    until("it has said so", SOON, || match said(&scene, young, "calls") {
        calls if calls == "2" => Ok(()),
        calls => Err(format!("it says {calls}")),
    });

    // Five calls take two pods. Of the three, Kubernetes would take the youngest, which has a node with another.
    for (pod, left) in [(young, 2), (neighbour, 2), (lonely, 1)] {
        calls.end(pod, left);
    }
    let left = count_is(&scene, 2);
    assert!(left.contains(young) && left.contains(neighbour), "the one with one call goes: {left:?}");
    for pod in [lonely, young, neighbour] {
        calls.end(pod, 0);
    }
    until("the pod that had to go ends with its last call", SOON, || {
        let there = say(&mut scene.kubectl(&["get", "pod", &lonely.name]));
        if there.success { Err(there.output) } else { Ok(()) }
    });
}
