//! A call and its assistant.

use serde_json::json;

use crate::harness::control::{call_is, voicedock_id};
use crate::harness::sipp::Transport;
use crate::harness::stage::{CALLER, NUMBER, Office, Stage};

fn a_caller_who_hangs_up_ends_the_call(mut stage: Stage) {
    let mut agent = stage.agent("agent");
    stage.open(Office { agent: agent.port, ..Office::default() });
    let mut caller = stage.caller("caller");
    caller.sees(&["answered", &format!("m=audio {}", agent.media)]);
    let id = voicedock_id(&agent);
    let call = call_is(&stage.control(), &id, "is in progress", |call| call["status"] == "in-progress");
    assert_eq!((&call["caller_phone"], &call["assistant_phone"]), (&json!(CALLER), &json!(NUMBER)));
    caller.go_on(&caller.placed(1));
    caller.ends_well();
    agent.ends_well();
    let call = call_is(&stage.control(), &id, "is over", |call| call["status"] == "ended");
    assert_eq!(call["end_reason"], "caller-hung-up");
}

fn an_agent_that_hangs_up_ends_the_call(mut stage: Stage) {
    let mut agent = stage.agent("agent");
    stage.open(Office { agent: agent.port, ..Office::default() });
    let mut caller = stage.caller("caller");
    caller.sees(&["answered"]);
    let id = voicedock_id(&agent);
    agent.go_on(&agent.call_id(&["answered"]));
    agent.ends_well();
    caller.sees(&["the other side hung up"]);
    caller.ends_well();
    call_is(&stage.control(), &id, "is over", |call| call["status"] == "ended");
}

fn the_api_ends_a_call(mut stage: Stage) {
    let mut agent = stage.agent("agent");
    stage.open(Office { agent: agent.port, ..Office::default() });
    let mut caller = stage.caller("caller");
    caller.sees(&["answered"]);
    let id = voicedock_id(&agent);
    let answer = stage.control().command(&id, &json!({ "type": "end-call" }));
    assert_eq!(answer.status, 200, "{}", answer.body);
    caller.sees(&["the other side hung up"]);
    caller.ends_well();
    agent.ends_well();
    call_is(&stage.control(), &id, "is over", |call| call["status"] == "ended");
}

fn a_caller_who_gives_up_takes_the_ringing_agent_along(mut stage: Stage) {
    let mut agent = stage.agent("human");
    stage.open(Office { agent: agent.port, ..Office::default() });
    let mut caller = stage.caller("caller");
    agent.sees(&["ringing"]);
    // Without any provisional answer there is nothing yet that could be cancelled (RFC 3261 §9.1).
    caller.sees(&["under way"]);
    caller.go_on(&caller.placed(1));
    caller.sees(&["cancelled"]);
    caller.ends_well();
    agent.sees(&["cancelled"]);
    agent.ends_well();
}

fn a_caller_whose_agent_is_busy_is_told_that_nobody_is_available(mut stage: Stage) {
    let mut agent = stage.agent("busy-human");
    stage.open(Office { agent: agent.port, ..Office::default() });
    let mut caller = stage.caller("refused-caller");
    caller.sees(&["refused: SIP/2.0 480"]);
    caller.ends_well();
    agent.ends_well();
}

fn a_caller_who_dials_an_unknown_number_is_refused(mut stage: Stage) {
    stage.open(Office::default());
    let mut caller = stage.caller_of("+31209999999", "refused-caller", Transport::Udp);
    caller.sees(&["refused: SIP/2.0 404"]);
    caller.ends_well();
}

flows! {
    a_caller_who_hangs_up_ends_the_call,
    an_agent_that_hangs_up_ends_the_call,
    the_api_ends_a_call,
    a_caller_who_gives_up_takes_the_ringing_agent_along,
    a_caller_whose_agent_is_busy_is_told_that_nobody_is_available,
    a_caller_who_dials_an_unknown_number_is_refused,
}
