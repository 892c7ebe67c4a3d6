//! What people run beside the cluster: is what I wrote right (`check`), what would happen to a call (`explain`), how is all of it
//! (`status`), and which calls are there (`calls`)?
//!
//! The first two ask the compiler and the look-ups that the operator and the gateways use, so that their answer can't be another
//! one. Nothing here writes to a cluster. Results are for people, or with `--output json` for programs; the exit code is 0 when all
//! is well, 1 when something isn't, and 2 when the question could not be answered.

mod ask;
mod call;
pub mod calls;
pub mod check;
mod cluster;
pub mod completion;
pub mod explain;
mod gateways;
mod gather;
pub mod man;
mod manifests;
mod port_forward;
mod schema;
pub mod status;
mod table;
mod yaml;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

/// How a result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// All is well.
const WELL: u8 = 0;
/// Something isn't.
const UNWELL: u8 = 1;
/// The question could not be answered.
const UNANSWERED: u8 = 2;

impl Output {
    /// Writes a result to standard output.
    fn write(self, result: &(impl Serialize + Display), code: u8) -> ExitCode {
        let text = match self {
            Self::Text => result.to_string(),
            Self::Json => serde_json::to_string_pretty(result).unwrap_or_default() + "\n",
        };
        written(text.as_bytes(), code)
    }
}

/// Writes to standard output. Whoever reads it, such as `head`, may have seen enough.
fn written(text: &[u8], code: u8) -> ExitCode {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            unanswered(&format!("can't write to standard output: {error}"))
        }
        _ => ExitCode::from(code),
    }
}

/// Says why a question could not be answered.
fn unanswered(error: &dyn Display) -> ExitCode {
    eprintln!("voicedock: {error}");
    ExitCode::from(UNANSWERED)
}
