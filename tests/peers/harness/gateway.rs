//! One gateway process, as a pod that restarts while no API server can be reached: it starts from its disk copy.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use voicedock::gateway::snapshot::Credential;
use voicedock::routing::table::CredentialId;

use super::control::Control;
use super::disk_copy;
use super::process::Process;
use super::wait::{SOON, until};

/// Where it takes SIP over UDP and TCP, and over TLS.
pub const SIP: (u16, u16) = (5060, 5061);

const HTTP: u16 = 8080;
const KEY: &str = "the-key";
/// What it logs: nothing of the API server that it can't find.
const LOGS: &str = "voicedock=info,voicedock::gateway::table=off,voicedock::gateway::acknowledge=off,\
                    voicedock::gateway::peers=off";
/// Longest wait for an answer over HTTP.
const PATIENCE: Duration = Duration::from_secs(5);

/// A gateway process.
pub struct Gateway {
    /// It.
    pub process: Process,
    host: IpAddr,
}

/// What a gateway is told.
pub struct Setup {
    /// Its address.
    pub host: IpAddr,
    /// Its table.
    pub table: Value,
    /// What its trunks' credentials are.
    pub credentials: BTreeMap<CredentialId, Credential>,
    /// Seconds that it waits for its calls when it is told to stop.
    pub drain_seconds: u32,
}

impl Gateway {
    /// Starts it and waits until it takes calls.
    pub fn start(directory: &Path, setup: Setup) -> Self {
        let file = |name: &str| directory.join(name).display().to_string();
        let written = fs::create_dir_all(directory.join("keys"))
            .and_then(|()| fs::write(directory.join("keys/key"), KEY))
            .and_then(|()| fs::write(directory.join("kubeconfig"), disk_copy::nowhere().to_string()));
        written.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        disk_copy::write(&directory.join("state"), "voice/default", setup.table, setup.credentials);
        let (host, (open, secured)) = (setup.host, SIP);
        let args = [
            format!("KUBECONFIG={}", file("kubeconfig")),
            format!("RUST_LOG={LOGS}"),
            env!("CARGO_BIN_EXE_voicedock").to_owned(),
            "gateway".to_owned(),
            "--pod-name=gw-1".to_owned(),
            "--pod-uid=uid-of-gw-1".to_owned(),
            "--pod-namespace=voice".to_owned(),
            format!("--pod-ip={host}"),
            "--gateway=default".to_owned(),
            format!("--listeners=udp:{open},tcp:{open},tls:{secured}"),
            format!("--http={}", SocketAddr::new(host, HTTP)),
            format!("--state={}", file("state")),
            format!("--api-keys={}", file("keys")),
            format!("--certificates={}", file("certificates")),
            format!("--drain-seconds={}", setup.drain_seconds),
        ];
        let process = Process::start("gateway", directory, "env", &args, Vec::new());
        let gateway = Self { process, host };
        until("the gateway is ready", SOON, || match gateway.get("/readyz") {
            Some((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        gateway
    }

    /// Call control.
    pub fn control(&self) -> Control {
        Control::new(self.host, KEY)
    }

    /// Its metrics, as a scraper sees them.
    pub fn metrics(&self) -> String {
        self.get("/metrics").map(|(_, body)| body).unwrap_or_default()
    }

    /// Waits for it to end by itself.
    pub fn ends_well(&mut self) {
        let status = self.process.end(SOON).unwrap_or_else(|late| panic!("{late}"));
        assert!(status.success(), "the gateway ended with {status}");
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let address = SocketAddr::new(self.host, HTTP);
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }
}
