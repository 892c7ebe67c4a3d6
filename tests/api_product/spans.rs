//! OpenTelemetry: an operator, a gateway and a call, told to a collector that reads what it is sent with OTLP's own types.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;

use crate::calls::{CALLER, NUMBER, Scene, made, number_behind};
use crate::stage::{Stage, eventually};
use crate::support::api_server::SOON;
use crate::support::net::get;

type Received = Arc<Mutex<Vec<(String, Span)>>>;

/// A receiver of traces; each span with the name of the service that sent it.
struct Collector {
    address: SocketAddr,
    received: Received,
}

impl Collector {
    async fn start() -> Self {
        let received = Received::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&received));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { address, received }
    }

    /// The first span of a service that is so.
    fn find(&self, service: &str, holds: impl Fn(&Span) -> bool) -> Option<Span> {
        let received = self.received.lock().unwrap();
        received.iter().find(|(from, span)| from == service && holds(span)).map(|(_, span)| span.clone())
    }
}

async fn take(State(received): State<Received>, body: Bytes) -> impl IntoResponse {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    for of_process in request.resource_spans {
        let service = text(&of_process.resource.unwrap().attributes, "service.name").unwrap();
        let spans = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
        received.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
    }
    ([(CONTENT_TYPE, "application/x-protobuf")], ExportTraceServiceResponse::default().encode_to_vec())
}

fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Any::StringValue(text) => text.clone(),
        Any::IntValue(number) => number.to_string(),
        Any::BoolValue(flag) => flag.to_string(),
        other => format!("{other:?}"),
    })
}

#[tokio::test]
async fn a_call_with_its_transfer_and_the_work_for_it_are_told_to_a_collector() {
    let stage = Stage::set("spans").await;
    let collector = Collector::start().await;
    let endpoint = format!("http://{}", collector.address);
    let to = |delay: &str| {
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), endpoint.clone()),
            ("OTEL_BSP_SCHEDULE_DELAY".to_owned(), delay.to_owned()),
        ]
    };
    // The gateway sends nothing before it ends: what it has then must not be lost.
    let (scene, pbx) = Scene::with(&stage, &to("50"), &to("600000")).await;
    let spec = json!({ "type": "number", "number": "+31612345678", "description": "People" });
    stage.apply("people", "TransferDestination", "sales", spec).await;
    let tools =
        json!([{ "type": "transfer_call", "destinations": [{ "destination_ref": { "name": "sales" } }] }]);
    let assistant = json!({ "name": "Support", "llm_config": { "tools": tools } });
    let assistant = made(&stage, "/assistants", assistant);
    let (trunk, number) = number_behind(&stage, pbx, &assistant);
    scene.routes(&stage).await;

    let mut caller = scene.call();
    let list = stage.shows("/calls", |list| list["calls"][0]["status"] == "in-progress").await;
    let id = list["calls"][0]["id"].as_str().unwrap().to_owned();
    let transfer = json!({ "type": "transfer", "destination": "sales" });
    assert_eq!(stage.ask("POST", &format!("/calls/{id}/control"), Some(transfer)).0, 200);
    tokio::time::timeout(SOON, caller.wait()).await.expect("the caller is through").unwrap();
    let (_, metrics) = get(scene.http, "/metrics", "").await.unwrap();
    assert!(metrics.contains(r#"voicedock_spans_total{outcome="dropped-queue-full"} 0"#), "{metrics}");
    scene.end_gateway().await;

    let of_gateway = |holds: &dyn Fn(&Span) -> bool, what: &str| {
        collector.find("voicedock-gateway", holds).unwrap_or_else(|| panic!("no span {what}"))
    };
    let key = |name: &str| format!("{}/{name}", stage.namespace);
    let call = of_gateway(
        &|span| text(&span.attributes, "voicedock.call.id").as_deref() == Some(&*id),
        "of the call",
    );
    let says = |span: &Span, attributes: &[(&str, &str)]| {
        for (name, value) in attributes {
            assert_eq!(text(&span.attributes, name).as_deref(), Some(*value), "{name} of {}", span.name);
        }
    };
    assert_eq!((call.name.as_str(), call.parent_span_id.len()), ("call", 0));
    says(
        &call,
        &[
            ("voicedock.number", &key(&number)),
            ("voicedock.assistant", &key(&assistant)),
            ("voicedock.answered", "true"),
            ("voicedock.end_reason", "caller-hung-up"),
        ],
    );
    let child = |parent: &Span, name: &str| {
        let found = of_gateway(&|span| span.name == name && span.parent_span_id == parent.span_id, name);
        assert_eq!(found.trace_id, parent.trace_id);
        assert!(
            parent.start_time_unix_nano <= found.start_time_unix_nano
                && found.start_time_unix_nano <= found.end_time_unix_nano
                && found.end_time_unix_nano <= parent.end_time_unix_nano,
            "{name} lies within its parent"
        );
        found
    };
    says(&child(&call, "dial agent"), &[("sip.response.status_code", "200")]);
    let transfer = child(&call, "transfer");
    says(
        &transfer,
        &[
            ("voicedock.destination", "sales"),
            ("voicedock.outcome", "answered"),
            ("voicedock.trunk", &key(&trunk)),
        ],
    );
    says(&child(&transfer, "dial destination"), &[("voicedock.trunk", &key(&trunk))]);

    eventually("the operator's work", async || {
        let of = |work: &str, outcome: &str| {
            collector.find("voicedock-operator", |span| {
                span.name == work
                    && text(&span.attributes, "voicedock.outcome").as_deref() == Some(outcome)
                    && text(&span.attributes, "voicedock.generation").is_some()
                    && text(&span.attributes, "k8s.namespace.name") == Some(stage.namespace.clone())
            })
        };
        of("publish", "written").and(of("provision", "done")).and(of("write status", "written"))
    })
    .await;
    assert!(collector.find("voicedock-operator", |span| span.name == "compile").is_some());
    for (_, span) in collector.received.lock().unwrap().iter() {
        let whole = format!("{span:?}");
        for private in [&CALLER[1..], &NUMBER[1..], "31612345678", "hms-sovereign"] {
            // Resources that people have named after a number are named as they are.
            let whole = whole.replace(&number, "");
            assert!(!whole.contains(private), "{private} is in {whole}");
        }
    }
}
