//! `make bench-calls`: what a call costs and how many there can be, through one gateway process, beside Kamailio and beside SIPp
//! alone, in one run on one machine.
//!
//! Everything is on loopback and shares the machine's processors, the SIPps included: the figures are good for ratios within a
//! run. [`stage`] has what stands between the SIPps, [`load`] places calls, [`single`] times calls one by one, [`rate`] looks for
//! the highest rate; [`parts`] is what is measured. [`report`] knows the keys of the file and the goals.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a bench that can't go on must fail")]

mod client;
mod control;
#[path = "../../tests/support/disk_copy.rs"]
mod disk_copy;
mod gateway;
#[path = "../../tests/cluster_e2e/harness/kamailio.rs"]
mod kamailio;
mod load;
mod parts;
#[path = "../../tests/cluster_e2e/harness/process.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod process;
mod rate;
#[allow(dead_code, reason = "shared with the bench of the API")]
mod report;
mod single;
mod stage;
#[path = "../../tests/support/net.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod support;
mod usage;
#[path = "../../tests/cluster_e2e/harness/wait.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod wait;

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};

use crate::report::{Figures, Goal, Row, row};

/// Where the processes' logs and the gateways' state are.
const DIRECTORY: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/../bench/calls");
/// The file.
const FIGURES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/../bench/calls.json");

/// The table.
const ROWS: [Row; 14] = [
    row("sipp", "max_rate", "calls/s", None),
    row("kamailio", "max_rate", "calls/s", None),
    row("kamailio", "cpu_us", "µs/call", None),
    row("plain", "max_rate", "calls/s", Some(Goal::Above(1.5, "kamailio", "max_rate"))),
    row("plain", "cpu_us", "µs/call", Some(Goal::Below(0.7, "kamailio", "cpu_us"))),
    row("plain", "setup_p50_ms", "ms more than SIPp alone", None),
    row("plain", "setup_p99_ms", "ms more than SIPp alone", Some(Goal::AtMost(2.0))),
    row("plain", "bytes_per_held_call", "bytes", Some(Goal::AtMost(8192.0))),
    row("plain", "rss_before_mib", "MiB", None),
    row("plain", "rss_after_mib", "MiB", Some(Goal::Below(1.2, "plain", "rss_before_mib"))),
    row("transfer", "max_rate", "calls/s", None),
    row("transfer", "cpu_us", "µs/call", Some(Goal::Below(1.3, "kamailio", "cpu_us"))),
    row("transfer", "control_to_invite_p99_ms", "ms", Some(Goal::AtMost(1.0))),
    row("refused", "cpu_us", "µs/call", Some(Goal::Below(0.15, "plain", "cpu_us"))),
];

/// Measures calls
#[derive(Parser)]
struct Options {
    /// What is measured
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// A tenth of the held calls and of the long run, for a look
    #[arg(long)]
    quick: bool,
    /// The program that is measured [default: the one that was built with the bench]
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_voicedock"), hide_default_value = true)]
    program: PathBuf,
    /// What cargo gives to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// What measures a part.
type Measure = fn(&mut parts::Run);

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Everything, in the order of this list
    All,
    /// Highest rate of SIPp to SIPp alone
    Sipp,
    /// Highest rate and processor time of Kamailio
    Kamailio,
    /// Highest rate and processor time of plain calls through a gateway
    Plain,
    /// Added set-up time of plain calls at half their highest rate, or at 5000/s if that wasn't measured
    Setup,
    /// Highest rate and processor time of calls that are transferred by REFER
    Transfer,
    /// Time from a control request to the INVITE that it gives rise to
    Control,
    /// Processor time of a call that is refused for overload
    Refused,
    /// Memory with calls that are held
    Held,
    /// Memory after many calls
    Long,
}

fn main() {
    let options = Options::parse();
    if options.parts.is_empty() {
        println!("calls: it needs SIPp, Kamailio and eight quiet minutes: run `make bench-calls`");
        return;
    }
    let _ = std::fs::remove_dir_all(DIRECTORY);
    std::fs::create_dir_all(DIRECTORY).unwrap_or_else(|error| panic!("{DIRECTORY}: {error}"));
    let directory = Path::new(DIRECTORY).canonicalize().expect("the directory has just been made");
    let has = |part| options.parts.contains(&Part::All) || options.parts.contains(&part);
    let mut run = parts::Run {
        share: if options.quick { 10 } else { 1 },
        program: options.program,
        directory,
        figures: Figures::default(),
    };
    let parts: [(Part, Measure); 9] = [
        (Part::Sipp, parts::Run::sipp),
        (Part::Kamailio, parts::Run::kamailio),
        (Part::Plain, parts::Run::plain),
        (Part::Setup, parts::Run::setup),
        (Part::Transfer, parts::Run::transfer),
        (Part::Control, parts::Run::control),
        (Part::Refused, parts::Run::refused),
        (Part::Held, parts::Run::held),
        (Part::Long, parts::Run::long),
    ];
    for (part, measure) in parts {
        if has(part) {
            measure(&mut run);
        }
    }
    run.figures.finish(Path::new(FIGURES));
}
