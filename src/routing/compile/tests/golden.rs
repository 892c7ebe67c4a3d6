//! `testdata/*.in.yaml → *.out.yaml`: objects as people write them, what their conditions say, and the tables.
//! `UPDATE_GOLDEN=1 cargo test golden` writes the outputs anew; read the diff before committing it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::world::World;
use crate::routing::compile::{Compiled, CredentialKeys, Effective, Finding, Verdict, compile};

/// One pair of files.
pub(super) struct Case(PathBuf);

impl Case {
    pub fn output(&self) -> PathBuf {
        let input = self.0.to_string_lossy().into_owned();
        PathBuf::from(input.replace(".in.yaml", ".out.yaml"))
    }
}

pub(super) fn cases() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/routing/compile/testdata");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.to_string_lossy().ends_with(".in.yaml"));
    files.sort();
    files.into_iter().map(Case).collect()
}

#[test]
fn every_golden_file_compiles_to_what_it_says() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let cases = cases();
    assert!(cases.len() > 10, "only {} golden files found", cases.len());
    let mut differing = Vec::new();
    for case in &cases {
        let world = World::parse_stream(&std::fs::read_to_string(&case.0).unwrap());
        let found = text(&compile(&world.objects()));
        if update {
            std::fs::write(case.output(), &found).unwrap();
        }
        let expected = std::fs::read_to_string(case.output()).unwrap_or_default();
        if found != expected {
            let line = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
            let line = line.unwrap_or_else(|| found.lines().count().min(expected.lines().count()));
            differing.push(format!(
                "{} line {}:\n  expected {:?}\n  found    {:?}",
                case.output().display(),
                line + 1,
                expected.lines().nth(line).unwrap_or_default(),
                found.lines().nth(line).unwrap_or_default(),
            ));
        }
    }
    assert!(differing.is_empty(), "{}\nUPDATE_GOLDEN=1 writes the files anew", differing.join("\n"));
}

#[test]
fn every_output_has_its_input() {
    let outputs: Vec<PathBuf> = cases().iter().map(Case::output).collect();
    let directory = outputs[0].parent().unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = entry.unwrap().path();
        let name = file.to_string_lossy().into_owned();
        assert!(name.ends_with(".in.yaml") || outputs.contains(&file), "{name} belongs to no input");
    }
}

fn text(compiled: &Compiled) -> String {
    let verdicts: serde_json::Map<String, Value> = compiled
        .verdicts
        .iter()
        .map(|(object, verdict)| (format!("{} {}", object.kind, object.key), describe(verdict)))
        .collect();
    let credentials: serde_json::Map<String, Value> = compiled
        .credentials
        .iter()
        .filter(|(_, credentials)| !credentials.is_empty())
        .map(|(gateway, credentials)| {
            let credentials: serde_json::Map<String, Value> = credentials
                .iter()
                .map(|(id, source)| {
                    let keys = match &source.keys {
                        CredentialKeys::Login { username, password } => format!("{username} {password}"),
                        CredentialKeys::Certificate => "certificate".to_owned(),
                        CredentialKeys::Authorities => "authorities".to_owned(),
                        CredentialKeys::Signing { key } => format!("{key} for signatures"),
                    };
                    let keys = format!("{} {keys}", source.secret);
                    (id.0.clone(), keys.into())
                })
                .collect();
            (gateway.to_string(), credentials.into())
        })
        .collect();
    let tables: serde_json::Map<String, Value> = compiled
        .tables
        .iter()
        .map(|(gateway, table)| (gateway.to_string(), serde_json::to_value(table).unwrap()))
        .collect();
    serde_saphyr::to_string(&json!({"verdicts": verdicts, "tables": tables, "credentials": credentials}))
        .unwrap()
}

fn describe(verdict: &Verdict) -> Value {
    json!({
        "accepted": finding(&verdict.accepted),
        "resolvedRefs": finding(&verdict.resolved_refs),
        "gateways": verdict.gateways.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        "effective": effective(&verdict.effective),
    })
}

fn finding(finding: &Finding) -> String {
    format!("{:?} {}: {}", finding.status, finding.reason, finding.message)
}

fn effective(effective: &Effective) -> String {
    match effective {
        Effective::Assistant { agent, model, destinations, numbers } => {
            let model = model.as_ref().map(|model| format!(" with {model}")).unwrap_or_default();
            let agent = agent.unwrap_or("-");
            format!("agent {agent}{model}, {destinations} destinations, {numbers} numbers")
        }
        Effective::PhoneNumber { gateway } => {
            format!("gateway {}", gateway.as_ref().map_or_else(|| "-".into(), ToString::to_string))
        }
        Effective::SipGateway => String::new(),
        Effective::SipTrunk { transport, port } => {
            format!("{transport:?} port {}", port.map_or_else(|| "-".into(), |port| port.to_string()))
        }
        Effective::TransferDestination { target, method, ring_timeout_seconds } => {
            format!("{target} by {method:?}, rings {ring_timeout_seconds} s")
        }
    }
}
