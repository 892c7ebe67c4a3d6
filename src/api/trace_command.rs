//! `voicedock call trace`: follows what a call says on the wire, and prints it as a ladder.

use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call_command::{CallCommandError, Desk, Way};
use crate::gateway::trace::{MOST_SECONDS, Over, TraceState, Way as Direction};
use crate::http::traces::PATH;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(300);

/// What `voicedock call trace` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// A call that is up, as `voicedock calls` and the logs name it
    #[arg(value_name = "CALL", required_unless_present = "number", conflicts_with = "number")]
    call: Option<String>,
    /// The next call to this number instead, such as +31201234567; also one that is refused
    #[arg(long, value_name = "NUMBER")]
    number: Option<String>,
    /// For how long; the next call is waited for as long as well
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_SECONDS)))]
    seconds: u32,
    /// Print whole messages
    #[arg(long)]
    full: bool,
    /// Print each message as a line of JSON
    #[arg(long, conflicts_with = "full")]
    json: bool,
    #[command(flatten)]
    way: Way,
}

/// What the API says of a trace.
#[derive(Debug, Deserialize)]
struct Shown {
    id: String,
    call: Option<String>,
    state: TraceState,
    over: Option<Over>,
    messages: Vec<Value>,
    more: bool,
    #[serde(default)]
    warnings: Vec<String>,
}

/// A message of it.
#[derive(Debug, Deserialize)]
struct Message {
    number: usize,
    at: String,
    way: Direction,
    leg: String,
    transport: String,
    peer: String,
    text: String,
}

/// Begins a trace and follows it to its end.
pub async fn run(args: Args) -> Result<(), CallCommandError> {
    let desk = Desk::new(&args.way)?;
    let wanted = match (&args.call, &args.number) {
        (Some(call), _) => json!({ "call": call, "seconds": args.seconds }),
        (None, number) => json!({ "number": number, "seconds": args.seconds }),
    };
    let begun: Shown = parsed(desk.ask(Method::POST, PATH, Some(wanted)).await?)?;
    begun.warnings.iter().for_each(|warning| eprintln!("{warning}"));
    if begun.state == TraceState::Waiting {
        eprintln!("waiting for the next call, {} s", args.seconds);
    }
    let path = format!("{PATH}/{}", begun.id);
    tokio::select! {
        followed = follow(&desk, &path, &args) => followed,
        // Nobody looks any more.
        _ = tokio::signal::ctrl_c() => desk.ask(Method::DELETE, &path, None).await.map(|_| ()),
    }
}

async fn follow(desk: &Desk, path: &str, args: &Args) -> Result<(), CallCommandError> {
    let (mut after, mut call) = (0, args.call.clone());
    let mut ladder = Ladder::default();
    loop {
        let shown: Shown = parsed(desk.ask(Method::GET, &format!("{path}?after={after}"), None).await?)?;
        if call.is_none() && shown.call.is_some() {
            call = shown.call;
            eprintln!("{}", call.as_deref().unwrap_or_default());
        }
        for message in shown.messages {
            if args.json {
                println!("{message}");
            }
            let message = parsed::<Message>(message)?;
            after = message.number;
            if !args.json {
                println!("{}", ladder.line(&message));
            }
            if args.full {
                println!("{}", indented(&message.text));
            }
        }
        match shown.state {
            TraceState::Over if !shown.more => {
                eprintln!("{}", why(shown.over, after));
                return Ok(());
            }
            _ if shown.more => {}
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, CallCommandError> {
    serde_json::from_value(value).map_err(|error| CallCommandError::Unreadable(error.to_string()))
}

fn why(over: Option<Over>, messages: usize) -> &'static str {
    match over {
        Some(Over::CallOver) => "the call is over",
        Some(Over::Time) if messages == 0 => {
            "the time is over, and nothing was said; a trace of a quiet call is empty"
        }
        Some(Over::Full) => {
            "the trace has as many messages as it may have; begin another one for what follows"
        }
        Some(Over::Stopped) => "somebody stopped the trace",
        Some(Over::Time) | None => "the time is over; --seconds gives it more",
    }
}

/// A line a message: the peer on the left, the gateway on the right.
#[derive(Default)]
struct Ladder {
    /// Peers are as wide as the widest so far, so that columns stay.
    width: usize,
}

impl Ladder {
    /// `15:20:07.123  caller     192.0.2.1:5060/UDP  ──▶  INVITE sip:+*********67@…  (SDP)`
    fn line(&mut self, message: &Message) -> String {
        let peer = format!("{}/{}", message.peer, message.transport);
        self.width = self.width.max(peer.len());
        let arrow = match message.way {
            Direction::In => "──▶",
            Direction::Out => "◀──",
        };
        let time = message.at.split_once('T').map_or(&*message.at, |(_, time)| time.trim_end_matches('Z'));
        let mut line = format!(
            "{time}  {:<10}  {peer:<width$}  {arrow}  {}",
            message.leg,
            summary(&message.text),
            width = self.width
        );
        if message.text.lines().any(|line| line.starts_with("v=0")) {
            line.push_str("  (SDP)");
        }
        line
    }
}

/// A request's start line without the version, a response's with the method that it answers.
fn summary(text: &str) -> String {
    let start = text.lines().next().unwrap_or_default();
    let Some(status) = start.strip_prefix("SIP/2.0 ") else {
        return start.strip_suffix(" SIP/2.0").unwrap_or(start).to_owned();
    };
    let cseq = text.lines().find_map(|line| line.strip_prefix("CSeq:"));
    let method = cseq.and_then(|cseq| cseq.split_whitespace().nth(1)).unwrap_or("?");
    format!("{status} ({method})")
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(way: Direction, leg: &str, peer: &str, text: &str) -> Message {
        let at = "2026-11-26T15:20:07.123Z".to_owned();
        Message {
            number: 1,
            at,
            way,
            leg: leg.to_owned(),
            transport: "UDP".to_owned(),
            peer: peer.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn each_message_is_a_rung() {
        let mut ladder = Ladder::default();
        let invite = "INVITE sip:+*********67@h SIP/2.0\nCSeq: 1 INVITE\n\nv=0\n";
        assert_eq!(
            ladder.line(&message(Direction::In, "caller", "192.0.2.1:5060", invite)),
            "15:20:07.123  caller      192.0.2.1:5060/UDP  ──▶  INVITE sip:+*********67@h  (SDP)"
        );
        let busy = "SIP/2.0 486 Busy Here\nCSeq: 1 INVITE\n";
        assert_eq!(
            ladder.line(&message(Direction::Out, "dialled-1", "h:1", busy)),
            "15:20:07.123  dialled-1   h:1/UDP             ◀──  486 Busy Here (INVITE)"
        );
    }
}
