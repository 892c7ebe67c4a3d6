//! Where a SIP target is: RFC 3263, asked of DNS. What is asked and in which order is decided in `routing::locate`.
//!
//! Promises: what DNS says is kept as long as its TTL says, an hour at most; a look-up takes four seconds at most; a way that
//! was found not to work comes after the others for half a minute.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{ConnectionProvider, ResolverBuilder, TokioResolver};

use crate::routing::locate::{self, Naptr, Srv};
use crate::routing::table::{SipTarget, TransportEntry};
use crate::sip::event::{Flow, TlsPeer, Transport};

/// A caller is waiting: a name server that is slower than this counts as gone.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);
/// How long one question to one name server may take, so that there is time to ask again.
const QUESTION_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long an answer is kept, whatever its TTL says.
const LONGEST_TTL: Duration = Duration::from_secs(3600);
/// How long it is kept that there is no such record.
const LONGEST_NEGATIVE_TTL: Duration = Duration::from_secs(30);
/// Most ways to one target: a caller doesn't wait for more.
const MOST_WAYS: usize = 8;
/// How long a way that didn't work is tried last.
const AVOIDED_FOR: Duration = Duration::from_secs(30);

/// Why a name leads nowhere.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ResolveError {
    /// The look-up failed.
    #[error("host '{host}' can't be resolved: {reason}")]
    Failed {
        /// The name.
        host: String,
        /// What the resolver says.
        reason: String,
    },
    /// It took too long.
    #[error("host '{0}' can't be resolved: the name server doesn't answer")]
    Timeout(String),
}

impl From<TransportEntry> for Transport {
    fn from(entry: TransportEntry) -> Self {
        match entry {
            TransportEntry::Udp => Self::Udp,
            TransportEntry::Tcp => Self::Tcp,
            // To whom is known when the connection is made.
            TransportEntry::Tls => Self::Tls(TlsPeer::ANYBODY),
        }
    }
}

/// The process's resolver.
pub struct Resolver {
    dns: Option<TokioResolver>,
    /// Addresses of this family come first.
    v6: bool,
    avoided: Mutex<HashMap<Flow, Instant>>,
}

impl Resolver {
    /// A resolver with the system's configuration, for a pod with this address. Without a configuration only IP addresses
    /// can be dialled.
    pub fn from_system(own: IpAddr) -> Self {
        let dns = TokioResolver::builder_tokio().and_then(|builder| with_options(builder).build());
        if let Err(error) = &dns {
            tracing::warn!("no DNS: {error}; only trunks and agents given as IP addresses can be dialled");
        }
        Self { dns: dns.ok(), v6: own.is_ipv6(), avoided: Mutex::default() }
    }

    /// The ways to a target in the order in which they are tried; at least one.
    pub async fn resolve(&self, target: &SipTarget) -> Result<Vec<Flow>, ResolveError> {
        if let Some(way) = literal(target) {
            return Ok(vec![way]);
        }
        let mut ways = tokio::time::timeout(LOOKUP_TIMEOUT, self.look_up(target))
            .await
            .unwrap_or_else(|_| Err(ResolveError::Timeout(target.host.clone())))?;
        let mut avoided = self.avoided();
        avoided.retain(|_, since| since.elapsed() < AVOIDED_FOR);
        ways.sort_by_key(|way| avoided.contains_key(way));
        Ok(ways)
    }

    /// A way didn't work: others are tried before it for a while.
    pub fn avoid(&self, way: Flow) {
        self.avoided().insert(way, Instant::now());
    }

    async fn look_up(&self, target: &SipTarget) -> Result<Vec<Flow>, ResolveError> {
        let failed = |reason: String| ResolveError::Failed { host: target.host.clone(), reason };
        let Some(dns) = &self.dns else { return Err(failed("there is no resolver configuration".into())) };
        if target.port.is_none() {
            let ways = self.by_services(dns, target).await;
            if !ways.is_empty() {
                return Ok(ways);
            }
        }
        let port = target.port.unwrap_or_else(|| locate::default_port(target.transport));
        let addresses = self.addresses(dns, &target.host).await.map_err(failed)?;
        Ok(ways(target.transport, addresses, port).take(MOST_WAYS).collect())
    }

    /// The ways that SRV records name; none if there are no such records.
    async fn by_services(&self, dns: &TokioResolver, target: &SipTarget) -> Vec<Flow> {
        let services = match target.any_transport {
            true => {
                let found = dns.lookup(target.host.as_str(), RecordType::NAPTR).await;
                let services = locate::services(found.as_ref().map(naptrs).unwrap_or_default());
                match services.is_empty() {
                    true => [TransportEntry::Udp, TransportEntry::Tcp]
                        .map(|transport| (transport, locate::service_name(transport, &target.host)))
                        .to_vec(),
                    false => services,
                }
            }
            false => vec![(target.transport, locate::service_name(target.transport, &target.host))],
        };
        let hosts = join_all(services.into_iter().map(|(transport, name)| async move {
            let found = dns.srv_lookup(name).await;
            let hosts = locate::ordered(found.as_ref().map(srvs).unwrap_or_default(), rand::random);
            hosts.into_iter().map(|host| (transport, host)).collect::<Vec<_>>()
        }))
        .await;
        let hosts: Vec<(TransportEntry, Srv)> = hosts.into_iter().flatten().take(MOST_WAYS).collect();
        let found = join_all(hosts.iter().map(|(_, srv)| self.addresses(dns, &srv.host))).await;
        let all = hosts.iter().zip(found).flat_map(|((transport, srv), addresses)| {
            ways(*transport, addresses.unwrap_or_default(), srv.port)
        });
        all.take(MOST_WAYS).collect()
    }

    /// The addresses of a host, those of our own family first; at least one.
    async fn addresses(&self, dns: &TokioResolver, host: &str) -> Result<Vec<IpAddr>, String> {
        let found = dns.lookup_ip(host).await.map_err(|error| error.to_string())?;
        let mut addresses: Vec<IpAddr> = found.iter().collect();
        addresses.sort_by_key(|address| address.is_ipv6() != self.v6);
        if addresses.is_empty() { Err("the name has no address".into()) } else { Ok(addresses) }
    }

    fn avoided(&self) -> MutexGuard<'_, HashMap<Flow, Instant>> {
        self.avoided.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn with_options<P: ConnectionProvider>(mut builder: ResolverBuilder<P>) -> ResolverBuilder<P> {
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = QUESTION_TIMEOUT;
    options.positive_max_ttl = Some(LONGEST_TTL);
    options.negative_max_ttl = Some(LONGEST_NEGATIVE_TTL);
    builder
}

/// The way to a target that is an IP address: nothing has to be asked.
pub fn literal(target: &SipTarget) -> Option<Flow> {
    let ip = target.host.parse().ok()?;
    let port = target.port.unwrap_or_else(|| locate::default_port(target.transport));
    Some(Flow { transport: target.transport.into(), peer: SocketAddr::new(ip, port) })
}

fn ways(transport: TransportEntry, addresses: Vec<IpAddr>, port: u16) -> impl Iterator<Item = Flow> {
    addresses.into_iter().map(move |ip| Flow { transport: transport.into(), peer: SocketAddr::new(ip, port) })
}

fn naptrs(found: &Lookup) -> Vec<Naptr> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let read = |data: &RData| match data {
        RData::NAPTR(naptr) => Some(Naptr {
            order: naptr.order,
            preference: naptr.preference,
            flags: text(&naptr.flags),
            service: text(&naptr.services),
            replacement: naptr.replacement.to_utf8(),
        }),
        _ => None,
    };
    found.answers().iter().filter_map(|record| read(&record.data)).collect()
}

fn srvs(found: &Lookup) -> Vec<Srv> {
    let read = |data: &RData| match data {
        RData::SRV(srv) => Some(Srv {
            priority: srv.priority,
            weight: srv.weight,
            host: srv.target.to_utf8(),
            port: srv.port,
        }),
        _ => None,
    };
    found.answers().iter().filter_map(|record| read(&record.data)).collect()
}

#[cfg(test)]
pub(in crate::gateway) mod tests;
