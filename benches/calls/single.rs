//! Calls that are placed one by one and timed to the microsecond, which SIPp can't: it counts milliseconds.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::gateway::TIMED_NUMBER;
use crate::report::Latencies;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause between two calls is random within this.
const PAUSE: std::ops::Range<f64> = 0.001..0.015;

/// Set-up times, and how many calls had no answer.
pub struct Found {
    /// From the INVITE to its 200.
    pub setup: Latencies,
    /// Calls without one.
    pub lost: u32,
}

/// Places calls to `to` for some time.
pub fn measure(to: SocketAddr, time: Duration) -> Found {
    let socket = UdpSocket::bind((to.ip(), 0)).expect("this machine's address can be bound");
    let own = socket.local_addr().expect("the socket is bound");
    let (mut times, mut lost) = (Vec::new(), 0);
    let start = Instant::now();
    for number in 0.. {
        if start.elapsed() >= time {
            break;
        }
        let call = Call { socket: &socket, own, to, id: format!("single-{number}-{}", own.port()) };
        match call.place() {
            Some(time) => times.push(time),
            None => lost += 1,
        }
        thread::sleep(Duration::from_secs_f64(rand::random_range(PAUSE)));
    }
    Found { setup: times.into(), lost }
}

/// An agent that answers at once, until the program ends.
pub fn agent() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("this machine's address can be bound");
    let own = socket.local_addr().expect("the socket is bound");
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if request.starts_with("INVITE ") || request.starts_with("BYE ") {
                let _ = socket.send_to(answer(&request, own).as_bytes(), peer);
            }
        }
    });
    own
}

/// The 200 to a request.
fn answer(request: &str, own: SocketAddr) -> String {
    let copied = ["via", "record-route", "from", "to", "call-id", "cseq"];
    let mut text = String::from("SIP/2.0 200 OK\r\n");
    for line in request.lines().take_while(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
        if copied.contains(&name.as_str()) {
            let tag = if name == "to" && !line.contains(";tag=") { ";tag=timed" } else { "" };
            text.push_str(&format!("{line}{tag}\r\n"));
        }
    }
    let body = if request.starts_with("INVITE ") { sdp(own) } else { String::new() };
    let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!("{text}Contact: <sip:timed@{own}>\r\n{content}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn sdp(own: SocketAddr) -> String {
    let ip = own.ip();
    format!("v=0\r\no=timed 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 9 RTP/AVP 8 0\r\n")
}

struct Call<'a> {
    socket: &'a UdpSocket,
    own: SocketAddr,
    to: SocketAddr,
    id: String,
}

impl Call<'_> {
    /// Places the call and ends it; the time from the INVITE to its 200.
    fn place(&self) -> Option<Duration> {
        let own = self.own;
        let uri = format!("sip:{TIMED_NUMBER}@{}", self.to);
        let more = format!("Contact: <sip:+31687654321@{own}>\r\nContent-Type: application/sdp\r\n");
        let sent = Instant::now();
        self.send("INVITE", 1, &uri, &format!("<{uri}>"), &more, &sdp(own));
        let answer = self.hears(1, "INVITE")?;
        let time = sent.elapsed();
        let target = header(&answer, "contact")?.split(['<', '>']).nth(1)?.to_owned();
        let route =
            header(&answer, "record-route").map_or(String::new(), |route| format!("Route: {route}\r\n"));
        let to = header(&answer, "to")?;
        self.send("ACK", 1, &target, to, &route, "");
        self.send("BYE", 2, &target, to, &route, "");
        self.hears(2, "BYE")?;
        Some(time)
    }

    fn send(&self, method: &str, sequence: u32, uri: &str, to: &str, more: &str, body: &str) {
        let Self { own, id, .. } = self;
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK-{id}-{method}\r\nFrom: <sip:+31687654321@{own}>;tag={id}\r\n\
             To: {to}\r\nCall-ID: {id}\r\nCSeq: {sequence} {method}\r\nMax-Forwards: 70\r\n{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.socket.send_to(text.as_bytes(), self.to).expect("a datagram can be sent");
    }

    /// The 200 to one of the call's requests.
    fn hears(&self, sequence: u32, method: &str) -> Option<String> {
        let start = Instant::now();
        let mut buffer = [0; 65_536];
        let wanted = format!("{sequence} {method}");
        loop {
            let left = PATIENCE.checked_sub(start.elapsed()).filter(|left| !left.is_zero())?;
            self.socket.set_read_timeout(Some(left)).expect("the time isn't zero");
            let length = self.socket.recv(&mut buffer).ok()?;
            let text = String::from_utf8_lossy(&buffer[..length]);
            if text.starts_with("SIP/2.0 200")
                && header(&text, "call-id") == Some(self.id.as_str())
                && header(&text, "cseq") == Some(wanted.as_str())
            {
                return Some(text.into_owned());
            }
        }
    }
}

/// The first value of a header.
pub fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
