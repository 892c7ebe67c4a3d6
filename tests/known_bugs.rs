//! `docs/known-bugs.md` names tests: each of them must be there.

#![allow(clippy::unwrap_used, reason = "a test that can't read the sources must fail")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The names of all test functions below `src` and `tests`.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open: Vec<PathBuf> = ["src", "tests"].iter().map(|part| root.join(part)).collect();
    let mut names = BTreeSet::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let functions = text.lines().filter_map(|line| {
                let line = line.trim_start();
                let rest = line.strip_prefix("fn ").or_else(|| line.strip_prefix("async fn "))?;
                Some(rest.split('(').next()?.to_owned())
            });
            names.extend(functions);
        }
    }
    names
}

#[test]
fn every_test_that_the_list_of_known_bugs_names_exists() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/known-bugs.md");
    let text = fs::read_to_string(path).unwrap();
    let known = tests();
    let rows = text.lines().filter(|line| {
        line.starts_with("| ") && !line.starts_with("| elsewhere") && !line.starts_with("| ---")
    });
    for row in rows {
        let last = row.trim_end_matches(" |").rsplit("| ").next().unwrap();
        let named: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test is named in: {row}");
        for name in named {
            assert!(known.contains(name), "no test is called {name}");
        }
    }
}
