//! Handing a caller to a human, in all ways, and what becomes of a caller whom nobody takes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::control::{call_is, call_is_within, voicedock_id};
use crate::harness::hook::{self, Hook};
use crate::harness::installation::NODE_PORT;
use crate::harness::office::{Office, SALES};
use crate::harness::parties::CALLER;
use crate::harness::pods::{Pod, pod_per_node};
use crate::harness::scene::Scene;
use crate::harness::sipp::Sipp;
use crate::harness::trunk::{BEFORE, Trunk};

/// A call that an assistant has answered.
struct Call {
    /// The pod that has it.
    pod: Pod,
    /// The one that hasn't.
    other: Pod,
    agent: Sipp,
    caller: Sipp,
    id: String,
    scene: Scene,
}

impl Call {
    /// A caller with an assistant in an office whose trunk is a phone on `trunk`'s port.
    fn start(scene: Scene, office: Office<'_>) -> Self {
        Self::start_as("caller", scene, office)
    }

    /// The same with another scenario for the caller.
    fn start_as(scenario: &str, scene: Scene, office: Office<'_>) -> Self {
        let agent = scene.party("agent", "agent", Some(1));
        scene.open(&Office { agent: agent.port, ..office });
        let [pod, other] = pod_per_node(&scene);
        let caller = scene.callers("caller", scenario, &pod, NODE_PORT, &["-m", "1"]);
        caller.sees(&["answered", &format!("m=audio {}", agent.media)]);
        let id = voicedock_id(&agent);
        Self { pod, other, agent, caller, id, scene }
    }

    /// The call's only transfer, once its outcome is known.
    fn outcome(&self) -> Value {
        let decided =
            |call: &Value| call["transfers"].as_array().is_some_and(|transfers| transfers.len() == 1);
        let control = self.scene.control(&self.pod);
        call_is_within(&control, &self.id, "has an outcome", Duration::from_secs(45), decided)["transfers"][0]
            .clone()
    }

    /// The caller is with the human; the agent is gone; then the caller leaves.
    fn ends_with(mut self, mut human: Sipp) {
        self.caller.sees(&["moved", &format!("m=audio {}", human.media)]);
        self.agent.ends_well();
        let outcome = self.outcome();
        assert_eq!(outcome["outcome"], "answered", "{outcome}");
        assert_eq!(outcome["trunk"], format!("{}/office", self.scene.namespace), "{outcome}");
        self.caller.go_on(&self.caller.placed(1));
        self.caller.ends_well();
        human.ends_well();
        let control = self.scene.control(&self.pod);
        call_is(&control, &self.id, "is over", |call| call["status"] == "ended");
    }

    /// Nobody took the caller, who is still with the assistant; then the caller leaves.
    fn ends_with_the_assistant(mut self, outcome: &str, code: Option<u16>) {
        let transfer = self.outcome();
        assert_eq!(transfer["outcome"], outcome, "{transfer}");
        if let Some(code) = code {
            assert_eq!(transfer["sip_code"], code, "{transfer}");
        }
        let call = call_is(&self.scene.control(&self.other), &self.id, "goes on", |call| {
            call["status"] == "in-progress"
        });
        assert_eq!(call["ended_at"], Value::Null);
        assert!(!self.caller.log().contains("moved"), "the caller was left alone:\n{}", self.caller.log());
        self.caller.go_on(&self.caller.placed(1));
        self.caller.ends_well();
        self.agent.ends_well();
    }
}

#[test]
fn the_api_transfers_a_call_at_the_pod_that_has_it() {
    let scene = Scene::new("transfer-here");
    let human = scene.party("human", "human", Some(1));
    let trunk = human.port;
    let call = Call::start(scene, Office { trunk, ..Office::default() });
    call.scene.control(&call.pod).transfer(&call.id, SALES);
    let shown = human.sees(&["ringing"]);
    assert!(shown.contains(CALLER), "the human sees who calls: {shown}");
    human.go_on(&human.call_id(&["ringing"]));
    call.ends_with(human);
}

#[test]
fn the_api_transfers_a_call_at_a_pod_that_does_not_have_it() {
    let scene = Scene::new("transfer-there");
    let human = scene.party("human", "human", Some(1));
    let trunk = human.port;
    let call = Call::start(scene, Office { trunk, ..Office::default() });
    call.scene.control(&call.other).transfer(&call.id, SALES);
    human.go_on(&human.call_id(&["ringing"]));
    call.ends_with(human);
}

#[test]
fn a_message_is_heard_to_its_end_before_the_human_is_called() {
    let scene = Scene::new("message");
    let human = scene.party("human", "human", Some(1));
    let hook = Hook::at(scene.host());
    scene.apply(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: hook}\nstringData: {secret: a secret of the agent}\n",
    );
    let office = Office {
        trunk: human.port,
        agent_spec: &format!("hook: {{url: '{}', secretRef: {{name: hook}}}}", hook.url),
        destination_spec: "message: One moment please.",
        ..Office::default()
    };
    let call = Call::start(scene, office);
    call.scene.control(&call.other).transfer(&call.id, SALES);
    let (asked, waits) = hook.asked();
    assert_eq!((&asked["type"], &asked["content"]), (&json!("say"), &json!("One moment please.")), "{asked}");
    assert_eq!(asked["call_id"], call.id.as_str(), "{asked}");
    assert_eq!(human.log(), "", "nobody is called meanwhile");
    hook::answer(waits);
    human.go_on(&human.call_id(&["ringing"]));
    let message = call.outcome()["message"].clone();
    assert_eq!(message["heard"], true, "{message}");
    call.ends_with(human);
}

#[test]
fn the_agent_transfers_a_call_with_refer_and_hears_the_outcome() {
    let scene = Scene::new("transfer-refer");
    let human = scene.party("human", "human", Some(1));
    let trunk = human.port;
    let call = Call::start(scene, Office { trunk, ..Office::default() });
    let leg = call.agent.call_id(&["answered"]);
    call.agent.ask_for_transfer(&leg, "sip:sales@gateway.invalid");
    call.agent.sees(&["told", "SIP/2.0 100", "active"]);
    human.go_on(&human.call_id(&["ringing"]));
    call.agent.sees(&["told", "SIP/2.0 200", "terminated"]);
    call.ends_with(human);
}

#[test]
fn a_caller_whose_trunk_takes_a_refer_is_sent_on_by_it() {
    let scene = Scene::new("referred");
    let office = Office {
        trunk_spec: "  refer: {supported: true, target: tel}\n",
        destination_spec: "method: Refer",
        ..Office::default()
    };
    let mut call = Call::start_as("referred-caller", scene, office);
    let leg = call.agent.call_id(&["answered"]);
    call.agent.ask_for_transfer(&leg, "sip:sales@gateway.invalid");
    call.caller.sees(&["referred to", &format!("<tel:{SALES}>"), &format!("sip:{}@", call.scene.number)]);
    call.agent.sees(&["told", "SIP/2.0 180", "active"]);
    call.agent.sees(&["told", "SIP/2.0 200", "terminated"]);
    call.caller.ends_well();
    call.agent.ends_well();
    assert_eq!(call.outcome()["outcome"], "answered");
}

#[test]
fn a_human_behind_a_trunk_that_demands_digest_is_reached() {
    let scene = Scene::new("digest");
    let human = scene.party("human", "human", Some(1));
    let trunk = Trunk::start(&scene.directory, scene.host(), human.port);
    let (username, password) = BEFORE;
    scene.apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: office}}\ntype: kubernetes.io/basic-auth\n\
         stringData: {{username: {username}, password: {password}}}\n"
    ));
    let office = Office {
        trunk: trunk.port,
        trunk_spec: "  credentialsSecretRef: {name: office}\n  realm: trunk.example\n",
        ..Office::default()
    };
    let call = Call::start(scene, office);
    call.scene.control(&call.pod).transfer(&call.id, SALES);
    human.sees(&["ringing", &format!("authenticated as {username}")]);
    human.go_on(&human.call_id(&["ringing"]));
    call.ends_with(human);
}

#[test]
fn a_human_who_hangs_up_ends_the_transferred_call() {
    let scene = Scene::new("human-leaves");
    let mut human = scene.party("human", "human", Some(1));
    let trunk = human.port;
    let mut call = Call::start(scene, Office { trunk, ..Office::default() });
    call.scene.control(&call.pod).transfer(&call.id, SALES);
    let leg = human.call_id(&["ringing"]);
    human.go_on(&leg);
    call.caller.sees(&["moved"]);
    call.agent.ends_well();
    human.go_on(&leg);
    human.ends_well();
    call.caller.sees(&["the other side hung up"]);
    call.caller.ends_well();
}

#[test]
fn a_caller_whose_human_is_busy_stays_with_the_assistant() {
    let scene = Scene::new("busy");
    let mut human = scene.party("human", "busy-human", Some(1));
    let trunk = human.port;
    let call = Call::start(scene, Office { trunk, ..Office::default() });
    call.scene.control(&call.pod).transfer(&call.id, SALES);
    human.ends_well();
    call.ends_with_the_assistant("busy", Some(486));
}

#[test]
fn an_agent_that_asked_with_refer_hears_that_the_human_is_busy() {
    let scene = Scene::new("busy-refer");
    let mut human = scene.party("human", "busy-human", Some(1));
    let trunk = human.port;
    let call = Call::start(scene, Office { trunk, ..Office::default() });
    let leg = call.agent.call_id(&["answered"]);
    call.agent.ask_for_transfer(&leg, "sip:sales@gateway.invalid");
    call.agent.sees(&["told", "SIP/2.0 486", "terminated"]);
    human.ends_well();
    call.ends_with_the_assistant("busy", Some(486));
}

#[test]
fn a_destination_that_is_busy_is_followed_by_the_next_one() {
    let scene = Scene::new("chain");
    let mut busy = scene.party("busy", "busy-human", Some(1));
    let mut human = scene.party("human", "human", Some(1));
    scene.apply(&format!(
        "apiVersion: voicedock.dev/v1alpha1\nkind: TransferDestination\nmetadata: {{name: backup}}\n\
         spec: {{type: sip, uri: 'sip:backup@{}:{}', description: Backup}}\n",
        scene.host(),
        human.port
    ));
    let destination_spec = "onFailure: {then: [{name: backup}]}";
    let mut call = Call::start(scene, Office { trunk: busy.port, destination_spec, ..Office::default() });
    call.scene.control(&call.pod).transfer(&call.id, "sales");
    busy.ends_well();
    human.go_on(&human.call_id(&["ringing"]));
    call.caller.sees(&["moved", &format!("m=audio {}", human.media)]);
    call.agent.ends_well();
    let outcome = call.outcome();
    assert_eq!((&outcome["outcome"], &outcome["destination"]), (&json!("answered"), &json!("backup")));
    assert_eq!(
        (&outcome["attempts"], &outcome["tries"][0]["outcome"]),
        (&json!(2), &json!("busy")),
        "{outcome}"
    );
    call.caller.go_on(&call.caller.placed(1));
    call.caller.ends_well();
    human.ends_well();
}

#[test]
fn a_trunk_whose_first_host_is_silent_is_reached_at_the_next_one() {
    let scene = Scene::new("backup");
    let human = scene.party("human", "human", Some(1));
    let silent = std::net::UdpSocket::bind((scene.host(), 0)).expect("this machine's address can be bound");
    let trunk = silent.local_addr().expect("the socket is bound").port();
    let trunk_spec = format!("  backups: [{{host: {}, port: {}}}]\n", scene.host(), human.port);
    let call = Call::start(scene, Office { trunk, trunk_spec: &trunk_spec, ..Office::default() });
    call.scene.control(&call.pod).transfer(&call.id, SALES);
    human.go_on(&human.call_id(&["ringing"]));
    call.ends_with(human);
}

#[test]
fn a_transfer_to_a_destination_that_is_closed_is_refused_with_the_time_of_its_opening() {
    let scene = Scene::new("closed");
    let day = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).weekday().wrapping_add(3);
    let day = &format!("{day:?}")[..3];
    let hours =
        format!(r#"schedule: {{timeZone: UTC, open: [{{days: [{day}], from: "00:00", to: "24:00"}}]}}"#);
    let call = Call::start(scene, Office { destination_spec: &hours, ..Office::default() });
    let command = json!({ "type": "transfer", "destination": "sales" });
    let answer = call.scene.control(&call.pod).command(&call.id, &command);
    assert_eq!((answer.status, &answer.body["error"]), (400, &json!("transfer_refused")));
    assert!(answer.body["message"].to_string().contains("closed; it opens"), "{}", answer.body);
    call.ends_with_the_assistant("closed", None);
}

#[test]
fn a_caller_whose_human_does_not_answer_stays_with_the_assistant() {
    let scene = Scene::new("no-answer");
    let mut human = scene.party("human", "human", Some(1));
    let trunk = human.port;
    let call = Call::start(scene, Office { trunk, ring_seconds: 2, ..Office::default() });
    call.scene.control(&call.pod).transfer(&call.id, SALES);
    human.sees(&["ringing"]);
    human.sees(&["cancelled"]);
    human.ends_well();
    call.ends_with_the_assistant("no-answer", None);
}

#[test]
fn a_caller_whose_trunk_refuses_connections_stays_with_the_assistant() {
    let scene = Scene::new("trunk-refuses");
    // Nothing listens there.
    let trunk = crate::harness::sipp::free_port(scene.host());
    let call = Call::start(scene, Office { trunk, transport: "TCP", ..Office::default() });
    call.scene.control(&call.pod).transfer(&call.id, SALES);
    call.ends_with_the_assistant("unreachable", None);
}

#[test]
fn a_caller_whose_trunk_is_silent_stays_with_the_assistant() {
    let scene = Scene::new("trunk-silent");
    let silent = std::net::UdpSocket::bind((scene.host(), 0)).expect("this machine's address can be bound");
    let trunk = silent.local_addr().expect("the socket is bound").port();
    let call = Call::start(scene, Office { trunk, ring_seconds: 2, ..Office::default() });
    call.scene.control(&call.pod).transfer(&call.id, SALES);
    call.ends_with_the_assistant("unreachable", None);
}

#[test]
fn a_caller_who_hangs_up_while_the_human_rings_takes_the_human_along() {
    let scene = Scene::new("hangs-up");
    let mut human = scene.party("human", "human", Some(1));
    let trunk = human.port;
    let mut call = Call::start(scene, Office { trunk, ..Office::default() });
    call.scene.control(&call.pod).transfer(&call.id, SALES);
    human.sees(&["ringing"]);
    call.caller.go_on(&call.caller.placed(1));
    call.caller.ends_well();
    human.sees(&["cancelled"]);
    human.ends_well();
    call.agent.ends_well();
    assert_eq!(call.outcome()["outcome"], "caller-hung-up");
}

#[test]
fn a_human_who_answers_in_the_moment_in_which_the_caller_hangs_up_is_let_go() {
    let scene = Scene::new("crossing");
    let mut human = scene.party("human", "late-human", Some(1));
    let trunk = human.port;
    let mut call = Call::start(scene, Office { trunk, ..Office::default() });
    call.scene.control(&call.pod).transfer(&call.id, SALES);
    human.sees(&["ringing"]);
    call.caller.go_on(&call.caller.placed(1));
    call.caller.ends_well();
    human.sees(&["let go"]);
    human.ends_well();
    call.agent.ends_well();
    assert_eq!(call.outcome()["outcome"], "caller-hung-up");
}
