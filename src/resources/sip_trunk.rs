//! SipTrunk: a way out to the phone network or a PBX, and who may bring calls in.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conditions::Condition;
use super::references::{AllowedNamespaces, CredentialsReference, LocalReference};
use super::rules;

/// A line to the phone network or a PBX.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "voicedock.dev",
    version = "v1alpha1",
    kind = "SipTrunk",
    namespaced,
    status = "SipTrunkStatus",
    derive = "PartialEq",
    shortname = "trunk",
    category = "voicedock",
    doc = "A way out to the phone network or a PBX, with credentials in a Secret.",
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.host"),
    printcolumn(name = "Transport", type_ = "string", json_path = ".status.effective.transport"),
    printcolumn(
        name = "Reachable",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Reachable')].status"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.tls) || (has(self.transport) && self.transport == 'TLS')")
    .message("tls is only read with transport: TLS; write that too, or remove tls"))]
#[x_kube(validation = Rule::new("!has(self.inbound) || !has(self.inbound.authenticate) || !self.inbound.authenticate || has(self.credentialsSecretRef)")
    .message("inbound.authenticate: true needs credentialsSecretRef, the user name and password that callers must know"))]
pub struct SipTrunkSpec {
    /// Name for people; the object's name when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub display_name: Option<String>,
    /// Host name (RFC 3263 look-up) or IP address, v4 or v6.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = rules::host())]
    pub host: String,
    /// Port; when left out SRV is used, else 5060, or 5061 for TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Transport; when left out the host's NAPTR records decide (RFC 3263), else UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// The Secret with user name and password for digest authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<CredentialsReference>,
    /// The only realm whose challenge is answered; any realm when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new(r#"self.matches('^[^\"\\\\\\x00-\\x1f\\x7f]+$')"#)
        .message("write the realm as it stands between the quotes of the trunk's challenge, such as pbx.example.com"))]
    pub realm: Option<String>,
    /// Outbound REGISTER, by one pod of each gateway, of the user of `credentialsSecretRef`; none when left out. Calls come
    /// in as `inbound` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub register: Option<Register>,
    /// A SIP URI through which every request goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 512))]
    #[x_kube(validation = rules::sip_uri())]
    pub outbound_proxy: Option<String>,
    /// Further hosts, tried by priority and weight (RFC 2782) when a call out finds that `host` can't be reached, says
    /// nothing for 4 seconds, or answers 408 or 5xx.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub backups: Vec<Backup>,
    /// Who may bring calls in through this trunk; nobody when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<Inbound>,
    /// Whether the trunk can be sent a REFER, and how Refer-To must look; not supported when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refer: Option<Refer>,
    /// Which numbers may be dialled through the trunk, and how many at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Outbound>,
    /// How the caller id is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_id: Option<TrunkCallerId>,
    /// OPTIONS probe; none when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// How the trunk's certificate is checked and which one is shown to it; only with TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TrunkTls>,
    /// Answers after which no backup is tried; 486, 600 and 603 when left out. Only 408 and 5xx are followed by a backup at
    /// all: other answers speak of who was called, not of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.all(code, code >= 300 && code <= 699)")
        .message("write final SIP answers from 300 to 699, such as 486"))]
    #[x_kube(validation = rules::unique("answer"))]
    pub final_codes: Option<Vec<i32>>,
    /// Session timers (RFC 4028), in use when left out as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_timer: Option<SessionTimer>,
    /// Which namespaces may use the trunk; only its own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
}

/// A SIP transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    /// RFC 3261 §18 over UDP.
    Udp,
    /// RFC 3261 §18 over TCP.
    Tcp,
    /// RFC 3261 §26 over TLS.
    Tls,
}

/// Outbound registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Register {
    /// Requested lifetime in seconds; 300 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 86400))]
    pub expires_seconds: Option<i32>,
}

/// A further host of the trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// Host name or IP address.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = rules::host())]
    pub host: String,
    /// Port, as `spec.port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Lower is tried first; 10 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub priority: Option<i32>,
    /// Share among equal priorities; 10 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub weight: Option<i32>,
}

/// Who may bring calls in, and how they write numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.countryCode) == (has(self.numberFormat) && self.numberFormat == 'National')")
    .message("write a countryCode with numberFormat: National, and only with it"))]
pub struct Inbound {
    /// Addresses or CIDRs from which calls are taken; none when empty, unless `authenticate` is true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64)))]
    #[x_kube(validation = Rule::new("self.all(source, isIP(source) || (isCIDR(source) && cidr(source) == cidr(source).masked()))")
        .message("write IP addresses or networks in CIDR form without host bits, such as 203.0.113.10, 203.0.113.0/24 or 2001:db8::/32"))]
    #[x_kube(validation = rules::unique("source"))]
    pub allowed_sources: Vec<String>,
    /// Whether whoever calls must answer a digest challenge (RFC 8760: SHA-256 or MD5) with the user name and password of
    /// `credentialsSecretRef`; false when left out. With `allowedSources` a call needs both, without them the trunk is recognised
    /// by its answer alone, wherever it calls from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authenticate: Option<bool>,
    /// How the called number is written; `E164` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_format: Option<NumberFormat>,
    /// Country code without `+`, needed for `National`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,2}$')")
        .message("write the country code without + and without zeros before it, in quotes, such as \"31\""))]
    pub country_code: Option<String>,
    /// Calls that came in over the trunk and are not over yet; no limit of its own when left out. Each gateway pod counts its own: a
    /// gateway of n pods takes n times as many. A call beyond it gets 503 with Retry-After.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub max_concurrent_calls: Option<i32>,
    /// Calls that come in over the trunk in any second; no limit of its own when left out. Each gateway pod counts its own, and
    /// refuses as for `maxConcurrentCalls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_calls_per_second: Option<i32>,
}

/// How a trunk writes numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NumberFormat {
    /// `+31201234567`; a missing `+` is forgiven.
    E164,
    /// `0201234567`, with the trunk's `countryCode`; `0031…` and `+31…` are read too.
    National,
}

/// Whether and how the trunk takes a REFER.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.supported || !(has(self.target) || has(self.host))")
    .message("target and host are only read with supported: true; write that, or remove them"))]
#[x_kube(validation = Rule::new("!has(self.host) || !has(self.target) || self.target == 'sip'")
    .message("a tel URI has no host: remove host, or write target: sip"))]
pub struct Refer {
    /// Whether the trunk takes a REFER; when false transfers are bridged.
    pub supported: bool,
    /// Scheme of the Refer-To URI; `sip` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<ReferTarget>,
    /// Host of a `sip` Refer-To; the trunk's host when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = rules::host())]
    pub host: Option<String>,
}

/// Scheme of a Refer-To URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReferTarget {
    /// `sip:+31…@host`.
    Sip,
    /// `tel:+31…`.
    Tel,
}

/// What may be dialled through the trunk: the guard against toll fraud.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outbound {
    /// E.164 prefixes that may be dialled; every number when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 32)))]
    #[x_kube(validation = rules::e164_prefixes())]
    pub allowed_prefixes: Vec<String>,
    /// E.164 prefixes that may not be dialled; wins over `allowedPrefixes`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 32)))]
    #[x_kube(validation = rules::e164_prefixes())]
    pub denied_prefixes: Vec<String>,
    /// Calls that are dialled out through the trunk and not over yet; no limit when left out. Each gateway pod counts its own: a
    /// gateway of n pods lets n times as many out. A transfer beyond it is refused (`not-allowed`) before anything is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub max_concurrent_calls: Option<i32>,
    /// Calls that are dialled out through the trunk in any second; no limit when left out. Each gateway pod counts its own, and
    /// refuses as for `maxConcurrentCalls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_calls_per_second: Option<i32>,
}

/// How the caller id is written on calls through the trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrunkCallerId {
    /// The header that carries the caller's number.
    pub header: CallerIdHeader,
}

/// The header that carries the caller's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CallerIdHeader {
    /// P-Asserted-Identity (RFC 3325).
    PAI,
    /// Remote-Party-ID.
    RPID,
    /// From only.
    From,
}

/// OPTIONS probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Seconds between two probes; 0 turns it off.
    #[schemars(range(min = 0, max = 3600))]
    pub interval_seconds: i32,
}

/// TLS towards the trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrunkTls {
    /// Name that the trunk's certificate must carry; `spec.host` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = rules::host())]
    pub server_name: Option<String>,
    /// Secret whose key `ca.crt` holds the authorities that are trusted, in PEM; the public ones when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<LocalReference>,
    /// `kubernetes.io/tls` Secret whose certificate is shown to the trunk; none when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<LocalReference>,
}

/// Session timers (RFC 4028).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.minSeconds) ? self.minSeconds : 90) <= (has(self.seconds) ? self.seconds : 1800)")
    .message("minSeconds (90 when left out) must not be above seconds (1800 when left out)"))]
pub struct SessionTimer {
    /// Smallest interval that is accepted, Min-SE; 90 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 90, max = 86400))]
    pub min_seconds: Option<i32>,
    /// Interval that is asked for; 1800 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 90, max = 86400))]
    pub seconds: Option<i32>,
}

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SipTrunkStatus {
    /// The generation of the spec that this status speaks of; -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `ResolvedRefs`, `Programmed`, `Reachable`, `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What was decided for fields that the spec leaves out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<SipTrunkEffective>,
}

/// Decided values of a SipTrunk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SipTrunkEffective {
    /// Transport to the trunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Port at the trunk; absent when SRV decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}
