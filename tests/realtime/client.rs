//! Someone who calls the double, and whoever is told of that: small clients for SIP over TLS, REST, WebSockets and webhooks.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use voicedock::simulate::realtime::{Double, Entry, What};

use crate::realtime::{self, API_KEY, PROJECT};

/// Long enough for anything that happens at all.
pub const SOON: Duration = Duration::from_secs(10);

/// A double in this process, and those who use it.
pub struct Stage {
    pub double: Double,
    users: Users,
}

/// Those who use a double: whoever is told of its calls, and where it is.
pub struct Users {
    sip: SocketAddr,
    base_url: String,
    tls: Arc<ClientConfig>,
    hooks: mpsc::UnboundedReceiver<Hook>,
}

/// An event as the webhook got it.
#[derive(Clone, Debug)]
pub struct Hook {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Hook {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("an event is JSON")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().expect("a header is text")
    }

    pub fn call(&self) -> String {
        self.json()["data"]["call_id"].as_str().expect("a call has an id").to_owned()
    }
}

type Receiver = (Arc<Mutex<VecDeque<u16>>>, mpsc::UnboundedSender<Hook>);

impl Stage {
    pub async fn new(script: &str) -> Self {
        Self::with_webhook(script, []).await
    }

    /// One whose webhook answers with these codes first, then with 200.
    pub async fn with_webhook(script: &str, codes: impl IntoIterator<Item = u16>) -> Self {
        let (double, authority) = realtime::start(script).await;
        let (webhook, hooks) = webhook(codes).await;
        double.set_webhook_url(webhook);
        let users = Users::of(double.sip(), double.base_url(), &authority, hooks);
        Self { double, users }
    }

    /// Waits until the double has seen something.
    pub async fn seen<T>(&self, pick: impl FnMut(&Entry) -> Option<T>) -> T {
        self.double.journal().wait_for(SOON, pick).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until a request of a method came.
    pub async fn request(&self, wanted: &str) {
        let is_it = |what: &What| matches!(what, What::Request { method } if method == wanted);
        self.seen(|entry| is_it(&entry.what).then_some(())).await;
    }
}

impl Deref for Stage {
    type Target = Users;
    fn deref(&self) -> &Users {
        &self.users
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Users {
        &mut self.users
    }
}

/// A webhook that answers with these codes first, then with 200: its URL, and what it gets.
pub async fn webhook(codes: impl IntoIterator<Item = u16>) -> (String, mpsc::UnboundedReceiver<Hook>) {
    let (sender, hooks) = mpsc::unbounded_channel();
    let codes: VecDeque<u16> = codes.into_iter().collect();
    let app = Router::new().route("/hook", post(take)).with_state((Arc::new(Mutex::new(codes)), sender));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, hooks)
}

impl Users {
    /// Those of a double for which `authority` vouches.
    pub fn of(
        sip: SocketAddr,
        base_url: &str,
        authority: &str,
        hooks: mpsc::UnboundedReceiver<Hook>,
    ) -> Self {
        Self { sip, base_url: base_url.to_owned(), tls: trusting(authority), hooks }
    }

    /// The next event that the webhook gets.
    pub async fn hook(&mut self) -> Hook {
        let hook = tokio::time::timeout(SOON, self.hooks.recv()).await;
        hook.unwrap_or_else(|_| panic!("no event came")).expect("the webhook is there")
    }

    /// Calls it; returns the caller and the call's id.
    pub async fn call(&mut self) -> (Caller, String) {
        let caller = Caller::call(self, PROJECT, "").await;
        let id = self.hook().await.call();
        (caller, id)
    }

    /// Calls it, and has the call accepted and answered.
    pub async fn accepted(&mut self) -> (Caller, String) {
        let (mut caller, id) = self.call().await;
        assert_eq!(self.ask(&id, "accept", session()).await.status, 200);
        caller.answered().await;
        (caller, id)
    }

    pub async fn ask(&self, call: &str, verb: &str, body: Value) -> Answer {
        self.ask_with(call, verb, body, API_KEY).await
    }

    pub async fn ask_with(&self, call: &str, verb: &str, body: Value, key: &str) -> Answer {
        let mut http = hyper_util::client::legacy::connect::HttpConnector::new();
        http.enforce_http(false);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config((*self.tls).clone())
            .https_only()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::post(format!("{}/realtime/calls/{call}/{verb}", self.base_url))
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let answer: Result<_, hyper_util::client::legacy::Error> =
            tokio::time::timeout(SOON, client.request(request)).await.expect("it is answered");
        // A connection that was closed instead of an answer.
        let Ok(answer) = answer else {
            return Answer { status: 0, headers: HeaderMap::new(), body: Bytes::new() };
        };
        let (head, body) = answer.into_parts();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub async fn socket(&self, call: &str) -> Result<Socket, u16> {
        self.socket_with(call, API_KEY, None).await
    }

    pub async fn socket_with(&self, call: &str, key: &str, beta: Option<&str>) -> Result<Socket, u16> {
        let url = self.base_url.replace("https", "wss");
        let address = url.split('/').nth(2).unwrap().to_owned();
        let stream = TcpStream::connect(&address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await.unwrap();
        let mut request = Request::get(format!("{url}/realtime?call_id={call}"))
            .header("host", address)
            .header("upgrade", "websocket")
            .header("connection", "Upgrade")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", tokio_tungstenite::tungstenite::handshake::client::generate_key())
            .header("authorization", format!("Bearer {key}"));
        if let Some(beta) = beta {
            request = request.header("openai-beta", beta);
        }
        let connecting = tokio_tungstenite::client_async(request.body(()).unwrap(), stream);
        match tokio::time::timeout(SOON, connecting).await.expect("it is answered") {
            Ok((socket, _)) => Ok(Socket(socket)),
            Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("no WebSocket: {error}"),
        }
    }
}

async fn take(State((codes, sender)): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let code = codes.lock().unwrap().pop_front().unwrap_or(200);
    let _ = sender.send(Hook { headers, body });
    StatusCode::from_u16(code).unwrap()
}

/// A session that is taken.
pub fn session() -> Value {
    serde_json::json!({ "type": "realtime", "model": "gpt-realtime" })
}

pub struct Answer {
    /// 0 if the connection was closed instead.
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn code(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        body["error"]["code"].as_str().unwrap().to_owned()
    }
}

fn trusting(authority: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// A WebSocket of one call.
pub struct Socket(WebSocketStream<TlsStream<TcpStream>>);

impl Socket {
    pub async fn send(&mut self, event: Value) {
        self.0.send(Message::text(event.to_string())).await.unwrap();
    }

    async fn message(&mut self) -> Option<Message> {
        let next =
            tokio::time::timeout(SOON, self.0.next()).await.expect("something happens on the WebSocket");
        next.and_then(Result::ok)
    }

    /// The next event of a type; those before it are passed over.
    pub async fn event(&mut self, name: &str) -> Value {
        loop {
            match self.message().await {
                Some(Message::Text(text)) => {
                    let event: Value = serde_json::from_str(text.as_str()).unwrap();
                    if event["type"] == name {
                        return event;
                    }
                }
                Some(_) => {}
                None => panic!("no {name} came before the end"),
            }
        }
    }

    /// The code with which it is closed; 0 if it is cut.
    pub async fn closed(&mut self) -> u16 {
        loop {
            match self.message().await {
                Some(Message::Close(frame)) => return frame.map_or(1005, |frame| frame.code.into()),
                Some(_) => {}
                None => return 0,
            }
        }
    }
}

/// Someone who calls over TLS, on one connection.
pub struct Caller {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
    project: String,
    call_id: String,
    to: String,
    cseq: u32,
}

impl Caller {
    /// Sends an INVITE with more headers.
    pub async fn call(users: &Users, project: &str, headers: &str) -> Self {
        let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8 101\r\n";
        Self::call_with(users, project, headers, sdp).await
    }

    /// Sends an INVITE with more headers and this offer.
    pub async fn call_with(users: &Users, project: &str, headers: &str, sdp: &str) -> Self {
        let stream = TcpStream::connect(users.sip).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TlsConnector::from(Arc::clone(&users.tls)).connect(name, stream).await.unwrap();
        let mut caller = Self {
            stream,
            buffer: Vec::new(),
            project: project.into(),
            call_id: format!("{:x}", rand::random::<u64>()),
            to: String::new(),
            cseq: 1,
        };
        let contact =
            if headers.contains("Contact:") { "" } else { "Contact: <sip:me@127.0.0.1:9;transport=tls>\r\n" };
        let body = format!(
            "{contact}X-VoiceDock-Number: +31201234567\r\nX-Twice: a\r\nX-Twice: b\r\n{headers}Content-Type: application/sdp\r\n"
        );
        caller.request("INVITE", &body, sdp).await;
        caller
    }

    /// Sends a request of the dialog, as it stands.
    pub async fn request(&mut self, method: &str, headers: &str, body: &str) {
        let Self { project, call_id, to, cseq, .. } = self;
        // An ACK or CANCEL has the number of its INVITE.
        let target = if to.is_empty() {
            format!("sip:{project}@127.0.0.1;transport=tls")
        } else {
            "sip:OAI@sip.api.openai.com:5061".into()
        };
        let message = format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.1:9;branch=z9hG4bK{call_id}{}{cseq}\r\nMax-Forwards: 70\r\n\
             From: <sip:+31698765432@127.0.0.1>;tag=me\r\nTo: <sip:{project}@127.0.0.1>{to}\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            if matches!(method, "INVITE" | "CANCEL") { "invite" } else { method },
            body.len()
        );
        self.stream.write_all(message.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next message, whole; `None` when the connection is closed.
    pub async fn message(&mut self) -> Option<String> {
        loop {
            let text = String::from_utf8_lossy(&self.buffer).into_owned();
            if let Some((head, rest)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                let length: usize = length.unwrap_or("0").parse().unwrap();
                if rest.len() >= length {
                    let whole = head.len() + 4 + length;
                    self.buffer.drain(..whole);
                    return Some(text[..whole].to_owned());
                }
            }
            let mut chunk = [0; 4096];
            let read = tokio::time::timeout(SOON, self.stream.read(&mut chunk)).await;
            match read.expect("something comes over SIP") {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
            }
        }
    }

    /// The next message that begins so; others are passed over.
    pub async fn until(&mut self, start: &str) -> String {
        loop {
            let message =
                self.message().await.unwrap_or_else(|| panic!("the connection is closed before {start}"));
            if message.starts_with(start) {
                return message;
            }
        }
    }

    /// Waits for the 200 and acknowledges it.
    pub async fn answered(&mut self) -> String {
        let answer = self.until("SIP/2.0 200").await;
        let to = answer.lines().find(|line| line.starts_with("To:")).unwrap();
        self.to = to[to.find(";tag=").unwrap()..].to_owned();
        self.request("ACK", "", "").await;
        answer
    }

    /// The code with which the INVITE is refused.
    pub async fn refused(&mut self) -> u16 {
        loop {
            let message = self.message().await.expect("the connection stays");
            let code: u16 = message.split(' ').nth(1).unwrap().parse().unwrap_or(0);
            if message.starts_with("SIP/2.0") && code >= 300 {
                return code;
            }
        }
    }

    /// Hangs up.
    pub async fn bye(&mut self) {
        self.cseq += 1;
        self.request("BYE", "", "").await;
        self.until("SIP/2.0 200").await;
    }

    /// Sends a re-INVITE.
    pub async fn reinvite(&mut self, sdp: &str) {
        self.cseq += 1;
        let headers = "Contact: <sip:me@127.0.0.1:9;transport=tls>\r\nContent-Type: application/sdp\r\n";
        self.request("INVITE", headers, sdp).await;
    }
}
