//! SIPp: parties that take calls, and callers that place many.

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::gateway::{DESTINATION, NUMBER};
use crate::process::Process;
use crate::support::free_address;
use crate::wait::{SOON, until, until_true};

/// How long calls may take once all are placed, beside the time that they are held for: more than any single repetition.
const PATIENCE: Duration = Duration::from_secs(4);

/// What a SIPp does.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Takes calls.
    Agent,
    /// Takes calls and has each transferred.
    TransferringAgent,
    /// Takes transferred calls.
    Human,
    /// Places calls.
    Caller,
    /// Places calls that are transferred.
    TransferredCaller,
    /// Places calls that are to be refused.
    RefusedCaller,
}

impl Role {
    fn scenario(self) -> PathBuf {
        let path = match self {
            Self::Agent => "benches/calls/sipp/agent.xml",
            Self::Caller => "benches/calls/sipp/caller.xml",
            Self::RefusedCaller => "benches/calls/sipp/refused-caller.xml",
            Self::TransferringAgent => "tests/cluster_e2e/sipp/transferring-agent.xml",
            Self::TransferredCaller => "tests/cluster_e2e/sipp/transferred-caller.xml",
            Self::Human => "tests/cluster_e2e/sipp/willing-human.xml",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    }
}

/// Starts a SIPp on `own`; returns when it can take messages.
pub fn party(directory: &Path, role: Role, own: SocketAddr, args: &[String]) -> Process {
    let mut all = vec![
        "-sf".to_owned(),
        role.scenario().display().to_string(),
        "-i".to_owned(),
        own.ip().to_string(),
        "-p".to_owned(),
        own.port().to_string(),
        "-s".to_owned(),
        NUMBER.to_owned(),
        "-nostdin".to_owned(),
        // Not 10 ms: calls come one by one, not in bursts of many.
        "-timer_resol".to_owned(),
        "1".to_owned(),
        "-buff_size".to_owned(),
        (4 << 20).to_string(),
        // It goes on with a call that gets a message while it is about to answer another one.
        "-default_behaviors".to_owned(),
        "all,-abortunexp".to_owned(),
    ];
    let target = format!("sip:{}@gateway.invalid", DESTINATION.0);
    let keys = [("called", NUMBER), ("caller", "+31687654321"), ("media", "9"), ("target", target.as_str())];
    for (key, value) in keys {
        all.extend(["-key".to_owned(), key.to_owned(), value.to_owned()]);
    }
    all.extend_from_slice(args);
    let mut process =
        Process::start(&format!("{role:?}-{}", own.port()), directory, "sipp", &all, Vec::new());
    until_true(&format!("{role:?} listens"), SOON, || {
        process.status().is_some() || UdpSocket::bind(own).is_err()
    });
    process
}

/// Calls that are to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Who places them.
    pub role: Role,
    /// Calls a second.
    pub rate: u32,
    /// Calls in all.
    pub calls: u32,
    /// How long each is held once it is answered, or transferred.
    pub hold: Duration,
}

/// What became of them.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Calls that were to be placed.
    pub calls: u32,
    /// Calls that didn't go as they should, those included that weren't placed or never ended.
    pub failed: u32,
    /// Calls a second that were placed; 0 if some didn't end in time.
    pub rate: f64,
}

impl Outcome {
    /// Whether fewer than one in a thousand calls failed, at the rate that was asked for.
    pub fn is_clean(&self, load: &Load) -> bool {
        self.failed * 1000 < self.calls && self.rate >= f64::from(load.rate) * 0.95
    }
}

/// Callers that are placing calls.
pub struct Callers {
    load: Load,
    statistics: PathBuf,
    started: Instant,
    process: Process,
}

impl Load {
    /// Plain calls for some seconds, each ended once it is answered.
    pub fn plain(rate: u32, seconds: u32) -> Self {
        Self { role: Role::Caller, rate, calls: rate * seconds, hold: Duration::ZERO }
    }

    /// Starts to place them.
    pub fn start(self, directory: &Path, to: SocketAddr) -> Callers {
        let own = free_address();
        let statistics = directory.join(format!("callers-{}.csv", own.port()));
        let args = [
            "-r".to_owned(),
            self.rate.to_string(),
            "-m".to_owned(),
            self.calls.to_string(),
            // However many are open: new ones don't wait for old ones.
            "-l".to_owned(),
            self.calls.to_string(),
            "-d".to_owned(),
            self.hold.as_millis().to_string(),
            "-trace_stat".to_owned(),
            "-fd".to_owned(),
            "100ms".to_owned(),
            "-stf".to_owned(),
            statistics.display().to_string(),
            to.to_string(),
        ];
        let process = party(directory, self.role, own, &args);
        Callers { load: self, statistics, started: Instant::now(), process }
    }

    /// Places them and waits for their end.
    pub fn run(self, directory: &Path, to: SocketAddr) -> Outcome {
        self.start(directory, to).end()
    }
}

impl Callers {
    /// Waits until all calls are placed, and none is over or failed.
    pub fn all_held(&self) {
        let limit = SOON + Duration::from_secs((self.load.calls / self.load.rate).into());
        until("all calls are placed and held", limit, || {
            let now = Statistics::read(&self.statistics);
            if now.of("FailedCall(C)") > 0 {
                panic!(
                    "{} of the calls to be held failed; see the logs in {}",
                    now.of("FailedCall(C)"),
                    crate::DIRECTORY
                );
            }
            if now.of("CurrentCall") == self.load.calls {
                Ok(())
            } else {
                Err(format!("{}", now.of("CurrentCall")))
            }
        });
    }

    /// Waits for the end of all calls; those that take too long have failed.
    pub fn end(mut self) -> Outcome {
        let Load { rate, calls, hold, .. } = self.load;
        let span = Duration::from_secs_f64(f64::from(calls) / f64::from(rate));
        let limit = (span.mul_f64(1.1) + hold + PATIENCE).saturating_sub(self.started.elapsed());
        let ended = self.process.end(limit).is_ok();
        let statistics = Statistics::read(&self.statistics);
        let failed = calls.saturating_sub(statistics.of("SuccessfulCall(C)"));
        let placing = Statistics::all(&self.statistics).find(|now| now.of("OutgoingCall(C)") == calls);
        let took = placing.filter(|_| ended).map(|now| now.age().max(span.as_secs_f64()));
        Outcome { calls, failed, rate: took.map_or(0.0, |took| f64::from(calls) / took) }
    }
}

/// A line of what SIPp writes down ten times a second.
struct Statistics(HashMap<String, String>);

impl Statistics {
    /// All lines.
    fn all(path: &Path) -> impl Iterator<Item = Self> {
        let text = fs::read_to_string(path).unwrap_or_default();
        // The last line may be half written.
        let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let fields = |line: &str| line.split(';').map(str::to_owned).collect::<Vec<String>>();
        let head = lines.next().map(fields).unwrap_or_default();
        let lines: Vec<Vec<String>> = lines.map(fields).collect();
        lines.into_iter().map(move |line| Self(head.iter().cloned().zip(line).collect()))
    }

    /// The last line.
    fn read(path: &Path) -> Self {
        Self::all(path).last().unwrap_or_else(|| Self(HashMap::new()))
    }

    fn of(&self, name: &str) -> u32 {
        self.0.get(name).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    /// Seconds since SIPp began.
    fn age(&self) -> f64 {
        // `date time seconds`, separated by tabs.
        let seconds = |name: &str| self.0.get(name)?.rsplit('\t').next()?.parse::<f64>().ok();
        seconds("CurrentTime").zip(seconds("StartTime")).map_or(0.0, |(now, start): (f64, f64)| now - start)
    }
}
