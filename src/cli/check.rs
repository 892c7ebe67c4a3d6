//! `voicedock check`: what the API server and the operator would say about manifests, without either.
//!
//! Schemas and their rules, then the compiler's verdicts over all objects together: references, grants, conflicts, chains.
//! Exit code 1 means that something has to be mended, 2 that nothing could be checked. Secrets that are not among the
//! manifests, or encrypted there, are taken to hold what is needed of them, and so is a default gateway.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::resources::conditions::ConditionStatus;
use crate::routing::compile::{ObjectRef, SPEC_ACCEPTED, Verdict, compile};
use crate::routing::table::ObjectKey;

use super::gather::{Gathered, Remark, Surroundings, gather};
use super::manifests::{Manifests, read};
use super::schema::Schemas;
use super::{Output, UNWELL, WELL, unanswered};

/// What `voicedock check` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Manifests: files, directories with all that is below them, or - for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    around: Surroundings,
    /// How the result is written
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    findings: Vec<FindingOut>,
    files: usize,
    objects: usize,
    errors: usize,
    warnings: usize,
}

/// One finding; the names of its fields are part of the interface.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FindingOut {
    severity: &'static str,
    file: String,
    line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    field: String,
    reason: &'static str,
    message: String,
}

/// Runs `voicedock check`.
pub fn run(args: &Args) -> ExitCode {
    let manifests = match read(&args.paths) {
        Ok(manifests) => manifests,
        Err(error) => return unanswered(&error),
    };
    let schemas = match Schemas::new() {
        Ok(schemas) => schemas,
        Err(error) => return unanswered(&error),
    };
    let report = report(&manifests, &schemas, &args.around);
    let code = if report.errors > 0 { UNWELL } else { WELL };
    args.output.write(&report, code)
}

/// Checks manifests.
fn report(manifests: &Manifests, schemas: &Schemas, around: &Surroundings) -> Report {
    let gathered = gather(manifests, schemas, around);
    let mut remarks = gathered.remarks.clone();
    for (object, verdict) in compile(&gathered.objects).verdicts {
        remarks.extend(remarks_of(&gathered, &object, &verdict));
    }
    let mut order: BTreeMap<&str, usize> = BTreeMap::new();
    let files = manifests.broken.iter().map(|(place, _)| &place.file);
    for file in manifests.read.iter().map(|manifest| &manifest.file).chain(files) {
        let next = order.len();
        order.entry(file).or_insert(next);
    }
    remarks.sort_by_key(|remark| (order.get(&*remark.place.file).copied(), remark.place.line));
    let findings: Vec<_> = remarks.into_iter().map(FindingOut::from).collect();
    let errors = findings.iter().filter(|finding| finding.severity == "error").count();
    Report {
        errors,
        warnings: findings.len() - errors,
        files: manifests.files,
        objects: gathered.count,
        findings,
    }
}

/// What the compiler says about an object, at the field that it begins with.
fn remarks_of(gathered: &Gathered<'_>, object: &ObjectRef, verdict: &Verdict) -> Vec<Remark> {
    let accepted = &verdict.accepted;
    let unsaid = accepted.message.strip_prefix(SPEC_ACCEPTED).map(str::trim).unwrap_or_default();
    let mut found = Vec::new();
    if accepted.status != ConditionStatus::True {
        found.push((true, accepted.reason, accepted.message.as_str()));
    } else if !unsaid.is_empty() {
        found.push((false, accepted.reason, unsaid));
    }
    if verdict.resolved_refs.status != ConditionStatus::True {
        found.push((true, verdict.resolved_refs.reason, verdict.resolved_refs.message.as_str()));
    }
    let remark = |(is_error, reason, message): (bool, &'static str, &str)| {
        let field = message.split([' ', ':']).next().filter(|first| first.starts_with(char::is_lowercase));
        let field = field.unwrap_or_default();
        // An object without a place is one that was taken to be there.
        let place = gathered.place(object, field)?;
        let field = if field.is_empty() { String::new() } else { format!("spec.{field}") };
        let object = Some((object.kind.to_string(), object.key.clone()));
        Some(Remark { is_error, place, object, field, reason, message: message.to_owned() })
    };
    found.into_iter().filter_map(remark).collect()
}

impl From<Remark> for FindingOut {
    fn from(remark: Remark) -> Self {
        let (kind, key) = remark.object.unzip();
        let (namespace, name) = key.map(|ObjectKey { namespace, name }| (namespace, name)).unzip();
        Self {
            severity: if remark.is_error { "error" } else { "warning" },
            file: remark.place.file.to_string(),
            line: remark.place.line,
            kind,
            namespace,
            name,
            field: remark.field,
            reason: remark.reason,
            message: remark.message,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            write!(f, "{}:{}: {}: ", finding.file, finding.line, finding.severity)?;
            if let (Some(kind), Some(namespace), Some(name)) =
                (&finding.kind, &finding.namespace, &finding.name)
            {
                write!(f, "{kind} {namespace}/{name}: ")?;
            }
            // A message of the compiler begins with its field.
            let field = finding.field.strip_prefix("spec.").unwrap_or(&finding.field);
            if !field.is_empty() && !finding.message.starts_with(field) {
                write!(f, "{}: ", finding.field)?;
            }
            writeln!(f, "{}", finding.message)?;
        }
        let plural = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        writeln!(
            f,
            "Checked {} in {}: {}, {}.",
            plural(self.objects, "object"),
            plural(self.files, "file"),
            plural(self.errors, "error"),
            plural(self.warnings, "warning")
        )
    }
}
