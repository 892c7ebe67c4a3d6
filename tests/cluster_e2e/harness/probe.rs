//! A single SIP request from this machine, and what came back: for what SIPp can't be asked.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::cluster::Cluster;

/// Longest that an answer is waited for; a request is repeated meanwhile.
const ANSWER: Duration = Duration::from_secs(2);
const REPEAT: Duration = Duration::from_millis(500);

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A socket of this machine on the way to one port of one node.
pub struct Probe {
    socket: UdpSocket,
    target: SocketAddrV4,
}

/// A response as it came.
pub struct Response {
    /// Status code.
    pub code: u16,
    text: String,
}

impl Response {
    /// Value of a header, by its name in its long form.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Probe {
    /// Towards a node.
    pub fn new(cluster: &Cluster, node: Ipv4Addr, port: u16) -> Self {
        let socket =
            UdpSocket::bind((cluster.host, 0)).expect("this machine's address in the cluster can be bound");
        Self { socket, target: SocketAddrV4::new(node, port) }
    }

    /// Where it sends to.
    pub fn target(&self) -> SocketAddrV4 {
        self.target
    }

    /// Sends these bytes and nothing more.
    pub fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.target).expect("a datagram can be sent");
    }

    /// The first response but 100, if there is one within `limit`.
    pub fn response(&self, limit: Duration) -> Option<Response> {
        self.first(limit, |response| response.code != 100)
    }

    fn first(&self, limit: Duration, wanted: impl Fn(&Response) -> bool) -> Option<Response> {
        let end = Instant::now() + limit;
        let mut buffer = vec![0; 65_535];
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.socket.set_read_timeout(Some(left)).expect("the time isn't zero");
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let code = text.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)?.parse().ok());
            // Requests come here as well: a BYE of a call that this probe doesn't keep up.
            if let Some(response) = code.map(|code| Response { code, text }).filter(&wanted) {
                return Some(response);
            }
        }
        None
    }

    /// A request of this probe, with headers and a body of your own.
    pub fn request(&self, method: &str, user: &str, rest: &str) -> Request {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let own = self.socket.local_addr().expect("the socket is bound");
        let call = format!("probe-{}-{serial}", std::process::id());
        Request {
            method: method.to_owned(),
            uri: format!("sip:{user}@{}", self.target),
            own: own.to_string(),
            call,
            rest: rest.to_owned(),
        }
    }

    /// Sends an INVITE to a number, lets go of whoever answers, and returns the final status. `None`: no answer.
    pub fn call(&self, number: &str) -> Option<u16> {
        self.call_across(number, *self.target.ip())
    }

    /// As [`Self::call`], but what follows the answer to the INVITE goes by way of another node.
    pub fn call_across(&self, number: &str, node: Ipv4Addr) -> Option<u16> {
        Some(self.call_and_go_on(number, "", |_| SocketAddrV4::new(node, self.target.port()))?.code)
    }

    /// As [`Self::call`], but what follows the answer to the INVITE goes where its Contact says, which has to be an address.
    pub fn call_by_contact(&self, number: &str) -> Option<u16> {
        let to = |contact: &str| {
            let place = contact.rsplit('@').next().and_then(|place| place.split([';', '>']).next());
            place.and_then(|place| place.parse().ok()).unwrap_or_else(|| panic!("{contact} names no address"))
        };
        Some(self.call_and_go_on(number, "", to)?.code)
    }

    /// As [`Self::call`], with further header lines in the INVITE; returns the whole of its final response.
    pub fn call_with(&self, number: &str, headers: &str) -> Option<Response> {
        self.call_and_go_on(number, headers, |_| self.target)
    }

    /// Sends an INVITE and waits until it rings.
    pub fn ring(&self, number: &str) -> Request {
        let invite = self.request("INVITE", number, "");
        self.send(&invite.bytes());
        let ringing = self.first(ANSWER, |response| response.code == 180);
        ringing.expect("somebody rings");
        invite
    }

    /// Sends a CANCEL for an INVITE by way of another node. Returns the final statuses of both.
    pub fn cancel_across(&self, invite: &Request, node: Ipv4Addr) -> [Option<u16>; 2] {
        let other = SocketAddrV4::new(node, self.target.port());
        let cancel = invite.text(&invite.uri, "CANCEL", 1, &format!("<{}>", invite.uri));
        self.socket.send_to(&cancel, other).expect("a datagram can be sent");
        let cancelled = self.first(ANSWER, |response| response.header("CSeq") == Some("1 CANCEL"));
        // The response to the INVITE is repeated until it is acknowledged.
        let over = |response: &Response| response.code >= 200 && response.header("CSeq") == Some("1 INVITE");
        let invited = self.first(ANSWER, over);
        if let Some(to) = invited.as_ref().and_then(|response| response.header("To")) {
            self.send(&invite.text(&invite.uri, "ACK", 1, to));
        }
        [cancelled, invited].map(|response| Some(response?.code))
    }

    fn call_and_go_on(
        &self,
        number: &str,
        headers: &str,
        way: impl Fn(&str) -> SocketAddrV4,
    ) -> Option<Response> {
        let invite = self.request("INVITE", number, headers);
        let onward = |to: SocketAddrV4, bytes: &[u8]| {
            self.socket.send_to(bytes, to).expect("a datagram can be sent");
        };
        let end = Instant::now() + ANSWER;
        while Instant::now() < end {
            self.send(&invite.bytes());
            let Some(response) = self.first(REPEAT, |response| response.code >= 200) else { continue };
            let to = response.header("To").expect("a response has To");
            if response.code >= 300 {
                onward(self.target, &invite.text(&invite.uri, "ACK", 1, to));
                return Some(response);
            }
            let contact = response.header("Contact").expect("a 200 has a Contact");
            let contact = contact.trim_matches(['<', '>']);
            let way = way(contact);
            onward(way, &invite.text(contact, "ACK", 1, to));
            onward(way, &invite.text(contact, "BYE", 2, to));
            let gone = self.first(ANSWER, |response| response.header("CSeq") == Some("2 BYE"));
            let code = gone.expect("the BYE of a call that was answered is answered").code;
            assert_eq!(code, 200, "the BYE of a call that was answered");
            return Some(response);
        }
        None
    }
}

/// A request that a probe writes.
pub struct Request {
    method: String,
    uri: String,
    own: String,
    call: String,
    rest: String,
}

impl Request {
    /// The request as bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.text(&self.uri, &self.method, 1, &format!("<{}>", self.uri))
    }

    fn text(&self, uri: &str, method: &str, sequence: u32, to: &str) -> Vec<u8> {
        let Self { own, call, rest, .. } = self;
        // CANCEL and ACK to a failure belong to the INVITE's transaction; everybody forgives an ACK to a 2xx that does the same.
        let branch = if matches!(method, "ACK" | "CANCEL") { "INVITE" } else { method };
        format!(
            "{method} {uri} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {own};branch=z9hG4bK-{call}-{branch}\r\n\
             From: <sip:+31612340000@{own}>;tag={call}\r\n\
             To: {to}\r\n\
             Call-ID: {call}\r\n\
             CSeq: {sequence} {method}\r\n\
             Contact: <sip:probe@{own}>\r\n\
             Max-Forwards: 70\r\n\
             {rest}Content-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }
}

/// Whether SIP is answered there, with any answer.
pub fn options(cluster: &Cluster, node: Ipv4Addr, port: u16) -> Result<(), String> {
    let probe = Probe::new(cluster, node, port);
    probe.send(&probe.request("OPTIONS", "ping", "").bytes());
    probe.response(REPEAT).map(|_| ()).ok_or_else(|| format!("no answer from {node}:{port}"))
}
