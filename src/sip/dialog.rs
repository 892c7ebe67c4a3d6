//! A dialog (RFC 3261 §12): who is talking to whom, by which route, and what the next request in it looks like.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use sipx_sip::{HeaderName, Headers, Uri};

use super::event::{Flow, Transport};
use super::read;
use super::via::{DEFAULT_PORT, DEFAULT_TLS_PORT};
use super::wire::Writer;

/// See the module. Values are kept as they are written on the wire.
#[derive(Clone, Debug)]
pub struct Dialog {
    /// Call-ID.
    pub call_id: Box<[u8]>,
    /// Our From or To value, with our tag.
    pub local: Box<[u8]>,
    /// The peer's, with its tag once known.
    pub remote: Box<[u8]>,
    /// The peer's tag; empty for peers without (RFC 2543) and until the first response.
    pub remote_tag: Box<[u8]>,
    /// CSeq number of our last request.
    pub local_cseq: u32,
    /// CSeq number of the peer's last request.
    pub remote_cseq: Option<u32>,
    /// Route set, the next hop first, each as `<uri>`.
    pub routes: Box<[Box<[u8]>]>,
    /// Remote target: the URI of the peer's last Contact.
    pub target: Box<[u8]>,
    /// Where the dialog's last message came from, or where its INVITE went.
    pub flow: Flow,
    /// The connection of `flow` was lost: it isn't used again while the peer can be reached at an address that it gave.
    pub flow_lost: bool,
}

impl Dialog {
    /// Takes over the peer's target from a request or response that refreshes it (RFC 3261 §12.2).
    pub fn refresh_target(&mut self, headers: &Headers) {
        if let Some(target) = read::contact(headers) {
            self.target = target.into_boxed_slice();
        }
    }

    /// Makes the dialog that a 2xx to our INVITE makes (RFC 3261 §12.1.2).
    pub fn establish(&mut self, headers: &Headers) {
        if let Some(to) = headers.value(&HeaderName::To) {
            self.remote = to.into_owned().into_boxed_slice();
        }
        self.remote_tag = read::tag(headers, &HeaderName::To).unwrap_or_default().into_boxed_slice();
        let mut routes = read::record_route(headers);
        routes.reverse();
        self.routes = routes.into_boxed_slice();
        self.refresh_target(headers);
    }

    /// Whether a request comes from the peer of this dialog.
    pub fn is_with(&self, call_id: &[u8], from_tag: &[u8]) -> bool {
        *self.call_id == *call_id && *self.remote_tag == *from_tag
    }

    /// Notes where a request of the peer came from.
    pub fn seen_on(&mut self, flow: Flow) {
        self.flow = flow;
        self.flow_lost = false;
    }

    /// Starts a request in the dialog: start line, Via, Max-Forwards, Route, From, To, Call-ID and CSeq. With a strict
    /// router first in the route set, it is addressed as RFC 3261 §12.2.1.1 says. `to` replaces the remote party: the ACK of
    /// a refusal has the To of the response.
    pub fn request(&self, method: &str, cseq: u32, via: &str, max_forwards: u8, to: Option<&[u8]>) -> Writer {
        let strict = self.routes.first().is_some_and(|route| !is_loose(route));
        let routes = self.routes.get(usize::from(strict)..).unwrap_or_default();
        let mut w = Writer::request(method, self.request_uri());
        w.line("Via", via).line("Max-Forwards", max_forwards.to_string());
        for route in routes {
            w.line("Route", route);
        }
        if strict {
            w.line("Route", [b"<", &*self.target, b">"].concat());
        }
        w.line("From", &self.local).line("To", to.unwrap_or(&self.remote)).line("Call-ID", &self.call_id);
        w.line("CSeq", format!("{cseq} {method}"));
        w
    }

    /// The Request-URI that [`Self::request`] writes; digest authentication signs it.
    pub fn request_uri(&self) -> &[u8] {
        match self.routes.first().filter(|route| !is_loose(route)) {
            Some(first) => unbracketed(first),
            None => &self.target,
        }
    }

    /// Where the next request goes: to the first route or the remote target if that is an IP literal, else where the
    /// dialog's last message came from. There too if the literal is a private address and the peer was seen from a public
    /// one, or if a connection to that very host is already there.
    pub fn next_hop(&self) -> Flow {
        let uri = self.routes.first().map_or(&*self.target, |route| unbracketed(route));
        let Ok(uri) = Uri::parse(Bytes::copy_from_slice(uri)) else { return self.flow };
        let Some(ip) = read::literal(&uri) else { return self.flow };
        let seen = self.flow.peer.ip().to_canonical();
        if is_private(ip) && !is_private(seen) {
            return self.flow;
        }
        let transport = match uri.transport().map(<[u8]>::to_ascii_lowercase).as_deref() {
            Some(b"tcp") => Transport::Tcp,
            // To whom it was proven that we are we, and who has proven to be they, is for the whole dialog.
            Some(b"tls") => match self.flow.transport {
                Transport::Tls(_) => self.flow.transport,
                Transport::Udp | Transport::Tcp => return self.flow,
            },
            Some(b"udp") => Transport::Udp,
            // Peers on TCP that leave `transport=tcp` out of their Contact are common; those that mean UDP are not.
            _ if ip == seen => self.flow.transport,
            _ => Transport::Udp,
        };
        if transport.is_reliable() && transport == self.flow.transport && ip == seen && !self.flow_lost {
            return self.flow;
        }
        let default = if matches!(transport, Transport::Tls(_)) { DEFAULT_TLS_PORT } else { DEFAULT_PORT };
        Flow { transport, peer: SocketAddr::new(ip, uri.port().unwrap_or(default)) }
    }
}

fn unbracketed(route: &[u8]) -> &[u8] {
    route.strip_prefix(b"<").and_then(|r| r.strip_suffix(b">")).unwrap_or(route)
}

fn is_loose(route: &[u8]) -> bool {
    Uri::parse(Bytes::copy_from_slice(unbracketed(route)))
        .is_ok_and(|uri| uri.params().is_some_and(|params| params.contains("lr")))
}

fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::event::TlsPeer;

    fn dialog(target: &str, routes: &[&str], flow: &str, transport: Transport) -> Dialog {
        let boxed = |text: &str| text.as_bytes().to_vec().into_boxed_slice();
        Dialog {
            call_id: boxed("c"),
            local: boxed("<sip:us@us>;tag=u"),
            remote: boxed("<sip:them@them>;tag=t"),
            remote_tag: boxed("t"),
            local_cseq: 1,
            remote_cseq: None,
            routes: routes.iter().map(|route| boxed(route)).collect(),
            target: boxed(target),
            flow: Flow { transport, peer: flow.parse().unwrap() },
            flow_lost: false,
        }
    }

    fn hop(target: &str, routes: &[&str], flow: &str, transport: Transport) -> String {
        let hop = dialog(target, routes, flow, transport).next_hop();
        format!("{:?} {}", hop.transport, hop.peer)
    }

    #[test]
    fn a_request_goes_to_the_first_route_or_the_target_when_it_is_an_address() {
        use Transport::{Tcp, Udp};
        let flow = "192.0.2.1:5060";
        assert_eq!(hop("sip:a@198.51.100.7:5070", &[], flow, Udp), "Udp 198.51.100.7:5070");
        assert_eq!(hop("sip:a@198.51.100.7;transport=tcp", &[], flow, Udp), "Tcp 198.51.100.7:5060");
        assert_eq!(
            hop("sip:a@198.51.100.7", &["<sip:203.0.113.5:5080;lr>"], flow, Udp),
            "Udp 203.0.113.5:5080"
        );
        assert_eq!(hop("sip:a@[2001:db8::1]:5070", &[], flow, Udp), "Udp [2001:db8::1]:5070");
        assert_eq!(hop("sip:a@example.com", &[], flow, Udp), "Udp 192.0.2.1:5060");
        assert_eq!(hop("sip:a@10.0.0.1", &[], flow, Udp), "Udp 192.0.2.1:5060", "behind a NAT");
        assert_eq!(hop("sip:a@10.0.0.1", &[], "10.0.0.9:5060", Udp), "Udp 10.0.0.1:5060");
        assert_eq!(hop("sip:a@192.0.2.1:5060", &[], "192.0.2.1:49152", Tcp), "Tcp 192.0.2.1:49152");
        let tls = Transport::Tls(TlsPeer(3));
        let same = "Tls(TlsPeer(3)) 192.0.2.1:49152";
        assert_eq!(hop("sip:a@192.0.2.1;transport=tls", &[], "192.0.2.1:49152", tls), same);
        assert_eq!(
            hop("sip:a@[2001:db8::1];transport=tls", &[], flow, tls),
            "Tls(TlsPeer(3)) [2001:db8::1]:5061"
        );
        assert_eq!(
            hop("sip:a@198.51.100.7;transport=tls", &[], flow, Udp),
            "Udp 192.0.2.1:5060",
            "to nobody known"
        );
        let mut lost = dialog("sip:a@192.0.2.1:5060", &[], "192.0.2.1:49152", Tcp);
        lost.flow_lost = true;
        assert_eq!(lost.next_hop().peer.port(), 5060);
    }

    #[test]
    fn strict_routers_are_addressed_and_the_target_becomes_the_last_route() {
        let text = |routes: &[&str]| {
            let d = dialog("sip:t@target", routes, "192.0.2.1:5060", Transport::Udp);
            String::from_utf8(d.request("BYE", 2, "v", 70, None).finish(None).to_vec()).unwrap()
        };
        let loose = text(&["<sip:p1;lr>", "<sip:p2;lr>"]);
        assert!(loose.starts_with("BYE sip:t@target SIP/2.0\r\n"));
        assert!(loose.contains("Route: <sip:p1;lr>\r\nRoute: <sip:p2;lr>\r\n"));
        let strict = text(&["<sip:p1>", "<sip:p2;lr>"]);
        assert!(strict.starts_with("BYE sip:p1 SIP/2.0\r\n"));
        assert!(strict.contains("Route: <sip:p2;lr>\r\nRoute: <sip:t@target>\r\n"));
    }
}
