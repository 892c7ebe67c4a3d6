//! The command line and nothing else: `voicedock <role>`.
//!
//! A role is a module with `Args` (what the command line takes) and `run(Args)`; its error is a sentence that ends up
//! on standard error, and the exit code is then 1.
//!
//! kubectl runs a program `kubectl-voicedock` for `kubectl voicedock`, and `kubectl_complete-voicedock` to complete it: under these
//! names, which are links, the program is its plugin.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::resources::crds;
use crate::{api, cli, gateway, operator, simulate};

/// Answers phone numbers with AI assistants and hands callers to humans, configured by Kubernetes resources.
#[derive(Parser)]
#[command(name = "voicedock", version, propagate_version = true)]
pub struct CommandLine {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Run the product's REST API: assistants, numbers and trunks as resources, calls of every gateway
    Api(Box<api::Args>),
    /// Create, list and revoke keys of the REST API
    ApiKey(api::key_command::Args),
    /// Place calls: dial a destination once and report
    Call(api::call_command::Args),
    /// List the calls that there are, or follow them
    Calls(cli::calls::Args),
    /// Check manifests as the API server and the operator would, without either
    Check(cli::check::Args),
    /// Write a script with which a shell completes commands and flags
    Completion(cli::completion::Args),
    /// Write the CustomResourceDefinitions as YAML
    Crds(crds::Args),
    /// Say what would happen to a call, or to a transfer of it, and which rule decides
    Explain(cli::explain::Args),
    /// Run a SIP gateway: answers calls by the routing table that the operator publishes
    Gateway(Box<gateway::Args>),
    /// Write the man pages
    Man(cli::man::Args),
    /// Run the control plane: compile resources into routing tables, publish them, run the gateway pods
    Operator(Box<operator::Args>),
    /// Play a caller, an assistant's agent or a PBX, for the demo and tests
    Simulate(Box<simulate::Args>),
    /// Say how gateways and trunks are, and what isn't Ready and why
    Status(cli::status::Args),
}

/// What the program is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// By its own name, or any other.
    Program,
    /// As kubectl's plugin.
    Plugin,
    /// To complete the plugin's command line.
    Completer,
}

impl Start {
    fn of(program: &OsStr) -> Self {
        match Path::new(program).file_stem().and_then(OsStr::to_str) {
            Some("kubectl-voicedock") => Self::Plugin,
            Some("kubectl_complete-voicedock") => Self::Completer,
            _ => Self::Program,
        }
    }

    /// The command line, with usage lines that can be typed.
    fn command(self) -> clap::Command {
        let command = CommandLine::command();
        match self {
            Self::Program => command.bin_name("voicedock"),
            Self::Plugin | Self::Completer => command.bin_name("kubectl voicedock"),
        }
    }
}

/// Runs what the words of a command line say, the program's own name first.
pub async fn run(words: Vec<OsString>) -> ExitCode {
    let start = Start::of(words.first().map_or(OsStr::new(""), OsString::as_os_str));
    let mut command = start.command();
    if start == Start::Completer {
        return cli::completion::answer_kubectl(&mut command, words);
    }
    let read = command.clone().try_get_matches_from(words);
    let read = read
        .and_then(|read| CommandLine::from_arg_matches(&read).map_err(|error| error.format(&mut command)));
    let role = match read {
        Ok(CommandLine { role }) => role,
        Err(error) => error.exit(),
    };
    match take(role).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("voicedock: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn take(role: Role) -> Result<ExitCode, Box<dyn Error>> {
    match role {
        Role::Api(args) => api::run(*args).await?,
        Role::ApiKey(args) => api::key_command::run(args).await?,
        Role::Call(args) => api::call_command::run(args).await?,
        Role::Calls(args) => return Ok(cli::calls::run(&args).await),
        Role::Check(args) => return Ok(cli::check::run(&args)),
        Role::Completion(args) => return Ok(cli::completion::run(&args, Start::Program.command())),
        Role::Crds(args) => crds::run(&args)?,
        Role::Explain(args) => return Ok(cli::explain::run(&args).await),
        Role::Gateway(args) => gateway::run(*args).await?,
        Role::Man(args) => return Ok(cli::man::run(&args, Start::Program.command())),
        Role::Operator(args) => operator::run(*args).await?,
        Role::Simulate(args) => simulate::run(*args).await?,
        Role::Status(args) => return Ok(cli::status::run(&args).await),
    }
    Ok(ExitCode::SUCCESS)
}
