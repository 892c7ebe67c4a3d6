//! baresip: a phone with audio, which sends a tone of its own. It is told what to do over its control port, and tells what
//! happens there.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::{Value, json};

use super::process::Process;
use super::stage::Stage;
use super::wait::{SOON, until};

/// Where phones take SIP.
pub const PORT: u16 = 5060;
const CONTROL: u16 = 4444;

/// What a phone is.
pub struct Setup {
    /// Its name in this test.
    pub name: &'static str,
    /// Its address.
    pub host: Ipv4Addr,
    /// Whose number it has.
    pub user: &'static str,
    /// The tone that it sends, Hz.
    pub tone: u32,
    /// Its port for audio; the next one is for RTCP.
    pub media: u16,
    /// Whether it answers at once.
    pub willing: bool,
}

/// One phone.
pub struct Baresip {
    name: &'static str,
    control: TcpStream,
    events: Arc<Mutex<Vec<Value>>>,
    _process: Process,
}

impl Baresip {
    /// Starts it and waits until it takes calls.
    pub fn start(stage: &Stage, setup: &Setup) -> Self {
        let Setup { name, host, user, tone, media, willing } = setup;
        let directory = stage.directory.join(name);
        let mut config = format!(
            "sip_listen {host}:{PORT}\nnet_interface {host}\nrtp_ports {media}-{}\nctrl_tcp_listen {host}:{CONTROL}\n\
             audio_source ausine,{tone}\nausrc_srate 48000\nausrc_channels 2\n",
            media + 1
        );
        let _ = writeln!(config, "module_path /usr/lib/baresip/modules\nmodule g711.so\nmodule ausine.so");
        config.push_str("module_app account.so\nmodule_app menu.so\nmodule_app ctrl_tcp.so\n");
        let answer = if *willing { "auto" } else { "manual" };
        let account = format!("<sip:{user}@{host}>;regint=0;answermode={answer}\n");
        let written = fs::create_dir_all(&directory)
            .and_then(|()| fs::write(directory.join("config"), config))
            .and_then(|()| fs::write(directory.join("accounts"), account));
        written.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let args = ["-f".to_owned(), directory.display().to_string(), "-v".to_owned()];
        let process = Process::start(name, &stage.directory, "baresip", &args, Vec::new());
        let control = until(&format!("{name} listens"), SOON, || TcpStream::connect((*host, CONTROL)));
        let events = Arc::default();
        let (heard, stream) = (Arc::clone(&events), control.try_clone().expect("a socket can be shared"));
        thread::spawn(move || follow(stream, &heard));
        Self { name, control, events, _process: process }
    }

    /// Tells it to do something, such as `dial`, `accept`, `hangup`, `transfer`.
    pub fn tell(&self, command: &str, what: &str) {
        let text = json!({ "command": command, "params": what }).to_string();
        let netstring = format!("{}:{text},", text.len());
        (&self.control).write_all(netstring.as_bytes()).expect("it listens as long as it runs");
    }

    /// Waits for the first event of a kind, such as `CALL_ESTABLISHED`.
    pub fn event(&self, kind: &str) -> Value {
        until(&format!("{}: {kind}", self.name), SOON, || {
            let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
            let found = events.iter().find(|event| event["type"] == kind);
            found.cloned().ok_or_else(|| format!("it tells: {}", json!(*events)))
        })
    }
}

/// Reads events, which are netstrings, until the phone ends.
fn follow(stream: TcpStream, events: &Mutex<Vec<Value>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = Vec::new();
        if stream.read_until(b':', &mut length).unwrap_or_default() == 0 {
            return;
        }
        let length = String::from_utf8_lossy(&length).trim_end_matches(':').parse().unwrap_or(0);
        let mut text = vec![0; length + 1];
        if stream.read_exact(&mut text).is_err() {
            return;
        }
        if let Ok(event) = serde_json::from_slice(&text[..length]) {
            events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        }
    }
}
