//! The caller: calls a number and tells what it experiences: ringing, who answers, who is heard after a transfer, the end.
//!
//! With `--expect` the exit code says whether that happened: 0 only if every call had all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use super::phone::{Happening, Phone};
use super::report::{Form, Report};
use super::rules;
use super::sdp::{self, Audio, Heard};
use super::{SimulateError, in_words, told_to_stop};
use crate::sip::event::{
    Body, Credentials, EndedBy, Flow, LegEvent, LegId, OutgoingInvite, Party, RefusedBy, Transport,
};
use crate::sip::session::SessionPolicy;
use crate::sip::time::Millis;

/// The command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the call is sent: HOST:PORT of the gateway
    #[arg(long, value_name = "HOST:PORT", env = "VOICEDOCK_SIP")]
    pub gateway: String,
    /// Call over TCP
    #[arg(long)]
    pub tcp: bool,
    /// The caller's number
    #[arg(long, value_name = "NUMBER", default_value = "+31687654321")]
    pub from: String,
    /// The number that is called
    #[arg(long, value_name = "NUMBER")]
    pub to: String,
    /// What the caller calls itself
    #[arg(long, value_name = "NAME", default_value = "caller")]
    pub name: String,
    /// Hang up this long after the answer
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = rules::time)]
    pub hang_up_after: Duration,
    /// Hang up once the caller has heard somebody else for this long
    #[arg(long, value_name = "TIME", value_parser = rules::time)]
    pub hang_up_after_move: Option<Duration>,
    /// Give up when nobody has answered by then
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = rules::time)]
    pub give_up_after: Duration,
    /// Number of calls
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub calls: u32,
    /// Calls a second
    #[arg(long, value_name = "R", default_value_t = 10.0, value_parser = rate)]
    pub rate: f64,
    /// What has to happen, separated by commas: ringing, answered, moved, stayed (never moved), ended (after an answer),
    /// refused, refused=CODE
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    pub expect: Vec<Expectation>,
    /// Where SIP is heard [default: this machine's own address, any port]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// The host that the gateway is told to reach the caller at
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// What a challenge is answered with (digest): USER:PASSWORD
    #[arg(
        long,
        value_name = "USER:PASSWORD",
        env = "VOICEDOCK_SIMULATE_CREDENTIALS",
        hide_env_values = true
    )]
    pub credentials: Option<String>,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// One call over UDP to `to` at `gateway`, with the defaults of the command line.
    pub fn to(gateway: impl Into<String>, to: &str) -> Self {
        Self {
            gateway: gateway.into(),
            tcp: false,
            from: "+31687654321".into(),
            to: to.into(),
            name: "caller".into(),
            hang_up_after: Duration::from_secs(20),
            hang_up_after_move: None,
            give_up_after: Duration::from_secs(60),
            calls: 1,
            rate: 10.0,
            expect: Vec::new(),
            listen: None,
            advertise: None,
            credentials: None,
            json: false,
        }
    }
}

/// What has to happen in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expectation {
    /// It rang.
    Ringing,
    /// Somebody answered.
    Answered,
    /// The caller heard somebody else later.
    Moved,
    /// Somebody answered, and the caller never heard anybody else.
    Stayed,
    /// It ended after an answer, and not because the other side was lost.
    Ended,
    /// It was refused; with this code if there is one.
    Refused(Option<u16>),
}

impl FromStr for Expectation {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        Ok(match word {
            "ringing" => Self::Ringing,
            "answered" => Self::Answered,
            "moved" => Self::Moved,
            "stayed" => Self::Stayed,
            "ended" => Self::Ended,
            "refused" => Self::Refused(None),
            _ => match word.strip_prefix("refused=").map(str::parse) {
                Some(Ok(code @ 300..=699)) => Self::Refused(Some(code)),
                _ => {
                    return Err(format!(
                        "'{word}' is nothing to expect: write ringing, answered, moved, stayed, ended, refused or refused=CODE"
                    ));
                }
            },
        })
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ringing => f.write_str("ringing"),
            Self::Answered => f.write_str("answered"),
            Self::Moved => f.write_str("moved"),
            Self::Stayed => f.write_str("stayed"),
            Self::Ended => f.write_str("ended"),
            Self::Refused(None) => f.write_str("refused"),
            Self::Refused(Some(code)) => write!(f, "refused={code}"),
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 10_000.0 => Ok(rate),
        _ => Err("write calls a second, above 0 and at most 10000".to_owned()),
    }
}

/// What became of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Experience {
    /// It rang.
    pub rang: bool,
    /// Time from the INVITE to the answer.
    pub answered: Option<Duration>,
    /// Whom the caller heard, in order.
    pub heard: Vec<Heard>,
    /// It ended after an answer, by somebody's BYE.
    pub ended: bool,
    /// The code with which it was refused.
    pub refused: Option<u16>,
}

impl Experience {
    /// Whether this happened.
    pub fn has(&self, expectation: Expectation) -> bool {
        match expectation {
            Expectation::Ringing => self.rang,
            Expectation::Answered => self.answered.is_some(),
            Expectation::Moved => self.heard.len() > 1,
            Expectation::Stayed => self.answered.is_some() && self.heard.len() == 1,
            Expectation::Ended => self.ended,
            Expectation::Refused(None) => self.refused.is_some(),
            Expectation::Refused(code) => self.refused == code,
        }
    }
}

/// Calls, tells, and judges by `--expect`.
pub async fn run(args: Args) -> Result<(), SimulateError> {
    let expected: BTreeSet<_> = args.expect.iter().copied().collect();
    let many = args.calls > 1;
    let mut report = Report::new(if many { Form::Silent } else { Form::printed(args.json) });
    let name = args.name.clone();
    let experiences = call(args, &mut report).await?;
    if many {
        println!("{}", summary(&experiences));
    }
    judge(&experiences, &expected)
        .map_err(|missing| SimulateError::NotAsExpected(format!("{name}: {missing}")))
}

/// Places the calls and returns what became of each, once all are over.
pub async fn call(args: Args, report: &mut Report) -> Result<Vec<Experience>, SimulateError> {
    let gateway = resolve(&args.gateway).await?;
    let any = if gateway.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let listen = args.listen.unwrap_or_else(|| SocketAddr::new(any, 0));
    let phone = Phone::listen(listen, args.advertise.clone(), Some(gateway)).await?;
    let mut caller = Caller { args, gateway, phone, calls: BTreeMap::new(), over: Vec::new(), report };
    tokio::select! {
        result = caller.run() => result?,
        result = told_to_stop() => {
            result?;
            for leg in caller.calls.keys().copied().collect::<Vec<_>>() {
                caller.tell(leg, "hung-up", "hangs up");
            }
        }
    }
    let Caller { phone, calls, mut over, .. } = caller;
    let (left, unfinished): (Vec<_>, Vec<_>) =
        calls.into_iter().map(|(leg, call)| (leg, call.experience)).unzip();
    over.extend(unfinished);
    phone.put_away(left).await?;
    Ok(over)
}

/// A sentence on the first call that lacks something that was expected.
fn judge(experiences: &[Experience], expected: &BTreeSet<Expectation>) -> Result<(), String> {
    let missing = |experience: &Experience| -> Vec<String> {
        expected.iter().filter(|word| !experience.has(**word)).map(ToString::to_string).collect()
    };
    let failed: Vec<_> = experiences.iter().map(missing).filter(|missing| !missing.is_empty()).collect();
    match failed.first() {
        None => Ok(()),
        Some(missing) if experiences.len() == 1 => {
            Err(format!("expected, but it did not happen: {}", missing.join(", ")))
        }
        Some(missing) => Err(format!(
            "{} of {} calls did not go as expected; the first of them was not: {}",
            failed.len(),
            experiences.len(),
            missing.join(", ")
        )),
    }
}

fn summary(experiences: &[Experience]) -> String {
    let count = |word| experiences.iter().filter(|experience| experience.has(word)).count();
    let mut setup: Vec<_> = experiences.iter().filter_map(|experience| experience.answered).collect();
    setup.sort_unstable();
    let at = |share: usize| {
        setup.get((setup.len().saturating_sub(1)) * share / 100).map_or(0, Duration::as_millis)
    };
    let mut refusals: BTreeMap<u16, usize> = BTreeMap::new();
    for code in experiences.iter().filter_map(|experience| experience.refused) {
        *refusals.entry(code).or_default() += 1;
    }
    serde_json::json!({
        "calls": experiences.len(),
        "answered": count(Expectation::Answered),
        "moved": count(Expectation::Moved),
        "ended": count(Expectation::Ended),
        "refused": refusals,
        "answerMilliseconds": {"median": at(50), "p99": at(99), "max": at(100)},
    })
    .to_string()
}

async fn resolve(name: &str) -> Result<SocketAddr, SimulateError> {
    let mut found = tokio::net::lookup_host(name)
        .await
        .map_err(|source| SimulateError::Resolve { name: name.to_owned(), source })?;
    found.next().ok_or_else(|| SimulateError::NoAddress(name.to_owned()))
}

struct Caller<'a> {
    args: Args,
    gateway: SocketAddr,
    phone: Phone<Timer>,
    calls: BTreeMap<LegId, Call>,
    over: Vec<Experience>,
    report: &'a mut Report,
}

#[derive(Clone, Copy, Debug)]
enum Timer {
    Next(u32),
    GiveUp(LegId),
    HangUp(LegId),
}

struct Call {
    id: String,
    audio: Audio,
    invited: Millis,
    experience: Experience,
}

impl Caller<'_> {
    async fn run(&mut self) -> Result<(), SimulateError> {
        self.dial(1);
        while self.over.len() < usize::try_from(self.args.calls).unwrap_or(usize::MAX) {
            match self.phone.next().await? {
                Happening::Leg(leg, LegEvent::Incoming(_)) => {
                    let now = self.phone.now();
                    self.phone.endpoint.refuse(leg, 480, &[], now);
                }
                Happening::Leg(leg, event) => self.event(leg, event),
                Happening::Timer(Timer::Next(number)) => self.dial(number),
                Happening::Timer(Timer::GiveUp(leg)) => {
                    let waits = self.calls.get(&leg).is_some_and(|call| call.experience.answered.is_none());
                    if waits {
                        self.hang_up(leg, "gives up: nobody answered");
                    }
                }
                Happening::Timer(Timer::HangUp(leg)) => self.hang_up(leg, "hangs up"),
            }
        }
        Ok(())
    }

    fn dial(&mut self, number: u32) {
        let now = self.phone.now();
        let port = self.phone.media_port();
        let mut audio = Audio {
            name: self.args.name.clone(),
            address: self.phone.address(),
            port,
            session: u64::from(number),
            version: 0,
        };
        let transport = if self.args.tcp { Transport::Tcp } else { Transport::Udp };
        let parameter = if self.args.tcp { ";transport=tcp" } else { "" };
        let invite = OutgoingInvite {
            flow: Flow { transport, peer: self.gateway },
            route: None,
            uri: format!("sip:{}@{}{parameter}", self.args.to, self.gateway),
            from: Party { display: String::new(), user: self.args.from.clone(), host: String::new() },
            headers: Vec::new(),
            max_forwards: 70,
            offer: Some(audio.offer()),
            credentials: self.args.credentials.as_deref().map(|given| {
                let (username, password) = given.split_once(':').unwrap_or((given, ""));
                Credentials { username: username.into(), password: password.into(), realm: None }
            }),
            patience: None,
            session: SessionPolicy::default(),
        };
        let leg = self.phone.endpoint.invite(invite, now);
        let id = format!("{}", leg.0);
        self.calls.insert(leg, Call { id, audio, invited: now, experience: Experience::default() });
        let text = format!("{} calls {}", self.args.from, self.args.to);
        self.tell(leg, "calls", text);
        self.phone.set_timer(self.args.give_up_after, Timer::GiveUp(leg));
        if number < self.args.calls {
            // Counted from the start, so that a late timer doesn't lower the rate.
            let due = Duration::from_secs_f64(f64::from(number) / self.args.rate);
            self.phone.set_timer(due.saturating_sub(Duration::from_millis(now.0)), Timer::Next(number + 1));
        }
    }

    fn hang_up(&mut self, leg: LegId, text: &str) {
        if !self.calls.contains_key(&leg) {
            return;
        }
        self.tell(leg, "hung-up", text);
        self.phone.hang_up(leg);
    }

    fn event(&mut self, leg: LegId, event: LegEvent) {
        let now = self.phone.now();
        let Some(call) = self.calls.get_mut(&leg) else { return };
        match event {
            LegEvent::Progress { code, .. } if code >= 180 && !call.experience.rang => {
                call.experience.rang = true;
                self.tell(leg, "ringing", format!("hears it ring ({code})"));
            }
            LegEvent::Answered { body } => {
                call.experience.answered = Some(now.since(call.invited));
                self.phone.set_timer(self.args.hang_up_after, Timer::HangUp(leg));
                self.hears(leg, body.as_ref());
            }
            LegEvent::Reoffer { request, body } => {
                let reply = match &body {
                    Some(offer) => call.audio.answer(&offer.bytes),
                    None => Some(call.audio.offer()),
                };
                let code = if reply.is_some() { 200 } else { 488 };
                self.phone.endpoint.respond(leg, request, code, reply, now);
                if code == 200 {
                    self.hears(leg, body.as_ref());
                }
            }
            LegEvent::Acked { body: Some(answer) } => self.hears(leg, Some(&answer)),
            LegEvent::Request { request, .. } => self.phone.endpoint.respond(leg, request, 200, None, now),
            LegEvent::Refer { request, .. } => self.phone.endpoint.respond(leg, request, 603, None, now),
            LegEvent::Refused { code, reason, by } => {
                call.experience.refused = (by != RefusedBy::Cancelled).then_some(code);
                let text = match by {
                    RefusedBy::Timeout => "hears nothing: no answer at all from the gateway".to_owned(),
                    RefusedBy::Transport => "can't reach the gateway".to_owned(),
                    RefusedBy::Cancelled => "has hung up".to_owned(),
                    RefusedBy::Response | RefusedBy::Unauthorized | RefusedBy::Limit => {
                        format!("is refused: {code} {reason}")
                    }
                };
                self.tell(leg, "refused", text);
                self.over(leg);
            }
            LegEvent::Ended(by) => {
                call.experience.ended = call.experience.answered.is_some() && !by.is_loss();
                let with = call
                    .experience
                    .heard
                    .last()
                    .map_or_else(|| "the other side".to_owned(), ToString::to_string);
                match by {
                    EndedBy::Bye(None) => self.tell(leg, "ended", format!("{with} hung up")),
                    EndedBy::Bye(Some(reason)) => {
                        let reason = in_words(&reason);
                        self.tell(leg, "ended", format!("the gateway ends the call with {with}: {reason}"));
                    }
                    EndedBy::Timeout | EndedBy::Expired => self.tell(leg, "lost", format!("has lost {with}")),
                    EndedBy::Cancel | EndedBy::Us => {}
                }
                self.over(leg);
            }
            _ => {}
        }
    }

    /// A description says who is heard from now on.
    fn hears(&mut self, leg: LegId, body: Option<&Body>) {
        let Some(call) = self.calls.get_mut(&leg) else { return };
        let Some(heard) = body.and_then(|body| sdp::heard(&body.bytes)) else { return };
        if call.experience.heard.last() == Some(&heard) {
            return;
        }
        let text = format!("now hears {heard}");
        let first = call.experience.heard.is_empty();
        call.experience.heard.push(heard);
        if first {
            self.tell(leg, "answered", text);
        } else {
            self.tell(leg, "moved", text);
            if let Some(after) = self.args.hang_up_after_move {
                self.phone.set_timer(after, Timer::HangUp(leg));
            }
        }
    }

    fn tell(&mut self, leg: LegId, event: &str, text: impl Into<String>) {
        if let Some(call) = self.calls.get(&leg) {
            self.report.tell(&self.args.name, &call.id, event, text);
        }
    }

    fn over(&mut self, leg: LegId) {
        if let Some(call) = self.calls.remove(&leg) {
            self.report.forget(&call.id);
            self.over.push(call.experience);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(name: &str) -> Heard {
        Heard { name: name.into(), address: "192.0.2.1".into(), port: 20_000 }
    }

    #[test]
    fn a_caller_is_moved_when_it_hears_somebody_else() {
        let answered =
            Experience { answered: Some(Duration::ZERO), heard: vec![heard("a")], ..Experience::default() };
        let moved = Experience { heard: vec![heard("a"), heard("b")], ..answered.clone() };
        assert!(answered.has(Expectation::Stayed) && !answered.has(Expectation::Moved));
        assert!(moved.has(Expectation::Moved) && !moved.has(Expectation::Stayed));
        assert!(!Experience::default().has(Expectation::Stayed), "nobody was ever heard");
    }

    #[test]
    fn one_call_that_lacks_what_was_expected_fails_them_all() {
        let good =
            Experience { answered: Some(Duration::ZERO), heard: vec![heard("a")], ..Experience::default() };
        let bad = Experience { refused: Some(404), ..Experience::default() };
        let expected = BTreeSet::from([Expectation::Answered, Expectation::Stayed]);
        assert_eq!(judge(&[good.clone(), good.clone()], &expected), Ok(()));
        let said = judge(&[good, bad], &expected).unwrap_err();
        assert_eq!(said, "1 of 2 calls did not go as expected; the first of them was not: answered, stayed");
    }

    #[test]
    fn an_expected_refusal_may_name_its_code() {
        let refused = Experience { refused: Some(404), ..Experience::default() };
        for (word, has) in
            [("refused", true), ("refused=404", true), ("refused=403", false), ("answered", false)]
        {
            let expectation: Expectation = word.parse().unwrap();
            assert_eq!(refused.has(expectation), has, "{word}");
            assert_eq!(expectation.to_string(), word);
        }
        for wrong in ["", "refused=", "refused=200", "answer"] {
            assert!(wrong.parse::<Expectation>().is_err(), "{wrong}");
        }
    }
}
