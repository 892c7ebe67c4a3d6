//! Kamailio as a carrier at which gateways register, and that sends calls to where they are.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use super::kamailio::{self, Memory};
use super::process::Process;
use super::sipp::free_port;
use super::wait::{SOON, until};

/// User name and password of its only customer.
pub const LOGIN: (&str, &str) = ("acme", "secret");

/// A running registrar; its realm is `registrar.example`.
pub struct Registrar {
    /// Where it takes SIP over UDP.
    pub at: SocketAddrV4,
    log: PathBuf,
    _process: Process,
}

impl Registrar {
    /// Starts it on `host`.
    pub fn start(directory: &Path, host: Ipv4Addr) -> Self {
        let at = SocketAddrV4::new(host, free_port(host));
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/kamailio/registrar.cfg");
        let memory = Memory { shared: 16, own: 4 };
        let process = kamailio::start("registrar", directory, &config, SocketAddr::V4(at), &[], &memory);
        Self { at, log: directory.join("registrar.out"), _process: process }
    }

    /// Contacts that were registered, refreshed ones too, in the order of time.
    pub fn contacts(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines()
            .filter_map(|line| Some(line.split_once("registered: acme for 120 at ")?.1.to_owned()))
            .collect()
    }

    /// Waits for a Contact after the first `known`.
    pub fn registers_after(&self, known: usize) -> String {
        until("a gateway registers", SOON, || {
            let contact = self.contacts().get(known).cloned();
            contact.ok_or_else(|| fs::read_to_string(&self.log).unwrap_or_default())
        })
    }
}
