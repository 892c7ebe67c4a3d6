//! A call and its assistant.

use serde_json::json;

use crate::harness::control::{call_is, voicedock_id};
use crate::harness::installation::NODE_PORT;
use crate::harness::office::Office;
use crate::harness::parties::CALLER;
use crate::harness::pods::pod_per_node;
use crate::harness::probe::Probe;
use crate::harness::scene::Scene;

#[test]
fn an_assistant_answers_a_call_and_the_caller_hangs_up() {
    let scene = Scene::new("answered");
    let mut agent = scene.party("agent", "agent", Some(1));
    scene.open(&Office { agent: agent.port, ..Office::default() });
    let [pod, other] = pod_per_node(&scene);

    let mut caller = scene.caller(&pod);
    caller.sees(&["answered", &format!("m=audio {}", agent.media)]);
    let told = agent.sees(&["answered", "assistant", "number"]);
    assert!(
        told.contains(&format!("{}/support", scene.namespace)),
        "the agent is told its assistant: {told}"
    );
    assert!(told.contains(&scene.number), "the agent is told the number: {told}");

    let id = voicedock_id(&agent);
    for pod in [&pod, &other] {
        let call =
            call_is(&scene.control(pod), &id, "is in progress", |call| call["status"] == "in-progress");
        assert_eq!(call["caller_phone"], CALLER);
        assert_eq!(call["assistant_phone"], scene.number.as_str());
        assert_eq!(call["agent_id"], format!("{}/support", scene.namespace));
        let list = scene.control(pod).get("/calls");
        let calls = list.body["calls"].as_array().cloned().unwrap_or_default();
        assert!(
            calls.iter().any(|call| call["id"] == id.as_str()),
            "{} lists the call: {}",
            pod.name,
            list.body
        );
    }

    caller.go_on(&caller.placed(1));
    caller.ends_well();
    agent.ends_well();
    let call = call_is(&scene.control(&other), &id, "is over", |call| call["status"] == "ended");
    assert_eq!(call["end_reason"], "caller-hung-up");
    assert_eq!(call["transfers"], json!([]));
}

#[test]
fn an_assistant_that_hangs_up_ends_the_call() {
    let scene = Scene::new("agent-leaves");
    let mut agent = scene.party("agent", "agent", Some(1));
    scene.open(&Office { agent: agent.port, ..Office::default() });
    let [pod, _] = pod_per_node(&scene);

    let mut caller = scene.caller(&pod);
    caller.sees(&["answered"]);
    let leg = agent.call_id(&["answered"]);
    agent.go_on(&leg);
    agent.ends_well();
    caller.sees(&["the other side hung up"]);
    caller.ends_well();
}

#[test]
fn the_api_ends_a_call() {
    let scene = Scene::new("end-call");
    let mut agent = scene.party("agent", "agent", Some(1));
    scene.open(&Office { agent: agent.port, ..Office::default() });
    let [pod, other] = pod_per_node(&scene);

    let mut caller = scene.caller(&pod);
    caller.sees(&["answered"]);
    let id = voicedock_id(&agent);
    let answer = scene.control(&other).command(&id, &json!({ "type": "end-call" }));
    assert_eq!(answer.status, 200, "{}", answer.body);
    caller.sees(&["the other side hung up"]);
    caller.ends_well();
    agent.ends_well();
    call_is(&scene.control(&pod), &id, "is over", |call| call["status"] == "ended");
}

#[test]
fn a_caller_who_gives_up_before_the_answer_takes_the_ringing_agent_along() {
    let scene = Scene::new("gives-up");
    let mut agent = scene.party("agent", "human", Some(1));
    scene.open(&Office { agent: agent.port, ..Office::default() });
    let [pod, _] = pod_per_node(&scene);

    let mut caller = scene.caller(&pod);
    caller.sees(&["ringing"]);
    agent.sees(&["ringing"]);
    caller.go_on(&caller.placed(1));
    caller.sees(&["cancelled"]);
    caller.ends_well();
    agent.sees(&["cancelled"]);
    agent.ends_well();
}

#[test]
fn a_call_over_tcp_reaches_an_agent_over_tcp() {
    let scene = Scene::new("tcp");
    let mut agent = scene.tcp_party("agent", "willing-human");
    let office = scene.office(&Office { agent: agent.port, ..Office::default() });
    scene.apply(&office.replace(&format!(":{}\"", agent.port), &format!(":{};transport=tcp\"", agent.port)));
    scene.ready("phonenumber/main-line");
    let [pod, _] = pod_per_node(&scene);
    let mut caller = scene.tcp_caller("short-caller", &pod);
    caller.ends_well();
    agent.ends_well();
}

#[test]
fn a_request_inside_a_call_may_reach_any_pod() {
    let scene = Scene::new("any-pod");
    let mut agent = scene.party("agent", "agent", Some(1));
    scene.open(&Office { agent: agent.port, ..Office::default() });
    let [pod, other] = pod_per_node(&scene);
    let probe = Probe::new(scene.cluster(), pod.node, NODE_PORT);
    assert_eq!(probe.call_across(&scene.number, other.node), Some(200));
    agent.sees(&["the other side hung up"]);
    agent.ends_well();
}

#[test]
fn a_cancel_may_reach_any_pod() {
    let scene = Scene::new("cancel-any-pod");
    let mut agent = scene.party("agent", "human", Some(1));
    scene.open(&Office { agent: agent.port, ..Office::default() });
    let [pod, other] = pod_per_node(&scene);
    let probe = Probe::new(scene.cluster(), pod.node, NODE_PORT);
    let invite = probe.ring(&scene.number);
    agent.sees(&["ringing"]);
    assert_eq!(probe.cancel_across(&invite, other.node), [Some(200), Some(487)]);
    agent.sees(&["cancelled"]);
    agent.ends_well();
}
