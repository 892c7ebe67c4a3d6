//! Fields that several kinds have → types that can't be wrong.
//!
//! The schema refuses most mistakes at `kubectl apply`; they are checked again because an object may be older than the
//! schema, and because a header with a line break must not reach the wire on anybody's word.

use crate::resources::assistant::Header;
use crate::resources::conditions::reason;
use crate::resources::sip_trunk::Transport;
use crate::routing::table::{E164, SipTarget, TransportEntry};
use crate::routing::uri::{TargetError, parse_proxy, parse_target};

use super::verdict::{Problems, problem};

/// A phone number.
pub(super) fn number(field: &str, text: &str) -> Result<E164, Problems> {
    text.parse().map_err(|_| {
        problem(reason::INVALID, format!("{field} '{text}' is not E.164; write it like +31201234567."))
    })
}

/// A SIP URI, with the transport that a field beside it says.
pub(super) fn target(field: &str, text: &str, transport: Option<Transport>) -> Result<SipTarget, Problems> {
    parse_target(text, transport.map(entry)).map_err(|error| wrong_target(field, &error))
}

/// The URI of a proxy; `transport` is what it is reached over when the URI doesn't say.
pub(super) fn proxy(
    field: &str,
    text: &str,
    transport: Option<TransportEntry>,
) -> Result<SipTarget, Problems> {
    // A URI that says something else is right: the proxy may speak another transport than what is behind it.
    parse_proxy(text, None)
        .and_then(
            |proxy| if proxy.uri.contains(";transport=") { Ok(proxy) } else { parse_proxy(text, transport) },
        )
        .map_err(|error| wrong_target(field, &error))
}

fn wrong_target(field: &str, error: &TargetError) -> Problems {
    problem(reason::INVALID, format!("{field}: {error}."))
}

/// The transport as the table knows it.
pub(super) fn entry(transport: Transport) -> TransportEntry {
    match transport {
        Transport::Udp => TransportEntry::Udp,
        Transport::Tcp => TransportEntry::Tcp,
        Transport::Tls => TransportEntry::Tls,
    }
}

/// A number within bounds.
pub(super) fn bounded(field: &str, value: i32, least: i32, most: i32) -> Result<u32, Problems> {
    match u32::try_from(value) {
        Ok(checked) if (least..=most).contains(&value) => Ok(checked),
        _ => Err(problem(reason::INVALID, format!("{field} is {value}; set it to {least} to {most}."))),
    }
}

/// A port.
pub(super) fn port(field: &str, value: i32) -> Result<u16, Problems> {
    match u16::try_from(value) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(problem(reason::INVALID, format!("{field} is {value}; set it to 1 to 65535."))),
    }
}

/// Headers that people may add: `X-…` but not the gateway's own, and `User-to-User`; one line each.
pub(super) fn headers(field: &str, headers: &[Header]) -> Result<Vec<(String, String)>, Problems> {
    let mut problems = Problems::default();
    for header in headers {
        let name = header.name.to_ascii_lowercase();
        let is_token = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte));
        let is_ours = name.starts_with("x-voicedock-");
        let is_allowed = name == "user-to-user" || (name.starts_with("x-") && name.len() > 2);
        if !is_token || is_ours || !is_allowed {
            problems.invalid(format!(
                "{field} has header '{}'; only X-… (not X-VoiceDock-…) and User-to-User may be added.",
                header.name.escape_default()
            ));
        }
        if header.value.chars().any(|character| character.is_control() && character != '\t') {
            problems.invalid(format!(
                "{field}: the value of header '{}' has a line break or a control character; write one line.",
                header.name.escape_default()
            ));
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect())
}

/// An http or https URL without credentials.
pub(super) fn url(field: &str, text: &str) -> Result<String, Problems> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    let is_fine = !host.is_empty() && !host.contains('@') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_fine {
        return Ok(text.to_owned());
    }
    // Not quoted: a URL may hold a password.
    Err(problem(
        reason::INVALID,
        format!(
            "{field} is not an http or https URL without user and password; write it like \
             http://voice-agent.default.svc:8080/hook."
        ),
    ))
}
