//! Calls that last: an operator, two gateway pods and the REST API; in the bench's own process the double of OpenAI's Realtime
//! API, who answers, a caller, and a human who is always busy. So the same calls can be transferred again and again.

use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use voicedock::simulate::realtime::{Double, Journal, What};

use crate::client::Client;
use crate::process::Process;
use crate::programs::{Start, apply, is_ready};
use crate::realtime::{self, API_KEY, PROJECT, WEBHOOK_SECRET};
use crate::support::api_server::ApiServer;
use crate::support::net::free_address;
use crate::wait::{SOON, until};

/// The number that is called.
const NUMBER: &str = "+31201234567";
/// The name of the destination.
pub const DESTINATION: &str = "desk";
/// The key of the gateways.
const GATEWAY_KEY: &str = "bench";
/// How long anybody may take for one thing.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Calls: the record of a call that has been transferred hundreds of times is like no other.
const CALLS: usize = 20;

/// A call.
pub struct Call {
    /// Its id.
    pub id: String,
    /// Its name at OpenAI.
    pub at_openai: String,
}

/// Where calls are controlled, and the key for it.
pub struct Desk(SocketAddr, String);

impl Desk {
    /// A connection to it.
    pub fn client(&self) -> Client {
        Client::connect(self.0, &self.1).expect("it listens")
    }
}

/// The calls, and everybody around them.
pub struct Scene {
    /// The double.
    pub double: Double,
    /// When INVITEs to the human arrived, in the time of the double's journal.
    pub invites: mpsc::Receiver<Duration>,
    /// Calls in progress.
    pub calls: Vec<Call>,
    /// The pod that hasn't the calls.
    pub other_pod: Desk,
    /// The REST API.
    pub api: Desk,
    _processes: Vec<Process>,
}

impl Scene {
    /// Sets it up, until all calls are answered and greeted.
    pub fn set(runtime: &Runtime, server: &ApiServer, start: &Start) -> Self {
        let (double, authority) = runtime.block_on(realtime::start("{word: 1ms, unknown_after: 1ms}"));
        let (human, invites) = busy_human(double.journal().clone());
        let namespace = runtime.block_on(server.namespace("commands"));
        apply(server, &start.directory, &namespace, &objects(&double, &authority, human));

        let (with, without) = (Pod::new(start, &namespace, 1), Pod::new(start, &namespace, 2));
        let operator = [
            format!("--namespace={namespace}"),
            format!("--watch-namespace={namespace}"),
            "--image=voicedock:bench".to_owned(),
            "--identity=bench".to_owned(),
            format!("--http={}", free_address()),
        ];
        let mut processes = vec![start.role(&[], "operator", "operator", &operator)];
        let (api, api_http) = start.api(&[], "api-of-commands");
        processes.extend([with.process, without.process, api]);
        for pod in [with.http, without.http] {
            is_ready(pod, "a gateway");
            until("the gateways know the number and each other", SOON, || {
                let (_, metrics) = Client::connect(pod, GATEWAY_KEY)?.ask("GET", "/metrics", "")?;
                let known = metrics.contains("voicedock_gateway_peers 1\n");
                if known { Ok(()) } else { Err(std::io::Error::other("no peer yet")) }
            });
        }
        double.set_webhook_url(format!("http://{}/webhooks/openai", with.http));

        let calls: Vec<Call> = (0..CALLS).map(|_| begin(runtime, &double, with.sip, with.http)).collect();
        let api = Desk(api_http, start.key(&namespace));
        until("the API shows the calls", SOON, || {
            let (status, body) = api.client().ask("GET", &format!("/api/v1/calls/{}", calls[0].id), "")?;
            if status == 200 { Ok(()) } else { Err(std::io::Error::other(body)) }
        });
        let other_pod = Desk(without.http, GATEWAY_KEY.to_owned());
        Self { double, invites, calls, other_pod, api, _processes: processes }
    }
}

/// A call that is answered and greeted.
fn begin(runtime: &Runtime, double: &Double, sip: SocketAddr, http: SocketAddr) -> Call {
    let begun = double.journal().now();
    until("the call is answered", SOON, || place(sip));
    let greeted = double.journal().wait_for(PATIENCE, |entry| match &entry.what {
        What::Server(event) if entry.at > begun && event["type"] == "output_audio_buffer.stopped" => {
            Some(entry.call.clone())
        }
        _ => None,
    });
    let at_openai = runtime.block_on(greeted).unwrap_or_else(|error| panic!("the greeting: {error}"));
    // The newest one.
    let id = until("the gateway shows the call", SOON, || -> Result<String, String> {
        let mut client = Client::connect(http, GATEWAY_KEY).map_err(|error| error.to_string())?;
        let (_, body) = client.ask("GET", "/api/v1/calls?limit=1", "").map_err(|error| error.to_string())?;
        let list: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        let call = &list["calls"][0];
        let live = call["id"].as_str().filter(|_| call["status"] == "in-progress");
        live.map(str::to_owned).ok_or_else(|| format!("no call is in progress: {body}"))
    });
    Call { id, at_openai }
}

/// A gateway pod.
struct Pod {
    process: Process,
    sip: SocketAddr,
    http: SocketAddr,
}

impl Pod {
    fn new(start: &Start, namespace: &str, number: usize) -> Self {
        let name = format!("gateway-{number}");
        let directory = start.directory(&name);
        let keys = directory.join("keys");
        let written =
            std::fs::create_dir_all(&keys).and_then(|()| std::fs::write(keys.join("default"), GATEWAY_KEY));
        written.unwrap_or_else(|error| panic!("{}: {error}", keys.display()));
        let (sip, http) = (free_address(), free_address());
        let arguments = [
            format!("--pod-name={name}"),
            format!("--pod-uid=uid-of-{name}"),
            format!("--pod-namespace={namespace}"),
            format!("--pod-ip={}", sip.ip()),
            "--gateway=default".to_owned(),
            format!("--listeners=udp:{0},tcp:{0}", sip.port()),
            format!("--http={http}"),
            format!("--state={}", directory.join("state").display()),
            format!("--api-keys={}", keys.display()),
            "--drain-seconds=0".to_owned(),
        ];
        Self { process: start.role(&[], &name, "gateway", &arguments), sip, http }
    }
}

/// What people write.
fn objects(double: &Double, authority: &str, human: SocketAddr) -> Vec<Value> {
    let base = double.base_url().trim_end_matches("/v1");
    let object = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": "voicedock.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
        })
    };
    let secret = |name: &str, labels: Value, data: Value| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "labels": labels },
            "stringData": data,
        })
    };
    let labels = json!({ "voicedock.dev/holds": "gateway-keys", "voicedock.dev/gateway": "default" });
    vec![
        secret("keys", labels, json!({ "default": GATEWAY_KEY })),
        secret("openai", json!({}), json!({ "apiKey": API_KEY, "webhookSecret": WEBHOOK_SECRET })),
        secret("authority", json!({}), json!({ "ca.crt": authority })),
        object("SipGateway", "default", json!({ "exposure": "ClusterIP" })),
        object(
            "SipTrunk",
            "office",
            json!({
                "host": human.ip().to_string(), "port": human.port(), "transport": "UDP",
                "inbound": { "allowedSources": ["127.0.0.1/32"] },
            }),
        ),
        object(
            "TransferDestination",
            DESTINATION,
            json!({ "type": "number", "number": "+31612345678", "description": "The desk" }),
        ),
        object(
            "Assistant",
            "support",
            json!({
                "firstMessage": "Welcome.",
                "llmConfig": { "tools": [{
                    "type": "transfer_call", "destinations": [{ "destinationRef": { "name": DESTINATION } }],
                }] },
                "agent": { "openai": {
                    "projectId": PROJECT, "apiKeySecretRef": { "name": "openai" },
                    "webhookSecretRef": { "name": "openai" }, "apiBaseUrl": base,
                    "sipHost": double.sip().to_string(), "caBundleRef": { "name": "authority" },
                } },
            }),
        ),
        object(
            "PhoneNumber",
            "main",
            json!({
                "number": NUMBER, "assistantRef": { "name": "support" }, "transferTrunkRef": { "name": "office" },
            }),
        ),
    ]
}

/// A human's phone that is always busy; when it was called is told.
fn busy_human(journal: Journal) -> (SocketAddr, mpsc::Receiver<Duration>) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("this machine's address can be bound");
    let address = socket.local_addr().expect("the socket is bound");
    let (sender, invites) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        let mut last = String::new();
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let at = journal.now();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let id = header(&text, "call-id").unwrap_or_default();
            // Not the ACK, nor a repetition.
            if !text.starts_with("INVITE ") || id == last {
                continue;
            }
            let busy = response(&text, "486 Busy Here", ";tag=busy", "");
            let _ = socket.send_to(busy.as_bytes(), from);
            last = id.to_owned();
            if sender.send(at).is_err() {
                return;
            }
        }
    });
    (address, invites)
}

/// Calls the number, and answers for the caller from then on.
fn place(to: SocketAddr) -> Result<(), String> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("this machine's address can be bound");
    let own = socket.local_addr().expect("the socket is bound");
    socket.set_read_timeout(Some(PATIENCE)).expect("the time isn't zero");
    let (uri, ip) = (format!("sip:{NUMBER}@{to}"), own.ip());
    let request = |method: &str, uri: &str, to: &str, more: &str| {
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK-{method}-{0}\r\n\
             From: <sip:+31687654321@{own}>;tag=caller\r\nTo: {to}\r\nCall-ID: caller-{0}\r\nCSeq: 1 {method}\r\n\
             Contact: <sip:caller@{own}>\r\nMax-Forwards: 70\r\n{more}",
            own.port()
        )
    };
    let offer =
        format!("v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 9 RTP/AVP 8 0\r\n");
    let body = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{offer}", offer.len());
    let send = |text: &str| socket.send_to(text.as_bytes(), to).expect("a datagram can be sent");
    send(&request("INVITE", &uri, &format!("<{uri}>"), &body));
    let mut buffer = [0; 65_536];
    let answer = loop {
        let length = socket.recv(&mut buffer).map_err(|error| format!("no answer to the INVITE: {error}"))?;
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if !text.starts_with("SIP/2.0 1") {
            break text;
        }
    };
    let called = header(&answer, "to").unwrap_or_default();
    if !answer.starts_with("SIP/2.0 200") {
        send(&request("ACK", &uri, called, "Content-Length: 0\r\n\r\n"));
        return Err(answer.lines().next().unwrap_or_default().to_owned());
    }
    let contact = header(&answer, "contact").and_then(|contact| contact.split(['<', '>']).nth(1));
    let target = contact.ok_or("the answer has no Contact")?.to_owned();
    send(&request("ACK", &target, called, "Content-Length: 0\r\n\r\n"));
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if !text.starts_with("SIP/2.0") && !text.starts_with("ACK ") {
                let _ = socket.send_to(response(&text, "200 OK", "", "").as_bytes(), from);
            }
        }
    });
    Ok(())
}

/// A response to a request of the gateway's.
fn response(request: &str, status: &str, tag: &str, more: &str) -> String {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for line in request.lines().take_while(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
        if ["via", "record-route", "from", "to", "call-id", "cseq"].contains(&name.as_str()) {
            let tag = if name == "to" && !line.contains(";tag=") { tag } else { "" };
            text.push_str(&format!("{line}{tag}\r\n"));
        }
    }
    format!("{text}{more}Content-Length: 0\r\n\r\n")
}

/// The first value of a header.
fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
