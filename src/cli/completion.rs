//! Completion in shells: `voicedock completion SHELL`, and what kubectl asks its plugin.

use std::ffi::OsString;
use std::process::ExitCode;

use clap_complete::{Shell, engine};

use super::{WELL, written};

/// Tells kubectl that files of the current directory are no candidates (`ShellCompDirectiveNoFileComp` of cobra).
const NO_FILES: u8 = 4;
/// Tells it to put no space behind the candidate (`ShellCompDirectiveNoSpace`).
const NO_SPACE: u8 = 2;

/// What `voicedock completion` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Runs `voicedock completion`: writes a script that the shell reads at its start.
pub fn run(args: &Args, mut command: clap::Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "voicedock", &mut script);
    written(&script, WELL)
}

/// Answers kubectl, which runs `kubectl_complete-voicedock WORD… PART` for `kubectl voicedock WORD… PART<Tab>`: candidates with
/// their descriptions, then what the shell is to do with them, as cobra's `__complete` has it.
pub fn answer_kubectl(command: &mut clap::Command, words: Vec<OsString>) -> ExitCode {
    let at = words.len().saturating_sub(1);
    let here = std::env::current_dir().ok();
    let candidates = engine::complete(command, words, at, here.as_deref()).unwrap_or_default();
    let mut answer = String::new();
    let mut directive = NO_FILES;
    for candidate in candidates.iter().filter(|candidate| !candidate.is_hide_set()) {
        let value = candidate.get_value().to_string_lossy();
        if value.ends_with('/') {
            directive |= NO_SPACE;
        }
        answer.push_str(&value);
        if let Some(help) = candidate.get_help() {
            let help = help.to_string();
            answer.push('\t');
            answer.push_str(help.lines().next().unwrap_or_default());
        }
        answer.push('\n');
    }
    written(format!("{answer}:{directive}\n").as_bytes(), WELL)
}
