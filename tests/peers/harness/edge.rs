//! Kamailio: the edge of a carrier or an office, or a registrar.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::gateway::SIP;
use super::kamailio::{self, Memory};
use super::network::GATEWAY;
use super::process::Process;
use super::stage::Stage;
use super::wait::{SOON, until};

/// Where it takes SIP over UDP and TCP, and over TLS.
pub const PORTS: (u16, u16) = (5060, 5061);

/// A running Kamailio.
pub struct Edge {
    name: String,
    log: PathBuf,
    _process: Process,
}

impl Edge {
    /// A proxy between the gateway and `phone`, over UDP and TCP. It calls the gateway at `entrance`, such as
    /// `;transport=tcp`.
    pub fn start(stage: &Stage, name: &str, host: Ipv4Addr, phone: (Ipv4Addr, u16), entrance: &str) -> Self {
        let stream = format!("tcp:{host}:{}", PORTS.0);
        let entrance = format!("sip:{GATEWAY}:{}{entrance}", SIP.0);
        Self::run(stage, name, "edge", "", host, &words(phone, stream, entrance))
    }

    /// The same over UDP and TLS; its certificate, its key and its authority's are in `edge.crt`, `edge.key` and `ca.crt`.
    pub fn secured(stage: &Stage, name: &str, host: Ipv4Addr, phone: (Ipv4Addr, u16), files: &Path) -> Self {
        let stream = format!("tls:{host}:{}", PORTS.1);
        let entrance = format!("sip:{GATEWAY}:{};transport=tls", SIP.1);
        let mut words = words(phone, stream, entrance);
        words.push(("_CERTIFICATES_", files.display().to_string()));
        Self::run(stage, name, "edge", "#!define WITH_TLS\n", host, &words)
    }

    /// A registrar for one customer, `acme` with the password `secret`.
    pub fn registrar(stage: &Stage, host: Ipv4Addr) -> Self {
        Self::run(stage, "registrar", "registrar", "", host, &[])
    }

    /// A trunk that demands digest authentication with this algorithm and puts calls through to `phone`.
    pub fn demanding(stage: &Stage, host: Ipv4Addr, phone: (Ipv4Addr, u16), algorithm: &str) -> Self {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster_e2e/kamailio/trunk.cfg");
        let (phone, port) = phone;
        let words = [("_PHONE_", format!("{phone}:{port}")), ("_ALGORITHM_", algorithm.to_owned())];
        Self::run_file(stage, "trunk", &config, host, &words)
    }

    /// Runs a config of `kamailio/` with these lines before it.
    fn run(
        stage: &Stage,
        name: &str,
        config: &str,
        before: &str,
        host: Ipv4Addr,
        words: &[(&str, String)],
    ) -> Self {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/peers/kamailio/{config}.cfg"));
        let text =
            format!("#!KAMAILIO\n{before}tcp_source_ipv4={host}\ninclude_file \"{}\"\n", config.display());
        let file = stage.directory.join(format!("{name}.cfg"));
        fs::write(&file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Self::run_file(stage, name, &file, host, words)
    }

    fn run_file(stage: &Stage, name: &str, config: &Path, host: Ipv4Addr, words: &[(&str, String)]) -> Self {
        let own = SocketAddr::from((host, PORTS.0));
        let memory = Memory { shared: 32, own: 8 };
        let process = kamailio::start(name, &stage.directory, config, own, words, &memory);
        Self { name: name.to_owned(), log: stage.directory.join(format!("{name}.out")), _process: process }
    }

    /// Waits for a line of its log that has all these parts, and returns the line.
    pub fn sees(&self, parts: &[&str]) -> String {
        until(&format!("{} sees {parts:?}", self.name), SOON, || {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let found = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
            found.map(str::to_owned).ok_or(log)
        })
    }

    /// How many lines of its log have all these parts.
    pub fn times(&self, parts: &[&str]) -> usize {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }
}

fn words((host, port): (Ipv4Addr, u16), stream: String, entrance: String) -> Vec<(&'static str, String)> {
    vec![
        ("_STREAM_", stream),
        ("_GATEWAY_", GATEWAY.to_string()),
        ("_ENTRANCE_", entrance),
        ("_PHONE_", format!("{host}:{port}")),
    ]
}
