//! Those who are called: an assistant's agent, or a PBX with people. They differ in their names and in what they are for;
//! both do what their rules say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::challenge::Challenger;
use super::phone::{Happening, Phone};
use super::report::{Form, Report};
use super::rules::{self, Behaviour, PickUp, Rule};
use super::sdp::{self, Audio, Heard};
use super::{SimulateError, in_words, told_to_stop};
use crate::sip::event::{Body, EndedBy, IncomingCall, LegEvent, LegId, RequestId};

/// Who is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An assistant's agent.
    Agent,
    /// Someone at a PBX.
    Human,
}

/// The command line of `agent` and `human`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where SIP is heard, UDP and TCP
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:5060")]
    pub listen: SocketAddr,
    /// The host that peers are told to reach this party at [default: this machine's own address]
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// What to do when this number is called or calls ('*': any): NUMBER:BEHAVIOUR[,BEHAVIOUR...]
    ///
    /// Behaviours: wait, name=NAME, answer-after=TIME, no-answer, busy, decline, offline, refuse=CODE,
    /// transfer-to=DESTINATION, after=TIME, hang-up-after=TIME
    #[arg(long = "rule", value_name = "RULE")]
    pub rules: Vec<Rule>,
    /// Without a rule: ask to transfer the caller to this destination
    #[arg(long, value_name = "DESTINATION")]
    pub transfer_to: Option<String>,
    /// Time from the answer until the transfer is asked for
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = rules::time)]
    pub transfer_after: Duration,
    /// Without a rule: hang up this long after the answer
    #[arg(long, value_name = "TIME", value_parser = rules::time)]
    pub hang_up_after: Option<Duration>,
    /// Take calls only with this user name and password (digest): USER:PASSWORD
    #[arg(
        long,
        value_name = "USER:PASSWORD",
        env = "VOICEDOCK_SIMULATE_CREDENTIALS",
        hide_env_values = true
    )]
    pub credentials: Option<String>,
    /// The realm of the challenge
    #[arg(long, value_name = "REALM", default_value = "voicedock.example")]
    pub realm: String,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// With these rules at that address, and nothing else.
    pub fn at(listen: SocketAddr, rules: Vec<Rule>) -> Self {
        Self {
            listen,
            advertise: None,
            rules,
            transfer_to: None,
            transfer_after: Duration::ZERO,
            hang_up_after: None,
            credentials: None,
            realm: "voicedock.example".into(),
            json: false,
        }
    }
}

/// Answers calls until the process is told to stop.
pub async fn run(role: Role, args: Args) -> Result<(), SimulateError> {
    let report = Report::new(Form::printed(args.json));
    let mut party = Called::listen(role, args, report).await?;
    tokio::select! {
        result = party.serve() => result?,
        result = told_to_stop() => result?,
    }
    party.stop().await
}

/// A party that takes calls.
pub struct Called {
    role: Role,
    rules: Vec<Rule>,
    otherwise: Behaviour,
    phone: Phone<Timer>,
    calls: BTreeMap<LegId, Call>,
    report: Report,
}

/// What a party does later, on its own.
#[derive(Clone, Copy, Debug)]
enum Timer {
    Answer(LegId),
    Transfer(LegId),
    HangUp(LegId),
}

/// One call as the party knows it.
struct Call {
    id: String,
    who: String,
    behaviour: Behaviour,
    audio: Audio,
    offer: Option<Body>,
    /// Where the gateway is reached, for Refer-To.
    gateway: String,
    heard: Option<Heard>,
    refer: Option<RequestId>,
    /// The transfer that was asked for has a final outcome.
    concluded: bool,
}

impl Called {
    /// Listens.
    pub async fn listen(role: Role, args: Args, report: Report) -> Result<Self, SimulateError> {
        let mut phone = Phone::listen(args.listen, args.advertise, None).await?;
        if let Some(credentials) = args.credentials {
            let mut challenger = Challenger::new(&credentials, args.realm);
            phone.set_guard(Box::new(move |message| challenger.look_at(message)));
        }
        let transfer = args.transfer_to.map(|to| rules::Transfer { to, after: args.transfer_after });
        let otherwise = Behaviour { transfer, hang_up_after: args.hang_up_after, ..Behaviour::default() };
        let mut party = Self { role, rules: args.rules, otherwise, phone, calls: BTreeMap::new(), report };
        let at = party.address();
        party.report.tell(role.word(), "", "listening", format!("listens at {at}, UDP and TCP"));
        party.report.forget("");
        Ok(party)
    }

    /// Where it is reached.
    pub fn address(&self) -> String {
        let local = self.phone.local();
        format!("{}:{}", local.host, local.port)
    }

    /// Answers calls; ends only with an error.
    pub async fn serve(&mut self) -> Result<(), SimulateError> {
        loop {
            match self.phone.next().await? {
                Happening::Leg(leg, LegEvent::Incoming(call)) => self.called(leg, *call),
                Happening::Leg(leg, event) => self.event(leg, event),
                Happening::Timer(timer) => self.timer(timer),
            }
        }
    }

    /// Calls that are not over.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// What it has told.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Hangs up every call.
    pub async fn stop(self) -> Result<(), SimulateError> {
        self.phone.put_away(self.calls.into_keys()).await
    }

    fn called(&mut self, leg: LegId, call: IncomingCall) {
        let header = |name: &str| {
            let found = call.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        let number = header("X-VoiceDock-Number").unwrap_or_else(|| call.called.clone());
        let behaviour =
            Rule::choose(&self.rules, &number, &call.from.user).unwrap_or_else(|| self.otherwise.clone());
        let assistant = header("X-VoiceDock-Assistant");
        let name = behaviour.name.as_deref().or(assistant.as_deref().map(last_part)).unwrap_or(&number);
        let who = format!("{} {name}", self.role.word());
        let id = header("X-VoiceDock-Call-Id").unwrap_or_else(|| call.call_id.clone());
        let audio = Audio {
            name: who.clone(),
            address: self.phone.address(),
            port: self.phone.media_port(),
            session: leg.0,
            version: 0,
        };
        let from = if call.from.user.is_empty() { "somebody" } else { &call.from.user };
        let about = match (self.role, &assistant) {
            (Role::Agent, Some(assistant)) => {
                format!("is called by {from} on {number} as {assistant} ({id})")
            }
            _ => format!("is called by {from} on {number}"),
        };
        self.report.tell(&who, &id, "called", about);
        let heard = call.offer.as_ref().and_then(|offer| sdp::heard(&offer.bytes));
        let pick_up = behaviour.pick_up;
        let (gateway, offer) = (call.flow.peer.to_string(), call.offer);
        let call = Call { id, who, behaviour, audio, offer, gateway, heard, refer: None, concluded: false };
        self.calls.insert(leg, call);
        match pick_up {
            PickUp::Answer(Duration::ZERO) => self.answer(leg),
            PickUp::Answer(after) => {
                self.ring(leg);
                self.phone.set_timer(after, Timer::Answer(leg));
            }
            PickUp::Never => self.ring(leg),
            PickUp::Refuse(code) => self.refuse(leg, code),
        }
    }

    fn ring(&mut self, leg: LegId) {
        let now = self.phone.now();
        self.phone.endpoint.progress(leg, 180, None, now);
        self.tell(leg, "ringing", "rings");
    }

    fn refuse(&mut self, leg: LegId, code: u16) {
        let now = self.phone.now();
        self.phone.endpoint.refuse(leg, code, &[], now);
        let text = match code {
            486 => "is busy (486)".to_owned(),
            603 => "declines (603)".to_owned(),
            480 => "is not there (480)".to_owned(),
            488 => "speaks none of the caller's codecs (488)".to_owned(),
            code => format!("refuses ({code})"),
        };
        self.tell(leg, "refused", text);
        self.forget(leg);
    }

    fn answer(&mut self, leg: LegId) {
        let now = self.phone.now();
        let Some(call) = self.calls.get_mut(&leg) else { return };
        let body = match &call.offer {
            Some(offer) => call.audio.answer(&offer.bytes),
            None => Some(call.audio.offer()),
        };
        let Some(body) = body else { return self.refuse(leg, 488) };
        self.phone.endpoint.answer(leg, Some(body), now);
        if let Some(transfer) = &call.behaviour.transfer {
            self.phone.set_timer(transfer.after, Timer::Transfer(leg));
        }
        if let Some(after) = call.behaviour.hang_up_after {
            self.phone.set_timer(after, Timer::HangUp(leg));
        }
        let text = match &call.heard {
            Some(heard) => format!("answers, hears {heard}"),
            None => "answers".to_owned(),
        };
        self.tell(leg, "answered", text);
    }

    fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Answer(leg) => self.answer(leg),
            Timer::Transfer(leg) => self.ask_for_transfer(leg),
            Timer::HangUp(leg) => {
                if self.calls.contains_key(&leg) {
                    self.tell(leg, "hung-up", "hangs up");
                    self.phone.hang_up(leg);
                    self.forget(leg);
                }
            }
        }
    }

    fn ask_for_transfer(&mut self, leg: LegId) {
        let now = self.phone.now();
        let Some(call) = self.calls.get_mut(&leg) else { return };
        let Some(transfer) = call.behaviour.transfer.clone() else { return };
        let uri = if transfer.to.contains(':') {
            transfer.to.clone()
        } else {
            format!("sip:{}@{}", transfer.to, call.gateway)
        };
        call.refer = Some(self.phone.endpoint.refer(leg, &uri, now));
        self.tell(leg, "asks", format!("asks to transfer the caller to {} (REFER)", transfer.to));
    }

    fn event(&mut self, leg: LegId, event: LegEvent) {
        let now = self.phone.now();
        let Some(call) = self.calls.get_mut(&leg) else { return };
        match event {
            LegEvent::Acked { body: Some(answer) } => {
                call.heard = sdp::heard(&answer.bytes);
            }
            LegEvent::Reoffer { request, body } => {
                let reply = match &body {
                    Some(offer) => call.audio.answer(&offer.bytes),
                    None => Some(call.audio.offer()),
                };
                let code = if reply.is_some() { 200 } else { 488 };
                self.phone.endpoint.respond(leg, request, code, reply, now);
                let heard = body.as_ref().and_then(|offer| sdp::heard(&offer.bytes));
                if let Some(heard) = heard
                    && call.heard.as_ref() != Some(&heard)
                {
                    let text = format!("now hears {heard}");
                    call.heard = Some(heard);
                    self.tell(leg, "moved", text);
                }
            }
            LegEvent::Request { request, method, body } => {
                self.phone.endpoint.respond(leg, request, 200, None, now);
                if method == "NOTIFY"
                    && let Some((code, status)) = body.as_ref().and_then(|body| fragment(&body.bytes))
                {
                    self.notified(leg, code, status);
                }
            }
            LegEvent::Response { request, code } if call.refer == Some(request) && code >= 300 => {
                call.concluded = true;
                self.tell(leg, "transfer-refused", format!("is told that the transfer is refused ({code})"));
            }
            LegEvent::Refer { request, .. } => self.phone.endpoint.respond(leg, request, 603, None, now),
            LegEvent::Ended(by) => self.ended(leg, &by),
            _ => {}
        }
    }

    fn notified(&mut self, leg: LegId, code: u16, status: &str) {
        let Some(call) = self.calls.get_mut(&leg) else { return };
        call.concluded |= code >= 200;
        match code {
            100 => {}
            101..200 => self.tell(leg, "transfer-progress", format!("is told: {status}")),
            200..300 => self.tell(leg, "transferred", format!("is told that the caller was taken: {status}")),
            _ => {
                self.tell(
                    leg,
                    "transfer-failed",
                    format!("is told that the transfer failed: {status}; keeps the caller"),
                );
            }
        }
    }

    fn ended(&mut self, leg: LegId, by: &EndedBy) {
        let Some(call) = self.calls.get(&leg) else { return };
        let unknown = call.refer.is_some() && !call.concluded;
        let text = match by {
            EndedBy::Bye(Some(reason)) => format!("is hung up on: {}", in_words(reason)),
            EndedBy::Bye(None) => "is hung up on".to_owned(),
            EndedBy::Cancel => "stops ringing: the caller or the gateway gave up (CANCEL)".to_owned(),
            EndedBy::Timeout | EndedBy::Expired => "has lost the other side".to_owned(),
            EndedBy::Us => return self.forget(leg),
        };
        if unknown {
            self.tell(leg, "transfer-unknown", "never heard what became of the transfer");
        }
        self.tell(leg, "ended", text);
        self.forget(leg);
    }

    fn tell(&mut self, leg: LegId, event: &str, text: impl Into<String>) {
        if let Some(call) = self.calls.get(&leg) {
            self.report.tell(&call.who, &call.id, event, text);
        }
    }

    fn forget(&mut self, leg: LegId) {
        if let Some(call) = self.calls.remove(&leg) {
            self.report.forget(&call.id);
        }
    }
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Agent => "assistant",
            Self::Human => "human",
        }
    }
}

/// `support` of `acme/support`.
fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Status line of a `message/sipfrag` body (RFC 3420): the code, and the line without its version.
fn fragment(body: &[u8]) -> Option<(u16, &str)> {
    let line = std::str::from_utf8(body).ok()?.lines().next()?;
    let status = line.strip_prefix("SIP/2.0 ")?.trim_end();
    let code = status.split(' ').next()?.parse().ok()?;
    (100..700).contains(&code).then_some((code, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_sip_fragment_is_its_status() {
        assert_eq!(fragment(b"SIP/2.0 486 Busy Here\r\nTo: x\r\n"), Some((486, "486 Busy Here")));
        for wrong in ["", "SIP/2.0 abc", "SIP/2.0 42 x", "INVITE sip:x SIP/2.0", "HTTP/1.1 200 OK"] {
            assert_eq!(fragment(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
