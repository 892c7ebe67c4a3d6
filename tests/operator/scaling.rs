//! The number of a gateway's pods, by the calls that they hold.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use voicedock::resources::SipGateway;

use crate::stage::{GATEWAY, GatewayPod, Operator, PACE, Pace, Stage, eventually, found};

const NAME: &str = "default-voicedock";
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A gateway that is scaled, and an operator that removes pods when fewer were enough for `window`.
async fn scaled(hint: &str, window: Duration, autoscaling: Value) -> (Stage, Operator) {
    let stage = Stage::empty(hint).await;
    stage.apply("SipGateway", GATEWAY, json!({ "autoscaling": autoscaling })).await;
    let pace = Pace { scale_down_after: window, ..PACE };
    let operator = stage.operator_at(pace, stage.config().await);
    (stage, operator)
}

/// A ready pod that holds calls, without a process.
async fn pod(stage: &Stage, name: &str, calls: u32) -> GatewayPod {
    let pod = GatewayPod::make(stage, name).await;
    pod.holds(calls).await;
    pod.ready(true).await;
    pod
}

async fn replicas(stage: &Stage) -> Option<i32> {
    found(&stage.api::<Deployment>(), NAME).await?.spec?.replicas
}

async fn has(stage: &Stage, expected: i32) {
    eventually(&format!("{expected} replicas"), async || (replicas(stage).await? == expected).then_some(()))
        .await;
}

async fn set(stage: &Stage, replicas: i32) {
    let scale = json!({ "spec": { "replicas": replicas } });
    stage.api::<Deployment>().patch(NAME, &PatchParams::default(), &Patch::Merge(scale)).await.unwrap();
}

/// Has everything of the gateway applied again, and waits for that.
async fn reconcile(stage: &Stage, round: &str) {
    let label = json!({ "metadata": { "labels": { "round": round } } });
    stage.api::<SipGateway>().patch(GATEWAY, &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    eventually("another reconcile", async || {
        let deployment = found(&stage.api::<Deployment>(), NAME).await?;
        (deployment.labels().get("round").map(String::as_str) == Some(round)).then_some(())
    })
    .await;
}

/// The note of an event with this reason.
async fn note(stage: &Stage, reason: &str) -> String {
    eventually(&format!("an event {reason}"), async || {
        let events = stage.api::<Event>().list(&ListParams::default()).await.unwrap();
        events.into_iter().find(|event| event.reason.as_deref() == Some(reason))?.note
    })
    .await
}

#[tokio::test]
async fn pods_come_with_the_calls_and_those_with_the_fewest_go_when_fewer_were_enough_for_the_window() {
    let autoscaling = json!({ "min": 1, "max": 4, "targetCallsPerPod": 10 });
    let (stage, _operator) = scaled("scaled", Duration::from_secs(2), autoscaling).await;
    has(&stage, 1).await;
    let first = pod(&stage, "gw-a", 25).await;
    has(&stage, 3).await;
    assert_eq!(
        note(&stage, "ScaledUp").await,
        "The gateway was scaled from 1 to 3 pods: the pods hold 25 calls, at a target of 10 a pod."
    );
    eventually("the number in the status", async || {
        let status = found(&stage.api::<SipGateway>(), GATEWAY).await?.status?;
        (status.effective?.replicas? == 3).then_some(())
    })
    .await;

    let idle = pod(&stage, "gw-b", 1).await;
    let busy = pod(&stage, "gw-c", 4).await;
    first.holds(10).await;
    has(&stage, 2).await;
    let note = note(&stage, "ScaledDown").await;
    assert!(note.contains("from 3 to 2 pods: no more were needed for 2 s; the pods hold 15 calls"), "{note}");
    let mut costs = Vec::new();
    for pod in [&first, &idle, &busy] {
        let pod = found(&stage.api::<Pod>(), &pod.name).await.unwrap();
        costs.push(pod.annotations().get(COST).cloned());
    }
    assert_eq!(costs, [None, Some("-1".to_owned()), None], "the pod with one call is the one to go");
    idle.dies().await;

    // What is left is more than there may be pods for.
    busy.holds(90).await;
    has(&stage, 4).await;
}

#[tokio::test]
async fn an_operator_that_starts_anew_keeps_the_number_until_it_has_seen_a_window_of_calls() {
    let (stage, first) =
        scaled("keeps", PACE.scale_down_after, json!({ "min": 1, "max": 5, "targetCallsPerPod": 10 })).await;
    let pod = pod(&stage, "gw-a", 40).await;
    has(&stage, 4).await;
    first.end().await;
    pod.holds(0).await;
    let _second = stage.operator();
    reconcile(&stage, "second").await;
    stage.settled().await;
    assert_eq!(replicas(&stage).await, Some(4));
}

#[tokio::test]
async fn what_somebody_sets_is_left_alone_within_the_bounds() {
    let (stage, _operator) =
        scaled("by-hand", PACE.scale_down_after, json!({ "min": 2, "max": 5, "targetCallsPerPod": 10 }))
            .await;
    has(&stage, 2).await;
    // Also while the operator is about to apply its own.
    for round in 0..10 {
        let number = 3 + round % 2;
        set(&stage, number).await;
        reconcile(&stage, &format!("round-{round}")).await;
        assert_eq!(replicas(&stage).await, Some(number));
    }
    stage.settled().await;
    assert_eq!(replicas(&stage).await, Some(4));
    set(&stage, 9).await;
    has(&stage, 5).await;
    set(&stage, 0).await;
    has(&stage, 2).await;
}

#[tokio::test]
async fn a_fixed_number_becomes_one_by_calls_without_a_pod_going_at_once() {
    let stage = Stage::empty("becomes").await;
    stage.apply("SipGateway", GATEWAY, json!({ "replicas": 4 })).await;
    let _operator = stage.operator();
    has(&stage, 4).await;
    let autoscaling = json!({ "min": 1, "max": 6, "targetCallsPerPod": 10 });
    stage.apply("SipGateway", GATEWAY, json!({ "autoscaling": autoscaling })).await;
    reconcile(&stage, "scaled").await;
    stage.settled().await;
    assert_eq!(replicas(&stage).await, Some(4));
    let _pod = pod(&stage, "gw-a", 51).await;
    has(&stage, 6).await;
    stage.apply("SipGateway", GATEWAY, json!({ "replicas": 1 })).await;
    has(&stage, 1).await;
}
