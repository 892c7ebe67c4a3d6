//! Calls while parts of the system are gone: the operator, the API server, a gateway's container, its pods one by one.

use std::time::Duration;

use crate::harness::cluster::items;
use crate::harness::control::voicedock_id;
use crate::harness::installation::{GATEWAY, NAMESPACE, NODE_PORT};
use crate::harness::office::{Office, SALES};
use crate::harness::pods::{Pod, pod_per_node, restarts};
use crate::harness::probe::Probe;
use crate::harness::process::succeed;
use crate::harness::scene::Scene;
use crate::harness::sipp::Sipp;
use crate::harness::wait::{SOON, until, until_true};

const OPERATOR: &str = "app.kubernetes.io/name=voicedock-operator";

/// Transfers a call that is with the assistant, and ends it.
fn transfer_and_end(scene: &Scene, pod: &Pod, agent: &mut Sipp, caller: &mut Sipp, human: &mut Sipp) {
    scene.control(pod).transfer(&voicedock_id(agent), SALES);
    human.go_on(&human.call_id(&["ringing"]));
    caller.sees(&["moved", &format!("m=audio {}", human.media)]);
    agent.ends_well();
    caller.go_on(&caller.placed(1));
    caller.ends_well();
    human.ends_well();
}

#[test]
fn nothing_happens_to_a_call_when_the_operator_is_killed() {
    let scene = Scene::new("operator-killed");
    let mut agent = scene.party("agent", "agent", Some(1));
    let mut human = scene.party("human", "human", Some(1));
    scene.open(&Office { agent: agent.port, trunk: human.port, ..Office::default() });
    let [pod, _] = pod_per_node(&scene);
    let mut caller = scene.caller(&pod);
    caller.sees(&["answered"]);

    let list = scene.cluster().get(&["--namespace", NAMESPACE, "deployments", "--selector", OPERATOR]);
    let operator = items(&list).next().expect("the operator is a Deployment")["metadata"]["name"].clone();
    let operator = format!("deployment/{}", operator.as_str().expect("it has a name"));
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        succeed(&mut scene.cluster().kubectl(&["--namespace", NAMESPACE, "scale", &operator, &replicas]));
    };
    scale("0");
    let killed =
        ["--namespace", NAMESPACE, "delete", "pods", "--selector", OPERATOR, "--grace-period=0", "--force"];
    succeed(&mut scene.cluster().kubectl(&killed));
    until_true("no operator is left", SOON, || {
        items(&scene.cluster().get(&["--namespace", NAMESPACE, "pods", "--selector", OPERATOR]))
            .next()
            .is_none()
    });
    transfer_and_end(&scene, &pod, &mut agent, &mut caller, &mut human);

    let changes = scene.office(&Office { agent: agent.port, ring_seconds: 29, ..Office::default() });
    scale("2");
    scene.apply(&changes);
    scene.ready("transferdestination/sales");
    assert_eq!(pod_per_node(&scene)[0], pod, "the gateways are those of before");
}

#[test]
fn calls_go_on_without_the_api_server_and_a_gateway_that_restarts_serves_from_its_disk_copy() {
    let scene = Scene::new("api-stopped");
    let mut agent = scene.party("agent", "agent", Some(1));
    let mut human = scene.party("human", "human", Some(1));
    let late_agent = scene.party("late-agent", "agent", None);
    scene.open(&Office { agent: agent.port, trunk: human.port, ..Office::default() });
    let [pod, other] = pod_per_node(&scene);
    let mut caller = scene.caller(&pod);
    caller.sees(&["answered"]);
    scene.open(&Office { agent: late_agent.port, trunk: human.port, ..Office::default() });

    let before = restarts(scene.cluster(), &other);
    let stopped = scene.cluster().stop_api();
    scene.cluster().kill_container(NAMESPACE, &other.name);
    let probe = Probe::new(scene.cluster(), other.node, NODE_PORT);
    until("the gateway that restarted answers calls", Duration::from_secs(30), || {
        match probe.call(&scene.number) {
            Some(200) => Ok(()),
            other => Err(format!("the answer is {other:?}")),
        }
    });
    let probe = Probe::new(scene.cluster(), pod.node, NODE_PORT);
    assert_eq!(probe.call(&scene.number), Some(200), "so does the one that didn't");
    transfer_and_end(&scene, &pod, &mut agent, &mut caller, &mut human);
    drop(stopped);

    // What was missed meanwhile is caught up with.
    scene.apply(&scene.office(&Office { agent: late_agent.port, ring_seconds: 29, ..Office::default() }));
    scene.ready("transferdestination/sales");
    // The kubelet tells the API server when it can.
    until("it was killed once", SOON, || match restarts(scene.cluster(), &other) {
        restarts if restarts == before + 1 => Ok(()),
        restarts => Err(format!("{restarts} restarts, after {before}")),
    });
}

#[test]
fn no_call_fails_while_the_gateways_are_restarted_one_by_one() {
    const HELD: u32 = 20;
    let scene = Scene::new("rollout");
    let agent = scene.party("agent", "agent", None);
    scene.open(&Office { agent: agent.port, ..Office::default() });
    let pods = pod_per_node(&scene);
    let half = (HELD / 2).to_string();
    let names = ["held-a", "held-b"];
    let mut held: Vec<Sipp> = (0..2)
        .map(|n| {
            scene.callers(names[n], "caller", &pods[n], NODE_PORT, &["-m", &half, "-l", &half, "-r", "10"])
        })
        .collect();
    for held in &held {
        until("the held calls are answered", SOON, || {
            let answered = held.log().matches("answered").count();
            if answered == HELD as usize / 2 { Ok(()) } else { Err(format!("{answered} are")) }
        });
    }
    // 3 and 2 calls a second, each of half a second, over either node.
    let mut fresh: Vec<Sipp> = [("fresh-a", "3"), ("fresh-b", "2")]
        .iter()
        .zip(&pods)
        .map(|((name, rate), pod)| {
            scene.callers(name, "short-caller", pod, NODE_PORT, &["-r", rate, "-d", "500"])
        })
        .collect();

    let deployments =
        ["--namespace", NAMESPACE, "deployments", "--selector", &format!("voicedock.dev/gateway={GATEWAY}")];
    let list = scene.cluster().get(&deployments);
    let gateway = items(&list).next().expect("the gateway is a Deployment")["metadata"]["name"].clone();
    let gateway = format!("deployment/{}", gateway.as_str().expect("it has a name"));
    succeed(&mut scene.cluster().kubectl(&["--namespace", NAMESPACE, "rollout", "restart", &gateway]));
    let status = ["--namespace", NAMESPACE, "rollout", "status", "--timeout=60s", &gateway];
    succeed(&mut scene.cluster().kubectl(&status));
    let young = pod_per_node(&scene);
    assert!(young.iter().all(|pod| !pods.contains(pod)), "all pods were replaced");

    // New calls go on while the old pods hold old ones and take no new ones any more: for longer than they still do.
    let answered = || agent.log().matches("answered").count();
    let before = answered();
    until_true("fifty more calls are answered", Duration::from_secs(30), || answered() >= before + 50);
    for fresh in &mut fresh {
        fresh.finish();
        fresh.ends_well();
    }
    for held in &mut held {
        for call in 1..=HELD / 2 {
            held.go_on(&held.placed(call));
        }
        held.ends_well();
    }
    until_true("the old pods end with their last call", SOON, || {
        let selector = format!("voicedock.dev/gateway={GATEWAY}");
        items(&scene.cluster().get(&["--namespace", NAMESPACE, "pods", "--selector", &selector])).count() == 2
    });
}

#[test]
fn a_call_that_outlives_the_drain_is_told_goodbye_with_the_reason() {
    let scene = Scene::new("outlives");
    let mut agent = scene.party("agent", "agent", Some(1));
    scene.apply(&scene.secluded(&Office { agent: agent.port, ..Office::default() }));
    let pod = scene.secluded_pod();
    let mut caller = scene.callers("caller", "caller", &pod, scene.node_port, &["-m", "1"]);
    caller.sees(&["answered"]);
    succeed(&mut scene.kubectl(&["delete", "pod", &pod.name, "--wait=false"]));
    caller.sees(&["the other side hung up", "cause=503"]);
    caller.ends_well();
    agent.ends_well();
}
