//! From pod to pod: a request about a call of another pod is passed on to it with the same key, once. The API role asks pods
//! in the same way.
//!
//! Every exchange is bounded in time and size. A header marks what was passed on, so that it is never passed on again.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::access;
use super::calls::CallList;
use super::page;
use crate::agent::innermost;
use crate::gateway::call_id::Instance;
use crate::gateway::peers::{Peer, Peers};

/// Marks a request that a pod passed on; its value is that pod's instance.
pub const FORWARDED: HeaderName = HeaderName::from_static("x-voicedock-forwarded");
/// Headers of a request that go along with it: who asks, for whom, and that it may come twice.
static SENT: [HeaderName; 7] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    access::NAMESPACE,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("webhook-id"),
    HeaderName::from_static("webhook-timestamp"),
    HeaderName::from_static("webhook-signature"),
];
/// Headers of an answer that come back with it.
static RETURNED: [HeaderName; 3] =
    [header::CONTENT_TYPE, header::RETRY_AFTER, HeaderName::from_static("idempotency-replayed")];
/// How long a peer may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a peer may take to answer a request about one call: longer than it may take to ask its shard.
const PASS_ON_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a peer may take to list its calls.
const LIST_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest answer about one call, bytes.
const ANSWER_LIMIT: usize = 1 << 20;
/// Largest list of a peer, bytes: all the calls that a pod can show.
const LIST_LIMIT: usize = 32 << 20;
/// Peers that are asked for their calls at the same time.
const LISTS: usize = 16;

/// The way to other pods; clones share their connections.
#[derive(Clone, Debug)]
pub struct Forwarder<C = HttpConnector> {
    client: Client<C, Full<Bytes>>,
    list_timeout: Duration,
}

/// Which calls of a peer are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The newest so many.
    pub limit: usize,
    /// Not those that have been over for as many seconds or longer.
    pub ended_within: usize,
}

impl Wanted {
    fn path(self) -> String {
        let Self { limit, ended_within } = self;
        let mut path = format!("/api/v1/calls?limit={limit}");
        // A pod of the version before knows no other value.
        if ended_within != page::LONGEST_ENDED {
            path.push_str(&format!("&{}={ended_within}", page::ENDED_WITHIN));
        }
        path
    }
}

/// What a peer is asked.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The pod that asks.
    pub own: Instance,
    /// Method.
    pub method: Method,
    /// Path and query.
    pub path: &'a str,
    /// What whoever asked first has sent; see [`SENT`].
    pub headers: &'a HeaderMap,
}

/// What a peer answered.
#[derive(Debug)]
pub struct Passed {
    /// Status.
    pub status: StatusCode,
    /// Those of [`RETURNED`] that it has.
    pub headers: HeaderMap,
    /// Body: JSON, as everything below `/api`.
    pub body: Bytes,
}

/// Why a peer's answer can't be had. Follows "pod x …".
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// It can't be reached, or ended the connection.
    #[error("can't be reached: {0}")]
    Unreachable(String),
    /// It is too slow. A command may still be carried out.
    #[error("did not answer in time; GET the call before you try again, a command may have been carried out")]
    TooSlow,
    /// It says too much, or what it says can't be read.
    #[error("gave an answer that can't be read: {0}")]
    Unreadable(String),
    /// It says no.
    #[error("answered {0}")]
    Refused(StatusCode),
}

/// Whether another pod passed this request on.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED)
}

impl Default for Forwarder {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        Self::over(connector, LIST_TIMEOUT)
    }
}

impl<C: Connect + Clone + Send + Sync + 'static> Forwarder<C> {
    /// The way that a connector makes; a list may take as long as that.
    pub fn over(connector: C, list_timeout: Duration) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build(connector), list_timeout }
    }

    /// Passes a request on to the pod that has the call. Only what the API reads goes along: method, path, key and body.
    pub async fn pass_on(&self, peer: &Peer, ask: Ask<'_>, body: Bytes) -> Result<Passed, ForwardError> {
        let answer = self.ask(peer, ask, body, ANSWER_LIMIT);
        tokio::time::timeout(PASS_ON_TIMEOUT, answer).await.map_err(|_| ForwardError::TooSlow)?
    }

    /// The calls of each peer, or the sentence that says why they can't be had.
    pub async fn lists(
        &self,
        own: Instance,
        peers: &Peers,
        headers: &HeaderMap,
        wanted: Wanted,
    ) -> Vec<Result<CallList<Value>, String>> {
        let peers: Vec<Peer> = peers.0.values().cloned().collect();
        futures::stream::iter(peers)
            .map(|peer| async move {
                self.list(own, &peer, headers, wanted)
                    .await
                    .map_err(|error| format!("calls of pod {} are missing: it {error}", peer.pod))
            })
            .buffer_unordered(LISTS)
            .collect()
            .await
    }

    /// The calls of one peer.
    ///
    /// # Errors
    /// When it can't be asked in time, or doesn't say.
    pub async fn list(
        &self,
        own: Instance,
        peer: &Peer,
        headers: &HeaderMap,
        wanted: Wanted,
    ) -> Result<CallList<Value>, ForwardError> {
        let ask = Ask { own, method: Method::GET, path: &wanted.path(), headers };
        let answer = self.ask(peer, ask, Bytes::new(), LIST_LIMIT);
        let answer = tokio::time::timeout(self.list_timeout, answer).await;
        let passed = answer.unwrap_or(Err(ForwardError::TooSlow))?;
        if passed.status != StatusCode::OK {
            return Err(ForwardError::Refused(passed.status));
        }
        serde_json::from_slice(&passed.body).map_err(|error| ForwardError::Unreadable(error.to_string()))
    }

    async fn ask(
        &self,
        peer: &Peer,
        ask: Ask<'_>,
        body: Bytes,
        limit: usize,
    ) -> Result<Passed, ForwardError> {
        let mut request = Request::builder()
            .method(ask.method)
            .uri(format!("http://{}{}", peer.http, ask.path))
            .header(FORWARDED, ask.own.to_string());
        for (name, value) in SENT.iter().filter_map(|name| Some((name, ask.headers.get(name)?))) {
            request = request.header(name, value);
        }
        let request =
            request.body(Full::new(body)).map_err(|error| ForwardError::Unreachable(error.to_string()))?;
        let answer = self
            .client
            .request(request)
            .await
            .map_err(|error| ForwardError::Unreachable(innermost(&error)))?;
        let status = answer.status();
        let returned =
            RETURNED.iter().filter_map(|name| Some((name.clone(), answer.headers().get(name)?.clone())));
        let headers = returned.collect();
        let body = Limited::new(answer.into_body(), limit).collect().await;
        let body = body.map_err(|error| ForwardError::Unreadable(error.to_string()))?.to_bytes();
        Ok(Passed { status, headers, body })
    }
}

impl IntoResponse for Passed {
    fn into_response(self) -> Response {
        (self.status, self.headers, self.body).into_response()
    }
}
