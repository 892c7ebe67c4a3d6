//! The hook of an agent: one request over HTTP that waits for its answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::Value;

use super::wait::SOON;

/// A hook.
pub struct Hook {
    /// Its URL.
    pub url: String,
    asked: Receiver<(Value, TcpStream)>,
}

impl Hook {
    /// At an address of the test's network.
    pub fn at(host: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("it is an address of ours");
        let url = format!("http://{}/hook", listener.local_addr().expect("it is bound"));
        let (sender, asked) = channel();
        thread::spawn(move || {
            let (stream, _) = listener.accept().ok()?;
            let asked = body(&stream)?;
            sender.send((asked, stream)).ok()
        });
        Self { url, asked }
    }

    /// What it is told; the answer is for later.
    pub fn asked(&self) -> (Value, TcpStream) {
        self.asked.recv_timeout(SOON).expect("the hook is told something")
    }
}

/// Says that it is done.
pub fn answer(mut stream: TcpStream) {
    let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    stream.write_all(answer).expect("the gateway waits");
}

fn body(stream: &TcpStream) -> Option<Value> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}
