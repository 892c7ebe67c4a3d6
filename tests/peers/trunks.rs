//! Kamailio as a trunk: it proves who we are, it stays in the way, it is probed, registered at, and it goes away.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use voicedock::gateway::snapshot::Credential;
use voicedock::routing::table::CredentialId;

use crate::harness::control::voicedock_id;
use crate::harness::edge::{Edge, PORTS};
use crate::harness::network::{AGENT, CARRIER, CUSTOMER, GATEWAY, Loss, OFFICE, PHONE};
use crate::harness::sipp::{Sipp, Transport};
use crate::harness::stage::{CALLER, NUMBER, Office, Stage};
use crate::harness::wait::{SOON, until_true};
use crate::transfers::Call;

/// A trunk that says nothing is found out by three probes of 8 seconds.
const FOUND_OUT: Duration = Duration::from_secs(45);

fn login(username: &str, password: &str) -> BTreeMap<CredentialId, Credential> {
    let login = Credential::Login { username: username.to_owned(), password: password.to_owned() };
    [(CredentialId("login".to_owned()), login)].into()
}

fn transferred_with_digest(stage: Stage, algorithm: &str) {
    let human = stage.party("human", "human", PHONE);
    let _trunk = Edge::demanding(&stage, OFFICE, (PHONE, human.port), algorithm);
    let more = json!({ "trunks": { "acme/office": { "credential": "login", "realm": "trunk.example" } } });
    let credentials = login("before", "correct horse");
    let call = Call::start(stage, Office { trunk: PORTS.0, more, credentials, ..Office::default() });
    call.transfer();
    human.sees(&["ringing", "authenticated as before"]);
    human.go_on(&human.call_id(&["ringing"]));
    call.ends_with(human);
}

fn a_human_behind_a_trunk_that_demands_digest_with_md5_is_reached(stage: Stage) {
    transferred_with_digest(stage, "MD5");
}

fn a_human_behind_a_trunk_that_demands_digest_with_sha_256_is_reached(stage: Stage) {
    transferred_with_digest(stage, "SHA-256");
}

/// A caller, an agent and a human, each behind a Kamailio that stays in the way, over these transports.
fn through_edges(mut stage: Stage, entrance: &str, transport: &str) {
    let mut agent = stage.party("agent", "agent", PHONE);
    let mut human = stage.party("human", "human", PHONE);
    let before_agent = Edge::start(&stage, "before-agent", AGENT, (PHONE, agent.port), "");
    let before_human = Edge::start(&stage, "before-human", OFFICE, (PHONE, human.port), "");
    let carrier = Edge::start(&stage, "carrier", CARRIER, (PHONE, 9), entrance);
    let targets = json!([{
        "uri": format!("sip:agent@{AGENT}:{}", PORTS.0), "host": AGENT, "port": PORTS.0, "transport": transport,
    }]);
    let more = json!({
        "assistants": { "acme/support": { "agent": { "sip": { "targets": targets } } } },
        "trunks": { "acme/office": { "transport": transport } },
    });
    stage.open(Office { trunk: PORTS.0, more, ..Office::default() });
    let mut caller = customer(&stage);
    caller.sees(&["answered", &format!("m=audio {}", agent.media)]);
    let id = voicedock_id(&agent);
    stage.control().transfer(&id, "sales");
    human.go_on(&human.call_id(&["ringing"]));
    caller.sees(&["moved", &format!("m=audio {}", human.media)]);
    agent.ends_well();
    caller.go_on(&caller.placed(1));
    caller.ends_well();
    human.ends_well();

    let transport = transport.to_lowercase();
    let over = format!("over {transport}");
    for (edge, methods) in [
        (&carrier, &["INVITE", "ACK"][..]),
        (&before_agent, &["ACK", "BYE"]),
        (&before_human, &["ACK", "BYE"]),
    ] {
        for method in methods {
            edge.sees(&[&format!("within a dialog: {method} from {GATEWAY}"), &over]);
        }
    }
}

/// A caller whose carrier is a Kamailio.
pub fn customer(stage: &Stage) -> Sipp {
    let target = format!("{CARRIER}:{}", PORTS.0);
    let args = ["-m", "1", "-key", "called", NUMBER, "-key", "caller", CALLER, &target];
    stage.sipp("caller", "caller", CUSTOMER, Transport::Udp, &args)
}

fn requests_within_a_dialog_follow_the_route_that_proxies_have_recorded(stage: Stage) {
    through_edges(stage, "", "UDP");
}

fn the_same_route_is_followed_over_tcp(stage: Stage) {
    through_edges(stage, ";transport=tcp", "TCP");
}

flows! {
    a_human_behind_a_trunk_that_demands_digest_with_md5_is_reached,
    a_human_behind_a_trunk_that_demands_digest_with_sha_256_is_reached,
    requests_within_a_dialog_follow_the_route_that_proxies_have_recorded,
    the_same_route_is_followed_over_tcp,
    a_gateway_that_registers_is_called_at_its_contact,
}

fn reachable(stage: &Stage, name: &str) -> Option<bool> {
    let metrics = stage.gateway().metrics();
    let line = metrics.lines().find(|line| line.contains("trunk_reachable{") && line.contains(name))?;
    Some(line.ends_with(" 1"))
}

#[test]
fn a_trunk_that_goes_away_and_comes_back_is_unreachable_meanwhile() {
    let mut stage = Stage::new(Loss::None);
    let trunk = Edge::start(&stage, "trunk", OFFICE, (PHONE, 9), "");
    let more = json!({ "trunks": { "acme/office": { "probeSeconds": 1 } } });
    stage.open(Office { trunk: PORTS.0, more, ..Office::default() });
    until_true("the trunk is reachable", SOON, || reachable(&stage, "office") == Some(true));
    drop(trunk);
    until_true("the trunk is unreachable", FOUND_OUT, || reachable(&stage, "office") == Some(false));
    let _trunk = Edge::start(&stage, "trunk", OFFICE, (PHONE, 9), "");
    until_true("the trunk is reachable again", SOON, || reachable(&stage, "office") == Some(true));
}

/// The carrier as a registrar that wants a password.
fn registered() -> Value {
    json!({ "trunks": { "acme/carrier": {
        "host": CARRIER, "port": PORTS.0, "registerSeconds": 60, "credential": "login", "realm": "registrar.example",
    } } })
}

fn a_gateway_that_registers_is_called_at_its_contact(mut stage: Stage) {
    let mut agent = stage.agent("agent");
    let registrar = Edge::registrar(&stage, CARRIER);
    let office = Office {
        agent: agent.port,
        more: registered(),
        credentials: login("acme", "secret"),
        ..Office::default()
    };
    stage.open(office);
    registrar.sees(&["too brief: acme for 60"]);
    registrar.sees(&["registered: acme for 120"]);
    let mut caller = customer(&stage);
    caller.sees(&["answered"]);
    caller.go_on(&caller.placed(1));
    caller.ends_well();
    agent.ends_well();
    // It was granted eight seconds.
    until_true("the registration is refreshed", SOON, || registrar.times(&["registered: acme for 120"]) > 1);
}

#[test]
fn a_gateway_that_is_told_to_stop_takes_its_registration_back() {
    let mut stage = Stage::new(Loss::None);
    let registrar = Edge::registrar(&stage, CARRIER);
    let credentials = login("acme", "secret");
    stage.open(Office { more: registered(), credentials, drain_seconds: 5, ..Office::default() });
    registrar.sees(&["registered: acme for 120"]);
    stage.gateway_mut().process.signal("TERM");
    registrar.sees(&["registered: acme for 0"]);
    stage.gateway_mut().ends_well();
}
