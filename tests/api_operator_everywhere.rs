//! One operator for all namespaces, and references between them, on a real API server. One test: two such operators would
//! both look after everything.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]
#![allow(dead_code, reason = "the stage is shared with tests/api_operator.rs")]

#[path = "operator/logs.rs"]
mod logs;
#[path = "operator/stage.rs"]
mod stage;
mod support;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use stage::{GATEWAY, Operator, Stage, main_number};

async fn label(stage: &Stage, value: Value) {
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    let patch = json!({ "metadata": { "labels": { "telephony": value } } });
    namespaces.patch(&stage.namespace, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

#[tokio::test]
async fn grants_between_namespaces_follow_their_labels() {
    let platform = Stage::empty("platform").await;
    let shop = Stage::empty("shop").await;
    let grant = json!({ "from": "Selector", "selector": { "matchLabels": { "telephony": "yes" } } });
    platform.apply("SipGateway", GATEWAY, json!({ "allowedNamespaces": grant })).await;
    let _operator = Operator::start(platform.config(), None, platform.key(GATEWAY));
    let _pod = platform.pod("gw-1").await;
    let mut number = main_number("+31201234567");
    number["gatewayRef"] = json!({ "name": GATEWAY, "namespace": platform.namespace });
    shop.office().await;
    shop.apply("PhoneNumber", "main", number.clone()).await;

    shop.says("PhoneNumber", "main", "ResolvedRefs", "False", "RefNotPermitted").await;
    label(&shop, json!("yes")).await;
    shop.is_ready("PhoneNumber", "main").await;
    shop.is_ready("SipTrunk", "office").await;
    let table = platform.table().await.unwrap();
    assert_eq!(table.numbers.values().next().unwrap().object, shop.key("main"));
    // The head's Secret stands with the gateway, the one that people wrote with them.
    assert!(platform.everything().await.contains_key(&format!("Secret {}", stage::CREDENTIALS)));

    // The message as it is once all is known: the first may also miss what the operator's other watches hadn't shown yet.
    label(&shop, Value::Null).await;
    let message = shop.says("PhoneNumber", "main", "ResolvedRefs", "False", "RefNotPermitted").await;
    platform.table_where("no number", |table| table.numbers.is_empty()).await;

    // A gateway that doesn't exist is refused in the same words: nobody learns what there is.
    number["gatewayRef"]["name"] = json!("no-such");
    shop.apply("PhoneNumber", "main", number).await;
    let other = shop.says("PhoneNumber", "main", "ResolvedRefs", "False", "RefNotPermitted").await;
    assert_eq!(other.replace("no-such", GATEWAY), message);

    // A number that names no gateway gets the default one, under the same grant.
    let mut plain = main_number("+31201234568");
    plain.as_object_mut().unwrap().remove("gatewayRef");
    shop.apply("PhoneNumber", "plain", plain).await;
    shop.says("PhoneNumber", "plain", "ResolvedRefs", "False", "RefNotPermitted").await;
    label(&shop, json!("yes")).await;
    shop.is_ready("PhoneNumber", "plain").await;
}
