//! Every manifest in `examples/` is taken by the API server, and taking it a second time changes nothing. What `examples/gitops`
//! has for Flux and Argo CD themselves is in `tests/chart/gitops.rs`.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::api_server::api_server;
use support::tools::{output, printed};

fn examples() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    // For kinds that this API server doesn't know, but for a team's folder.
    files.iter_mut().filter(|file| file.ends_with("gitops")).for_each(|file| file.push("tenant"));
    files.sort();
    files
}

#[tokio::test]
async fn every_example_is_taken_and_stays_as_it_was_written() {
    let server = api_server().await;
    for file in examples() {
        let with_file = |arguments: &[&str]| {
            let mut kubectl = server.kubectl();
            let flag = if file.join("kustomization.yaml").exists() { "--kustomize" } else { "--filename" };
            kubectl.args(arguments).arg(flag).arg(&file);
            kubectl
        };
        printed(&mut with_file(&["apply"]));
        // The API server never shows stringData again, so that kubectl always takes it for a change.
        let again = printed(&mut with_file(&["apply"]));
        for line in again.lines().filter(|line| !line.starts_with("secret/")) {
            assert!(line.ends_with(" unchanged"), "{}: applied again: {line}", file.display());
        }
        let diff = output(&mut with_file(&["diff"]));
        assert!(diff.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&diff.stdout));
        let versions =
            || printed(&mut with_file(&["get", "--output", "jsonpath={..metadata.resourceVersion}"]));
        printed(&mut with_file(&["apply", "--server-side", "--force-conflicts"]));
        let before = versions();
        printed(&mut with_file(&["apply", "--server-side", "--force-conflicts"]));
        assert_eq!(versions(), before, "{}: a second server-side apply writes", file.display());
    }
}
