//! The API over real connections, at one pod and at two that know each other.

mod traces;

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::call::{Command, Untold};
use crate::gateway::call_id::{CallId, Instance};
use crate::gateway::calls::tests::view;
use crate::gateway::calls::{CallStatus, CallView, Calls};
use crate::gateway::control::{ControlError, ControlRequest};
use crate::gateway::peers::Peer;
use crate::gateway::snapshot::Snapshot;
use crate::routing::ack::TrunkReports;
use crate::routing::decide::{TransferRefusal, Wanted};
use crate::routing::table::ObjectKey;

const KEY: &str = "a-key-of-the-crm";
const PATIENCE: Duration = Duration::from_secs(20);

/// A pod's HTTP, without calls of its own accord: the test is its shard.
struct Pod {
    instance: Instance,
    address: SocketAddr,
    calls: Arc<Calls>,
    peers: Arc<ArcSwap<Peers>>,
    commands: mpsc::Receiver<ControlRequest>,
    phase: watch::Sender<Phase>,
    keys: tempfile::TempDir,
    stop: CancellationToken,
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Pod {
    async fn start(instance: u32) -> Self {
        let instance = Instance(instance);
        let calls = Arc::new(Calls::new(2));
        let (control, mut shards) = CallControl::new(instance, 1, Arc::clone(&calls));
        let keys = tempfile::tempdir().unwrap();
        std::fs::write(keys.path().join("crm"), KEY).unwrap();
        let peers = Arc::new(ArcSwap::default());
        let (phase, phases) = watch::channel(Phase::Serving);
        let metrics = Metrics::new();
        let http = Http {
            control,
            openai: OpenAi::new(Arc::new(ArcSwap::from_pointee(Snapshot::none())), &metrics),
            peers: Arc::clone(&peers),
            forwarder: Forwarder::default(),
            answers: Answers::default(),
            keys: Arc::new(Keys::new(keys.path())),
            phase: phases,
            counters: GatewayMetrics::new(&metrics),
            metrics,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(server::serve(listener, router(http), stop.clone()));
        Self { instance, address, calls, peers, commands: shards.remove(0), phase, keys, stop }
    }

    fn knows(&self, other: &Pod) {
        let peer = Peer {
            pod: format!("gw-{}", other.instance),
            sip: other.address.ip(),
            http: other.address,
            draining: false,
            trunks: TrunkReports::new(),
        };
        let mut peers = Peers::clone(&self.peers.load());
        peers.0.insert(other.instance, peer);
        self.peers.store(Arc::new(peers));
    }

    /// A call of this pod; the larger its serial, the newer it is.
    fn call(&self, serial: u64, status: CallStatus) -> CallId {
        let now = Timestamp::now();
        let started = now - Duration::from_secs(100 - serial);
        let mut call: CallView = view(serial, status, started);
        call.id = CallId { instance: self.instance, shard: 0, serial };
        let id = call.id;
        self.calls.record(call, now);
        id
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        send(self.address, "GET", path, Some(&format!("Bearer {KEY}")), "").await
    }

    async fn command(&self, id: CallId, body: Value) -> (StatusCode, Value) {
        let path = format!("/api/v1/calls/{id}/control");
        send(self.address, "POST", &path, Some(&format!("Bearer {KEY}")), &body.to_string()).await
    }

    /// The next command that the shard gets, answered like this.
    async fn carry_out(&mut self, answer: Result<(), ControlError>) -> (CallId, Option<Wanted>) {
        let command = tokio::time::timeout(PATIENCE, self.commands.recv()).await.unwrap().unwrap();
        let ControlRequest::Command { call, command, reply } = command else { panic!("{command:?}") };
        reply.send(answer).unwrap();
        match command {
            Command::Transfer { wanted, .. } => (call, Some(wanted)),
            _ => (call, None),
        }
    }
}

async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    key: Option<&str>,
    body: &str,
) -> (StatusCode, Value) {
    let (status, bytes) = send_raw(address, method, path, key, body).await;
    let value = serde_json::from_slice(&bytes)
        .unwrap_or_else(|error| panic!("{path} answers {status} with {bytes:?}: {error}"));
    (status, value)
}

/// As the API role asks, for one namespace.
async fn ask_for(
    address: SocketAddr,
    namespace: &str,
    method: &str,
    path: &str,
    body: &str,
) -> (StatusCode, Value) {
    let key = format!("Bearer {KEY}");
    let headers = [("authorization", key.as_str()), ("x-voicedock-namespace", namespace)];
    let (status, bytes) = send_with(address, method, path, &headers, body).await;
    (status, serde_json::from_slice(&bytes).unwrap())
}

async fn send_raw(
    address: SocketAddr,
    method: &str,
    path: &str,
    key: Option<&str>,
    body: &str,
) -> (StatusCode, Bytes) {
    let headers: Vec<(&str, &str)> = key.into_iter().map(|key| ("authorization", key)).collect();
    send_with(address, method, path, &headers, body).await
}

async fn send_with(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (StatusCode, Bytes) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
    let answer = tokio::time::timeout(PATIENCE, client.request(request)).await.unwrap().unwrap();
    (answer.status(), answer.into_body().collect().await.unwrap().to_bytes())
}

fn transfer() -> Value {
    json!({ "type": "transfer", "destination": "+31612345678" })
}

#[tokio::test]
async fn a_transfer_goes_to_the_shard_and_is_answered_as_the_product_does() {
    let mut pod = Pod::start(1).await;
    let id = pod.call(7, CallStatus::InProgress);
    let (address, path) = (pod.address, format!("/api/v1/calls/{id}/control"));
    let asked = tokio::spawn(async move {
        send(address, "POST", &path, Some(&format!("Bearer {KEY}")), &transfer().to_string()).await
    });
    let (call, wanted) = pod.carry_out(Ok(())).await;
    assert_eq!((call, wanted), (id, Some(Wanted::Number("+31612345678".parse().unwrap()))));
    let (status, body) = asked.await.unwrap();
    assert_eq!(
        (status, body),
        (StatusCode::OK, json!({ "success": true, "message": "Command sent successfully" }))
    );
}

#[tokio::test]
async fn what_the_shard_refuses_is_an_error_with_a_sentence() {
    let mut pod = Pod::start(1).await;
    let id = pod.call(7, CallStatus::InProgress);
    let refusal = ControlError::Refused(TransferRefusal::NoRoute("+31612345678".to_owned()));
    for (refusal, expected) in [
        (
            refusal,
            json!({ "error": "transfer_refused", "param": "destination", "type": "transfer",
            "message": "no trunk carries the transfer to +31612345678; set transferTrunkRef on the PhoneNumber" }),
        ),
        (
            ControlError::NotActive("connecting"),
            json!({ "error": "call_not_active", "type": "transfer",
            "message": "the call is connecting; only a call that is in progress can be controlled" }),
        ),
        (
            ControlError::Untold(Untold::NoHook(ObjectKey::new("acme", "support"))),
            json!({ "error": "not_supported", "param": "type", "type": "transfer",
            "message": "the agent of Assistant acme/support has no hook; set agent.sip.hook" }),
        ),
    ] {
        let (address, path) = (pod.address, format!("/api/v1/calls/{id}/control"));
        let asked = tokio::spawn(async move {
            send(address, "POST", &path, Some(&format!("Bearer {KEY}")), &transfer().to_string()).await
        });
        pod.carry_out(Err(refusal)).await;
        assert_eq!(asked.await.unwrap(), (StatusCode::BAD_REQUEST, expected));
    }
}

#[tokio::test]
async fn without_a_key_nothing_below_api_is_answered() {
    let pod = Pod::start(1).await;
    let id = pod.call(7, CallStatus::InProgress);
    for path in ["/api/v1/calls", "/api/v1/nothing", &format!("/api/v1/calls/{id}")] {
        for key in [None, Some("Bearer wrong"), Some("Bearer "), Some(KEY)] {
            let (status, body) = send(pod.address, "GET", path, key, "").await;
            assert_eq!(
                (status.as_u16(), &body["error"]),
                (401, &json!("unauthorized")),
                "{path} with {key:?}"
            );
        }
    }
    std::fs::remove_dir_all(pod.keys.path()).unwrap();
    assert_eq!(pod.get("/api/v1/calls").await.0, 401, "without the directory nobody gets in");
}

#[tokio::test]
async fn unknown_calls_paths_and_methods_are_named() {
    let pod = Pod::start(1).await;
    let id = pod.call(7, CallStatus::InProgress);
    let unknown = CallId { serial: 8, ..id };
    let elsewhere = CallId { instance: Instance(99), ..id };
    for (path, code) in [
        (format!("/api/v1/calls/{unknown}"), 404),
        (format!("/api/v1/calls/{elsewhere}"), 404),
        ("/api/v1/calls/1".to_owned(), 404),
        ("/api/v1/calls/%00%ff".to_owned(), 404),
        ("/api/v2/calls".to_owned(), 404),
        ("/nothing".to_owned(), 404),
        (format!("/api/v1/calls/{id}/control"), 405),
    ] {
        let (status, body) = pod.get(&path).await;
        assert_eq!(status.as_u16(), code, "{path}");
        assert!(body["message"].is_string() && body["error"].is_string(), "{path}: {body}");
    }
    assert_eq!(pod.command(unknown, transfer()).await.0, 404);
    assert_eq!(pod.command(elsewhere, transfer()).await.0, 404);
}

#[tokio::test]
async fn a_wrong_command_never_reaches_the_shard() {
    let mut pod = Pod::start(1).await;
    let id = pod.call(7, CallStatus::InProgress);
    let (status, body) = pod.command(id, json!({ "type": "transfer", "destination": "06 123" })).await;
    assert_eq!((status.as_u16(), &body["param"]), (400, &json!("destination")));
    let (status, body) = pod.command(id, json!({ "type": "say", "content": "" })).await;
    assert_eq!((status.as_u16(), &body["param"], &body["type"]), (400, &json!("content"), &json!("say")));
    let long = json!({ "type": "transfer", "destination": "a".repeat(BODY_LIMIT) });
    assert_eq!(pod.command(id, long).await.0, 413);
    assert!(pod.commands.try_recv().is_err());
}

#[tokio::test]
async fn a_call_can_be_read_and_commanded_at_any_pod() {
    let (mut owner, asked) = (Pod::start(1).await, Pod::start(2).await);
    asked.knows(&owner);
    let id = owner.call(7, CallStatus::InProgress);
    assert_eq!(
        asked.get(&format!("/api/v1/calls/{id}")).await,
        owner.get(&format!("/api/v1/calls/{id}")).await
    );
    let (address, path) = (asked.address, format!("/api/v1/calls/{id}/control"));
    let end = tokio::spawn(async move {
        send(address, "POST", &path, Some(&format!("Bearer {KEY}")), r#"{"type":"end-call"}"#).await
    });
    assert_eq!(owner.carry_out(Ok(())).await, (id, None));
    assert_eq!(end.await.unwrap().0, 200);
    let (status, body) = asked.command(id, json!({ "type": "transfer", "destination": "?" })).await;
    assert_eq!(
        (status.as_u16(), &body["param"]),
        (400, &json!("destination")),
        "errors come back as they are"
    );
}

#[tokio::test]
async fn a_command_with_a_key_is_carried_out_once_whichever_pod_is_asked() {
    let (mut owner, asked) = (Pod::start(1).await, Pod::start(2).await);
    asked.knows(&owner);
    let id = owner.call(7, CallStatus::InProgress);
    let path = format!("/api/v1/calls/{id}/control");
    let send = |address: SocketAddr, body: &'static str| {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let request = Request::builder().method("POST").uri(format!("http://{address}{path}"));
        let request =
            request.header("authorization", format!("Bearer {KEY}")).header("idempotency-key", "k-1");
        client.request(request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap())
    };
    const END: &str = r#"{"type":"end-call"}"#;
    let first = tokio::spawn(send(asked.address, END));
    assert_eq!(owner.carry_out(Ok(())).await, (id, None));
    let first = first.await.unwrap().unwrap();
    assert_eq!((first.status().as_u16(), first.headers().get("idempotency-replayed")), (200, None));
    for address in [asked.address, owner.address] {
        let again = send(address, END).await.unwrap();
        assert_eq!(
            (again.status().as_u16(), &again.headers()["idempotency-replayed"]),
            (200, &"true".parse().unwrap())
        );
    }
    assert!(owner.commands.try_recv().is_err(), "nothing was carried out twice");
    assert_eq!(send(asked.address, r#"{"type":"end-call","message":"Bye."}"#).await.unwrap().status(), 422);
}

#[tokio::test]
async fn a_request_is_passed_on_once_only() {
    let (first, second) = (Pod::start(1).await, Pod::start(2).await);
    first.knows(&second);
    second.knows(&first);
    // Each believes that the other has the instance 3.
    for (pod, other) in [(&first, &second), (&second, &first)] {
        let peer = Peer {
            pod: "gw-3".to_owned(),
            sip: other.address.ip(),
            http: other.address,
            draining: false,
            trunks: TrunkReports::new(),
        };
        let mut peers = Peers::clone(&pod.peers.load());
        peers.0.insert(Instance(3), peer);
        pod.peers.store(Arc::new(peers));
    }
    let id = CallId { instance: Instance(3), shard: 0, serial: 1 };
    assert_eq!(first.get(&format!("/api/v1/calls/{id}")).await.0, 404);
}

#[tokio::test]
async fn a_list_has_the_calls_of_all_pods_newest_first() {
    let (first, second) = (Pod::start(1).await, Pod::start(2).await);
    first.knows(&second);
    first.call(1, CallStatus::InProgress);
    second.call(2, CallStatus::Connecting);
    first.call(3, CallStatus::InProgress);
    second.call(4, CallStatus::Ended);
    let page = async |query: &str| {
        let (status, body) = first.get(&format!("/api/v1/calls{query}")).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body.get("warnings"), None);
        let id = |call: &Value| call["id"].as_str().unwrap().rsplit('0').next().unwrap().to_owned();
        let ids: Vec<String> = body["calls"].as_array().unwrap().iter().map(id).collect();
        (ids.join(" "), body["pagination"].clone())
    };
    let pagination = |limit, offset| json!({ "total": 4, "limit": limit, "offset": offset });
    assert_eq!(page("").await, ("4 3 2 1".to_owned(), pagination(50, 0)));
    assert_eq!(page("?limit=2").await, ("4 3".to_owned(), pagination(2, 0)));
    assert_eq!(page("?limit=2&offset=1").await, ("3 2".to_owned(), pagination(2, 1)));
    assert_eq!(page("?offset=9").await, (String::new(), pagination(50, 9)));
    let live = json!({ "total": 3, "limit": 50, "offset": 0 });
    assert_eq!(page("?ended_within=0").await, ("3 2 1".to_owned(), live), "of no pod those that are over");
}

#[tokio::test]
async fn a_key_that_asks_for_a_namespace_sees_and_commands_its_calls_only_at_every_pod() {
    let (mut owner, asked) = (Pod::start(1).await, Pod::start(2).await);
    asked.knows(&owner);
    let id = owner.call(7, CallStatus::InProgress);
    let ours = owner.calls.get(id, Timestamp::now()).unwrap().number_id.clone().unwrap().namespace;
    for pod in [&owner, &asked] {
        for (namespace, sees) in [(ours.as_str(), true), ("another", false), ("", false)] {
            let (status, list) = ask_for(pod.address, namespace, "GET", "/api/v1/calls", "").await;
            assert_eq!((status.as_u16(), list["pagination"]["total"].as_u64()), (200, Some(u64::from(sees))));
            let path = format!("/api/v1/calls/{id}");
            let (status, _) = ask_for(pod.address, namespace, "GET", &path, "").await;
            assert_eq!(status.as_u16(), if sees { 200 } else { 404 }, "{namespace}");
        }
        let path = format!("/api/v1/calls/{id}/control");
        let (status, _) = ask_for(pod.address, "another", "POST", &path, r#"{"type":"end-call"}"#).await;
        assert_eq!(status.as_u16(), 404);
    }
    assert!(owner.commands.try_recv().is_err(), "nobody else's command reaches the call");
}

#[tokio::test]
async fn a_wrong_page_is_refused_by_the_name_of_its_parameter() {
    let pod = Pod::start(1).await;
    for (query, param) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("offset=-1", "offset"),
        ("limit=", "limit"),
        ("ended_within=3601", "ended_within"),
        ("status=ended", "status"),
    ] {
        let (status, body) = pod.get(&format!("/api/v1/calls?{query}")).await;
        assert_eq!((status.as_u16(), &body["param"]), (400, &json!(param)), "{query}");
    }
}

#[tokio::test]
async fn a_pod_that_can_not_be_asked_is_a_warning_and_not_a_failure() {
    let (first, second, third) = (Pod::start(1).await, Pod::start(2).await, Pod::start(3).await);
    first.knows(&second);
    first.knows(&third);
    first.call(1, CallStatus::InProgress);
    let gone = second.call(2, CallStatus::InProgress);
    third.call(3, CallStatus::InProgress);
    std::fs::write(third.keys.path().join("crm"), "another key").unwrap();
    let (address, stop) = (second.address, second.stop.clone());
    stop.cancel();
    tokio::time::timeout(PATIENCE, async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let (status, body) = first.get("/api/v1/calls").await;
    assert_eq!((status.as_u16(), body["calls"].as_array().unwrap().len()), (200, 1));
    let warnings = body["warnings"].to_string();
    assert!(warnings.contains("gw-00000002") && warnings.contains("gw-00000003"), "{warnings}");
    let (status, body) = first.get(&format!("/api/v1/calls/{gone}")).await;
    assert_eq!(status.as_u16(), 503, "{body}");
    assert!(body["message"].as_str().unwrap().contains("gw-00000002"), "{body}");
}

#[tokio::test]
async fn a_key_that_the_owner_does_not_know_yet_is_no_401() {
    let (owner, asked) = (Pod::start(1).await, Pod::start(2).await);
    asked.knows(&owner);
    let id = owner.call(7, CallStatus::InProgress);
    std::fs::write(owner.keys.path().join("crm"), "the key before").unwrap();
    let (status, body) = asked.get(&format!("/api/v1/calls/{id}")).await;
    assert_eq!(status.as_u16(), 503);
    assert!(body["message"].as_str().unwrap().contains("does not know this key yet"), "{body}");
}

#[tokio::test]
async fn a_pod_is_ready_from_its_first_table_until_its_last_call_is_gone() {
    let pod = Pod::start(1).await;
    for (phase, code) in
        [(Phase::WaitingForTable, 503), (Phase::Starting, 503), (Phase::Serving, 200), (Phase::Draining, 200)]
    {
        pod.phase.send_replace(phase);
        let (status, _) = send_raw(pod.address, "GET", "/readyz", None, "").await;
        assert_eq!(status.as_u16(), code, "{phase:?}");
        let (status, _) = send_raw(pod.address, "GET", "/healthz", None, "").await;
        assert_eq!(status.as_u16(), 200, "{phase:?}");
    }
}

#[tokio::test]
async fn requests_are_counted_by_route_and_not_by_path() {
    let pod = Pod::start(1).await;
    let id = pod.call(7, CallStatus::InProgress);
    pod.get(&format!("/api/v1/calls/{id}")).await;
    pod.get("/api/v1/somewhere/else").await;
    let (_, text) = send_raw(pod.address, "GET", "/metrics", None, "").await;
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(
        text.contains(r#"voicedock_http_requests_total{route="/api/v1/calls/{id}",code="200"} 1"#),
        "{text}"
    );
    assert!(!text.contains("call_") && !text.contains("somewhere"), "{text}");
}

/// Virtual time passes as soon as nothing else happens, so the time-outs of the server are seen at once.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_idle_or_slow_is_closed() {
    let pod = Pod::start(1).await;
    for sent in ["", "GET /healthz HT", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut connection = TcpStream::connect(pod.address).await.unwrap();
        connection.write_all(sent.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut heard)).await;
        assert!(closed.is_ok(), "after {sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_ends_with_the_request() {
    let pod = Pod::start(1).await;
    let id = pod.call(7, CallStatus::InProgress);
    let mut connection = TcpStream::connect(pod.address).await.unwrap();
    let head = format!(
        "POST /api/v1/calls/{id}/control HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 9\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    tokio::time::timeout(REQUEST_TIMEOUT + PATIENCE, connection.read_exact(&mut first))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&first, b"HTTP/1.1 503");
}
