//! Simulated parties for the demo and for tests: a caller, an assistant's agent and humans, with real SIP over the network.
//!
//! ```text
//! rules (what a party does)   ┐
//! sdp (whom one would hear)   ├─▶ party (agent, human: called) ─┐
//! report (lines for people)   ┘   caller (calls)                ├─▶ phone (sockets, timers, one endpoint)
//! challenge (digest of a PBX) ──────────────────────────────────┘
//! realtime (a double of OpenAI's Realtime API, on the same phone)
//! ```
//!
//! They know the gateway's wire format and nothing else of it: no shared state, no shortcut. Audio isn't sent; a session's
//! name says who would be heard.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};

pub mod caller;
mod challenge;
pub mod party;
pub mod phone;
pub mod realtime;
pub mod report;
pub mod rules;
pub mod sdp;
mod streams;
pub mod timeline;

/// Simulated parties for the demo and tests, with real SIP over the network
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    party: Party,
}

#[derive(Subcommand)]
enum Party {
    /// Answer calls as an assistant's agent would, and ask for transfers with REFER
    Agent(party::Args),
    /// Be a PBX with people: answer, be busy, let it ring, by the number that is dialled
    Human(party::Args),
    /// Call a number and tell what the caller experiences
    Caller(caller::Args),
    /// Be OpenAI's Realtime API over SIP: take calls, be accepted, talk by a script
    Realtime(Box<realtime::Args>),
    /// Read the JSON lines of several parties on standard input and print them as one timeline
    Timeline(timeline::Args),
}

/// Why a simulated party can't do its part.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The socket.
    #[error("can't listen at {0}: {1}; is the port in use? --listen names another one")]
    Listen(SocketAddr, #[source] io::Error),
    /// Reading from the socket.
    #[error("can't receive: {0}")]
    Receive(#[source] io::Error),
    /// The address for Contact and Via.
    #[error("can't find this machine's own address: {0}; name it with --advertise")]
    OwnAddress(#[source] io::Error),
    /// The name of the gateway.
    #[error("can't find the address of {name}: {source}; write --gateway HOST:PORT")]
    Resolve {
        /// As given.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The name of the gateway has no address.
    #[error("{0} has no address; write --gateway HOST:PORT")]
    NoAddress(String),
    /// Signals.
    #[error("can't wait for signals: {0}")]
    Signals(#[source] io::Error),
    /// Standard input of the timeline.
    #[error("can't read standard input: {0}")]
    Input(#[source] io::Error),
    /// A file that was named.
    #[error("can't read {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate or authorities: which, and why.
    #[error("{0} can't be used: {1}; it must be PEM")]
    Certificate(&'static str, String),
    /// The script of the double.
    #[error(transparent)]
    Script(#[from] realtime::ScriptError),
    /// What was expected did not happen.
    #[error("{0}")]
    NotAsExpected(String),
}

/// Plays the part until it is over or the process is told to stop.
pub async fn run(args: Args) -> Result<(), SimulateError> {
    match args.party {
        Party::Agent(args) => party::run(party::Role::Agent, args).await,
        Party::Human(args) => party::run(party::Role::Human, args).await,
        Party::Caller(args) => caller::run(args).await,
        Party::Realtime(args) => realtime::run(*args).await,
        Party::Timeline(args) => timeline::run(&args).await,
    }
}

/// Resolves when the process is told to stop (SIGINT, SIGTERM).
async fn told_to_stop() -> Result<(), SimulateError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SimulateError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(SimulateError::Signals)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// What a Reason header says to people (RFC 3326): its text, else all of it.
fn in_words(reason: &str) -> &str {
    let text = reason.split_once("text=\"").and_then(|(_, rest)| rest.split_once('"'));
    text.map_or(reason, |(text, _)| text)
}

#[cfg(test)]
mod tests;
