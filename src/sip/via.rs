//! The topmost Via: where a request came from is written into it, where a response goes is read from it
//! (RFC 3261 §18.2, RFC 3581).

use std::net::SocketAddr;

use sipx_sip::headers::first_hop_end;
use sipx_sip::{Header, HeaderName, Host, Request, Via};

use super::event::{Flow, Transport};
use super::read;

/// The default port of UDP and TCP.
pub const DEFAULT_PORT: u16 = 5060;
/// The default port of TLS.
pub const DEFAULT_TLS_PORT: u16 = 5061;

/// Writes the source of a request into its topmost Via: `received` when the sent-by differs from the source address or
/// `rport` was asked for, and the port as `rport`'s value. Values that the sender wrote there itself are overwritten.
/// Returns false, with the request as it was, when its Via can't be read.
pub fn stamp(request: &mut Request, source: Flow) -> bool {
    let Some(via) = read::top_via(&request.headers) else { return false };
    let Some(row) = request.headers.get(&HeaderName::Via) else { return false };
    let value = row.value().into_owned();
    let (first, others) = value.split_at(first_hop_end(&value));
    let Some(mut stamped) = stamped(first, &via, source) else { return true };
    stamped.extend_from_slice(others);
    let Ok(header) = Header::build(HeaderName::Via, stamped) else { return false };
    let position = request.headers.iter().position(|h| *h.name() == HeaderName::Via).unwrap_or(0);
    request.headers.remove_first(&HeaderName::Via);
    request.headers.insert(position, header);
    true
}

/// A hop with its sender's address; `None` when it says all of that itself. `via` is the hop, parsed.
pub fn stamped(hop: &[u8], via: &Via, source: Flow) -> Option<Vec<u8>> {
    let asked = via.rport().is_some();
    let ip = source.peer.ip().to_canonical();
    let same_host = matches!(&via.host, Host::Ip(host) if host.to_canonical() == ip);
    if !asked && same_host && via.received().is_none() {
        return None;
    }
    let mut stamped = without_source(hop);
    if asked || !same_host {
        stamped.extend_from_slice(format!(";received={ip}").as_bytes());
    }
    if asked {
        stamped.extend_from_slice(format!(";rport={}", source.peer.port()).as_bytes());
    }
    Some(stamped)
}

/// The hop without its `received` and `rport` parameters, everything else as it was.
fn without_source(hop: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(hop.len() + 48);
    for (i, part) in split_outside_quotes(hop, b';').into_iter().enumerate() {
        let name = part.split(|&b| b == b'=').next().unwrap_or_default().trim_ascii();
        if i > 0 && (name.eq_ignore_ascii_case(b"received") || name.eq_ignore_ascii_case(b"rport")) {
            continue;
        }
        if i > 0 {
            out.push(b';');
        }
        out.extend_from_slice(part);
    }
    out.truncate(out.trim_ascii_end().len());
    out
}

/// Splits at `separator`, but not inside quoted strings.
pub fn split_outside_quotes(value: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (i, &b) in value.iter().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if b == separator && !quoted => {
                parts.push(value.get(start..i).unwrap_or_default());
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(value.get(start..).unwrap_or_default());
    parts
}

/// Where the response to a request goes whose stamped topmost Via is `via` (RFC 3261 §18.2.2, RFC 3581 §4): over TCP back
/// on the connection, over UDP to the source address, at `rport` if that was asked for, else at the port of the sent-by.
/// `maddr` is not honoured: it would let anybody aim our responses at somebody else.
pub fn response_flow(via: &Via, source: Flow) -> Flow {
    match source.transport {
        Transport::Tcp | Transport::Tls(_) => source,
        Transport::Udp if via.rport().is_some() => source,
        Transport::Udp => {
            let port = via.port.unwrap_or(DEFAULT_PORT);
            Flow { transport: Transport::Udp, peer: SocketAddr::new(source.peer.ip(), port) }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sipx_sip::{Limits, parse_datagram};

    use super::*;

    fn stamped(via: &str) -> String {
        let text = format!("OPTIONS sip:a@b SIP/2.0\r\nMax-Forwards: 70\r\nVia: {via}\r\nVia: x\r\n\r\n");
        let message = parse_datagram(Bytes::from(text), &Limits::datagram()).unwrap();
        let sipx_sip::Message::Request(mut request) = message else { panic!("a request") };
        let source = Flow { transport: Transport::Udp, peer: "192.0.2.9:4444".parse().unwrap() };
        assert!(stamp(&mut request, source));
        let vias: Vec<_> =
            request.headers.get_all(&HeaderName::Via).map(|h| h.value().into_owned()).collect();
        assert_eq!(vias[1], b"x");
        String::from_utf8(vias[0].clone()).unwrap()
    }

    #[test]
    fn the_source_is_written_into_the_topmost_via() {
        let same = "SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK1";
        assert_eq!(stamped(same), same);
        assert_eq!(
            stamped("SIP/2.0/UDP host;branch=z9hG4bK1"),
            "SIP/2.0/UDP host;branch=z9hG4bK1;received=192.0.2.9"
        );
        assert_eq!(
            stamped("SIP/2.0/UDP 192.0.2.9;rport;branch=z9hG4bK1, SIP/2.0/UDP other"),
            "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1;received=192.0.2.9;rport=4444, SIP/2.0/UDP other"
        );
        assert_eq!(
            stamped("SIP/2.0/UDP 192.0.2.9;received=198.51.100.1;branch=z9hG4bK1"),
            "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1",
            "a sender can't name another address"
        );
    }
}
