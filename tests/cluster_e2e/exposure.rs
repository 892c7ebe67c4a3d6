//! How calls get to the pods and their answers back, for each exposure. A gateway knows its trunk by the source address: where
//! that was lost on the way, it would answer 403.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use serde_json::json;

use crate::harness::cluster::text;
use crate::harness::office::Office;
use crate::harness::pods::{Pod, pods};
use crate::harness::probe::{self, Probe};
use crate::harness::process::{say, succeed};
use crate::harness::scene::Scene;
use crate::harness::sipp::Sipp;
use crate::harness::wait::{SOON, until};

/// Longest that a change of the gateway's pods may take.
const ROLLOUT: Duration = Duration::from_secs(60);

/// Opens an office whose gateway is exposed as the lines of its spec say.
fn open(scene: &Scene, spec: &str) -> Sipp {
    let agent = scene.party("agent", "agent", None);
    let spec = format!("  drainTimeoutSeconds: 1\n{spec}");
    scene.apply(&scene.with_gateway(&Office { agent: agent.port, ..Office::default() }, &spec));
    agent
}

/// The gateway's pods, once there are so many and all take calls.
fn ready_pods(scene: &Scene, count: usize) -> Vec<Pod> {
    scene.ready("sipgateway/own");
    scene.ready("phonenumber/main-line");
    until("all pods are ready", ROLLOUT, || match pods(scene.cluster(), &scene.namespace, "own") {
        pods if pods.len() == count => Ok(pods),
        pods => Err(format!("{pods:?}")),
    })
}

/// Calls at `at`, an address that the gateway has to give others for its own: in the answer to the caller, and in the INVITE to
/// the agent. What comes in the call gets there, from the socket that called and from others.
fn calls_go_well(scene: &Scene, agent: &Sipp, at: SocketAddrV4) {
    until("SIP is answered", SOON, || probe::options(scene.cluster(), *at.ip(), at.port()));
    let contact = format!("contact <sip:vd@{at};");
    let mut caller = scene.callers_at("caller", "caller", at, &["-m", "1"]);
    caller.sees(&["answered", &contact]);
    agent.sees(&["answered", &format!("via SIP/2.0/UDP {at};"), &contact]);
    caller.go_on(&caller.placed(1));
    caller.ends_well();
    agent.sees(&["the other side hung up"]);
    let probe = Probe::new(scene.cluster(), *at.ip(), at.port());
    assert_eq!(probe.call_by_contact(&scene.number), Some(200), "the Contact leads to the call");
}

/// Waits until the gateway's status says that it is reached at these addresses.
fn is_reached_at(scene: &Scene, addresses: &[String]) {
    until("the status tells the addresses", SOON, || {
        let gateway = scene.cluster().get(&["--namespace", &scene.namespace, "sipgateway", "own"]);
        let told: Vec<_> =
            gateway["status"]["addresses"].as_array().into_iter().flatten().map(text).collect();
        if told == addresses { Ok(()) } else { Err(format!("{told:?}")) }
    });
}

#[test]
fn a_call_over_a_port_of_the_nodes() {
    let scene = Scene::new("node-port");
    let port = scene.node_port;
    let listener = format!("{{transport: UDP, port: 5060, nodePort: {port}}}");
    let agent = open(&scene, &format!("  replicas: 1\n  exposure: NodePort\n  listeners: [{listener}]\n"));
    let pod = &ready_pods(&scene, 1)[0];
    calls_go_well(&scene, &agent, SocketAddrV4::new(pod.node, port));
    is_reached_at(&scene, &[format!("udp:{}:{port}", pod.node)]);
}

#[test]
fn a_call_to_the_address_of_a_pod() {
    let scene = Scene::new("cluster-ip");
    let agent =
        open(&scene, "  replicas: 1\n  exposure: ClusterIP\n  listeners: [{transport: UDP, port: 5060}]\n");
    let pod = &ready_pods(&scene, 1)[0];
    calls_go_well(&scene, &agent, SocketAddrV4::new(pod.address, 5060));
}

#[test]
fn a_call_over_a_load_balancer() {
    let scene = Scene::new("balancer");
    let agent = open(
        &scene,
        "  replicas: 2\n  exposure: LoadBalancer\n  listeners: [{transport: UDP, port: 5060}]\n",
    );
    // The test is the cloud's controller: it gives the Service an address and sends what comes there to a node with a pod.
    let balancer = Ipv4Addr::new(198, 51, 100, scene.host().octets()[2]);
    let ingress = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": balancer }] } } }).to_string();
    until("the Service is there", SOON, || {
        let patch = ["patch", "service", "own-voicedock", "--subresource=status", "--type=merge", "--patch"];
        let said = say(scene.kubectl(&patch).arg(&ingress));
        if said.success { Ok(()) } else { Err(said.errors) }
    });
    is_reached_at(&scene, &[format!("udp:{balancer}:5060")]);
    until("the pods are told the address", SOON, || {
        let deployment =
            scene.cluster().get(&["--namespace", &scene.namespace, "deployment", "own-voicedock"]);
        let template = deployment["spec"]["template"].to_string();
        if template.contains(&format!("udp={balancer}:5060")) { Ok(()) } else { Err(template) }
    });
    let rollout = ["rollout", "status", "--timeout=60s", "deployment/own-voicedock"];
    succeed(&mut scene.kubectl(&rollout));
    let pod = &ready_pods(&scene, 2)[0];
    let _route = scene.cluster().route(balancer, pod.node);
    calls_go_well(&scene, &agent, SocketAddrV4::new(balancer, 5060));
}

#[test]
fn calls_over_the_nodes_own_network_where_two_gateways_need_ports_of_their_own() {
    let scene = Scene::new("host-network");
    let on_host = |http: u16, sip: u16| {
        format!(
            "  replicas: 2\n  exposure: HostNetwork\n  httpPort: {http}\n  listeners: [{{transport: UDP, port: {sip}}}]\n"
        )
    };
    let agent = open(&scene, &on_host(8080, 5060));
    let pods = ready_pods(&scene, 2);
    assert_ne!(pods[0].node, pods[1].node);
    assert!(pods.iter().all(|pod| pod.address == pod.node), "{pods:?}");
    let nodes = scene.cluster().nodes.iter().map(|(_, node)| format!("udp:{node}:5060"));
    is_reached_at(&scene, &nodes.collect::<Vec<_>>());
    calls_go_well(&scene, &agent, SocketAddrV4::new(pods[0].node, 5060));
    let probe = Probe::new(scene.cluster(), pods[0].node, 5060);
    assert_eq!(probe.call_across(&scene.number, pods[1].node), Some(200), "a pod reaches the other");

    // Another gateway with a port of the first finds no node, and says so.
    let rival = |http: u16, sip: u16| {
        let head = "apiVersion: voicedock.dev/v1alpha1\nkind: SipGateway\nmetadata: {name: rival}\nspec:\n";
        format!("{head}{}", on_host(http, sip).replace("replicas: 2", "replicas: 1"))
    };
    scene.apply(&rival(8080, 5070));
    until("the rival says what it lacks", SOON, || {
        let rival = scene.cluster().get(&["--namespace", &scene.namespace, "sipgateway", "rival"]);
        let conditions = rival["status"]["conditions"].to_string();
        if conditions.contains("give it other listeners and another httpPort") {
            Ok(())
        } else {
            Err(conditions)
        }
    });
    scene.apply(&rival(9080, 5070));
    scene.ready("sipgateway/rival");

    // Without a spare node, one pod after the other is replaced.
    succeed(&mut scene.kubectl(&["rollout", "restart", "deployment/own-voicedock"]));
    succeed(&mut scene.kubectl(&["rollout", "status", "--timeout=60s", "deployment/own-voicedock"]));
    let young = ready_pods(&scene, 2);
    assert!(young.iter().all(|pod| !pods.contains(pod)), "all pods were replaced");
    until("the new pods answer", SOON, || match probe.call(&scene.number) {
        Some(200) => Ok(()),
        other => Err(format!("the answer is {other:?}")),
    });
}

#[test]
fn a_namespace_that_forbids_the_nodes_network_is_named_with_the_remedy() {
    let scene = Scene::new("forbidden");
    let label = |level: &str| {
        let label = format!("pod-security.kubernetes.io/enforce={level}");
        let namespace = &scene.namespace;
        succeed(&mut scene.cluster().kubectl(&["label", "--overwrite", "namespace", namespace, &label]));
    };
    label("restricted");
    open(&scene, "  replicas: 1\n  exposure: HostNetwork\n  listeners: [{transport: UDP, port: 5060}]\n");
    let message = until("the gateway says why", SOON, || {
        let gateway = scene.cluster().get(&["--namespace", &scene.namespace, "sipgateway", "own"]);
        let conditions = gateway["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let refused = conditions.iter().find(|condition| condition["reason"] == "PodsRefused");
        refused.map(|refused| text(&refused["message"])).ok_or_else(|| format!("{conditions:?}"))
    });
    assert!(message.contains("hostNetwork=true"), "{message}");
    assert!(message.contains("pod-security.kubernetes.io/enforce=privileged"), "{message}");
    label("privileged");
    ready_pods(&scene, 1);
}
