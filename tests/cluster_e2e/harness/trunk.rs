//! Kamailio as a carrier's trunk that demands digest authentication and puts calls through to one phone.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::kamailio::{self, Memory};
use super::process::Process;
use super::sipp::free_port;

/// User name and password of the first customer.
pub const BEFORE: (&str, &str) = ("before", "correct horse");
/// User name and password of the second.
pub const AFTER: (&str, &str) = ("after", "battery staple");

/// A running trunk.
pub struct Trunk {
    /// Where it takes SIP over UDP.
    pub port: u16,
    _process: Process,
}

impl Trunk {
    /// Starts it on `host`, in front of the phone on `phone`'s port.
    pub fn start(directory: &Path, host: Ipv4Addr, phone: u16) -> Self {
        let port = free_port(host);
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster_e2e/kamailio/trunk.cfg");
        let own = SocketAddr::from((host, port));
        let words = [("_PHONE_", format!("{host}:{phone}")), ("_ALGORITHM_", "MD5".to_owned())];
        let process =
            kamailio::start("trunk", directory, &config, own, &words, &Memory { shared: 16, own: 4 });
        Self { port, _process: process }
    }
}
