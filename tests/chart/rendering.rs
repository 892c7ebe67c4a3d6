//! The Helm chart: what it renders, what its schema refuses, and a life of a release on a real API server.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use support::api_server::{ApiServer, bare_api_server};
use support::tools::{output, printed, tool};

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/voicedock")
}

fn helm(arguments: &[&str]) -> Command {
    let mut helm = Command::new(tool("helm"));
    helm.args(arguments);
    helm
}

/// The objects of `helm template` with values set; no cluster is asked.
fn rendered(values: &[&str]) -> Vec<Value> {
    let mut command = helm(&["template", "voicedock"]);
    command.arg(chart()).args(["--namespace", "voicedock-system"]);
    for value in values {
        command.args(["--set-json", value]);
    }
    let text = printed(&mut command);
    let documents: Vec<Option<Value>> = serde_saphyr::from_multiple(&text).unwrap();
    documents.into_iter().flatten().collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

/// The one object of a kind whose name ends like this: what belongs to one of the roles.
fn of_role<'a>(objects: &'a [Value], kind: &str, role: &str) -> &'a Value {
    let named =
        |object: &&Value| object["metadata"]["name"].as_str().is_some_and(|name| name.ends_with(role));
    let found: Vec<_> = of_kind(objects, kind).into_iter().filter(named).collect();
    assert_eq!(found.len(), 1, "{kind} of {role}");
    found[0]
}

#[test]
fn the_chart_passes_helms_lint() {
    printed(helm(&["lint", "--strict", "--quiet"]).arg(chart()));
}

#[test]
fn an_unknown_value_is_refused_wherever_it_stands() {
    for value in [
        "typo=1",
        "image.typo=1",
        "crds.typo=true",
        "operator.typo=1",
        "operator.log.typo=1",
        "operator.resources.typo={}",
        "operator.tolerations=[{\"typo\": 1}]",
        "operator.networkPolicy.typo=1",
        "gateway.typo=1",
        "api.typo=1",
        "api.log.typo=1",
        "gateway.advertise.typo=1",
        "gateway.autoscaling.typo=1",
        "gateway.apiKeys.typo=1",
        "gateway.allowedNamespaces={\"from\": \"All\", \"typo\": 1}",
        "gateway.listeners=[{\"transport\": \"UDP\", \"port\": 5060, \"typo\": 1}]",
    ] {
        let refused = output(helm(&["template", "voicedock", "--set-json", value]).arg(chart()));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && said.contains("additional properties 'typo'"),
            "{value}: {said}"
        );
    }
}

#[test]
fn the_schema_leaves_no_object_open_by_accident() {
    fn check(path: &str, schema: &Value) {
        let Some(fields) = schema.as_object() else { return };
        if fields.contains_key("properties") {
            assert_eq!(schema["additionalProperties"], json!(false), "{path}");
        } else if schema["type"] == "object" {
            assert!(fields.contains_key("additionalProperties") || path.ends_with(".global"), "{path}");
        }
        for (name, value) in fields {
            check(&format!("{path}.{name}"), value);
        }
    }
    let schema = std::fs::read_to_string(chart().join("values.schema.json")).unwrap();
    check("", &serde_json::from_str(&schema).unwrap());
}

#[test]
fn operator_and_gateways_run_the_same_image() {
    for (values, image) in [
        (vec![], format!("ghcr.io/voicedock/voicedock:{}", env!("CARGO_PKG_VERSION"))),
        (
            vec![r#"image={"registry": "", "repository": "voicedock", "tag": "dev"}"#],
            "voicedock:dev".to_owned(),
        ),
        (
            vec![
                r#"image.tag="ignored""#,
                r#"image.digest="sha256:0000000000000000000000000000000000000000000000000000000000000000""#,
            ],
            format!("ghcr.io/voicedock/voicedock@sha256:{}", "0".repeat(64)),
        ),
    ] {
        let objects = rendered(&values);
        for role in ["operator", "api"] {
            let pod = &of_role(&objects, "Deployment", role)["spec"]["template"]["spec"];
            assert_eq!(pod["containers"][0]["image"], json!(image), "{role}");
        }
        let container =
            &of_role(&objects, "Deployment", "operator")["spec"]["template"]["spec"]["containers"][0];
        let env = container["env"].as_array().unwrap();
        assert!(env.contains(&json!({ "name": "VOICEDOCK_IMAGE", "value": image })), "{env:?}");
    }
}

#[test]
fn the_operator_is_told_which_gateway_is_the_default() {
    let arguments = |values: &[&str]| {
        let objects = rendered(values);
        of_role(&objects, "Deployment", "operator")["spec"]["template"]["spec"]["containers"][0]["args"]
            .clone()
    };
    assert_eq!(arguments(&[]), json!(["operator", "--default-gateway=voicedock-system/default"]));
    assert_eq!(
        arguments(&[r#"gateway.name="edge""#]),
        json!(["operator", "--default-gateway=voicedock-system/edge"])
    );
    assert_eq!(arguments(&["gateway.enabled=false"]), json!(["operator"]));
    assert_eq!(
        arguments(&["gateway.enabled=false", r#"operator.defaultGateway="edge/de""#]),
        json!(["operator", "--default-gateway=edge/de"])
    );
}

#[test]
fn a_gateway_with_autoscaling_has_no_fixed_number_of_pods() {
    let spec = |values: &[&str]| one(&rendered(values), "SipGateway")["spec"].clone();
    assert_eq!(spec(&[])["replicas"], 2);
    let autoscaling = json!({ "min": 2, "max": 10, "targetCallsPerPod": 200 });
    let scaled = spec(&[&format!("gateway.autoscaling={autoscaling}")]);
    assert_eq!((&scaled["autoscaling"], &scaled["replicas"]), (&autoscaling, &Value::Null));
}

#[test]
fn the_definitions_can_be_left_out_and_are_kept_unless_told_otherwise() {
    let keep = |objects: &[Value]| -> Vec<Value> {
        let definitions = of_kind(objects, "CustomResourceDefinition");
        definitions
            .iter()
            .map(|crd| crd["metadata"]["annotations"]["helm.sh/resource-policy"].clone())
            .collect()
    };
    assert_eq!(keep(&rendered(&[])), vec![json!("keep"); 7]);
    assert_eq!(keep(&rendered(&["crds.keep=false"])), vec![Value::Null; 7]);
    assert_eq!(keep(&rendered(&["crds.enabled=false"])), Vec::<Value>::new());
}

#[test]
fn the_operator_may_not_write_what_people_write() {
    let objects = rendered(&[]);
    let rules = of_role(&objects, "ClusterRole", "operator")["rules"].as_array().unwrap().clone();
    let has = |value: &Value, wanted: &str| value.as_array().unwrap().iter().any(|one| one == wanted);
    for resource in ["assistants", "phonenumbers", "sipgateways", "siptrunks", "transferdestinations"] {
        let verbs: Vec<_> = rules
            .iter()
            .filter(|rule| has(&rule["resources"], resource))
            .flat_map(|rule| rule["verbs"].as_array().unwrap().clone())
            .collect();
        assert_eq!(verbs, [json!("get"), json!("list"), json!("watch")], "{resource}");
    }
    for rule in &rules {
        for (field, everything) in [("apiGroups", "*"), ("resources", "*"), ("verbs", "*")] {
            assert!(!has(&rule[field], everything), "{rule}");
        }
        for dangerous in ["escalate", "bind", "impersonate"] {
            assert!(!has(&rule["verbs"], dangerous), "{rule}");
        }
    }
}

#[test]
fn the_api_has_two_replicas_may_change_no_gateway_and_can_be_left_out() {
    let objects = rendered(&[]);
    assert_eq!(of_role(&objects, "Deployment", "api")["spec"]["replicas"], 2);
    let rules = of_role(&objects, "ClusterRole", "api")["rules"].as_array().unwrap();
    for rule in rules {
        let text = rule.to_string();
        assert!(!text.contains('*') && !text.contains("sipgateways") && !text.contains("status"), "{text}");
    }
    let secrets = rules.iter().find(|rule| rule["resources"] == json!(["secrets"])).unwrap();
    assert_eq!(secrets["verbs"], json!(["list", "watch", "create"]));
    assert!(
        !rendered(&["api.enabled=false"]).iter().any(|object| object["metadata"]["name"] == "voicedock-api")
    );
}

/// `helm` on the release of [`a_release_lives_on_a_real_api_server`].
fn release(server: &ApiServer, arguments: &[&str]) -> String {
    let mut helm = server.tool("helm");
    printed(helm.args(arguments).args(["--namespace", "voicedock-system"]))
}

async fn secret(server: &ApiServer) -> Secret {
    let secrets: Api<Secret> = Api::namespaced(server.client.clone(), "voicedock-system");
    secrets.get("default-api-keys").await.unwrap()
}

#[tokio::test]
async fn a_release_lives_on_a_real_api_server() {
    let server = bare_api_server().await;
    let chart = chart();
    let chart = chart.to_str().unwrap();
    let install = ["upgrade", "--install", "voicedock", chart, "--create-namespace"];
    let kubectl = |arguments: &[&str]| printed(server.kubectl().args(arguments));

    let notes = release(&server, &install);
    assert!(notes.contains("ONE MORE STEP"), "{notes}");
    let notes = release(&server, &install);
    assert!(notes.contains("kubectl wait sipgateway/default"), "{notes}");
    let gateway =
        kubectl(&["get", "sipgateway", "default", "--namespace", "voicedock-system", "--output", "name"]);
    assert_eq!(gateway.trim(), "sipgateway.voicedock.dev/default");

    // Its pods and those of gateways are taken where only the restricted standard is.
    let namespaces: Api<Namespace> = Api::all(server.client.clone());
    let restricted = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/warn": "restricted" } } });
    namespaces.patch("voicedock-system", &PatchParams::default(), &Patch::Merge(restricted)).await.unwrap();
    let mut restart = server.kubectl();
    restart.args(["rollout", "restart", "deployment/voicedock-operator", "--namespace", "voicedock-system"]);
    let warned = String::from_utf8_lossy(&output(&mut restart).stderr).into_owned();
    assert!(!warned.contains("PodSecurity"), "{warned}");

    // Keys are kept, also one that was added by hand.
    let first = secret(&server).await.data.unwrap()["default"].clone();
    assert_eq!(first.0.len(), 40);
    let mine = json!({ "stringData": { "crm": "a-key-of-my-own" } });
    let secrets: Api<Secret> = Api::namespaced(server.client.clone(), "voicedock-system");
    secrets.patch("default-api-keys", &PatchParams::default(), &Patch::Merge(mine)).await.unwrap();
    release(&server, &install);
    let data = secret(&server).await.data.unwrap();
    assert_eq!((&data["default"], data.len()), (&first, 2));

    // What the gateways' Roles grant, the operator may give away; nothing beyond what it has.
    let account = "system:serviceaccount:voicedock-system:voicedock-operator";
    let create_role = |name: &str, rule: &[&str]| {
        let mut command = server.kubectl();
        command.args(["create", "role", name, "--as", account, "--namespace", "voicedock-system"]).args(rule);
        output(&mut command).status.success()
    };
    let leases = ["--verb=create,get,list,patch,update,watch", "--resource=leases.coordination.k8s.io"];
    let tables =
        ["--verb=get,list,watch", "--resource=routingtables.voicedock.dev", "--resource-name=default"];
    let slices = ["--verb=get", "--resource=routingslices.voicedock.dev"];
    let credentials = ["--verb=get", "--resource=secrets", "--resource-name=default-voicedock-credentials"];
    for (name, rule) in [("a", &leases[..]), ("b", &tables[..]), ("c", &slices[..]), ("d", &credentials[..])]
    {
        assert!(create_role(name, rule), "{rule:?}");
    }
    assert!(!create_role("e", &["--verb=delete", "--resource=pods"]));

    // A number outlives the release, and so does its definition.
    let number = json!({
        "apiVersion": "voicedock.dev/v1alpha1", "kind": "PhoneNumber",
        "metadata": { "name": "main-line", "namespace": "default" }, "spec": { "number": "+31201234567" },
    });
    let resource = kube::api::ApiResource::from_gvk(&kube::api::GroupVersionKind::gvk(
        "voicedock.dev",
        "v1alpha1",
        "PhoneNumber",
    ));
    let numbers: Api<kube::api::DynamicObject> =
        Api::namespaced_with(server.client.clone(), "default", &resource);
    numbers.create(&Default::default(), &serde_json::from_value(number).unwrap()).await.unwrap();
    release(&server, &["uninstall", "voicedock"]);
    assert_eq!(
        kubectl(&["get", "phonenumbers", "--output", "name"]).trim(),
        "phonenumber.voicedock.dev/main-line"
    );
    let left = kubectl(&[
        "get",
        "sipgateways,deployments,clusterroles,clusterrolebindings,serviceaccounts,secrets",
        "--all-namespaces",
        "--selector",
        "app.kubernetes.io/part-of=voicedock",
        "--output",
        "name",
    ]);
    assert_eq!(left, "");

    // A second installation finds the definitions: one run is enough.
    let notes = release(&server, &install);
    assert!(!notes.contains("ONE MORE STEP"), "{notes}");
    kubectl(&["get", "sipgateway", "default", "--namespace", "voicedock-system"]);
}
