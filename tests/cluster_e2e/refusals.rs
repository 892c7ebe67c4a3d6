//! What is not let in: calls, messages and commands that are wrong.

use std::time::Duration;

use serde_json::json;

use crate::harness::control::voicedock_id;
use crate::harness::installation::NODE_PORT;
use crate::harness::office::Office;
use crate::harness::parties::CALLER;
use crate::harness::pods::{pod_per_node, restarts};
use crate::harness::probe::Probe;
use crate::harness::scene::Scene;

/// Nothing comes within this time: nothing will.
const SILENCE: Duration = Duration::from_millis(700);
const ANSWER: Duration = Duration::from_secs(2);

#[test]
fn a_number_that_nobody_has_is_refused_with_404() {
    let scene = Scene::new("unknown-number");
    scene.open(&Office::default());
    for pod in pod_per_node(&scene) {
        let probe = Probe::new(scene.cluster(), pod.node, NODE_PORT);
        assert_eq!(probe.call("+31209999999"), Some(404), "at {}", pod.name);
    }
}

#[test]
fn a_caller_whom_no_trunk_knows_is_refused_with_403() {
    let scene = Scene::new("unknown-source");
    // No trunk of this test has any source, and those of other tests are gone or going.
    let strangers = scene.office(&Office::default()).replace(&scene.host().to_string(), "192.0.2.1");
    scene.apply(&strangers);
    scene.ready("phonenumber/main-line");
    let [pod, _] = pod_per_node(&scene);
    let probe = Probe::new(scene.cluster(), pod.node, NODE_PORT);
    crate::harness::wait::until("the caller is refused", Duration::from_secs(20), || {
        match probe.call(&scene.number) {
            Some(403) => Ok(()),
            other => Err(format!("the answer is {other:?}")),
        }
    });
}

#[test]
fn a_malformed_message_gets_400_or_silence_and_calls_go_on() {
    let scene = Scene::new("malformed");
    let mut agent = scene.party("agent", "agent", Some(1));
    scene.open(&Office { agent: agent.port, ..Office::default() });
    let [pod, _] = pod_per_node(&scene);
    let before = restarts(scene.cluster(), &pod);
    let mut caller = scene.caller(&pod);
    caller.sees(&["answered"]);

    let probe = Probe::new(scene.cluster(), pod.node, NODE_PORT);
    let valid = String::from_utf8(probe.request("INVITE", &scene.number, "").bytes()).expect("it is text");
    let without = |header: &str| {
        let lines = valid.split_inclusive("\r\n").filter(|line| !line.starts_with(header));
        lines.collect::<String>()
    };
    let refused = [
        ("no Call-ID", without("Call-ID:"), 400),
        ("no CSeq", without("CSeq:"), 400),
        ("no From", without("From:"), 400),
        ("no To", without("To:"), 400),
        ("another method in CSeq", valid.replace("CSeq: 1 INVITE", "CSeq: 1 OPTIONS"), 400),
        (
            "a Content-Length beyond the datagram",
            valid.replace("Content-Length: 0", "Content-Length: 999"),
            400,
        ),
        ("another version", valid.replacen("SIP/2.0\r\n", "SIP/7.0\r\n", 1), 505),
        ("an unknown scheme", valid.replacen("INVITE sip:", "INVITE nobody:", 1), 416),
        (
            "an unknown extension",
            valid.replace("Content-Length", "Require: teleportation\r\nContent-Length"),
            420,
        ),
    ];
    for (what, message, code) in refused {
        probe.send(message.as_bytes());
        let response = probe.response(ANSWER).unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(response.code, code, "{what}");
        assert!(response.header("Via").is_some(), "{what}: the answer has a Via");
    }
    let ignored: [(&str, Vec<u8>); 5] = [
        ("noise", (0..=255).cycle().take(3000).collect()),
        ("nothing", Vec::new()),
        ("half a message", valid.as_bytes()[..40].to_vec()),
        (
            "a response to nobody",
            b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\r\n".to_vec(),
        ),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_vec()),
    ];
    for (what, message) in ignored {
        probe.send(&message);
        if let Some(response) = probe.response(SILENCE) {
            assert_eq!(response.code, 400, "{what}");
        }
    }

    caller.go_on(&caller.placed(1));
    caller.ends_well();
    agent.ends_well();
    assert_eq!(restarts(scene.cluster(), &pod), before, "the gateway is the same as before");
}

#[test]
fn a_wrong_command_is_refused_and_the_call_goes_on() {
    let scene = Scene::new("commands");
    let mut agent = scene.party("agent", "agent", Some(1));
    scene.open(&Office { agent: agent.port, ..Office::default() });
    let [pod, other] = pod_per_node(&scene);
    let mut caller = scene.caller(&pod);
    caller.sees(&["answered"]);
    let id = voicedock_id(&agent);
    let unknown = id.replace(&id[id.len() - 4..], if id.ends_with("0000") { "1111" } else { "0000" });
    let end = json!({ "type": "end-call" });

    for pod in [&pod, &other] {
        let control = scene.control(pod);
        for (key, status) in [("wrong", 401), ("", 401)] {
            assert_eq!(control.with_key(key).get("/calls").status, status, "key '{key}' lists nothing");
            assert_eq!(control.with_key(key).command(&id, &end).status, status, "key '{key}' ends nothing");
        }
        for nobody in [unknown.as_str(), "call_0badcafe_030123456789abcdef", "nonsense"] {
            assert_eq!(control.call(nobody).status, 404, "{nobody}");
            let answer = control.command(nobody, &end);
            assert_eq!(answer.status, 404, "{nobody}: {}", answer.body);
        }
        for destination in ["sales!", "0612345678", "+0612345678", "tel:+31612345678", "", "sip:"] {
            let answer = control.command(&id, &json!({ "type": "transfer", "destination": destination }));
            assert_eq!(answer.status, 400, "'{destination}': {}", answer.body);
            assert_eq!(answer.body["param"], "destination", "'{destination}': {}", answer.body);
        }
        for command in [json!({ "type": "transfer" }), json!({ "type": "dance" }), json!({}), json!([])] {
            assert_eq!(control.command(&id, &command).status, 400, "{command}");
        }
    }
    // A number that the API may not reach either, because the caller dialled it.
    let answer =
        scene.control(&pod).command(&id, &json!({ "type": "transfer", "destination": scene.number }));
    assert_eq!(answer.status, 400, "{}", answer.body);

    let call = scene.control(&other).call(&id).body;
    assert_eq!(call["status"], "in-progress", "{call}");
    assert_eq!(call["caller_phone"], CALLER);
    caller.go_on(&caller.placed(1));
    caller.ends_well();
    agent.ends_well();
}
