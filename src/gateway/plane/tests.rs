//! The plane on real sockets, with peers that a test plays by hand.

mod legs;
mod openai;
mod side;
mod transfers;

use std::collections::HashMap;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::UdpSocket;

use super::*;
use crate::gateway::config::HostPort;
use crate::gateway::control::CallControl;
use crate::gateway::peers;
use crate::gateway::resolve::tests::{NameServer, address, srv};
use crate::gateway::snapshot::Credential;
use crate::routing::ack::TrunkReport;
use crate::routing::decide::Index;
use crate::routing::table::{CredentialId, ObjectKey, Table};

mod authenticated;
mod elsewhere;
mod flooded;
mod full;
mod registered;
mod secured;
mod traced;

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(5);

/// A peer: one socket, messages as text.
struct Peer(UdpSocket);

impl Peer {
    async fn new() -> Self {
        Self::at("127.0.0.1").await
    }

    /// At another address of this machine.
    async fn at(ip: &str) -> Self {
        Self(UdpSocket::bind((ip, 0)).await.unwrap())
    }

    /// A message that is there already.
    fn try_receive(&self) -> Option<String> {
        let mut buffer = vec![0; 65_535];
        let length = self.0.try_recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    async fn send(&self, to: SocketAddr, text: &str) {
        self.0.send_to(text.as_bytes(), to).await.unwrap();
    }

    /// The next message that starts with `start`; others are passed over.
    async fn receive(&self, start: &str) -> (String, SocketAddr) {
        let mut buffer = vec![0; 65_535];
        let wait = async {
            loop {
                let (length, from) = self.0.recv_from(&mut buffer).await.unwrap();
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if text.starts_with(start) {
                    return (text, from);
                }
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("no {start}"))
    }

    /// Answers a request with 200.
    async fn accept(&self, request: &str, to: SocketAddr) {
        self.answer(request, "200 OK", to).await;
    }

    /// Answers a request.
    async fn answer(&self, request: &str, status: &str, to: SocketAddr) {
        self.answer_with(request, status, "", to).await;
    }

    /// Answers a request with more headers, each with its line end.
    async fn answer_with(&self, request: &str, status: &str, more: &str, to: SocketAddr) {
        let header = |name: &str| {
            let found = request.lines().filter(|line| line.starts_with(name));
            found.map(|line| format!("{line}\r\n")).collect::<String>()
        };
        let tag = if request.starts_with("INVITE") { ";tag=agent" } else { "" };
        let answer = format!(
            "SIP/2.0 {status}\r\n{}{}{}{tag}\r\n{}{}Contact: <sip:agent@{}>\r\n{more}Content-Length: 0\r\n\r\n",
            header("Via:"),
            header("From:"),
            header("To:").trim_end(),
            header("Call-ID:"),
            header("CSeq:"),
            self.address(),
        );
        self.send(to, &answer).await;
    }
}

/// A plane, and the rest of its gateway as the test plays it.
struct Stage {
    plane: Plane,
    /// Where it hears SIP.
    address: SocketAddr,
    trunks: watch::Receiver<TrunkReports>,
    draining: watch::Sender<bool>,
    peers: Arc<ArcSwap<Peers>>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    metrics: Metrics,
    control: CallControl,
    openai: Arc<OpenAi>,
}

impl Stage {
    /// Waits until what was found about the trunk is as it should be.
    async fn found(&mut self, what: &str, holds: impl Fn(Option<&TrunkReport>) -> bool) {
        let carrier = ObjectKey::new("acme", "carrier");
        let wait = self.trunks.wait_for(|trunks| holds(trunks.get(&carrier)));
        tokio::time::timeout(LIMIT * 4, wait).await.unwrap_or_else(|_| panic!("not found: {what}")).unwrap();
    }
}

/// Another pod, which has the trunk if it takes calls.
fn peer_pod(instance: u32, draining: bool, trunks: TrunkReports) -> Peers {
    let ip = "127.0.0.9".parse().unwrap();
    let peer = peers::Peer { pod: "gw-2".into(), sip: ip, http: SocketAddr::new(ip, 8080), draining, trunks };
    Peers([(Instance(instance), peer)].into())
}

/// A plane whose one number is answered by `agent`; and the address at which it hears SIP.
async fn plane(agent: &Peer) -> (Plane, SocketAddr) {
    let carrier = json!({
        "host": "127.0.0.1", "allowedSources": ["127.0.0.1/32"],
        "sessionTimer": { "minSeconds": 120, "seconds": 600 },
    });
    let Stage { plane, address, .. } = stage(agent, carrier).await;
    (plane, address)
}

/// The same with this trunk, as far as the fields are given.
async fn stage(agent: &Peer, trunk: Value) -> Stage {
    Given { trunk, ..Given::new(agent) }.stage().await
}

/// What a stage is made of.
struct Given {
    /// The agent's target.
    target: Value,
    /// Where the agent is told what to say, if it is.
    hook: Value,
    /// Another agent than that one.
    agent: Value,
    /// What it is told of its task.
    script: Value,
    /// Who gets the caller when it can't be reached.
    fallback: Value,
    /// Where events are sent, if they are.
    events: Value,
    /// Whom the assistant may transfer to: their entries, by name.
    destinations: serde_json::Map<String, Value>,
    trunk: Value,
    resolver: Resolver,
    credentials: HashMap<CredentialId, Credential>,
    /// With a TLS listener, whose certificates are here.
    certificates: Option<PathBuf>,
    rates: Rates,
    /// Where it hears SIP and who it is; anywhere, and nobody in particular, otherwise.
    pod: Option<(SocketAddr, Instance)>,
}

impl Given {
    fn new(agent: &Peer) -> Self {
        let uri = format!("sip:agent@{}", agent.address());
        let target =
            json!({ "uri": uri, "host": "127.0.0.1", "port": agent.address().port(), "transport": "UDP" });
        Self {
            target,
            hook: Value::Null,
            agent: Value::Null,
            script: Value::Null,
            fallback: Value::Null,
            events: Value::Null,
            destinations: serde_json::Map::new(),
            trunk: json!({ "host": "127.0.0.1" }),
            resolver: Resolver::from_system([127, 0, 0, 1].into()),
            credentials: HashMap::new(),
            certificates: None,
            rates: Rates { trunk: None, stranger: None },
            pod: None,
        }
    }

    /// With a trunk that brings calls in from this address.
    fn taking(agent: &Peer, source: &str) -> Self {
        let trunk = json!({ "host": source, "allowedSources": [format!("{source}/32")] });
        Self { trunk, ..Self::new(agent) }
    }

    async fn stage(self) -> Stage {
        stage_of(self).await
    }
}

async fn stage_of(given: Given) -> Stage {
    let Given { target, hook, events, agent, script, fallback, destinations, trunk, resolver, .. } = given;
    let Given { credentials, certificates, rates, pod, .. } = given;
    let sip = json!({ "sip": { "targets": [target], "answerTimeoutSeconds": 10, "hook": hook } });
    let agent = if agent.is_null() { sip } else { agent };
    let listed: serde_json::Map<_, _> =
        destinations.keys().map(|name| (name.clone(), format!("acme/{name}").into())).collect();
    let destinations: serde_json::Map<_, _> =
        destinations.into_iter().map(|(name, entry)| (format!("acme/{name}"), entry)).collect();
    let mut carrier = json!({
        "transport": "UDP", "numberFormat": "e164", "callerIdHeader": "From", "allowedNamespaces": ["acme"],
    });
    carrier.as_object_mut().unwrap().extend(trunk.as_object().unwrap().clone());
    let table: Table = serde_json::from_value(json!({
        "numbers": { "+31201234567": { "object": "acme/main", "assistant": "acme/support", "fallback": fallback } },
        "assistants": { "acme/support": {
            "agent": agent, "destinations": listed, "script": script, "events": events,
        } },
        "destinations": destinations,
        "trunks": { "acme/carrier": carrier },
    }))
    .unwrap();
    let snapshot =
        Snapshot { generation: 1, hash: String::new(), index: Index::new(Arc::new(table)), credentials };
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
    // A port that was free a moment ago: a plane is told its address before it binds.
    let (bind, instance) = pod.unwrap_or_else(|| (free_address(), Instance(7)));
    let calls = Arc::new(Calls::new(1));
    let (calls_control, control) = CallControl::new(instance, 1, Arc::clone(&calls));
    let advertise = HostPort { host: "127.0.0.1".into(), port: bind.port() };
    let (draining, drains) = watch::channel(false);
    let (found, trunks) = watch::channel(TrunkReports::new());
    let peers = Arc::new(ArcSwap::default());
    let metrics = Metrics::new();
    let openai = OpenAi::new(Arc::clone(&snapshot), &metrics);
    let config = PlaneConfig {
        listeners: [
            Transport::Udp,
            certificates.as_ref().map_or(Transport::Tcp, |_| Transport::Tls(TlsPeer::ANYBODY)),
        ]
        .into_iter()
        .map(|transport| Listener { transport, bind, advertise: advertise.clone() })
        .collect(),
        certificates: certificates.unwrap_or_default(),
        instance,
        ip: bind.ip(),
        max_calls: 10,
        rates,
        realm: "gw.test".into(),
        max_calls_per_second: 1_000,
        openai: Arc::clone(&openai),
        snapshot: Arc::clone(&snapshot),
        resolver,
        event_networks: vec!["127.0.0.0/8".parse().unwrap()],
        peers: Arc::clone(&peers),
        calls,
        control,
        draining: drains,
        trunks: found,
        metrics: metrics.clone(),
    };
    let plane = start(config).await.unwrap();
    let control = calls_control;
    Stage { plane, address: bind, trunks, draining, peers, snapshot, metrics, control, openai }
}

/// An address whose port was free a moment ago, for datagrams and for streams.
fn free_address() -> SocketAddr {
    loop {
        if let Some(address) = free_address_at("127.0.0.1", 0) {
            return address;
        }
    }
}

/// The same at another address of this machine, with this port unless it is 0.
fn free_address_at(ip: &str, port: u16) -> Option<SocketAddr> {
    let address = std::net::TcpListener::bind((ip, port)).ok()?.local_addr().ok()?;
    std::net::UdpSocket::bind(address).is_ok().then_some(address)
}

/// A request of the caller's.
fn request(
    caller: &Peer,
    gateway: SocketAddr,
    method: &str,
    to_tag: &str,
    branch: &str,
    cseq: u32,
) -> String {
    let own = caller.address();
    format!(
        "{method} sip:+31201234567@{gateway} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{branch}\r\n\
         From: <sip:+31687654321@{own}>;tag=caller\r\nTo: <sip:+31201234567@{gateway}>{to_tag}\r\nCall-ID: {own}\r\n\
         CSeq: {cseq} {method}\r\nContact: <sip:caller@{own}>\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_until_the_last_bye_is_answered() {
    let (caller, agent) = (Peer::new().await, Peer::new().await);
    let (plane, gateway) = plane(&agent).await;
    caller.send(gateway, &request(&caller, gateway, "INVITE", "", "i", 1)).await;
    let (invite, from) = agent.receive("INVITE").await;
    agent.accept(&invite, from).await;
    let (answer, _) = caller.receive("SIP/2.0 200").await;
    let to = answer.lines().find(|line| line.starts_with("To:")).unwrap();
    let tag = format!(";tag={}", to.rsplit(";tag=").next().unwrap());
    caller.send(gateway, &request(&caller, gateway, "ACK", &tag, "a", 1)).await;
    agent.receive("ACK").await;

    plane.drain();
    let drained = tokio::spawn(async move { plane.drained(LIMIT).await });
    caller.send(gateway, &request(&caller, gateway, "BYE", &tag, "b", 2)).await;
    caller.receive("SIP/2.0 200 OK").await;
    agent.receive("BYE").await;
    // The first one is as good as lost: the second one must come, from a plane that is still there.
    let (bye, from) = agent.receive("BYE").await;
    assert!(!drained.is_finished(), "the plane ended with a BYE that nobody had answered");
    agent.accept(&bye, from).await;
    tokio::time::timeout(LIMIT, drained).await.expect("the drain ends with the last goodbye").unwrap();
}

/// A trunk that is probed at this peer.
fn probed(peer: &Peer) -> Value {
    json!({ "host": "127.0.0.1", "port": peer.address().port(), "probeSeconds": 1 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_is_reachable_while_it_answers_options_with_anything_but_408_and_503() {
    let (agent, carrier) = (Peer::new().await, Peer::new().await);
    let mut stage = stage(&agent, probed(&carrier)).await;
    let (options, from) = carrier.receive("OPTIONS sip:127.0.0.1:").await;
    assert!(options.contains(&format!("From: <sip:voicedock@{}>;tag=", stage.address)), "{options}");
    carrier.answer(&options, "404 Not Found", from).await;
    let said = |report: Option<&TrunkReport>| report.map(|report| (report.reachable, report.said.clone()));
    let heard = |reachable, said: &str| Some((reachable, said.to_owned()));
    let found = heard(true, "OPTIONS was answered 404 Not Found");
    stage.found("404 is an answer", |report| said(report) == found).await;
    for _ in 0..3 {
        let (options, from) = carrier.receive("OPTIONS").await;
        let before = stage.trunks.borrow().clone();
        assert!(before.values().all(|report| report.reachable), "three in a row are needed");
        carrier.answer(&options, "503 Service Unavailable", from).await;
    }
    let found = heard(false, "OPTIONS was answered 503 Service Unavailable");
    stage.found("three times 503", |report| said(report) == found).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_changes_hands_with_what_is_known_of_it() {
    let (agent, carrier) = (Peer::new().await, Peer::new().await);
    let mut stage = stage(&agent, probed(&carrier)).await;
    let (options, from) = carrier.receive("OPTIONS").await;
    carrier.accept(&options, from).await;
    stage.found("it answers", |report| report.is_some_and(|report| report.reachable)).await;
    let report = stage.trunks.borrow().values().next().unwrap().clone();

    // This pod drains: another one has the trunk, but hasn't said anything about it yet.
    stage.peers.store(Arc::new(peer_pod(8, false, TrunkReports::new())));
    stage.draining.send_replace(true);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(stage.trunks.borrow().values().next(), Some(&report), "nobody else vouches for it yet");
    let key = ObjectKey::new("acme", "carrier");
    let known = TrunkReports::from([(key.clone(), report.clone())]);
    stage.peers.store(Arc::new(peer_pod(8, false, known.clone())));
    stage.found("it is the other's", |report| report.is_none()).await;

    // The other one is gone: this one has it again, and knows what the other one knew.
    let down = TrunkReport { reachable: false, said: "OPTIONS was answered 503".into(), ..report };
    stage.peers.store(Arc::new(peer_pod(8, true, TrunkReports::from([(key.clone(), down.clone())]))));
    stage.draining.send_replace(false);
    stage.found("what the other one knew", |report| report == Some(&down)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_goes_the_next_way_when_a_host_is_silent_or_answers_503() {
    let (caller, silent, busy, agent) =
        (Peer::new().await, Peer::new().await, Peer::new().await, Peer::new().await);
    let service = "_sip._udp.agent.example";
    let mut records = vec![address("host.example", [127, 0, 0, 1].into())];
    for (priority, peer) in [(10, &silent), (20, &busy), (30, &agent)] {
        records.push(srv(service, priority, "host.example", peer.address().port()));
    }
    let dns = NameServer::start(records).await;
    let target = json!({ "uri": "sip:agent@agent.example", "host": "agent.example", "transport": "UDP" });
    let trunk = json!({ "host": "127.0.0.1", "allowedSources": ["127.0.0.1/32"] });
    let stage = Given { target, trunk, resolver: dns.resolver, ..Given::new(&agent) }.stage().await;
    caller.send(stage.address, &request(&caller, stage.address, "INVITE", "", "i", 1)).await;
    silent.receive("INVITE sip:agent@agent.example").await;
    let (invite, from) = busy.receive("INVITE").await;
    busy.answer(&invite, "503 Service Unavailable", from).await;
    busy.receive("ACK").await;
    let (invite, from) = agent.receive("INVITE").await;
    agent.accept(&invite, from).await;
    caller.receive("SIP/2.0 200 OK").await;
    assert_eq!(stage.plane.live_calls(), 1, "for the caller it was one call");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_behind_a_proxy_is_asked_through_it() {
    let (agent, proxy) = (Peer::new().await, Peer::new().await);
    let port = proxy.address().port();
    let trunk = json!({
        "host": "pbx.example.com", "probeSeconds": 1,
        "proxy": { "uri": format!("sip:127.0.0.1:{port};lr"), "host": "127.0.0.1", "port": port, "transport": "UDP" },
    });
    let _stage = stage(&agent, trunk).await;
    let (options, _) = proxy.receive("OPTIONS sip:pbx.example.com SIP/2.0").await;
    assert!(options.contains(&format!("\r\nRoute: <sip:127.0.0.1:{port};lr>\r\n")), "{options}");
}
