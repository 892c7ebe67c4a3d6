//! Links and the table of contents.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::pages::{self, root};

/// The targets of a page's links, without those to other sites. What is code is no link.
fn links(text: &str) -> Vec<String> {
    let mut code = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    });
    // Between an even and an odd backtick there is code.
    let prose: String = lines
        .flat_map(|line| {
            line.split('`').enumerate().map(|(at, part)| if at % 2 == 0 { part } else { "" }).chain(["\n"])
        })
        .collect();
    let targets =
        prose.match_indices("](").map(|(at, _)| prose[at + 2..].split(')').next().unwrap().to_owned());
    targets.filter(|target| !target.contains("://")).collect()
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

fn anchors(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect()
}

/// A path without `..` and `.`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part.as_os_str().to_str() {
            Some("..") => assert!(plain.pop(), "{}: leads out of the project", path.display()),
            Some(".") => {}
            _ => plain.push(part),
        }
        plain
    })
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let mut seen = 0;
    for page in pages::all() {
        for link in links(&pages::text(&page)) {
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target =
                if file.is_empty() { page.clone() } else { plain(&page.parent().unwrap().join(file)) };
            assert!(root().join(&target).exists(), "{}: {link} leads nowhere", page.display());
            if !heading.is_empty() {
                let found = anchors(&pages::text(&target)).contains(heading);
                assert!(found, "{}: there is no heading #{heading} in {}", page.display(), target.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let listed = |page: &str| -> BTreeSet<_> {
        let page = Path::new(page);
        links(&pages::text(page)).iter().map(|link| plain(&page.parent().unwrap().join(link))).collect()
    };
    let book = listed("docs/SUMMARY.md");
    let all = ["docs", "docs/reference", "docs/runbooks"].iter().flat_map(|place| pages::of(place));
    let missing: Vec<_> = all.filter(|page| !page.ends_with("SUMMARY.md") && !book.contains(page)).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md lacks {missing:?}");
    let runbooks = listed("docs/runbooks/README.md");
    assert!(
        pages::of("docs/runbooks").iter().all(|page| page.ends_with("README.md") || runbooks.contains(page))
    );
}

/// What isn't a page isn't in the book: `hack/docs.sh` makes links to the repository of those that it knows.
#[test]
fn links_out_of_the_book_are_those_that_it_knows() {
    let known = [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "examples/",
        "charts/",
        "contrib/",
        "tests/",
        "src/",
        "hack/",
    ];
    for page in ["docs", "docs/reference", "docs/runbooks"].iter().flat_map(|place| pages::of(place)) {
        for link in links(&pages::text(&page)) {
            let target = plain(&page.parent().unwrap().join(link.split('#').next().unwrap()));
            let inside = target.starts_with("docs") || target == *page.parent().unwrap();
            let out = known.iter().any(|known| target.to_str().unwrap().starts_with(known));
            assert!(inside || out, "{}: {link}", page.display());
        }
    }
}
