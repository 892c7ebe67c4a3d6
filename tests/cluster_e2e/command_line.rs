//! What an administrator sees with a kubeconfig alone: by way of the API server and the nodes' kubelets.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::control::voicedock_id;
use crate::harness::installation::NAMESPACE;
use crate::harness::office::Office;
use crate::harness::parties::CALLER;
use crate::harness::pods::pod_per_node;
use crate::harness::process::succeed;
use crate::harness::scene::Scene;
use crate::harness::wait::{SOON, until};

/// What a command answers about the test's namespace.
fn asked(scene: &Scene, command: &str) -> Value {
    let mut voicedock = Command::new(env!("CARGO_BIN_EXE_voicedock"));
    voicedock.env("KUBECONFIG", &scene.cluster().kubeconfig);
    let said = succeed(voicedock.args([command, "--namespace", &scene.namespace, "--output", "json"]));
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn a_call_and_the_state_of_all_are_seen_with_a_kubeconfig() {
    let scene = Scene::new("kubeconfig");
    let mut agent = scene.party("agent", "agent", Some(1));
    scene.open(&Office { agent: agent.port, ..Office::default() });
    let [pod, _] = pod_per_node(&scene);
    let mut caller = scene.caller(&pod);
    caller.sees(&["answered"]);

    let list = asked(&scene, "calls");
    let [call] = list["calls"].as_array().map_or(&[][..], Vec::as_slice) else { panic!("one call: {list}") };
    assert_eq!((&call["id"], &list["missing"]), (&json!(voicedock_id(&agent)), &json!([])), "{list}");
    assert_eq!((&call["from"], &call["to"]), (&json!(CALLER), &json!(scene.number)), "{call}");
    assert_eq!((&call["pod"], &call["state"]), (&json!(pod.name), &json!("with-assistant")), "{call}");
    let status = asked(&scene, "status");
    let gateway = &status["gateways"][0];
    assert_eq!(gateway["gateway"], format!("{NAMESPACE}/default"), "{status}");
    assert_eq!(
        (&gateway["podsReady"], &gateway["tableHeld"]),
        (&json!(2), &gateway["tableWanted"]),
        "{status}"
    );
    let came_in =
        status["trunks"].as_array().into_iter().flatten().filter_map(|trunk| trunk["callsIn"].as_u64());
    assert_eq!(came_in.sum::<u64>(), 1, "{status}");

    caller.go_on(&caller.placed(1));
    caller.ends_well();
    agent.ends_well();
    until("no call is left", SOON, || match asked(&scene, "calls")["calls"].as_array() {
        Some(calls) if calls.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
