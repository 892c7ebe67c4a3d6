//! Whoever an Assistant names is told of its calls and transfers.

use serde_json::Value;

use crate::harness::control::voicedock_id;
use crate::harness::office::Office;
use crate::harness::receiver::Receiver;
use crate::harness::scene::Scene;

const SECRET: &str = "a secret of the CRM";

/// What an event says, in few words.
fn gist(message: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let status = [&message["status"], &message["transfer"]["status"]].map(text).concat();
    format!("{} {status}", text(&message["type"])).trim().to_owned()
}

#[test]
fn each_step_of_a_transferred_call_is_told_in_order_and_again_when_it_was_not_taken() {
    let scene = Scene::new("events");
    let mut agent = scene.party("agent", "agent", Some(1));
    let mut human = scene.party("human", "human", Some(1));
    let receiver = Receiver::start(scene.host(), SECRET);
    scene.apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: crm}}\nstringData: {{secret: {SECRET}}}\n"
    ));
    let assistant_spec = format!("  events: {{url: '{}', secretRef: {{name: crm}}}}", receiver.url);
    let office =
        Office { agent: agent.port, trunk: human.port, assistant_spec: &assistant_spec, ..Office::default() };
    // Addresses that aren't public are sent nothing unless the platform team says so.
    let networks = format!("  eventNetworks: [{}/32]\n", scene.host());
    scene.apply(&scene.secluded_with(&office, &networks));
    let pod = scene.secluded_pod();

    let mut caller = scene.callers("caller", "caller", &pod, scene.node_port, &["-m", "1"]);
    caller.sees(&["answered"]);
    let id = voicedock_id(&agent);
    let refused = receiver.next();
    assert_eq!(gist(&refused.message), "status-update in-progress");
    let again = receiver.next();
    assert_eq!((&again.id, &again.message), (&refused.id, &refused.message), "it is sent again as it was");

    agent.ask_for_transfer(&agent.call_id(&["answered"]), "sip:sales@gateway.invalid");
    for status in ["requested", "dialling", "ringing"] {
        let told = receiver.next().message;
        assert_eq!(gist(&told), format!("transfer-update {status}"), "{told}");
        assert_eq!(told["call"]["id"], id.as_str(), "{told}");
    }
    human.go_on(&human.call_id(&["ringing"]));
    let answered = receiver.next().message;
    assert_eq!(gist(&answered), "transfer-update answered");
    assert_eq!(answered["transfer"]["outcome"]["outcome"], "answered", "{answered}");
    caller.sees(&["moved"]);
    caller.go_on(&caller.placed(1));
    caller.ends_well();
    agent.ends_well();
    human.ends_well();
    assert_eq!(gist(&receiver.next().message), "status-update ended");
    let report = receiver.next().message;
    assert_eq!(gist(&report), "end-of-call-report");
    assert_eq!(report["ended_reason"], "caller-hung-up", "{report}");
    assert_eq!(report["transfers"][0]["outcome"], "answered", "{report}");
}
