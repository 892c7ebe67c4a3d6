//! The routing table: plain data, no Kubernetes types. The same objects give the same table, on any replica.
//!
//! Everything in it was validated by the compiler: a gateway that holds a `Table` never meets a number that isn't E.164,
//! a header that may not be sent, or a reference that leads nowhere. A reference that was dropped is absent; where its
//! absence would let another rule take over (and a call go out over a trunk that nobody chose) a flag says so.
//!
//! Entries are shared: tables of successive generations, and the look-ups over them, hold the same allocation. So are the
//! maps where they are equal: copying a table costs nothing, and changing the copy costs what is changed.

mod agent;
mod number;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize, Serializer};

use super::schedule::Schedule;

pub use agent::{AgentEntry, HookEntry, OpenAiEntry, OpenAiKeys, ScriptEntry, TurnEntry};
pub use number::E164;

/// `namespace/name` of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ObjectKey {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

impl ObjectKey {
    /// The key of `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Serialize for ObjectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<ObjectKey> for String {
    fn from(key: ObjectKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for ObjectKey {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for ObjectKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                Ok(Self::new(namespace, name))
            }
            _ => Err(format!("'{text}' is not namespace/name")),
        }
    }
}

/// Entries by key, in the order of the keys.
pub type Entries<K, V> = imbl::OrdMap<K, Arc<V>>;

/// One gateway's routing table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// Who answers each number.
    pub numbers: Entries<E164, NumberEntry>,
    /// Assistants that a number names.
    pub assistants: Entries<ObjectKey, AssistantEntry>,
    /// Destinations that an assistant of the table may transfer to, or a number falls back to.
    pub destinations: Entries<ObjectKey, DestinationEntry>,
    /// Trunks that carry a transfer of the table or may bring calls in.
    pub trunks: Entries<ObjectKey, TrunkEntry>,
}

impl Table {
    /// Everything of the gateway's credentials Secret that the table names, and whose it is: what kind of thing, and its key.
    pub fn credentials(&self) -> impl Iterator<Item = (&'static str, &ObjectKey, &CredentialId)> {
        let trunks =
            self.trunks.iter().flat_map(|(key, trunk)| trunk.credentials().map(move |id| ("trunk", key, id)));
        let agents = self
            .assistants
            .iter()
            .flat_map(|(key, assistant)| assistant.agent.credentials().map(move |id| ("assistant", key, id)));
        let events = self.assistants.iter().filter_map(|(key, assistant)| {
            assistant.events.as_ref().map(|events| ("assistant", key, &events.secret))
        });
        trunks.chain(agents).chain(events)
    }
}

/// Who answers a number.
///
/// The fields stand in the order of their names in JSON: `serde_json` writes an entry in its canonical form as it stands.
/// Nearly all of a large table are these, see `routing::slice`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NumberEntry {
    /// Who answers; absent when the assistant is missing: the caller goes to `fallback`, else hears 480.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assistant: Option<ObjectKey>,
    /// Gets the caller when the assistant can't be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<ObjectKey>,
    /// The PhoneNumber object.
    pub object: ObjectKey,
    /// Carries transfers whose destination names no trunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer_trunk: Option<ObjectKey>,
    /// The PhoneNumber names a transfer trunk that can't be used now. Transfers that would take it are refused: they
    /// must not go out over the trunk that the call came in over, whose rules and costs are others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transfer_trunk_unusable: bool,
}

/// An assistant, as far as a gateway needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssistantEntry {
    /// How the AI is reached.
    pub agent: AgentEntry,
    /// Whom the assistant may transfer to: the name it uses → the destination. An inline destination of the
    /// assistant has the key `namespace/<assistant>#<index>` (no object's name can hold a `#`) and its number as its
    /// name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub destinations: BTreeMap<String, ObjectKey>,
    /// What it is told of its task; only if the gateway runs its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<ScriptEntry>,
    /// Where events of its calls are sent; absent when nobody wants them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<HookEntry>,
}

/// Where a SIP request is sent: a validated SIP URI with its transport.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SipTarget {
    /// The Request-URI, `sip:user@host:port`.
    pub uri: String,
    /// Host name or IP address (no brackets).
    pub host: String,
    /// Port; by RFC 3263 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Transport.
    pub transport: TransportEntry,
    /// Nobody has said which transport: the host's NAPTR records may name another (RFC 3263 §4.1).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_transport: bool,
    /// The value of Route with which it goes through a proxy; host, port and transport are then the proxy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// How the peer is checked over TLS, and what it is shown; the host's name and the public authorities, and nothing, when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsEntry>,
}

/// TLS towards a trunk.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsEntry {
    /// The name that the peer's certificate must carry; that of the host when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The authorities that are trusted, in the gateway's credentials Secret; the public ones when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<CredentialId>,
    /// The certificate that is shown, in the gateway's credentials Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CredentialId>,
}

/// A SIP transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum TransportEntry {
    Udp,
    Tcp,
    Tls,
}

/// A person, queue or number that calls may be handed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DestinationEntry {
    /// What is dialled.
    pub target: DestinationTarget,
    /// When to use it, for the model.
    pub description: String,
    /// What the assistant says before it is dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The destination's own trunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk: Option<ObjectKey>,
    /// The caller's trunk is asked to dial it, with REFER, if that trunk can be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_refer: bool,
    /// Seconds that it may ring.
    pub ring_timeout_seconds: u32,
    /// Whose number it sees.
    pub caller_id: CallerIdEntry,
    /// Headers on the INVITE.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// When it may be dialled; always when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Destinations that are tried in this order when it can't be had; none of them twice, and never itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<ObjectKey>,
    /// Whether a caller whom nobody took goes back to the assistant; else the call ends. When others were tried after this
    /// one, this still holds: what they say doesn't.
    pub return_to_assistant: bool,
}

/// What a destination dials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DestinationTarget {
    /// A number, through a trunk.
    Number(E164),
    /// A SIP URI: through the destination's trunk if it names one, else directly.
    Sip(SipTarget),
}

/// Whose number a destination sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CallerIdEntry {
    /// The caller's.
    Preserve,
    /// The number that the caller dialled.
    PhoneNumber,
    /// This one.
    Fixed(E164),
}

/// A line to the phone network or a PBX.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrunkEntry {
    /// Host name or IP address (no brackets).
    pub host: String,
    /// Port; by RFC 3263 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Transport.
    pub transport: TransportEntry,
    /// Nobody has said which transport: the host's NAPTR records may name another (RFC 3263 §4.1).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_transport: bool,
    /// The proxy through which every request goes; its URI says `lr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<SipTarget>,
    /// How it is sent a REFER; absent when it can't be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refer: Option<ReferEntry>,
    /// Further hosts; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<FailoverEntry>,
    /// The version of the credentials in the gateway's credentials Secret; holds nothing of their value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialId>,
    /// TLS towards it; absent over other transports, and when there is nothing to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsEntry>,
    /// The trunk names credentials that are not there (no such Secret, or a key is missing). It still recognises calls
    /// that come in, but carries none out: never with old credentials, and never without any.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub credentials_missing: bool,
    /// The only realm whose challenge is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
    /// Whoever calls must prove that it knows `credential`. Without `allowed_sources` that is enough, wherever it calls from.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub authenticates: bool,
    /// Sources that may bring calls in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_sources: Vec<IpNet>,
    /// How the trunk writes called numbers.
    pub number_format: NumberFormatEntry,
    /// E.164 prefixes that may be dialled; every number when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_prefixes: Vec<String>,
    /// E.164 prefixes that may not be dialled; wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied_prefixes: Vec<String>,
    /// How much each gateway pod may dial through it.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// How much each gateway pod takes that comes in over it.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub inbound_limits: Limits,
    /// Seconds between two OPTIONS that it is sent; absent when it isn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_seconds: Option<u32>,
    /// Seconds of the registration that is held at it; absent when none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub register_seconds: Option<u32>,
    /// The header that carries the caller's number.
    pub caller_id_header: CallerIdHeaderEntry,
    /// Session timers of its calls.
    #[serde(default, skip_serializing_if = "SessionTimerEntry::is_default")]
    pub session_timer: SessionTimerEntry,
    /// Namespaces, among those of the table's numbers, that may use the trunk, sorted. A namespace other than the
    /// trunk's own is listed only if the trunk's grant lets it in *and* it wants the trunk: one of its objects in this
    /// table names it, or the trunk is the platform's, in the gateway's own namespace. Otherwise a stranger could offer a
    /// trunk to everybody and so take over calls of numbers that never asked for it.
    pub allowed_namespaces: Vec<String>,
}

/// How long a session lasts without a refresh (RFC 4028).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionTimerEntry {
    /// The shortest interval that is accepted, from 90 to `seconds`.
    pub min_seconds: u32,
    /// The interval that is asked for, up to a day.
    pub seconds: u32,
}

impl Default for SessionTimerEntry {
    fn default() -> Self {
        Self { min_seconds: 90, seconds: 1800 }
    }
}

impl SessionTimerEntry {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How a trunk reads the number in a Refer-To.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ReferEntry {
    /// `tel:+31…`.
    Tel,
    /// `sip:+31…@host`.
    Sip {
        /// Host name or IP address (no brackets).
        host: String,
    },
}

/// How much one gateway pod may dial through a trunk, or takes from it; no limit where absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Calls at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u32>,
    /// New calls in any second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_per_second: Option<u32>,
}

impl Limits {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Further hosts of a trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailoverEntry {
    /// The hosts, sorted by priority; never empty.
    pub hosts: Vec<BackupEntry>,
    /// Answers after which none of them is tried, sorted.
    pub final_codes: Vec<u16>,
}

/// A further host of a trunk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupEntry {
    /// Lower is tried first.
    pub priority: u16,
    /// Host name or IP address (no brackets).
    pub host: String,
    /// Port; by RFC 3263 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Share among equal priorities.
    pub weight: u16,
}

/// Names one version of credentials: a hash over the Secret's identity and version, never over its value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CredentialId(pub String);

/// How a trunk writes called numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum NumberFormatEntry {
    /// `+31201234567`; a missing `+` is forgiven.
    E164,
    /// `0201234567`, `0031201234567` or `+31201234567`.
    National {
        /// Without `+`.
        country_code: String,
    },
}

/// The header that carries the caller's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum CallerIdHeaderEntry {
    PAI,
    RPID,
    From,
}

impl TrunkEntry {
    /// Whether a pod keeps it: probes it or registers at it.
    pub fn is_kept(&self) -> bool {
        self.probe_seconds.is_some() || self.register_seconds.is_some()
    }

    /// Whether whoever keeps it does the same for the other.
    pub fn is_kept_like(&self, other: &Self) -> bool {
        let what = |entry: &Self| {
            let hosts = entry.failover.as_ref().map(|failover| failover.hosts.clone());
            let credentials = (entry.credential.clone(), entry.credentials_missing, entry.realm.clone());
            (
                entry.address(),
                entry.tls.clone(),
                entry.probe_seconds,
                entry.register_seconds,
                hosts,
                credentials,
            )
        };
        what(self) == what(other)
    }

    /// Everything of the gateway's credentials Secret that it names.
    pub fn credentials(&self) -> impl Iterator<Item = &CredentialId> {
        let tls = self.tls.iter().flat_map(|tls| [&tls.authorities, &tls.certificate]).flatten();
        self.credential.iter().chain(tls)
    }

    /// Where a request with this Request-URI goes that is for one of the trunk's hosts.
    pub fn target(&self, uri: String, host: &str, port: Option<u16>) -> SipTarget {
        let any_transport = self.any_transport && port.is_none() && !is_address(host);
        let (host, transport) = (host.to_owned(), self.transport);
        let here =
            SipTarget { uri, host, port, transport, any_transport, route: None, tls: self.tls.clone() };
        match &self.proxy {
            Some(proxy) => {
                let route = Some(format!("<{}>", proxy.uri));
                SipTarget { uri: here.uri, route, tls: here.tls, ..proxy.clone() }
            }
            None => here,
        }
    }

    /// Where the trunk is, in words: another text for another place.
    pub fn address(&self) -> String {
        let host = super::uri::format(None, &self.host, self.port);
        match &self.proxy {
            Some(proxy) => format!("{host} through {} over {}", proxy.uri, proxy.transport),
            None => format!("{host} over {}", self.transport),
        }
    }

    /// Whether this is one of the trunk's hosts, or the proxy before them.
    pub fn is_at(&self, host: &str) -> bool {
        self.host == host
            || self.proxy.as_ref().is_some_and(|proxy| proxy.host == host)
            || self.failover.iter().flat_map(|failover| &failover.hosts).any(|backup| backup.host == host)
    }

    /// Whether calls come in over it at all: from sources that it names, or from whoever knows its password.
    pub fn brings_calls_in(&self) -> bool {
        self.authenticates || !self.allowed_sources.is_empty()
    }

    /// Whether a call from `source` may come in over this trunk.
    pub fn admits(&self, source: IpAddr) -> bool {
        self.allowed_sources.iter().any(|net| net.contains(&source.to_canonical()))
    }
}

fn is_address(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}
