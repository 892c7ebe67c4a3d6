//! Tables: atomic, forward only, quiet, truthful; and what is useless goes.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use voicedock::resources::{RoutingSlice, RoutingTable};

use crate::stage::{GATEWAY, GatewayPod, Stage, eventually, found, main_number, sales};

#[tokio::test]
async fn a_second_reconcile_writes_nothing() {
    let (stage, _operator, _pod) = Stage::set("quiet").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    let before = stage.settled().await;
    // Something that compiles, publishes and reports again, and comes to the same.
    stage.apply("SipTrunk", "unrelated", json!({ "host": "line.example.com" })).await;
    stage.is_ready("SipTrunk", "unrelated").await;
    let mut after = stage.settled().await;
    after.retain(|name, _| before.contains_key(name));
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_change_of_one_object_writes_no_status_of_another() {
    let (stage, _operator, _pod) = Stage::set("narrow").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    let before = stage.settled().await;
    let generation = stage.generation().await;
    stage.apply("TransferDestination", "sales", sales("+31687654321")).await;
    stage.is_ready("TransferDestination", "sales").await;
    assert_eq!(stage.generation().await, generation + 1);
    let after = stage.settled().await;
    let changed: BTreeSet<_> = after
        .iter()
        .filter(|(name, version)| before.get(*name).is_some_and(|before| before != *version))
        .map(|(name, _)| name.as_str())
        .collect();
    let expected = ["RoutingTable default", "SipGateway default", "TransferDestination sales"];
    assert_eq!(changed, BTreeSet::from(expected));
}

#[tokio::test]
async fn a_gateway_that_lags_keeps_a_status_from_being_true() {
    let (stage, _operator, _first) = Stage::set("lag").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;

    let mut second = GatewayPod::make(&stage, "gw-2").await;
    second.ready(true).await;
    stage.says("PhoneNumber", "main", "Programmed", "False", "Pending").await;
    stage.says("PhoneNumber", "main", "Ready", "False", "Pending").await;
    let lagging = eventually("the pod that lags, by name", async || {
        stage.head().await?.status.filter(|status| !status.lagging.is_empty())
    })
    .await;
    assert_eq!(lagging.lagging["gw-2"], "has not acknowledged any table yet");
    assert_eq!(lagging.summary.as_deref(), Some("1/2"));
    assert_eq!(lagging.acknowledged_generation, Some(0));

    second.ready(false).await;
    stage.is_ready("PhoneNumber", "main").await;
    second.run();
    second.ready(true).await;
    eventually("both", async || {
        (stage.head().await?.status?.summary.as_deref() == Some("2/2")).then_some(())
    })
    .await;
    stage.is_ready("PhoneNumber", "main").await;
    second.dies().await;
    eventually("one", async || (stage.head().await?.status?.summary.as_deref() == Some("1/1")).then_some(()))
        .await;
}

#[tokio::test]
async fn a_refusal_is_shown_with_the_pods_name() {
    let (stage, _operator, _first) = Stage::set("refuse").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    let generation = stage.generation().await;
    let pod = GatewayPod::make(&stage, "gw-2").await;
    pod.ready(true).await;
    let uid = found(&stage.api::<k8s_openapi::api::core::v1::Pod>(), "gw-2").await.unwrap().uid().unwrap();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "gw-2",
            "labels": { "voicedock.dev/gateway": GATEWAY, "app.kubernetes.io/managed-by": "voicedock-gateway" },
            "annotations": { "voicedock.dev/generation": "0", "voicedock.dev/rejected":
                json!({ "generation": generation + 5, "reason": "slice x is missing" }).to_string() } },
        "spec": { "holderIdentity": uid },
    });
    stage.api::<Lease>().patch("gw-2", &PatchParams::apply("gw-2"), &Patch::Apply(lease)).await.unwrap();
    let message = stage.says("PhoneNumber", "main", "Programmed", "False", "Rejected").await;
    assert!(message.contains("gw-2") && message.contains("slice x is missing"), "{message}");
    stage.says("RoutingTable", GATEWAY, "Programmed", "False", "Rejected").await;
}

#[tokio::test]
async fn slices_that_no_gateway_can_ask_for_are_deleted() {
    let (stage, _operator, _pod) = Stage::set("collect").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    for last in 1..=5 {
        stage.apply("TransferDestination", "sales", sales(&format!("+3168765432{last}"))).await;
        stage.is_ready("TransferDestination", "sales").await;
    }
    eventually("nothing but this table and the one before", async || {
        let head = stage.head().await?;
        let named = head.spec.slices.iter().cloned();
        let kept: BTreeSet<_> = named.chain(head.spec.previous_slices.clone()).collect();
        let slices = stage.api::<RoutingSlice>().list(&ListParams::default()).await.unwrap();
        let there: BTreeSet<_> = slices.iter().map(ResourceExt::name_any).collect();
        (there == kept).then_some(())
    })
    .await;
}

/// As when a write of an earlier leader lands after everything is done.
#[tokio::test]
async fn a_slice_that_nothing_names_is_deleted_although_nothing_else_changes() {
    let (stage, _operator, _pod) = Stage::set("orphan").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    stage.settled().await;
    let api = stage.api::<RoutingSlice>();
    let mut slice = found(&api, &stage.head().await.unwrap().spec.slices[0]).await.unwrap();
    slice.metadata = ObjectMeta {
        name: Some(format!("{}0", slice.name_any())),
        labels: slice.metadata.labels,
        owner_references: slice.metadata.owner_references,
        ..ObjectMeta::default()
    };
    api.create(&PostParams::default(), &slice).await.unwrap();
    eventually("that it is gone", async || found(&api, &slice.name_any()).await.is_none().then_some(()))
        .await;
}

#[tokio::test]
async fn a_head_that_is_deleted_comes_back_with_a_newer_generation() {
    let (stage, _operator, _pod) = Stage::set("head").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    let before = stage.head().await.unwrap();
    stage.api::<RoutingTable>().delete(GATEWAY, &DeleteParams::default()).await.unwrap();
    let again = eventually("the head", async || stage.head().await).await;
    assert_eq!(again.spec.hash, before.spec.hash);
    assert!(
        again.spec.generation > before.spec.generation,
        "{} > {}",
        again.spec.generation,
        before.spec.generation
    );
    stage.says("RoutingTable", GATEWAY, "Ready", "True", "Ready").await;
}

#[tokio::test]
async fn a_head_that_somebody_edits_is_put_right() {
    let (stage, _operator, _pod) = Stage::set("edit").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    let before = stage.head().await.unwrap();
    let edit = json!({ "spec": { "hash": "forged", "slices": [] } });
    stage.api::<RoutingTable>().patch(GATEWAY, &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
    eventually("the table as it was", async || {
        let head = stage.head().await?;
        (head.spec.slices == before.spec.slices && head.spec.generation > before.spec.generation)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_slice_that_is_deleted_comes_back() {
    let (stage, _operator, _pod) = Stage::set("slice").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    let generation = stage.generation().await;
    let name = stage.head().await.unwrap().spec.slices[0].clone();
    let api = stage.api::<RoutingSlice>();
    let before = found(&api, &name).await.unwrap();
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    let again = eventually("the slice", async || found(&api, &name).await).await;
    assert_eq!(again.spec, before.spec);
    assert_eq!(stage.generation().await, generation);
}

#[tokio::test]
async fn what_comes_while_a_table_is_written_goes_with_the_next() {
    let (stage, _operator, _pod) = Stage::set("batch").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    let before = stage.generation().await;
    let numbers: Vec<_> = (0..100).map(|n| (format!("n{n}"), format!("+3120123{n:04}"))).collect();
    let created = numbers.iter().map(|(name, number)| stage.apply("PhoneNumber", name, main_number(number)));
    futures::future::join_all(created).await;
    for (name, _) in &numbers {
        stage.is_ready("PhoneNumber", name).await;
    }
    let table = stage.table().await.unwrap();
    assert_eq!(table.numbers.len(), 101);
    let generations = stage.generation().await - before;
    assert!((1..=100).contains(&generations), "{generations} generations for 100 numbers");
}

#[tokio::test]
async fn a_deleted_number_is_answered_no_more() {
    let (stage, _operator, _pod) = Stage::set("gone").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    stage.delete("PhoneNumber", "main").await;
    stage.table_where("no number", |table| table.numbers.is_empty()).await;
    stage.says("Assistant", "support", "Programmed", "False", "NotUsed").await;
}

#[tokio::test]
async fn the_gateways_status_tells_pods_generation_and_addresses() {
    let (stage, _operator, _pod) = Stage::set("gateway").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    eventually("the status", async || {
        let gateway = found(&stage.api::<voicedock::resources::SipGateway>(), GATEWAY).await?;
        let status = gateway.status?;
        let complete = status.replicas == Some(1)
            && status.calls == Some(0)
            && status.table_generation == Some(stage.generation().await)
            && status.addresses.len() == 2;
        complete.then_some(())
    })
    .await;
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let (stage, operator, _pod) = Stage::set("metrics").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    let get = async |path: &str| {
        let url = format!("http://{}{path}", operator.http);
        let output = tokio::process::Command::new("curl")
            .args(["-sf", "--max-time", "10", &url])
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{path}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(get("/healthz").await, "ok\n");
    assert_eq!(get("/readyz").await, "ok\n");
    let metrics = get("/metrics").await;
    let gateway = format!("voicedock_operator_table_generation{{gateway=\"{}/{GATEWAY}\"}}", stage.namespace);
    for line in
        ["voicedock_operator_leader 1", &gateway, "voicedock_operator_writes_total{kind=\"RoutingTable\"}"]
    {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    tokio::time::timeout(Duration::from_secs(10), operator.end()).await.expect("it ends at once");
}
