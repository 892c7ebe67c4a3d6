//! What GitOps clients think of objects: kstatus (Flux, Helm), and Argo CD with the script of contrib/argocd. Their own code says
//! it: the program of tests/verdicts.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::tools::tool;

/// A verdict, and the sentence that is shown with it.
pub type Verdict = (String, String);

/// Where the script for Argo CD is.
pub fn contrib() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/argocd")
}

/// For each object what kstatus says, and what Argo CD does.
///
/// # Panics
/// When the program isn't there, or the script fails.
pub fn both(objects: &[Value]) -> Vec<[Verdict; 2]> {
    let script = contrib().join("health.lua");
    let flux = judged(&["kstatus"], objects);
    let argo = judged(&["argo", script.to_str().expect("the path is text")], objects);
    flux.into_iter().zip(argo).map(|(flux, argo)| [flux, argo]).collect()
}

fn judged(arguments: &[&str], objects: &[Value]) -> Vec<Verdict> {
    let mut command = Command::new(tool("verdicts"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("run hack/tools.sh chart, which builds tests/verdicts");
    let mut input = child.stdin.take().expect("standard input is a pipe");
    let text = json!(objects).to_string();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("an own child can be waited for");
    writer.join().expect("writing doesn't panic").expect("it reads all of its input");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Vec<BTreeMap<String, String>> =
        serde_json::from_slice(&output.stdout).expect("it prints what it promises");
    assert_eq!(said.len(), objects.len());
    said.into_iter().map(|one| (one["status"].clone(), one["message"].clone())).collect()
}
