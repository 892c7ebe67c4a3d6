//! The life of a release on a real API server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::api_server::{ApiServer, SOON, bare_api_server};
use crate::support::net;
use crate::support::tools::{output, printed};
use crate::{chart, judges};

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

    // Helm keeps a release in a Secret, and the API server takes none above 1 MiB.
    let kept = kubectl(&[
        "get",
        "secrets",
        "--namespace",
        "voicedock-system",
        "--selector",
        "owner=helm",
        "--output",
        "json",
    ]);
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    for secret in kept["items"].as_array().unwrap() {
        let size = secret.to_string().len();
        assert!(size < 512 << 10, "{} has {size} bytes", secret["metadata"]["name"]);
    }

    // Its pods and those of gateways are taken where only the restricted standard is.
    let namespaces: Api<Namespace> = Api::all(server.client.clone());
    let restricted = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/warn": "restricted" } } });
    namespaces.patch("voicedock-system", &PatchParams::default(), &Patch::Merge(restricted)).await.unwrap();
    let mut restart = server.kubectl();
    restart.args(["rollout", "restart", "deployment/voicedock-operator", "--namespace", "voicedock-system"]);
    let warned = String::from_utf8_lossy(&output(&mut restart).stderr).into_owned();
    assert!(!warned.contains("PodSecurity"), "{warned}");

    // What `helm test` makes is taken as well; there is no node here to run it.
    let hooks = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(hooks.path(), release(&server, &["get", "hooks", "voicedock"])).unwrap();
    let with_hooks = |arguments: &[&str]| {
        let mut kubectl = server.kubectl();
        kubectl.args(arguments).arg("--filename").arg(hooks.path());
        output(&mut kubectl)
    };
    let made = with_hooks(&["create", "--validate=strict"]);
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success() && !said.contains("PodSecurity"), "{said}");
    assert_eq!(String::from_utf8_lossy(&made.stdout).lines().count(), 7);
    assert!(with_hooks(&["delete", "--timeout=30s"]).status.success());

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

    serves_one_namespace_with_roles_alone(&server).await;
}

/// The part of [`a_release_lives_on_a_real_api_server`] that needs its definitions: operator and API as processes with the
/// permissions that the chart gives them, and no others.
async fn serves_one_namespace_with_roles_alone(server: &ApiServer) {
    let kubectl = |arguments: &[&str]| printed(server.kubectl().args(arguments));
    let (chart, directory) = (chart(), tempfile::tempdir().unwrap());
    let mut helm = server.tool("helm");
    helm.args(["install", "voicedock"]).arg(&chart).args(["--namespace", "tenant", "--create-namespace"]);
    helm.args(["--set", "namespaceOnly=true,crds.enabled=false"]);
    printed(&mut helm);
    let everywhere = kubectl(&["get", "clusterroles,clusterrolebindings", "--output", "name"]);
    assert!(!everywhere.contains("tenant"), "{everywhere}");

    let start = |role: &str, flag: &str| {
        let http = net::free_address();
        let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_voicedock"))
            .args([role, "--default-gateway=tenant/default", flag, &http.to_string()])
            .env("KUBECONFIG", acting_as(server, directory.path(), &format!("voicedock-{role}")))
            .env("POD_NAME", "operator-0")
            .env("POD_NAMESPACE", "tenant")
            .env("VOICEDOCK_IMAGE", "voicedock:test")
            .env("VOICEDOCK_WATCH_NAMESPACE", "tenant")
            .env("VOICEDOCK_GATEWAY_NAMESPACE", "tenant")
            .env("VOICEDOCK_HTTP", "127.0.0.1:0")
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        (child, http)
    };
    let (_operator, operator) = start("operator", "--http");
    eventually("the operator sees its namespace", async || {
        net::get(operator, "/readyz", "").await.filter(|(status, _)| *status == 200)
    })
    .await;
    eventually("the gateway is made and reported on", async || {
        let gateway = kubectl(&["get", "sipgateway", "default", "--namespace", "tenant", "--output", "json"]);
        let gateway: serde_json::Value = serde_json::from_str(&gateway).unwrap();
        let deployments = kubectl(&["get", "deployments", "--namespace", "tenant", "--output", "name"]);
        let made = deployments.contains("deployment.apps/default-voicedock");
        (made && gateway["status"]["observedGeneration"] == 1).then_some(())
    })
    .await;
    let (_, metrics) = net::get(operator, "/metrics", "").await.unwrap();
    for trouble in ["voicedock_operator_watch_errors_total{", "voicedock_operator_failures_total{"] {
        assert!(!metrics.contains(trouble), "{metrics}");
    }

    // What the operator has made is judged like what the chart renders.
    let made = kubectl(&[
        "get",
        "deployments,services,networkpolicies,poddisruptionbudgets,serviceaccounts,roles,rolebindings",
        "--namespace",
        "tenant",
        "--selector",
        "app.kubernetes.io/managed-by=voicedock-operator",
        "--output",
        "json",
    ]);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let made = made["items"].as_array().unwrap();
    assert!(made.len() >= 8, "{made:?}");
    judges::assert_answered(&judges::findings(made));

    let (_api, api) = start("api", "--admin");
    eventually("the API sees its namespace", async || {
        net::get(api, "/readyz", "").await.filter(|(status, _)| *status == 200)
    })
    .await;
}

/// A kubeconfig with which a program is a ServiceAccount of the namespace `tenant`.
fn acting_as(server: &ApiServer, directory: &Path, account: &str) -> PathBuf {
    let text = std::fs::read_to_string(&server.kubeconfig).unwrap();
    let mut config: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    let token = printed(server.kubectl().args(["create", "token", account, "--namespace", "tenant"]));
    config["users"][0]["user"] = json!({ "token": token.trim() });
    let file = directory.join(account);
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(SOON, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"))
}
