//! The product's REST API as its users have it: `curl` with a key of theirs, at one pod of the role `api` or another.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::cluster::text;
use super::control::{Answer, Control};
use super::installation::NAMESPACE;
use super::pods::{Pod, ready_pods};
use super::process::succeed;
use super::scene::Scene;
use super::wait::{SOON, until};

/// The two pods of the API, once both are ready.
pub fn api_pods(scene: &Scene) -> [Pod; 2] {
    let selector = "app.kubernetes.io/name=voicedock-api";
    until("two pods of the API are ready", Duration::from_secs(60), || {
        ready_pods(scene.cluster(), NAMESPACE, selector).try_into().map_err(|pods| format!("{pods:?}"))
    })
}

/// `voicedock api-key` for the test's namespace; returns what it prints.
pub fn api_key(scene: &Scene, command: &str, name: &str) -> String {
    let mut voicedock = Command::new(env!("CARGO_BIN_EXE_voicedock"));
    voicedock.env("KUBECONFIG", &scene.cluster().kubeconfig);
    succeed(voicedock.args(["api-key", command, name, "--namespace", &scene.namespace])).trim().to_owned()
}

/// Clients of these pods, once all of them know the key.
pub fn clients(pods: &[Pod; 2], key: &str) -> [Control; 2] {
    let clients = pods.each_ref().map(|pod| Control::new(pod.address, key));
    for client in &clients {
        until("the API knows the key", SOON, || answered(client.get("/numbers"), 200));
    }
    clients
}

/// The id of what was created.
pub fn created(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{}", answer.body);
    let thing = answer.body.as_object().and_then(|answer| answer.values().next());
    text(&thing.unwrap_or(&Value::Null)["id"])
}

/// Whether the answer has this status.
pub fn answered(answer: Answer, status: u16) -> Result<Value, String> {
    if answer.status == status { Ok(answer.body) } else { Err(format!("{} {}", answer.status, answer.body)) }
}
