//! The rules of the custom resources on a real API server: every rule refuses its bad examples with its sentence and takes
//! its good ones. The examples stand in `tests/resources/`, one file a kind.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use support::api_server::{ApiServer, api_server};
use support::rules::{Case, examples, object};
use support::tools::printed;
use voicedock::resources::assistant::AssistantSpec;
use voicedock::resources::phone_number::PhoneNumberSpec;
use voicedock::resources::sip_gateway::SipGatewaySpec;
use voicedock::resources::sip_trunk::SipTrunkSpec;
use voicedock::resources::transfer_destination::TransferDestinationSpec;
use voicedock::resources::{GROUP, VERSION, crds};

/// A rule at a place of a schema: kind, path without indices, sentence.
type Place = (String, String, String);

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap()
}

fn resource_of(object: &Value) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, text(object, "/kind")))
}

fn api_of(server: &ApiServer, object: &Value) -> Api<DynamicObject> {
    let namespace = text(object, "/metadata/namespace");
    Api::namespaced_with(server.client.clone(), namespace, &resource_of(object))
}

/// What `kubectl apply` sends for a new object, in earnest or as a dry run; unknown fields are errors.
async fn create(server: &ApiServer, object: &Value, dry_run: bool) -> Result<DynamicObject, kube::Error> {
    let path = DynamicObject::url_path(&resource_of(object), Some(text(object, "/metadata/namespace")));
    let parameters = PostParams { dry_run, field_manager: Some("kubectl-create".into()) };
    let body = serde_json::to_vec(object).unwrap();
    let mut request = kube::core::Request::new(path).create(&parameters, body).unwrap();
    *request.uri_mut() = format!("{}&fieldValidation=Strict", request.uri()).parse().unwrap();
    server.client.request(request).await
}

/// What is wrong with how the API server treated an example; and which rules it was refused by.
async fn judge(server: &ApiServer, namespace: &str, case: &Case) -> (Option<String>, Vec<Place>) {
    let what = format!("{}: {}: {}", case.kind, case.rule, case.spec);
    match (create(server, &object(&case.kind, namespace, "example", &case.spec), true).await, &case.says) {
        (Ok(taken), None) => {
            (changed_on_the_way(case, &taken).map(|how| format!("{how}: {what}")), Vec::new())
        }
        (Ok(_), Some(_)) => (Some(format!("taken, but must be refused: {what}")), Vec::new()),
        (Err(kube::Error::Api(status)), Some(says)) => {
            let refused_by = status
                .details
                .iter()
                .flat_map(|details| &details.causes)
                .map(|cause| (case.kind.clone(), without_indices(&cause.field), cause.message.clone()));
            let wrong = (!status.message.contains(says)).then(|| {
                format!(
                    "refused, but with other words: {what}\n  wanted: {says}\n  heard:  {}",
                    status.message
                )
            });
            (wrong, refused_by.collect())
        }
        (Err(error), _) => (Some(format!("refused, but must be taken: {what}\n  {error}")), Vec::new()),
    }
}

/// What the API server or our types have made of a spec that was taken, if they changed it: a default in a spec is a
/// difference that GitOps tools report for ever.
fn changed_on_the_way(case: &Case, taken: &DynamicObject) -> Option<String> {
    let mut written = case.spec.clone();
    written.as_object_mut()?.retain(|_, value| !value.is_null());
    let stored = &taken.data["spec"];
    if *stored != written {
        return Some(format!("stored as {stored}"));
    }
    match as_our_types_read_it(&case.kind, stored) {
        Ok(read) => (read != written).then(|| format!("read as {read}")),
        Err(error) => Some(format!("taken, but the operator can't read it ({error})")),
    }
}

fn as_our_types_read_it(kind: &str, spec: &Value) -> serde_json::Result<Value> {
    fn through<T: DeserializeOwned + Serialize>(spec: &Value) -> serde_json::Result<Value> {
        serde_json::to_value(T::deserialize(spec)?)
    }
    match kind {
        "Assistant" => through::<AssistantSpec>(spec),
        "PhoneNumber" => through::<PhoneNumberSpec>(spec),
        "SipGateway" => through::<SipGatewaySpec>(spec),
        "SipTrunk" => through::<SipTrunkSpec>(spec),
        "TransferDestination" => through::<TransferDestinationSpec>(spec),
        other => panic!("no type for the examples of {other}"),
    }
}

/// `spec.tools[3].number` as `spec.tools[].number`.
fn without_indices(path: &str) -> String {
    path.split('[').enumerate().fold(String::new(), |whole, (number, part)| {
        if number == 0 {
            return part.to_owned();
        }
        whole + "[]" + part.split_once(']').map_or(part, |(_, rest)| rest)
    })
}

/// Every CEL rule that needs no older object, at every place where it stands.
fn rules_of(kind: &str, path: &str, schema: &Value, found: &mut BTreeSet<Place>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let message =
            rule["message"].as_str().unwrap_or_else(|| panic!("{kind} {path}: a rule without a message"));
        if !rule["rule"].as_str().unwrap_or_default().contains("oldSelf") {
            found.insert((kind.to_owned(), path.to_owned(), message.to_owned()));
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        rules_of(kind, &format!("{path}.{name}"), property, found);
    }
    if schema["items"].is_object() {
        rules_of(kind, &format!("{path}[]"), &schema["items"], found);
    }
}

#[tokio::test]
async fn every_rule_takes_its_good_examples_and_refuses_its_bad_ones_with_its_sentence() {
    let server = api_server().await;
    let namespace = server.namespace("rules").await;
    let cases = examples();
    let judged: Vec<_> =
        stream::iter(&cases).map(|case| judge(&server, &namespace, case)).buffer_unordered(8).collect().await;

    let wrong: Vec<_> = judged.iter().filter_map(|(wrong, _)| wrong.clone()).collect();
    assert!(wrong.is_empty(), "{} of {} examples:\n{}", wrong.len(), cases.len(), wrong.join("\n"));

    let refused_by: BTreeSet<_> = judged.into_iter().flat_map(|(_, places)| places).collect();
    let mut rules = BTreeSet::new();
    for crd in crds::all() {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        rules_of(&crd.spec.names.kind, "spec", &schema["openAPIV3Schema"]["properties"]["spec"], &mut rules);
    }
    let untried: Vec<_> = rules
        .iter()
        .filter(|(kind, path, message)| {
            !refused_by
                .iter()
                .any(|(k, p, heard)| k == kind && p == path && heard.ends_with(message.as_str()))
        })
        .map(|(kind, path, message)| format!("{kind} {path}: {message}"))
        .collect();
    assert!(
        untried.is_empty(),
        "rules that no example in tests/resources is refused by:\n{}",
        untried.join("\n")
    );
}

/// Changes the spec of an object that exists; `None` when that is taken, else what the API server says.
async fn change(server: &ApiServer, object: &Value, spec: Value) -> Option<String> {
    let patch = Patch::Merge(json!({ "spec": spec }));
    api_of(server, object)
        .patch(text(object, "/metadata/name"), &PatchParams::default(), &patch)
        .await
        .err()
        .map(|error| error.to_string())
}

#[tokio::test]
async fn a_number_is_never_changed_but_everything_else_about_it_may_be() {
    let server = api_server().await;
    let namespace = server.namespace("number").await;
    let number = object("PhoneNumber", &namespace, "main-line", &json!({ "number": "+31201234567" }));
    create(&server, &number, false).await.unwrap();

    assert_eq!(change(&server, &number, json!({ "assistantRef": { "name": "support" } })).await, None);
    let refusal = change(&server, &number, json!({ "number": "+31201234568" })).await.unwrap();
    let says = "a number can't be changed: write a new PhoneNumber for the new number and delete this one";
    assert!(refusal.contains(says), "{refusal}");
}

#[tokio::test]
async fn a_gateway_has_a_name_after_which_a_service_can_be_named() {
    let server = api_server().await;
    let namespace = server.namespace("name").await;
    let named = |name: &str| object("SipGateway", &namespace, name, &json!({}));
    let longest = "a".repeat(40);
    for good in ["default", "edge-2", "x", &longest] {
        create(&server, &named(good), true).await.unwrap();
    }
    let too_long = "a".repeat(41);
    for bad in ["2nd", "edge.eu", &too_long] {
        let refusal = create(&server, &named(bad), true).await.expect_err(bad).to_string();
        assert!(refusal.contains("name a SipGateway with at most 40 lower case letters"), "{refusal}");
    }
}

#[tokio::test]
async fn a_routing_slice_never_changes_not_even_deep_in_its_content() {
    let server = api_server().await;
    let namespace = server.namespace("slice").await;
    let spec = json!({ "gateway": "default", "part": "numbers", "content": { "a": { "b": 1 } } });
    let slice = object("RoutingSlice", &namespace, "default-0123", &spec);
    create(&server, &slice, false).await.unwrap();

    assert_eq!(change(&server, &slice, spec).await, None);
    for changed in [
        json!({ "part": "trunks" }),
        json!({ "content": { "a": { "b": 2 } } }),
        json!({ "content": { "c": true } }),
        json!({ "content": { "a": null } }),
    ] {
        let refusal = change(&server, &slice, changed.clone()).await;
        let refusal = refusal.unwrap_or_else(|| panic!("taken: {changed}"));
        assert!(refusal.contains("a RoutingSlice never changes"), "{refusal}");
    }
}

#[tokio::test]
async fn the_generation_of_a_routing_table_never_goes_back() {
    let server = api_server().await;
    let namespace = server.namespace("table").await;
    let counts = json!({ "numbers": 0, "assistants": 0, "destinations": 0, "trunks": 0 });
    let spec = json!({ "generation": 7, "hash": "abc", "slices": [], "counts": counts });
    let table = object("RoutingTable", &namespace, "default", &spec);
    create(&server, &table, false).await.unwrap();

    assert_eq!(change(&server, &table, json!({ "generation": 8, "hash": "def" })).await, None);
    let refusal = change(&server, &table, json!({ "generation": 7, "hash": "abc" })).await.unwrap();
    assert!(refusal.contains("the generation of a table never goes back: publish a higher one"), "{refusal}");
}

#[tokio::test]
async fn a_fresh_object_says_that_nobody_has_looked_at_it_yet() {
    let server = api_server().await;
    let namespace = server.namespace("fresh").await;
    for (kind, spec) in [
        ("Assistant", json!({})),
        ("PhoneNumber", json!({ "number": "+31201234567" })),
        ("SipGateway", json!({})),
        ("SipTrunk", json!({ "host": "pbx.example.com" })),
        (
            "TransferDestination",
            json!({ "type": "number", "number": "+31201234567", "description": "Sales" }),
        ),
    ] {
        let fresh = create(&server, &object(kind, &namespace, "fresh", &spec), false).await.unwrap();
        assert_eq!(fresh.data["status"], json!({ "observedGeneration": -1 }), "{kind}");
    }
}

#[tokio::test]
async fn a_status_is_not_written_along_with_a_spec() {
    let server = api_server().await;
    let namespace = server.namespace("status").await;
    let mut assistant = object("Assistant", &namespace, "support", &json!({}));
    assistant["status"] = json!({ "observedGeneration": 1, "numbers": 3 });
    let created = create(&server, &assistant, false).await.unwrap();
    assert_eq!(created.data["status"], json!({ "observedGeneration": -1 }));
}

#[tokio::test]
async fn kubectl_knows_short_names_the_category_and_the_columns_of_each_kind() {
    let server = api_server().await;
    let namespace = server.namespace("columns").await;
    let shop = |kind, spec| object(kind, &namespace, "shop", &spec);
    let destination = json!({ "type": "number", "number": "+31201234567", "description": "Sales" });
    let counts = json!({ "numbers": 1, "assistants": 2, "destinations": 3, "trunks": 4 });
    let table = json!({ "generation": 7, "hash": "abc", "slices": [], "counts": counts });
    let slice = json!({ "gateway": "shop", "part": "numbers", "content": {} });
    for (object, status) in [
        (
            shop("Assistant", json!({})),
            json!({ "effective": { "agent": "sip", "destinations": 2 }, "numbers": 3 }),
        ),
        (
            shop(
                "PhoneNumber",
                json!({ "number": "+31201234567", "assistantRef": { "name": "a" }, "transferTrunkRef": { "name": "t" } }),
            ),
            json!({}),
        ),
        (
            shop("SipTrunk", json!({ "host": "pbx.example.com" })),
            json!({ "effective": { "transport": "UDP" } }),
        ),
        (shop("TransferDestination", destination), json!({ "effective": { "target": "+31201234567" } })),
        (shop("SipGateway", json!({})), json!({ "replicas": 2, "calls": 5, "tableGeneration": 7 })),
        (shop("RoutingTable", table), json!({ "summary": "2/2" })),
        (shop("RoutingSlice", slice), Value::Null),
    ] {
        create(&server, &object, false).await.unwrap();
        set_status(&server, &object, status).await;
    }

    for (name, columns, row) in [
        ("asst", "NAME AGENT DESTINATIONS NUMBERS READY AGE", "shop sip 2 3 True"),
        ("num", "NAME NUMBER ASSISTANT TRUNK READY AGE", "shop +31201234567 a t True"),
        ("trunk", "NAME HOST TRANSPORT REACHABLE READY AGE", "shop pbx.example.com UDP True True"),
        ("dest", "NAME TYPE TARGET READY AGE", "shop number +31201234567 True"),
        ("sgw", "NAME REPLICAS READY CALLS GENERATION AGE", "shop 2 True 5 7"),
        ("rtable", "NAME GENERATION NUMBERS DESTINATIONS GATEWAYS AGE", "shop 7 1 3 2/2"),
        ("routingslice", "NAME GATEWAY AGE", "shop shop"),
    ] {
        let shown = printed(server.kubectl().args(["get", name, "--namespace", &namespace]));
        let lines: Vec<_> =
            shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[0], columns, "{name}");
        assert!(lines[1].starts_with(row), "{name}: {}", lines[1]);
    }
    let all =
        printed(server.kubectl().args(["get", "voicedock", "--namespace", &namespace, "--output", "name"]));
    assert_eq!(all.lines().count(), 7, "{all}");
}

/// Writes a status with the conditions `Ready` and `Reachable`, unless it is null.
async fn set_status(server: &ApiServer, object: &Value, mut status: Value) {
    if status.is_null() {
        return;
    }
    let condition = |name| {
        json!({
            "type": name, "status": "True", "observedGeneration": 1, "reason": "Ready", "message": "Fine.",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    status["conditions"] = json!([condition("Ready"), condition("Reachable")]);
    let patch = Patch::Merge(json!({ "status": status }));
    api_of(server, object)
        .patch_status(text(object, "/metadata/name"), &PatchParams::default(), &patch)
        .await
        .unwrap();
}
