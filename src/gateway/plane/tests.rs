//! The plane on real sockets, with peers that a test plays by hand.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde_json::json;
use tokio::net::UdpSocket;

use super::*;
use crate::gateway::config::HostPort;
use crate::gateway::control::CallControl;
use crate::routing::decide::Index;
use crate::routing::table::Table;

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(5);

/// A peer: one socket, messages as text.
struct Peer(UdpSocket);

impl Peer {
    async fn new() -> Self {
        Self(UdpSocket::bind("127.0.0.1:0").await.unwrap())
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
        let header = |name: &str| {
            let found = request.lines().filter(|line| line.starts_with(name));
            found.map(|line| format!("{line}\r\n")).collect::<String>()
        };
        let tag = if request.starts_with("INVITE") { ";tag=agent" } else { "" };
        let answer = format!(
            "SIP/2.0 200 OK\r\n{}{}{}{tag}\r\n{}{}Contact: <sip:agent@{}>\r\nContent-Length: 0\r\n\r\n",
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

/// A plane whose one number is answered by `agent`; and the address at which it hears SIP.
async fn plane(agent: &Peer) -> (Plane, SocketAddr) {
    let uri = format!("sip:agent@{}", agent.address());
    let target =
        json!({ "uri": uri, "host": "127.0.0.1", "port": agent.address().port(), "transport": "UDP" });
    let table: Table = serde_json::from_value(json!({
        "numbers": { "+31201234567": { "object": "acme/main", "assistant": "acme/support" } },
        "assistants": { "acme/support": {
            "agent": { "sip": { "targets": [target], "answerTimeoutSeconds": 10 } },
        } },
        "destinations": {},
        "trunks": { "acme/carrier": {
            "host": "127.0.0.1", "transport": "UDP", "allowedSources": ["127.0.0.1/32"], "numberFormat": "e164",
            "callerIdHeader": "From", "allowedNamespaces": ["acme"],
        } },
    }))
    .unwrap();
    let snapshot = Snapshot {
        generation: 1,
        hash: String::new(),
        index: Index::new(Arc::new(table)),
        credentials: HashMap::new(),
    };
    // A port that was free a moment ago: a plane is told its address before it binds.
    let bind = Peer::new().await.address();
    let instance = Instance(7);
    let calls = Arc::new(Calls::new(1));
    let (_, control) = CallControl::new(instance, 1, Arc::clone(&calls));
    let advertise = HostPort { host: "127.0.0.1".into(), port: bind.port() };
    let config = PlaneConfig {
        listeners: vec![Listener { transport: Transport::Udp, bind, advertise }],
        instance,
        ip: bind.ip(),
        max_calls: 10,
        snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        peers: Arc::default(),
        calls,
        control,
        metrics: Metrics::new(),
    };
    (start(config).await.unwrap(), bind)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_until_the_last_bye_is_answered() {
    let (caller, agent) = (Peer::new().await, Peer::new().await);
    let (plane, gateway) = plane(&agent).await;
    let request = |method: &str, to_tag: &str, branch: &str, cseq: u32| {
        let own = caller.address();
        format!(
            "{method} sip:+31201234567@{gateway} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{branch}\r\n\
             From: <sip:+31687654321@{own}>;tag=caller\r\nTo: <sip:+31201234567@{gateway}>{to_tag}\r\nCall-ID: drain\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:caller@{own}>\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        )
    };
    caller.send(gateway, &request("INVITE", "", "i", 1)).await;
    let (invite, from) = agent.receive("INVITE").await;
    agent.accept(&invite, from).await;
    let (answer, _) = caller.receive("SIP/2.0 200").await;
    let to = answer.lines().find(|line| line.starts_with("To:")).unwrap();
    let tag = format!(";tag={}", to.rsplit(";tag=").next().unwrap());
    caller.send(gateway, &request("ACK", &tag, "a", 1)).await;
    agent.receive("ACK").await;

    plane.drain();
    let drained = tokio::spawn(async move { plane.drained(LIMIT).await });
    caller.send(gateway, &request("BYE", &tag, "b", 2)).await;
    caller.receive("SIP/2.0 200 OK").await;
    agent.receive("BYE").await;
    // The first one is as good as lost: the second one must come, from a plane that is still there.
    let (bye, from) = agent.receive("BYE").await;
    assert!(!drained.is_finished(), "the plane ended with a BYE that nobody had answered");
    agent.accept(&bye, from).await;
    tokio::time::timeout(LIMIT, drained).await.expect("the drain ends with the last goodbye").unwrap();
}
