//! Commands and manifests of the pages: each is run, page by page and in order, or says why it isn't.
//!
//! They run in a directory that has what the root of the repository has, with this build of `voicedock`, and a real API server that
//! has the definitions, the namespaces `voicedock-system` and `acme`, and one of its own for each page. There are no nodes: what
//! needs pods names the test that runs it, or says that nobody does.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::support::api_server::{ApiServer, api_server};
use crate::support::pages::{self, Block, Mark, root};
use crate::support::tools::{cached, output, printed};

fn every_block() -> Vec<Block> {
    pages::all().iter().flat_map(|page| pages::blocks(page)).collect()
}

/// Every line of source that could hold a test.
fn sources(directory: &Path, found: &mut String) {
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&fs::read_to_string(entry).unwrap());
        }
    }
}

#[test]
fn every_block_says_what_it_is_and_every_reason_and_test_is_there() {
    let mut code = String::new();
    sources(&root().join("src"), &mut code);
    sources(&root().join("tests"), &mut code);
    let mut wrong = Vec::new();
    for block in every_block() {
        if !["sh", "console", "yaml", "json", "text"].contains(&block.language.as_str()) {
            wrong.push(format!(
                "{block}: write sh, console, yaml, json or text after the fence, not '{}'",
                block.language
            ));
        }
        match &block.mark {
            Mark::NotRun(reason) if reason.len() < 10 => wrong.push(format!("{block}: say why it isn't run")),
            Mark::RunBy(test) if !code.contains(&format!("fn {test}(")) => {
                wrong.push(format!("{block}: there is no test {test}"))
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What isn't there of a command that a page names.
fn missing(code: &str, makefile: &str, roles: &mut BTreeSet<String>) -> Option<String> {
    let mut words = code.split_whitespace();
    let (program, what) = (words.next()?, words.next()?);
    let word = what.starts_with(|c: char| c.is_ascii_lowercase());
    let there = match program {
        "make" if word => makefile.contains(&format!("\n{what}: ")),
        "voicedock" if word && roles.insert(what.to_owned()) => {
            output(Command::new(env!("CARGO_BIN_EXE_voicedock")).args([what, "--help"])).status.success()
        }
        _ => true,
    };
    (!there).then(|| format!("there is no `{program} {what}`"))
}

#[test]
fn commands_within_sentences_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let (mut roles, mut wrong) = (BTreeSet::new(), Vec::new());
    for page in pages::all() {
        let text = pages::text(&page);
        let blocks = pages::blocks(&page);
        let in_blocks =
            blocks.iter().filter(|block| block.language == "sh").flat_map(|block| block.text.lines());
        for code in text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).chain(in_blocks) {
            wrong.extend(
                missing(code, &makefile, &mut roles).map(|what| format!("{}: {what}", page.display())),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(roles.len() > 5, "{roles:?}");
}

/// A directory that looks like the root, and what runs there finds.
struct Place {
    directory: tempfile::TempDir,
    path: String,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["charts", "examples", "crds", "docs", "contrib", "hack"] {
            symlink(root().join(name), directory.path().join(name)).unwrap();
        }
        let own = Path::new(env!("CARGO_BIN_EXE_voicedock")).parent().unwrap().to_owned();
        let tools = cached("kubectl").and_then(|kubectl| Some(kubectl.parent()?.to_owned()));
        let given = env::var_os("PATH").unwrap_or_default();
        let path = [Some(own), tools].into_iter().flatten().chain(env::split_paths(&given));
        let path = env::join_paths(path.collect::<Vec<PathBuf>>()).unwrap().into_string().unwrap();
        Self { directory, path }
    }

    /// Runs a page's blocks in one shell, so that what one sets the next one has. What a block prints is in the file of its number.
    fn run(&self, blocks: &[&Block], kubeconfig: &Path) -> Result<Vec<String>, String> {
        let file = |number: usize| self.directory.path().join(format!("out-{number}"));
        let mut script = String::from("set -euo pipefail\n");
        for (number, block) in blocks.iter().enumerate() {
            let commands = match block.language.as_str() {
                // What it prints is compared, so that it may fail as it does on the page.
                "console" => commands_of(&block.text).map(|command| format!("{command} || true\n")).collect(),
                _ => block.text.clone(),
            };
            script.push_str(&format!("{{\n{commands}\n}} >{} 2>&1\n", file(number).display()));
        }
        let mut shell = Command::new("timeout");
        shell.args(["120", "bash", "-c", &script]).current_dir(self.directory.path()).stdin(Stdio::null());
        shell.env("PATH", &self.path).env("KUBECONFIG", kubeconfig);
        let done = output(&mut shell);
        let printed: Vec<_> =
            (0..blocks.len()).map_while(|number| fs::read_to_string(file(number)).ok()).collect();
        for number in 0..printed.len() {
            fs::remove_file(file(number)).unwrap();
        }
        if !done.status.success() {
            let (at, said) =
                printed.iter().enumerate().next_back().map_or((0, ""), |(at, said)| (at, said.as_str()));
            return Err(format!("{}: {said}{}", blocks[at], String::from_utf8_lossy(&done.stderr)));
        }
        Ok(printed)
    }
}

/// The commands of a block that shows what they print.
fn commands_of(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix("$ "))
}

/// Whether a text is what a page shows; `…` stands for anything in a line, and alone for any lines.
fn as_shown(shown: &[&str], printed: &[&str]) -> bool {
    match (shown, printed) {
        ([], []) => true,
        (["…", rest @ ..], _) => (0..=printed.len()).any(|skipped| as_shown(rest, &printed[skipped..])),
        ([line, shown @ ..], [other, printed @ ..]) => line_as_shown(line, other) && as_shown(shown, printed),
        _ => false,
    }
}

fn line_as_shown(shown: &str, printed: &str) -> bool {
    let (shown, printed) = (shown.trim_end(), printed.trim_end());
    let parts: Vec<_> = shown.split('…').collect();
    let [first, between @ .., last] = &parts[..] else { return shown == printed };
    let Some(rest) = printed.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else {
        return false;
    };
    between.iter().try_fold(rest, |rest, part| Some(rest.split_once(part)?.1)).is_some()
}

/// A kubeconfig with a namespace of its own.
async fn kubeconfig(server: &ApiServer, place: &Place) -> PathBuf {
    let namespace = server.namespace("page").await;
    let path = place.directory.path().join(format!("{namespace}.kubeconfig"));
    fs::copy(&server.kubeconfig, &path).unwrap();
    printed(server.kubectl().env("KUBECONFIG", &path).args([
        "config",
        "set-context",
        "--current",
        "--namespace",
        &namespace,
    ]));
    path
}

#[tokio::test]
async fn every_command_and_manifest_of_a_page_does_what_the_page_says() {
    let server = api_server().await;
    for namespace in ["voicedock-system", "acme"] {
        printed(server.kubectl().args(["create", "namespace", namespace]));
    }
    let place = Place::new();
    let (mut wrong, mut ran) = (Vec::new(), 0);
    for page in pages::all() {
        let blocks = pages::blocks(&page);
        let (commands, rest): (Vec<_>, Vec<_>) = blocks
            .iter()
            .filter(|block| block.mark == Mark::Unmarked && block.language != "text")
            .partition(|block| matches!(block.language.as_str(), "sh" | "console"));
        if commands.is_empty() && rest.is_empty() {
            continue;
        }
        let kubeconfig = kubeconfig(&server, &place).await;
        ran += commands.len() + rest.len();
        for block in rest {
            wrong.extend(taken(block, &place, &kubeconfig).err());
        }
        match place.run(&commands, &kubeconfig) {
            Err(why) => wrong.push(why),
            Ok(printed) => {
                for (block, printed) in
                    commands.iter().zip(&printed).filter(|(block, _)| block.language == "console")
                {
                    let shown: Vec<_> = block.text.lines().filter(|line| !line.starts_with("$ ")).collect();
                    if !as_shown(&shown, &printed.lines().collect::<Vec<_>>()) {
                        wrong.push(format!("{block}: prints something else:\n{printed}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ran > 20, "{ran}");
}

/// Whether the API server takes a manifest, or JSON is JSON.
fn taken(block: &Block, place: &Place, kubeconfig: &Path) -> Result<(), String> {
    if block.language == "json" {
        let lines = || block.text.lines().map(serde_json::from_str::<serde_json::Value>);
        let whole = serde_json::from_str::<serde_json::Value>(&block.text).is_ok()
            || lines().all(|line| line.is_ok());
        return if whole { Ok(()) } else { Err(format!("{block}: is not JSON")) };
    }
    let file = place.directory.path().join("manifest.yaml");
    fs::write(&file, &block.text).unwrap();
    let mut kubectl = Command::new("kubectl");
    kubectl.env("PATH", &place.path).env("KUBECONFIG", kubeconfig);
    let done = output(kubectl.args(["apply", "--dry-run=server", "--filename"]).arg(file));
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("{block}: {}", String::from_utf8_lossy(&done.stderr))),
    }
}

#[test]
fn what_a_page_shows_may_leave_something_out() {
    assert!(as_shown(&["a … c", "…", "z"], &["a b c", "1", "2", "z"]));
    assert!(line_as_shown("at …:", "at 10:00:") && line_as_shown("a…b…c", "abbc"));
    assert!(as_shown(&["a…"], &["abc"]) && as_shown(&["…"], &[]) && as_shown(&["…b"], &["ab"]));
    assert!(
        !as_shown(&["a…b"], &["abc"]) && !as_shown(&["a"], &["a", "b"]) && !as_shown(&["a", "b"], &["a"])
    );
}
