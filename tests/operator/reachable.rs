//! `Reachable`: what gateway pods find about a trunk gets into its status, and goes with the pod.

use serde_json::{Value, json};
use voicedock::routing::ack::TrunkReport;

use crate::stage::{GatewayPod, Stage, office_trunk};

const ADDRESS: &str = "sip:pbx.example.com over UDP";

fn probed() -> Value {
    let mut trunk = office_trunk();
    trunk["probe"] = json!({ "intervalSeconds": 30 });
    trunk
}

/// The pod finds something out about the trunk.
pub fn finds(stage: &Stage, pod: &GatewayPod, reachable: bool, said: &str) {
    let report = TrunkReport { reachable, said: said.to_owned(), address: ADDRESS.to_owned() };
    pod.trunks.send_modify(|trunks| drop(trunks.insert(stage.key("office"), report)));
}

#[tokio::test]
async fn a_trunk_says_whether_it_answers_and_with_what() {
    let (stage, _operator, pod) = Stage::set("reach").await;
    stage.office().await;
    stage.apply("SipTrunk", "office", probed()).await;
    stage.says("SipTrunk", "office", "Reachable", "Unknown", "Pending").await;
    stage.is_ready("SipTrunk", "office").await;

    finds(&stage, &pod, true, "OPTIONS was answered 200 OK");
    let message = stage.says("SipTrunk", "office", "Reachable", "True", "Reachable").await;
    assert!(message.contains("OPTIONS was answered 200 OK"), "{message}");

    finds(&stage, &pod, false, "OPTIONS was answered 503 Service Unavailable");
    let message = stage.says("SipTrunk", "office", "Reachable", "False", "Unreachable").await;
    assert!(message.contains("503 Service Unavailable"), "{message}");
    stage.says("SipTrunk", "office", "Ready", "False", "Unreachable").await;
    // What the trunk is needed for goes on: whether a PBX answers is no matter of configuration.
    stage.is_ready("PhoneNumber", "main").await;

    let before = stage.settled().await;
    finds(&stage, &pod, false, "OPTIONS was answered 503 Service Unavailable");
    assert_eq!(stage.settled().await, before, "the same once more writes nothing");

    // What was found elsewhere says nothing about where it is now.
    let mut moved = probed();
    moved["host"] = json!("pbx2.example.com");
    stage.apply("SipTrunk", "office", moved).await;
    stage.says("SipTrunk", "office", "Reachable", "Unknown", "Pending").await;
    stage.is_ready("SipTrunk", "office").await;

    stage.apply("SipTrunk", "office", office_trunk()).await;
    stage.is_ready("SipTrunk", "office").await;
    assert_eq!(stage.condition("SipTrunk", "office", "Reachable").await, None);
}

#[tokio::test]
async fn a_pod_that_is_gone_vouches_for_nothing_and_its_successor_changes_nothing() {
    let (stage, _operator, pod) = Stage::set("heir").await;
    stage.office().await;
    stage.apply("SipTrunk", "office", probed()).await;
    finds(&stage, &pod, true, "OPTIONS was answered 200 OK");
    stage.says("SipTrunk", "office", "Reachable", "True", "Reachable").await;
    let heir = stage.pod("gw-2").await;
    finds(&stage, &heir, true, "OPTIONS was answered 200 OK");
    let before = stage.settled().await;
    pod.dies().await;
    let after = stage.settled().await;
    assert_eq!(before["SipTrunk office"], after["SipTrunk office"]);
    heir.dies().await;
    stage.says("SipTrunk", "office", "Reachable", "Unknown", "Pending").await;
}
