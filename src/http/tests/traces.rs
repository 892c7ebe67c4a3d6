//! Traces over HTTP: at one pod, and at two of which either may get the next call.

use std::time::Instant;

use super::*;
use crate::gateway::trace::{Trace, Way};
use crate::sip::event::{Flow, Transport};

const NUMBER: &str = r#"{"number": "+31201234567", "seconds": 30}"#;

impl Pod {
    /// The next trace that the shard is told of.
    async fn traced(&mut self) -> Arc<Trace> {
        let command = tokio::time::timeout(PATIENCE, self.commands.recv()).await.unwrap().unwrap();
        let ControlRequest::Trace { trace, reply } = command else { panic!("{command:?}") };
        reply.send(Ok(())).unwrap();
        trace
    }

    async fn ask(&self, method: &str, path: &str) -> (StatusCode, Value) {
        ask_at(self.address, method, path, "").await
    }
}

async fn ask_at(pod: SocketAddr, method: &str, path: &str, body: &str) -> (StatusCode, Value) {
    let (status, bytes) = send_raw(pod, method, path, Some(&format!("Bearer {KEY}")), body).await;
    (status, if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() })
}

/// Begins a trace.
async fn begin(pod: SocketAddr, body: &str) -> (StatusCode, Value) {
    ask_at(pod, "POST", "/api/v1/traces", body).await
}

fn add(trace: &Trace, text: &str) {
    let flow = Flow { transport: Transport::Udp, peer: "192.0.2.1:5060".parse().unwrap() };
    trace.add(Way::In, flow, None, text.as_bytes(), Instant::now());
}

#[tokio::test]
async fn a_trace_of_a_call_is_begun_read_and_ended_at_any_pod() {
    let (mut first, second) = (Pod::start(1).await, Pod::start(2).await);
    first.knows(&second);
    second.knows(&first);
    let call = first.call(7, CallStatus::InProgress);
    let body = json!({ "call": call }).to_string();
    let (asked, trace) = tokio::join!(begin(second.address, &body), first.traced());
    let (status, begun) = asked;
    assert_eq!((status, &begun["state"]), (StatusCode::CREATED, &json!("running")));
    assert_eq!(begun["call"], json!(call));
    add(&trace, "BYE sip:+31201234567@h SIP/2.0\r\n\r\n");
    add(&trace, "SIP/2.0 200 OK\r\n\r\n");

    let path = format!("/api/v1/traces/{}", begun["id"].as_str().unwrap());
    for pod in [&first, &second] {
        let (status, shown) = pod.ask("GET", &format!("{path}?after=1")).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(shown["messages"][0]["text"], json!("SIP/2.0 200 OK\n"), "{shown}");
        assert_eq!((&shown["messages"][0]["number"], &shown["more"]), (&json!(2), &json!(false)));
    }
    assert_eq!(second.ask("DELETE", &path).await.0, StatusCode::NO_CONTENT);
    assert_eq!(first.ask("GET", &path).await.1["over"], json!("stopped"));
}

#[tokio::test]
async fn the_next_call_is_found_at_whichever_pod_it_comes_to() {
    let (mut first, mut second) = (Pod::start(1).await, Pod::start(2).await);
    first.knows(&second);
    second.knows(&first);
    let (asked, here, there) = tokio::join!(begin(first.address, NUMBER), first.traced(), second.traced());
    let (status, begun) = asked;
    assert_eq!(
        (status, &begun["state"], &begun["warnings"]),
        (StatusCode::CREATED, &json!("waiting"), &Value::Null)
    );
    let path = format!("/api/v1/traces/{}", begun["id"].as_str().unwrap());
    assert_eq!(first.ask("GET", &path).await.1["state"], json!("waiting"));

    assert!(there.claim(Instant::now()));
    add(&there, "INVITE sip:h SIP/2.0\r\n\r\n");
    for pod in [&first, &second] {
        let (_, shown) = pod.ask("GET", &path).await;
        assert_eq!(
            (&shown["state"], &shown["messages"][0]["number"]),
            (&json!("running"), &json!(1)),
            "{shown}"
        );
    }
    assert!(!here.claim(Instant::now()), "one call is traced, not one at each pod");
    assert_eq!(first.ask("DELETE", &path).await.0, StatusCode::NO_CONTENT);
    assert!(there.is_over(Instant::now()));
}

#[tokio::test]
async fn a_pod_that_can_not_be_told_of_a_trace_is_a_warning() {
    let (mut first, second) = (Pod::start(1).await, Pod::start(2).await);
    first.knows(&second);
    second.stop.cancel();
    drop(second);
    let (asked, _) = tokio::join!(begin(first.address, NUMBER), first.traced());
    let (status, begun) = asked;
    assert_eq!(status, StatusCode::CREATED);
    let warning = begun["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("calls at pod gw-00000002 are not traced: it "), "{warning}");
}

#[tokio::test]
async fn a_namespace_traces_its_own_calls_and_sees_its_own_traces() {
    let mut pod = Pod::start(1).await;
    let call = pod.call(7, CallStatus::InProgress);
    let body = json!({ "call": call }).to_string();
    let (status, _) = ask_for(pod.address, "other", "POST", "/api/v1/traces", &body).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let address = pod.address;
    let (asked, _) = tokio::join!(ask_for(address, "acme", "POST", "/api/v1/traces", &body), pod.traced());
    let path = format!("/api/v1/traces/{}", asked.1["id"].as_str().unwrap());
    assert_eq!(ask_for(address, "other", "GET", &path, "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(ask_for(address, "acme", "GET", &path, "").await.0, StatusCode::OK);
}
