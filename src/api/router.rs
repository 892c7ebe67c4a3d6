//! Routes, and what stands before each: a bound in time and size, a key, its rate, its scopes.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::{Api, Client};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cache::{Cache, Stored};
use super::gateways::Gateways;
use super::keys::Key;
use super::metrics::{ApiMetrics, RequestLabels};
use super::objects::{self, Product};
use super::rate::Rate;
use super::scopes::{Access, Scope, Subject};
use super::secrets::{self, Secrets};
use super::store::{Kind, Store};
use super::{calls, gateways, openapi, traces, trunks, watch, webhooks};
use crate::http::error::ApiError;
use crate::http::keys::bearer;
use crate::metrics::Metrics;
use crate::resources::{Assistant, PhoneNumber, SipTrunk};
use crate::routing::table::ObjectKey;
use crate::spans;

/// How long a request may take, its body and the API server's answers included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How large a request's body may be, bytes: an object of the API server isn't much larger.
pub const BODY_LIMIT: usize = 1 << 20;
/// Where a key comes from, for whoever has none.
const WHENCE: &str = "that `voicedock api-key create` has made";

/// What the handlers share; clones are the same.
#[derive(Clone)]
pub struct Service(Arc<Parts>);

/// See [`Service`].
pub struct Parts {
    /// Writes, and reads past the caches.
    pub store: Store,
    /// Assistants.
    pub assistants: Cache<Assistant>,
    /// Numbers.
    pub numbers: Cache<PhoneNumber>,
    /// Trunks.
    pub trunks: Cache<SipTrunk>,
    /// Keys, and the user names of trunks.
    pub secrets: Secrets,
    /// The gateway pods.
    pub gateways: Gateways,
    /// The gateway of numbers that name none.
    pub default_gateway: Option<ObjectKey>,
    client: Client,
    rate: Option<Rate>,
    started: Instant,
    metrics: ApiMetrics,
}

/// The one namespace that is looked at; all when `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Only<'a> {
    /// For resources and keys.
    pub objects: Option<&'a str>,
    /// For gateway pods. They are where they are, whichever namespace is served, so this may be another.
    pub gateways: Option<&'a str>,
}

impl std::ops::Deref for Service {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Service {
    /// Nothing is known yet. `key_rate` is how many requests a second a key may make; any number when `None`.
    pub fn new(
        client: Client,
        default_gateway: Option<ObjectKey>,
        key_rate: Option<NonZeroU32>,
        metrics: &Metrics,
    ) -> Self {
        Self(Arc::new(Parts {
            store: Store::new(client.clone()),
            assistants: Cache::default(),
            numbers: Cache::default(),
            trunks: Cache::default(),
            secrets: Secrets::default(),
            gateways: Gateways::default(),
            default_gateway,
            client,
            rate: key_rate.map(Rate::per_second),
            started: Instant::now(),
            metrics: ApiMetrics::new(metrics),
        }))
    }

    /// Starts every watch; they end with `stop`.
    pub fn start(&self, tasks: &TaskTracker, only: Only<'_>, stop: CancellationToken) {
        let (keys, end) = (self.clone(), stop.clone());
        let hear = move |delta| keys.secrets.hear(delta);
        let secrets = self.watched(only.objects);
        tasks.spawn(async move {
            watch::follow(secrets, Some(&secrets::selector()), secrets::reduce, hear, end).await;
        });
        let (pods, end) = (self.clone(), stop.clone());
        let hear = move |delta| pods.gateways.hear(delta);
        let leases = self.watched(only.gateways);
        tasks.spawn(async move {
            watch::follow(leases, Some(&gateways::selector()), gateways::reduce, hear, end).await;
        });
        self.follow::<Assistant>(tasks, only.objects, &stop);
        self.follow::<PhoneNumber>(tasks, only.objects, &stop);
        self.follow::<SipTrunk>(tasks, only.objects, &stop);
    }

    /// Whether every watch has listed once.
    pub fn is_ready(&self) -> bool {
        self.assistants.is_listed()
            && self.numbers.is_listed()
            && self.trunks.is_listed()
            && self.secrets.is_listed()
    }

    fn follow<K: Product>(&self, tasks: &TaskTracker, namespace: Option<&str>, stop: &CancellationToken) {
        let (service, stop) = (self.clone(), stop.clone());
        let hear = move |delta| K::cache(&service).hear(delta);
        let reduce = |object: K| Some(Stored::new(object));
        tasks.spawn(watch::follow(self.watched::<K>(namespace), None, reduce, hear, stop));
    }

    fn watched<K: Kind>(&self, namespace: Option<&str>) -> Api<DeserializeGuard<K>> {
        match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}

/// All routes of the API.
pub fn router(service: Service) -> Router {
    let guarded = Router::new()
        .merge(changeable::<Assistant>("/assistants"))
        .merge(changeable::<PhoneNumber>("/numbers"))
        .route("/sip-trunks", get(objects::list::<SipTrunk>).post(trunks::create))
        .route("/sip-trunks/{id}", get(objects::get::<SipTrunk>).delete(trunks::delete))
        .route("/calls", get(calls::list))
        .route("/calls/test-destination", post(calls::test_destination))
        .route("/calls/{id}", get(calls::get))
        .route("/calls/{id}/control", post(calls::control))
        .route("/traces", post(traces::begin))
        .route("/traces/{id}", get(traces::read).delete(traces::stop))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(service.clone(), authorised));
    Router::new()
        .route("/api/v1/health", get(health))
        .route("/api/v1/openapi.json", get(document))
        .route(webhooks::PATH, post(webhooks::openai))
        .nest("/api/v1", guarded)
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn(never_stored))
        .layer(from_fn_with_state(service.clone(), bounded_and_counted))
        .with_state(service)
}

fn changeable<K: objects::Editable>(path: &str) -> Router<Service> {
    let one: MethodRouter<Service> =
        get(objects::get::<K>).patch(objects::change::<K>).delete(objects::delete::<K>);
    Router::new()
        .route(path, get(objects::list::<K>).post(objects::create::<K>))
        .route(&format!("{path}/{{id}}"), one)
}

/// Lets a request through whose key may do it, and tells the handler the key.
async fn authorised(State(service): State<Service>, mut request: Request, next: Next) -> Response {
    match admitted(&service, &request) {
        Ok(key) => {
            request.extensions_mut().insert(key);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

fn admitted(service: &Service, request: &Request) -> Result<Arc<Key>, ApiError> {
    let sent = request.headers().get(header::AUTHORIZATION).and_then(bearer);
    let keys = service.secrets.keys();
    let key = sent.and_then(|sent| keys.find(sent, Timestamp::now()));
    let key = key.ok_or_else(|| ApiError::unauthorized(WHENCE))?;
    if let Some(rate) = service.rate {
        rate.take(&key.bucket, service.started.elapsed()).map_err(ApiError::rate_limited)?;
    }
    // Below the prefix the path begins with the subject; what doesn't is 404 for everybody.
    let subject = request.uri().path().split('/').nth(1).and_then(Subject::named);
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let access = if reads { Access::Read } else { Access::Write };
    match subject.map(|subject| Scope(subject, access)) {
        Some(scope) if !key.scopes.allow(scope) => Err(ApiError::forbidden(format!(
            "this key may do {} only; {scope} is needed, which `voicedock api-key create --scopes` gives",
            key.scopes
        ))),
        _ => Ok(Arc::clone(key)),
    }
}

async fn bounded_and_counted(State(service): State<Service>, request: Request, next: Next) -> Response {
    let (begin, method) = (Instant::now(), request.method().clone());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
    let answer = answer.unwrap_or_else(|_| ApiError::too_slow(REQUEST_TIMEOUT).into_response());
    let labels =
        RequestLabels { route: route.unwrap_or_else(|| "none".to_owned()), code: answer.status().as_u16() };
    spans::answered(&method, &labels.route, labels.code, begin.elapsed());
    service.metrics.answered(&labels, begin.elapsed());
    answer
}

/// Answers are about one key's namespace and about this moment.
async fn never_stored(request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

async fn health() -> impl IntoResponse {
    axum::Json(json!({ "status": "ok" }))
}

async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi::text())
}

async fn no_such_path() -> ApiError {
    ApiError::not_found(
        "there is nothing at this path; under /api/v1 there are assistants, numbers, sip-trunks, calls, traces and health",
    )
}

async fn wrong_method() -> ApiError {
    ApiError::wrong_method(
        "lists and objects take GET, lists of assistants, numbers and sip-trunks POST; Allow says which this one takes",
    )
}
