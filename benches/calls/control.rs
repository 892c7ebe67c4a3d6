//! From a control request to the INVITE that it gives rise to, on the wire.
//!
//! The human's trunk is a socket of the bench, which refuses every call as busy: the caller stays with the agent, and the same
//! calls can be transferred again and again. The time is from before the request is written to when the INVITE is read.

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::DESTINATION;
use crate::report::Latencies;
use crate::single::header;
use crate::wait::{SOON, until};

/// The pause between two requests is random within this.
const PAUSE: std::ops::Range<f64> = 0.002..0.02;
const PATIENCE: Duration = Duration::from_secs(2);

/// The ids of `wanted` calls in progress.
pub fn calls(client: &mut Client, wanted: usize) -> Vec<String> {
    until("the gateway shows the calls", SOON, || {
        let (status, body) =
            client.ask("GET", "/api/v1/calls?limit=1000", "").map_err(|error| error.to_string())?;
        let list: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        let calls = list["calls"].as_array().cloned().unwrap_or_default();
        let live = calls.iter().filter(|call| call["status"] == "in-progress");
        let ids: Vec<String> = live.filter_map(|call| Some(call["id"].as_str()?.to_owned())).collect();
        if ids.len() == wanted { Ok(ids) } else { Err(format!("{status}, {} calls in progress", ids.len())) }
    })
}

/// Asks for `count` transfers of `calls`, in turn.
pub fn measure(client: &mut Client, human: &UdpSocket, calls: &[String], count: usize) -> Latencies {
    human.set_read_timeout(Some(PATIENCE)).expect("the time isn't zero");
    let mut buffer = [0; 65_536];
    let mut last = String::new();
    let body = json!({ "type": "transfer", "destination": DESTINATION.0 }).to_string();
    let times: Vec<Duration> = (calls.iter().cycle().take(count))
        .map(|call| {
            let sent = Instant::now();
            client.send("POST", &format!("/api/v1/calls/{call}/control"), &body).expect("the gateway can be asked");
            let (invite, from, time) = loop {
                let (length, from) = human.recv_from(&mut buffer).expect("an INVITE arrives at the human's trunk");
                let time = sent.elapsed();
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                // Not the ACK of the call before, nor a repetition.
                if text.starts_with("INVITE ") && header(&text, "call-id") != Some(last.as_str()) {
                    break (text, from, time);
                }
            };
            let copied = |name: &str| header(&invite, name).unwrap_or_default().to_owned();
            let busy = format!(
                "SIP/2.0 486 Busy Here\r\nVia: {}\r\nFrom: {}\r\nTo: {};tag=busy\r\nCall-ID: {}\r\nCSeq: {}\r\nContent-Length: 0\r\n\r\n",
                copied("via"), copied("from"), copied("to"), copied("call-id"), copied("cseq")
            );
            human.send_to(busy.as_bytes(), from).expect("a datagram can be sent");
            last = copied("call-id");
            let (status, answer) = client.answer().expect("the gateway answers");
            assert_eq!(status, 200, "a transfer is refused: {answer}");
            thread::sleep(Duration::from_secs_f64(rand::random_range(PAUSE)));
            time
        })
        .collect();
    times.into()
}
