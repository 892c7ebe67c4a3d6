//! Keeping the gateway registered at a trunk (RFC 3261 §10): when REGISTER is sent, to which of the trunk's hosts, and what
//! the answers mean. Pure.
//!
//! A binding is refreshed well before it ends. A host that can't be reached, or that says it is not the host's day (408,
//! 5xx), leaves it to the trunk's next one; when none of them takes it, or one refuses, it is tried again with a growing
//! pause. A binding that isn't refreshed in time counts as gone when it ends and not before.

use std::time::Duration;

use crate::sip::event::Flow;
use crate::sip::outside::Authority;
use crate::sip::time::Millis;

/// The first pause after a failure.
const PAUSE_FROM: Duration = Duration::from_secs(5);
/// The longest; also the most that a Retry-After is believed.
const PAUSE_TO: Duration = Duration::from_secs(300);
/// The longest binding that is asked for, whatever Min-Expires says.
const MOST_SECONDS: u32 = 86_400;

/// One trunk's registration.
#[derive(Debug)]
pub(super) struct Registration {
    /// How many seconds are asked for: more than the trunk's entry says if the registrar wants it so.
    asked: u32,
    call_id: String,
    cseq: u32,
    authority: Option<Authority>,
    /// How many hosts the trunk has, and which of them it is tried at.
    hosts: usize,
    host: usize,
    /// Hosts that have left it to others since one last answered.
    passed: usize,
    /// When REGISTER is to be sent; absent while one is under way.
    due: Option<Millis>,
    failures: u32,
    bound: Option<Bound>,
    said: Option<String>,
}

/// A binding that the registrar holds.
#[derive(Clone, Copy, Debug)]
struct Bound {
    until: Millis,
    flow: Flow,
}

/// What a REGISTER is made of.
#[derive(Debug)]
pub(super) struct Asking {
    /// Which host of the trunk is asked: 0 is its first.
    pub(super) host: usize,
    /// Value of Expires.
    pub(super) seconds: u32,
    /// Call-ID, the same for all of them.
    pub(super) call_id: String,
    /// CSeq number.
    pub(super) cseq: u32,
    /// What answers challenges.
    pub(super) authority: Option<Authority>,
}

/// What came of a REGISTER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The binding holds for so many seconds.
    Granted(u32),
    /// 423: it must be asked for so many seconds at least.
    TooBrief(u32),
    /// Refused for a reason that lies in us; when to ask again, if the registrar says.
    Refused(String, Option<u32>),
    /// The host doesn't answer, or says that it can't.
    NotHere(String, Option<u32>),
}

impl Registration {
    /// The first REGISTER is due at once.
    pub(super) fn new(
        seconds: u32,
        hosts: usize,
        call_id: String,
        authority: Option<Authority>,
        now: Millis,
    ) -> Self {
        Self {
            asked: seconds,
            call_id,
            cseq: 0,
            authority,
            hosts: hosts.max(1),
            host: 0,
            passed: 0,
            due: Some(now),
            failures: 0,
            bound: None,
            said: None,
        }
    }

    /// When the next REGISTER is to be sent; `None` while one is under way.
    pub(super) fn due(&self) -> Option<Millis> {
        self.due
    }

    /// When something is known that wasn't before although nothing came: the end of a binding.
    pub(super) fn ends(&self) -> Option<Millis> {
        self.bound.map(|bound| bound.until)
    }

    /// A REGISTER is sent.
    pub(super) fn begin(&mut self) -> Asking {
        self.due = None;
        self.cseq += 1;
        Asking {
            host: self.host,
            seconds: self.asked,
            call_id: self.call_id.clone(),
            cseq: self.cseq,
            authority: self.authority.take(),
        }
    }

    /// REGISTER that takes the binding back, if there may be one, and where it was made.
    pub(super) fn withdraw(mut self) -> Option<(Flow, Asking)> {
        let bound = self.bound?;
        Some((bound.flow, Asking { seconds: 0, ..self.begin() }))
    }

    /// Which of the trunk's hosts is asked: 0 is its first.
    pub(super) fn host(&self) -> usize {
        self.host
    }

    /// A REGISTER has been sent with credentials: what they have learnt comes back, with the last CSeq number.
    pub(super) fn returned(&mut self, authority: Option<Authority>, cseq: u32) {
        self.authority = authority;
        self.cseq = self.cseq.max(cseq);
    }

    /// The REGISTER that was under way, sent on `flow`, has been answered or given up. `dice` is a random number.
    pub(super) fn end(&mut self, answer: Answer, flow: Option<Flow>, dice: u64, now: Millis) {
        self.forget_what_ended(now);
        // Between nine tenths and all of it: registrations that began together drift apart.
        let spread = |span: Duration| span.mul_f64(1.0 - (dice % 1024) as f64 / 10_240.0);
        match (answer, flow) {
            (Answer::Granted(seconds), Some(flow)) if seconds > 0 => {
                let span = Duration::from_secs(seconds.into());
                self.bound = Some(Bound { until: now + span, flow });
                (self.failures, self.passed) = (0, 0);
                self.said = Some(format!("it holds our registration for {seconds} s"));
                // A lost refresh can still be repeated for its 32 s, where the binding is long enough for that.
                let early = Duration::from_secs(40).min(span / 2);
                self.due = Some(now + spread(span - early));
            }
            (Answer::TooBrief(least), _) if least > self.asked && least <= MOST_SECONDS => {
                self.asked = least;
                self.due = Some(now);
            }
            (Answer::NotHere(why, after), _) => {
                self.passed += 1;
                self.host = (self.host + 1) % self.hosts;
                let all = self.passed.is_multiple_of(self.hosts);
                self.failed(why, all.then(|| spread(self.pause(after))), now);
            }
            (Answer::Refused(why, after), _) => self.failed(why, Some(spread(self.pause(after))), now),
            (Answer::Granted(_), _) => {
                let why = "REGISTER was answered without our binding in it".to_owned();
                self.failed(why, Some(spread(self.pause(None))), now);
            }
            (Answer::TooBrief(least), _) => {
                let why = format!("REGISTER was answered 423, but Min-Expires {least} is nothing to ask for");
                self.failed(why, Some(spread(self.pause(None))), now);
            }
        }
    }

    /// A connection is lost: a binding that was made on it leads nowhere, and is made anew at once.
    pub(super) fn lost(&mut self, flow: Flow, now: Millis) {
        if self.bound.is_some_and(|bound| bound.flow == flow && flow.transport.is_reliable())
            && self.due.is_some()
        {
            self.due = Some(now);
        }
    }

    /// Whether the registrar holds a binding, and what it said last; `None` until it has said anything.
    pub(super) fn standing(&self, now: Millis) -> Option<(bool, &str)> {
        Some((self.bound.is_some_and(|bound| bound.until > now), self.said.as_deref()?))
    }

    fn failed(&mut self, why: String, pause: Option<Duration>, now: Millis) {
        // As long as the binding holds it is what counts; why it can't be refreshed is shown once it is gone.
        self.said = Some(why);
        if pause.is_some() {
            self.failures += 1;
        }
        self.due = Some(now + pause.unwrap_or_default());
    }

    fn pause(&self, after: Option<u32>) -> Duration {
        let grown = PAUSE_FROM.saturating_mul(1 << self.failures.min(10));
        after.map_or(grown, |seconds| Duration::from_secs(seconds.into()).max(PAUSE_FROM)).min(PAUSE_TO)
    }

    /// A binding that has ended is none; whether one has.
    pub(super) fn forget_what_ended(&mut self, now: Millis) -> bool {
        self.bound.take_if(|bound| bound.until <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::event::Transport;

    fn flow() -> Flow {
        Flow { transport: Transport::Tcp, peer: "192.0.2.1:5060".parse().unwrap() }
    }

    fn fresh(hosts: usize) -> Registration {
        Registration::new(300, hosts, "call".into(), None, Millis(0))
    }

    /// Sends the next REGISTER when it is due and has it answered; returns when that was, in seconds, and the host.
    fn step(registration: &mut Registration, answer: Answer) -> (u64, usize) {
        let now = registration.due().unwrap();
        let asking = registration.begin();
        assert_eq!(registration.due(), None, "one at a time");
        registration.end(answer, Some(flow()), 0, now);
        (now.0 / 1000, asking.host)
    }

    fn not_here() -> Answer {
        Answer::NotHere("no answer".into(), None)
    }

    #[test]
    fn a_binding_is_refreshed_before_it_ends() {
        let mut registration = fresh(1);
        assert_eq!(registration.standing(Millis(0)), None);
        assert_eq!(step(&mut registration, Answer::Granted(300)).0, 0);
        assert_eq!(registration.standing(Millis(1)), Some((true, "it holds our registration for 300 s")));
        assert_eq!(step(&mut registration, Answer::Granted(20)).0, 260);
        assert_eq!(step(&mut registration, Answer::Granted(20)).0, 270, "the registrar's word counts");
        let cseqs: Vec<u32> = (0..2).map(|_| registration.begin().cseq).collect();
        assert_eq!(cseqs, [4, 5]);
    }

    #[test]
    fn a_registrar_that_wants_longer_bindings_gets_them_at_once_but_not_without_end() {
        let mut registration = fresh(1);
        step(&mut registration, Answer::TooBrief(3600));
        assert_eq!(registration.due(), Some(Millis(0)));
        assert_eq!(registration.begin().seconds, 3600);
        registration.end(Answer::TooBrief(3600), Some(flow()), 0, Millis(0));
        assert_eq!(registration.due(), Some(Millis(5000)), "it asks for what it was given");
        assert!(!registration.standing(Millis(0)).unwrap().0);
    }

    #[test]
    fn pauses_grow_to_five_minutes_and_a_success_ends_them() {
        let mut registration = fresh(1);
        let refused = || Answer::Refused("403 Forbidden".into(), None);
        let times: Vec<u64> = (0..9).map(|_| step(&mut registration, refused()).0).collect();
        assert_eq!(times, [0, 5, 15, 35, 75, 155, 315, 615, 915]);
        assert_eq!(registration.standing(Millis(0)), Some((false, "403 Forbidden")));
        step(&mut registration, Answer::Granted(300));
        let (granted, _) = step(&mut registration, refused());
        assert_eq!(registration.due().unwrap().0 / 1000, granted + 5);
    }

    #[test]
    fn a_registrar_may_say_when_to_come_again() {
        let mut registration = fresh(1);
        step(&mut registration, Answer::NotHere("503".into(), Some(60)));
        assert_eq!(registration.due(), Some(Millis(60_000)));
        step(&mut registration, Answer::NotHere("503".into(), Some(1_000_000)));
        assert_eq!(registration.due(), Some(Millis(360_000)), "but not for ever");
    }

    #[test]
    fn the_next_host_is_asked_at_once_and_all_of_them_again_after_a_pause() {
        let mut registration = fresh(2);
        assert_eq!(step(&mut registration, not_here()), (0, 0));
        assert_eq!(step(&mut registration, not_here()), (0, 1));
        assert_eq!(step(&mut registration, not_here()), (5, 0));
        assert_eq!(step(&mut registration, Answer::Granted(300)), (5, 1));
        assert_eq!(step(&mut registration, Answer::Granted(300)).1, 1, "it stays where it is held");
    }

    #[test]
    fn a_binding_counts_until_it_ends_although_it_can_not_be_refreshed() {
        let mut registration = fresh(1);
        step(&mut registration, Answer::Granted(300));
        let (now, _) = step(&mut registration, not_here());
        assert_eq!(registration.standing(Millis(now * 1000)), Some((true, "no answer")));
        assert_eq!(registration.ends(), Some(Millis(300_000)));
        assert_eq!(registration.standing(Millis(300_000)), Some((false, "no answer")));
    }

    #[test]
    fn a_lost_connection_is_registered_anew_and_a_strange_one_is_not() {
        let mut registration = fresh(1);
        step(&mut registration, Answer::Granted(300));
        registration.lost(Flow { transport: Transport::Udp, ..flow() }, Millis(7000));
        assert_eq!(registration.due(), Some(Millis(260_000)));
        registration.lost(flow(), Millis(7000));
        assert_eq!(registration.due(), Some(Millis(7000)));
    }

    #[test]
    fn only_a_binding_that_there_may_be_is_taken_back() {
        assert!(fresh(1).withdraw().is_none());
        let mut registration = fresh(1);
        step(&mut registration, Answer::Granted(300));
        assert_eq!(
            registration.withdraw().map(|(to, asking)| (to, asking.seconds, asking.cseq)),
            Some((flow(), 0, 2))
        );
    }
}
