//! `voicedock status` and `voicedock calls` with nothing but a kubeconfig: a real operator, gateway and call, over a real API server
//! and a kubelet that forwards ports.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};

use crate::calls::{CALLER, GATEWAY_KEY, NUMBER, Scene, made};
use crate::stage::{Stage, eventually, voicedock};
use crate::support::api_server::SOON;
use crate::support::kubelet::Kubelet;
use crate::support::tools::output;

/// Exit code, standard output and standard error of the program.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = output(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// The JSON that a command answers, with its exit code.
fn json_of(stage: &Stage, command: &str) -> (i32, Value) {
    let (code, said, why) =
        run(voicedock(&stage.server).args([command, "-n", &stage.namespace, "-o", "json"]));
    (
        code,
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{command}: {code} {error}: {said}{why}")),
    )
}

/// A scene whose gateway pod is reached through the API server.
async fn set(stage: &Stage) -> (Kubelet, Scene, String) {
    let kubelet = Kubelet::start(&stage.server, &format!("node-{}", stage.namespace)).await;
    let uid = kubelet.pod(&stage.server, &stage.namespace, "default", "gw-1").await;
    let (scene, pbx) = Scene::with_pod(stage, &uid).await;
    let assistant = made(stage, "/assistants", json!({ "name": "Support" }));
    let trunk = json!({
        "name": "Office PBX", "host": "127.0.0.1", "port": pbx.port(), "username": "hms-sovereign",
        "password": "secure-password", "inbound_addresses": ["127.0.0.1"],
    });
    let trunk = made(stage, "/sip-trunks", trunk);
    let number = json!({ "phone_number": NUMBER, "assistant_id": assistant, "transfer_trunk_id": trunk });
    made(stage, "/numbers", number);
    scene.routes(stage).await;
    (kubelet, scene, trunk)
}

/// `voicedock calls --follow`, whose lines come as they are printed; it ends with the test.
struct Followed {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Followed {
    fn start(stage: &Stage) -> Self {
        let mut command = voicedock(&stage.server);
        command.args(["calls", "--follow", "-n", &stage.namespace, "-o", "json"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (told, lines) = mpsc::channel();
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| told.send(line)));
        Self { child, lines }
    }

    /// The next change.
    fn next(&self) -> Value {
        serde_json::from_str(&self.lines.recv_timeout(SOON).expect("a line comes")).unwrap()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn whoever_has_a_kubeconfig_sees_how_all_is_and_follows_a_call() {
    let stage = Stage::set("cli").await;
    let (_kubelet, scene, trunk) = set(&stage).await;
    let namespace = &stage.namespace;
    let status = eventually("all is fine", async || {
        let (code, status) = json_of(&stage, "status");
        assert_eq!(code == 0, status["fine"] == true, "{status}");
        (code == 0).then_some(status)
    })
    .await;
    let gateway = &status["gateways"][0];
    assert_eq!(gateway["gateway"], format!("{namespace}/default"));
    assert_eq!((&gateway["ready"], &gateway["podsReady"]), (&json!(true), &json!(1)));
    assert!(gateway["tableHeld"].is_i64() && gateway["tableHeld"] == gateway["tableWanted"], "{status}");
    assert_eq!(status["pods"][0]["pod"], format!("{namespace}/gw-1"));
    assert_eq!((&status["trunks"][0]["callsIn"], &status["unknown"]), (&json!(0), &json!([])), "{status}");
    let (code, said, _) = run(voicedock(&stage.server).args(["calls", "-n", namespace]));
    assert_eq!((code, said), (0, format!("No calls in namespace {namespace}.\n")));

    let followed = Followed::start(&stage);
    let mut caller = scene.call();
    let call = eventually("the call with its assistant", async || {
        let (code, list) = json_of(&stage, "calls");
        assert_eq!((code, &list["missing"]), (0, &json!([])));
        Some(list["calls"][0].clone()).filter(|call| call["state"] == "with-assistant")
    })
    .await;
    assert_eq!((&call["from"], &call["to"]), (&json!(CALLER), &json!(NUMBER)), "{call}");
    assert_eq!(call["assistant"], format!("{namespace}/support"));
    assert_eq!(call["trunk"], format!("{namespace}/{trunk}"));
    assert_eq!((&call["pod"], &call["gateway"]), (&json!("gw-1"), &gateway["gateway"]));
    let (_, status) = json_of(&stage, "status");
    assert_eq!(status["trunks"][0]["callsIn"], 1, "{status}");
    let (_, said, _) = run(voicedock(&stage.server).args(["status", "-n", namespace]));
    assert!(said.contains("GATEWAY") && said.contains("LAST ANSWER"), "{said}");
    eventually("the Lease has the call", async || {
        let (_, status) = json_of(&stage, "status");
        (status["gateways"][0]["calls"] == 1).then_some(())
    })
    .await;

    let mut told = vec![followed.next()];
    let id = call["id"].as_str().unwrap();
    let transfer = json!({ "type": "transfer", "destination": "+31612345678" });
    assert_eq!(stage.ask("POST", &format!("/calls/{id}/control"), Some(transfer)).0, 200);
    while !["ended", "failed"].contains(&told.last().unwrap()["state"].as_str().unwrap()) {
        told.push(followed.next());
    }
    assert!(tokio::time::timeout(SOON, caller.wait()).await.unwrap().unwrap().success());
    assert!(told.iter().all(|change| change["id"] == call["id"]) && told.len() > 1, "{told:?}");
    let end = told.last().unwrap();
    assert_eq!((&end["state"], &end["destination"]), (&json!("ended"), &json!("+31612345678")), "{told:?}");
    assert_eq!(end["endReason"], "caller-hung-up");
    assert_eq!(json_of(&stage, "calls").1["calls"], json!([]), "only what is not over");
}

#[tokio::test]
async fn what_is_not_ready_is_said_with_its_reason_and_ends_with_one() {
    let stage = Stage::set("cli-broken").await;
    let (_kubelet, _scene, _) = set(&stage).await;
    let spec = json!({ "number": "+31201234568", "assistantRef": { "name": "suport" } });
    stage.apply("people", "PhoneNumber", "other", spec).await;
    let problem = eventually("the problem", async || {
        let (code, status) = json_of(&stage, "status");
        let problem =
            status["problems"].as_array().unwrap().iter().find(|found| found["reason"] == "RefNotFound");
        problem.map(|problem| (code, problem.clone()))
    })
    .await;
    assert_eq!(problem.0, 1);
    assert_eq!(problem.1["object"], format!("{}/other", stage.namespace));
    let (code, said, _) = run(voicedock(&stage.server).args(["status", "-n", &stage.namespace]));
    assert!(
        code == 1 && said.contains("suport, which does not exist; create it or correct the name."),
        "{said}"
    );
    // Every namespace has that problem too, and an operator that leads.
    let (code, said, _) = run(voicedock(&stage.server).args(["status", "-A"]));
    assert!(
        code == 1 && said.contains(&format!("PhoneNumber {}/other (RefNotFound", stage.namespace)),
        "{said}"
    );
    assert!(!said.contains("No operator has renewed"), "{said}");
}

/// A kubeconfig of somebody who may read what the chart lets viewers read, in one namespace.
async fn viewer(stage: &Stage, directory: &tempfile::TempDir) -> PathBuf {
    let namespace = &stage.namespace;
    let kinds = "assistants,phonenumbers,sipgateways,siptrunks,transferdestinations,routingtables";
    for arguments in [
        vec!["create", "role", "viewer", "--verb=get,list,watch", "--resource", kinds],
        vec!["create", "rolebinding", "viewer", "--role=viewer", "--user=viewer"],
    ] {
        let (code, _, why) = run(stage.server.kubectl().args(arguments).args(["-n", namespace]));
        assert_eq!(code, 0, "{why}");
    }
    let path = directory.path().join("kubeconfig");
    let own = fs::read_to_string(&stage.server.kubeconfig).unwrap();
    let mut config: Value = serde_saphyr::from_str(&own).unwrap();
    config["users"][0]["user"]["as"] = "viewer".into();
    fs::write(&path, config.to_string()).unwrap();
    path
}

#[tokio::test]
async fn who_may_not_read_the_gateways_keys_sees_no_call_and_is_told_why() {
    let stage = Stage::set("cli-viewer").await;
    let (_kubelet, _scene, _) = set(&stage).await;
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = viewer(&stage, &directory).await;
    let as_viewer = |command: &str| {
        let mut command_line = voicedock(&stage.server);
        command_line.args([command, "-n", &stage.namespace, "--kubeconfig"]).arg(&kubeconfig);
        run(&mut command_line)
    };
    let (code, said, _) = eventually("the statuses are there", async || {
        Some(as_viewer("status")).filter(|(code, ..)| *code == 0)
    })
    .await;
    assert!(said.contains(&format!("{}/default", stage.namespace)), "{code} {said}");
    assert!(said.contains("Not known:") && said.contains("leases"), "{said}");
    // With the Leases, the Secret is still between a viewer and the calls; with the Secret, the way to the pod.
    for (name, verbs, resource, hindrance) in [
        ("leases", "list", "leases.coordination.k8s.io", "default-api-keys"),
        ("keys", "get", "secrets", "get and create on pods/portforward"),
        ("ways", "get,create", "pods/portforward", ""),
    ] {
        let (code, said, why) = as_viewer("calls");
        assert!(code == 2 && said.is_empty() && !why.contains(GATEWAY_KEY), "{code} {said} {why}");
        let role = ["create", "role", name, "--verb", verbs, "--resource", resource, "-n", &stage.namespace];
        assert_eq!(run(stage.server.kubectl().args(role)).0, 0);
        let role = format!("--role={name}");
        let binding = ["create", "rolebinding", name, &role, "--user=viewer", "-n", &stage.namespace];
        assert_eq!(run(stage.server.kubectl().args(binding)).0, 0);
        eventually("the next hindrance, or none", async || {
            let (code, _, why) = as_viewer("calls");
            if hindrance.is_empty() { code == 0 } else { why.contains(hindrance) }.then_some(())
        })
        .await;
    }
}
