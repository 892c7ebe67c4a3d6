//! One gateway process, as a pod that restarts while no API server can be reached: it starts from its disk copy.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::client::Client;
use crate::disk_copy;
use crate::process::Process;
use crate::support::free_address;
use crate::wait::{SOON, until};

/// The number that callers dial.
pub const NUMBER: &str = "+31201234567";
/// The number of calls that are timed, which another agent answers.
pub const TIMED_NUMBER: &str = "+31201234568";
/// The name of the destination that calls are transferred to, and its number.
pub const DESTINATION: (&str, &str) = ("sales", "+31612345678");

const KEY: &str = "bench";

/// A gateway process.
pub struct Gateway {
    /// It.
    pub process: Process,
    /// Where it takes SIP.
    pub sip: SocketAddr,
    http: SocketAddr,
}

/// What a gateway is told.
pub struct Setup<'a> {
    /// The program.
    pub program: &'a Path,
    /// An empty directory for its files.
    pub directory: &'a Path,
    /// Who answers calls.
    pub agent: SocketAddr,
    /// Who answers calls that are timed.
    pub timed: SocketAddr,
    /// The trunk that transfers go to.
    pub human: SocketAddr,
    /// Calls at once.
    pub max_calls: usize,
}

impl Gateway {
    /// Starts it and waits until it takes calls.
    pub fn start(setup: &Setup<'_>) -> Self {
        let Setup { program, directory, agent, timed, human, max_calls } = setup;
        let (keys, kubeconfig) = (directory.join("keys"), directory.join("kubeconfig"));
        // As kubelet mounts a Secret.
        let written = fs::create_dir_all(keys.join("..version"))
            .and_then(|()| fs::write(keys.join("..version/key"), KEY))
            .and_then(|()| symlink("..version", keys.join("..data")))
            .and_then(|()| symlink("..data/key", keys.join("key")))
            .and_then(|()| fs::write(&kubeconfig, disk_copy::nowhere().to_string()));
        written.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        disk_copy::write(
            &directory.join("state"),
            "voice/default",
            table(*agent, *timed, *human),
            BTreeMap::new(),
        );
        let (sip, http) = (free_address(), free_address());
        let args = [
            format!("KUBECONFIG={}", kubeconfig.display()),
            program.display().to_string(),
            "gateway".to_owned(),
            "--pod-name=bench".to_owned(),
            "--pod-uid=bench".to_owned(),
            "--pod-namespace=voice".to_owned(),
            format!("--pod-ip={}", sip.ip()),
            "--gateway=default".to_owned(),
            format!("--listeners=udp:{}", sip.port()),
            format!("--http={http}"),
            format!("--state={}", directory.join("state").display()),
            format!("--api-keys={}", keys.display()),
            format!("--max-calls={max_calls}"),
            "--max-calls-per-second=100000".to_owned(),
            "--drain-seconds=0".to_owned(),
        ];
        let process = Process::start("gateway", directory, "env", &args, Vec::new());
        let gateway = Self { process, sip, http };
        until("the gateway is ready", SOON, || {
            gateway
                .client()
                .and_then(|mut http| http.ask("GET", "/readyz", ""))
                .and_then(|(status, body)| if status == 200 { Ok(()) } else { Err(io::Error::other(body)) })
        });
        gateway
    }

    /// A connection for call control.
    pub fn client(&self) -> io::Result<Client> {
        Client::connect(self.http, KEY)
    }
}

fn table(agent: SocketAddr, timed: SocketAddr, human: SocketAddr) -> Value {
    let (name, number) = DESTINATION;
    let sip = |agent: SocketAddr| {
        json!({ "sip": {
            "targets": [{
                "uri": format!("sip:agent@{agent}"), "host": agent.ip().to_string(), "port": agent.port(),
                "transport": "UDP",
            }],
            "answerTimeoutSeconds": 20,
        } })
    };
    json!({
        "numbers": {
            NUMBER: { "object": "acme/main-line", "assistant": "acme/support", "transferTrunk": "acme/office" },
            TIMED_NUMBER: { "object": "acme/timed", "assistant": "acme/timed" },
        },
        "assistants": {
            "acme/support": { "agent": sip(agent), "destinations": { name: format!("acme/{name}") } },
            "acme/timed": { "agent": sip(timed) },
        },
        "destinations": { format!("acme/{name}"): {
            "target": { "number": number }, "description": "Sales team", "ringTimeoutSeconds": 20,
            "callerId": "preserve", "returnToAssistant": true,
        } },
        "trunks": { "acme/office": {
            "host": human.ip().to_string(), "port": human.port(), "transport": "UDP",
            "allowedSources": ["127.0.0.1/32"], "numberFormat": "e164", "callerIdHeader": "PAI",
            "allowedNamespaces": ["acme"],
        } },
    })
}
