//! Many calls at once.

use std::time::{Duration, Instant};

use crate::harness::office::Office;
use crate::harness::scene::Scene;

/// SIPp gives a call up that gets a message while it is about to answer another one, or a repeated INVITE. With this it
/// goes on, and the message is repeated.
const FORGIVING: [&str; 2] = ["-default_behaviors", "all,-abortunexp"];
const TARGET: [&str; 3] = ["-key", "target", "sip:sales@gateway.invalid"];
const PER_SECOND: u32 = 200;
const SECONDS: u32 = 10;

#[test]
fn two_hundred_calls_a_second_through_one_pod_are_all_transferred() {
    let scene = Scene::new("load");
    let agent = scene.party_with("agent", "transferring-agent", &[&TARGET[..], &FORGIVING].concat());
    let human = scene.party_with("human", "willing-human", &FORGIVING);
    scene.apply(&scene.secluded(&Office { agent: agent.port, trunk: human.port, ..Office::default() }));
    let pod = scene.secluded_pod();

    let (rate, calls) = (PER_SECOND.to_string(), (PER_SECOND * SECONDS).to_string());
    let args = ["-r", &rate, "-m", &calls, "-l", &calls, "-d", "500"];
    let start = Instant::now();
    let mut callers = scene.callers("callers", "transferred-caller", &pod, scene.node_port, &args);
    callers.ends_well_within(Duration::from_secs(60));
    println!("{calls} calls, each transferred, in {:?}", start.elapsed());
    for mut party in [agent, human] {
        party.finish();
        party.ends_well();
    }
}

#[test]
fn no_transfer_is_lost_on_a_network_that_loses_one_packet_in_twenty() {
    let scene = Scene::new("loss");
    let agent = scene.party_with("agent", "transferring-agent", &[&TARGET[..], &FORGIVING].concat());
    let mut human = scene.party_with("human", "willing-human", &FORGIVING);
    scene.apply(&scene.secluded(&Office { agent: agent.port, trunk: human.port, ..Office::default() }));
    let pod = scene.secluded_pod();

    let lossy = scene.cluster().lose_packets(pod.node, pod.address);
    let args = [&["-r", "20", "-m", "100", "-l", "100", "-d", "500"], &FORGIVING[..]].concat();
    let mut callers = scene.callers("callers", "transferred-caller", &pod, scene.node_port, &args);
    callers.ends_well_within(Duration::from_secs(60));
    human.finish();
    human.ends_well_within(Duration::from_secs(40));
    // Not the agent: a NOTIFY that overtakes the answer to its REFER is more than SIPp can take.
    drop(lossy);
}
