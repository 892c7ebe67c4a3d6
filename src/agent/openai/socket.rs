//! The WebSocket beside a call: text frames of JSON, one event each.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use hyper::header::AUTHORIZATION;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::rest::{Api, ApiError, CONNECT_TIMEOUT, Place, bearer, refused};
use crate::agent::innermost;

/// How long the upgrade may take. A call that isn't there takes it 5 s to say so.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(7);
/// Largest event that is taken, bytes.
const EVENT_LIMIT: usize = 4 << 20;
/// How long an event may take to be sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

trait Wire: AsyncRead + AsyncWrite + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Send + Sync> Wire for T {}

/// An open socket.
pub struct Socket(WebSocketStream<Pin<Box<dyn Wire>>>);

/// What a socket brings.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// An event.
    Event(String),
    /// A sign of life.
    Alive,
    /// It is closed, with the code that the server gave, if it gave one, and its reason.
    Closed(Option<u16>, String),
}

impl Socket {
    /// The next frame; [`Frame::Closed`] is the last one.
    pub async fn next(&mut self) -> Frame {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => Frame::Event(text.as_str().to_owned()),
            Some(Ok(Message::Close(Some(close)))) => {
                Frame::Closed(Some(close.code.into()), close.reason.to_string())
            }
            Some(Ok(Message::Close(None))) | None => Frame::Closed(None, String::new()),
            Some(Ok(_)) => Frame::Alive,
            Some(Err(error)) => Frame::Closed(None, error.to_string()),
        }
    }

    /// Sends an event; false when that isn't possible any more.
    pub async fn send(&mut self, event: String) -> bool {
        self.write(Message::text(event)).await
    }

    /// Asks for a sign of life.
    pub async fn ping(&mut self) -> bool {
        self.write(Message::Ping(Bytes::new())).await
    }

    /// Closes it. That ends no call.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(SEND_TIMEOUT, self.0.close(None)).await;
    }

    async fn write(&mut self, message: Message) -> bool {
        matches!(tokio::time::timeout(SEND_TIMEOUT, self.0.send(message)).await, Ok(Ok(())))
    }
}

impl Api {
    /// Opens the socket beside a call that was accepted.
    pub async fn socket(&self, place: &Place, call: &str) -> Result<Socket, ApiError> {
        tokio::time::timeout(UPGRADE_TIMEOUT, self.open(place, call))
            .await
            .unwrap_or(Err(ApiError::TooSlow(UPGRADE_TIMEOUT)))
    }

    async fn open(&self, place: &Place, call: &str) -> Result<Socket, ApiError> {
        let unusable = |error: &dyn std::fmt::Display| {
            ApiError::Unusable(format!("the base URL of the API can't be used: {error}"))
        };
        // http becomes ws and https becomes wss.
        let rest = place.base.strip_prefix("http").ok_or_else(|| unusable(&"it is not http or https"))?;
        let url = format!("ws{rest}/realtime?call_id={call}");
        let mut request = url.into_client_request().map_err(|error| unusable(&error))?;
        request.headers_mut().insert(AUTHORIZATION, bearer(&place.key)?);
        let uri = request.uri().clone();
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let secure = uri.scheme_str() == Some("wss");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let unreachable = |error: &dyn std::fmt::Display| ApiError::Unreachable(error.to_string());
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), port))).await;
        let stream = stream.map_err(|_| unreachable(&"it does not answer"))?;
        let stream = stream.map_err(|error| unreachable(&error))?;
        let _ = stream.set_nodelay(true);
        let wire: Pin<Box<dyn Wire>> = if secure {
            let name = ServerName::try_from(host).map_err(|error| unusable(&error))?;
            let connected = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
            Box::pin(connected.map_err(|error| unreachable(&error))?)
        } else {
            Box::pin(stream)
        };
        let config =
            WebSocketConfig::default().max_message_size(Some(EVENT_LIMIT)).max_frame_size(Some(EVENT_LIMIT));
        match client_async_with_config(request, wire, Some(config)).await {
            Ok((socket, _)) => Ok(Socket(socket)),
            Err(Error::Http(answer)) => {
                let body = answer.body().clone().unwrap_or_default();
                Err(refused(answer.status(), answer.headers(), &body))
            }
            Err(error) => Err(ApiError::Unreachable(innermost(&error))),
        }
    }
}
