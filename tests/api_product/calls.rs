//! Calls over the API: an operator, a gateway and real parties on this machine; everything a user writes is written over the API.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::document::{command, run};
use crate::stage::{Stage, eventually, new_key};
use crate::support::api_server::SOON;
use crate::support::net::{free_address, get};
use crate::support::tools::output;

pub const CALLER: &str = "+31687654321";
pub const NUMBER: &str = "+31201234567";
pub const GATEWAY_KEY: &str = "a-key-of-the-gateway";

/// Everything that runs besides the API; it ends with the test.
pub struct Scene {
    sip: SocketAddr,
    pub http: SocketAddr,
    gateway: Child,
    _programs: Vec<Child>,
    _directory: tempfile::TempDir,
}

impl Scene {
    /// An operator, a gateway pod, an agent, and a PBX with people that wants the login of the document's trunk.
    pub async fn set(stage: &Stage) -> (Self, SocketAddr) {
        Self::with(stage, &[], &[]).await
    }

    /// The same, with the uid of the gateway pod, `gw-1`.
    pub async fn with_pod(stage: &Stage, uid: &str) -> (Self, SocketAddr) {
        Self::with(stage, &[], &[("POD_UID".to_owned(), uid.to_owned())]).await
    }

    /// The same, with further variables for the operator and for the gateway.
    pub async fn with(
        stage: &Stage,
        of_operator: &[(String, String)],
        of_gateway: &[(String, String)],
    ) -> (Self, SocketAddr) {
        let (agent, pbx) = (free_address(), free_address());
        let uri = format!("sip:agent@{agent}");
        let spec = json!({
            "exposure": "ClusterIP", "defaultAgent": { "sip": { "uri": uri } },
            "apiKeysSecretRef": { "name": "default-api-keys" },
        });
        stage.apply("people", "SipGateway", "default", spec).await;
        let keys: Secret = serde_json::from_value(json!({
            "metadata": {
                "name": "default-api-keys",
                "labels": { "voicedock.dev/holds": "gateway-keys", "voicedock.dev/gateway": "default" },
            },
            "stringData": { "default": GATEWAY_KEY },
        }))
        .unwrap();
        let secrets: Api<Secret> = Api::namespaced(stage.server.client.clone(), &stage.namespace);
        secrets.create(&PostParams::default(), &keys).await.unwrap();

        let directory = tempfile::tempdir().unwrap();
        let (sip, http) = (free_address(), free_address());
        let programs = vec![
            operator(stage).envs(of_operator.iter().cloned()).spawn().unwrap(),
            party(&["agent", "--listen", &agent.to_string()]),
            party(&[
                "human",
                "--listen",
                &pbx.to_string(),
                "--credentials",
                "hms-sovereign:secure-password",
                "--rule",
                "+31698765432:busy",
            ]),
        ];
        let gateway =
            gateway(stage, sip, http, directory.path()).envs(of_gateway.iter().cloned()).spawn().unwrap();
        (Self { sip, http, gateway, _programs: programs, _directory: directory }, pbx)
    }

    /// Tells the gateway to end, and waits until it has.
    pub async fn end_gateway(mut self) {
        // The shell's own kill: a bare machine may have no other.
        let kill = format!("kill -TERM {}", self.gateway.id().unwrap());
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let status = tokio::time::timeout(SOON, self.gateway.wait()).await.expect("it ends").unwrap();
        assert!(status.success(), "{status}");
    }

    /// Waits until the gateway routes by a table with one number, whose trunk and assistant are in it.
    pub async fn routes(&self, stage: &Stage) {
        eventually("the table at the gateway", async || {
            let table = stage.resource("RoutingTable", "default").await?;
            let counts = &table.data["spec"]["counts"];
            let whole = ["numbers", "assistants", "trunks"].iter().all(|kind| counts[kind] == 1);
            let line = format!("voicedock_gateway_table_generation {}\n", table.data["spec"]["generation"]);
            let (_, metrics) = get(self.http, "/metrics", "").await?;
            (whole && metrics.contains(&line)).then_some(())
        })
        .await;
    }

    /// A caller, who hangs up soon after somebody else is heard.
    pub fn call(&self) -> Child {
        let gateway = self.sip.to_string();
        party(&[
            "caller",
            "--gateway",
            &gateway,
            "--from",
            CALLER,
            "--to",
            NUMBER,
            "--listen",
            "127.0.0.1:0",
            "--expect",
            "answered,moved,ended",
            "--hang-up-after-move",
            "500ms",
        ])
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_voicedock"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn party(arguments: &[&str]) -> Child {
    program().arg("simulate").args(arguments).args(["--advertise", "127.0.0.1"]).spawn().unwrap()
}

fn operator(stage: &Stage) -> Command {
    let namespace = &stage.namespace;
    let mut operator = program();
    operator
        .args([
            "operator",
            "--namespace",
            namespace,
            "--watch-namespace",
            namespace,
            "--image",
            "voicedock:test",
        ])
        .args(["--identity", "operator-1", "--http", &free_address().to_string()])
        .env("KUBECONFIG", &stage.server.kubeconfig);
    operator
}

fn gateway(stage: &Stage, sip: SocketAddr, http: SocketAddr, directory: &Path) -> Command {
    std::fs::create_dir(directory.join("keys")).unwrap();
    std::fs::write(directory.join("keys/default"), GATEWAY_KEY).unwrap();
    let mut gateway = program();
    gateway
        .arg("gateway")
        .env("KUBECONFIG", &stage.server.kubeconfig)
        .env("POD_NAME", "gw-1")
        .env("POD_UID", format!("uid-of-{}", stage.namespace))
        .env("POD_NAMESPACE", &stage.namespace)
        .env("POD_IP", "127.0.0.1")
        .env("VOICEDOCK_GATEWAY", "default")
        .env("VOICEDOCK_LISTENERS", format!("udp:{0},tcp:{0}", sip.port()))
        .env("VOICEDOCK_HTTP", http.to_string())
        .env("VOICEDOCK_API_KEYS", directory.join("keys"))
        .env("VOICEDOCK_STATE", directory.join("state"));
    gateway
}

pub fn made(stage: &Stage, path: &str, body: Value) -> String {
    let (status, made) = stage.ask("POST", path, Some(body));
    assert_eq!(status, 201, "{made}");
    let one = made.as_object().unwrap().values().next().unwrap();
    one["id"].as_str().unwrap().to_owned()
}

/// The number that an assistant answers, behind a trunk to the PBX: the ids of trunk and number.
pub fn number_behind(stage: &Stage, pbx: SocketAddr, assistant: &str) -> (String, String) {
    let trunk = json!({
        "name": "Office PBX", "host": "127.0.0.1", "port": pbx.port(), "username": "hms-sovereign",
        "password": "secure-password", "inbound_addresses": ["127.0.0.1"],
    });
    let trunk = made(stage, "/sip-trunks", trunk);
    let number = json!({ "phone_number": NUMBER, "assistant_id": assistant, "transfer_trunk_id": trunk });
    let number = made(stage, "/numbers", number);
    (trunk, number)
}

#[tokio::test]
async fn a_caller_is_transferred_with_the_documents_command_and_nobody_else_sees_the_call() {
    let stage = Stage::set("calls").await;
    let (scene, pbx) = Scene::set(&stage).await;
    let other = stage.server.namespace("others").await;
    let others_key = new_key(&stage.server, &other, "others", &[]);
    stage.knows(&others_key).await;

    let assistant = made(&stage, "/assistants", json!({ "name": "Support" }));
    let (_, number) = number_behind(&stage, pbx, &assistant);
    scene.routes(&stage).await;
    stage.shows("/calls", |list| list["pagination"]["total"] == 0 && list.get("warnings").is_none()).await;

    let mut caller = scene.call();
    let list = stage.shows("/calls", |list| list["calls"][0]["status"] == "in-progress").await;
    let id = list["calls"][0]["id"].as_str().unwrap();
    let path = format!("/calls/{id}");
    let (status, call) = stage.ask("GET", &path, None);
    assert_eq!((status, &call["id"], &call["caller_phone"]), (200, &json!(id), &json!(CALLER)));
    assert_eq!((&call["agent_id"], &call["number_id"]), (&json!(assistant), &json!(number)));

    // Another namespace's key sees nothing of it and reaches nothing.
    let (_, list) = stage.ask_as(&others_key, "GET", "/calls", None);
    assert_eq!(list["pagination"]["total"], 0, "{list}");
    assert_eq!(stage.ask_as(&others_key, "GET", &path, None).0, 404);
    let end = json!({ "type": "end-call" });
    assert_eq!(stage.ask_as(&others_key, "POST", &format!("{path}/control"), Some(end.clone())).0, 404);
    let reader = stage.another_key("reader", &["--scopes", "calls:read"]).await;
    assert_eq!(stage.ask_as(&reader, "GET", &path, None).0, 200);
    assert_eq!(stage.ask_as(&reader, "POST", &format!("{path}/control"), Some(end)).0, 403);

    let answer = run(&stage, &command(&["POST", "CALL_ID/control"]), &[("CALL_ID", id)]);
    assert_eq!(answer, json!({ "success": true, "message": "Command sent successfully" }));
    let call = stage.shows(&path, |call| call["transfers"][0]["outcome"] == "answered").await;
    assert_eq!(call["transfers"][0]["destination"], "+31612345678", "{call}");
    let status = tokio::time::timeout(SOON, caller.wait()).await.expect("the caller is through").unwrap();
    assert!(status.success(), "{status}");

    let (status, refused) = stage.ask("POST", &format!("{path}/control"), Some(json!({ "type": "dance" })));
    assert_eq!((status, &refused["param"]), (400, &json!("type")), "{refused}");
    let wrong = "/calls/call_00000000_000000000000000000";
    assert_eq!(stage.ask("GET", wrong, None).0, 404);
}

#[tokio::test]
async fn a_destination_is_dialled_once_by_command_and_the_outcome_reported() {
    let stage = Stage::set("trials").await;
    let (scene, pbx) = Scene::set(&stage).await;
    let spec = |number: &str| json!({ "type": "number", "number": number, "description": "People" });
    stage.apply("people", "TransferDestination", "sales", spec("+31612345678")).await;
    stage.apply("people", "TransferDestination", "desk", spec("+31698765432")).await;
    let destinations = ["sales", "desk"].map(|name| json!({ "destination_ref": { "name": name } }));
    let tools = json!([{ "type": "transfer_call", "destinations": destinations }]);
    let assistant =
        made(&stage, "/assistants", json!({ "name": "Support", "llm_config": { "tools": tools } }));
    let (trunk, _) = number_behind(&stage, pbx, &assistant);
    scene.routes(&stage).await;
    stage.shows("/calls", |list| list["pagination"]["total"] == 0 && list.get("warnings").is_none()).await;

    let test = |key: &str, name: &str| {
        let mut test = std::process::Command::new(env!("CARGO_BIN_EXE_voicedock"));
        test.args(["call", "test-destination", name, "--url", &format!("http://{}", stage.api.http)]);
        let output = output(test.env("VOICEDOCK_API_KEY", key).stdin(Stdio::null()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    // The operator has yet to say which gateway answers the number.
    let (code, said) = eventually("a gateway is asked", async || {
        let (code, said, why) = test(&stage.key, "sales");
        (!why.contains("no gateway answers")).then_some((code, said))
    })
    .await;
    let over = format!("at 127.0.0.1 over trunk {}/{trunk}", stage.namespace);
    assert!(
        code == Some(0) && said.contains("sales: answered (200, answered)") && said.contains(&over),
        "{said}"
    );
    let (code, said, why) = test(&stage.key, "desk");
    assert!(code == Some(1) && said.contains("desk: busy (486 "), "{said}");
    assert!(why.contains("does not answer"), "{why}");
    let (code, _, why) = test(&stage.key, "marketing");
    assert!(code == Some(1) && why.contains("'marketing'") && why.contains("(404)"), "{why}");

    let (_, list) = stage.ask("GET", "/calls", None);
    let of = |call: usize, field: &str| list["calls"][call][field].clone();
    assert_eq!((of(0, "direction"), of(0, "status")), (json!("outbound"), json!("failed")), "{list}");
    assert_eq!((of(1, "direction"), of(1, "status")), (json!("outbound"), json!("ended")), "{list}");
    assert_eq!((of(1, "end_reason"), of(1, "agent_id")), (json!("tested"), json!(assistant)));

    // Whoever may only read may not have phones ring, and nobody may have others' ring.
    let reader = stage.another_key("reader", &["--scopes", "calls:read"]).await;
    assert!(test(&reader, "sales").2.contains("calls:write"));
    let other = stage.server.namespace("others").await;
    let others_key = new_key(&stage.server, &other, "others", &[]);
    stage.knows(&others_key).await;
    assert_eq!(test(&others_key, "sales").0, Some(1));
    let (_, metrics) = get(scene.http, "/metrics", "").await.unwrap();
    for line in [
        r#"voicedock_destination_tests_total{outcome="answered"} 1"#,
        r#"voicedock_destination_tests_total{outcome="busy"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert!(!metrics.contains("voicedock_assistant_transfers_total{"), "a test is no transfer");
}

#[tokio::test]
async fn the_next_call_is_followed_by_command_with_its_transfer_and_without_numbers() {
    let stage = Stage::set("traces").await;
    let (scene, pbx) = Scene::set(&stage).await;
    let assistant = made(&stage, "/assistants", json!({ "name": "Support" }));
    number_behind(&stage, pbx, &assistant);
    scene.routes(&stage).await;

    let trace = |key: &str, arguments: &[&str]| {
        let mut trace = program();
        trace.args(["call", "trace", "--url", &format!("http://{}", stage.api.http)]).args(arguments);
        trace.env("VOICEDOCK_API_KEY", key).stdout(Stdio::piped()).stderr(Stdio::piped());
        trace.spawn().unwrap()
    };
    // Whoever may only see calls may not follow them, and nobody may follow others' numbers.
    let reader = stage.another_key("reader", &["--scopes", "calls:read"]).await;
    let refused = said(trace(&reader, &["--number", NUMBER])).await;
    assert!(refused.1.contains("traces:write") && refused.1.contains("403"), "{refused:?}");
    let refused = said(trace(&stage.key, &["--number", "+31201234568"])).await;
    assert!(refused.1.contains("no such number"), "{refused:?}");

    // The operator has yet to say which gateway answers the number.
    let body = json!({ "number": NUMBER, "seconds": 30 });
    let begun = eventually("a trace begins", async || {
        let (status, begun) = stage.ask("POST", "/traces", Some(body.clone()));
        (status == 201).then_some(begun)
    })
    .await;
    let path = format!("/traces/{}", begun["id"].as_str().unwrap());
    assert_eq!(stage.ask("GET", &path, None).1["state"], "waiting");
    assert_eq!(stage.ask("DELETE", &path, None).0, 204);

    let mut following = trace(&stage.key, &["--number", NUMBER, "--seconds", "30", "--full"]);
    let mut lines = BufReader::new(following.stderr.take().unwrap()).lines();
    let waits = tokio::time::timeout(SOON, lines.next_line()).await.expect("it waits").unwrap();
    assert!(waits.as_deref().is_some_and(|line| line.contains("waiting for the next call")), "{waits:?}");
    let mut caller = scene.call();
    let list = stage.shows("/calls", |list| list["calls"][0]["status"] == "in-progress").await;
    let id = list["calls"][0]["id"].as_str().unwrap();
    run(&stage, &command(&["POST", "CALL_ID/control"]), &[("CALL_ID", id)]);
    tokio::time::timeout(SOON, caller.wait()).await.expect("the caller is through").unwrap();

    let (ladder, _) = said(following).await;
    let rungs: Vec<&str> =
        ladder.lines().filter(|line| line.contains("──▶") || line.contains("◀──")).collect();
    let has = |leg: &str, what: &str| rungs.iter().any(|rung| rung.contains(leg) && rung.contains(what));
    assert!(rungs[0].contains("caller") && rungs[0].contains("──▶  INVITE sip:+*********67@"), "{ladder}");
    for (leg, what) in [
        ("dialled-1", "◀──  INVITE"),
        ("dialled-2", "◀──  INVITE sip:+*********78@"),
        ("dialled-2", "──▶  407 "),
        ("dialled-2", "──▶  200 OK (INVITE)"),
        ("caller", "◀──  INVITE"),
        ("dialled-1", "◀──  BYE"),
        ("caller", "──▶  BYE"),
        ("dialled-2", "──▶  200 OK (BYE)"),
    ] {
        assert!(has(leg, what), "{leg} {what} is not in:\n{ladder}");
    }
    assert!(ladder.contains("m=audio") && ladder.contains("Authorization: Digest username=…"), "{ladder}");
    for secret in [&CALLER[1..], &NUMBER[1..], "31612345678", "hms-sovereign", "secure-password"] {
        assert!(!ladder.contains(secret), "{secret} is in:\n{ladder}");
    }
}

/// What a program prints on both of its outputs until it ends.
async fn said(program: Child) -> (String, String) {
    let output = tokio::time::timeout(SOON, program.wait_with_output()).await.expect("it ends").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}
