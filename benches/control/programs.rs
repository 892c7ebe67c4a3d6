//! The processes that are measured: an operator and gateways as their containers run them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clients::until;
use crate::process::Process;
use crate::support::net::{free_address, get};

/// How long a process may take to be ready, and to end.
const LIMIT: Duration = Duration::from_secs(60);

/// A process of the program.
pub struct Program {
    process: Process,
    /// Where it answers HTTP.
    pub http: SocketAddr,
}

/// How the program is started.
pub struct Start {
    /// The program.
    pub program: PathBuf,
    /// The way to the API server.
    pub kubeconfig: PathBuf,
    /// Where gateways keep their disk copies.
    pub copies: PathBuf,
}

impl Start {
    /// Starts a role under a name; its log gets that name, too.
    pub fn role(&self, role: &str, name: &str, args: &[String]) -> Program {
        let logs = Path::new(crate::LOGS);
        fs::create_dir_all(logs).unwrap_or_else(|error| panic!("{}: {error}", crate::LOGS));
        let http = free_address();
        let mut all = vec![
            format!("KUBECONFIG={}", self.kubeconfig.display()),
            self.program.display().to_string(),
            role.to_owned(),
            format!("--http={http}"),
        ];
        all.extend_from_slice(args);
        Program { process: Process::start(name, logs, "env", &all, Vec::new()), http }
    }
}

impl Program {
    /// Waits until it says that it is ready.
    pub async fn is_ready(&self, what: &str) {
        let ready = async || get(self.http, "/readyz", "").await.filter(|(status, _)| *status == 200);
        until(LIMIT, &format!("{what} being ready"), ready).await;
    }

    /// Its metrics, as text; `None` while it doesn't answer.
    pub async fn metrics(&self) -> Option<Metrics> {
        get(self.http, "/metrics", "").await.map(|(_, text)| Metrics(text))
    }

    /// Ends it as Kubernetes does.
    pub fn end(mut self) {
        self.process.signal("TERM");
        self.process.end(LIMIT).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Resident memory and its peak, MiB.
    pub fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
            kib.unwrap_or_else(|| {
                panic!("a process to be measured has ended; see its log in {}", crate::LOGS)
            }) / 1024.0
        };
        Memory { now: field("VmRSS:"), peak: field("VmHWM:") }
    }

    /// Processor time that it has used, seconds.
    pub fn processor(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap_or_default();
        // The name, in brackets, may hold anything; utime and stime are fields 14 and 15, in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks =
            |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
        (ticks(11) + ticks(12)) / 100.0
    }
}

/// Memory of a process, MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident now.
    pub now: f64,
    /// The most that was ever resident.
    pub peak: f64,
}

/// Metrics in the text format.
pub struct Metrics(String);

impl Metrics {
    /// The samples of a metric: labels as they stand, and value.
    pub fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            let labels =
                if labels.is_empty() { labels } else { labels.strip_prefix('{')?.strip_suffix('}')? };
            Some((labels, value.parse().ok()?))
        })
    }
}
