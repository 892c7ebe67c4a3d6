//! Requests of ours outside of any dialog, OPTIONS and REGISTER: each a non-INVITE client transaction (RFC 3261 §17.1.2),
//! repeated with an answer to a challenge (§22).
//!
//! Promises: each request ends with exactly one [`Ended`], after its patience at the latest; responses that nobody waits
//! for are ignored.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use sipx_sip::Response;

use super::digest::Digest;
pub use super::digest::NotAnswered;
use super::endpoint::LocalAddresses;
use super::event::{Credentials, Flow, LegId};
use super::identity::{Identity, OUTSIDE};
use super::read::Identified;
use super::slab::Slab;
use super::time::Millis;
use super::timer;
use super::wheel::{Handle, Wheel};
use super::wire::{Lines, Writer};

/// Most often a request is sent again with an answer to a challenge: once for each of two proxies, and a stale nonce.
const MOST_CHALLENGES: u8 = 3;

/// Names a request until it has ended.
pub type OutsideId = LegId;

/// A request that is to be sent.
#[derive(Debug)]
pub struct OutsideRequest {
    /// Where it is sent.
    pub flow: Flow,
    /// `OPTIONS` or `REGISTER`.
    pub method: &'static str,
    /// Request-URI.
    pub uri: String,
    /// From without its tag, `<sip:…>`.
    pub from: String,
    /// To, `<sip:…>`.
    pub to: String,
    /// Call-ID; a fresh one when absent.
    pub call_id: Option<String>,
    /// CSeq number.
    pub cseq: u32,
    /// The value of Route, if it goes through a proxy.
    pub route: Option<String>,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// How long an answer is waited for; each challenge that is answered begins it anew.
    pub patience: Duration,
    /// What answers challenges; those of an earlier request spare the next one its challenge.
    pub authority: Option<Authority>,
}

/// Credentials and the challenges that they have answered so far.
#[derive(Debug)]
pub struct Authority(Box<Digest>);

impl Authority {
    /// With credentials that have answered nothing yet.
    pub fn new(credentials: Credentials) -> Self {
        Self(Box::new(Digest::new(credentials)))
    }
}

/// How a request ended.
#[derive(Debug)]
pub struct Ended {
    /// Which.
    pub id: OutsideId,
    /// The CSeq number that it had at last.
    pub cseq: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// What was given to it, and what it has learnt.
    pub authority: Option<Authority>,
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// A final response that is no challenge.
    Response(Box<Response>),
    /// A challenge (401, 407) that was not answered; why, if there were credentials.
    Challenged(u16, Option<NotAnswered>),
    /// Nothing came.
    Timeout,
    /// It could not be sent, or the connection was lost.
    Transport,
}

/// What an [`Outside`] produces.
#[derive(Debug)]
pub enum OutsideOutput {
    /// Bytes to send.
    Transmit {
        /// Where to.
        flow: Flow,
        /// One whole SIP message.
        bytes: Bytes,
    },
    /// A request has ended.
    Ended(Ended),
}

/// See the module.
#[derive(Debug)]
pub struct Outside {
    local: LocalAddresses,
    user_agent: String,
    identity: Identity,
    pending: Slab<Pending>,
    wheel: Wheel<OutsideId>,
    out: VecDeque<OutsideOutput>,
}

#[derive(Debug)]
struct Pending {
    request: OutsideRequest,
    call_id: String,
    /// Number in the branch.
    seq: u32,
    bytes: Bytes,
    interval: Duration,
    gives_up: Millis,
    timer: Option<Handle>,
    challenges: u8,
}

impl Outside {
    /// Without requests. `seed` is secret, random, and another for each process; `instance` names the process.
    pub fn new(instance: u32, seed: [u8; 16], local: LocalAddresses, user_agent: String) -> Self {
        Self {
            local,
            user_agent,
            identity: Identity::new(instance, OUTSIDE, seed),
            pending: Slab::new(OUTSIDE),
            wheel: Wheel::default(),
            out: VecDeque::new(),
        }
    }

    /// How peers reach us.
    pub fn local(&self) -> &LocalAddresses {
        &self.local
    }

    /// A Call-ID that nobody else has.
    pub fn unique(&mut self) -> String {
        self.identity.unique()
    }

    /// A pseudo-random number.
    pub fn throw(&mut self) -> u64 {
        self.identity.throw()
    }

    /// Sends a request; `None` (and the authority is lost) when there are four million under way.
    pub fn send(&mut self, mut request: OutsideRequest, now: Millis) -> Option<OutsideId> {
        let call_id = request.call_id.take().unwrap_or_else(|| self.identity.unique());
        let id = self.pending.insert_with(|_| Pending {
            request,
            call_id,
            seq: 0,
            bytes: Bytes::new(),
            interval: timer::T1,
            gives_up: now,
            timer: None,
            challenges: 0,
        })?;
        self.transmit(id, now);
        Some(id)
    }

    /// Gives a request up: it ends without a word.
    pub fn forget(&mut self, id: OutsideId) {
        if let Some(mut pending) = self.pending.remove(id) {
            self.wheel.cancel(&mut pending.timer);
        }
    }

    /// Takes in a response.
    pub fn receive(&mut self, response: Response, now: Millis) {
        let Some(received) = Identified::of(&response.headers) else { return };
        let branch = received.via.branch().and_then(|branch| self.identity.transaction_of_branch(branch));
        let Some((id, seq)) = branch else { return };
        let Some(pending) = self.pending.get_mut(id) else { return };
        let code = response.status.code();
        let is_answer = pending.seq == seq
            && pending.request.cseq == received.cseq
            && received.method.as_bytes() == pending.request.method.as_bytes();
        // A provisional response says that the request has arrived, and is repeated all the same (Timer E).
        if !is_answer || code < 200 {
            return;
        }
        if !matches!(code, 401 | 407) {
            if let Some(Authority(digest)) = &mut pending.request.authority {
                digest.accepted();
            }
            return self.end(id, Outcome::Response(Box::new(response)));
        }
        let answered = match &mut pending.request.authority {
            Some(_) if pending.challenges >= MOST_CHALLENGES => Err(Some(NotAnswered::Refused)),
            Some(Authority(digest)) => digest.take(&response.headers).map_err(Some),
            None => Err(None),
        };
        match answered {
            Ok(()) => {
                pending.challenges += 1;
                pending.seq += 1;
                pending.request.cseq += 1;
                self.transmit(id, now);
            }
            Err(why) => self.end(id, Outcome::Challenged(code, why)),
        }
    }

    /// A connection was lost or could not be made, or nothing can be sent to a peer.
    pub fn transport_failed(&mut self, flow: Flow) {
        let concerned = self.pending.ids().filter(|(_, pending)| pending.request.flow == flow);
        for id in concerned.map(|(id, _)| id).collect::<Vec<_>>() {
            self.end(id, Outcome::Transport);
        }
    }

    /// When [`Self::handle_timeout`] must be called next.
    pub fn next_timeout(&self) -> Option<Millis> {
        self.wheel.next()
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Millis) {
        while let Some(id) = self.wheel.pop_due(now) {
            let Some(pending) = self.pending.get_mut(id) else { continue };
            pending.timer = None;
            if pending.gives_up <= now {
                self.end(id, Outcome::Timeout);
                continue;
            }
            pending.interval = timer::doubled_to_t2(pending.interval);
            let next = (now + pending.interval).min(pending.gives_up);
            pending.timer = Some(self.wheel.set(next, id));
            let (flow, bytes) = (pending.request.flow, pending.bytes.clone());
            self.out.push_back(OutsideOutput::Transmit { flow, bytes });
        }
    }

    /// The next output; drain after every call.
    pub fn poll(&mut self) -> Option<OutsideOutput> {
        self.out.pop_front()
    }

    /// Sends a request in a new transaction.
    fn transmit(&mut self, id: OutsideId, now: Millis) {
        let cnonce = self.identity.unique();
        let Some(pending) = self.pending.get_mut(id) else { return };
        let request = &mut pending.request;
        let transport = request.flow.transport;
        let mut w = Writer::request(request.method, request.uri.as_bytes());
        w.line("Via", self.local.via(transport, &self.identity.branch(id, pending.seq)));
        w.line("Max-Forwards", "70");
        if let Some(route) = &request.route {
            w.line("Route", route);
        }
        w.line("From", format!("{};tag={}", request.from, self.identity.token(id)));
        w.line("To", &request.to).line("Call-ID", &pending.call_id);
        w.line("CSeq", format!("{} {}", request.cseq, request.method));
        if !self.user_agent.is_empty() {
            w.line("User-Agent", &self.user_agent);
        }
        if let Some(Authority(digest)) = &mut request.authority {
            w.lines(&Lines::collect(digest.headers(request.method, &request.uri, &cnonce)));
        }
        for (name, value) in &request.headers {
            w.line(name, value);
        }
        pending.bytes = w.finish(None);
        pending.interval = timer::T1;
        pending.gives_up = now + request.patience;
        self.wheel.cancel(&mut pending.timer);
        let first = if transport.is_reliable() { pending.gives_up } else { now + timer::T1 };
        pending.timer = Some(self.wheel.set(first.min(pending.gives_up), id));
        let (flow, bytes) = (request.flow, pending.bytes.clone());
        self.out.push_back(OutsideOutput::Transmit { flow, bytes });
    }

    fn end(&mut self, id: OutsideId, outcome: Outcome) {
        let Some(mut pending) = self.pending.remove(id) else { return };
        self.wheel.cancel(&mut pending.timer);
        let OutsideRequest { cseq, authority, .. } = pending.request;
        self.out.push_back(OutsideOutput::Ended(Ended { id, cseq, outcome, authority }));
    }
}

#[cfg(test)]
mod tests {
    use sipx_sip::{Limits, Message, parse_datagram};

    use super::*;
    use crate::sip::endpoint::LocalAddress;
    use crate::sip::event::Transport;

    const PATIENCE: Duration = Duration::from_secs(8);

    fn outside() -> Outside {
        let local = LocalAddress { host: "192.0.2.1".into(), port: 5060 };
        let local = LocalAddresses { udp: local.clone(), tcp: local.clone(), tls: local };
        Outside::new(7, [1; 16], local, "test".into())
    }

    fn options(transport: Transport) -> OutsideRequest {
        OutsideRequest {
            flow: Flow { transport, peer: "198.51.100.1:5060".parse().unwrap() },
            method: "OPTIONS",
            uri: "sip:pbx.example.com".into(),
            from: "<sip:voicedock@192.0.2.1>".into(),
            to: "<sip:pbx.example.com>".into(),
            call_id: None,
            cseq: 1,
            route: None,
            headers: Vec::new(),
            patience: PATIENCE,
            authority: None,
        }
    }

    fn register() -> OutsideRequest {
        let credentials = Credentials { username: "acme".into(), password: "secret".into(), realm: None };
        let authority = Some(Authority::new(credentials));
        OutsideRequest { method: "REGISTER", authority, ..options(Transport::Udp) }
    }

    /// What is sent, as text.
    fn sent(outside: &mut Outside) -> String {
        match outside.poll() {
            Some(OutsideOutput::Transmit { bytes, .. }) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn ended(outside: &mut Outside) -> Ended {
        match outside.poll() {
            Some(OutsideOutput::Ended(ended)) => ended,
            other => panic!("{other:?}"),
        }
    }

    fn answer(request: &str, status: &str, headers: &str) -> Response {
        let copied = |name: &str| request.lines().find(|line| line.starts_with(name)).unwrap();
        let text = format!(
            "SIP/2.0 {status}\r\n{}\r\n{}\r\n{};tag=t\r\n{}\r\n{}\r\n{headers}Content-Length: 0\r\n\r\n",
            copied("Via:"),
            copied("From:"),
            copied("To:"),
            copied("Call-ID:"),
            copied("CSeq:")
        );
        match parse_datagram(Bytes::from(text), &Limits::datagram()).unwrap() {
            Message::Response(response) => response,
            Message::Request(_) => panic!("a response"),
        }
    }

    #[test]
    fn a_request_is_repeated_over_udp_until_its_patience_ends() {
        let mut outside = outside();
        let id = outside.send(options(Transport::Udp), Millis(0)).unwrap();
        let first = sent(&mut outside);
        let mut times = Vec::new();
        let end = loop {
            let now = outside.next_timeout().unwrap();
            outside.handle_timeout(now);
            match outside.poll().unwrap() {
                OutsideOutput::Transmit { bytes, .. } => {
                    assert_eq!(bytes, first.as_bytes());
                    times.push(now.0);
                }
                OutsideOutput::Ended(ended) => break (now.0, ended),
            }
        };
        assert_eq!(times, [500, 1500, 3500, 7500]);
        assert_eq!((end.0, end.1.id), (8000, id));
        assert!(matches!(end.1.outcome, Outcome::Timeout));
        assert!(outside.next_timeout().is_none());
    }

    #[test]
    fn over_tcp_nothing_is_repeated() {
        let mut outside = outside();
        outside.send(options(Transport::Tcp), Millis(0)).unwrap();
        sent(&mut outside);
        assert_eq!(outside.next_timeout(), Some(Millis(8000)));
        outside.transport_failed(options(Transport::Tcp).flow);
        assert!(matches!(ended(&mut outside).outcome, Outcome::Transport));
    }

    #[test]
    fn the_first_final_response_ends_it_and_a_copy_does_nothing() {
        let mut outside = outside();
        outside.send(options(Transport::Udp), Millis(0)).unwrap();
        let request = sent(&mut outside);
        outside.receive(answer(&request, "100 Trying", ""), Millis(5));
        assert!(outside.poll().is_none());
        outside.receive(answer(&request, "200 OK", ""), Millis(10));
        let Outcome::Response(response) = ended(&mut outside).outcome else { panic!("a response") };
        assert_eq!(response.status.code(), 200);
        outside.receive(answer(&request, "503 Busy", ""), Millis(11));
        assert!(outside.poll().is_none() && outside.next_timeout().is_none());
    }

    #[test]
    fn a_response_with_somebody_elses_branch_does_nothing() {
        let mut outside = outside();
        outside.send(options(Transport::Udp), Millis(0)).unwrap();
        let request = sent(&mut outside);
        let forged = request.replace("z9hG4bKvd00000007", "z9hG4bKvd00000008");
        outside.receive(answer(&forged, "200 OK", ""), Millis(1));
        assert!(outside.poll().is_none());
    }

    #[test]
    fn a_challenge_is_answered_once_and_the_next_request_needs_none() {
        let challenge = "WWW-Authenticate: Digest realm=\"pbx\", nonce=\"n1\", qop=\"auth\"\r\n";
        let mut outside = outside();
        outside.send(register(), Millis(0)).unwrap();
        let request = sent(&mut outside);
        assert!(!request.contains("Authorization:"));
        outside.receive(answer(&request, "401 Unauthorized", challenge), Millis(1));
        let again = sent(&mut outside);
        assert!(again.contains("Authorization: Digest") && again.contains("CSeq: 2 REGISTER"), "{again}");
        outside.receive(answer(&again, "200 OK", ""), Millis(2));
        let done = ended(&mut outside);
        assert_eq!(done.cseq, 2);
        let next = OutsideRequest { authority: done.authority, cseq: 3, ..register() };
        outside.send(next, Millis(3)).unwrap();
        let next = sent(&mut outside);
        assert!(next.contains("nonce=\"n1\"") && next.contains("nc=00000002"), "{next}");
    }

    #[test]
    fn a_refused_password_is_not_tried_again() {
        let challenge = "WWW-Authenticate: Digest realm=\"pbx\", nonce=\"n1\"\r\n";
        let mut outside = outside();
        outside.send(register(), Millis(0)).unwrap();
        let request = sent(&mut outside);
        outside.receive(answer(&request, "401 Unauthorized", challenge), Millis(1));
        let again = sent(&mut outside);
        let anew = challenge.replace("n1", "n2");
        outside.receive(answer(&again, "401 Unauthorized", &anew), Millis(2));
        let outcome = ended(&mut outside).outcome;
        assert!(matches!(outcome, Outcome::Challenged(401, Some(NotAnswered::Refused))), "{outcome:?}");
    }
}
