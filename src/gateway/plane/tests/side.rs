//! One side of a dialog with the gateway, as a test plays it: it writes each message itself.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::Peer;

/// A message as it was received.
pub(super) struct Seen {
    pub(super) text: String,
    from: SocketAddr,
}

impl Seen {
    /// The values of a header, in order.
    pub(super) fn values(&self, name: &str) -> Vec<&str> {
        let head = self.text.split("\r\n\r\n").next().unwrap_or_default();
        let named = head.lines().filter_map(|line| line.split_once(": ")).filter(|(found, _)| *found == name);
        named.map(|(_, value)| value).collect()
    }

    pub(super) fn value(&self, name: &str) -> &str {
        self.values(name).first().copied().unwrap_or_default()
    }

    pub(super) fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default()
    }

    /// The direction of the media that the body describes.
    pub(super) fn direction(&self) -> &str {
        self.body().lines().find_map(|line| line.strip_prefix("a=")).unwrap_or_default()
    }
}

/// A description of media with a direction: `sendrecv`, `sendonly`, …
pub(super) fn sdp(who: &str, direction: &str) -> String {
    format!(
        "v=0\r\no={who} 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na={direction}\r\n"
    )
}

/// One side of a dialog.
pub(super) struct Side {
    peer: Peer,
    gateway: SocketAddr,
    /// From and To of its own requests.
    ours: String,
    theirs: String,
    call_id: String,
    target: String,
    cseq: u32,
    sent: u32,
    /// Requests that came.
    known: HashSet<String>,
}

impl Side {
    /// Who calls.
    pub(super) async fn caller(gateway: SocketAddr) -> Self {
        Self::calling(Peer::new().await, gateway)
    }

    /// Who calls from there.
    pub(super) fn calling(peer: Peer, gateway: SocketAddr) -> Self {
        let (ours, theirs) =
            ("<sip:+31687654321@trunk>;tag=caller".into(), "<sip:+31201234567@gateway>".into());
        let target = format!("sip:+31201234567@{gateway}");
        let call_id = "call".into();
        Self { peer, gateway, ours, theirs, call_id, target, cseq: 0, sent: 0, known: HashSet::new() }
    }

    /// In a call with this Call-ID.
    pub(super) fn in_call(self, call_id: &str) -> Self {
        Self { call_id: call_id.into(), ..self }
    }

    /// Who is called; in a dialog from the first INVITE on.
    pub(super) fn called(peer: Peer, gateway: SocketAddr) -> Self {
        let [ours, theirs, call_id, target] = [(); 4].map(|()| String::new());
        Self { peer, gateway, ours, theirs, call_id, target, cseq: 0, sent: 0, known: HashSet::new() }
    }

    /// Its dialog, as a Replaces names it to the gateway.
    pub(super) fn dialog(&self) -> String {
        let tag = |party: &str| party.rsplit(";tag=").next().unwrap_or_default().to_owned();
        format!("{};to-tag={};from-tag={}", self.call_id, tag(&self.theirs), tag(&self.ours))
    }

    /// Sends a request with these header lines; an ACK has the number of the request before.
    pub(super) async fn request(&mut self, method: &str, lines: &str, body: &str) {
        if method != "ACK" {
            self.cseq += 1;
        }
        self.sent += 1;
        let own = self.peer.address();
        let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let Self { ours, theirs, call_id, target, cseq, sent, .. } = self;
        let text = format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{sent}{}\r\nFrom: {ours}\r\n\
             To: {theirs}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContact: <sip:side@{own}>\r\n\
             Max-Forwards: 70\r\n{lines}{content}Content-Length: {}\r\n\r\n{body}",
            own.port(),
            body.len()
        );
        self.peer.send(self.gateway, &text).await;
    }

    /// Takes its last INVITE back: a CANCEL has the branch and the number of that (RFC 3261 §9.1).
    pub(super) async fn cancel(&mut self) {
        let (cseq, sent) = (self.cseq, self.sent);
        let own = self.peer.address();
        let Self { ours, theirs, call_id, target, .. } = self;
        let text = format!(
            "CANCEL {target} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{sent}{}\r\nFrom: {ours}\r\n\
             To: {theirs}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} CANCEL\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
            own.port(),
        );
        self.peer.send(self.gateway, &text).await;
    }

    /// The next message that starts so: a request that didn't come before, or a response to the last request. One that makes
    /// the dialog is read as such.
    pub(super) async fn receive(&mut self, start: &str) -> Seen {
        self.receive_of(self.cseq, start).await
    }

    /// The same, with a response to the request of that number.
    pub(super) async fn receive_of(&mut self, cseq: u32, start: &str) -> Seen {
        let seen = loop {
            let (text, from) = self.peer.receive(start).await;
            let seen = Seen { text, from };
            let response = seen.text.starts_with("SIP/2.0");
            let known = if response {
                !seen.value("CSeq").starts_with(&format!("{cseq} "))
            } else {
                !self.known.insert(format!("{} {}", seen.value("CSeq"), seen.value("Via")))
            };
            if !known {
                break seen;
            }
        };
        let contact = seen.value("Contact").trim_matches(['<', '>']).to_owned();
        if start.starts_with("INVITE") && self.call_id.is_empty() {
            self.ours = format!("{};tag=called", seen.value("To"));
            self.theirs = seen.value("From").to_owned();
            self.call_id = seen.value("Call-ID").to_owned();
            self.target = contact;
        } else if start.starts_with("SIP/2.0") && !contact.is_empty() && seen.value("CSeq").contains("INVITE")
        {
            self.theirs = seen.value("To").to_owned();
            self.target = contact;
        }
        seen
    }

    /// Whether nothing has come that wasn't received yet.
    pub(super) fn has_heard_nothing(&self) -> bool {
        self.peer.0.try_recv(&mut [0; 16]).is_err()
    }

    /// Answers a request.
    pub(super) async fn answer(&self, request: &Seen, code: u16, lines: &str, body: &str) {
        let mut text = format!("SIP/2.0 {code} Answer\r\n");
        for name in ["Via", "From", "Call-ID", "CSeq"] {
            for value in request.values(name) {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        let to = request.value("To");
        let to = if to.contains(";tag=") { to } else { &self.ours };
        let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        text.push_str(&format!(
            "To: {to}\r\nContact: <sip:side@{}>\r\n{lines}{content}Content-Length: {}\r\n\r\n{body}",
            self.peer.address(),
            body.len()
        ));
        self.peer.send(request.from, &text).await;
    }
}
