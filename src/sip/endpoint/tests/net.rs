//! The virtual network: endpoints A and B, a peer P that a test plays by hand, a clock, loss.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use bytes::Bytes;
use sipx_sip::{HeaderName, Limits, Message, Request, Response};

use crate::sip::endpoint::{Endpoint, EndpointConfig, LocalAddress, LocalAddresses, Output};
use crate::sip::event::{Body, Flow, LegEvent, LegId, OutgoingInvite, Party, Transport};
use crate::sip::front_door::{Verdict, admit, reply_stateless};
use crate::sip::read;
use crate::sip::session::SessionPolicy;
use crate::sip::time::Millis;
use crate::sip::wire::reason_phrase;

pub const A: &str = "192.0.2.1:5060";
pub const B: &str = "192.0.2.2:5060";
pub const P: &str = "192.0.2.3:5060";

/// One-way delay.
pub const DELAY: u64 = 10;

pub fn sdp(text: &'static str) -> Option<Body> {
    Some(Body::sdp(text))
}

pub fn flow(peer: &str) -> Flow {
    Flow { transport: Transport::Udp, peer: peer.parse().unwrap() }
}

pub fn call_to(peer: &str) -> OutgoingInvite {
    OutgoingInvite {
        flow: flow(peer),
        route: None,
        uri: format!("sip:+4930123@{peer}"),
        from: Party { display: "A \"B\"".into(), user: "+4989456".into(), host: String::new() },
        headers: vec![("X-Id".into(), "7".into())],
        max_forwards: 69,
        offer: sdp("offer"),
        credentials: None,
        patience: None,
        session: SessionPolicy::default(),
    }
}

/// The configuration of an endpoint at an address.
pub fn config(address: &str, instance: u32) -> EndpointConfig {
    let local = LocalAddress { host: address.split(':').next().unwrap().into(), port: 5060 };
    EndpointConfig {
        instance,
        shard: 0,
        seed: [instance as u8; 16],
        local: LocalAddresses { udp: local.clone(), tcp: local.clone(), tls: local },
        user_agent: "voicedock".into(),
        max_legs: 100,
    }
}

type Filter = Box<dyn FnMut(&str) -> bool>;

pub struct Net {
    pub now: Millis,
    endpoints: HashMap<SocketAddr, Endpoint>,
    events: HashMap<SocketAddr, Vec<(LegId, LegEvent)>>,
    wire: BTreeMap<(Millis, u64), (Flow, Flow, Bytes)>,
    serial: u64,
    /// What P received.
    pub inbox: Vec<Message>,
    /// What draining endpoints left to others.
    pub elsewhere: Vec<(SocketAddr, Request, Flow)>,
    /// First lines of all that was sent, lost or not.
    pub sent: Vec<String>,
    /// Where all of it went.
    pub targets: Vec<Flow>,
    /// Messages for which one of these says yes are lost.
    pub lose: Vec<Filter>,
    /// Loss in percent, by a generator of its own.
    pub loss: u64,
    pub dice: u64,
    /// Up to so many milliseconds are added to a message's delay: messages overtake each other.
    pub jitter: u64,
}

impl Net {
    pub fn new() -> Self {
        let endpoint = |address: &str, instance: u32| Endpoint::new(config(address, instance));
        let endpoints =
            HashMap::from([(A.parse().unwrap(), endpoint(A, 1)), (B.parse().unwrap(), endpoint(B, 2))]);
        Self {
            now: Millis(1000),
            endpoints,
            events: HashMap::new(),
            wire: BTreeMap::new(),
            serial: 0,
            inbox: Vec::new(),
            elsewhere: Vec::new(),
            sent: Vec::new(),
            targets: Vec::new(),
            lose: Vec::new(),
            loss: 0,
            dice: 1,
            jitter: 0,
        }
    }

    pub fn at(&mut self, address: &str) -> &mut Endpoint {
        self.endpoints.get_mut(&address.parse().unwrap()).unwrap()
    }

    /// Does something at an endpoint now.
    pub fn act<T>(&mut self, address: &str, action: impl FnOnce(&mut Endpoint, Millis) -> T) -> T {
        let now = self.now;
        let result = action(self.at(address), now);
        self.collect();
        result
    }

    /// What happened at an endpoint since the last question.
    pub fn events(&mut self, address: &str) -> Vec<(LegId, LegEvent)> {
        self.events.remove(&address.parse().unwrap()).unwrap_or_default()
    }

    /// The only leg and event there.
    pub fn event(&mut self, address: &str) -> (LegId, LegEvent) {
        let mut events = self.events(address);
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    /// Loses the next message that contains `text`.
    pub fn lose_next(&mut self, text: &str) {
        self.lose_some(text, 1);
    }

    /// Loses the next `count` messages that contain `text`.
    pub fn lose_some(&mut self, text: &str, mut count: usize) {
        let text = text.to_owned();
        self.lose.push(Box::new(move |message| {
            let hit = count > 0 && message.contains(&text);
            count -= usize::from(hit);
            hit
        }));
    }

    /// How often a message whose first line starts with `start` was sent.
    pub fn count(&self, start: &str) -> usize {
        self.sent.iter().filter(|line| line.starts_with(start)).count()
    }

    /// Lets time pass.
    pub fn run(&mut self, millis: u64) {
        let end = Millis(self.now.0 + millis);
        self.collect();
        loop {
            let arrival = self.wire.first_key_value().map(|((at, _), _)| *at);
            let timer = self.endpoints.values().filter_map(Endpoint::next_timeout).min();
            let Some(next) = [arrival, timer].into_iter().flatten().min().filter(|at| *at <= end) else {
                break;
            };
            self.now = next.max(self.now);
            if arrival == Some(next) {
                let (_, (from, to, bytes)) = self.wire.pop_first().unwrap();
                self.deliver(from, to, bytes);
            } else {
                let now = self.now;
                self.endpoints.values_mut().for_each(|endpoint| endpoint.handle_timeout(now));
            }
            self.collect();
        }
        self.now = end;
    }

    fn collect(&mut self) {
        let mut outputs = Vec::new();
        for (address, endpoint) in &mut self.endpoints {
            while let Some(output) = endpoint.poll() {
                outputs.push((*address, output));
            }
        }
        for (address, output) in outputs {
            match output {
                Output::Transmit { flow, bytes } => {
                    self.send(Flow { transport: flow.transport, peer: address }, flow, bytes);
                }
                Output::Leg(leg, event) => self.events.entry(address).or_default().push((leg, event)),
                Output::TurnedAway => {}
                Output::Elsewhere { request, flow } => self.elsewhere.push((address, *request, flow)),
            }
        }
    }

    fn send(&mut self, from: Flow, to: Flow, bytes: Bytes) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.sent.push(text.lines().next().unwrap_or_default().to_owned());
        self.targets.push(to);
        let mut lost = false;
        for filter in &mut self.lose {
            lost |= filter(&text);
        }
        if self.loss > 0 {
            lost |= self.throw() % 100 < self.loss;
        }
        if !lost {
            self.serial += 1;
            let jitter = if self.jitter > 0 { self.throw() % self.jitter } else { 0 };
            self.wire.insert((Millis(self.now.0 + DELAY + jitter), self.serial), (from, to, bytes));
        }
    }

    pub fn throw(&mut self) -> u64 {
        // xorshift: seeded, so that a failing run can be repeated.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice
    }

    fn deliver(&mut self, from: Flow, to: Flow, bytes: Bytes) {
        match admit(bytes.clone(), from, &Limits::datagram()) {
            Verdict::Message(message) => {
                let now = self.now;
                match self.endpoints.get_mut(&to.peer) {
                    Some(endpoint) => endpoint.receive(*message, from, now),
                    None => self.inbox.push(*message),
                }
            }
            Verdict::Nothing => {}
            verdict => panic!("{verdict:?} for {}", String::from_utf8_lossy(&bytes)),
        }
    }

    /// P sends something.
    pub fn inject(&mut self, to: &str, text: String) {
        self.inject_on(to, flow(P), text);
    }

    /// The same from another address or over TCP.
    pub fn inject_on(&mut self, to: &str, from: Flow, text: String) {
        let to = Flow { transport: from.transport, ..flow(to) };
        self.send(from, to, Bytes::from(text));
        self.run(DELAY);
    }

    /// The next request that P has received, by method.
    pub fn request(&mut self, method: &str) -> Request {
        self.run(2 * DELAY);
        let wanted = |m: &Message| m.as_request().is_some_and(|r| r.method.as_bytes() == method.as_bytes());
        let seen: Vec<_> = self.inbox.iter().map(first_line).collect();
        let index = self.inbox.iter().position(wanted).unwrap_or_else(|| panic!("no {method} in {seen:?}"));
        match self.inbox.remove(index) {
            Message::Request(request) => request,
            Message::Response(_) => unreachable!(),
        }
    }

    /// An INVITE of P's; `name` is in its branch, Call-ID and tag.
    pub fn invite_from_p(&self, name: &str) -> String {
        let request = request_from_p("INVITE", "sip:+4930123@192.0.2.2", name, 1, "");
        request.replace(
            "Content-Length: 0\r\n\r\n",
            "Content-Type: application/sdp\r\nContent-Length: 5\r\n\r\noffer",
        )
    }

    /// P's ACK of a 2xx to that INVITE.
    pub fn ack_from_p(&self, name: &str, answer: &Response) -> String {
        self.within_from_p("ACK", name, 1, answer)
    }

    /// P's request inside the dialog that `answer` made.
    pub fn within_from_p(&self, method: &str, name: &str, cseq: u32, answer: &Response) -> String {
        let to = String::from_utf8(answer.headers.value(&HeaderName::To).unwrap().to_vec()).unwrap();
        let contact = read::contact(&answer.headers).unwrap();
        let text = request_from_p(method, &String::from_utf8(contact).unwrap(), name, cseq, "");
        let branch = format!("z9hG4bK{name}{method}{cseq}");
        text.replace(&format!("z9hG4bK{name}"), &branch).replace("To: <sip:b@b>", &format!("To: {to}"))
    }

    /// The next response with this code that P has received.
    pub fn response_with(&mut self, code: u16) -> Response {
        self.run(2 * DELAY);
        loop {
            let response = self.response();
            if response.status.code() == code {
                return response;
            }
        }
    }

    /// The next response that P has received.
    pub fn response(&mut self) -> Response {
        self.run(2 * DELAY);
        let index = self.inbox.iter().position(|m| m.as_response().is_some()).expect("a response");
        match self.inbox.remove(index) {
            Message::Response(response) => response,
            Message::Request(_) => unreachable!(),
        }
    }

    /// P answers a request of A's; `tag` is its To tag, and a 101–299 carries a Contact.
    pub fn reply(&mut self, request: &Request, code: u16, tag: &str, headers: &[(&str, &str)], body: &str) {
        self.reply_from(A, request, code, tag, headers, body);
    }

    /// The same to a request of another endpoint's.
    pub fn reply_from(
        &mut self,
        to: &str,
        request: &Request,
        code: u16,
        tag: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) {
        let text =
            String::from_utf8(reply_stateless(request, code, reason_phrase(code), &[]).to_vec()).unwrap();
        let mut lines: Vec<String> = text.trim_end().lines().map(str::to_owned).collect();
        lines.pop();
        for line in &mut lines {
            if line.starts_with("To:") && !tag.is_empty() {
                *line = format!("{};tag={tag}", line.split(";tag=").next().unwrap());
            }
        }
        if (101..300).contains(&code) {
            lines.push(format!("Contact: <sip:p-{tag}@{P}>"));
        }
        lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
        if !body.is_empty() {
            lines.push("Content-Type: application/sdp".into());
        }
        let text = format!("{}\r\nContent-Length: {}\r\n\r\n{body}", lines.join("\r\n"), body.len());
        self.inject(to, text);
    }

    /// Everything is over: nothing is left anywhere but what is remembered against late copies, and not that for ever.
    pub fn assert_quiet(&mut self) {
        for address in [A, B] {
            let endpoint = self.at(address);
            assert_eq!((endpoint.legs(), endpoint.is_idle()), (0, true), "legs of {address}");
        }
        self.run(70_000);
        for address in [A, B] {
            let endpoint = self.at(address);
            let left = (endpoint.server_transactions(), endpoint.client_transactions(), endpoint.timers());
            assert_eq!(left, (0, 0, 0), "server and client transactions, timers of {address}");
        }
    }

    /// A call from A to B, answered. Returns the legs.
    pub fn connected(&mut self) -> (LegId, LegId) {
        let caller = self.act(A, |a, now| a.invite(call_to(B), now));
        self.run(DELAY);
        let (callee, _) = self.event(B);
        self.act(B, |b, now| b.answer(callee, sdp("answer"), now));
        self.run(3 * DELAY);
        assert!(matches!(self.events(A).as_slice(), [(leg, LegEvent::Answered { .. })] if *leg == caller));
        assert!(matches!(self.events(B).as_slice(), [(leg, LegEvent::Acked { .. })] if *leg == callee));
        (caller, callee)
    }
}

/// A request of P's outside of dialogs; `name` is in its branch, Call-ID and tag; `extra` are whole lines.
pub fn request_from_p(method: &str, uri: &str, name: &str, cseq: u32, extra: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {P};branch=z9hG4bK{name};rport\r\nMax-Forwards: 70\r\n\
         From: <sip:p@p>;tag={name}\r\nTo: <sip:b@b>\r\nCall-ID: {name}\r\nCSeq: {cseq} {method}\r\n\
         Contact: <sip:p@{P}>\r\n{extra}Content-Length: 0\r\n\r\n"
    )
}

fn first_line(message: &Message) -> String {
    String::from_utf8_lossy(&message.to_bytes()).lines().next().unwrap_or_default().to_owned()
}

pub fn header(message: &Request, name: &HeaderName) -> String {
    String::from_utf8_lossy(&message.headers.value(name).unwrap_or_default()).into_owned()
}
