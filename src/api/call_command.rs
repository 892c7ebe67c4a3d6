//! `voicedock call`: asks the API to dial a destination once, waits for the outcome and reports it; [`trace_command`] follows a call.
//!
//! A gateway pod's own port serves as well: it has the same paths.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::{Value, json};

use super::trace_command;
use crate::agent::innermost;
use crate::gateway::tls::towards_the_public;
use crate::http::trial;

/// Between two looks at the call.
const PAUSE: Duration = Duration::from_millis(500);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How much of it is read, bytes.
const ANSWER_LIMIT: usize = 1 << 20;

/// What `voicedock call` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    /// Dial a destination once, as a transfer would, hang up when it answers, and report; succeeds if it answers
    ///
    /// Its hours, the trunk that a transfer would take, what that trunk lets out, its limits and its backups all count. Somebody's
    /// phone rings.
    TestDestination {
        /// The name that an assistant lists it by, or that of a number's fallback
        name: String,
        /// The number whose calls are transferred there, such as +31201234567; the first that leads there when left out
        #[arg(long, value_name = "NUMBER")]
        number: Option<String>,
        #[command(flatten)]
        way: Way,
        /// Print the outcome as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a call says on the wire while it happens, without numbers and secrets
    ///
    /// Of each message a line, the ladder of the call; with --full the messages themselves. Of numbers the last two digits are
    /// shown, of names, passwords and keys nothing (docs/tracing.md). It ends with the call, with its time, or with Ctrl-C.
    Trace(trace_command::Args),
}

/// The way to the API.
#[derive(clap::Args, Clone, Debug)]
pub struct Way {
    /// Where the API is
    #[arg(long, value_name = "URL", env = "VOICEDOCK_URL", default_value = "http://localhost:8080")]
    url: String,
    /// A key that may do this, see `voicedock api-key create`: calls:write for a test, traces:write for a trace
    #[arg(long, value_name = "KEY", env = "VOICEDOCK_API_KEY", hide_env_values = true)]
    key: String,
}

/// Why a command was not carried out. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CallCommandError {
    /// The URL or the key.
    #[error("the API can't be asked: {0}; check --url and --key")]
    Unusable(String),
    /// Nobody there.
    #[error("the API at {0} can't be reached: {1}; in a cluster, `kubectl port-forward` its Service")]
    Unreachable(String, String),
    /// It says no.
    #[error("{message} ({status})")]
    Refused {
        /// Status.
        status: u16,
        /// In words.
        message: String,
    },
    /// It says something else.
    #[error("the API's answer can't be read ({0}); check that --url leads to VoiceDock's API")]
    Unreadable(String),
    /// The test was carried out, and this came of it.
    #[error("the destination does not answer")]
    NotAnswered,
}

/// Runs the command.
pub async fn run(args: Args) -> Result<(), CallCommandError> {
    let (name, number, way, json) = match args.command {
        Command::TestDestination { name, number, way, json } => (name, number, way, json),
        Command::Trace(args) => return trace_command::run(args).await,
    };
    let desk = Desk::new(&way)?;
    let begun =
        desk.ask(Method::POST, trial::PATH, Some(json!({ "destination": name, "number": number }))).await?;
    let mut call = Tested::read(begun)?;
    while !matches!(call.status.as_str(), "ended" | "failed") {
        tokio::time::sleep(PAUSE).await;
        call = Tested::read(desk.ask(Method::GET, &format!("/api/v1/calls/{}", call.id), None).await?)?;
    }
    if json {
        println!("{}", call.whole)
    } else {
        println!("{call}")
    }
    if call.answered() { Ok(()) } else { Err(CallCommandError::NotAnswered) }
}

/// The call that a test is, as far as it is reported.
#[derive(Debug, Deserialize)]
struct Tested {
    id: String,
    status: String,
    assistant_phone: String,
    end_reason: Option<String>,
    transfers: Vec<Outcome>,
    #[serde(skip)]
    whole: Value,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    outcome: String,
    tries: Vec<Tried>,
}

#[derive(Debug, Deserialize)]
struct Tried {
    destination: String,
    trunk: Option<String>,
    host: Option<String>,
    outcome: String,
    sip_code: Option<u16>,
    reason: String,
    ring_seconds: u32,
}

impl Tested {
    fn read(call: Value) -> Result<Self, CallCommandError> {
        let tested = Self::deserialize(&call);
        let tested = tested.map_err(|error| CallCommandError::Unreadable(error.to_string()))?;
        Ok(Self { whole: call, ..tested })
    }

    fn answered(&self) -> bool {
        self.transfers.last().is_some_and(|outcome| outcome.outcome == "answered")
    }
}

impl fmt::Display for Tested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {}", self.id, self.assistant_phone)?;
        let tries = self.transfers.iter().flat_map(|outcome| &outcome.tries);
        let mut nothing = true;
        for tried in tries {
            nothing = false;
            write!(f, "\n{}: {}", tried.destination, tried.outcome)?;
            match tried.sip_code {
                // The reason of a refusal begins with its code.
                Some(code) if !tried.reason.starts_with(&code.to_string()) => {
                    write!(f, " ({code}, {})", tried.reason)?;
                }
                _ => write!(f, " ({})", tried.reason)?,
            }
            if let Some(host) = &tried.host {
                write!(f, ", at {host}")?;
            }
            match &tried.trunk {
                Some(trunk) => write!(f, " over trunk {trunk}")?,
                None => write!(f, " without a trunk")?,
            }
            write!(f, ", rang {} s", tried.ring_seconds)?;
        }
        match &self.end_reason {
            Some(reason) if nothing => write!(f, ": nothing was dialled ({reason})"),
            _ => Ok(()),
        }
    }
}

/// Asks the API.
pub(super) struct Desk {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: String,
    authorization: String,
}

impl Desk {
    pub(super) fn new(way: &Way) -> Result<Self, CallCommandError> {
        let tls = towards_the_public().map_err(|error| CallCommandError::Unusable(error.to_string()))?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let url = way.url.trim_end_matches('/').to_owned();
        Ok(Self {
            http: Client::builder(TokioExecutor::new()).build(connector),
            url,
            authorization: format!("Bearer {}", way.key),
        })
    }

    /// The JSON of an answer that is a success; null for one without a body.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, CallCommandError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body.map(|body| body.to_string()).unwrap_or_default()))
            .map_err(|error| CallCommandError::Unusable(error.to_string()))?;
        let unreachable = |why: String| CallCommandError::Unreachable(self.url.clone(), why);
        let answer = async {
            let answer = self.http.request(request).await.map_err(|error| unreachable(innermost(&error)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await;
            let body = body.map_err(|error| unreachable(error.to_string()))?.to_bytes();
            Ok((status, body))
        };
        let answer = tokio::time::timeout(TIMEOUT, answer).await;
        let (status, body) = answer
            .unwrap_or_else(|_| Err(unreachable(format!("no answer within {} s", TIMEOUT.as_secs()))))?;
        if status == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        let body: Value = serde_json::from_slice(&body)
            .map_err(|error| CallCommandError::Unreadable(format!("{status}: {error}")))?;
        if status.is_success() {
            return Ok(body);
        }
        let message = body["message"].as_str().unwrap_or("the API refuses").to_owned();
        Err(CallCommandError::Refused { status: status.as_u16(), message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_that_was_tried_is_reported() {
        let tried = |host: &str, outcome: &str, code: u16, reason: &str| {
            json!({
                "destination": "sales", "trunk": "acme/office", "host": host, "outcome": outcome, "sip_code": code,
                "reason": reason, "ring_seconds": 4,
            })
        };
        let call = json!({
            "id": "call_1", "status": "ended", "assistant_phone": "+31201234567", "end_reason": "tested",
            "transfers": [{ "outcome": "answered", "tries": [
                tried("a.example.com", "unreachable", 503, "503 Service Unavailable"),
                tried("b.example.com", "answered", 200, "answered"),
            ] }],
        });
        let tested = Tested::read(call).unwrap();
        assert!(tested.answered());
        assert_eq!(
            tested.to_string(),
            "call_1 as +31201234567\n\
             sales: unreachable (503 Service Unavailable), at a.example.com over trunk acme/office, rang 4 s\n\
             sales: answered (200, answered), at b.example.com over trunk acme/office, rang 4 s"
        );
    }
}
