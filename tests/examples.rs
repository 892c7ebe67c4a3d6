//! No drift: every manifest in `examples/` is taken by the API server and stays as it was written while the operator runs. What
//! `examples/gitops` has for Flux and Argo CD themselves is in `tests/chart/gitops.rs`.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]
#![allow(dead_code, reason = "the stage is shared with tests/api_operator.rs")]

#[path = "operator/logs.rs"]
mod logs;
#[path = "operator/stage.rs"]
mod stage;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use futures::future::join_all;
use serde_json::{Value, json};
use voicedock::operator::api::FIELD_MANAGER;

use stage::{GATEWAY, Operator, Stage, eventually};
use support::tools::{output, printed};

/// A file or a folder that people apply.
struct Example(PathBuf);

impl Example {
    fn all() -> Vec<Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        // For kinds that this API server doesn't know, but for a team's folder.
        files.iter_mut().filter(|file| file.ends_with("gitops")).for_each(|file| file.push("tenant"));
        files.sort();
        files.into_iter().map(Self).collect()
    }

    fn kubectl(&self, stage: &Stage, arguments: &[&str]) -> Command {
        let mut kubectl = stage.server.kubectl();
        let flag = if self.0.join("kustomization.yaml").exists() { "--kustomize" } else { "--filename" };
        kubectl.args(arguments).arg(flag).arg(&self.0);
        kubectl
    }

    /// What is written in it.
    fn written(&self, stage: &Stage) -> Vec<Value> {
        if self.0.join("kustomization.yaml").exists() {
            return objects(&printed(stage.server.kubectl().arg("kustomize").arg(&self.0)));
        }
        let mut files = vec![self.0.clone()];
        if self.0.is_dir() {
            files = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect();
            // As kubectl takes them.
            files.sort();
        }
        files.iter().flat_map(|file| objects(&fs::read_to_string(file).unwrap())).collect()
    }

    /// The same objects as they are at the API server.
    fn live(&self, stage: &Stage) -> Vec<Value> {
        let found = printed(&mut self.kubectl(stage, &["get", "--output", "json", "--show-managed-fields"]));
        let mut found: Value = serde_json::from_str(&found).unwrap();
        match found["items"].take() {
            Value::Array(items) => items,
            _ => vec![found],
        }
    }
}

fn objects(text: &str) -> Vec<Value> {
    let documents: Vec<Option<Value>> = serde_saphyr::from_multiple(text).unwrap();
    documents.into_iter().flatten().collect()
}

/// The fields of `written` that aren't so in `live`.
fn drifted(written: &Value, live: &Value, field: &str) -> Vec<String> {
    match (written, live) {
        (Value::Object(written), Value::Object(_)) => written
            .iter()
            .flat_map(|(name, value)| match name.as_str() {
                // Only ever written: the API server shows it as data.
                "stringData" => value
                    .as_object()
                    .unwrap()
                    .iter()
                    .flat_map(|(key, text)| {
                        let encoded = json!(BASE64.encode(text.as_str().unwrap()));
                        drifted(&encoded, &live["data"][key], &format!("{field}.data.{key}"))
                    })
                    .collect(),
                _ => drifted(value, &live[name], &format!("{field}.{name}")),
            })
            .collect(),
        (Value::Array(written), Value::Array(live)) if written.len() == live.len() => {
            let pairs = written.iter().zip(live).enumerate();
            pairs
                .flat_map(|(at, (written, live))| drifted(written, live, &format!("{field}[{at}]")))
                .collect()
        }
        _ if written == live => Vec::new(),
        _ => vec![format!("{field}: {written} is written, {live} is there")],
    }
}

fn is_ours(object: &Value) -> bool {
    object["apiVersion"].as_str().is_some_and(|version| version.starts_with("voicedock.dev/"))
}

#[tokio::test]
async fn every_example_stays_as_it_was_written_while_the_operator_runs() {
    let platform = Stage::empty("platform").await;
    let spec = json!({ "exposure": "ClusterIP", "allowedNamespaces": { "from": "All" } });
    platform.apply("SipGateway", GATEWAY, spec).await;
    let _operator = Operator::start(platform.config(), None, platform.key(GATEWAY));
    let _pod = platform.pod("gw-1").await;

    let examples = Example::all();
    for example in &examples {
        printed(&mut example.kubectl(&platform, &["apply"]));
    }
    let at_rest = async || {
        for example in &examples {
            eventually(&format!("the operator has seen {}", example.0.display()), async || {
                let seen = |object: &Value| {
                    object["status"]["observedGeneration"] == object["metadata"]["generation"]
                };
                example.live(&platform).iter().filter(|object| is_ours(object)).all(seen).then_some(())
            })
            .await;
        }
        let live = examples.iter().flat_map(|example| example.live(&platform));
        let namespaces: BTreeSet<_> =
            live.filter_map(|object| Some(object["metadata"]["namespace"].as_str()?.to_owned())).collect();
        let stages = join_all(namespaces.iter().map(|namespace| Stage::at(namespace))).await;
        join_all(stages.iter().chain([&platform]).map(Stage::settled)).await;
    };

    // People who write with kubectl.
    at_rest().await;
    for example in &examples {
        let name = example.0.display();
        // The API server never shows stringData again, so that kubectl always takes it for a change.
        let again = printed(&mut example.kubectl(&platform, &["apply"]));
        for line in again.lines().filter(|line| !line.starts_with("secret/")) {
            assert!(line.ends_with(" unchanged"), "{name}: applied again: {line}");
        }
        let diff = output(&mut example.kubectl(&platform, &["diff"]));
        assert!(diff.status.success(), "{name}: {}", String::from_utf8_lossy(&diff.stdout));
        printed(&mut example.kubectl(&platform, &["apply", "--server-side", "--force-conflicts"]));
    }

    // Flux and Argo CD.
    at_rest().await;
    for example in &examples {
        let name = example.0.display();
        let (written, live) = (example.written(&platform), example.live(&platform));
        assert_eq!(written.len(), live.len(), "{name}");
        let found: Vec<_> = written
            .iter()
            .zip(&live)
            .flat_map(|(written, live)| {
                let name = format!("{} {}", written["kind"], written["metadata"]["name"]);
                drifted(written, live, &name)
            })
            .collect();
        assert!(found.is_empty(), "{name}: {found:#?}");
        printed(&mut example.kubectl(&platform, &["apply", "--server-side", "--force-conflicts"]));
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let (before, after): (Vec<_>, Vec<_>) =
            (live.iter().map(version).collect(), example.live(&platform).iter().map(version).collect());
        assert_eq!(before, after, "{name}: a second server-side apply writes");

        let ours = live.iter().filter(|object| is_ours(object));
        let fields =
            ours.flat_map(|object| object["metadata"]["managedFields"].as_array().into_iter().flatten());
        for managed in fields.filter(|managed| managed["manager"] == FIELD_MANAGER) {
            assert_eq!(managed["subresource"], "status", "{name}: the operator writes a spec: {managed}");
        }
    }
}
