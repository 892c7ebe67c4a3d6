//! What is measured, part by part.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;
use std::{process, thread};

use crate::load::{Load, Role};
use crate::report::{Figures, say};
use crate::stage::{Stage, Subject};
use crate::usage::Turn;
use crate::{control, rate, single};

/// The rate at which processor time is measured, calls a second, and for how long.
const MODERATE: (u32, u32) = (500, 8);
/// Calls a second that are refused, and for how long.
const REFUSED: (u32, u32) = (1_000, 5);
/// Calls at once that a gateway lets in when it isn't to refuse any.
const PLENTY: usize = 100_000;
/// Calls that are held.
const HELD: [u32; 2] = [1_000, 10_000];
/// The rate at which they come, calls a second; and that of the long run.
const BRISK: u32 = 1_000;
/// Seconds of the long run.
const LONG: u32 = 100;
/// After this, nothing is left of a call that is over: transactions are kept for 32 s (RFC 3261, 64 × T1).
const SETTLED: Duration = Duration::from_secs(35);
/// How long a gateway has to give memory back.
const RESTED: Duration = Duration::from_secs(60);
/// How long set-up times are taken.
const SETUP: u32 = 8;
/// At which rate, if the highest one wasn't measured.
const USUAL: u32 = 5_000;
/// Calls that are transferred by control requests, and how many requests.
const CONTROL: (u32, usize) = (20, 500);

/// A run.
pub struct Run {
    /// What part of the held calls and of the long run there is: 1, or 10 for a tenth.
    pub share: u32,
    /// The program.
    pub program: PathBuf,
    /// Where files go.
    pub directory: PathBuf,
    /// What was found.
    pub figures: Figures,
}

impl Run {
    /// SIPp to SIPp.
    pub fn sipp(&mut self) {
        self.highest(Subject::Nothing, "sipp");
    }

    /// Kamailio.
    pub fn kamailio(&mut self) {
        self.highest(Subject::Kamailio, "kamailio");
        self.processor(Subject::Kamailio, "kamailio");
    }

    /// Plain calls through a gateway.
    pub fn plain(&mut self) {
        self.highest(Subject::Plain, "plain");
        self.processor(Subject::Plain, "plain");
    }

    /// Calls that are transferred.
    pub fn transfer(&mut self) {
        self.highest(Subject::Transfer, "transfer");
        self.processor(Subject::Transfer, "transfer");
    }

    /// From a control request to the INVITE.
    pub fn control(&mut self) {
        let human = UdpSocket::bind("127.0.0.1:0").expect("this machine's address can be bound");
        let address = human.local_addr().expect("the socket is bound");
        let stage = Stage::with_human(Subject::Plain, &self.program, &self.directory, PLENTY, address);
        let (calls, requests) = CONTROL;
        let load = Load { role: Role::Caller, rate: 100, calls, hold: Duration::from_secs(600) };
        let _callers = load.start(&stage.directory, stage.entrance);
        let mut client = stage.gateway().client().expect("the gateway listens");
        let ids = control::calls(&mut client, calls as usize);
        say(&format!("{requests} control requests"));
        let found = control::measure(&mut client, &human, &ids, requests);
        self.figures.note(format!(
            "control request → INVITE: p50 {:.3} ms, {requests} requests, one at a time",
            found.p50()
        ));
        self.figures.set("transfer", "control_to_invite_p99_ms", found.p99());
    }

    /// Calls that are refused for overload.
    pub fn refused(&mut self) {
        // The calls of the warm-up are never more than these at once.
        let held = 50;
        let stage = Stage::set(Subject::Plain, &self.program, &self.directory, held as usize);
        let load = Load { role: Role::Caller, rate: 100, calls: held, hold: Duration::from_secs(600) };
        let callers = load.start(&stage.directory, stage.entrance);
        callers.all_held();
        let (rate, seconds) = REFUSED;
        let load = Load { role: Role::RefusedCaller, ..Load::plain(rate, seconds) };
        say(&format!("{} calls that are refused, {rate}/s", load.calls));
        self.cost(&stage, load, "refused");
    }

    /// Memory of held calls.
    pub fn held(&mut self) {
        let stage = self.stage(Subject::Plain);
        let rate = self.brisk();
        let mut callers = Vec::new();
        let mut found = Vec::new();
        let mut before = 0;
        let rest = stage.resident();
        for calls in HELD.map(|calls| calls / self.share) {
            say(&format!("holding {calls} calls"));
            let load =
                Load { role: Role::Caller, rate, calls: calls - before, hold: Duration::from_secs(1_000) };
            let placed = load.start(&stage.directory, stage.entrance);
            placed.all_held();
            let fresh = stage.resident();
            thread::sleep(SETTLED);
            placed.all_held();
            callers.push(placed);
            let now = stage.resident();
            self.figures.note(format!(
                "memory with {calls} held calls: {now:.1} MiB ({fresh:.1} as soon as they are up; {rest:.1} without any)"
            ));
            found.push((calls, now));
            before = calls;
        }
        let [(few, small), (many, large)] = found[..] else { return };
        let bytes = (large - small) * f64::from(1 << 20) / f64::from(many - few);
        self.figures.set("plain", "bytes_per_held_call", bytes);
    }

    /// Memory after many calls.
    pub fn long(&mut self) {
        let stage = self.stage(Subject::Plain);
        thread::sleep(Duration::from_secs(2));
        let before = stage.resident();
        let load = Load::plain(self.brisk(), LONG / self.share);
        say(&format!("{} calls at {}/s, then {RESTED:?} of rest", load.calls, load.rate));
        let outcome = load.run(&stage.directory, stage.entrance);
        let at_once = stage.resident();
        thread::sleep(RESTED);
        let after = stage.resident();
        self.figures.note(format!(
            "long run: {} calls at {:.0}/s, {} failed; memory {before:.1} MiB before, {at_once:.1} at the end (peak {:.1}), \
             {after:.1} after {RESTED:?}",
            outcome.calls, outcome.rate, outcome.failed, stage.peak()
        ));
        self.figures.set("plain", "rss_before_mib", before);
        self.figures.set("plain", "rss_after_mib", after);
    }

    /// Added set-up time, at half the highest rate, of calls that a prompt agent of their own answers. What is measured has a
    /// processor when it wants one, and the SIPps that make the load have what is left: else it is the turns of SIPps that are
    /// measured, which hold a processor for milliseconds. Kamailio's at half of its own, under the same conditions, for a look.
    pub fn setup(&mut self) {
        let half = |run: &Self, name| Some(run.figures.get(name, "max_rate")? as u32 / 2);
        let rate = half(self, "plain").unwrap_or(USUAL);
        if let Some(rate) = half(self, "kamailio") {
            self.time_setup(Subject::Kamailio, rate);
        }
        let [alone, gateway] =
            [Subject::Nothing, Subject::Plain].map(|subject| self.time_setup(subject, rate));
        self.figures.set("plain", "setup_p50_ms", gateway[0] - alone[0]);
        self.figures.set("plain", "setup_p99_ms", gateway[1] - alone[1]);
    }

    /// Median and 99th percentile of the set-up time beside calls at this rate, ms.
    fn time_setup(&mut self, subject: Subject, rate: u32) -> [f64; 2] {
        let stage = self.stage(subject);
        let callers = stage.load(rate, SETUP + 2).start(&stage.directory, stage.entrance);
        let timed = || stage.subject().into_iter().chain([process::id()]);
        Turn::First.give_to(timed());
        thread::sleep(Duration::from_secs(1));
        let found = single::measure(stage.timed_entrance, Duration::from_secs(SETUP.into()));
        Turn::Usual.give_to(timed());
        let (p50, p99, lost) = (found.setup.p50(), found.setup.p99(), found.lost);
        let outcome = callers.end();
        self.figures.note(format!(
            "set-up at {rate}/s, {subject:?}: p50 {p50:.3} ms, p99 {p99:.3} ms, {} calls timed, {lost} without an answer; \
             {} of {} others failed",
            found.setup.len(), outcome.failed, outcome.calls
        ));
        [p50, p99]
    }

    fn stage(&self, subject: Subject) -> Stage {
        Stage::set(subject, &self.program, &self.directory, PLENTY)
    }

    fn highest(&mut self, subject: Subject, name: &'static str) {
        if let Some(found) = rate::highest(subject, || self.stage(subject)) {
            self.figures.set(name, "max_rate", found.into());
        } else {
            self.figures.note(format!("{name}: no rate was clean"));
        }
    }

    /// Processor time of a call at a moderate rate.
    fn processor(&mut self, subject: Subject, name: &'static str) {
        let stage = self.stage(subject);
        let (rate, seconds) = MODERATE;
        self.cost(&stage, stage.load(rate, seconds), name);
    }

    fn cost(&mut self, stage: &Stage, load: Load, name: &'static str) {
        let before = stage.processor();
        let outcome = load.run(&stage.directory, stage.entrance);
        let used = stage.processor() - before;
        let (calls, failed) = (outcome.calls, outcome.failed);
        let figure = used * 1e6 / f64::from(calls);
        say(&format!("{name}: {used:.2} s for {calls} calls at {}/s, {failed} of which failed", load.rate));
        if outcome.is_clean(&load) {
            self.figures.set(name, "cpu_us", figure);
        } else {
            self.figures.note(format!(
                "{name}: {failed} of {calls} calls at {}/s failed: their cost says nothing",
                load.rate
            ));
        }
    }

    /// The rate of the long run: as asked for, or what this machine can do.
    fn brisk(&mut self) -> u32 {
        match self.figures.get("plain", "max_rate") {
            Some(highest) if highest * 0.75 < f64::from(BRISK) => {
                let rate = (highest * 0.75) as u32;
                self.figures
                    .note(format!("{BRISK} calls a second are too many for this machine: {rate} instead"));
                rate
            }
            _ => BRISK,
        }
    }
}
