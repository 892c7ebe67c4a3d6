//! HTTP of the double: the four verbs about a call, and the WebSocket.
//!
//! It only carries: what is asked goes to whoever owns the calls, and that one's answer comes back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

/// Events that may wait for one WebSocket.
const QUEUE: usize = 4096;
/// How large a body may be, bytes.
const BODY_LIMIT: usize = 1 << 20;
/// How often a WebSocket is pinged.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long the client may take to close a WebSocket.
const CLOSING_TIME: Duration = Duration::from_secs(1);

/// What is asked of whoever owns the calls.
#[derive(Debug)]
pub(super) enum Asked {
    /// What such a request meets before it is looked at.
    Ahead {
        /// `accept`, …, or `socket`.
        verb: String,
        call: String,
        answer: oneshot::Sender<Duration>,
    },
    /// A request; its answer is held back for a while.
    Verb { request: VerbRequest, answer: oneshot::Sender<(Reply, Duration)> },
    /// Somebody wants a WebSocket.
    Join { request: JoinRequest, answer: oneshot::Sender<Reply> },
    /// A WebSocket is there.
    Joined { call: String, socket: u64, unwelcome: Unwelcome, outgoing: mpsc::Sender<Outgoing> },
    /// A text came on it.
    Text { call: String, socket: u64, text: String },
    /// It is gone.
    Left { call: String, socket: u64 },
}

/// A request about a call.
#[derive(Debug)]
pub(super) struct VerbRequest {
    pub(super) verb: String,
    pub(super) call: String,
    pub(super) bearer: Option<String>,
    /// `None` if there was one that is no JSON.
    pub(super) body: Option<Value>,
}

/// A request for a WebSocket.
#[derive(Debug)]
pub(super) struct JoinRequest {
    pub(super) call: Option<String>,
    pub(super) bearer: Option<String>,
    /// Asked for the shape of events that is no longer spoken.
    pub(super) beta: bool,
}

/// What is answered.
#[derive(Debug)]
pub(super) enum Reply {
    /// This.
    Status { status: u16, body: Option<Value>, retry_after: Option<u32> },
    /// The connection is closed.
    Nothing,
    /// The WebSocket is opened, if only to be closed.
    Welcome { socket: u64, unwelcome: Unwelcome },
}

/// Why a WebSocket is closed as soon as it is open: the code of the error, and that of the closing.
pub(super) type Unwelcome = Option<(&'static str, u16)>;

/// What is sent on a WebSocket.
#[derive(Clone, Debug)]
pub(super) enum Outgoing {
    Text(String),
    Close(u16, String),
    Drop,
}

impl Reply {
    /// Success, which says nothing.
    pub(super) fn done() -> Self {
        Self::Status { status: 200, body: None, retry_after: None }
    }

    pub(super) fn error(status: u16, code: &str, message: &str, param: Option<&str>) -> Self {
        let error =
            json!({ "message": message, "type": "invalid_request_error", "code": code, "param": param });
        Self::Status { status, body: Some(json!({ "error": error })), retry_after: None }
    }
}

/// Serves until the task is ended.
pub(super) async fn serve(listener: TcpListener, tls: Option<Arc<ServerConfig>>, asked: mpsc::Sender<Asked>) {
    let tls = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, tls.clone(), asked.clone()))),
                // Too many open files: those that there are must end first.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, asked: mpsc::Sender<Asked>) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => speak(stream, asked).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                speak(stream, asked).await;
            }
        }
    }
}

/// The connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed, as the script says")]
struct Dropped;

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, asked: mpsc::Sender<Asked>) {
    let sockets = Arc::new(tokio::sync::Mutex::new(JoinSet::new()));
    let service = service_fn(|request| {
        let (asked, sockets) = (asked.clone(), Arc::clone(&sockets));
        async move { answer(request, asked, &sockets).await }
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
    // Whoever goes early is of no interest.
    let _ = serving.await;
    // An upgraded connection lives on in its own task, and ends with this one.
    let mut sockets = sockets.lock().await;
    while sockets.join_next().await.is_some() {}
}

type Answer = Response<Full<Bytes>>;
type Sockets = tokio::sync::Mutex<JoinSet<()>>;

async fn answer(
    request: Request<Incoming>,
    asked: mpsc::Sender<Asked>,
    sockets: &Sockets,
) -> Result<Answer, Dropped> {
    let path: Vec<String> = request.uri().path().split('/').skip(1).map(str::to_owned).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match (request.method(), &path[..]) {
        (
            &Method::POST,
            ["v1", "realtime", "calls", call, verb @ ("accept" | "reject" | "hangup" | "refer")],
        ) => verb_asked(request, (*call).to_owned(), (*verb).to_owned(), asked).await,
        (&Method::GET, ["v1", "realtime"]) => join_asked(request, asked, sockets).await,
        (method, _) => {
            let said = format!("Invalid URL ({method} {})", request.uri().path());
            plain(Reply::error(404, "unknown_url", &said, None))
        }
    }
}

async fn verb_asked(
    request: Request<Incoming>,
    call: String,
    verb: String,
    asked: mpsc::Sender<Asked>,
) -> Result<Answer, Dropped> {
    let bearer = bearer(request.headers());
    let json = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
        kind.to_str().is_ok_and(|kind| kind.to_ascii_lowercase().starts_with("application/json"))
    });
    let body = Limited::new(request.into_body(), BODY_LIMIT).collect().await.map_err(|_| Dropped)?.to_bytes();
    let body = match &*body {
        [] => Some(Value::Null),
        body if json => serde_json::from_slice(body).ok(),
        _ => None,
    };
    wait_ahead(&verb, &call, &asked).await?;
    let request = VerbRequest { verb, call, bearer, body };
    let (reply, late) = ask(&asked, |answer| Asked::Verb { request, answer }).await?;
    tokio::time::sleep(late).await;
    plain(reply)
}

async fn join_asked(
    mut request: Request<Incoming>,
    asked: mpsc::Sender<Asked>,
    sockets: &Sockets,
) -> Result<Answer, Dropped> {
    let headers = request.headers();
    let is = |name: header::HeaderName, wanted: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case(wanted)))
    };
    let key = headers.get(header::SEC_WEBSOCKET_KEY).cloned();
    let (Some(key), true, true) = (key, is(header::UPGRADE, "websocket"), is(header::CONNECTION, "upgrade"))
    else {
        return plain(Reply::error(400, "invalid_request", "This is a WebSocket endpoint.", None));
    };
    let query = request.uri().query().unwrap_or_default();
    let call = query.split('&').find_map(|pair| pair.strip_prefix("call_id=")).map(str::to_owned);
    let join = JoinRequest {
        call: call.clone(),
        bearer: bearer(headers),
        beta: headers.contains_key("openai-beta"),
    };
    let call = call.unwrap_or_default();
    wait_ahead("socket", &call, &asked).await?;
    match ask(&asked, |answer| Asked::Join { request: join, answer }).await? {
        Reply::Welcome { socket, unwelcome } => {
            let upgrade = hyper::upgrade::on(&mut request);
            sockets.lock().await.spawn(async move {
                if let Ok(upgraded) = upgrade.await {
                    let role = Role::Server;
                    let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), role, None).await;
                    carry(stream, call, socket, unwelcome, asked).await;
                }
            });
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
            headers.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
            if let Ok(accept) = derive_accept_key(key.as_bytes()).parse() {
                headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
            }
            Ok(response)
        }
        reply => plain(reply),
    }
}

/// Carries one WebSocket until it ends.
async fn carry<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: WebSocketStream<S>,
    call: String,
    socket: u64,
    unwelcome: Unwelcome,
    asked: mpsc::Sender<Asked>,
) {
    let (outgoing, mut queue) = mpsc::channel(QUEUE);
    let joined = Asked::Joined { call: call.clone(), socket, unwelcome, outgoing };
    if asked.send(joined).await.is_err() {
        return;
    }
    let mut ping = tokio::time::interval(PING_EVERY);
    ping.reset();
    loop {
        tokio::select! {
            incoming = stream.next() => match incoming {
                Some(Ok(Message::Text(text))) => {
                    let (call, text) = (call.clone(), text.as_str().to_owned());
                    if asked.send(Asked::Text { call, socket, text }).await.is_err() {
                        break;
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
            outgoing = queue.recv() => match outgoing {
                Some(Outgoing::Text(text)) => {
                    if stream.send(Message::text(text)).await.is_err() {
                        break;
                    }
                }
                Some(Outgoing::Close(code, reason)) => {
                    let frame = CloseFrame { code: code.into(), reason: reason.into() };
                    let _ = stream.close(Some(frame)).await;
                    let rest = async { while stream.next().await.is_some_and(|next| next.is_ok()) {} };
                    let _ = tokio::time::timeout(CLOSING_TIME, rest).await;
                    break;
                }
                Some(Outgoing::Drop) | None => break,
            },
            _ = ping.tick() => {
                if stream.send(Message::Ping(Bytes::new())).await.is_err() {
                    break;
                }
            }
        }
    }
    // Nobody is interested if the double is gone.
    let _ = asked.send(Asked::Left { call, socket }).await;
}

/// Waits as long as the script makes such a request wait.
async fn wait_ahead(verb: &str, call: &str, asked: &mpsc::Sender<Asked>) -> Result<(), Dropped> {
    let (verb, call) = (verb.to_owned(), call.to_owned());
    tokio::time::sleep(ask(asked, |answer| Asked::Ahead { verb, call, answer }).await?).await;
    Ok(())
}

async fn ask<T>(
    asked: &mpsc::Sender<Asked>,
    question: impl FnOnce(oneshot::Sender<T>) -> Asked,
) -> Result<T, Dropped> {
    let (sender, answer) = oneshot::channel();
    asked.send(question(sender)).await.map_err(|_| Dropped)?;
    answer.await.map_err(|_| Dropped)
}

fn plain(reply: Reply) -> Result<Answer, Dropped> {
    let Reply::Status { status, body, retry_after } = reply else { return Err(Dropped) };
    let mut response = Response::builder().status(status);
    if let Some(seconds) = retry_after {
        response = response.header(header::RETRY_AFTER, seconds);
    }
    let bytes = match body {
        Some(body) => {
            response = response.header(header::CONTENT_TYPE, "application/json");
            body.to_string()
        }
        None => String::new(),
    };
    response.body(Full::new(bytes.into())).map_err(|_| Dropped)
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    Some(value.strip_prefix("Bearer ")?.to_owned())
}
