//! Two operators: one leads, the other takes over, and nobody notices.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;
use voicedock::resources::{RoutingSlice, SipGateway};
use voicedock::routing::table::DestinationTarget;

use crate::stage::{CREDENTIALS, GATEWAY, Operator, Stage, eventually, found, sales};

async fn leader(stage: &Stage) -> Option<String> {
    let lease = found(&stage.api::<Lease>(), "voicedock-operator").await?;
    lease.spec?.holder_identity.filter(|holder| !holder.is_empty())
}

async fn leads(stage: &Stage, operator: &Operator) {
    eventually(&format!("{} leads", operator.identity), async || {
        (leader(stage).await? == operator.identity).then_some(())
    })
    .await;
}

#[tokio::test]
async fn when_the_leader_is_killed_the_other_takes_over_and_writes_nothing() {
    let (stage, first, _pod) = Stage::set("failover").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    leads(&stage, &first).await;
    let second = stage.operator();
    let before = stage.settled().await;
    let generation = stage.generation().await;

    first.kill();
    leads(&stage, &second).await;
    assert_eq!(stage.settled().await, before, "the same objects give the same bytes");

    stage.apply("TransferDestination", "sales", sales("+31687654321")).await;
    stage.is_ready("TransferDestination", "sales").await;
    assert_eq!(stage.generation().await, generation + 1, "generations go on where they were");
}

#[tokio::test]
async fn a_leader_that_ends_gives_the_lease_back_at_once() {
    let (stage, first, _pod) = Stage::set("handover").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    let second = stage.operator();
    stage.settled().await;
    let holder = first.identity.clone();
    first.end().await;
    assert_ne!(leader(&stage).await, Some(holder), "it is free, or the other's already");
    leads(&stage, &second).await;
}

#[tokio::test]
async fn an_operator_with_nothing_to_do_sleeps_whether_it_leads_or_not() {
    let (stage, first, _pod) = Stage::set("asleep").await;
    let second = stage.operator();
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    // What is to be collected of it is still there when the gateway goes.
    stage.apply("TransferDestination", "sales", sales("+31687654321")).await;
    stage.is_ready("TransferDestination", "sales").await;
    let gateways = stage.api::<SipGateway>();
    let hold = json!({ "metadata": { "finalizers": ["example.com/hold"] } });
    gateways.patch(GATEWAY, &PatchParams::default(), &Patch::Merge(&hold)).await.unwrap();
    gateways.delete(GATEWAY, &DeleteParams::default()).await.unwrap();
    for operator in [&first, &second] {
        eventually(&format!("{} sleeps", operator.identity), async || {
            let before = operator.turns().await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let turns = operator.turns().await? - before;
            (turns < 50).then_some(())
        })
        .await;
    }
    let release = json!({ "metadata": { "finalizers": null } });
    gateways.patch(GATEWAY, &PatchParams::default(), &Patch::Merge(&release)).await.unwrap();
}

#[tokio::test]
async fn an_operator_that_starts_anew_writes_nothing() {
    let (stage, first, _pod) = Stage::set("restart").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    let before = stage.settled().await;
    first.end().await;
    let again = stage.operator();
    leads(&stage, &again).await;
    assert_eq!(stage.settled().await, before);
}

#[tokio::test]
async fn what_changed_while_no_operator_ran_is_made_good() {
    let (stage, first, _pod) = Stage::set("away").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    first.end().await;
    stage.apply("TransferDestination", "sales", sales("+31687654321")).await;
    stage.secret("office-pbx", &[("username", "acme"), ("password", "second-password")]).await;
    let _again = stage.operator();
    stage.is_ready("TransferDestination", "sales").await;
    let table = stage.table().await.unwrap();
    let target = &table.destinations.values().next().unwrap().target;
    assert!(matches!(target, DestinationTarget::Number(number) if number.as_str() == "+31687654321"));
}

/// What a published head names is there: slices with the right hashes, and every version of credentials.
async fn is_complete(stage: &Stage) {
    let generation = stage.generation().await;
    let Some(table) = stage.table().await else { return };
    let data =
        found(&stage.api::<Secret>(), CREDENTIALS).await.and_then(|secret| secret.data).unwrap_or_default();
    for id in table.trunks.values().filter_map(|trunk| trunk.credential.as_ref()) {
        if !data.contains_key(&id.0) {
            let now = stage.generation().await;
            assert_ne!(now, generation, "the table names credentials {}, which aren't there", id.0);
        }
    }
}

#[tokio::test]
async fn a_head_is_complete_at_any_moment() {
    let (stage, _operator, _pod) = Stage::set("complete").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    let changes = async {
        for round in 0..30_u32 {
            stage.apply("TransferDestination", "sales", sales(&format!("+31687654{round:03}"))).await;
            let password = format!("password-{round}");
            stage.secret("office-pbx", &[("username", "acme"), ("password", &password)]).await;
        }
        stage.is_ready("SipTrunk", "office").await;
    };
    let look = async {
        loop {
            is_complete(&stage).await;
        }
    };
    tokio::select! {
        () = changes => {}
        () = look => {}
    }
}

/// Killed at any moment, also between two writes: the next operator converges and collects what is orphaned.
#[tokio::test]
async fn operators_that_are_killed_in_the_middle_leave_nothing_wrong() {
    let (stage, first, pod) = Stage::set("crash").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    let mut operator = first;
    let mut generation = stage.generation().await;
    for round in 0..6_u32 {
        leads(&stage, &operator).await;
        stage.apply("TransferDestination", "sales", sales(&format!("+31687654{round:03}"))).await;
        let password = format!("password-{round}");
        stage.secret("office-pbx", &[("username", "acme"), ("password", &password)]).await;
        // Later and later into the writes that this causes.
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 5)).await;
        operator.kill();
        is_complete(&stage).await;
        operator = stage.operator();
        let now = stage.generation().await;
        assert!(now >= generation, "{now} after {generation}");
        generation = now;
    }
    stage.is_ready("TransferDestination", "sales").await;
    stage.is_ready("SipTrunk", "office").await;
    stage.table_where("the last number", |table| {
        table.destinations.values().any(
            |entry| matches!(&entry.target, DestinationTarget::Number(number) if number.as_str() == "+31687654005"),
        )
    })
    .await;
    eventually("no orphans", async || {
        let head = stage.head().await?.spec;
        let slices = stage.api::<RoutingSlice>().list(&ListParams::default()).await.unwrap();
        let named = |name: &String| head.slices.contains(name) || head.previous_slices.contains(name);
        let secret = found(&stage.api::<Secret>(), CREDENTIALS).await?;
        let one = secret.data.unwrap_or_default().len() == 1;
        (one && slices.iter().all(|slice| named(&slice.name_any()))).then_some(())
    })
    .await;
    drop(pod);
}

#[tokio::test]
async fn a_replica_that_does_not_lead_writes_nothing() {
    let stage = Stage::empty("follower").await;
    // Somebody else holds the lease and renews it.
    let hold = async {
        loop {
            let lease = serde_json::json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "voicedock-operator" },
                "spec": { "holderIdentity": "elsewhere", "leaseDurationSeconds": 3,
                          "renewTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(
                              k8s_openapi::jiff::Timestamp::now()) },
            });
            let params = kube::api::PatchParams::apply("elsewhere").force();
            let patch = kube::api::Patch::Apply(lease);
            stage.api::<Lease>().patch("voicedock-operator", &params, &patch).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let test = async {
        eventually("the lease", async || leader(&stage).await).await;
        let follower = stage.operator();
        stage.gateway().await;
        stage.office().await;
        eventually("the follower is ready", async || {
            let url = format!("http://{}/readyz", follower.http);
            let curl = tokio::process::Command::new("curl").args(["-sf", "--max-time", "5", &url]).output();
            curl.await.unwrap().status.success().then_some(())
        })
        .await;
        let before = stage.settled().await;
        stage.apply("TransferDestination", "sales", sales("+31687654321")).await;
        let mut after = stage.settled().await;
        let mut expected = before.clone();
        expected.remove("TransferDestination sales");
        after.remove("TransferDestination sales");
        assert_eq!(after, expected);
        assert!(stage.head().await.is_none());
    };
    tokio::select! {
        () = hold => {}
        () = test => {}
    }
}
