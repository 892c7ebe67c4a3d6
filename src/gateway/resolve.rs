//! Where a SIP target is: RFC 3263 as far as one address is needed. An explicit port skips SRV, an IP address skips DNS.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;

use crate::routing::table::{SipTarget, TransportEntry};
use crate::sip::event::Transport;

/// A caller is waiting: a name server that is slower than this counts as gone.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);
/// Port of SIP over UDP and TCP.
const DEFAULT_PORT: u16 = 5060;

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
        }
    }
}

/// The process's resolver; answers are cached as long as their TTL says.
pub struct Resolver {
    dns: Option<TokioResolver>,
}

impl Resolver {
    /// A resolver with the system's configuration. Without one only IP addresses can be dialled.
    pub fn from_system() -> Self {
        let dns = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        if let Err(error) = &dns {
            tracing::warn!("no DNS: {error}; only trunks and agents given as IP addresses can be dialled");
        }
        Self { dns: dns.ok() }
    }

    /// The address of a target.
    pub async fn resolve(&self, target: &SipTarget) -> Result<SocketAddr, ResolveError> {
        if let Ok(ip) = target.host.parse() {
            return Ok(SocketAddr::new(ip, target.port.unwrap_or(DEFAULT_PORT)));
        }
        tokio::time::timeout(LOOKUP_TIMEOUT, self.look_up(target))
            .await
            .unwrap_or_else(|_| Err(ResolveError::Timeout(target.host.clone())))
    }

    async fn look_up(&self, target: &SipTarget) -> Result<SocketAddr, ResolveError> {
        let failed = |reason: String| ResolveError::Failed { host: target.host.clone(), reason };
        let Some(dns) = &self.dns else { return Err(failed("there is no resolver configuration".into())) };
        if target.port.is_none() {
            let service = match target.transport {
                TransportEntry::Udp => format!("_sip._udp.{}", target.host),
                TransportEntry::Tcp => format!("_sip._tcp.{}", target.host),
            };
            if let Ok(found) = dns.srv_lookup(service).await {
                let mut records: Vec<_> = found
                    .answers()
                    .iter()
                    .filter_map(|record| match &record.data {
                        RData::SRV(srv) => Some((
                            srv.priority,
                            std::cmp::Reverse(srv.weight),
                            srv.target.to_utf8(),
                            srv.port,
                        )),
                        _ => None,
                    })
                    .collect();
                records.sort();
                if let Some((_, _, host, port)) = records.into_iter().next()
                    && let Some(ip) = dns.lookup_ip(host).await.ok().and_then(|found| found.iter().next())
                {
                    return Ok(SocketAddr::new(ip, port));
                }
            }
        }
        let found = dns.lookup_ip(target.host.as_str()).await.map_err(|error| failed(error.to_string()))?;
        let ip = found.iter().next().ok_or_else(|| failed("the name has no address".into()))?;
        Ok(SocketAddr::new(ip, target.port.unwrap_or(DEFAULT_PORT)))
    }
}
