//! Calls that a realtime model answers: whichever pod hears of them, the one that has the call hands the caller over.

use std::time::Duration;

use serde_json::Value;
use voicedock::simulate::realtime::What;

use crate::harness::api::api_pods;
use crate::harness::control::{call_is, call_is_within};
use crate::harness::installation::{NAMESPACE, NODE_PORT};
use crate::harness::model::Model;
use crate::harness::office::Office;
use crate::harness::pods::{Pod, pod_per_node, said};
use crate::harness::scene::Scene;
use crate::harness::sipp::Sipp;

const GREET: &str = "calls: [{steps: [{respond: {}}]}]";
const TRANSFER: &str =
    "speak: {say: One moment., call: {name: transfer_call, arguments: {destination: sales}}}";
const MESSAGE: &str = "message: I am putting you through now.";

/// A call that the model has answered.
struct Call {
    /// The pod that has it.
    pod: Pod,
    caller: Sipp,
    /// As OpenAI names it.
    call: String,
    /// As we do.
    id: String,
}

impl Call {
    /// The n-th of the model's calls, over the node of `pod`.
    fn start(scene: &Scene, model: &Model, pod: &Pod, n: usize) -> Self {
        let caller = scene.callers(&format!("caller-{n}"), "caller", pod, NODE_PORT, &["-m", "1"]);
        caller.sees(&["answered"]);
        let (call, id) = model.greets(n);
        let instance = said(scene.cluster(), NAMESPACE, pod, "instance");
        assert!(id.starts_with(&format!("call_{instance}_")), "{} has {id}", pod.name);
        Self { pod: pod.clone(), caller, call, id }
    }

    /// The model hands the caller over, with the message of the destination; then the caller leaves.
    fn hand_over(mut self, scene: &Scene, model: &Model, mut human: Sipp) {
        model.goes_on(&self.call, TRANSFER);
        human.go_on(&human.call_id(&["ringing"]));
        self.caller.sees(&["moved", &format!("m=audio {}", human.media)]);
        model.sees("the goodbye", |entry| match &entry.what {
            What::Ended(_) if entry.call == self.call => Some(()),
            _ => None,
        });
        let control = scene.control(&self.pod);
        let transferred = |call: &Value| !call["transfers"][0].is_null();
        let limit = Duration::from_secs(30);
        let call = call_is_within(&control, &self.id, "has an outcome", limit, transferred);
        let transfer = &call["transfers"][0];
        assert_eq!(transfer["outcome"], "answered", "{transfer}");
        assert_eq!(transfer["destination"], "sales", "{transfer}");
        assert_eq!(transfer["message"]["heard"], true, "{transfer}");
        self.caller.go_on(&self.caller.placed(1));
        self.caller.ends_well();
        human.ends_well();
        call_is(&control, &self.id, "is over", |call| call["status"] == "ended");
    }
}

fn is_handed_over(name: &str, told: impl Fn(&Scene, &Pod) -> Pod) {
    let scene = Scene::new(name);
    let model = scene.model(GREET);
    let human = scene.party("human", "human", Some(1));
    let office =
        Office { model: Some(&model), trunk: human.port, destination_spec: MESSAGE, ..Office::default() };
    scene.open(&office);
    let [pod, other] = pod_per_node(&scene);
    model.tells(&told(&scene, &other));
    Call::start(&scene, &model, &pod, 1).hand_over(&scene, &model, human);
    model.is_content();
}

#[test]
fn a_model_whose_webhook_reaches_the_other_pod_hands_the_caller_over() {
    is_handed_over("model-there", |_, other| other.clone());
}

#[test]
fn a_model_whose_webhook_reaches_the_api_hands_the_caller_over() {
    is_handed_over("model-api", |scene, _| api_pods(scene)[0].clone());
}

#[test]
fn a_pod_that_is_killed_takes_no_models_call_along_but_its_own() {
    let scene = Scene::new("model-killed");
    let model = scene.model(GREET);
    let human = scene.party("human", "human", Some(1));
    let office =
        Office { model: Some(&model), trunk: human.port, destination_spec: MESSAGE, ..Office::default() };
    scene.open(&office);
    let [pod, other] = pod_per_node(&scene);
    model.tells(&api_pods(&scene)[0]);
    let lost = Call::start(&scene, &model, &pod, 1);
    let kept = Call::start(&scene, &model, &other, 2);

    scene.cluster().kill_container(NAMESPACE, &pod.name);
    model.sees("that nobody listens to the first call", |entry| match &entry.what {
        What::SocketClosed if entry.call == lost.call => Some(()),
        _ => None,
    });
    let new = Call::start(&scene, &model, &other, 3);
    kept.hand_over(&scene, &model, human);
    model.goes_on(&new.call, "hang_up");
    let mut caller = new.caller;
    caller.sees(&["the other side hung up"]);
    caller.ends_well();
    // The pod of before is back, for the tests that follow.
    pod_per_node(&scene);
}
