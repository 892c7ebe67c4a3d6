//! HTTP to pods through the API server, as `kubectl port-forward` does it: all that it takes is a kubeconfig.
//!
//! A connector for the HTTP client of [`http::forward`](crate::http::forward): an address of a pod leads to a stream that the
//! API server and the pod's kubelet carry into the pod's network. Nothing is listened on here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::{fmt, io};

use futures::future::BoxFuture;
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::io::DuplexStream;
use tower_service::Service;

use crate::agent::innermost;
use crate::routing::table::ObjectKey;

/// Makes streams to pods; clones know the same pods.
#[derive(Clone)]
pub struct PortForward {
    client: Client,
    /// By `ip:port`, as in the URI.
    pods: Arc<Mutex<HashMap<String, (ObjectKey, u16)>>>,
}

/// Why there is no stream to a pod.
#[derive(Debug, thiserror::Error)]
pub enum PortForwardError {
    /// Its address is of no pod that is known.
    #[error("no pod has the address {0}")]
    NoPod(String),
    /// The right to it is missing.
    #[error(
        "you may not forward ports in namespace {0}; it takes the verbs get and create on pods/portforward"
    )]
    Forbidden(String),
    /// The API server, or the kubelet, says no.
    #[error("the API server can't forward to its port: {0}")]
    Refused(String),
}

impl fmt::Debug for PortForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PortForward")
    }
}

impl PortForward {
    /// Knows no pods yet.
    pub fn new(client: Client) -> Self {
        Self { client, pods: Arc::default() }
    }

    /// Makes a pod known by its address.
    pub fn know(&self, address: SocketAddr, pod: ObjectKey) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.insert(address.to_string(), (pod, address.port()));
    }

    async fn stream(self, address: String) -> Result<Stream, PortForwardError> {
        let known = self.pods.lock().unwrap_or_else(PoisonError::into_inner).get(&address).cloned();
        let (pod, port) = known.ok_or(PortForwardError::NoPod(address))?;
        let api: Api<Pod> = Api::namespaced(self.client, &pod.namespace);
        let mut forwarder = api.portforward(&pod.name, &[port]).await.map_err(|error| match error {
            kube::Error::Api(status) if status.is_forbidden() => {
                PortForwardError::Forbidden(pod.namespace.clone())
            }
            error => PortForwardError::Refused(innermost(&error)),
        })?;
        let refusal = forwarder.take_error(port);
        let stream = forwarder.take_stream(port);
        let nothing = || PortForwardError::Refused("it gives no stream".to_owned());
        let (stream, refusal) = stream.zip(refusal).ok_or_else(nothing)?;
        Ok(Stream { stream: TokioIo::new(stream), refusal: Some(Box::pin(refusal)) })
    }
}

impl Service<Uri> for PortForward {
    type Response = Stream;
    type Error = PortForwardError;
    type Future = BoxFuture<'static, Result<Stream, PortForwardError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PortForwardError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let address = uri.authority().map(ToString::to_string).unwrap_or_default();
        Box::pin(self.clone().stream(address))
    }
}

/// A stream to a port of a pod.
pub struct Stream {
    stream: TokioIo<DuplexStream>,
    /// What the kubelet says when the port can't be reached; `None` once it has said all.
    refusal: Option<BoxFuture<'static, Option<String>>>,
}

impl Stream {
    /// An error when the kubelet has said one.
    fn refused(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(refusal) = &mut self.refusal else { return Ok(()) };
        let Poll::Ready(said) = refusal.as_mut().poll(context) else { return Ok(()) };
        self.refusal = None;
        said.map_or(Ok(()), |said| Err(io::Error::other(said)))
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.refused(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
