//! A phone made of PJSUA2, which knows what SIPp's scenarios and baresip don't: reliable provisional responses and session
//! timers, of its own accord and in both roles. It is told what to do and tells what it sees, every message included.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process::Process;
use super::stage::Stage;
use super::tools::cached;
use super::wait::{SOON, until};

/// Where phones take SIP.
pub const PORT: u16 = 5060;
const CONTROL: u16 = 4444;

/// One phone.
pub struct Phone {
    name: String,
    host: Ipv4Addr,
    log: PathBuf,
    process: Process,
}

/// A message that a phone has sent or received.
#[derive(Debug)]
pub struct Message {
    /// Whether it has sent it.
    pub sent: bool,
    text: String,
}

impl Message {
    /// The request line or the status line.
    pub fn start(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Whether this stands in it.
    pub fn says(&self, text: &str) -> bool {
        self.text.contains(text)
    }

    /// Whether a line of it, its body's included, is this.
    pub fn has_line(&self, line: &str) -> bool {
        self.text.lines().any(|found| found.trim() == line)
    }
}

impl Phone {
    /// Starts it with these options of `pjsua/phone.py` and waits until it takes calls.
    pub fn start(stage: &Stage, name: &str, host: Ipv4Addr, user: &str, options: &[&str]) -> Self {
        let library = cached("pjsua2").expect("PJSUA2 is missing: run `make tools`");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/pjsua/phone.py");
        let mut args =
            vec![format!("PYTHONPATH={}", library.display()), "python3".to_owned(), "-u".to_owned()];
        args.extend([script.display().to_string(), format!("--address={host}"), format!("--user={user}")]);
        args.extend(options.iter().map(|option| (*option).to_owned()));
        let process = Process::start(name, &stage.directory, "env", &args, Vec::new());
        let log = stage.directory.join(format!("{name}.out"));
        let phone = Self { name: name.to_owned(), host, log, process };
        phone.sees(&["phone: ready"]);
        phone
    }

    /// Tells it to do something; see `pjsua/phone.py`.
    pub fn tell(&self, command: &str) {
        let socket = UdpSocket::bind((self.host, 0)).expect("it is an address of ours");
        socket.send_to(command.as_bytes(), (self.host, CONTROL)).expect("a datagram can be sent");
    }

    /// Waits for a line of its log that has all these parts, and returns the line.
    pub fn sees(&self, parts: &[&str]) -> String {
        until(&format!("{} sees {parts:?}", self.name), SOON, || {
            let log = self.log();
            let found = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
            found.map(str::to_owned).ok_or("it doesn't")
        })
    }

    /// Waits for a message like this, and returns it.
    pub fn message(&self, what: &str, wanted: impl Fn(&Message) -> bool) -> Message {
        self.message_within(what, SOON, wanted)
    }

    /// As [`Self::message`], with a time-out of your own.
    pub fn message_within(&self, what: &str, limit: Duration, wanted: impl Fn(&Message) -> bool) -> Message {
        until(&format!("{}: {what}", self.name), limit, || {
            self.messages().into_iter().find(&wanted).ok_or("there is no such message")
        })
    }

    /// The messages until now.
    pub fn messages(&self) -> Vec<Message> {
        let log = self.log();
        let parts = log.split("bytes Re").zip(log.split("bytes Re").skip(1));
        let message = |(before, after): (&str, &str)| {
            let sent = before.lines().last()?.contains("TX ");
            let (_, text) = after.split_once('\n')?;
            let (text, _) = text.split_once("--end msg--")?;
            Some(Message { sent, text: text.to_owned() })
        };
        parts.filter_map(message).collect()
    }

    /// Pulls its plug: from now on it neither says nor hears anything.
    pub fn vanish(self) {
        self.process.signal("KILL");
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}
