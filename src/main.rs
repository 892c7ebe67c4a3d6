//! The command line and nothing else: `voicedock <role>`.
//!
//! A role is a module with `Args` (what the command line takes) and `run(Args)`; its error is a sentence that ends up
//! on standard error, and the exit code is then 1.

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use voicedock::resources::crds;
use voicedock::{api, cli, gateway, operator, simulate};

/// Gives memory back after a peak of calls, which the system's allocator does not.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Answers phone numbers with AI assistants and hands callers to humans, configured by Kubernetes resources.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct CommandLine {
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
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(CommandLine::parse().role).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("voicedock: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(role: Role) -> Result<ExitCode, Box<dyn Error>> {
    match role {
        Role::Api(args) => api::run(*args).await?,
        Role::ApiKey(args) => api::key_command::run(args).await?,
        Role::Call(args) => api::call_command::run(args).await?,
        Role::Check(args) => return Ok(cli::check::run(&args)),
        Role::Crds(args) => crds::run(&args)?,
        Role::Explain(args) => return Ok(cli::explain::run(&args).await),
        Role::Gateway(args) => gateway::run(*args).await?,
        Role::Operator(args) => operator::run(*args).await?,
        Role::Simulate(args) => simulate::run(*args).await?,
    }
    Ok(ExitCode::SUCCESS)
}
