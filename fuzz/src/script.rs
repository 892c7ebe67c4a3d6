//! An input as a script: bytes that say who does what next. Every input is one.
//!
//! Peers speak by templates, so that a mutated byte is another step of a call rather than noise; any message can also be spoilt
//! byte by byte before it arrives.

use std::sync::OnceLock;
use std::time::Duration;

use serde_json::json;
use sipx_sip::{HeaderName, Headers, Message, Request};
use voicedock::call::Command;
use voicedock::routing::decide::Wanted;
use voicedock::routing::table::Table;
use voicedock::sip::endpoint::Opening;
use voicedock::sip::event::{Flow, Transport};
use voicedock::sip::front_door::reply_stateless;
use voicedock::sip::read;

use crate::gateway::{Gateway, OWN};

/// The caller, who is a trunk; others are the agents and the carrier that the gateway dials.
const CALLER: &str = "203.0.113.5:5060";
/// What every script is played by: read once.
static TABLE: OnceLock<Table> = OnceLock::new();
/// Steps of one script, at most.
const STEPS: usize = 200;

const CODES: [u16; 16] = [100, 180, 183, 199, 200, 202, 302, 401, 407, 408, 422, 481, 486, 491, 503, 603];
const METHODS: [&str; 14] = [
    "INVITE",
    "BYE",
    "UPDATE",
    "REFER",
    "INFO",
    "NOTIFY",
    "PRACK",
    "MESSAGE",
    "OPTIONS",
    "CANCEL",
    "ACK",
    "REGISTER",
    "SUBSCRIBE",
    "FLY",
];
const SPANS: [u64; 8] = [1, 100, 500, 4_000, 11_000, 32_000, 95_000, 1_900_000];
const EXTRAS: [&str; 12] = [
    "",
    "Supported: timer, 100rel\r\nSession-Expires: 90;refresher=uac\r\n",
    "Require: 100rel\r\nRSeq: 1\r\n",
    "RSeq: 2\r\nRequire: 100rel\r\n",
    "Refer-To: <sip:sales@gw>\r\n",
    "Refer-To: <tel:+31612345678?Replaces=a%3Bto-tag%3Db>\r\n",
    "Event: refer\r\nSubscription-State: active\r\nContent-Type: message/sipfrag\r\n",
    "Event: refer\r\nSubscription-State: terminated\r\nContent-Type: message/sipfrag\r\n",
    "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\r\n",
    "Min-SE: 300\r\n",
    "RAck: 1 1 INVITE\r\n",
    "Session-Expires: 120;refresher=uas\r\nMin-SE: 90\r\n",
];
const BODIES: [&str; 5] = [
    "",
    "v=0\r\no=a 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n",
    "v=0\r\no=a 1 2 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na=sendonly\r\n",
    "SIP/2.0 200 OK\r\n",
    "SIP/2.0 100 Trying\r\n",
];

/// A dialog as a peer sees it.
struct Dialog {
    peer: Flow,
    ours: String,
    theirs: String,
    call_id: String,
    target: String,
    cseq: u32,
}

struct Play<'a> {
    script: &'a [u8],
    gateway: Gateway,
    dialogs: Vec<Dialog>,
    /// Requests that the gateway sent, newest last.
    requests: Vec<(Flow, Request)>,
    last: (Vec<u8>, Flow),
    sent: u32,
}

/// Plays a script to its end, then ends everything.
pub fn play(script: &[u8]) {
    let mut play = Play {
        script,
        gateway: Gateway::new(TABLE.get_or_init(table).clone()),
        dialogs: Vec::new(),
        requests: Vec::new(),
        last: (Vec::new(), flow(CALLER)),
        sent: 0,
    };
    for _ in 0..STEPS {
        if play.script.is_empty() {
            break;
        }
        play.step();
        play.look();
    }
    play.gateway.end();
}

fn flow(peer: &str) -> Flow {
    Flow { transport: Transport::Udp, peer: peer.parse().expect("an address") }
}

fn text(headers: &Headers, name: &HeaderName) -> String {
    read::text(headers, name).unwrap_or_default()
}

impl Play<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.script.split_first() else { return 0 };
        self.script = rest;
        *first
    }

    fn of<T: Copy>(&mut self, table: &[T]) -> T {
        table[usize::from(self.byte()) % table.len()]
    }

    fn step(&mut self) {
        match self.byte() % 10 {
            0 => self.invite(),
            1 | 2 => self.answer(),
            3 | 4 => self.within(),
            5 => {
                let span = self.of(&SPANS);
                self.gateway.pass(Duration::from_millis(span));
            }
            6 => {
                let (bytes, from) = self.last.clone();
                self.gateway.receive(&bytes, from);
            }
            7 => self.spoil(),
            8 => self.command(),
            _ => self.raw(),
        }
    }

    /// What the gateway sent is remembered as its peers would.
    fn look(&mut self) {
        while let Some((to, message)) = self.gateway.sent.pop_front() {
            let headers = message.headers();
            let (call_id, target) = (text(headers, &HeaderName::CallId), read::contact(headers));
            let target = target.map(|target| String::from_utf8_lossy(&target).into_owned());
            let (from, to_header) = (text(headers, &HeaderName::From), text(headers, &HeaderName::To));
            let (ours, theirs) = match &message {
                Message::Request(_) => (to_header, from),
                Message::Response(_) => (from, to_header),
            };
            let is_known = |dialog: &Dialog| dialog.call_id == call_id && dialog.theirs == theirs;
            let known = self.dialogs.iter().position(is_known);
            match (known, target) {
                (Some(known), Some(target)) => self.dialogs[known].target = target,
                (None, Some(target)) if self.dialogs.len() < 16 => {
                    let tagged = ours.contains(";tag=");
                    let ours = if tagged { ours } else { format!("{ours};tag=p{}", to.peer.ip()) };
                    self.dialogs.push(Dialog { peer: to, ours, theirs, call_id, target, cseq: 10 });
                }
                _ => {}
            }
            if let Message::Request(request) = message {
                self.requests.push((to, request));
                if self.requests.len() > 32 {
                    self.requests.remove(0);
                }
            }
        }
    }

    fn deliver(&mut self, bytes: Vec<u8>, from: Flow) {
        self.last = (bytes.clone(), from);
        self.gateway.receive(&bytes, from);
    }

    /// A call, or one again: the same variant has the same Call-ID and branch.
    fn invite(&mut self) {
        let variant = self.byte() % 4;
        let method = if self.byte() % 4 == 3 { "CANCEL" } else { "INVITE" };
        let (extra, body) = (self.of(&EXTRAS), self.of(&BODIES));
        let text = format!(
            "{method} sip:+31201234567@{OWN} SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER};branch=z9hG4bKc{variant}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:+31687654321@caller>;tag=c{variant}\r\nTo: <sip:+31201234567@{OWN}>\r\n\
             Call-ID: c{variant}\r\nCSeq: 1 {method}\r\nContact: <sip:c@{CALLER}>\r\n{extra}{}",
            content(extra, body)
        );
        self.deliver(text.into_bytes(), flow(CALLER));
    }

    /// A peer answers one of the last requests.
    fn answer(&mut self) {
        let back = usize::from(self.byte() % 8);
        let (code, extra, body) = (self.of(&CODES), self.of(&EXTRAS), self.of(&BODIES));
        let tag = self.byte() % 3;
        let Some((from, request)) = self.requests.iter().rev().nth(back) else { return };
        let from = *from;
        let reply = String::from_utf8_lossy(&reply_stateless(request, code, "Answer", &[])).into_owned();
        let lines: Vec<String> = reply
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("Content-Length"))
            .map(|line| match line.split_once(";tag=s") {
                Some((to, _)) if line.starts_with("To:") => {
                    format!("{to};tag=p{}", if tag == 2 { "fork".into() } else { from.peer.ip().to_string() })
                }
                _ => line.to_owned(),
            })
            .collect();
        let text = format!(
            "{}\r\nContact: <sip:p@{}>\r\n{extra}{}",
            lines.join("\r\n"),
            from.peer,
            content(extra, body)
        );
        self.deliver(text.into_bytes(), from);
    }

    /// A peer sends a request inside a dialog.
    fn within(&mut self) {
        let which = usize::from(self.byte());
        let (method, extra, body) = (self.of(&METHODS), self.of(&EXTRAS), self.of(&BODIES));
        let number = self.byte();
        self.sent += 1;
        let (count, sent) = (self.dialogs.len(), self.sent);
        let Some(dialog) = self.dialogs.get_mut(which % count.max(1)) else { return };
        let cseq = match (method, number) {
            ("ACK" | "CANCEL" | "PRACK", _) => u32::from(number % 16),
            (_, 255) => dialog.cseq,
            _ => {
                dialog.cseq += 1;
                dialog.cseq
            }
        };
        let Dialog { peer, ours, theirs, call_id, target, .. } = dialog;
        let peer = *peer;
        let text = format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKw{sent}\r\nMax-Forwards: 70\r\nFrom: {ours}\r\n\
             To: {theirs}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContact: <sip:w@{}>\r\n{extra}{}",
            peer.peer,
            peer.peer,
            content(extra, body)
        );
        self.deliver(text.into_bytes(), peer);
    }

    /// The last message arrives once more, with some of its bytes changed.
    fn spoil(&mut self) {
        let (mut bytes, from) = self.last.clone();
        for _ in 0..=self.byte() % 8 {
            let at = usize::from(u16::from_be_bytes([self.byte(), self.byte()])) % bytes.len().max(1);
            let byte = self.byte();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        self.gateway.receive(&bytes, from);
    }

    fn command(&mut self) {
        let number = usize::from(self.byte() % 4);
        match self.byte() % 12 {
            0 => self.gateway.command(number, Command::End { message: None }),
            1 => self.gateway.set_opening(Opening::Draining),
            2 => {
                let opening = self.of(&[Opening::Open, Opening::Full]);
                self.gateway.set_opening(opening);
            }
            3 => {
                let peer = self.of(&[CALLER, "192.0.2.10:5060", "198.51.100.1:5060"]);
                self.gateway.lose(flow(peer));
            }
            4 => self.gateway.told(Ok(())),
            5 => self.gateway.told(Err("it was interrupted".into())),
            8 => {
                let message = Some("Goodbye.".to_owned());
                self.gateway.command(number, Command::End { message });
            }
            9 => {
                let end_after = self.byte() % 2 == 1;
                self.gateway.command(number, Command::Say { content: "Hello.".into(), end_after });
            }
            10 => {
                let content = "The caller's order has left.".into();
                self.gateway.command(number, Command::Inject { content, trigger_response: true });
            }
            11 => {
                let destination = self.of(&["sales", "queue", "nobody"]);
                self.gateway.agent_asks(number, destination);
            }
            wanted => {
                let name = self.of(&["sales", "queue", "nobody", "desk"]);
                let message = (wanted == 7).then(|| "One moment.".to_owned());
                self.gateway
                    .command(number, Command::Transfer { wanted: Wanted::Name(name.into()), message });
            }
        }
    }

    /// Bytes as they stand in the script, with its length before them.
    fn raw(&mut self) {
        let length = usize::from(u16::from_be_bytes([self.byte(), self.byte()])).min(self.script.len());
        let (bytes, rest) = self.script.split_at(length);
        self.script = rest;
        self.deliver(bytes.to_vec(), flow(CALLER));
    }
}

fn content(extra: &str, body: &str) -> String {
    let typed = body.is_empty() || extra.contains("Content-Type");
    let content_type = if typed { "" } else { "Content-Type: application/sdp\r\n" };
    format!("{content_type}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A number with an assistant at two addresses, and destinations that are dialled, asked of the trunk, and called by URI.
fn table() -> Table {
    let agent = |host: &str| json!({ "uri": format!("sip:agent@{host}"), "host": host, "transport": "UDP" });
    let human = |target: serde_json::Value, by_refer: bool| {
        json!({
            "target": target, "description": "a human", "byRefer": by_refer, "ringTimeoutSeconds": 30,
            "callerId": "preserve", "returnToAssistant": true,
        })
    };
    let table = json!({
        "numbers": { "+31201234567": { "object": "acme/main", "assistant": "acme/support", "transferTrunk": "acme/carrier" } },
        "assistants": { "acme/support": {
            "agent": { "sip": { "targets": [agent("192.0.2.10"), agent("192.0.2.11")], "answerTimeoutSeconds": 10,
                "hook": { "url": "http://192.0.2.10/hook", "secret": "v1" } } },
            "destinations": { "sales": "acme/sales", "queue": "acme/queue" },
        } },
        "destinations": {
            "acme/sales": human(json!({ "number": "+31612345678" }), false),
            "acme/queue": human(json!({ "number": "+31612345679" }), true),
        },
        "trunks": { "acme/carrier": {
            "host": "198.51.100.1", "port": 5060, "transport": "UDP", "numberFormat": "e164", "callerIdHeader": "PAI",
            "allowedSources": ["203.0.113.0/24"], "allowedNamespaces": ["acme"],
            "refer": { "sip": { "host": "carrier.example" } },
        } },
    });
    serde_json::from_value(table).expect("the table is one")
}
