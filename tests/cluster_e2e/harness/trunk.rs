//! Kamailio as a carrier's trunk that demands digest authentication and puts calls through to one phone.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use super::process::Process;
use super::sipp::free_port;
use super::wait::until_true;

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
        let args = [
            // Kamailio is a family of processes: in a PID namespace they all end with the first one.
            "--pid".to_owned(),
            "--fork".to_owned(),
            "--kill-child".to_owned(),
            "kamailio".to_owned(),
            "-f".to_owned(),
            config.display().to_string(),
            format!("--substdef=!_LISTEN_!udp:{host}:{port}!g"),
            format!("--substdef=!_PHONE_!{host}:{phone}!g"),
            // In the foreground, one process group, logs on standard error, little memory.
            "-DD".to_owned(),
            "-E".to_owned(),
            "-m16".to_owned(),
            "-M4".to_owned(),
            "-Y".to_owned(),
            directory.display().to_string(),
        ];
        let process = Process::start("trunk", directory, "unshare", &args, Vec::new());
        let socket = UdpSocket::bind((host, 0)).expect("this machine's address can be bound");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("the time isn't zero");
        let own = socket.local_addr().expect("the socket is bound");
        let ping = format!(
            "OPTIONS sip:{host}:{port} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK-ping\r\n\
             From: <sip:ping@{own}>;tag=ping\r\nTo: <sip:{host}>\r\nCall-ID: ping-{own}\r\nCSeq: 1 OPTIONS\r\n\
             Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
        until_true("Kamailio answers", Duration::from_secs(10), || {
            socket.send_to(ping.as_bytes(), (host, port)).is_ok() && socket.recv(&mut [0; 4096]).is_ok()
        });
        Self { port, _process: process }
    }
}
