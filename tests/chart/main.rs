//! The Helm charts: what they render, what their schemas refuse, what judges say of them, and a life of a release on a real
//! API server.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]

mod gitops;
mod judges;
mod monitoring;
mod release;
mod rendering;
#[path = "../support/mod.rs"]
mod support;
mod values;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::tools::{printed, tool};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn chart() -> PathBuf {
    root().join("charts/voicedock")
}

fn helm(arguments: &[&str]) -> Command {
    let mut helm = Command::new(tool("helm"));
    helm.args(arguments);
    helm
}

/// What `helm template` prints with values set; no cluster is asked. Without what `helm test` makes, which is gone in seconds
/// and has another password each time.
fn template(values: &[&str]) -> Command {
    let mut command = helm(&["template", "voicedock"]);
    command.arg(chart()).args(["--namespace", "voicedock-system", "--skip-tests"]);
    for value in values {
        command.args(["--set-json", value]);
    }
    command
}

/// The objects of `helm template` with values set.
fn rendered(values: &[&str]) -> Vec<Value> {
    objects(&printed(&mut template(values)))
}

/// The objects of a YAML stream.
fn objects(text: &str) -> Vec<Value> {
    let documents: Vec<Option<Value>> = serde_saphyr::from_multiple(text).unwrap();
    documents.into_iter().flatten().collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

/// The one object of a kind whose name ends like this: what belongs to one of the roles.
fn of_role<'a>(objects: &'a [Value], kind: &str, role: &str) -> &'a Value {
    let named =
        |object: &&Value| object["metadata"]["name"].as_str().is_some_and(|name| name.ends_with(role));
    let found: Vec<_> = of_kind(objects, kind).into_iter().filter(named).collect();
    assert_eq!(found.len(), 1, "{kind} of {role}");
    found[0]
}
