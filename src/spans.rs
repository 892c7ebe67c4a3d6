//! OpenTelemetry traces over OTLP (http/protobuf): what the operator and gateways did, as spans, for whoever runs a collector.
//!
//! Off, at the cost of one look at a flag, unless `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) says where to;
//! the other standard variables hold as well (docs/tracing.md). Spans wait in a bounded queue and go out in batches from a task of
//! their own: nothing waits for a collector, and what finds the queue full is dropped and counted ([`counts`]). The last ones are sent
//! when the process ends ([`Spans::flush`]).
//!
//! Attributes name objects, outcomes and call ids; numbers and addresses of people are in none.

use std::env;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::gateway::tls::towards_the_public;

/// Spans that may wait, when `OTEL_BSP_MAX_QUEUE_SIZE` doesn't say: the specification's figure.
const QUEUE: usize = 2048;
/// Spans of one request, when `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` doesn't say.
const BATCH: usize = 512;
/// Milliseconds for which more are waited for, when `OTEL_BSP_SCHEDULE_DELAY` doesn't say.
const DELAY: usize = 5000;
/// How long a request to the collector may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much of its answer is read, bytes.
const ANSWER_LIMIT: usize = 64 * 1024;
/// How long the last spans may take when the process ends.
const FAREWELL: Duration = Duration::from_secs(3);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();
static EXPORTED: AtomicU64 = AtomicU64::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);

/// What spans are begun with; `None` while traces are off.
pub fn tracer() -> Option<&'static SdkTracer> {
    TRACER.get()
}

/// What became of the spans so far, by outcome; nothing while traces are off.
pub fn counts() -> Vec<(&'static str, u64)> {
    let counts = [("exported", &EXPORTED), ("dropped-queue-full", &DROPPED), ("failed", &FAILED)];
    let on = tracer().is_some();
    counts.iter().filter(|_| on).map(|(outcome, count)| (*outcome, count.load(Ordering::Relaxed))).collect()
}

/// The variables that a pod which this process makes is given: its own, but for its name and for headers, which may be secret and
/// would stand in an object that many may read.
pub fn handed_on(variables: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let own =
        |name: &str| name.starts_with("OTEL_") && name != "OTEL_SERVICE_NAME" && !name.ends_with("_HEADERS");
    let mut handed_on: Vec<_> = variables.filter(|(name, _)| own(name)).collect();
    handed_on.sort();
    handed_on
}

/// An HTTP request was answered, after so long.
pub fn answered(method: &Method, route: &str, code: u16, took: Duration) {
    let Some(tracer) = tracer() else { return };
    let attributes = [
        KeyValue::new("http.request.method", method.to_string()),
        KeyValue::new("http.route", route.to_owned()),
        KeyValue::new("http.response.status_code", i64::from(code)),
    ];
    let builder = tracer
        .span_builder(format!("{method} {route}"))
        .with_kind(SpanKind::Server)
        .with_start_time(SystemTime::now() - took)
        .with_attributes(attributes);
    let mut span = tracer.build(builder);
    if code >= 500 {
        span.set_status(Status::error(code.to_string()));
    }
    span.end();
}

/// Traces of the process, for as long as it is there.
#[must_use]
#[derive(Debug, Default)]
pub struct Spans(Option<(CancellationToken, JoinHandle<()>)>);

/// Starts sending spans, if the environment says where to; once a process. `role` is what the process calls itself unless
/// `OTEL_SERVICE_NAME` says otherwise: `voicedock-<role>`. Settings that can't be used are a warning: no call is lost for want of a trace.
pub fn init(role: &str) -> Spans {
    if !is_wanted() {
        return Spans::default();
    }
    let exporter = match exporter() {
        Ok(exporter) => exporter,
        Err(why) => {
            tracing::warn!("no traces are sent: {why}; look at the variables OTEL_EXPORTER_OTLP_*");
            return Spans::default();
        }
    };
    let (queue, spans) = mpsc::channel(setting("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE));
    let resource = resource(role);
    let provider = SdkTracerProvider::builder()
        .with_resource(resource.clone())
        .with_span_processor(Queue(queue))
        .build();
    if TRACER.set(provider.tracer("voicedock")).is_err() {
        return Spans::default();
    }
    let mut sender = Sender {
        exporter,
        batch: setting("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH),
        delay: Duration::from_millis(setting("OTEL_BSP_SCHEDULE_DELAY", DELAY) as u64),
        failing: false,
    };
    sender.exporter.set_resource(&resource);
    let stop = CancellationToken::new();
    let task = tokio::spawn(sender.run(spans, stop.clone()));
    Spans(Some((stop, task)))
}

impl Spans {
    /// Sends what waits, for a moment. What ends later is dropped.
    pub async fn flush(self) {
        let Some((stop, task)) = self.0 else { return };
        stop.cancel();
        if tokio::time::timeout(FAREWELL, task).await.is_err() {
            tracing::warn!("the collector does not take the last spans; they are dropped");
        }
    }
}

fn is_wanted() -> bool {
    let said = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let off = said("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || said("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    let somewhere =
        said("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| said("OTEL_EXPORTER_OTLP_ENDPOINT"));
    somewhere.is_some() && !off
}

fn exporter() -> Result<SpanExporter, Box<dyn std::error::Error + Send + Sync>> {
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        let protocol = env::var(name).unwrap_or_default();
        if !matches!(&*protocol, "" | "http/protobuf") {
            return Err(format!("{name} is {protocol}, which is not spoken; write http/protobuf").into());
        }
    }
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(towards_the_public()?)
        .https_or_http()
        .enable_http1()
        .build();
    let client = Http(Client::builder(TokioExecutor::new()).build(connector));
    Ok(SpanExporter::builder().with_http().with_http_client(client).build()?)
}

/// Who sends the spans.
fn resource(role: &str) -> Resource {
    let mut attributes = vec![KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
    let named = env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty())
        || env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|said| said.contains("service.name="));
    if !named {
        attributes.push(KeyValue::new("service.name", format!("voicedock-{role}")));
    }
    for (attribute, name) in [
        ("k8s.namespace.name", "POD_NAMESPACE"),
        ("k8s.pod.name", "POD_NAME"),
        ("service.instance.id", "POD_UID"),
    ] {
        attributes.extend(env::var(name).ok().map(|value| KeyValue::new(attribute, value)));
    }
    Resource::builder().with_attributes(attributes).build()
}

/// A number of the environment, if it is one that can be used.
fn setting(name: &str, usual: usize) -> usize {
    env::var(name).ok().and_then(|value| value.parse().ok()).filter(|value| *value > 0).unwrap_or(usual)
}

/// Where spans go when they end.
#[derive(Debug)]
struct Queue(mpsc::Sender<SpanData>);

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.0.try_send(span).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    // The queue is emptied by its task: see `Spans::flush`.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The way to the collector.
#[derive(Debug)]
struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = async {
            let answer = self.0.request(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        tokio::time::timeout(TIMEOUT, answer).await?
    }
}

/// Sends batches.
struct Sender {
    exporter: SpanExporter,
    batch: usize,
    delay: Duration,
    /// Whether the last one failed: it is said once.
    failing: bool,
}

impl Sender {
    async fn run(mut self, mut spans: mpsc::Receiver<SpanData>, stop: CancellationToken) {
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                _ = spans.recv_many(&mut batch, self.batch) => {}
                () = stop.cancelled() => return,
            }
            let more = async {
                while batch.len() < self.batch {
                    let room = self.batch - batch.len();
                    if spans.recv_many(&mut batch, room).await == 0 {
                        break;
                    }
                }
            };
            tokio::select! {
                () = more => {}
                () = tokio::time::sleep(self.delay) => {}
                () = stop.cancelled() => {}
            }
            if batch.is_empty() {
                return;
            }
            self.send(batch).await;
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let number = batch.len() as u64;
        match self.exporter.export(batch).await {
            Ok(()) => {
                EXPORTED.fetch_add(number, Ordering::Relaxed);
                self.failing = false;
            }
            Err(error) => {
                FAILED.fetch_add(number, Ordering::Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        "the collector takes no spans: {error}; voicedock_spans_total counts those that are lost"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_told_where_traces_go_and_no_secrets() {
        let given = [
            ("OTEL_TRACES_SAMPLER", "always_on"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=secret"),
            ("OTEL_SERVICE_NAME", "operator"),
            ("HOME", "/"),
        ];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let names: Vec<String> = handed_on(given.into_iter()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER"]);
    }

    #[tokio::test]
    async fn spans_that_find_the_queue_full_are_dropped_and_counted() {
        let (queue, mut spans) = mpsc::channel(1);
        let provider = SdkTracerProvider::builder().with_span_processor(Queue(queue)).build();
        let tracer = provider.tracer("test");
        let before = DROPPED.load(Ordering::Relaxed);
        for name in ["first", "second", "third"] {
            tracer.start(name).end();
        }
        assert_eq!(spans.recv().await.unwrap().name, "first");
        assert_eq!(DROPPED.load(Ordering::Relaxed) - before, 2);
    }
}
