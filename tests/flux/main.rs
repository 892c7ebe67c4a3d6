//! Flux with what the operator writes: its own kustomize-controller, the Kustomization of `examples/gitops/flux`, the objects of
//! `examples/gitops/tenant`, a real API server and a gateway pod whose control side is the real one.
//!
//! `go.mod` beside this says which Flux; `hack/tools.sh flux` builds it.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]
#![allow(dead_code, reason = "the stage is shared with tests/api_operator.rs")]

mod controller;
#[path = "../operator/logs.rs"]
mod logs;
#[path = "../operator/stage.rs"]
mod stage;
#[path = "../support/mod.rs"]
mod support;

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use controller::{Flux, example};
use stage::{CREDENTIALS, GATEWAY, Stage, eventually, found, main_number};

const TRUNK: (&str, &str) = ("SipTrunk", "office-pbx");
const SALES: (&str, &str) = ("TransferDestination", "sales");
const ASSISTANT: (&str, &str) = ("Assistant", "support");
const NUMBER: (&str, &str) = ("PhoneNumber", "main-line");
const ALL: [(&str, &str); 4] = [TRUNK, SALES, ASSISTANT, NUMBER];

/// Some of the team's objects.
fn team(objects: &[(&str, &str)]) -> Vec<Value> {
    let all = example("tenant/numbers.yaml");
    let find = |(kind, name): &(&str, &str)| {
        all.iter().find(|object| object["kind"] == *kind && object["metadata"]["name"] == *name)
    };
    objects.iter().map(|object| find(object).expect("the example has it").clone()).collect()
}

async fn login(stage: &Stage) {
    stage.secret("office-pbx", &[("username", "globex"), ("password", "secret")]).await;
}

#[tokio::test]
async fn a_kustomization_is_ready_when_every_gateway_has_its_objects_and_not_before_in_any_order() {
    let stage = Stage::empty("order").await;
    stage.gateway().await;
    let _operator = stage.operator();
    let flux = Flux::of(&stage).await;

    // The numbers come first; nothing that they name is there.
    flux.commit("numbers", &team(&[NUMBER, ASSISTANT])).await;
    flux.follow("numbers").await;
    stage.says(NUMBER.0, NUMBER.1, "Ready", "False", "RefNotFound").await;
    flux.goes_on_waiting(&["numbers"]).await;
    flux.commit("trunks", &team(&[SALES, TRUNK])).await;
    flux.follow("trunks").await;
    stage.says(TRUNK.0, TRUNK.1, "Ready", "False", "RefNotFound").await;
    flux.goes_on_waiting(&["numbers", "trunks"]).await;

    // Now there is all that they name, and no gateway.
    login(&stage).await;
    for (kind, name) in ALL {
        stage.says(kind, name, "Ready", "False", "NoReadyGateways").await;
    }
    flux.goes_on_waiting(&["numbers", "trunks"]).await;

    let _pod = stage.pod("gw-1").await;
    for name in ["numbers", "trunks"] {
        flux.is_ready(name).await;
    }
    for (kind, name) in ALL {
        stage.is_ready(kind, name).await;
    }

    // Nothing drifts: Flux finds nothing to write.
    let before = stage.settled().await;
    for name in ["numbers", "trunks"] {
        flux.reconcile(name).await;
    }
    assert_eq!(stage.settled().await, before);
}

#[tokio::test]
async fn a_kustomization_fails_at_once_for_what_only_another_commit_mends_and_waits_for_the_rest() {
    let (stage, _operator, _pod) = Stage::set("stalled").await;
    let flux = Flux::of(&stage).await;
    login(&stage).await;
    let mut objects = team(&ALL);
    stage.apply("PhoneNumber", "theirs", main_number("+31201234567")).await;
    stage.says("PhoneNumber", "theirs", "Accepted", "True", "Accepted").await;

    // Another has the number: that may end by itself.
    flux.commit("all", &objects).await;
    flux.follow("all").await;
    stage.says(NUMBER.0, NUMBER.1, "Ready", "False", "Conflict").await;
    flux.goes_on_waiting(&["all"]).await;
    stage.delete("PhoneNumber", "theirs").await;
    flux.is_ready("all").await;

    // There is no such time zone, and waiting makes none.
    objects[1]["spec"]["schedule"] = json!({
        "timeZone": "Europe/Atlantis", "open": [{ "days": ["Mon"], "from": "09:00", "to": "17:00" }],
    });
    flux.commit("all", &objects).await;
    let message = flux.says("all", "Ready", "False", "HealthCheckFailed").await;
    assert!(message.contains("stalled") && message.contains(SALES.1), "{message}");

    objects[1]["spec"]["schedule"]["timeZone"] = json!("Europe/Amsterdam");
    flux.commit("all", &objects).await;
    flux.is_ready("all").await;
}

#[tokio::test]
async fn a_kustomization_that_is_suspended_leaves_everything_as_it_is_also_when_it_is_deleted() {
    let (stage, _operator, _pod) = Stage::set("suspended").await;
    let flux = Flux::of(&stage).await;
    login(&stage).await;
    let mut objects = team(&ALL);
    flux.commit("all", &objects).await;
    flux.follow("all").await;
    flux.is_ready("all").await;
    let before = stage.settled().await;

    flux.suspend("all", true).await;
    objects[1]["spec"]["number"] = json!("+31687654321");
    flux.commit("all", &objects).await;
    flux.looks_around().await;
    assert_eq!(stage.settled().await, before);

    flux.suspend("all", false).await;
    stage
        .table_where("the number of the commit that waited", |table| {
            let sales = table.destinations.values().next();
            sales.is_some_and(|sales| format!("{:?}", sales.target).contains("+31687654321"))
        })
        .await;
    flux.is_ready("all").await;

    flux.suspend("all", true).await;
    let before = stage.settled().await;
    flux.delete("all").await;
    flux.is_gone("all").await;
    assert_eq!(stage.settled().await, before);
}

#[tokio::test]
async fn a_kustomization_that_is_deleted_is_gone_when_its_objects_are_and_leaves_nothing_in_the_table() {
    let (stage, _operator, _pod) = Stage::set("deleted").await;
    let flux = Flux::of(&stage).await;
    login(&stage).await;
    stage.is_ready("SipGateway", GATEWAY).await;
    let without = stage.settled().await;
    flux.commit("all", &team(&ALL)).await;
    flux.follow("all").await;
    flux.is_ready("all").await;
    stage.table_where("the number", |table| table.numbers.len() == 1).await;

    // Somebody has to do something before the number may go.
    stage.hold(NUMBER.0, NUMBER.1, &["example.com/mine"]).await;
    flux.delete("all").await;
    let left = async || {
        let mut names: Vec<_> = stage.everything().await.into_keys().collect();
        names.retain(|name| ALL.iter().any(|(kind, _)| name.starts_with(kind)));
        names
    };
    eventually("all but the number is gone", async || {
        (left().await == [format!("{} {}", NUMBER.0, NUMBER.1)]).then_some(())
    })
    .await;
    flux.looks_around().await;
    assert!(flux.is_there("all").await, "it waits for its objects");

    stage.hold(NUMBER.0, NUMBER.1, &[]).await;
    flux.is_gone("all").await;
    assert_eq!(left().await, Vec::<String>::new());
    stage
        .table_where("a table without all of it", |table| {
            table.numbers.is_empty()
                && table.assistants.is_empty()
                && table.destinations.is_empty()
                && table.trunks.is_empty()
        })
        .await;
    eventually("the trunk's password is nowhere", async || {
        let secret = found(&stage.api::<Secret>(), CREDENTIALS).await;
        secret.is_none_or(|secret| secret.data.unwrap_or_default().is_empty()).then_some(())
    })
    .await;
    // What stays is the gateway's own: its table, which is another now.
    let new: Vec<_> =
        stage.everything().await.into_keys().filter(|name| !without.contains_key(name)).collect();
    let own = ["RoutingSlice ", "Event ", "Secret default-voicedock-credentials"];
    assert!(new.iter().all(|name| own.iter().any(|own| name.starts_with(own))), "{new:?}");
}
