//! The resolver against a name server that a test plays on a real socket.

use std::net::Ipv4Addr;
use std::sync::Arc;

use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, NAPTR, SRV};
use hickory_resolver::proto::rr::{Name, Record};
use tokio::net::UdpSocket;

use super::*;

/// A name server with these records, and how often each name was asked for.
pub(in crate::gateway) struct NameServer {
    asked: Arc<Mutex<Vec<String>>>,
    pub(in crate::gateway) resolver: Resolver,
}

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{}.", text.trim_end_matches('.'))).unwrap()
}

pub(in crate::gateway) fn srv(of: &str, priority: u16, host: &str, port: u16) -> (Name, RData) {
    (name(of), RData::SRV(SRV::new(priority, 10, port, name(host))))
}

fn a(of: &str, last: u8) -> (Name, RData) {
    address(of, Ipv4Addr::new(192, 0, 2, last))
}

pub(in crate::gateway) fn address(of: &str, ip: Ipv4Addr) -> (Name, RData) {
    (name(of), RData::A(A(ip)))
}

fn naptr(of: &str, order: u16, service: &str, replacement: &str) -> (Name, RData) {
    let boxed = |text: &str| text.as_bytes().to_vec().into_boxed_slice();
    let naptr = NAPTR::new(order, 10, boxed("s"), boxed(service), boxed(""), name(replacement));
    (name(of), RData::NAPTR(naptr))
}

impl NameServer {
    pub(in crate::gateway) async fn start(records: Vec<(Name, RData)>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let questions = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let request = Message::from_vec(&buffer[..length]).unwrap();
                let query = request.queries[0].clone();
                questions.lock().unwrap().push(format!("{} {}", query.query_type(), query.name()));
                let mut answer =
                    Message::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
                answer.metadata.recursion_desired = true;
                answer.metadata.recursion_available = true;
                let named = records.iter().filter(|(of, _)| of == query.name());
                if named.clone().next().is_none() {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                for (of, data) in named.filter(|(_, data)| data.record_type() == query.query_type()) {
                    answer.answers.push(Record::from_rdata(of.clone(), 300, data.clone()));
                }
                answer.queries.push(query);
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        let mut server = NameServerConfig::udp(address.ip());
        server.connections[0].port = address.port();
        let config = ResolverConfig::from_parts(None, vec![], vec![server]);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let dns = Some(with_options(builder).build().unwrap());
        let resolver = Resolver { dns, v6: false, avoided: Mutex::default() };
        Self { asked, resolver }
    }

    async fn ways(&self, uri: &str) -> Vec<String> {
        let target = crate::routing::uri::parse_target(uri, None).unwrap();
        let ways = self.resolver.resolve(&target).await.unwrap();
        ways.iter().map(|way| format!("{} {}", way.transport.name(), way.peer)).collect()
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

#[tokio::test]
async fn naptr_names_the_transport_and_srv_the_hosts_in_their_order() {
    let dns = NameServer::start(vec![
        naptr("carrier.example", 20, "SIP+D2U", "udp.carrier.example"),
        naptr("carrier.example", 10, "SIP+D2T", "tcp.carrier.example"),
        srv("tcp.carrier.example", 20, "b.carrier.example", 5080),
        srv("tcp.carrier.example", 10, "a.carrier.example", 5070),
        srv("udp.carrier.example", 10, "a.carrier.example", 5060),
        a("a.carrier.example", 1),
        a("b.carrier.example", 2),
    ])
    .await;
    let expected = ["TCP 192.0.2.1:5070", "TCP 192.0.2.2:5080", "UDP 192.0.2.1:5060"];
    assert_eq!(dns.ways("sip:carrier.example").await, expected);
}

#[tokio::test]
async fn a_transport_that_was_said_is_kept_and_a_port_asks_for_addresses_only() {
    let dns = NameServer::start(vec![
        naptr("carrier.example", 10, "SIP+D2T", "_sip._tcp.carrier.example"),
        srv("_sip._tcp.carrier.example", 10, "a.carrier.example", 5070),
        srv("_sip._udp.carrier.example", 10, "a.carrier.example", 5090),
        a("a.carrier.example", 1),
        a("carrier.example", 9),
    ])
    .await;
    assert_eq!(dns.ways("sip:carrier.example;transport=udp").await, ["UDP 192.0.2.1:5090"]);
    dns.asked();
    assert_eq!(dns.ways("sip:carrier.example:5061").await, ["UDP 192.0.2.9:5061"]);
    assert!(dns.asked().iter().all(|asked| asked.starts_with('A')));
    assert_eq!(dns.ways("sip:198.51.100.1").await, ["UDP 198.51.100.1:5060"]);
    assert_eq!(dns.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_host_without_records_for_sip_is_asked_for_its_addresses_our_family_first() {
    let v6 = RData::AAAA(AAAA("2001:db8::1".parse().unwrap()));
    let dns =
        NameServer::start(vec![(name("pbx.example"), v6), a("pbx.example", 1), a("pbx.example", 2)]).await;
    let mut ways = dns.ways("sip:pbx.example").await;
    assert_eq!(ways.pop().unwrap(), "UDP [2001:db8::1]:5060");
    ways.sort();
    assert_eq!(ways, ["UDP 192.0.2.1:5060", "UDP 192.0.2.2:5060"]);
}

#[tokio::test]
async fn answers_are_kept_and_a_way_that_does_not_work_comes_last() {
    let dns = NameServer::start(vec![
        srv("_sip._udp.carrier.example", 10, "a.carrier.example", 5060),
        srv("_sip._udp.carrier.example", 20, "b.carrier.example", 5060),
        a("a.carrier.example", 1),
        a("b.carrier.example", 2),
    ])
    .await;
    let uri = "sip:carrier.example;transport=udp";
    assert_eq!(dns.ways(uri).await, ["UDP 192.0.2.1:5060", "UDP 192.0.2.2:5060"]);
    dns.asked();
    dns.resolver.avoid(Flow { transport: Transport::Udp, peer: "192.0.2.1:5060".parse().unwrap() });
    assert_eq!(dns.ways(uri).await, ["UDP 192.0.2.2:5060", "UDP 192.0.2.1:5060"]);
    // How long it holds that there is no record is in a SOA record, which this server has not.
    let again: Vec<String> = dns.asked().into_iter().filter(|asked| !asked.starts_with("AAAA")).collect();
    assert_eq!(again, Vec::<String>::new());
}

#[tokio::test]
async fn a_name_that_leads_nowhere_says_so() {
    let dns = NameServer::start(vec![]).await;
    let target = crate::routing::uri::parse_target("sip:nowhere.example", None).unwrap();
    let error = dns.resolver.resolve(&target).await.unwrap_err();
    assert!(error.to_string().contains("host 'nowhere.example' can't be resolved"), "{error}");
}
