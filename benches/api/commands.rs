//! Commands: from a model's tool call to the INVITE to the human on the wire, and a control request at a pod that hasn't the call, or
//! at the REST API, up to its answer.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use voicedock::simulate::realtime::script::{Answer, FunctionCall};
use voicedock::simulate::realtime::{Journal, Step, What};

use crate::client::Client;
use crate::programs::Start;
use crate::report::{Figures, Latencies, say};
use crate::scene::{Call, DESTINATION, PATIENCE, Scene};
use crate::support::api_server::ApiServer;
use crate::wait::until_true;

/// Of each kind.
const REQUESTS: usize = 300;
/// The pause between two is random within this, seconds.
const PAUSE: std::ops::Range<f64> = 0.005..0.03;

/// Measures all of them.
pub fn measure(runtime: &Runtime, server: &ApiServer, start: &Start, share: usize, figures: &mut Figures) {
    let requests = REQUESTS / share;
    let scene = Scene::set(runtime, server, start);
    say(&format!("commands: {requests} tool calls"));
    let found = tool_calls(&scene, requests);
    figures.note(format!("tool call → INVITE: p50 {:.3} ms, {requests} of them, one at a time", found.p50()));
    figures.set("tool", "call_to_invite_p99_ms", found.p99());

    for (what, key, desk) in [
        ("a pod that hasn't the call", "other_pod_p99_ms", &scene.other_pod),
        ("the api role", "api_p99_ms", &scene.api),
    ] {
        say(&format!("commands: {requests} control requests at {what}"));
        let found = control(&mut desk.client(), &scene.calls, &scene.invites, requests);
        figures.note(format!(
            "control request at {what} → its answer: p50 {:.3} ms, {requests} of them",
            found.p50()
        ));
        figures.set("control", key, found.p99());
    }
    let wrong = scene.double.journal().wrong();
    assert!(wrong.is_empty(), "the real API would not have taken this: {wrong:?}");
}

/// The model calls the tool again and again. A time is from when the double has sent the response that completes the call.
fn tool_calls(scene: &Scene, count: usize) -> Latencies {
    let journal = scene.double.journal();
    let times = scene.calls.iter().cycle().take(count).map(|of| {
        let quiet = of_type(journal, "output_audio_buffer.stopped");
        let arguments = json!({ "destination": DESTINATION });
        let call = FunctionCall { name: "transfer_call".into(), arguments, call_id: None };
        scene.double.act(&of.at_openai, Step::Speak(Answer { call: Some(call), ..Answer::default() }));
        let invited = scene.invites.recv_timeout(PATIENCE).expect("an INVITE arrives at the human's trunk");
        let entries = journal.entries();
        let called = entries.iter().rev().find(|entry| match &entry.what {
            What::Server(event) => {
                event["type"] == "response.done" && event["response"].to_string().contains("function_call")
            }
            _ => false,
        });
        let called = called.expect("the call was completed").at;
        // The model is told, and says something about it.
        until_true("the model speaks about what came of its call", PATIENCE, || {
            of_type(journal, "output_audio_buffer.stopped") > quiet
        });
        pause();
        invited.saturating_sub(called)
    });
    times.collect::<Vec<_>>().into()
}

/// How many events of a type the model has sent.
fn of_type(journal: &Journal, kind: &str) -> usize {
    let is_one = |what: &What| matches!(what, What::Server(event) if event["type"] == kind);
    journal.entries().iter().filter(|entry| is_one(&entry.what)).count()
}

/// Asks for transfers of a call, one after the other.
fn control(
    client: &mut Client,
    calls: &[Call],
    invites: &std::sync::mpsc::Receiver<Duration>,
    count: usize,
) -> Latencies {
    let body = json!({ "type": "transfer", "destination": DESTINATION }).to_string();
    let times = calls.iter().cycle().take(count).map(|Call { id, .. }| {
        let (view, control) = (format!("/api/v1/calls/{id}"), format!("/api/v1/calls/{id}/control"));
        let transfers = |client: &mut Client| {
            let (_, view) = client.ask("GET", &view, "").expect("it can be asked");
            let view: Value = serde_json::from_str(&view).unwrap_or_default();
            view["transfers"].as_array().map_or(0, Vec::len)
        };
        let before = transfers(client);
        let sent = Instant::now();
        let (status, answer) = client.ask("POST", &control, &body).expect("it can be asked");
        let time = sent.elapsed();
        assert_eq!(status, 200, "a transfer is refused: {answer}");
        invites.recv_timeout(PATIENCE).expect("an INVITE arrives at the human's trunk");
        // The human is busy: the call is where it was as soon as the gateway knows.
        until_true("the transfer is over", PATIENCE, || transfers(client) > before);
        pause();
        time
    });
    times.collect::<Vec<_>>().into()
}

fn pause() {
    thread::sleep(Duration::from_secs_f64(rand::random_range(PAUSE)));
}
