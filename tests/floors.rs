//! The floors of the house: nothing imports upward, and the pure parts do no I/O, read no clock and throw no dice.

#![allow(clippy::unwrap_used, reason = "a test that can't read the sources must fail")]

use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file below `src/<part>`, without its tests.
fn files(part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(part)];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// The lines of `part` that contain one of `words`, outside of comments.
fn lines_with(part: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files(part) {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(word) = words.iter().find(|word| code.contains(**word)) {
                found.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    found
}

#[test]
fn the_pure_parts_do_no_io_read_no_clock_and_throw_no_dice() {
    // Traits that read an object's metadata or that a hash is written through are no I/O: they are not in the list.
    let impure = [
        "tokio",
        "hyper",
        "axum",
        "kube::Client",
        "kube::Api",
        "kube::api::Api",
        "kube::runtime",
        "kube::client",
        "k8s_openapi::api::",
        "std::fs",
        "std::io::std",
        "std::io::Read",
        "std::net::Udp",
        "std::net::Tcp",
        "std::thread",
        "std::env",
        "Instant::now",
        "SystemTime",
        "Timestamp::now",
        "rand::",
        "println!",
        "eprintln!",
    ];
    for part in ["routing", "call", "sip"] {
        // Golden files are read and written by tests.
        let found: Vec<_> =
            lines_with(part, &impure).into_iter().filter(|line| !line.contains("tests")).collect();
        assert!(found.is_empty(), "{part} is pure, but:\n{}", found.join("\n"));
    }
}

#[test]
fn the_api_is_on_top() {
    for part in ["resources", "routing", "sip", "call", "operator", "gateway", "http"] {
        let found = lines_with(part, &["crate::api"]);
        assert!(found.is_empty(), "{part} imports from a floor above:\n{}", found.join("\n"));
    }
}

#[test]
fn nothing_imports_upward() {
    for (part, above) in [
        (
            "resources",
            &[
                "crate::routing",
                "crate::operator",
                "crate::call",
                "crate::sip",
                "crate::gateway",
                "crate::http",
            ][..],
        ),
        ("routing", &["crate::operator", "crate::call", "crate::sip", "crate::gateway", "crate::http"]),
        (
            "sip",
            &[
                "crate::resources",
                "crate::routing",
                "crate::operator",
                "crate::call",
                "crate::gateway",
                "crate::http",
            ],
        ),
        ("call", &["crate::resources", "crate::operator", "crate::gateway", "crate::http"]),
        ("operator", &["crate::call", "crate::sip", "crate::gateway"]),
        ("gateway", &["crate::operator"]),
    ] {
        let found = lines_with(part, above);
        assert!(found.is_empty(), "{part} imports from a floor above:\n{}", found.join("\n"));
    }
}
