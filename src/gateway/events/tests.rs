//! Events over real connections, to a receiver that the test serves.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::DropGuard;

use super::reach::Reach;
use super::*;
use crate::gateway::signing::signature;
use crate::routing::decide::Index;
use crate::routing::table::CredentialId;

const LIMIT: Duration = Duration::from_secs(30);
const SECRET: &str = "whsec_7";
const LOOPBACK: &[&str] = &["127.0.0.0/8"];

/// Whoever gets events: answers each with the next of its answers, 204 after the last.
struct Receiver {
    address: SocketAddr,
    got: mpsc::UnboundedReceiver<(HeaderMap, Bytes)>,
}

impl Receiver {
    async fn answering(answers: Vec<Response>) -> Self {
        let (sender, got) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Arc::new(std::sync::Mutex::new(answers.into_iter()));
        let take = move |headers: HeaderMap, body: Bytes| {
            let _ = sender.send((headers, body));
            let answer = answers.lock().unwrap().next();
            async move { answer.unwrap_or_else(|| StatusCode::NO_CONTENT.into_response()) }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/hook", post(take))).await });
        Self { address, got }
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    async fn get(&mut self) -> (HeaderMap, Bytes) {
        tokio::time::timeout(LIMIT, self.got.recv()).await.expect("no event came").unwrap()
    }
}

struct Stage {
    events: Events,
    snapshot: Arc<ArcSwap<Snapshot>>,
    metrics: Metrics,
    _closing: DropGuard,
}

impl Stage {
    /// The events of one assistant are sent to `url`; these networks are allowed.
    fn to(url: &str, allowed: &[&str]) -> Self {
        let reach = Reach { allowed: allowed.iter().map(|network| network.parse().unwrap()).collect() };
        let snapshot = Arc::new(ArcSwap::from_pointee(naming(url, SECRET)));
        let (metrics, closing) = (Metrics::new(), CancellationToken::new());
        let way = Way::new(reach).unwrap();
        let events = Events::start(way, Arc::clone(&snapshot), &metrics, closing.clone());
        Self { events, snapshot, metrics, _closing: closing.drop_guard() }
    }

    fn send(&self, call: u64, body: Value) {
        let assistant = ObjectKey::new("acme", "support");
        self.events.send(call, &assistant, Message { kind: "status-update", body });
    }

    /// The metrics, once nothing waits any more.
    async fn settled(&self) -> String {
        tokio::time::timeout(LIMIT, async {
            while self.events.waiting() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("events wait for ever");
        self.metrics.encode()
    }
}

/// An assistant whose events are sent to `url`, signed with `secret`.
fn naming(url: &str, secret: &str) -> Snapshot {
    let table = json!({
        "numbers": {}, "destinations": {}, "trunks": {},
        "assistants": { "acme/support": {
            "agent": { "sip": { "targets": [], "answerTimeoutSeconds": 10 } }, "destinations": {},
            "events": { "url": url, "secret": secret },
        } },
    });
    let credentials = [(CredentialId(secret.into()), Credential::Signing { secret: secret.into() })].into();
    let index = Index::new(Arc::new(serde_json::from_value(table).unwrap()));
    Snapshot { index, credentials, ..Snapshot::none() }
}

fn counted(text: &str, outcome: &str) -> bool {
    text.contains(&format!("voicedock_events_total{{outcome=\"{outcome}\"}} 1"))
}

#[tokio::test]
async fn an_event_arrives_signed() {
    let mut receiver = Receiver::answering(Vec::new()).await;
    let stage = Stage::to(&receiver.url(), LOOPBACK);
    stage.send(1, json!({ "message": { "type": "status-update" } }));
    let (headers, body) = receiver.get().await;
    let header = |name: &str| headers[name].to_str().unwrap();
    assert_eq!(&body[..], br#"{"message":{"type":"status-update"}}"#);
    assert_eq!((header("x-webhook-event"), header("content-type")), ("status-update", "application/json"));
    let timestamp = header("x-webhook-timestamp").parse().unwrap();
    assert_eq!(header("x-webhook-signature"), signature(SECRET, timestamp, &body));
    assert!(counted(&stage.settled().await, "delivered"));
}

#[tokio::test]
async fn an_event_is_sent_again_with_the_same_id_until_it_is_taken_and_those_of_its_call_wait() {
    let busy = StatusCode::SERVICE_UNAVAILABLE.into_response();
    let mut receiver = Receiver::answering(vec![busy]).await;
    let stage = Stage::to(&receiver.url(), LOOPBACK);
    stage.send(1, json!("first"));
    stage.send(1, json!("second"));
    let got = [receiver.get().await, receiver.get().await, receiver.get().await];
    let bodies: Vec<_> = got.iter().map(|(_, body)| &body[..]).collect();
    assert_eq!(bodies, [br#""first""#.as_slice(), br#""first""#, br#""second""#]);
    let ids: Vec<_> = got.iter().map(|(headers, _)| &headers["x-webhook-id"]).collect();
    assert!(ids[0] == ids[1] && ids[1] != ids[2]);
}

#[tokio::test]
async fn what_is_refused_for_good_or_sent_elsewhere_is_not_sent_again() {
    let mut elsewhere = Receiver::answering(Vec::new()).await;
    let location = [(header::LOCATION, elsewhere.url())];
    for answer in
        [StatusCode::GONE.into_response(), (StatusCode::TEMPORARY_REDIRECT, location).into_response()]
    {
        let mut receiver = Receiver::answering(vec![answer]).await;
        let stage = Stage::to(&receiver.url(), LOOPBACK);
        stage.send(1, json!(1));
        receiver.get().await;
        assert!(counted(&stage.settled().await, "failed"));
        assert!(receiver.got.try_recv().is_err());
    }
    assert!(elsewhere.got.try_recv().is_err());
}

#[tokio::test]
async fn nothing_is_sent_to_what_is_not_public_by_address_or_by_name() {
    let mut receiver = Receiver::answering(Vec::new()).await;
    let port = receiver.address.port();
    for url in [
        format!("http://127.0.0.1:{port}/hook"),
        format!("https://127.0.0.1:{port}/hook"),
        format!("http://localhost:{port}/hook"),
        format!("https://localhost:{port}/hook"),
        format!("http://[::ffff:127.0.0.1]:{port}/hook"),
        // Public, but not encrypted.
        "http://198.41.0.4/hook".to_owned(),
    ] {
        let stage = Stage::to(&url, &["10.0.0.0/8"]);
        stage.send(1, json!(1));
        assert!(counted(&stage.settled().await, "failed"), "{url}");
    }
    assert!(receiver.got.try_recv().is_err());
}

#[tokio::test]
async fn a_secret_that_was_revoked_signs_no_event() {
    let mut receiver = Receiver::answering(Vec::new()).await;
    let stage = Stage::to(&receiver.url(), LOOPBACK);
    let revoked = Snapshot { credentials: HashMap::new(), ..naming(&receiver.url(), SECRET) };
    stage.snapshot.store(Arc::new(revoked));
    stage.send(1, json!(1));
    assert!(counted(&stage.settled().await, "dropped-no-receiver"));
    assert!(receiver.got.try_recv().is_err());
}

#[tokio::test]
async fn a_secret_that_was_exchanged_signs_the_next_attempt() {
    let busy = StatusCode::SERVICE_UNAVAILABLE.into_response();
    let mut receiver = Receiver::answering(vec![busy]).await;
    let stage = Stage::to(&receiver.url(), LOOPBACK);
    stage.send(1, json!(1));
    for secret in [SECRET, "another"] {
        let (headers, body) = receiver.get().await;
        let timestamp = headers["x-webhook-timestamp"].to_str().unwrap().parse().unwrap();
        assert_eq!(headers["x-webhook-signature"], signature(secret, timestamp, &body));
        stage.snapshot.store(Arc::new(naming(&receiver.url(), "another")));
    }
    assert!(counted(&stage.settled().await, "delivered"));
}

#[tokio::test]
async fn what_does_not_fit_is_dropped_and_counted_and_nobody_waits() {
    let stage = Stage::to("https://192.0.2.1/hook", &[]);
    for call in 0..=WAITING as u64 {
        stage.send(call, json!(1));
    }
    // Nothing else ran meanwhile.
    let text = stage.metrics.encode();
    assert!(counted(&text, "dropped-queue-full"), "{text}");
}
