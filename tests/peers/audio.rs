//! Audio, with baresip in all roles: it never passes the gateway, and is where the call is.

use std::f64::consts::TAU;

use serde_json::json;

use crate::harness::baresip::{Baresip, PORT, Setup};
use crate::harness::capture::{Capture, Datagram};
use crate::harness::control::call_is;
use crate::harness::gateway::SIP;
use crate::harness::network::{AGENT, CARRIER, GATEWAY, OFFICE};
use crate::harness::stage::{CALLER, NUMBER, Office, SALES, Stage};
use crate::harness::wait::{SOON, until};

/// Samples a second of G.711, of which each is a byte.
const RATE: f64 = 8000.0;
/// A third of a second.
const ENOUGH: usize = 16;
/// Length of an RTP header without anything optional.
const RTP_HEADER: usize = 12;

const THE_CALLER: Setup =
    Setup { name: "caller", host: CARRIER, user: CALLER, tone: 1000, media: 10_000, willing: false };
const THE_AGENT: Setup =
    Setup { name: "agent", host: AGENT, user: "agent", tone: 700, media: 20_000, willing: true };
const THE_HUMAN: Setup =
    Setup { name: "human", host: OFFICE, user: SALES.0, tone: 440, media: 30_000, willing: false };

fn after_a_transfer_caller_and_human_hear_each_other_and_the_agent_hears_nothing(mut stage: Stage) {
    let capture = Capture::start();
    let (agent, human) = (Baresip::start(&stage, &THE_AGENT), Baresip::start(&stage, &THE_HUMAN));
    stage.open(Office { agent: PORT, trunk: PORT, ..Office::default() });
    let caller = Baresip::start(&stage, &THE_CALLER);
    caller.tell("dial", &format!("sip:{NUMBER}@{GATEWAY}:{}", SIP.0));
    caller.event("CALL_ESTABLISHED");
    hear_each_other(&capture, 0, &THE_CALLER, &THE_AGENT);

    agent.tell("transfer", &format!("sip:{}@{GATEWAY}:{}", SALES.1, SIP.0));
    human.event("CALL_INCOMING");
    human.tell("accept", "");
    human.event("CALL_ESTABLISHED");
    agent.event("CALL_CLOSED");
    let transferred = capture.len();
    hear_each_other(&capture, transferred, &THE_CALLER, &THE_HUMAN);
    let with_agent = capture.since(transferred, |datagram| {
        (datagram.to.port() == THE_AGENT.media && datagram.from.port() != THE_HUMAN.media)
            || datagram.from.port() == THE_AGENT.media
    });
    // What was under way when it was told goodbye may still be.
    assert!(with_agent.len() < ENOUGH, "the agent still hears or speaks: {} packets", with_agent.len());

    let through = capture.since(0, |datagram| {
        let media = |port| [THE_CALLER.media, THE_AGENT.media, THE_HUMAN.media].contains(&port);
        (*datagram.to.ip() == GATEWAY || *datagram.from.ip() == GATEWAY)
            && (media(datagram.from.port()) || media(datagram.to.port()))
    });
    assert!(through.is_empty(), "audio went through the gateway: {:?}", through[0]);

    let calls = stage.control().get("/calls").body;
    let id = calls["calls"][0]["id"].as_str().expect("there is a call").to_owned();
    human.tell("hangup", "");
    caller.event("CALL_CLOSED");
    let call = call_is(&stage.control(), &id, "is over", |call| call["status"] == "ended");
    assert_eq!(call["transfers"][0]["outcome"], json!("answered"), "{call}");
}

flows! { after_a_transfer_caller_and_human_hear_each_other_and_the_agent_hears_nothing }

/// Waits until each of two phones is sent the other one's tone, by the other one itself.
fn hear_each_other(capture: &Capture, since: usize, one: &Setup, other: &Setup) {
    for (from, to) in [(one, other), (other, one)] {
        let what = format!("{} hears {}", to.name, from.name);
        let sent = until(&what, SOON, || {
            let sent = capture.since(since, |datagram| {
                datagram.from.port() == from.media
                    && datagram.to.port() == to.media
                    && *datagram.to.ip() == to.host
            });
            if sent.len() >= ENOUGH { Ok(sent) } else { Err(format!("{} packets", sent.len())) }
        });
        let tones = [THE_CALLER.tone, THE_AGENT.tone, THE_HUMAN.tone];
        let loudest = tones.into_iter().max_by(|a, b| strength(&sent, *a).total_cmp(&strength(&sent, *b)));
        assert_eq!(loudest, Some(from.tone), "{what}");
    }
}

/// How strong a tone is in RTP packets of G.711 µ-law (Goertzel's algorithm).
fn strength(packets: &[Datagram], tone: u32) -> f64 {
    let samples = packets.iter().flat_map(|packet| &packet.payload[RTP_HEADER..]).map(|byte| linear(*byte));
    let step = 2.0 * (TAU * f64::from(tone) / RATE).cos();
    let (last, before) =
        samples.fold((0.0, 0.0), |(last, before), sample| (sample + step * last - before, last));
    last * last + before * before - step * last * before
}

/// A sample of G.711 µ-law (ITU-T G.711).
fn linear(byte: u8) -> f64 {
    let byte = !byte;
    let magnitude = ((i32::from(byte & 0x0f) << 3) + 0x84) << ((byte & 0x70) >> 4);
    let sample = magnitude - 0x84;
    f64::from(if byte & 0x80 == 0 { sample } else { -sample })
}
