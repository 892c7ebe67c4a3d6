//! Agents of others, each with its own way to ask for a transfer; and an agent that has several addresses.
//!
//! How each writes its REFER is what its published source or its documentation says. The stack of Asterisk's `chan_pjsip` is
//! there itself, as PJSUA2 (`legs.rs`).

use std::net::{Ipv4Addr, UdpSocket};

use serde_json::{Value, json};

use crate::harness::control::voicedock_id;
use crate::harness::network::{AGENT, PHONE};
use crate::harness::sipp::Sipp;
use crate::harness::stage::{Office, Stage};
use crate::transfers::Call;

/// The agent asks with these header lines, and hears that the human took the caller.
fn transferred_with(stage: Stage, headers: &str) {
    let human = stage.human("human");
    let call = Call::start(stage, Office { trunk: human.port, ..Office::default() });
    call.agent.ask_in_its_way(&call.agent.call_id(&["answered"]), headers);
    call.agent.sees(&["told", "SIP/2.0 100", "active"]);
    human.go_on(&human.call_id(&["ringing"]));
    call.agent.sees(&["told", "SIP/2.0 200", "terminated"]);
    call.ends_with(human);
}

/// TransferSIPParticipant writes `transfer_to` into Refer-To as it was given, with headers of the application.
fn livekit_transfers_to_a_number_in_brackets(stage: Stage) {
    transferred_with(stage, "Refer-To: <tel:+31612345678>\r\nX-Room: support\r\n");
}

fn livekit_transfers_to_a_number_without_brackets(stage: Stage) {
    transferred_with(stage, "Refer-To: tel:+31612345678\r\n");
}

fn livekit_transfers_to_a_destination_by_its_name(stage: Stage) {
    transferred_with(stage, "Refer-To: <sip:sales@voicedock.example;transport=tcp>\r\nX-Room: support\r\n");
}

/// The tool's rule `sip_refer`: a number, or a SIP URI with whatever host it was set up with, and headers of its own.
fn elevenlabs_transfers_to_a_number_at_its_own_host(stage: Stage) {
    let headers = "Refer-To: <sip:+31612345678@sip.rtc.elevenlabs.io:5060;transport=tcp;user=phone>\r\n\
                   X-Conversation-Id: conv_1\r\n";
    transferred_with(stage, headers);
}

fn elevenlabs_transfers_to_a_number_without_its_plus(stage: Stage) {
    transferred_with(stage, "Refer-To: <sip:31612345678@sip.rtc.elevenlabs.io>\r\nX-Call-Id: conv_1\r\n");
}

/// `Transfer(PJSIP/…)`: chan_pjsip hands the URI to its stack without brackets.
fn asterisk_transfers_with_chan_pjsip(stage: Stage) {
    let headers = "Refer-To: sip:sales@pbx.example\r\nReferred-By: <sip:support@pbx.example>\r\n";
    transferred_with(stage, headers);
}

/// A number as a dial plan has it, with what other PBXs like to add.
fn asterisk_transfers_to_a_number_with_separators_and_embedded_headers(stage: Stage) {
    let headers = "Refer-To: <sip:+31-6-1234-5678@pbx.example;user=phone?X-Account=7>\r\n\
                   Referred-By: \"Support\" <sip:support@pbx.example>\r\n";
    transferred_with(stage, headers);
}

fn whoever_asks_for_somebody_who_is_not_on_the_list_keeps_the_caller(stage: Stage) {
    let call = Call::start(stage, Office::default());
    let leg = call.agent.call_id(&["answered"]);
    call.agent.ask_in_its_way(&leg, "Refer-To: tel:+31901234567\r\n");
    call.agent.sees(&["transfer refused"]);
    call.ends_with_the_assistant("not-allowed", None);
}

/// The agent at the second address answers, and can do all that the first one could.
fn answered_at_the_second_address(mut stage: Stage, first: (Ipv4Addr, u16)) {
    let mut agent = stage.party("second", "agent", PHONE);
    let mut human = stage.human("human");
    let target = |(host, port): (Ipv4Addr, u16)| json!({ "uri": format!("sip:agent@{host}:{port}"), "host": host, "port": port, "transport": "UDP" });
    let targets = [target(first), target((PHONE, agent.port))];
    let sip = json!({ "targets": targets, "answerTimeoutSeconds": 3 });
    let more: Value = json!({ "assistants": { "acme/support": { "agent": { "sip": sip } } } });
    stage.open(Office { trunk: human.port, more, ..Office::default() });
    let mut caller = stage.caller("caller");
    caller.sees(&["answered", &format!("m=audio {}", agent.media)]);
    let _id = voicedock_id(&agent);
    agent.ask_for_transfer(&agent.call_id(&["answered"]), "sip:sales@gateway.invalid");
    human.go_on(&human.call_id(&["ringing"]));
    caller.sees(&["moved", &format!("m=audio {}", human.media)]);
    agent.ends_well();
    caller.go_on(&caller.placed(1));
    caller.ends_well();
    human.ends_well();
}

fn refusing(stage: &Stage, scenario: &str) -> Sipp {
    stage.party("first", scenario, AGENT)
}

fn an_agent_whose_first_address_is_out_of_service_is_reached_at_the_next_one(stage: Stage) {
    let mut first = refusing(&stage, "unavailable-human");
    let port = first.port;
    answered_at_the_second_address(stage, (AGENT, port));
    first.ends_well();
}

fn an_agent_whose_first_address_is_busy_is_reached_at_the_next_one(stage: Stage) {
    let mut first = refusing(&stage, "busy-human");
    let port = first.port;
    answered_at_the_second_address(stage, (AGENT, port));
    first.ends_well();
}

fn an_agent_whose_first_address_is_silent_is_reached_at_the_next_one(stage: Stage) {
    let silent = UdpSocket::bind((AGENT, 0)).expect("it is an address of ours");
    let port = silent.local_addr().expect("the socket is bound").port();
    answered_at_the_second_address(stage, (AGENT, port));
}

fn an_agent_whose_first_address_rings_for_ever_is_reached_at_the_next_one(stage: Stage) {
    let mut first = refusing(&stage, "human");
    let port = first.port;
    answered_at_the_second_address(stage, (AGENT, port));
    first.sees(&["cancelled"]);
    first.ends_well();
}

flows! {
    livekit_transfers_to_a_number_in_brackets,
    livekit_transfers_to_a_number_without_brackets,
    livekit_transfers_to_a_destination_by_its_name,
    elevenlabs_transfers_to_a_number_at_its_own_host,
    elevenlabs_transfers_to_a_number_without_its_plus,
    asterisk_transfers_with_chan_pjsip,
    asterisk_transfers_to_a_number_with_separators_and_embedded_headers,
    whoever_asks_for_somebody_who_is_not_on_the_list_keeps_the_caller,
    an_agent_whose_first_address_is_out_of_service_is_reached_at_the_next_one,
    an_agent_whose_first_address_is_busy_is_reached_at_the_next_one,
    an_agent_whose_first_address_is_silent_is_reached_at_the_next_one,
    an_agent_whose_first_address_rings_for_ever_is_reached_at_the_next_one,
}
