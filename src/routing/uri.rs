//! SIP URIs of specs and of transfer requests → [`SipTarget`]: small and strict.
//!
//! Only `sip:[user@]host[:port][;transport=udp|tcp|tls][;user=phone]`: a URI that is dialled must not carry headers or
//! parameters that change where or how it is sent (RFC 3261 §19.1.5). Equal targets have equal text: scheme, host and
//! parameters are lower case.

use std::fmt;

use bytes::Bytes;
use sipx_sip::uri::{Host, Scheme, Uri};

use super::table::{SipTarget, TransportEntry};

/// Longest URI, characters.
const MAX_LENGTH: usize = 512;

/// Why a text is no SIP URI that can be dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not `sip:[user@]host[:port]` at all.
    #[error("'{0}' is not a SIP URI such as sip:sales@pbx.example.com:5060")]
    NotSip(String),
    /// `sips:` promises TLS on every hop to the end, which nobody can keep for a call that comes in otherwise.
    #[error(
        "'{0}' has scheme sips; use sip: with transport=tls, which says the same of the way to that host"
    )]
    Sips(String),
    /// A password, headers, or a parameter that is not known.
    #[error("'{uri}' carries {what}, which a dialled URI may not; remove it")]
    NotAllowed {
        /// The URI.
        uri: String,
        /// What is in it.
        what: String,
    },
    /// The field beside the URI says another transport.
    #[error("'{uri}' says transport={said} but the field transport says {wanted}; remove one of them")]
    TwoTransports {
        /// The URI.
        uri: String,
        /// What the URI says.
        said: TransportEntry,
        /// What the field says.
        wanted: TransportEntry,
    },
}

/// Reads a SIP URI. `transport` is what a field beside it says; without both it is UDP.
pub fn parse_target(text: &str, transport: Option<TransportEntry>) -> Result<SipTarget, TargetError> {
    read(text, transport, false)
}

/// Reads the URI of a proxy that requests go through. It may say `lr`, and does so in what comes of it: whoever writes
/// `outboundProxy` means a proxy of this century, and a strict router (RFC 2543) would be addressed otherwise.
pub fn parse_proxy(text: &str, transport: Option<TransportEntry>) -> Result<SipTarget, TargetError> {
    let target = read(text, transport, true)?;
    Ok(SipTarget { uri: format!("{};lr", target.uri), ..target })
}

/// `lr` says whether the parameter of that name may be there.
fn read(text: &str, transport: Option<TransportEntry>, mut lr: bool) -> Result<SipTarget, TargetError> {
    let not_sip = || TargetError::NotSip(shorten(text));
    if text.len() > MAX_LENGTH {
        return Err(not_sip());
    }
    let uri = Uri::parse(Bytes::copy_from_slice(text.as_bytes())).map_err(|_| not_sip())?;
    match uri.scheme() {
        Scheme::Sip => {}
        Scheme::Sips => return Err(TargetError::Sips(text.to_owned())),
        _ => return Err(not_sip()),
    }
    let not_allowed = |what: String| TargetError::NotAllowed { uri: text.to_owned(), what };
    if uri.password().is_some() {
        // Not quoted: what a password is must not come back in a status.
        return Err(TargetError::NotAllowed { uri: "sip:…".to_owned(), what: "a password".to_owned() });
    }
    if uri.has_headers() {
        return Err(not_allowed("headers after '?'".to_owned()));
    }
    let mut said = None;
    let mut user_phone = false;
    for param in uri.params().into_iter().flat_map(|params| params.iter()) {
        let name = String::from_utf8_lossy(param.name()).to_ascii_lowercase();
        let value = param.value().map(|value| String::from_utf8_lossy(value).to_ascii_lowercase());
        match (name.as_str(), value.as_deref()) {
            ("transport", Some("udp")) if said.is_none() => said = Some(TransportEntry::Udp),
            ("transport", Some("tcp")) if said.is_none() => said = Some(TransportEntry::Tcp),
            ("transport", Some("tls")) if said.is_none() => said = Some(TransportEntry::Tls),
            ("user", Some("phone")) => user_phone = true,
            ("lr", _) if lr => lr = false,
            _ => return Err(not_allowed(format!("parameter '{name}'"))),
        }
    }
    if let (Some(said), Some(wanted)) = (said, transport)
        && said != wanted
    {
        return Err(TargetError::TwoTransports { uri: text.to_owned(), said, wanted });
    }
    let user = match uri.user() {
        Some([]) => return Err(not_sip()),
        Some(user) => Some(std::str::from_utf8(user).map_err(|_| not_sip())?),
        None => None,
    };
    let host = uri.host().ok_or_else(not_sip)?;
    let mut canonical = format(user, &host_text(host), uri.port());
    if let Some(said) = said {
        canonical.push_str(&format!(";transport={}", said.to_string().to_ascii_lowercase()));
    }
    if user_phone {
        canonical.push_str(";user=phone");
    }
    let named = matches!(host, Host::Name(_)) && uri.port().is_none();
    Ok(SipTarget {
        uri: canonical,
        host: host_text(host),
        port: uri.port(),
        any_transport: named && said.or(transport).is_none(),
        transport: said.or(transport).unwrap_or(TransportEntry::Udp),
        route: None,
        tls: None,
    })
}

/// Reads a host name or an IP address (v6 with or without brackets) to the form of [`SipTarget::host`]: no brackets,
/// lower case.
pub fn parse_host(text: &str) -> Option<String> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Some(address.to_string());
    }
    match Host::parse_hostport(&Bytes::copy_from_slice(text.as_bytes())) {
        Ok((host, None)) => Some(host_text(&host)),
        _ => None,
    }
}

/// Writes `sip:[user@]host[:port]`; `host` as [`SipTarget::host`].
pub fn format(user: Option<&str>, host: &str, port: Option<u16>) -> String {
    let mut text = String::from("sip:");
    if let Some(user) = user {
        text.push_str(user);
        text.push('@');
    }
    if host.contains(':') {
        text.push_str(&format!("[{host}]"));
    } else {
        text.push_str(host);
    }
    if let Some(port) = port {
        text.push_str(&format!(":{port}"));
    }
    text
}

/// The user part of a target's URI with its escapes decoded; `None` if there is none or it is not UTF-8.
pub fn user(target: &SipTarget) -> Option<String> {
    let uri = Uri::parse(Bytes::copy_from_slice(target.uri.as_bytes())).ok()?;
    String::from_utf8(uri.decoded_user()?).ok()
}

impl fmt::Display for TransportEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        })
    }
}

fn host_text(host: &Host) -> String {
    String::from_utf8_lossy(&host.to_bytes()).to_ascii_lowercase()
}

/// A text for a message: cut where it gets long.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<SipTarget, TargetError> {
        parse_target(text, None)
    }

    #[test]
    fn a_full_uri_is_taken_apart() {
        let target = parse("SIP:Sales@PBX.Example.com:5070;Transport=TCP").unwrap();
        assert_eq!(target.uri, "sip:Sales@pbx.example.com:5070;transport=tcp");
        assert_eq!((target.host.as_str(), target.port), ("pbx.example.com", Some(5070)));
        assert_eq!(target.transport, TransportEntry::Tcp);
    }

    #[test]
    fn user_and_port_may_be_left_out() {
        let target = parse("sip:10.0.0.1").unwrap();
        assert_eq!((target.uri.as_str(), target.port), ("sip:10.0.0.1", None));
        assert_eq!(target.transport, TransportEntry::Udp);
    }

    #[test]
    fn ipv6_hosts_have_brackets_in_the_uri_only() {
        let target = parse("sip:a@[2001:DB8::1]:5060").unwrap();
        assert_eq!((target.uri.as_str(), target.host.as_str()), ("sip:a@[2001:db8::1]:5060", "2001:db8::1"));
        assert_eq!(parse_host("2001:DB8::1").as_deref(), Some("2001:db8::1"));
        assert_eq!(parse_host("[2001:db8::1]").as_deref(), Some("2001:db8::1"));
    }

    #[test]
    fn the_field_beside_the_uri_says_the_transport_unless_they_differ() {
        assert_eq!(
            parse_target("sip:a@b", Some(TransportEntry::Tcp)).unwrap().transport,
            TransportEntry::Tcp
        );
        let refusal = parse_target("sip:a@b;transport=udp", Some(TransportEntry::Tcp)).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "'sip:a@b;transport=udp' says transport=UDP but the field transport says TCP; remove one of them"
        );
    }

    #[test]
    fn tls_is_a_transport_and_no_scheme() {
        assert_eq!(parse("sip:a@b;transport=tls").unwrap().transport, TransportEntry::Tls);
        assert!(matches!(parse("sips:a@b"), Err(TargetError::Sips(_))));
    }

    #[test]
    fn only_a_name_alone_leaves_the_transport_to_dns() {
        let any = |text| parse(text).unwrap().any_transport;
        assert!(any("sip:a@b.example") && any("sip:b.example;user=phone"));
        for text in ["sip:a@b.example:5060", "sip:a@b.example;transport=udp", "sip:a@192.0.2.1"] {
            assert!(!any(text), "{text}");
        }
        assert!(!parse_target("sip:a@b.example", Some(TransportEntry::Udp)).unwrap().any_transport);
    }

    #[test]
    fn a_proxy_is_a_loose_router_whether_it_says_so_or_not() {
        for text in ["sip:Edge.example.com:5080;lr", "sip:edge.example.com:5080"] {
            let proxy = parse_proxy(text, Some(TransportEntry::Tcp)).unwrap();
            assert_eq!(proxy.uri, "sip:edge.example.com:5080;lr");
            assert_eq!((proxy.host.as_str(), proxy.transport), ("edge.example.com", TransportEntry::Tcp));
        }
        assert!(matches!(parse_proxy("sip:a@b;lr;maddr=c", None), Err(TargetError::NotAllowed { .. })));
    }

    #[test]
    fn what_could_change_the_way_of_a_request_is_refused() {
        for text in [
            "sip:a@b?Route=%3Csip:evil%3E",
            "sip:a@b;maddr=10.0.0.1",
            "sip:a@b;lr",
            "sip:a@b;method=REFER",
            "sip:a@b;transport=ws",
        ] {
            assert!(matches!(parse(text), Err(TargetError::NotAllowed { .. })), "{text}: {:?}", parse(text));
        }
        let refusal = parse("sip:alice:hunter2@b").unwrap_err();
        assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
    }

    #[test]
    fn what_is_no_sip_uri_is_refused() {
        let long = format!("sip:{}@b", "a".repeat(600));
        for text in [
            "",
            "sip:",
            "sip:@b",
            "tel:+31201234567",
            "sales",
            "a@b",
            "sip:a@b c",
            "sip:a@b\r\nX: y",
            "sip:a@b:99999",
            &long,
        ] {
            assert!(matches!(parse(text), Err(TargetError::NotSip(_))), "{text}: {:?}", parse(text));
        }
        for host in ["", "pbx.example.com:5060", "a b", "sip:a@b", "a\r\nb"] {
            assert_eq!(parse_host(host), None, "{host}");
        }
    }

    #[test]
    fn the_user_part_is_decoded_for_looking_at_it() {
        assert_eq!(user(&parse("sip:%2B31201234567@b").unwrap()).as_deref(), Some("+31201234567"));
        assert_eq!(user(&parse("sip:b").unwrap()), None);
    }

    proptest! {
        #[test]
        fn what_is_read_is_read_again_alike(text in "sip:[a-zA-Z0-9+%;=@:.\\[\\]]{0,40}") {
            if let Ok(target) = parse(&text) {
                prop_assert_eq!(parse(&target.uri).unwrap(), target);
            }
        }
    }
}
