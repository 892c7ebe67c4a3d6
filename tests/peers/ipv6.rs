//! IPv6 on every leg: SIPps that call each other through a gateway whose pod has an IPv6 address.

use crate::harness::network::Loss;
use crate::harness::sipp::Transport;
use crate::harness::stage::{NUMBER, Office, Stage};
use crate::transfers::Call;

#[test]
fn a_caller_is_handed_to_a_human_over_ipv6() {
    let stage = Stage::new(Loss::None).over_ipv6();
    let human = stage.human("human");
    let call = Call::start(stage, Office { trunk: human.port, ..Office::default() });
    let contact = call.caller.sees(&["answered"]);
    assert!(contact.contains("@[fd00::a]:5060;vd="), "the caller is told where to send: {contact}");
    call.agent.ask_for_transfer(&call.agent.call_id(&["answered"]), "sip:sales@[fd00::a]");
    human.go_on(&human.call_id(&["ringing"]));
    call.agent.sees(&["told", "SIP/2.0 200", "terminated"]);
    call.ends_with(human);
}

#[test]
fn a_caller_over_ipv6_and_tcp_talks_with_an_agent_over_udp() {
    let mut stage = Stage::new(Loss::None).over_ipv6();
    // It rings until it is told to answer: SIPp takes no two messages at once on a stream.
    let mut agent = stage.agent("human");
    stage.open(Office { agent: agent.port, ..Office::default() });
    let mut caller = stage.caller_of(NUMBER, "caller", Transport::Tcp);
    caller.sees(&["ringing"]);
    agent.go_on(&agent.call_id(&["ringing"]));
    caller.sees(&["answered", &format!("m=audio {}", agent.media), "@[fd00::a]:5060;transport=tcp"]);
    agent.go_on(&agent.call_id(&["answered"]));
    agent.ends_well();
    caller.sees(&["the other side hung up"]);
    caller.ends_well();
}
