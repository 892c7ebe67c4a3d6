//! Logs: text for people, JSON for collectors, on standard error; what is shown is chosen with `RUST_LOG`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What is shown when `RUST_LOG` says nothing: ours in full, of the libraries only what asks for attention.
const DEFAULT_FILTER: &str = "warn,voicedock=info";

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
pub fn init(args: LogArgs) -> Result<(), TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt;
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.trim().is_empty() => EnvFilter::try_new(filter)?,
        _ => EnvFilter::new(DEFAULT_FILTER),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let colours = std::io::stderr().is_terminal();
    match args.log {
        LogFormat::Text => builder.with_target(false).with_ansi(colours).finish().try_init()?,
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}
