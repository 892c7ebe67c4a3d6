//! A single SIP request from this machine, and what came back: for what SIPp can't be asked.

use std::net::{Ipv4Addr, UdpSocket};
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
    target: (Ipv4Addr, u16),
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
        Self { socket, target: (node, port) }
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
            user: user.to_owned(),
            own: own.to_string(),
            call,
            rest: rest.to_owned(),
        }
    }

    /// Sends an INVITE to a number, lets go of whoever answers, and returns the final status. `None`: no answer.
    pub fn call(&self, number: &str) -> Option<u16> {
        let invite = self.request("INVITE", number, "");
        let end = Instant::now() + ANSWER;
        while Instant::now() < end {
            self.send(&invite.text(self.target, "INVITE", 1, None));
            let Some(response) = self.first(REPEAT, |response| response.code >= 200) else { continue };
            let to = response.header("To").expect("a response has To").to_owned();
            self.send(&invite.text(self.target, "ACK", 1, Some(&to)));
            if response.code < 300 {
                self.send(&invite.text(self.target, "BYE", 2, Some(&to)));
                let gone = self.first(ANSWER, |response| response.header("CSeq") == Some("2 BYE"));
                assert!(gone.is_some(), "the BYE of a call that was answered is answered");
            }
            return Some(response.code);
        }
        None
    }
}

/// A request that a probe writes.
pub struct Request {
    method: String,
    user: String,
    own: String,
    call: String,
    rest: String,
}

impl Request {
    /// The request as bytes.
    pub fn bytes(&self, probe: &Probe) -> Vec<u8> {
        self.text(probe.target, &self.method, 1, None)
    }

    fn text(&self, target: (Ipv4Addr, u16), method: &str, sequence: u32, to: Option<&str>) -> Vec<u8> {
        let Self { user, own, call, rest, .. } = self;
        let uri = format!("sip:{user}@{}:{}", target.0, target.1);
        let to = to.map_or_else(|| format!("<{uri}>"), str::to_owned);
        // ACK to a failure belongs to the INVITE's transaction; everybody forgives one to a 2xx that does the same.
        let branch = if method == "ACK" { "INVITE" } else { method };
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
    probe.send(&probe.request("OPTIONS", "ping", "").bytes(&probe));
    probe.response(REPEAT).map(|_| ()).ok_or_else(|| format!("no answer from {node}:{port}"))
}
