//! The documentation: every page is in the table of contents, and every link leads somewhere.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found
}

/// The targets of a page's links, without those to other sites.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("](").filter_map(|(at, _)| {
        let target = text[at + 2..].split(')').next().unwrap();
        (!target.contains("://")).then_some(target)
    })
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let places = ["", "docs", "docs/runbooks", "charts/voicedock", "charts/voicedock-crds", "contrib/argocd"];
    let all = places
        .iter()
        .chain(&["examples/gitops", "tests/cluster"])
        .flat_map(|place| pages(&root().join(place)));
    let mut seen = 0;
    for page in all {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let found = text
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| anchor(line.trim_start_matches('#').trim()) == heading);
                assert!(found, "{}: there is no heading #{heading} in {}", page.display(), target.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen}");
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let docs = root().join("docs");
    let contents = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let listed: BTreeSet<_> = links(&contents).map(|link| docs.join(link)).collect();
    let missing: Vec<_> = pages(&docs)
        .into_iter()
        .filter(|page| !page.ends_with("SUMMARY.md") && !listed.contains(page))
        .collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md lacks {missing:?}");
    let runbooks = fs::read_to_string(docs.join("runbooks/README.md")).unwrap();
    let listed: BTreeSet<_> = links(&runbooks).map(|link| docs.join("runbooks").join(link)).collect();
    assert!(
        pages(&docs.join("runbooks")).iter().all(|page| page.ends_with("README.md") || listed.contains(page))
    );
}
