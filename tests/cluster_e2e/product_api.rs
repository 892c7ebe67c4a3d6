//! The product's flow, over the pods of the API that the chart runs: create, call, hand over, revoke.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::api::{answered, api_key, api_pods, clients, created};
use crate::harness::control::{Control, call_is, voicedock_id};
use crate::harness::office::SALES;
use crate::harness::parties::CALLER;
use crate::harness::pods::pod_per_node;
use crate::harness::scene::Scene;
use crate::harness::trunk::{BEFORE, Trunk};
use crate::harness::wait::{SOON, until};

/// After this no replica may take a key that was revoked.
const REVOKED: Duration = Duration::from_secs(1);

#[test]
fn what_is_created_over_one_pod_of_the_api_is_called_and_handed_over_by_way_of_the_other() {
    let scene = Scene::new("product");
    let mut agent = scene.party("agent", "agent", Some(1));
    let mut human = scene.party("human", "human", Some(1));
    let pbx = Trunk::start(&scene.directory, scene.host(), human.port);
    let uri = format!("sip:agent@{}:{}", scene.host(), agent.port);
    let _default = scene.cluster().default_agent(&json!({ "sip": { "uri": uri } }));
    let key = api_key(&scene, "create", "crm");
    let apis = clients(&api_pods(&scene), &key);
    let [one, two] = &apis;

    let number = number_with_assistant_and_trunk(&scene, one, two, &pbx);
    until("the number is in use", SOON, || match answered(two.get(&format!("/numbers/{number}")), 200) {
        Ok(body) if body["number"]["status"]["ready"] == true => Ok(()),
        other => Err(format!("{other:?}")),
    });

    let [pod, _] = pod_per_node(&scene);
    let mut caller = scene.caller(&pod);
    caller.sees(&["answered"]);
    let id = voicedock_id(&agent);
    for api in &apis {
        let call = call_is(api, &id, "is in progress", |call| call["status"] == "in-progress");
        assert_eq!(call["caller_phone"], CALLER, "{call}");
        let list = api.get("/calls").body;
        let calls: Vec<&Value> = list["calls"].as_array().into_iter().flatten().collect();
        let [listed] = calls[..] else { panic!("one call is listed: {list}") };
        assert_eq!((&listed["id"], &listed["number_id"]), (&json!(id), &json!(number)), "{listed}");
        assert_eq!(listed["agent_id"], "support-assistant", "{listed}");
    }

    let transfer = json!({ "type": "transfer", "destination": SALES });
    for api in [two, one] {
        let answer = api.command_once(&id, &transfer, "asked-for-a-human");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    human.sees(&["ringing", &format!("authenticated as {}", BEFORE.0)]);
    human.go_on(&human.call_id(&["ringing"]));
    caller.sees(&["moved", &format!("m=audio {}", human.media)]);
    agent.ends_well();
    for api in &apis {
        let transferred = |call: &Value| call["transfers"][0]["outcome"] == "answered";
        let call = call_is(api, &id, "is with the human", transferred);
        assert_eq!(call["transfers"][0]["destination"], SALES, "{call}");
        assert_eq!(call["transfers"].as_array().map(Vec::len), Some(1), "it was transferred once: {call}");
    }
    caller.go_on(&caller.placed(1));
    caller.ends_well();
    human.ends_well();
    for api in &apis {
        let call = call_is(api, &id, "is over", |call| call["status"] == "ended");
        assert_eq!(call["end_reason"], "caller-hung-up", "{call}");
    }

    api_key(&scene, "revoke", "crm");
    let revoked = Instant::now();
    for api in &apis {
        let left = REVOKED.saturating_sub(revoked.elapsed());
        until("the key opens nothing", left, || answered(api.get("/calls"), 401));
    }
    println!("a revoked key opened nothing {:?} after the command returned", revoked.elapsed());
}

/// Creates what the product's document does, each step at another pod of the API; returns the number's id.
fn number_with_assistant_and_trunk(scene: &Scene, one: &Control, two: &Control, pbx: &Trunk) -> String {
    let assistant = json!({
        "name": "Support Assistant",
        "first_message": "Welcome to Acme support, how can I help you?",
        "llm_config": { "provider": "openai", "model": "gpt-4o-mini", "tools": [{ "type": "transfer_call", "destinations": [
            { "type": "number", "number": SALES, "description": "Human support assistant for complex issues" },
        ]}]},
    });
    let assistant = created(&one.send("POST", "/assistants", &assistant));
    let number = json!({ "phone_number": scene.number, "assistant_id": assistant });
    let number = created(&two.send("POST", "/numbers", &number));
    let (username, password) = BEFORE;
    let trunk = json!({
        "name": "Office PBX", "host": scene.host(), "port": pbx.port, "username": username, "password": password,
        "inbound_addresses": [scene.host()],
    });
    let trunk = created(&one.send("POST", "/sip-trunks", &trunk));
    let changed = two.send("PATCH", &format!("/numbers/{number}"), &json!({ "transfer_trunk_id": trunk }));
    assert_eq!((changed.status, &changed.body["number"]["transfer_trunk_id"]), (200, &json!(trunk)));
    number
}
