//! What a gateway pod is told when it starts: the contract with the Deployment that the operator writes.
//!
//! Each setting is an environment variable or a flag; [`Args`] is the text, [`Config`] the same in types that can't be
//! wrong. Everything that changes while the pod runs (the table, credentials, peers, API keys) is not here.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::call_id::Instance;
use super::guard::Rates;
use crate::sip::event::{TlsPeer, Transport};
use crate::telemetry::LogArgs;

/// Run a SIP gateway: answers calls by the routing table that the operator publishes
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// This pod's name; names its Lease
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: String,
    /// This pod's uid: the owner of its Lease, and what its call ids are made from
    #[arg(long, env = "POD_UID", value_name = "UID")]
    pub pod_uid: String,
    /// This pod's namespace: the SipGateway's
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub pod_namespace: String,
    /// This pod's address; sockets are bound to it, peers reach it there
    #[arg(long, env = "POD_IP", value_name = "IP")]
    pub pod_ip: IpAddr,
    /// The node's address
    #[arg(long, env = "NODE_IP", value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// Name of the SipGateway
    #[arg(long, env = "VOICEDOCK_GATEWAY", value_name = "NAME")]
    pub gateway: String,
    /// Uid of the SipGateway
    #[arg(long, env = "VOICEDOCK_GATEWAY_UID", value_name = "UID")]
    pub gateway_uid: Option<String>,
    /// Where SIP is heard: transport:port, separated by commas
    #[arg(long, env = "VOICEDOCK_LISTENERS", value_name = "LISTENERS", default_value = "udp:5060,tcp:5060")]
    pub listeners: Listeners,
    /// What Contact and Via say: transport=host:port, separated by commas [default: the pod's address and the listener's
    /// port]
    #[arg(
        long,
        env = "VOICEDOCK_ADVERTISE",
        value_name = "ADDRESSES",
        default_value = "",
        hide_default_value = true
    )]
    pub advertise: Advertise,
    /// Seconds that a pod which is told to stop waits for its calls
    #[arg(long, env = "VOICEDOCK_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 3600,
        value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub drain_seconds: u32,
    /// Where HTTP is heard (health, metrics, call control): ip:port, or :port of every address
    #[arg(long, env = "VOICEDOCK_HTTP", value_name = "ADDRESS", default_value = ":8080")]
    pub http: HttpAddress,
    /// Directory whose files are the bearer keys of call control, a mounted Secret; 401 to everybody if there is none
    #[arg(
        long,
        env = "VOICEDOCK_API_KEYS",
        value_name = "DIRECTORY",
        default_value = "/etc/voicedock/api-keys"
    )]
    pub api_keys: PathBuf,
    /// Directory with the certificate of each TLS listener: <port>/tls.crt and <port>/tls.key, mounted Secrets
    #[arg(
        long,
        env = "VOICEDOCK_CERTIFICATES",
        value_name = "DIRECTORY",
        default_value = "/etc/voicedock/certificates"
    )]
    pub certificates: PathBuf,
    /// Directory for the copy of the table that a restarted container starts from
    #[arg(long, env = "VOICEDOCK_STATE", value_name = "DIRECTORY", default_value = "/var/lib/voicedock")]
    pub state: PathBuf,
    /// Threads that carry calls [default: one a processor]
    #[arg(long, env = "VOICEDOCK_SHARDS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub shards: Option<u16>,
    /// Calls at the same time; new ones beyond get 503
    #[arg(long, env = "VOICEDOCK_MAX_CALLS", value_name = "N", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_calls: u32,
    /// Requests per second that one address of a trunk may begin, besides those of calls that are up; more are held up. 0: any
    /// number
    #[arg(long, env = "VOICEDOCK_TRUNK_RATE", value_name = "N", default_value_t = 20_000)]
    pub trunk_rate: u32,
    /// The same for any other address
    #[arg(long, env = "VOICEDOCK_STRANGER_RATE", value_name = "N", default_value_t = 100)]
    pub stranger_rate: u32,
    /// New calls a second; those that come faster get 503
    #[arg(long, env = "VOICEDOCK_MAX_CALLS_PER_SECOND", value_name = "N", default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_calls_per_second: u32,
    /// Networks that events may be sent to although they are not public, separated by commas; also those that are not encrypted
    #[arg(long, env = "VOICEDOCK_EVENT_NETWORKS", value_name = "NETWORKS", value_delimiter = ',')]
    pub event_networks: Vec<IpNet>,
    /// Logs
    #[command(flatten)]
    pub log: LogArgs,
}

/// The settings of a gateway pod, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This pod.
    pub pod: Pod,
    /// Name of the SipGateway, which has the pod's namespace.
    pub gateway: String,
    /// Where SIP is heard and what is said about it; at least one.
    pub listeners: Vec<Listener>,
    /// How long calls are waited for when the pod is told to stop.
    pub drain: Duration,
    /// Where HTTP is heard.
    pub http: SocketAddr,
    /// Directory of the bearer keys.
    pub api_keys: PathBuf,
    /// Directory of the certificates of TLS listeners.
    pub certificates: PathBuf,
    /// Directory of the disk copy.
    pub state: PathBuf,
    /// Shards, 1 to 256.
    pub shards: usize,
    /// Calls at the same time, at least 1.
    pub max_calls: usize,
    /// How much one source may begin.
    pub rates: Rates,
    /// New calls a second, at least 1.
    pub max_calls_per_second: u32,
    /// Networks that events may be sent to although they are not public.
    pub event_networks: Vec<IpNet>,
}

/// A gateway pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Address.
    pub ip: IpAddr,
    /// What its call ids and Contacts carry.
    pub instance: Instance,
}

/// One way in for SIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Transport.
    pub transport: Transport,
    /// Where the socket is bound.
    pub bind: SocketAddr,
    /// What Contact and Via say.
    pub advertise: HostPort,
}

/// A host and a port as they are written into a SIP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Host name or IP address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// `ip:port`, or `:port` of every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpAddress {
    ip: Option<IpAddr>,
    port: u16,
}

/// `udp:5060,tcp:5060`: at least one, no transport twice on one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listeners(Vec<(Transport, u16)>);

/// `udp=host:port,tcp=host:port`: each transport at most once; may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertise(BTreeMap<Transport, HostPort>);

/// Why settings don't fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Something is advertised that isn't there.
    #[error(
        "VOICEDOCK_ADVERTISE names {0}, which VOICEDOCK_LISTENERS does not; name only transports that are listened on"
    )]
    AdvertisedOnly(&'static str),
    /// A name is empty.
    #[error("{0} is empty; the operator's Deployment sets it from the pod's own fields")]
    Empty(&'static str),
}

impl Config {
    /// Checks what single settings can't say. `processors` is how many shards there are when none are asked for.
    pub fn new(args: Args, processors: usize) -> Result<Self, ConfigError> {
        for (name, value) in [
            ("POD_NAME", &args.pod_name),
            ("POD_UID", &args.pod_uid),
            ("POD_NAMESPACE", &args.pod_namespace),
            ("VOICEDOCK_GATEWAY", &args.gateway),
        ] {
            if value.is_empty() {
                return Err(ConfigError::Empty(name));
            }
        }
        let heard = |transport| args.listeners.0.iter().any(|(listened, _)| *listened == transport);
        if let Some(transport) = args.advertise.0.keys().find(|transport| !heard(**transport)) {
            return Err(ConfigError::AdvertisedOnly(name_of(*transport)));
        }
        let listener = |(transport, port): &(Transport, u16)| Listener {
            transport: *transport,
            bind: SocketAddr::new(args.pod_ip, *port),
            advertise: args
                .advertise
                .0
                .get(transport)
                .cloned()
                .unwrap_or_else(|| HostPort { host: args.pod_ip.to_string(), port: *port }),
        };
        Ok(Self {
            listeners: args.listeners.0.iter().map(listener).collect(),
            pod: Pod {
                instance: Instance::of_pod(&args.pod_uid),
                name: args.pod_name,
                uid: args.pod_uid,
                namespace: args.pod_namespace,
                ip: args.pod_ip,
            },
            gateway: args.gateway,
            drain: Duration::from_secs(args.drain_seconds.into()),
            http: SocketAddr::new(args.http.ip.unwrap_or_else(|| every_address(args.pod_ip)), args.http.port),
            api_keys: args.api_keys,
            certificates: args.certificates,
            state: args.state,
            shards: args.shards.map_or(processors, usize::from).clamp(1, 256),
            max_calls: usize::try_from(args.max_calls).unwrap_or(usize::MAX),
            rates: Rates {
                trunk: NonZeroU32::new(args.trunk_rate),
                stranger: NonZeroU32::new(args.stranger_rate),
            },
            max_calls_per_second: args.max_calls_per_second,
            event_networks: args.event_networks,
        })
    }

    /// Where peers reach this pod's HTTP.
    pub fn http_of_pod(&self) -> SocketAddr {
        SocketAddr::new(self.pod.ip, self.http.port())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not host:port such as 203.0.113.10:5060");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let name = |host: &str| {
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        };
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) => v6.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            // As `$(NODE_IP):5060` comes out on a node with an IPv6 address; what follows the last colon is the port.
            None if host.parse::<Ipv6Addr>().is_ok() => host.to_owned(),
            None if name(host) => host.to_owned(),
            None => return Err(wrong()),
        };
        Ok(Self { host, port })
    }
}

impl FromStr for HttpAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not ip:port such as 10.0.0.7:8080, or :port");
        // As in `HostPort`, an IPv6 address may come without brackets.
        let (ip, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
        let ip = if ip.is_empty() { None } else { Some(ip.parse().map_err(|_| wrong())?) };
        Ok(Self { ip, port: port.parse().map_err(|_| wrong())? })
    }
}

impl FromStr for Listeners {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut listeners = Vec::new();
        for part in parts(text) {
            let wrong = || format!("'{part}' is not transport:port such as udp:5060");
            let (transport, port) = part.split_once(':').ok_or_else(wrong)?;
            let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
            let listener = (transport_named(transport)?, port);
            if listeners.contains(&listener) {
                return Err(format!("'{part}' is named twice; name each listener once"));
            }
            listeners.push(listener);
        }
        if listeners.is_empty() {
            return Err("no listener is named; write for example udp:5060,tcp:5060".to_owned());
        }
        Ok(Self(listeners))
    }
}

impl FromStr for Advertise {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut addresses = BTreeMap::new();
        for part in parts(text) {
            let (transport, address) = part.split_once('=').ok_or_else(|| {
                format!("'{part}' is not transport=host:port such as udp=203.0.113.10:5060")
            })?;
            if addresses.insert(transport_named(transport)?, address.parse()?).is_some() {
                return Err(format!("'{transport}' is advertised twice; name each transport once"));
            }
        }
        Ok(Self(addresses))
    }
}

/// All addresses of the family that the pod has.
fn every_address(pod: IpAddr) -> IpAddr {
    match pod {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn transport_named(name: &str) -> Result<Transport, String> {
    match name {
        "udp" => Ok(Transport::Udp),
        "tcp" => Ok(Transport::Tcp),
        "tls" => Ok(Transport::Tls(TlsPeer::ANYBODY)),
        other => Err(format!("'{other}' is no transport of this version; it has udp, tcp and tls")),
    }
}

fn name_of(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls(_) => "tls",
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    #[command(args_override_self = true)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn config(extra: &[&str]) -> Result<Config, String> {
        let fixed = [
            "gateway",
            "--pod-name=gw-1",
            "--pod-uid=uid-1",
            "--pod-namespace=voice",
            "--pod-ip=10.0.0.7",
            "--gateway=default",
        ];
        let line = Line::try_parse_from(fixed.iter().chain(extra)).map_err(|error| error.to_string())?;
        Config::new(line.args, 2).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pod_without_further_settings_listens_on_5060_and_advertises_itself() {
        let config = config(&[]).unwrap();
        let pod = HostPort { host: "10.0.0.7".to_owned(), port: 5060 };
        let bind = "10.0.0.7:5060".parse().unwrap();
        assert_eq!(
            config.listeners,
            [
                Listener { transport: Transport::Udp, bind, advertise: pod.clone() },
                Listener { transport: Transport::Tcp, bind, advertise: pod },
            ]
        );
        assert_eq!((config.shards, config.max_calls, config.drain.as_secs()), (2, 10_000, 3600));
        let rates = Rates { trunk: NonZeroU32::new(20_000), stranger: NonZeroU32::new(100) };
        assert_eq!(config.rates, rates);
        assert_eq!(self::config(&["--trunk-rate=0"]).unwrap().rates, Rates { trunk: None, ..rates });
        assert_eq!(config.http_of_pod().to_string(), "10.0.0.7:8080");
    }

    #[test]
    fn what_is_advertised_may_differ_from_what_is_bound() {
        let config = config(&[
            "--listeners=udp:6060,tcp:6061",
            "--advertise=udp=sip.example.com:5060,tcp=[2001:db8::1]:5061",
        ])
        .unwrap();
        let said: Vec<String> = config.listeners.iter().map(|l| l.advertise.to_string()).collect();
        assert_eq!(said, ["sip.example.com:5060", "[2001:db8::1]:5061"]);
        assert_eq!(config.listeners[1].bind.to_string(), "10.0.0.7:6061");
    }

    #[test]
    fn a_pod_with_an_ipv6_address_needs_no_other_settings() {
        let on_host = config(&["--pod-ip=fd00::7", "--http=fd00::7:9080"]).unwrap();
        assert_eq!(on_host.http.to_string(), "[fd00::7]:9080");
        let config = config(&["--pod-ip=fd00::7", "--advertise=udp=fd00::1:30060"]).unwrap();
        assert_eq!(config.http.to_string(), "[::]:8080");
        assert_eq!(config.http_of_pod().to_string(), "[fd00::7]:8080");
        let said: Vec<String> = config.listeners.iter().map(|l| l.advertise.to_string()).collect();
        assert_eq!(said, ["[fd00::1]:30060", "[fd00::7]:5060"]);
    }

    #[test]
    fn a_wrong_setting_is_refused_with_what_to_write_instead() {
        for (setting, sentence) in [
            ("--listeners=", "udp:5060,tcp:5060"),
            ("--listeners=udp", "such as udp:5060"),
            ("--listeners=udp:0", "such as udp:5060"),
            ("--http=localhost:8080", "such as 10.0.0.7:8080"),
            ("--listeners=sctp:5060", "it has udp, tcp and tls"),
            ("--listeners=udp:5060,udp:5060", "named twice"),
            ("--advertise=udp=2001:db8::1::5060", "not host:port"),
            ("--advertise=udp=[sip.example.com]:5060", "not host:port"),
            ("--advertise=udp=203.0.113.10", "not host:port"),
            ("--advertise=udp=a b:5060", "not host:port"),
            ("--advertise=udp=a:1,udp=b:2", "advertised twice"),
            ("--shards=0", "1..=256"),
            ("--shards=257", "1..=256"),
            ("--max-calls=0", "1..=1000000"),
            ("--max-calls-per-second=0", "1..=1000000"),
            ("--gateway=", "VOICEDOCK_GATEWAY is empty"),
            ("--pod-ip=here", "invalid IP address"),
        ] {
            let error = config(&[setting]).unwrap_err();
            assert!(error.contains(sentence), "{setting}: {error}");
        }
        let error = config(&["--listeners=udp:5060", "--advertise=tcp=a:1"]).unwrap_err();
        assert!(error.contains("VOICEDOCK_ADVERTISE names tcp"), "{error}");
    }
}
