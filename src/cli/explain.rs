//! `voicedock explain`: what would happen to a call to this number, and to a transfer of it, and which rule says so?
//!
//! From manifests (`--file`) or from the cluster of the current kubeconfig. The compiler makes the tables and the look-ups of a
//! gateway answer; only what trunks carry at the moment is not known here: limits of calls are said, not applied.
//! Exit code 1 means that nobody would answer, or that the transfer would be refused.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::resources::conditions::ConditionStatus;
use crate::routing::compile::{Compiled, Effective, Finding, Kind, ObjectRef, Objects, compile};
use crate::routing::decide::{
    AnswerRefusal, Authority, CallFacts, Index, Limit, Lines, Now, Plan, TransferRoute, TrunkRule, Wanted,
};
use crate::routing::table::{AgentEntry, CallerIdEntry, E164, Limits, ObjectKey, Table, TrunkEntry};

use super::ask::Cluster;
use super::gather::{Surroundings, gather};
use super::manifests::read;
use super::schema::Schemas;
use super::{Output, UNWELL, WELL, cluster, unanswered};

/// What `voicedock explain` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The number that is called, in E.164
    number: E164,
    /// A transfer: the name of a destination, a number or a SIP URI
    #[arg(long, value_name = "DESTINATION")]
    transfer: Option<String>,
    /// The transfer is asked for over the API, which may also name numbers and URIs that no assistant lists
    #[arg(long, requires = "transfer")]
    api: bool,
    /// When, such as 2026-12-25T10:00:00+01:00 [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// The address that the call comes from [default: one that is let in]
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// Manifests instead of the cluster: files, directories, or - for standard input
    #[arg(long = "file", short, value_name = "PATH")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    around: Surroundings,
    #[command(flatten)]
    cluster: Cluster,
    /// How the result is written
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// What would happen; the names of its fields are part of the interface.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    number: E164,
    at: Timestamp,
    /// PhoneNumbers that hold it.
    phone_numbers: Vec<PhoneNumber>,
    /// Whether somebody answers, and the transfer goes out if one was asked for.
    works: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PhoneNumber {
    object: ObjectKey,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<ObjectKey>,
    /// Why it isn't as its spec says, if it isn't.
    problems: Vec<String>,
    /// Absent when the gateway doesn't have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<Call>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    /// Trunks over which it is called.
    trunks: Vec<Way>,
    /// Why a call from the source that was named isn't answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assistant: Option<ObjectKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<Transfer>,
    /// The transfer that was asked about, else one to each destination of the assistant.
    transfers: Vec<Transfer>,
}

/// A trunk that brings calls in.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Way {
    trunk: ObjectKey,
    /// Whom it takes calls from.
    from: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Transfer {
    to: String,
    /// Who comes before but can't be dialled, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passed_over: Vec<String>,
    #[serde(flatten)]
    end: End,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum End {
    Dialled(Box<Dialled>),
    Refused(String),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Dialled {
    destination: String,
    uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trunk: Option<ObjectKey>,
    /// Why that trunk.
    rule: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refer_to: Option<String>,
    caller_id: String,
    ring_timeout_seconds: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<String>,
    /// Who is tried after it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    then: Vec<ObjectKey>,
    finally: &'static str,
}

/// Runs `voicedock explain`.
pub async fn run(args: &Args) -> ExitCode {
    let (objects, found_wrong) = match objects(args).await {
        Ok(found) => found,
        Err(error) => return unanswered(&error),
    };
    if found_wrong > 0 {
        eprintln!("voicedock: the manifests have {found_wrong} errors; see voicedock check");
    }
    let wanted = match args.transfer.as_deref().map(str::parse::<Wanted>).transpose() {
        Ok(wanted) => wanted,
        Err(error) => return unanswered(&error),
    };
    let question = Question { wanted, at: args.at.unwrap_or_else(Timestamp::now), args };
    let explanation = question.answer(&objects, &compile(&objects));
    let code = if explanation.works { WELL } else { UNWELL };
    args.output.write(&explanation, code)
}

/// The objects, and how many errors the manifests have.
async fn objects(args: &Args) -> Result<(Objects, usize), Box<dyn std::error::Error>> {
    if args.files.is_empty() {
        let found =
            args.cluster.client().await.map_err(|error| format!("{error}; or name manifests with --file"));
        return Ok((cluster::objects(found?.0, args.around.default_gateway.clone()).await?, 0));
    }
    let manifests = read(&args.files)?;
    let gathered = gather(&manifests, &Schemas::new()?, &args.around);
    let errors = gathered.remarks.iter().filter(|remark| remark.is_error).count();
    Ok((gathered.objects, errors))
}

/// What trunks carry at the moment isn't known: nothing is full.
struct Idle;

impl Lines for Idle {
    fn full(&self, _: &ObjectKey, _: Limits) -> Option<Limit> {
        None
    }
}

struct Question<'a> {
    wanted: Option<Wanted>,
    at: Timestamp,
    args: &'a Args,
}

impl Question<'_> {
    fn answer(&self, objects: &Objects, compiled: &Compiled) -> Explanation {
        let number = self.args.number.clone();
        let holds = objects.numbers.iter().filter(|(_, object)| object.spec.number == number.as_str());
        let phone_numbers: Vec<_> = holds.map(|(key, _)| self.phone_number(key, compiled)).collect();
        let works = phone_numbers.iter().any(|held| held.call.as_ref().is_some_and(|call| self.works(call)));
        Explanation { number, at: self.at, phone_numbers, works }
    }

    fn works(&self, call: &Call) -> bool {
        let goes_out = |transfer: &Transfer| matches!(transfer.end, End::Dialled(_));
        let somebody = call.assistant.is_some() || call.fallback.as_ref().is_some_and(goes_out);
        let answered = call.refused.is_none() && !call.trunks.is_empty() && somebody;
        answered && (self.wanted.is_none() || call.transfers.iter().all(goes_out))
    }

    fn phone_number(&self, key: &ObjectKey, compiled: &Compiled) -> PhoneNumber {
        let object = ObjectRef { kind: Kind::PhoneNumber, key: key.clone() };
        let verdict = &compiled.verdicts[&object];
        let gateway = match &verdict.effective {
            Effective::PhoneNumber { gateway } => gateway.clone(),
            _ => None,
        };
        let holds = |finding: &&Finding| finding.status != ConditionStatus::True;
        let problems = [&verdict.accepted, &verdict.resolved_refs].into_iter().filter(holds);
        let problems = problems.map(|finding| finding.message.clone()).collect();
        let table = gateway.as_ref().and_then(|gateway| compiled.tables.get(gateway));
        let call = table.and_then(|table| self.call(key, table));
        PhoneNumber { object: key.clone(), gateway, problems, call }
    }

    /// A call to the number, if the gateway's table has it from that object.
    fn call(&self, object: &ObjectKey, table: &Table) -> Option<Call> {
        let number = &self.args.number;
        let entry = table.numbers.get(number).filter(|entry| entry.object == *object)?;
        let index = Index::new(Arc::new(table.clone()));
        let mut trunks: Vec<_> =
            table.trunks.iter().filter(|(_, trunk)| brings(trunk, object)).map(way).collect();
        // As the look-up has it: a trunk of the number's own namespace comes first.
        trunks.sort_by_key(|way| way.trunk.namespace != object.namespace);
        let mut refused = None;
        if let Some(source) = self.args.source {
            match index.who_answers(source, number.as_str()) {
                Ok(answer) => trunks.retain(|way| way.trunk == *answer.trunk()),
                Err(refusal) => {
                    trunks.clear();
                    refused = Some(refused_as(&refusal));
                }
            }
        }
        let assistant = entry.assistant.as_ref().and_then(|key| Some((key, table.assistants.get(key)?)));
        // Without a trunk there is no call; what a transfer of one would take is still said.
        let nowhere = || ObjectKey::new("", "");
        let inbound_trunk = trunks.first().map_or_else(nowhere, |way| way.trunk.clone());
        let facts = CallFacts { number: number.clone(), inbound_trunk, may_be_referred: true };
        let now = Now { at: self.at, lines: &Idle };
        let authority = if self.args.api { Authority::Api } else { Authority::Assistant };
        let wanted: Vec<Wanted> = match (&self.wanted, assistant) {
            (Some(wanted), _) => vec![wanted.clone()],
            (None, Some((_, assistant))) => {
                assistant.destinations.keys().map(|name| Wanted::Name(name.clone())).collect()
            }
            (None, None) => Vec::new(),
        };
        let transfers = wanted.iter().map(|wanted| {
            let plan = index.transfer(&facts, entry.assistant.as_ref(), wanted, authority, now);
            transfer(label(wanted), plan.map_err(|refusal| refusal.to_string()))
        });
        let fallback = entry.fallback.as_ref().map(|key| {
            let facts = CallFacts { may_be_referred: false, ..facts.clone() };
            let plan = index.fallback(&facts, key, now);
            transfer(key.name.clone(), plan.map_err(|refusal| refusal.to_string()))
        });
        Some(Call {
            transfers: transfers.collect(),
            fallback,
            refused,
            trunks,
            assistant: assistant.map(|(key, _)| key.clone()),
            agent: assistant.map(|(_, assistant)| agent(&assistant.agent)),
        })
    }
}

/// Whether a trunk brings in calls to numbers of that object's namespace.
fn brings(trunk: &TrunkEntry, object: &ObjectKey) -> bool {
    trunk.brings_calls_in() && trunk.allowed_namespaces.binary_search(&object.namespace).is_ok()
}

fn way((key, trunk): (&ObjectKey, &Arc<TrunkEntry>)) -> Way {
    let sources: Vec<_> = trunk.allowed_sources.iter().map(ToString::to_string).collect();
    let from = match (sources.is_empty(), trunk.authenticates) {
        (true, _) => "anywhere, with its password".to_owned(),
        (false, true) => format!("{}, with its password", sources.join(", ")),
        (false, false) => sources.join(", "),
    };
    Way { trunk: key.clone(), from }
}

fn refused_as(refusal: &AnswerRefusal) -> String {
    let code = match refusal {
        AnswerRefusal::UnknownSource(_) => 403,
        AnswerRefusal::UnknownNumber(_) => 404,
    };
    format!("{code}: {refusal}")
}

fn agent(agent: &AgentEntry) -> String {
    match agent {
        AgentEntry::Sip { targets, .. } => {
            let uris: Vec<_> = targets.iter().map(|target| target.uri.as_str()).collect();
            uris.join(", then ")
        }
        AgentEntry::OpenAi(openai) => format!("OpenAI Realtime at {}", openai.target.uri),
    }
}

fn label(wanted: &Wanted) -> String {
    match wanted {
        Wanted::Name(name) => name.clone(),
        Wanted::Number(number) => number.to_string(),
        Wanted::Uri(target) => target.uri.clone(),
    }
}

fn transfer(to: String, plan: Result<Plan, String>) -> Transfer {
    match plan {
        Err(refusal) => Transfer { to, passed_over: Vec::new(), end: End::Refused(refusal) },
        Ok(Plan { passed_over, route, then, return_to_assistant }) => {
            let passed_over = passed_over.iter().map(|passed| passed.refusal.to_string()).collect();
            let end = End::Dialled(Box::new(dialled(route, then, return_to_assistant)));
            Transfer { to, passed_over, end }
        }
    }
}

fn dialled(route: TransferRoute, then: Vec<ObjectKey>, return_to_assistant: bool) -> Dialled {
    let Limits { calls, calls_per_second } = route.limits;
    let calls = calls.map(|calls| format!("{calls} calls at once on each gateway pod"));
    let rate = calls_per_second.map(|calls| format!("{calls} new calls a second on each gateway pod"));
    Dialled {
        destination: route.label,
        uri: route.target.uri,
        trunk: route.trunk,
        rule: match route.trunk_rule {
            TrunkRule::Destination => "the destination's trunkRef",
            TrunkRule::Number => "the PhoneNumber's transferTrunkRef",
            TrunkRule::Inbound => "the trunk that the call came in over",
            TrunkRule::Direct => "directly: a SIP URI without a trunk",
        },
        refer_to: route.refer_to,
        caller_id: match route.caller_id {
            CallerIdEntry::Preserve => "the caller's number".to_owned(),
            CallerIdEntry::PhoneNumber => "the number that was called".to_owned(),
            CallerIdEntry::Fixed(number) => number.to_string(),
        },
        ring_timeout_seconds: route.ring_timeout_seconds,
        message: route.message,
        limits: calls.into_iter().chain(rate).collect(),
        then,
        finally: if return_to_assistant { "the caller goes back to the assistant" } else { "the call ends" },
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, at, phone_numbers, .. } = self;
        if phone_numbers.is_empty() {
            return writeln!(f, "{number}: no PhoneNumber holds it, so that no gateway answers; create one.");
        }
        writeln!(f, "{number} at {at}:")?;
        phone_numbers.iter().try_for_each(|held| write!(f, "{held}"))
    }
}

impl fmt::Display for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  PhoneNumber {}", self.object)?;
        match &self.gateway {
            Some(gateway) => writeln!(f, " on SipGateway {gateway}")?,
            None => writeln!(f, " on no SipGateway")?,
        }
        for problem in &self.problems {
            writeln!(f, "  problem: {problem}")?;
        }
        match &self.call {
            Some(call) => write!(f, "{call}"),
            None => writeln!(f, "  The gateway does not have it: callers hear 404."),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(refused) = &self.refused {
            writeln!(f, "  The call is refused with {refused}.")?;
        } else if self.trunks.is_empty() {
            writeln!(
                f,
                "  No trunk brings in calls to it; add inbound.allowedSources to a SipTrunk of its namespace."
            )?;
        }
        for Way { trunk, from } in &self.trunks {
            writeln!(f, "  comes in over SipTrunk {trunk} (from {from})")?;
        }
        match (&self.assistant, &self.agent) {
            (Some(assistant), Some(agent)) => {
                writeln!(f, "  is answered by Assistant {assistant} ({agent})")?
            }
            _ if self.fallback.is_some() => writeln!(f, "  goes straight to its fallback")?,
            _ => writeln!(f, "  is answered by nobody: callers hear 480")?,
        }
        if let Some(fallback) = &self.fallback {
            write!(f, "  fallback {fallback}")?;
        }
        self.transfers.iter().try_for_each(|transfer| write!(f, "  transfer to {transfer}"))
    }
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:", self.to)?;
        for passed in &self.passed_over {
            writeln!(f, "    passed over: {passed}")?;
        }
        let route = match &self.end {
            End::Refused(refusal) => return writeln!(f, "    refused: {refusal}"),
            End::Dialled(route) => route,
        };
        if let Some(message) = &route.message {
            writeln!(f, "    says first: {message}")?;
        }
        match (&route.refer_to, &route.trunk) {
            (Some(refer_to), Some(trunk)) => {
                writeln!(f, "    SipTrunk {trunk} is asked to dial {refer_to} (REFER)")?
            }
            (_, Some(trunk)) => {
                writeln!(f, "    dials {} over SipTrunk {trunk} ({})", route.uri, route.rule)?
            }
            (_, None) => writeln!(f, "    dials {} {}", route.uri, route.rule)?,
        }
        for limit in &route.limits {
            writeln!(f, "    unless the trunk has {limit}")?;
        }
        writeln!(f, "    shows {}, rings {} s", route.caller_id, route.ring_timeout_seconds)?;
        if !route.then.is_empty() {
            let then: Vec<_> = route.then.iter().map(ToString::to_string).collect();
            writeln!(f, "    then tries {}", then.join(", then "))?;
        }
        writeln!(f, "    if nobody answers, {}", route.finally)
    }
}
