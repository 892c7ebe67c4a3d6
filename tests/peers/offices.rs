//! What offices do with calls by themselves: they put customers through, and they say who they are.

use std::collections::BTreeMap;

use serde_json::json;
use voicedock::gateway::snapshot::Credential;
use voicedock::routing::table::CredentialId;

use crate::harness::gateway::SIP;
use crate::harness::network::{AGENT, CARRIER, CUSTOMER, GATEWAY, Loss};
use crate::harness::phone::{Message, PORT, Phone};
use crate::harness::stage::{CALLER, NUMBER, Office, Stage};

fn is(message: &Message, sent: bool, start: &str, method: &str) -> bool {
    message.sent == sent
        && message.start().starts_with(start)
        && message.header("CSeq").is_some_and(|cseq| cseq.ends_with(method))
}

#[test]
fn a_receptionist_puts_a_customer_through_to_the_assistant() {
    let mut stage = Stage::new(Loss::None);
    let agent = Phone::start(&stage, "agent", AGENT, "agent", &["--willing", "--media=5000"]);
    let sources = [CARRIER, CUSTOMER].map(|host| format!("{host}/32"));
    let more = json!({ "trunks": { "acme/carrier": { "allowedSources": sources } } });
    stage.open(Office { agent: PORT, more, ..Office::default() });
    let reception = Phone::start(&stage, "reception", CARRIER, "reception", &["--willing", "--media=6000"]);
    let customer = Phone::start(&stage, "customer", CUSTOMER, CALLER, &["--media=7000"]);
    customer.tell(&format!("dial sip:reception@{CARRIER}:{PORT}"));
    customer.sees(&["phone: state CONFIRMED"]);
    reception.tell(&format!("dial sip:{NUMBER}@{GATEWAY}:{}", SIP.0));
    let answered = |message: &Message| is(message, false, "SIP/2.0 200", "INVITE");
    reception.message("it speaks with the assistant", answered);
    agent.sees(&["phone: state CONFIRMED"]);

    reception.tell("join");
    customer.message("it calls in the receptionist's place", |message| {
        is(message, true, "INVITE", "INVITE") && message.header("Replaces").is_some()
    });
    agent.message("it is moved to the customer", |message| {
        is(message, false, "INVITE", "INVITE") && message.says("m=audio 70")
    });
    customer.message("it hears the assistant", |message| answered(message) && message.says("m=audio 50"));
    let goodbye = reception.message("its own call is over", |message| is(message, false, "BYE", "BYE"));
    assert!(goodbye.header("Reason").is_some_and(|reason| reason.contains("Replaced")), "{goodbye:?}");
    agent.tell("hangup");
    customer.message("the assistant hangs up", |message| is(message, false, "BYE", "BYE"));
}

#[test]
fn a_pbx_that_comes_from_anywhere_says_who_it_is() {
    let mut stage = Stage::new(Loss::None);
    let agent = Phone::start(&stage, "agent", AGENT, "agent", &["--willing"]);
    let more = json!({ "trunks": { "acme/carrier": {
        "allowedSources": null, "authenticates": true, "credential": "login",
    } } });
    let login = Credential::Login { username: "acme".to_owned(), password: "secret".to_owned() };
    let credentials = BTreeMap::from([(CredentialId("login".to_owned()), login)]);
    stage.open(Office { agent: PORT, more, credentials, ..Office::default() });
    let wrong = Phone::start(&stage, "wrong", CUSTOMER, CALLER, &["--login=acme:guessed"]);
    let right = Phone::start(&stage, "right", CARRIER, CALLER, &["--login=acme:secret"]);
    for phone in [&wrong, &right] {
        phone.tell(&format!("dial sip:{NUMBER}@{GATEWAY}:{}", SIP.0));
        phone.message("it is asked who it is", |message| is(message, false, "SIP/2.0 401", "INVITE"));
    }
    wrong.sees(&["phone: state DISCONNECTED"]);
    right.sees(&["phone: state CONFIRMED"]);
    agent.sees(&["phone: state CONFIRMED"]);
    right.tell("hangup");
    agent.sees(&["phone: state DISCONNECTED"]);
}
