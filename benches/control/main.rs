//! `make bench-control`: the figures of the control plane: real processes of `voicedock operator` and `voicedock gateway` on a real
//! API server, beside what the same API server takes for a bare client in the same run.
//!
//! `hack/bench-control.sh` sets up what it needs. [`stage`] has the processes, [`objects`] the configuration, [`bare`] the measure;
//! a file has each part: [`change`], [`bulk`], [`leader`], [`memory`], [`churn`]. [`report`] knows the keys of the file.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a bench that can't go on must fail")]

mod bare;
mod bulk;
mod calls;
mod change;
mod churn;
mod clients;
mod follow;
mod leader;
mod memory;
mod objects;
#[path = "../../tests/cluster_e2e/harness/process.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod process;
mod programs;
mod report;
mod stage;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::bare::Bare;
use crate::clients::{Crowd, within};
use crate::objects::Office;
use crate::programs::Start;
use crate::report::{Figures, say};
use crate::stage::Stage;
use crate::support::api_server::{ApiServer, api_server};

/// Where the processes' logs are.
pub const LOGS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/../bench/logs");
/// The file.
const FIGURES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/../bench/control.json");

/// The longest run; there are shorter limits for each thing that is waited for.
const LONGEST: Duration = Duration::from_secs(3600);

/// Measures the control plane
#[derive(Parser)]
struct Options {
    /// What is measured
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Sizes at which changes and memory are measured, rising [default: 10,1000,10000,100000]
    #[arg(long, value_delimiter = ',', value_name = "N,N…")]
    numbers: Option<Vec<usize>>,
    /// Numbers of the bulk load, at which new leaders and churn are measured as well [default: 10000]
    #[arg(long, value_name = "N")]
    bulk: Option<usize>,
    /// Changes at each size [default: 200]
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Seconds of churn [default: 60]
    #[arg(long, value_name = "SECONDS")]
    churn: Option<u64>,
    /// Secrets that nothing names [default: 1000]
    #[arg(long, value_name = "N")]
    secrets: Option<usize>,
    /// A tenth of everything, for a look
    #[arg(long)]
    quick: bool,
    /// Show when slice and head of a change were seen, which costs the API server two more watches
    #[arg(long)]
    steps: bool,
    /// The program that is measured [default: the one that was built with the bench]
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_voicedock"), hide_default_value = true)]
    program: PathBuf,
    /// Where the gateways keep their disk copies: what they write there, they write through [default: below target/]
    #[arg(long, value_name = "DIRECTORY", default_value = env!("CARGO_TARGET_TMPDIR"), hide_default_value = true)]
    copies: PathBuf,
    /// What cargo gives to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Everything
    All,
    /// One change, beside bare chains
    Change,
    /// Many objects at once, beside bare writes
    Bulk,
    /// A new leader
    Leader,
    /// Memory at rest, and with large Secrets
    Memory,
    /// Changes that never stop, and calls meanwhile
    Churn,
}

/// What a run does.
struct Plan {
    parts: Vec<Part>,
    /// Sizes below that of the bulk load, on a stage of their own: the bulk load begins with an empty one.
    small: Vec<usize>,
    /// The size of the bulk load.
    bulk: usize,
    /// Whether that is a size at which changes and memory are measured.
    at_bulk: bool,
    /// Sizes beyond it.
    large: Vec<usize>,
    samples: usize,
    churn: Duration,
    secrets: usize,
    leaders: usize,
    steps: bool,
    program: PathBuf,
    copies: PathBuf,
}

impl Plan {
    fn new(options: Options) -> Self {
        let share = if options.quick { 10 } else { 1 };
        let bulk = options.bulk.unwrap_or(10_000 / share);
        let default = if options.quick { vec![10, 1_000] } else { vec![10, 1_000, 10_000, 100_000] };
        let sizes = options.numbers.unwrap_or(default);
        let some =
            |wanted: &dyn Fn(usize) -> bool| sizes.iter().copied().filter(|size| wanted(*size)).collect();
        Self {
            parts: options.parts,
            small: some(&|size| size < bulk),
            bulk,
            at_bulk: sizes.contains(&bulk),
            large: some(&|size| size > bulk),
            samples: options.samples.unwrap_or(200 / share.min(4)),
            churn: Duration::from_secs(options.churn.unwrap_or(60 / share as u64)),
            secrets: options.secrets.unwrap_or(1_000 / share),
            leaders: if options.quick { 3 } else { 5 },
            steps: options.steps,
            program: options.program,
            copies: options.copies,
        }
    }

    fn has(&self, part: Part) -> bool {
        self.parts.contains(&part) || self.parts.contains(&Part::All)
    }

    fn has_sizes(&self) -> bool {
        self.has(Part::Change) || self.has(Part::Memory)
    }

    fn has_bulk(&self) -> bool {
        let fixed = [Part::Bulk, Part::Leader, Part::Churn].into_iter().any(|part| self.has(part));
        fixed || (self.has_sizes() && (self.at_bulk || !self.large.is_empty()))
    }
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    if options.parts.is_empty() {
        println!("control: it needs an API server and some minutes: run `make bench-control`");
        return;
    }
    let plan = Plan::new(options);
    say("starting an API server");
    let server = api_server().await;
    let mut run = Run {
        crowd: Crowd::new(&server.kubeconfig).await,
        bare: Bare::set(&server).await,
        server,
        figures: Figures::default(),
        plan,
    };
    within(LONGEST, "the end of the bench", run.everything()).await;
    run.figures.finish(Path::new(FIGURES));
}

/// A run: what all parts use.
struct Run {
    plan: Plan,
    server: ApiServer,
    crowd: Crowd,
    bare: Bare,
    figures: Figures,
}

impl Run {
    async fn everything(&mut self) {
        if self.plan.has_sizes() && !self.plan.small.is_empty() {
            let mut stage = self.stage("small").await;
            for size in self.plan.small.clone() {
                self.grow(&mut stage, size).await;
                self.at_size(&mut stage).await;
            }
            if !self.plan.has_bulk() {
                self.secrets(&stage).await;
            }
            stage.strike().await;
        }
        if self.plan.has_bulk() {
            let mut stage = self.bulk().await;
            if self.plan.at_bulk {
                self.at_size(&mut stage).await;
            }
            if self.plan.has(Part::Leader) {
                say(&format!("{} new leaders, one after another", self.plan.leaders));
                let found = leader::measure(&mut stage, self.plan.leaders).await;
                self.figures.leader(stage.office.numbers, &found);
            }
            if self.plan.has(Part::Churn) {
                say(&format!("{} changes a second for {:?}", churn::RATE, self.plan.churn));
                let found = churn::measure(&mut stage, self.plan.churn).await;
                self.figures.churn(stage.office.numbers, &found);
            }
            if self.plan.has_sizes() {
                for size in self.plan.large.clone() {
                    self.grow(&mut stage, size).await;
                    self.at_size(&mut stage).await;
                }
            }
            self.secrets(&stage).await;
        }
    }

    async fn stage(&self, hint: &str) -> Stage {
        say("starting an operator and three gateways");
        let start = Start {
            program: self.plan.program.clone(),
            kubeconfig: self.server.kubeconfig.clone(),
            copies: self.plan.copies.clone(),
        };
        Stage::set(&self.server, start, hint).await
    }

    async fn grow(&self, stage: &mut Stage, numbers: usize) {
        say(&format!("loading up to {numbers} numbers"));
        stage.grow(&self.crowd, numbers).await;
    }

    async fn bulk(&mut self) -> Stage {
        let numbers = self.plan.bulk;
        if !self.plan.has(Part::Bulk) {
            let mut stage = self.stage("large").await;
            self.grow(&mut stage, numbers).await;
            return stage;
        }
        say(&format!("bulk: bare objects for {numbers} numbers, nothing of ours runs"));
        let bare = self.bare.bulk(&self.crowd, Office { numbers, agent_port: 9 }).await;
        let mut stage = self.stage("large").await;
        say(&format!("bulk: {numbers} numbers and what they name"));
        let found = bulk::measure(&mut stage, &self.crowd, numbers, bare).await;
        self.figures.bulk(&found);
        stage
    }

    /// What is measured at every size.
    async fn at_size(&mut self, stage: &mut Stage) {
        let numbers = stage.office.numbers;
        if self.plan.has(Part::Memory) {
            say(&format!("memory at {numbers} numbers: waiting for rest"));
            self.figures.memory(numbers, memory::measure(stage).await);
        }
        if self.plan.has(Part::Change) {
            stage.is_tidy().await;
            say(&format!("{} changes at {numbers} numbers", self.plan.samples));
            let found = change::measure(stage, &mut self.bare, self.plan.samples, self.plan.steps).await;
            self.figures.changes(numbers, found);
        }
    }

    async fn secrets(&mut self, stage: &Stage) {
        if self.plan.has(Part::Memory) {
            say(&format!("adding {} Secrets that nothing names", self.plan.secrets));
            memory::add_secrets(stage, &self.crowd, self.plan.secrets).await;
            self.figures.secrets(stage.office.numbers, self.plan.secrets, memory::measure(stage).await);
        }
    }
}
