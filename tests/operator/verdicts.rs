//! What Flux, Helm and Argo CD think of objects at an API server, in each state that people bring about: with the statuses that
//! the operator wrote there. `tests/verdicts.rs` has the states that only clusters get into.

use serde_json::{Value, json};

use crate::stage::{GATEWAY, Stage, main_number, office_trunk, sales, support_assistant};
use crate::support::verdicts::both;

const PBX: (&str, &str) = ("SipTrunk", "office");
const SALES: (&str, &str) = ("TransferDestination", "sales");
const ASSISTANT: (&str, &str) = ("Assistant", "support");
const NUMBER: (&str, &str) = ("PhoneNumber", "main");
const GATEWAYS: (&str, &str) = ("SipGateway", GATEWAY);
const TABLE: (&str, &str) = ("RoutingTable", GATEWAY);
/// All that people write.
const WRITTEN: [(&str, &str); 5] = [PBX, SALES, ASSISTANT, NUMBER, GATEWAYS];

/// What kstatus and Argo CD say while …
const WAITING: [&str; 2] = ["InProgress", "Progressing"];
const READY: [&str; 2] = ["Current", "Healthy"];
/// … it may be mended without another spec, and somebody should look …
const WRONG: [&str; 2] = ["InProgress", "Degraded"];
/// … it can't.
const STALLED: [&str; 2] = ["Failed", "Degraded"];
const LEAVING: [&str; 2] = ["Terminating", "Progressing"];

async fn verdicts(stage: &Stage, state: &str, objects: &[(&str, &str)], wanted: [&str; 2]) {
    let mut found = Vec::new();
    for (kind, name) in objects {
        found.push(stage.live(kind, name).await);
    }
    for (object, [(flux, _), (argo, message)]) in found.iter().zip(both(&found)) {
        assert_eq!([&*flux, &*argo], wanted, "{state}: {object:#}");
        assert!(!message.is_empty() || argo == "Progressing", "{state}: Argo CD shows no reason: {object:#}");
    }
}

#[tokio::test]
async fn every_state_of_a_live_object_is_taken_for_what_it_is() {
    let stage = Stage::empty("verdicts").await;
    stage.gateway().await;
    stage.office().await;
    verdicts(&stage, "no operator has seen it", &WRITTEN, WAITING).await;

    let operator = stage.operator();
    for (kind, name) in WRITTEN {
        stage.says(kind, name, "Ready", "False", "NoReadyGateways").await;
    }
    verdicts(&stage, "no gateway pod is ready", &WRITTEN, WAITING).await;
    verdicts(&stage, "no gateway pod is ready", &[TABLE], WAITING).await;

    let pod = stage.pod("gw-1").await;
    for (kind, name) in WRITTEN.into_iter().chain([TABLE]) {
        stage.is_ready(kind, name).await;
        verdicts(&stage, "every gateway has it", &[(kind, name)], READY).await;
    }

    what_it_names(&stage).await;
    what_is_wrong_with_it(&stage).await;
    what_a_trunk_answers(&stage, &pod).await;

    // Nobody looks at a change.
    for (kind, name) in WRITTEN {
        stage.is_ready(kind, name).await;
    }
    operator.end().await;
    stage.apply("SipTrunk", "office", changed(office_trunk())).await;
    stage.apply("TransferDestination", "sales", changed(sales("+31612345678"))).await;
    stage.apply("Assistant", "support", changed(support_assistant(&["sales"]))).await;
    stage.apply("PhoneNumber", "main", changed(main_number("+31201234567"))).await;
    stage.apply("SipGateway", GATEWAY, json!({ "exposure": "ClusterIP", "drainTimeoutSeconds": 60 })).await;
    verdicts(&stage, "no operator has seen the change", &WRITTEN, WAITING).await;

    for (kind, name) in WRITTEN {
        stage.hold(kind, name, &["example.com/mine"]).await;
        stage.delete(kind, name).await;
    }
    verdicts(&stage, "it is being deleted", &WRITTEN, LEAVING).await;
}

/// The same with a name for people: another generation.
fn changed(mut spec: Value) -> Value {
    let named = if spec.get("description").is_some() { "description" } else { "displayName" };
    spec[named] = json!("Another");
    spec
}

async fn what_it_names(stage: &Stage) {
    stage.delete("TransferDestination", "sales").await;
    stage.says("Assistant", "support", "Ready", "False", "RefNotFound").await;
    verdicts(stage, "what it names isn't there", &[ASSISTANT], WAITING).await;
    stage.apply("TransferDestination", "sales", sales("+31612345678")).await;
    stage.is_ready("Assistant", "support").await;

    stage.secret("office-pbx", &[("username", "acme")]).await;
    stage.says("SipTrunk", "office", "Ready", "False", "SecretKeyMissing").await;
    verdicts(stage, "its Secret lacks a key", &[PBX], WAITING).await;
    stage.secret("office-pbx", &[("username", "acme"), ("password", "second")]).await;
    stage.is_ready("SipTrunk", "office").await;
}

async fn what_is_wrong_with_it(stage: &Stage) {
    stage.apply("PhoneNumber", "other", main_number("+31201234567")).await;
    stage.says("PhoneNumber", "other", "Ready", "False", "Conflict").await;
    verdicts(stage, "another has the number", &[("PhoneNumber", "other")], WRONG).await;
    let mut foreign = main_number("+31201234568");
    foreign["transferTrunkRef"] = json!({ "name": "theirs", "namespace": "elsewhere" });
    stage.apply("PhoneNumber", "foreign", foreign).await;
    stage.says("PhoneNumber", "foreign", "Ready", "False", "RefNotPermitted").await;
    verdicts(stage, "it may not use what it names", &[("PhoneNumber", "foreign")], WRONG).await;

    let mut nowhere = sales("+31612345678");
    nowhere["schedule"] = json!({
        "timeZone": "Europe/Atlantis", "open": [{ "days": ["Mon"], "from": "09:00", "to": "17:00" }],
    });
    stage.apply("TransferDestination", "sales", nowhere).await;
    stage.says("TransferDestination", "sales", "Stalled", "True", "Invalid").await;
    verdicts(stage, "the spec can't be read", &[SALES], STALLED).await;
    stage.says("Assistant", "support", "Ready", "False", "RefNotAccepted").await;
    verdicts(stage, "what it names was refused", &[ASSISTANT], WAITING).await;
    stage.apply("TransferDestination", "sales", sales("+31612345678")).await;
    stage.is_ready("TransferDestination", "sales").await;
    verdicts(stage, "the spec was mended", &[SALES], READY).await;
}

async fn what_a_trunk_answers(stage: &Stage, pod: &crate::stage::GatewayPod) {
    let mut probed = office_trunk();
    probed["probe"] = json!({ "intervalSeconds": 30 });
    stage.apply("SipTrunk", "office", probed).await;
    stage.is_ready("SipTrunk", "office").await;
    verdicts(stage, "nobody has asked the trunk yet", &[PBX], READY).await;
    crate::reachable::finds(stage, pod, false, "OPTIONS was answered 503 Service Unavailable");
    stage.says("SipTrunk", "office", "Ready", "False", "Unreachable").await;
    verdicts(stage, "the trunk doesn't answer", &[PBX], WRONG).await;
    verdicts(stage, "another object's trunk doesn't answer", &[NUMBER], READY).await;
    stage.apply("SipTrunk", "office", office_trunk()).await;
    stage.is_ready("SipTrunk", "office").await;
}
