//! Kamailio in the foreground, until it answers.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use super::process::Process;
use super::wait::until_true;

/// How much memory it gets, MiB.
pub struct Memory {
    /// That its processes share.
    pub shared: u32,
    /// Of each of them.
    pub own: u32,
}

/// Starts it with `config`, in which these words are replaced; `_LISTEN_` by `own`, where it takes SIP over UDP.
pub fn start(
    name: &str,
    directory: &Path,
    config: &Path,
    own: SocketAddr,
    words: &[(&str, String)],
    memory: &Memory,
) -> Process {
    // Kamailio is a family of processes: in a PID namespace they all end with the first one.
    let mut args: Vec<String> =
        ["--pid", "--fork", "--kill-child", "kamailio", "-f"].map(str::to_owned).into();
    args.extend([config.display().to_string(), format!("--substdef=!_LISTEN_!udp:{own}!g")]);
    args.extend(words.iter().map(|(word, value)| format!("--substdef=!{word}!{value}!g")));
    // In the foreground, one process group, logs on standard error.
    args.extend(["-DD", "-E"].map(str::to_owned));
    args.extend([format!("-m{}", memory.shared), format!("-M{}", memory.own)]);
    args.extend(["-Y".to_owned(), directory.display().to_string()]);
    let process = Process::start(name, directory, "unshare", &args, Vec::new());

    let socket = UdpSocket::bind((own.ip(), 0)).expect("this machine's address can be bound");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("the time isn't zero");
    let from = socket.local_addr().expect("the socket is bound");
    let ping = format!(
        "OPTIONS sip:{own} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK-ping\r\nFrom: <sip:ping@{from}>;tag=ping\r\n\
         To: <sip:{own}>\r\nCall-ID: ping-{from}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
    until_true("Kamailio answers", Duration::from_secs(10), || {
        socket.send_to(ping.as_bytes(), own).is_ok() && socket.recv(&mut [0; 4096]).is_ok()
    });
    process
}
