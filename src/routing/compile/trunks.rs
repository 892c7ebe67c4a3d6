//! SipTrunks and their credentials.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::resources::conditions::reason;
use crate::resources::sip_trunk::{
    Backup, CallerIdHeader, Inbound, NumberFormat, Outbound, Refer, ReferTarget, SessionTimer, SipTrunkSpec,
    Transport,
};
use crate::routing::table::{
    BackupEntry, CallerIdHeaderEntry, CredentialId, FailoverEntry, Limits, NumberFormatEntry, ObjectKey,
    ReferEntry, SessionTimerEntry, TlsEntry, TransportEntry, TrunkEntry,
};
use crate::routing::uri::parse_host;

use super::verdict::{Checked, Problems, problem};
use super::{CredentialSource, Effective, Objects, fields, secrets};

/// Answers after which no backup is tried: busy and declined, by whoever was called.
const DEFAULT_FINAL_CODES: [i32; 3] = [486, 600, 603];
/// Seconds of a registration.
const DEFAULT_REGISTRATION_SECONDS: i32 = 300;
/// Priority and weight of a backup.
const DEFAULT_SHARE: i32 = 10;

/// What a trunk doesn't do whose credentials are missing.
const NO_CALLS: &str = "Until then no call goes out through this trunk.";

/// A trunk that can be used.
#[derive(PartialEq)]
pub(in crate::routing) struct Trunk {
    /// The entry, without the namespaces: they depend on the table.
    pub entry: TrunkEntry,
    /// Where the credentials and certificates are that the entry names.
    pub credentials: Vec<(CredentialId, CredentialSource)>,
}

/// Checks every SipTrunk.
pub(in crate::routing) fn check(objects: &Objects) -> BTreeMap<ObjectKey, Checked<Trunk>> {
    let checked =
        objects.trunks.iter().map(|(key, trunk)| (key.clone(), check_one(objects, key, &trunk.spec)));
    checked.collect()
}

/// Checks one SipTrunk. One whose credentials are missing is of use all the same: it goes on recognising the calls that
/// come in, and its entry says that none may go out.
pub(in crate::routing) fn check_one(
    objects: &Objects,
    key: &ObjectKey,
    spec: &SipTrunkSpec,
) -> Checked<Trunk> {
    let mut accepted = Problems::default();
    let entry = accepted.take(entry(spec));
    let mut resolved = Problems::default();
    let mut missing = false;
    let mut credentials = Vec::new();
    let mut take = |found: Result<(CredentialId, CredentialSource), Problems>| {
        let found = resolved.take(found);
        missing |= found.is_none();
        let id = found.as_ref().map(|(id, _)| id.clone());
        credentials.extend(found);
        id
    };
    let own = |name: &str| ObjectKey::new(&key.namespace, name);
    let login = spec.credentials_secret_ref.as_ref().map(|named| {
        let username = named.username_key.as_deref().unwrap_or("username");
        let password = named.password_key.as_deref().unwrap_or("password");
        secrets::login(objects, "credentialsSecretRef", &own(&named.name), (username, password), NO_CALLS)
    });
    let credential = login.and_then(&mut take);
    let tls = spec.tls.as_ref().map(|tls| {
        let authorities = tls.ca_bundle_ref.as_ref();
        let authorities = authorities
            .map(|named| secrets::authorities(objects, "tls.caBundleRef", &own(&named.name), NO_CALLS));
        let certificate = tls.client_certificate_ref.as_ref();
        let certificate = certificate.map(|named| {
            secrets::certificate(objects, "tls.clientCertificateRef", &own(&named.name), NO_CALLS)
        });
        TlsEntry {
            server_name: tls.server_name.as_deref().and_then(parse_host),
            authorities: authorities.and_then(&mut take),
            certificate: certificate.and_then(&mut take),
        }
    });
    let usable = entry.filter(|_| accepted.is_empty()).map(|entry| Trunk {
        entry: TrunkEntry { credential, credentials_missing: missing, tls, ..entry },
        credentials,
    });
    Checked { accepted, resolved, usable }
}

/// The Secrets that a trunk names, in its own namespace; each once.
pub(in crate::routing) fn secrets(key: &ObjectKey, spec: &SipTrunkSpec) -> BTreeSet<ObjectKey> {
    let login = spec.credentials_secret_ref.as_ref().map(|named| &named.name);
    let tls = spec.tls.as_ref();
    let authorities = tls.and_then(|tls| tls.ca_bundle_ref.as_ref()).map(|named| &named.name);
    let certificate = tls.and_then(|tls| tls.client_certificate_ref.as_ref()).map(|named| &named.name);
    let names = login.into_iter().chain(authorities).chain(certificate);
    names.map(|name| ObjectKey::new(&key.namespace, name)).collect()
}

/// Values that the status shows for what the spec leaves out.
pub(in crate::routing) fn effective(spec: &SipTrunkSpec) -> Effective {
    let transport = spec.transport.unwrap_or(Transport::Udp);
    let is_address = parse_host(&spec.host).is_some_and(|host| host.parse::<IpAddr>().is_ok());
    let default_port = if transport == Transport::Tls { 5061 } else { 5060 };
    Effective::SipTrunk { transport, port: spec.port.or(is_address.then_some(default_port)) }
}

fn entry(spec: &SipTrunkSpec) -> Result<TrunkEntry, Problems> {
    let mut problems = Problems::default();
    let host = parse_host(&spec.host);
    if host.is_none() {
        let host = spec.host.escape_default();
        problems.invalid(format!(
            "host '{host}' is neither a host name nor an IP address; the port has its own field."
        ));
    }
    let port = spec.port.and_then(|port| problems.take(fields::port("port", port)));
    let inbound = spec.inbound.as_ref();
    let allowed_sources = inbound.map(|inbound| sources(inbound, &mut problems)).unwrap_or_default();
    let number_format = inbound.and_then(|inbound| problems.take(number_format(inbound)));
    let authenticates = inbound.is_some_and(|inbound| inbound.authenticate == Some(true));
    if authenticates && spec.credentials_secret_ref.is_none() {
        problems.invalid(
            "inbound.authenticate needs credentialsSecretRef: callers prove that they know its user name and password.",
        );
    }
    let outbound = spec.outbound.as_ref();
    if let Some(outbound) = outbound {
        check_prefixes(outbound, &mut problems);
    }
    let outbound_limits = outbound
        .map(|out| limits(("outbound", out.max_concurrent_calls, out.max_calls_per_second), &mut problems));
    let inbound_limits = inbound.map(|inbound| {
        limits(("inbound", inbound.max_concurrent_calls, inbound.max_calls_per_second), &mut problems)
    });
    let refer = spec.refer.as_ref().and_then(|refer| problems.take(self::refer(refer, host.as_deref())?));
    let proxy = spec.outbound_proxy.as_deref().and_then(|proxy| {
        problems.take(fields::proxy("outboundProxy", proxy, spec.transport.map(fields::entry)))
    });
    let failover = failover(spec, &mut problems);
    let register = spec.register.as_ref();
    let register_seconds = register.and_then(|register| {
        let seconds = register.expires_seconds.unwrap_or(DEFAULT_REGISTRATION_SECONDS);
        problems.take(fields::bounded("register.expiresSeconds", seconds, 60, 86_400))
    });
    let probe = spec.probe.as_ref().map(|probe| probe.interval_seconds);
    let probe_seconds =
        probe.and_then(|seconds| problems.take(fields::bounded("probe.intervalSeconds", seconds, 0, 3600)));
    let probe_seconds = probe_seconds.filter(|seconds| *seconds > 0);
    let session_timer = spec.session_timer.as_ref().and_then(|timer| problems.take(session_timer(timer)));
    let header = spec.caller_id.as_ref().map(|caller_id| caller_id.header);
    match host {
        Some(host) if problems.is_empty() => Ok(TrunkEntry {
            host,
            port,
            transport: spec.transport.map_or(TransportEntry::Udp, fields::entry),
            any_transport: spec.transport.is_none(),
            proxy,
            refer,
            failover,
            credential: None,
            tls: None,
            credentials_missing: false,
            realm: spec.realm.clone(),
            authenticates,
            allowed_sources,
            number_format: number_format.unwrap_or(NumberFormatEntry::E164),
            allowed_prefixes: sorted(outbound.map(|outbound| &outbound.allowed_prefixes)),
            denied_prefixes: sorted(outbound.map(|outbound| &outbound.denied_prefixes)),
            limits: outbound_limits.unwrap_or_default(),
            inbound_limits: inbound_limits.unwrap_or_default(),
            probe_seconds,
            register_seconds,
            caller_id_header: match header {
                None | Some(CallerIdHeader::PAI) => CallerIdHeaderEntry::PAI,
                Some(CallerIdHeader::RPID) => CallerIdHeaderEntry::RPID,
                Some(CallerIdHeader::From) => CallerIdHeaderEntry::From,
            },
            session_timer: session_timer.unwrap_or_default(),
            allowed_namespaces: Vec::new(),
        }),
        _ => Err(problems),
    }
}

/// How the trunk is sent a REFER; `None` when it takes none.
fn refer(refer: &Refer, trunk: Option<&str>) -> Option<Result<ReferEntry, Problems>> {
    if !refer.supported {
        return None;
    }
    if refer.target == Some(ReferTarget::Tel) {
        return Some(Ok(ReferEntry::Tel));
    }
    let host = refer.host.as_deref().map_or_else(|| trunk.map(str::to_owned), parse_host);
    Some(host.map(|host| ReferEntry::Sip { host }).ok_or_else(|| {
        let host = refer.host.as_deref().unwrap_or_default().escape_default();
        problem(reason::INVALID, format!("refer.host '{host}' is neither a host name nor an IP address."))
    }))
}

fn session_timer(timer: &SessionTimer) -> Result<SessionTimerEntry, Problems> {
    let usual = SessionTimerEntry::default();
    let mut problems = Problems::default();
    let mut seconds = |field, value: Option<i32>, usual| match value {
        Some(value) => problems.take(fields::bounded(field, value, 90, 86_400)).unwrap_or(usual),
        None => usual,
    };
    let min_seconds = seconds("sessionTimer.minSeconds", timer.min_seconds, usual.min_seconds);
    let asked = seconds("sessionTimer.seconds", timer.seconds, usual.seconds);
    if problems.is_empty() && min_seconds > asked {
        problems.invalid(format!(
            "sessionTimer.minSeconds is {min_seconds}, more than the {asked} of sessionTimer.seconds; make it smaller."
        ));
    }
    if problems.is_empty() { Ok(SessionTimerEntry { min_seconds, seconds: asked }) } else { Err(problems) }
}

/// The limits of one direction, as its part of the spec says them.
fn limits(
    (part, calls, calls_per_second): (&str, Option<i32>, Option<i32>),
    problems: &mut Problems,
) -> Limits {
    let mut limit = |field: &str, value: Option<i32>, most| {
        value.and_then(|value| problems.take(fields::bounded(&format!("{part}.{field}"), value, 1, most)))
    };
    Limits {
        calls: limit("maxConcurrentCalls", calls, 100_000),
        calls_per_second: limit("maxCallsPerSecond", calls_per_second, 10_000),
    }
}

/// Further hosts and the answers after which they aren't tried.
fn failover(spec: &SipTrunkSpec, problems: &mut Problems) -> Option<FailoverEntry> {
    let mut hosts: Vec<BackupEntry> =
        spec.backups.iter().filter_map(|backup| problems.take(self::backup(backup))).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let codes = spec.final_codes.as_ref().map_or(&DEFAULT_FINAL_CODES[..], Vec::as_slice);
    let codes = codes.iter().filter_map(|code| problems.take(fields::bounded("finalCodes", *code, 300, 699)));
    let mut final_codes: Vec<u16> = codes.filter_map(|code| u16::try_from(code).ok()).collect();
    final_codes.sort_unstable();
    final_codes.dedup();
    (!hosts.is_empty()).then_some(FailoverEntry { hosts, final_codes })
}

fn backup(backup: &Backup) -> Result<BackupEntry, Problems> {
    let mut problems = Problems::default();
    let host = parse_host(&backup.host);
    if host.is_none() {
        let host = backup.host.escape_default();
        problems.invalid(format!(
            "backups has host '{host}', which is neither a host name nor an IP address; the port has its own field."
        ));
    }
    let port = backup.port.and_then(|port| problems.take(fields::port("backups[].port", port)));
    let share = |field, value: Option<i32>| {
        let value = fields::bounded(field, value.unwrap_or(DEFAULT_SHARE), 0, i32::from(u16::MAX))?;
        u16::try_from(value).map_err(|_| Problems::default())
    };
    let priority = problems.take(share("backups[].priority", backup.priority));
    let weight = problems.take(share("backups[].weight", backup.weight));
    match (host, priority, weight) {
        (Some(host), Some(priority), Some(weight)) if problems.is_empty() => {
            Ok(BackupEntry { priority, host, port, weight })
        }
        _ => Err(problems),
    }
}

fn sources(inbound: &Inbound, problems: &mut Problems) -> Vec<IpNet> {
    let mut networks: Vec<IpNet> = Vec::new();
    for text in &inbound.allowed_sources {
        match source(text) {
            Some(network) => networks.push(network),
            None => problems.invalid(format!(
                "inbound.allowedSources has '{}', which is neither an IP address nor a CIDR; write it like \
                 203.0.113.0/24.",
                text.escape_default()
            )),
        }
    }
    networks.sort_unstable();
    networks.dedup();
    networks
}

/// A network without host bits; an IPv4 network that is written as IPv6 (`::ffff:203.0.113.0/120`) as IPv4, as which its
/// packets are looked up.
fn source(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().ok()?,
    };
    let network = match (network.addr().to_canonical(), network) {
        (IpAddr::V4(address), IpNet::V6(mapped)) => {
            IpNet::new(address.into(), mapped.prefix_len().checked_sub(96)?).ok()?
        }
        _ => network,
    };
    Some(network.trunc())
}

fn number_format(inbound: &Inbound) -> Result<NumberFormatEntry, Problems> {
    match (inbound.number_format.unwrap_or(NumberFormat::E164), &inbound.country_code) {
        (NumberFormat::E164, _) => Ok(NumberFormatEntry::E164),
        (NumberFormat::National, Some(code)) if is_digits(code, 3) && !code.starts_with('0') => {
            Ok(NumberFormatEntry::National { country_code: code.clone() })
        }
        (NumberFormat::National, _) => Err(problem(
            reason::INVALID,
            "inbound.numberFormat: National needs inbound.countryCode, one to three digits without +, such as \"31\".",
        )),
    }
}

fn check_prefixes(outbound: &Outbound, problems: &mut Problems) {
    let lists =
        [("allowedPrefixes", &outbound.allowed_prefixes), ("deniedPrefixes", &outbound.denied_prefixes)];
    for (field, prefixes) in lists {
        for prefix in prefixes {
            let digits = prefix.strip_prefix('+').unwrap_or_default();
            if !is_digits(digits, 15) {
                problems.invalid(format!(
                    "outbound.{field} has '{}', which begins no E.164 number; write it like +31.",
                    prefix.escape_default()
                ));
            }
        }
    }
}

fn is_digits(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn sorted(prefixes: Option<&Vec<String>>) -> Vec<String> {
    let mut prefixes = prefixes.cloned().unwrap_or_default();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}
