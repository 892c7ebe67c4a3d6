//! SIPp as a party of a call: a scenario that runs, is told things and tells what it saw.

use std::fs;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process::Process;
use super::wait::{SOON, until, until_true};

/// One SIPp.
pub struct Sipp {
    name: String,
    /// Where it takes SIP.
    pub port: u16,
    /// What the Call-IDs of calls that it places begin with.
    calls: String,
    /// The port that it names in SDP; nothing is sent there.
    pub media: u16,
    host: IpAddr,
    log: PathBuf,
    errors: PathBuf,
    process: Process,
}

/// How a SIPp is started.
pub struct Setup<'a> {
    /// Its name in this test.
    pub name: &'a str,
    /// The scenario: a path below `tests`, without `.xml`.
    pub scenario: &'a str,
    /// Where its files go.
    pub directory: &'a Path,
    /// Its address.
    pub host: IpAddr,
    /// UDP, or TCP.
    pub transport: Transport,
    /// What the Call-IDs of calls that it places begin with: no two calls of a run may have the same.
    pub calls: String,
    /// Further arguments.
    pub args: Vec<String>,
    /// Whether each message is written down. Not for many calls.
    pub messages: bool,
}

/// Transport of a SIPp.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One socket for all calls, as a carrier has.
    Udp,
    /// One connection for all calls.
    Tcp,
}

/// A port that is free for UDP and TCP.
pub fn free_port(host: impl Into<IpAddr>) -> u16 {
    let host = host.into();
    until("there is a free port", SOON, || {
        let udp = UdpSocket::bind((host, 0))?;
        let port = udp.local_addr()?.port();
        TcpListener::bind((host, port)).map(|_| port)
    })
}

/// An address as SIP and SIPp write it: an IPv6 one in brackets.
pub fn in_uri(host: IpAddr) -> String {
    match host {
        IpAddr::V4(host) => host.to_string(),
        IpAddr::V6(host) => format!("[{host}]"),
    }
}

impl Sipp {
    /// Starts it and waits until it can take messages.
    pub fn start(setup: Setup<'_>) -> Self {
        let Setup { name, scenario, directory, host, transport, calls, args, messages } = setup;
        let (port, media) = (free_port(host), free_port(host));
        let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{scenario}.xml"));
        let file = |kind: &str| directory.join(format!("{name}.{kind}"));
        let (log, errors, trace) = (file("log"), file("errors"), file("messages"));
        let mut all: Vec<String> = vec![
            "-sf".to_owned(),
            scenario.display().to_string(),
            "-i".to_owned(),
            in_uri(host),
            "-p".to_owned(),
            port.to_string(),
            "-t".to_owned(),
            if transport == Transport::Udp { "u1" } else { "t1" }.to_owned(),
            "-key".to_owned(),
            "media".to_owned(),
            media.to_string(),
            "-cid_str".to_owned(),
            format!("{calls}%u"),
            "-nostdin".to_owned(),
            "-trace_err".to_owned(),
            "-error_file".to_owned(),
            errors.display().to_string(),
            "-trace_logs".to_owned(),
            "-log_file".to_owned(),
            log.display().to_string(),
        ];
        if messages {
            all.extend(["-trace_msg".to_owned(), "-message_file".to_owned(), trace.display().to_string()]);
        }
        all.extend(args);
        let files = vec![log.clone(), errors.clone(), trace];
        let process = Process::start(name, directory, "sipp", &all, files);
        let mut sipp = Self { name: name.to_owned(), port, calls, media, host, log, errors, process };
        until_true(&format!("{name} listens"), SOON, || {
            sipp.process.status().is_some()
                || UdpSocket::bind((host, port)).is_err()
                || TcpListener::bind((host, port)).is_err()
        });
        sipp
    }

    /// Waits for a line of its log that has all these parts, and returns the line.
    pub fn sees(&self, parts: &[&str]) -> String {
        self.sees_within(parts, SOON)
    }

    /// As [`Self::sees`], with a time-out of your own.
    pub fn sees_within(&self, parts: &[&str], limit: Duration) -> String {
        until(&format!("{} sees {parts:?}", self.name), limit, || {
            let log = self.log();
            let found = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
            found.map(str::to_owned).ok_or_else(|| format!("it saw:\n{log}"))
        })
    }

    /// What it saw until now.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The Call-ID in the first line of its log that has all these parts, which it writes as `what: Call-ID, …`.
    pub fn call_id(&self, parts: &[&str]) -> String {
        let line = self.sees(parts);
        let (_, rest) = line.split_once(": ").unwrap_or_else(|| panic!("'{line}' names no call"));
        rest.split(',').next().unwrap_or(rest).trim().to_owned()
    }

    /// Call-ID of the n-th call that it places, from 1.
    pub fn placed(&self, n: u32) -> String {
        format!("{}{n}", self.calls)
    }

    /// Tells it to do the next thing in one of its calls: to answer, to hang up.
    pub fn go_on(&self, call: &str) {
        self.tell("INFO", call, "");
    }

    /// Tells an agent to ask for a transfer.
    pub fn ask_for_transfer(&self, call: &str, target: &str) {
        self.ask_in_its_way(call, &format!("Refer-To: <{target}>\r\n"));
    }

    /// As [`Self::ask_for_transfer`], with header lines of its own from Refer-To on.
    pub fn ask_in_its_way(&self, call: &str, headers: &str) {
        self.tell("MESSAGE", call, headers);
    }

    fn tell(&self, method: &str, call: &str, header: &str) {
        let socket = UdpSocket::bind((self.host, 0)).expect("this machine's address can be bound");
        let host = in_uri(self.host);
        let own = socket.local_addr().expect("the socket is bound");
        // Each has a branch of its own: SIPp takes equal messages for repetitions.
        let branch = own.port();
        let text = format!(
            "{method} sip:{host} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK-test-{branch}\r\n\
             From: <sip:test@{own}>;tag=test\r\nTo: <sip:{host}>\r\nCall-ID: {call}\r\nCSeq: {branch} {method}\r\n\
             {header}Content-Length: 0\r\n\r\n"
        );
        socket.send_to(text.as_bytes(), (self.host, self.port)).expect("a datagram can be sent");
    }

    /// Takes no more calls, and ends with the last one that there is.
    pub fn finish(&self) {
        self.process.signal("USR1");
    }

    /// Waits for it to end by itself, every call as its scenario says.
    pub fn ends_well(&mut self) {
        self.ends_well_within(SOON);
    }

    /// As [`Self::ends_well`], with a time-out of your own.
    pub fn ends_well_within(&mut self, limit: Duration) {
        let errors = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        match self.process.end(limit) {
            Ok(status) if status.success() => {}
            Ok(status) => panic!("a call of {} failed ({status}):\n{}", self.name, errors(&self.errors)),
            Err(late) => panic!("{late}; it saw:\n{}\n{}", self.log(), errors(&self.errors)),
        }
    }
}
