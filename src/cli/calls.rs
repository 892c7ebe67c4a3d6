//! `voicedock calls`: the calls that there are, and with `--follow` every change of one until Ctrl-C.
//!
//! Asked for at each gateway pod, through the API server, with a key of its SipGateway: whoever may read that Secret and forward
//! ports of pods in the gateway's namespace sees calls, callers' numbers included, and nobody else. Nothing is kept. Following
//! looks once a second; a call that came and went in between is told all the same, because pods remember those that are over.
//! Exit code 1 means that some calls are missing, 2 that none could be asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::http::page::LONGEST_ENDED;
use crate::resources::PhoneNumber;
use crate::routing::table::ObjectKey;

use super::ask::{Asked, Question};
use super::call::{Call, HEAD};
use super::cluster::{ClusterError, list};
use super::gateways::{Desk, Gateways, Looked, Pod, gateways, pods};
use super::table::Table;
use super::{Output, UNWELL, WELL, unanswered};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Gateways and their keys are looked up again after so many looks, and whenever something is missing.
const LOOKS: usize = 15;
/// For how many seconds calls may be over that are seen at the first look, and remembered without being told.
const FIRST: usize = 30;
/// Seconds that later looks reach back beyond the last one that was whole; fewer than [`FIRST`].
const OVERLAP: usize = 20;

/// What `voicedock calls` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on with a line for every change, until Ctrl-C; with --output json an object a line
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    question: Question,
}

/// Runs `voicedock calls`.
pub async fn run(args: &Args) -> ExitCode {
    let looker = async {
        let asked = Asked::new(&args.question).await?;
        Looker::new(asked).await
    };
    let mut looker = match looker.await {
        Ok(looker) => looker,
        Err(error) => return unanswered(&error),
    };
    if !args.follow {
        let list = List::of(looker.look(0).await, looker.asked.place());
        list.missing.iter().for_each(|missing| eprintln!("voicedock: {missing}"));
        return match list.code() {
            Err(why) => unanswered(&why),
            Ok(code) => args.question.output.write(&list, code),
        };
    }
    tokio::select! {
        code = follow(&mut looker, args.question.output) => code,
        _ = tokio::signal::ctrl_c() => ExitCode::from(WELL),
    }
}

/// What there is; the names of its fields are part of the interface.
#[derive(Debug, Serialize)]
struct List {
    calls: Vec<Call>,
    /// Why others are missing, as sentences.
    missing: Vec<String>,
    #[serde(skip)]
    asked: usize,
    #[serde(skip)]
    place: String,
}

impl List {
    fn of(Seen { looked, .. }: Seen, place: String) -> Self {
        let Looked { calls, pods, missing } = looked;
        Self { calls, missing, asked: pods.len(), place }
    }

    /// The exit code, or that nothing is known.
    fn code(&self) -> Result<u8, &'static str> {
        match (self.missing.is_empty(), self.asked) {
            (true, _) => Ok(WELL),
            (false, 0) => Err("no gateway pod could be asked for its calls"),
            (false, _) => Ok(UNWELL),
        }
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.calls.is_empty() {
            return writeln!(f, "No calls in {}.", self.place);
        }
        let mut table = Table::new(HEAD);
        self.calls.iter().for_each(|call| table.push(call.row()));
        write!(f, "{table}")
    }
}

/// Looks at the calls again and again.
struct Looker {
    asked: Asked,
    desk: Desk,
    gateways: Gateways,
    looks: usize,
}

/// What one look showed.
struct Seen {
    looked: Looked,
    /// Pods that there are, asked or not.
    pods: BTreeSet<ObjectKey>,
}

impl Looker {
    async fn new(asked: Asked) -> Result<Self, ClusterError> {
        let gateways = found(&asked).await?;
        Ok(Self { desk: Desk::new(&asked), asked, gateways, looks: 0 })
    }

    /// The calls that are not over, or have been for less than so many seconds.
    async fn look(&mut self, ended_within: usize) -> Seen {
        self.looks += 1;
        if self.looks.is_multiple_of(LOOKS) || !self.gateways.missing.is_empty() && self.looks > 1 {
            match found(&self.asked).await {
                Ok(gateways) => self.gateways = gateways,
                Err(error) => self.gateways.missing = vec![format!("New gateways are missing: {error}.")],
            }
        }
        let pods = pods(&self.asked, &mut self.gateways).await;
        let mut looked = self.desk.look(&self.gateways, &pods, ended_within).await;
        looked.missing.splice(0..0, self.gateways.missing.iter().cloned());
        Seen { looked, pods: pods.iter().map(name).collect() }
    }
}

async fn found(asked: &Asked) -> Result<Gateways, ClusterError> {
    let numbers: BTreeMap<ObjectKey, Arc<PhoneNumber>> = match asked.namespace {
        Some(_) => list(&asked.api()).await?,
        None => BTreeMap::new(),
    };
    gateways(asked, numbers.into_values()).await
}

fn name(pod: &Pod) -> ObjectKey {
    ObjectKey::new(&pod.gateway.namespace, &pod.peer.pod)
}

/// Prints changes until nobody reads them.
async fn follow(looker: &mut Looker, output: Output) -> ExitCode {
    let mut known = Known::default();
    let mut table = Table::new(HEAD);
    let mut complaints = Vec::new();
    let (mut ended_within, mut whole) = (FIRST, Instant::now());
    loop {
        let begin = Instant::now();
        let seen = looker.look(ended_within).await;
        let is_first = looker.looks == 1;
        if is_first && !seen.looked.missing.is_empty() && seen.looked.pods.is_empty() {
            seen.looked.missing.iter().for_each(|missing| eprintln!("voicedock: {missing}"));
            return unanswered(&"no gateway pod could be asked for its calls");
        }
        if seen.looked.missing.is_empty() {
            whole = begin;
        }
        if complaints != seen.looked.missing {
            complaints.clone_from(&seen.looked.missing);
            complaints.iter().for_each(|missing| eprintln!("voicedock: {missing}"));
            if complaints.is_empty() {
                eprintln!("voicedock: no calls are missing any more");
            }
        }
        let text = match output {
            Output::Text => {
                known.changes(seen).iter().for_each(|call| table.push(call.row()));
                table.taken()
            }
            Output::Json => known.changes(seen).iter().map(line).collect(),
        };
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::from(WELL),
            Err(error) => return unanswered(&format!("can't write to standard output: {error}")),
        }
        drop(out);
        tokio::time::sleep(PAUSE).await;
        let since = usize::try_from(whole.elapsed().as_secs()).unwrap_or(LONGEST_ENDED);
        ended_within = (since + OVERLAP).min(LONGEST_ENDED);
    }
}

fn line(call: &Call) -> String {
    serde_json::to_string(call).unwrap_or_default() + "\n"
}

/// The calls as they were told last.
#[derive(Default)]
struct Known {
    calls: BTreeMap<String, Call>,
    begun: bool,
}

impl Known {
    /// Takes a look in; returns what is new or different, oldest call first. The first look tells only calls that are not over.
    fn changes(&mut self, Seen { looked, pods }: Seen) -> Vec<Call> {
        let mut changes = Vec::new();
        let mut there = BTreeSet::new();
        for call in looked.calls.into_iter().rev() {
            there.insert(call.id.clone());
            let before = self.calls.insert(call.id.clone(), call.clone());
            let is_told = before.as_ref() == Some(&call) || !self.begun && call.state.is_over();
            if !is_told {
                changes.push(call);
            }
        }
        self.begun = true;
        // A pod that could not be asked may still have its calls; one that answered, or is gone, has them no more.
        let keeps = |call: &Call| {
            let pod = ObjectKey::new(&call.gateway.namespace, &call.pod);
            pods.contains(&pod) && !looked.pods.contains(&pod)
        };
        let gone = self.calls.extract_if(.., |id, call| !there.contains(id) && !keeps(call));
        changes.extend(gone.map(|(_, call)| call).filter(|call| !call.state.is_over()).map(Call::lost));
        changes
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::call::State;

    fn call(serial: u32, status: &str) -> Call {
        let said = json!({
            "id": format!("call_{serial}"), "caller_phone": null, "assistant_phone": "+31201234567", "status": status,
            "end_reason": null, "started_at": "2026-02-02T02:40:00.000Z", "agent_id": null,
        });
        Call::read(said, &ObjectKey::new("vd", "default"), "gw-1").unwrap()
    }

    /// A look at which the pod answered, or not, or is gone.
    fn seen(calls: Vec<Call>, answered: bool, there: bool) -> Seen {
        let pod = ObjectKey::new("vd", "gw-1");
        let looked = Looked {
            calls,
            pods: if answered { vec![pod.clone()] } else { Vec::new() },
            missing: Vec::new(),
        };
        Seen { looked, pods: there.then_some(pod).into_iter().collect() }
    }

    fn told(changes: &[Call]) -> Vec<(&str, State)> {
        changes.iter().map(|call| (call.id.as_str(), call.state)).collect()
    }

    #[test]
    fn each_change_is_told_once() {
        let mut known = Known::default();
        let first = known.changes(seen(vec![call(2, "connecting"), call(1, "ended")], true, true));
        assert_eq!(told(&first), [("call_2", State::Connecting)], "not what was over before");
        let look = || seen(vec![call(3, "failed"), call(2, "in-progress"), call(1, "ended")], true, true);
        let next = known.changes(look());
        let expected = [("call_2", State::WithAssistant), ("call_3", State::Failed)];
        assert_eq!(told(&next), expected, "what came and went in between too");
        assert_eq!(known.changes(look()), []);
    }

    #[test]
    fn a_call_is_lost_with_its_pod_and_not_because_the_pod_can_not_be_asked() {
        let mut known = Known::default();
        known.changes(seen(vec![call(1, "in-progress")], true, true));
        assert_eq!(known.changes(seen(Vec::new(), false, true)), []);
        assert_eq!(told(&known.changes(seen(Vec::new(), false, false))), [("call_1", State::Lost)]);
        known.changes(seen(vec![call(2, "in-progress"), call(3, "ended")], true, true));
        let next = known.changes(seen(Vec::new(), true, true));
        assert_eq!(told(&next), [("call_2", State::Lost)], "one that is over is just forgotten");
    }
}
