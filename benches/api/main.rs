//! `make bench-api`: how fast the product's API is: reads of the `api` role, commands at a pod that hasn't the call, and the way from a
//! model's tool call to the INVITE to the human.
//!
//! Real processes of `voicedock api`, `operator` and `gateway` on a real API server, and in the bench's own process the double of
//! OpenAI's Realtime API, a caller and a human. [`reads`] and [`commands`] are what is measured; [`report`] knows the keys of the file
//! and the goals.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a bench that can't go on must fail")]

#[path = "../calls/client.rs"]
mod client;
mod commands;
#[path = "../../tests/cluster_e2e/harness/process.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod process;
mod programs;
mod reads;
#[path = "../../tests/support/realtime.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod realtime;
#[path = "../calls/report.rs"]
#[allow(dead_code, reason = "shared with the bench of calls")]
mod report;
mod scene;
#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "../../tests/cluster_e2e/harness/wait.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod wait;

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use tokio::runtime::Runtime;

use crate::report::{Figures, Goal, Row, row};
use crate::support::api_server::api_server;

/// Where the processes' logs and the gateways' state are.
const DIRECTORY: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/../bench/api");
/// The file.
const FIGURES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/../bench/api.json");

/// The table.
const ROWS: [Row; 5] = [
    row("reads", "max_rate", "reads/s on one core", Some(Goal::AtLeast(reads::WANTED))),
    row("reads", "p99_ms", "ms at 500/s", Some(Goal::AtMost(20.0))),
    row("tool", "call_to_invite_p99_ms", "ms", Some(Goal::AtMost(5.0))),
    row("control", "other_pod_p99_ms", "ms", Some(Goal::AtMost(10.0))),
    row("control", "api_p99_ms", "ms", Some(Goal::AtMost(10.0))),
];

/// Measures the API
#[derive(Parser)]
struct Options {
    /// What is measured
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// A tenth of everything, for a look
    #[arg(long)]
    quick: bool,
    /// The program that is measured [default: the one that was built with the bench]
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_voicedock"), hide_default_value = true)]
    program: PathBuf,
    /// What cargo gives to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Everything
    All,
    /// Reads of assistants, numbers and trunks
    Reads,
    /// From a tool call to the INVITE, and control requests at another pod and at the API
    Commands,
}

fn main() {
    let options = Options::parse();
    if options.parts.is_empty() {
        println!("api: it needs a Kubernetes API server and two quiet minutes: run `make bench-api`");
        return;
    }
    let _ = std::fs::remove_dir_all(DIRECTORY);
    std::fs::create_dir_all(DIRECTORY).unwrap_or_else(|error| panic!("{DIRECTORY}: {error}"));
    let directory = Path::new(DIRECTORY).canonicalize().expect("the directory has just been made");
    let has = |part| options.parts.contains(&Part::All) || options.parts.contains(&part);
    let share = if options.quick { 10 } else { 1 };
    let runtime = Runtime::new().expect("there is a runtime");
    let server = runtime.block_on(api_server());
    let start =
        programs::Start { program: options.program, kubeconfig: server.kubeconfig.clone(), directory };
    let mut figures = Figures::default();
    if has(Part::Commands) {
        commands::measure(&runtime, &server, &start, share, &mut figures);
    }
    if has(Part::Reads) {
        reads::measure(&runtime, &server, &start, share, &mut figures);
    }
    figures.finish(Path::new(FIGURES));
}
