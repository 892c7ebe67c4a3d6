//! One attempt at sending an event: connections that lead nowhere but where events may go.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use tower_service::Service;

use super::reach::Reach;
use super::retry;
use crate::agent::innermost;
use crate::gateway::plane::USER_AGENT;
use crate::gateway::signing::signature;
use crate::gateway::tls::towards_the_public;

/// How long a receiver may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an attempt may take, all together.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How large the head of an answer may be, bytes.
const HEAD_LIMIT: usize = 16 * 1024;
/// Connections to one receiver that are kept for the next event.
const KEPT: usize = 4;

/// What is sent.
pub(super) struct Notice<'a> {
    /// Names the event; the same in each attempt.
    pub(super) id: &'a str,
    /// Its type.
    pub(super) kind: &'static str,
    /// Where to.
    pub(super) url: &'a str,
    /// The body.
    pub(super) body: &'a [u8],
}

/// Why a receiver has not taken an event.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The URL can't be used.
    #[error("the URL in 'events' can't be used: {0}")]
    Url(String),
    /// It leads where nothing may be sent.
    #[error(
        "the URL in 'events' leads to {0}, which is not public; the platform's SipGateway can allow its network with \
         eventNetworks"
    )]
    NotAllowed(IpAddr),
    /// Nobody is there.
    #[error("the receiver can't be reached: {0}")]
    Unreachable(String),
    /// It takes too long.
    #[error("the receiver did not answer within {} s", ATTEMPT_TIMEOUT.as_secs())]
    TooSlow,
    /// It answered something else than 2xx.
    #[error("the receiver answered {status}")]
    Refused {
        /// The status.
        status: u16,
        /// The value of Retry-After.
        retry_after: Option<String>,
    },
}

impl Failure {
    /// Whether it may be otherwise later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Url(_) | Self::NotAllowed(_) => false,
            Self::Unreachable(_) | Self::TooSlow => true,
            Self::Refused { status, .. } => retry::may_succeed_later(*status),
        }
    }

    /// What the receiver asks for in Retry-After.
    pub(super) fn retry_after(&self) -> Option<&str> {
        match self {
            Self::Refused { retry_after, .. } => retry_after.as_deref(),
            _ => None,
        }
    }
}

/// The way to receivers.
pub(in crate::gateway) struct Way {
    reach: Arc<Reach>,
    encrypted: Client<HttpsConnector<HttpConnector<Permitted>>, Full<Bytes>>,
    plain: Client<HttpConnector<Permitted>, Full<Bytes>>,
}

impl Way {
    /// Fails when there is no TLS to be had.
    pub(in crate::gateway) fn new(reach: Reach) -> Result<Self, rustls::Error> {
        let tls = towards_the_public()?;
        let reach = Arc::new(reach);
        let connector = |encrypted| {
            let mut http =
                HttpConnector::new_with_resolver(Permitted { reach: Arc::clone(&reach), encrypted });
            http.enforce_http(false);
            http.set_connect_timeout(Some(CONNECT_TIMEOUT));
            http.set_nodelay(true);
            http
        };
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1();
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_max_idle_per_host(KEPT).http1_max_buf_size(HEAD_LIMIT);
        let encrypted = client.build(https.wrap_connector(connector(true)));
        Ok(Self { encrypted, plain: client.build(connector(false)), reach })
    }

    /// Sends it once; returns when it was taken.
    pub(super) async fn send(&self, notice: &Notice<'_>, secret: &str) -> Result<(), Failure> {
        let (request, encrypted) = self.request(notice, secret, Timestamp::now().as_second())?;
        let answer = async {
            if encrypted { self.encrypted.request(request).await } else { self.plain.request(request).await }
        };
        let answer = tokio::time::timeout(ATTEMPT_TIMEOUT, answer).await.map_err(|_| Failure::TooSlow)?;
        let answer = answer.map_err(|error| match refused_address(&error) {
            Some(address) => Failure::NotAllowed(address),
            None => Failure::Unreachable(innermost(&error)),
        })?;
        if answer.status().is_success() {
            return Ok(());
        }
        let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Err(Failure::Refused {
            status: answer.status().as_u16(),
            retry_after: retry_after.map(str::to_owned),
        })
    }

    /// The request, and whether it goes over TLS.
    fn request(
        &self,
        notice: &Notice<'_>,
        secret: &str,
        now: i64,
    ) -> Result<(Request<Full<Bytes>>, bool), Failure> {
        let unusable = |error: &dyn std::fmt::Display| Failure::Url(error.to_string());
        let uri: Uri = notice.url.parse().map_err(|error| unusable(&error))?;
        let encrypted = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        // An address is connected to without being looked up.
        if let Ok(address) = host.parse()
            && !self.reach.allows(address, encrypted)
        {
            return Err(Failure::NotAllowed(address));
        }
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, USER_AGENT)
            .header("x-webhook-event", notice.kind)
            .header("x-webhook-id", notice.id)
            .header("x-webhook-timestamp", now)
            .header("x-webhook-signature", signature(secret, now, notice.body))
            .body(Full::new(Bytes::copy_from_slice(notice.body)))
            .map_err(|error| unusable(&error))?;
        Ok((request, encrypted))
    }
}

/// A name leads to addresses, all of which may be reached, or to none.
#[derive(Clone)]
struct Permitted {
    reach: Arc<Reach>,
    encrypted: bool,
}

/// A name leads where nothing may be sent.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not public")]
struct NotPublic(IpAddr);

impl Service<Name> for Permitted {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { reach, encrypted } = self.clone();
        Box::pin(async move {
            let addresses: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            match addresses.iter().find(|address| !reach.allows(address.ip(), encrypted)) {
                Some(address) => Err(io::Error::other(NotPublic(address.ip()))),
                None => Ok(addresses.into_iter()),
            }
        })
    }
}

/// The address because of which nothing was sent.
fn refused_address(error: &(dyn std::error::Error + 'static)) -> Option<IpAddr> {
    let mut source = Some(error);
    while let Some(error) = source {
        // What an `io::Error` holds is not its source.
        let held = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        if let Some(NotPublic(address)) = held.and_then(|held| held.downcast_ref()) {
            return Some(*address);
        }
        source = error.source();
    }
    None
}
