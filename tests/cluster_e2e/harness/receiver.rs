//! Who is told of calls: takes webhooks over HTTP, looks at their signatures, and refuses the first one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver as Channel, channel};
use std::thread;

use serde_json::Value;

use super::wait::SOON;

/// A receiver.
pub struct Receiver {
    /// Its URL.
    pub url: String,
    events: Channel<Event>,
}

/// An event as it came.
pub struct Event {
    /// `X-Webhook-Id`.
    pub id: String,
    /// What it says.
    pub message: Value,
}

struct Request {
    headers: Vec<(String, String)>,
    body: String,
}

impl Receiver {
    /// On `host`, for events that are signed with `secret`. The first attempt is answered 503, all others 204.
    pub fn start(host: Ipv4Addr, secret: &'static str) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("this machine's address can be bound");
        let url = format!("http://{}/hooks", listener.local_addr().expect("it is bound"));
        let (sender, events) = channel();
        thread::spawn(move || {
            let mut code = 503;
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(request) = Request::read(&stream) else { continue };
                request.answer(&stream, code);
                code = 204;
                if sender.send(request.event(secret)).is_err() {
                    return;
                }
            }
        });
        Self { url, events }
    }

    /// The next one.
    ///
    /// # Panics
    /// When none comes in time; in the receiver's thread when a signature is wrong, after which none comes.
    pub fn next(&self) -> Event {
        self.events.recv_timeout(SOON).expect("an event that is signed comes in time")
    }
}

impl Request {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            if line.trim_end().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let mut request = Self { headers, body: String::new() };
        let length = request.header("content-length").parse().ok()?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        request.body = String::from_utf8(body).ok()?;
        Some(request)
    }

    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    fn answer(&self, mut stream: &TcpStream, code: u16) {
        let answer = format!("HTTP/1.1 {code} As Told\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        // Whoever doesn't wait for it sends the event again.
        let _ = stream.write_all(answer.as_bytes());
    }

    fn event(&self, secret: &str) -> Event {
        let signed = format!("{}.{}", self.header("x-webhook-timestamp"), self.body);
        assert_eq!(self.header("x-webhook-signature"), format!("sha256={}", hmac(secret, &signed)));
        let body: Value = serde_json::from_str(&self.body).expect("an event is JSON");
        assert_eq!(self.header("x-webhook-event"), body["message"]["type"], "{body}");
        Event { id: self.header("x-webhook-id").to_owned(), message: body["message"].clone() }
    }
}

/// HMAC-SHA256 in hexadecimal, as OpenSSL sees it.
fn hmac(secret: &str, text: &str) -> String {
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-r", "-hmac", secret])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is there");
    openssl.stdin.take().expect("it is a pipe").write_all(text.as_bytes()).expect("it reads");
    let done = openssl.wait_with_output().expect("it ends");
    let printed = String::from_utf8(done.stdout).expect("it prints text");
    printed.split_whitespace().next().unwrap_or_default().to_owned()
}
