//! The command line and nothing else: `voicedock <role>`.
//!
//! A role is a module with `Args` (what the command line takes) and `run(Args)`; its error is a sentence that ends up
//! on standard error, and the exit code is then 1.

use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    /// Write the CustomResourceDefinitions as YAML
    Crds(crds::Args),
    /// Say what would happen to a call, or to a transfer of it, and which rule decides
    Explain(cli::explain::Args),
    /// Run a SIP gateway: answers calls by the routing table that the operator publishes
    Gateway(Box<gateway::Args>),
    /// Run the control plane: compile resources into routing tables, publish them, run the gateway pods
    Operator(Box<operator::Args>),
    /// Play a caller, an assistant's agent or a PBX, for the demo and tests
    Simulate(Box<simulate::Args>),
    /// Say how gateways and trunks are, and what isn't Ready and why
    Status(cli::status::Args),
}

/// Runs what the words of a command line say, the program's own name first.
pub async fn run(words: Vec<OsString>) -> ExitCode {
    match take(CommandLine::parse_from(words).role).await {
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
        Role::Crds(args) => crds::run(&args)?,
        Role::Explain(args) => return Ok(cli::explain::run(&args).await),
        Role::Gateway(args) => gateway::run(*args).await?,
        Role::Operator(args) => operator::run(*args).await?,
        Role::Simulate(args) => simulate::run(*args).await?,
        Role::Status(args) => return Ok(cli::status::run(&args).await),
    }
    Ok(ExitCode::SUCCESS)
}
