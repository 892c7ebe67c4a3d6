//! The command line itself: man pages, completion, kubectl's plugin, and its page in the documentation.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use std::fmt::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use clap::{Arg, CommandFactory};
use support::tools::{output, printed, tool};
use voicedock::command_line::CommandLine;

const PROGRAM: &str = env!("CARGO_BIN_EXE_voicedock");

fn voicedock(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Every command with the words that call it.
fn commands() -> Vec<(String, clap::Command)> {
    fn below(words: &str, command: &clap::Command, found: &mut Vec<(String, clap::Command)>) {
        found.push((words.to_owned(), command.clone()));
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            below(&format!("{words} {}", inner.get_name()), inner, found);
        }
    }
    let mut root = CommandLine::command();
    root.build();
    let mut found = Vec::new();
    below("voicedock", &root, &mut found);
    found
}

#[test]
fn every_command_has_a_man_page() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("man1");
    printed(voicedock(&["man", "--out"]).arg(&out));
    let commands = commands();
    assert!(commands.len() > 20, "{}", commands.len());
    for (words, command) in commands {
        let page = out.join(words.replace(' ', "-") + ".1");
        let text = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        let about = command.get_about().unwrap().to_string();
        let first = about.split([' ', '\'', '-', '.']).next().unwrap();
        assert!(text.contains(".SH NAME") && text.contains(first), "{words}: {text}");
    }
    // The program that people read them with takes them.
    let page = out.join("voicedock-status.1");
    let shown = Command::new("man").arg("--warnings").arg("-l").arg(&page).env("MANPAGER", "cat").output();
    if let Ok(shown) = shown {
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(text.contains("--all-namespaces"), "{text}");
    }
}

/// What bash offers after these words, the last of which is begun.
fn offered(words: &[&str]) -> String {
    let script = r#"
        source <("$0" completion bash)
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        function=$(complete -p voicedock); function=${function#*-F }; function=${function%% *}
        "$function" voicedock "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        echo "${COMPREPLY[*]}"
    "#;
    let mut bash = Command::new("bash");
    bash.args(["--noprofile", "--norc", "-c", script, PROGRAM]).args(words);
    printed(&mut bash).trim().to_owned()
}

#[test]
fn bash_completes_commands_and_flags() {
    assert_eq!(offered(&["voicedock", "st"]), "status");
    assert_eq!(offered(&["voicedock", "status", "--all"]), "--all-namespaces");
    assert_eq!(offered(&["voicedock", "status", "--output", "j"]), "json");
    for shell in ["zsh", "fish", "powershell", "elvish"] {
        assert!(printed(&mut voicedock(&["completion", shell])).contains("status"), "{shell}");
    }
}

/// kubectl, which finds the program under the names of its plugin.
fn kubectl(links: &Path, arguments: &[&str]) -> Command {
    for name in ["kubectl-voicedock", "kubectl_complete-voicedock"] {
        if !links.join(name).exists() {
            symlink(PROGRAM, links.join(name)).unwrap();
        }
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let paths = env::join_paths([links.to_owned()].into_iter().chain(env::split_paths(&path))).unwrap();
    let mut command = Command::new(tool("kubectl"));
    command.args(arguments).env("PATH", paths).env("KUBECONFIG", "/nowhere").stdin(Stdio::null());
    command
}

#[test]
fn kubectl_runs_it_as_its_plugin_with_usage_lines_that_can_be_typed() {
    let links = tempfile::tempdir().unwrap();
    let listed = printed(&mut kubectl(links.path(), &["plugin", "list"]));
    assert!(listed.contains("kubectl-voicedock"), "{listed}");
    let help = printed(&mut kubectl(links.path(), &["voicedock", "status", "--help"]));
    assert!(help.contains("Usage: kubectl voicedock status [OPTIONS]"), "{help}");
    let wrong = output(&mut kubectl(links.path(), &["voicedock", "stat"]));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(wrong.status.code() == Some(2) && said.contains("'status'"), "{said}");
    assert!(said.contains("Usage: kubectl voicedock"), "{said}");
    let own = printed(&mut voicedock(&["status", "--help"]));
    assert!(own.contains("Usage: voicedock status [OPTIONS]"), "{own}");
}

#[test]
fn kubectl_completes_its_plugin() {
    let links = tempfile::tempdir().unwrap();
    let completed = |words: &[&str]| {
        let words: Vec<&str> = ["__complete", "voicedock"].into_iter().chain(words.iter().copied()).collect();
        printed(&mut kubectl(links.path(), &words))
    };
    let said = completed(&["st"]);
    assert!(said.starts_with("status\t") && said.ends_with(":4\n"), "{said}");
    assert!(completed(&["calls", "--fol"]).starts_with("--follow"));
    assert!(completed(&["status", "--output", ""]).contains("json"));
}

#[test]
fn without_a_cluster_a_question_ends_with_two_and_the_remedy() {
    for command in ["status", "calls"] {
        let answer = output(voicedock(&[command]).env("KUBECONFIG", "/nowhere").env("HOME", "/nowhere"));
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert!(answer.status.code() == Some(2) && said.contains("--kubeconfig"), "{command}: {said}");
    }
}

/// Stands before what is generated in the page.
const MARK: &str = "<!-- generated: VOICEDOCK_WRITE=1 cargo test --test command_line -->\n";

#[test]
fn the_documentation_has_every_command_with_its_flags() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/command-line.md");
    let text = fs::read_to_string(&page).unwrap();
    let (written, generated) = text.split_once(MARK).expect("the page has the mark");
    let expected = reference();
    if env::var_os("VOICEDOCK_WRITE").is_some() {
        fs::write(&page, format!("{written}{MARK}{expected}")).unwrap();
        return;
    }
    assert!(
        generated == expected,
        "docs/command-line.md is not what the program says; write it with VOICEDOCK_WRITE=1 cargo test --test command_line"
    );
}

/// A heading for every command, with a table of what it takes.
fn reference() -> String {
    let mut text = String::new();
    for (words, command) in commands().into_iter().skip(1) {
        let about = command.get_long_about().or(command.get_about()).unwrap().to_string();
        writeln!(text, "\n### {words}\n\n{about}").unwrap();
        let arguments: Vec<&Arg> = command
            .get_arguments()
            .filter(|argument| {
                !argument.is_hide_set() && !["help", "version"].contains(&argument.get_id().as_str())
            })
            .collect();
        if arguments.is_empty() {
            continue;
        }
        writeln!(text, "\n| | |\n| --- | --- |").unwrap();
        for argument in arguments {
            writeln!(text, "| {} | {} |", called(argument), said(argument)).unwrap();
        }
    }
    text
}

/// How an argument is written.
fn called(argument: &Arg) -> String {
    let values = argument.get_value_names().unwrap_or_default();
    let values: Vec<String> = values.iter().map(|name| format!("<{name}>")).collect();
    let takes = argument.get_action().takes_values();
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let mut names: Vec<String> = short.into_iter().chain(long).collect();
    match names.last_mut() {
        Some(last) if takes && !values.is_empty() => last.push_str(&format!(" {}", values.join(" "))),
        Some(_) => {}
        None => names = values,
    }
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// What is said of it, in one line.
fn said(argument: &Arg) -> String {
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let mut said =
        help.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|").replace('<', "\\<");
    let possible = argument.get_possible_values();
    if !possible.is_empty() && argument.get_action().takes_values() {
        let values: Vec<_> = possible.iter().map(|value| format!("`{}`", value.get_name())).collect();
        write!(said, ": {}", values.join(", ")).unwrap();
    }
    let defaults: Vec<_> =
        argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if argument.get_action().takes_values() && !argument.is_hide_default_value_set() && !defaults.is_empty() {
        write!(said, " [default: {}]", defaults.join(",")).unwrap();
    }
    if let Some(variable) = argument.get_env() {
        write!(said, " [{}]", variable.to_string_lossy()).unwrap();
    }
    said
}
