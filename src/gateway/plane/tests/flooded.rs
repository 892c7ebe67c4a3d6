//! What a source that sends too much gets, and what others notice of it: nothing.

use std::num::NonZeroU32;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::side::{Side, sdp};
use super::{Given, LIMIT, Peer, Rates, request};

/// The trunk's address; every other one is a stranger's.
const TRUNK: &str = "127.0.0.9";

fn given(agent: &Peer, stranger: u32) -> Given {
    Given {
        rates: Rates { trunk: NonZeroU32::new(1_000), stranger: NonZeroU32::new(stranger) },
        ..Given::taking(agent, TRUNK)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_a_stranger_is_dropped_and_calls_go_on_even_with_that_address() {
    let (agent, stranger) = (Peer::new().await, Peer::new().await);
    let stage = given(&agent, 5).stage().await;
    let gateway = stage.address;
    for number in 0..200 {
        let options = request(&stranger, gateway, "OPTIONS", "", &format!("o{number}"), number);
        stranger.send(gateway, &options).await;
    }

    // The agent has the stranger's address, which has nothing left.
    let mut agent = Side::called(agent, gateway);
    let mut caller = Side::calling(Peer::at(TRUNK).await, gateway);
    caller.request("INVITE", "", &sdp("caller", "sendrecv")).await;
    let invite = agent.receive("INVITE").await;
    agent.answer(&invite, 200, "", &sdp("agent", "sendrecv")).await;
    agent.receive("ACK").await;
    caller.receive("SIP/2.0 200").await;
    caller.request("ACK", "", "").await;
    agent.request("BYE", "", "").await;
    agent.receive("SIP/2.0 200").await;
    let bye = caller.receive("BYE").await;
    caller.answer(&bye, 200, "", "").await;

    let mut answered = 0;
    while stranger.try_receive().is_some() {
        answered += 1;
    }
    assert!((1..=20).contains(&answered), "{answered} of 200 were answered");
    let metrics = stage.metrics.encode();
    let dropped = metrics.lines().find(|line| line.contains("reason=\"rate-stranger\"")).unwrap();
    let dropped: u32 = dropped.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(dropped >= 180, "{dropped} are counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_over_a_stream_is_read_at_the_rate_and_answered_whole() {
    let agent = Peer::new().await;
    let stage = given(&agent, 20).stage().await;
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    let started = Instant::now();
    let flood: String = (0..20)
        .map(|number| {
            request(&agent, stage.address, "OPTIONS", "", &format!("o{number}"), number)
                .replace("/UDP", "/TCP")
        })
        .collect();
    stream.write_all(flood.as_bytes()).await.unwrap();
    let mut answers = String::new();
    let reading = async {
        while answers.matches("SIP/2.0 200").count() < 20 {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "the connection stays");
            answers.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    };
    tokio::time::timeout(LIMIT, reading).await.expect("all are answered");
    // A second's worth at once, of which the connection took half; the other ten at twenty a second.
    assert!(started.elapsed().as_millis() >= 400, "{:?}", started.elapsed());
}
