//! Many calls at once.

use std::time::{Duration, Instant};

use crate::harness::scene::{Office, Scene};

const PER_SECOND: u32 = 200;
const SECONDS: u32 = 10;
const NODE_PORT: u16 = 30561;

#[test]
fn two_hundred_calls_a_second_through_one_pod_are_all_transferred() {
    let scene = Scene::new("load");
    let agent =
        scene.party_with("agent", "transferring-agent", &["-key", "target", "sip:sales@gateway.invalid"]);
    let human = scene.party("human", "willing-human", None);
    scene.apply(
        &scene.secluded(&Office { agent: agent.port, trunk: human.port, ..Office::default() }, NODE_PORT),
    );
    let pod = scene.secluded_pod(NODE_PORT);

    let (rate, calls) = (PER_SECOND.to_string(), (PER_SECOND * SECONDS).to_string());
    let args = ["-r", &rate, "-m", &calls, "-l", &calls, "-d", "500"];
    let start = Instant::now();
    let mut callers = scene.callers("callers", "transferred-caller", &pod, NODE_PORT, &args);
    callers.ends_well_within(Duration::from_secs(60));
    println!("{calls} calls, each transferred, in {:?}", start.elapsed());
    for mut party in [agent, human] {
        party.finish();
        party.ends_well();
    }
}
