//! Logs: text for people, JSON for collectors, on standard error; what is shown is chosen with `RUST_LOG`.
//!
//! A thread of its own writes them: whoever reads them may be slow or stop, and no call waits for that. Lines that find its
//! queue full are dropped and counted.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// What is shown when `RUST_LOG` says nothing: ours in full, of the libraries only what asks for attention.
const DEFAULT_FILTER: &str = "warn,voicedock=info";

/// Lines that may wait to be written: some seconds of a busy gateway, some MiB.
const WAITING_LINES: usize = 16_384;

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines that were dropped because whoever reads the logs doesn't keep up.
pub fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

/// Logs are written for as long as it is there; when it goes, what waits is written first, for a second at most.
#[must_use]
#[derive(Debug)]
pub struct Logs(#[expect(dead_code, reason = "kept to be dropped")] WorkerGuard);

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct LogArgs {
    /// How logs are written; RUST_LOG says which
    #[arg(long, env = "VOICEDOCK_LOG", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log: LogFormat,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line an event
    Text,
    /// One JSON object an event
    Json,
}

/// Why logs can't be written.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` can't be read.
    #[error("RUST_LOG can't be read: {0}; write for example RUST_LOG=voicedock=debug")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// It was called twice.
    #[error("logs are being written already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts writing logs; once a process.
pub fn init(args: LogArgs) -> Result<Logs, TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt;
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.trim().is_empty() => EnvFilter::try_new(filter)?,
        _ => EnvFilter::new(DEFAULT_FILTER),
    };
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_LINES)
        .lossy(true)
        .finish(std::io::stderr());
    let _ = DROPPED.set(writer.error_counter());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let colours = std::io::stderr().is_terminal();
    match args.log {
        LogFormat::Text => builder.with_target(false).with_ansi(colours).finish().try_init()?,
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    Ok(Logs(guard))
}
