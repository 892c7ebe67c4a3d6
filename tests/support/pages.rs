//! Pages of documentation as tests read them: their blocks of code, and what is said of each.
//!
//! A block says what it is (`sh`, `console`, `yaml`, `json`, `text`). What can be run is run by `tests/docs/commands.rs`, unless a
//! comment on the line before it says otherwise:
//!
//! ```text
//! <!-- not run: needs an account at a carrier -->
//! <!-- run by: a_test_that_exists -->
//! ```

use std::path::{Path, PathBuf};
use std::{fmt, fs};

/// A block of code on a page.
pub struct Block {
    /// The page, from the root on.
    pub page: PathBuf,
    /// The line of its first fence.
    pub line: usize,
    /// What it is.
    pub language: String,
    /// What is in it, without the indentation of its fence.
    pub text: String,
    /// What the comment before it says.
    pub mark: Mark,
}

/// What is said of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing: it is run with its page.
    Unmarked,
    /// It isn't run, and why.
    NotRun(String),
    /// The test that runs it.
    RunBy(String),
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.page.display(), self.line)
    }
}

/// Where the sources are.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page that people read, from the root on.
pub fn all() -> Vec<PathBuf> {
    let places = [
        "",
        "docs",
        "docs/reference",
        "docs/runbooks",
        "charts/voicedock",
        "charts/voicedock-crds",
        "contrib/argocd",
        "examples/gitops",
        "tests/cluster",
    ];
    places.iter().flat_map(|place| of(place)).collect()
}

/// The pages of a directory.
pub fn of(place: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(place)).unwrap_or_else(|error| panic!("{place}: {error}"));
    let mut found: Vec<_> = entries.map(|entry| Path::new(place).join(entry.unwrap().file_name())).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.sort();
    found
}

/// A page's text.
pub fn text(page: &Path) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// A page's blocks, in their order.
pub fn blocks(page: &Path) -> Vec<Block> {
    let text = text(page);
    let mut lines = text.lines().enumerate();
    let (mut found, mut before) = (Vec::new(), "");
    while let Some((at, line)) = lines.next() {
        let trimmed = line.trim_start();
        let Some(language) = trimmed.strip_prefix("```") else {
            if !trimmed.is_empty() {
                before = trimmed;
            }
            continue;
        };
        let indent = line.len() - trimmed.len();
        let inside: Vec<_> = lines
            .by_ref()
            .map(|(_, line)| line.get(indent..).unwrap_or_default())
            .take_while(|line| !line.starts_with("```"))
            .collect();
        found.push(Block {
            page: page.to_owned(),
            line: at + 1,
            language: language.to_owned(),
            text: inside.join("\n") + "\n",
            mark: mark(before),
        });
        before = "";
    }
    found
}

fn mark(line: &str) -> Mark {
    let comment = |begin: &str| {
        line.strip_prefix("<!-- ")
            .and_then(|rest| rest.strip_suffix(" -->")?.strip_prefix(begin))
            .map(str::to_owned)
    };
    comment("not run: ")
        .map(Mark::NotRun)
        .or_else(|| comment("run by: ").map(Mark::RunBy))
        .unwrap_or(Mark::Unmarked)
}
