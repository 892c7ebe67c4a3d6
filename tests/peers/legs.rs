//! What each leg does for itself and passes on to the other one, with PJSUA2 on both sides: reliable provisional responses
//! (RFC 3262), session timers (RFC 4028), changes of the session (RFC 3261 §14, RFC 3311), INFO. The first two with SIPp as well.

use std::time::Duration;

use serde_json::json;

use crate::harness::gateway::SIP;
use crate::harness::network::{AGENT, CARRIER, GATEWAY, Loss, OFFICE};
use crate::harness::phone::{Message, PORT, Phone};
use crate::harness::stage::{CALLER, NUMBER, Office, SALES, Stage};
use crate::harness::wait::{SOON, until_true};

/// Half of the shortest session there is, when it is refreshed; and when one ends that isn't. With time to spare.
const REFRESHED: Duration = Duration::from_secs(55);
const ENDED: Duration = Duration::from_secs(75);

/// Two phones with the gateway between them.
struct Line {
    caller: Phone,
    agent: Phone,
    /// Held as long as they talk.
    _stage: Stage,
}

impl Line {
    /// A caller who has dialled the number of an agent who doesn't answer by itself.
    fn dialled(mut stage: Stage, caller: &[&str], agent: &[&str], office: Office) -> Self {
        let agent = Phone::start(&stage, "agent", AGENT, "agent", agent);
        stage.open(Office { agent: PORT, ..office });
        let caller = Phone::start(&stage, "caller", CARRIER, CALLER, caller);
        caller.tell(&format!("dial sip:{NUMBER}@{GATEWAY}:{}", SIP.0));
        Self { caller, agent, _stage: stage }
    }

    /// A caller with an agent who has answered.
    fn answered(stage: Stage, caller: &[&str], agent: &[&str], office: Office) -> Self {
        let agent = [agent, &["--willing"]].concat();
        let line = Self::dialled(stage, caller, &agent, office);
        line.are_connected();
        line
    }

    fn are_connected(&self) {
        self.caller.sees(&["phone: state CONFIRMED"]);
        self.agent.sees(&["phone: state CONFIRMED"]);
    }

    fn hangs_up(&self) {
        self.caller.tell("hangup");
        for phone in [&self.caller, &self.agent] {
            phone.sees(&["phone: state DISCONNECTED"]);
        }
    }
}

/// Has a phone ask for a change until that is so. It may be told to wait, where the ACK before was lost: by the other phone with
/// 500, which still waits for that ACK (RFC 3261 §14.2), or by the gateway with 491, to which an UPDATE says nothing of it. PJSUA2 leaves the second try to whoever wanted the change.
fn change(phone: &Phone, command: &str, done: impl Fn() -> bool) {
    let told_to_wait = || {
        let waits = |message: &&Message| {
            let codes = ["SIP/2.0 491", "SIP/2.0 500"];
            !message.sent && codes.iter().any(|code| message.start().starts_with(code))
        };
        phone.messages().iter().filter(waits).count()
    };
    let mut before = told_to_wait();
    phone.tell(command);
    until_true(&format!("{command} is done"), SOON, || {
        let now = told_to_wait();
        if now > before {
            before = now;
            phone.tell(command);
        }
        done()
    });
}

fn is(message: &Message, sent: bool, start: &str, method: &str) -> bool {
    message.sent == sent
        && message.start().starts_with(start)
        && message.header("CSeq").is_some_and(|cseq| cseq.ends_with(method))
}

fn both_sides_insist_on_reliable_ringing_and_get_it(stage: Stage) {
    let insists = ["--prack=mandatory"];
    let line = Line::dialled(stage, &insists, &insists, Office::default());
    line.agent.sees(&["phone: incoming"]);
    line.agent.tell("ring");
    let ringing = |message: &Message| is(message, false, "SIP/2.0 180", "INVITE");
    let ringing = line.caller.message("it hears that it rings", ringing);
    assert!(ringing.header("RSeq").is_some(), "reliably: {ringing:?}");
    line.caller.message("its PRACK is answered", |message| is(message, false, "SIP/2.0 200", "PRACK"));
    line.agent.message("it is sent a PRACK", |message| is(message, false, "PRACK", "PRACK"));
    line.agent.tell("answer");
    line.are_connected();
    line.hangs_up();
}

fn a_caller_who_holds_the_call_and_goes_on_is_followed(stage: Stage) {
    let line = Line::answered(stage, &[], &[], Office::default());
    for (command, offered, answered) in
        [("hold", "a=sendonly", "a=recvonly"), ("unhold", "a=sendrecv", "a=sendrecv")]
    {
        let before = line.caller.messages().len();
        let heard =
            |message: &Message| is(message, false, "SIP/2.0 200", "INVITE") && message.has_line(answered);
        change(&line.caller, command, || line.caller.messages().iter().skip(before).any(heard));
        line.agent
            .message(command, |message| is(message, false, "INVITE", "INVITE") && message.has_line(offered));
    }
    line.hangs_up();
}

fn an_agent_that_holds_the_call_is_followed(stage: Stage) {
    let line = Line::answered(stage, &[], &[], Office::default());
    let heard =
        |message: &Message| is(message, false, "SIP/2.0 200", "INVITE") && message.has_line("a=recvonly");
    change(&line.agent, "hold", || line.agent.messages().iter().any(heard));
    line.caller.message("it is held", |message| {
        is(message, false, "INVITE", "INVITE") && message.has_line("a=sendonly")
    });
    line.hangs_up();
}

fn an_update_of_the_session_is_answered(stage: Stage) {
    let line = Line::answered(stage, &[], &[], Office::default());
    let answer = |message: &Message| is(message, false, "SIP/2.0 200", "UPDATE");
    change(&line.caller, "update", || line.caller.messages().iter().any(answer));
    let answer = line.caller.message("UPDATE is answered", answer);
    assert_eq!(answer.header("Content-Type"), Some("application/sdp"), "{answer:?}");
    line.hangs_up();
}

fn a_digit_that_is_pressed_reaches_the_other_side(stage: Stage) {
    let line = Line::answered(stage, &[], &[], Office::default());
    line.caller.tell("dtmf 5");
    line.agent.sees(&["phone: dtmf 5"]);
    line.agent.tell("dtmf 7");
    line.caller.sees(&["phone: dtmf 7"]);
    line.hangs_up();
}

fn a_caller_who_wants_too_short_a_session_is_told_which_is_long_enough(stage: Stage) {
    let more =
        json!({ "trunks": { "acme/carrier": { "sessionTimer": { "minSeconds": 120, "seconds": 600 } } } });
    let office = Office { more, ..Office::default() };
    let line = Line::answered(stage, &["--timer=required", "--seconds=90"], &[], office);
    let refused = line.caller.message("it is refused", |message| is(message, false, "SIP/2.0 422", "INVITE"));
    assert_eq!(refused.header("Min-SE"), Some("120"));
    let agreed = line.caller.message("it is answered", |message| is(message, false, "SIP/2.0 200", "INVITE"));
    assert_eq!(agreed.header("Session-Expires"), Some("120;refresher=uas"));
    assert!(agreed.header("Require").is_some_and(|require| require.contains("timer")), "{agreed:?}");
    line.hangs_up();
}

fn an_agent_that_wants_a_longer_session_gets_it(stage: Stage) {
    let line =
        Line::answered(stage, &[], &["--timer=required", "--min=2000", "--seconds=3000"], Office::default());
    let refused = |message: &Message| is(message, true, "SIP/2.0 422", "INVITE");
    assert_eq!(line.agent.message("it refuses", refused).header("Min-SE"), Some("2000"));
    let asked = |message: &Message| {
        is(message, false, "INVITE", "INVITE") && message.header("Min-SE") == Some("2000")
    };
    let asked = line.agent.message("it is asked again", asked);
    assert_eq!(asked.header("Session-Expires"), Some("2000"));
    line.hangs_up();
}

fn a_caller_with_everything_is_transferred_to_a_human_with_everything(stage: Stage) {
    let everything = ["--prack=mandatory", "--timer=required", "--seconds=600"];
    let ready = [&everything[..], &["--media=5000"]].concat();
    let human = Phone::start(&stage, "human", OFFICE, SALES.0, &ready);
    let office = Office { trunk: PORT, ..Office::default() };
    let line = Line::answered(stage, &everything, &everything, office);
    line.agent.tell(&format!("refer sip:{}@{GATEWAY}:{}", SALES.1, SIP.0));
    human.sees(&["phone: incoming", CALLER]);
    human.tell("ring");
    human.message("its ringing is acknowledged", |message| is(message, false, "PRACK", "PRACK"));
    human.tell("answer");
    line.agent.sees(&["phone: transfer 200 OK final"]);
    line.agent.sees(&["phone: state DISCONNECTED"]);
    line.caller.message("it is moved", |message| {
        is(message, false, "INVITE", "INVITE") && message.says("m=audio 5000 ")
    });
    human.sees(&["phone: state CONFIRMED"]);
    human.tell("hangup");
    line.caller.sees(&["phone: state DISCONNECTED"]);
}

flows! {
    both_sides_insist_on_reliable_ringing_and_get_it,
    a_caller_who_holds_the_call_and_goes_on_is_followed,
    an_agent_that_holds_the_call_is_followed,
    an_update_of_the_session_is_answered,
    a_digit_that_is_pressed_reaches_the_other_side,
    a_caller_with_everything_is_transferred_to_a_human_with_everything,
    a_caller_who_wants_too_short_a_session_is_told_which_is_long_enough,
    an_agent_that_wants_a_longer_session_gets_it,
}

#[test]
fn other_programs_acknowledge_ringing_and_keep_their_sessions_too() {
    let mut stage = Stage::new(Loss::None);
    let mut agent = stage.agent("timed-agent");
    stage.open(Office { agent: agent.port, ..Office::default() });
    let mut caller = stage.caller("timed-caller");
    caller.sees(&["too short: at least 90"]);
    caller.sees(&["ringing, which is acknowledged"]);
    agent.go_on(&agent.call_id(&["ringing", "acknowledged as 17"]));
    caller.sees(&["answered: session 90;refresher=uac"]);
    caller.sees(&["refreshed: session 90;refresher=uac"]);
    agent.sees(&["refreshed: session 90;refresher=uac"]);
    caller.go_on(&caller.placed(1));
    caller.ends_well();
    agent.ends_well();
}

#[test]
fn a_session_is_refreshed_at_half_of_its_time() {
    let stage = Stage::new(Loss::None);
    let line = Line::answered(stage, &["--timer=required", "--seconds=90"], &[], Office::default());
    let refresh = |message: &Message| {
        !message.sent
            && message.header("Session-Expires") == Some("90;refresher=uac")
            && !message.start().starts_with("SIP/2.0")
    };
    let refresh = line.caller.message_within("it is asked to go on", REFRESHED, refresh);
    let method = refresh.start().split(' ').next().unwrap_or_default().to_owned();
    line.caller.message("it goes on", |message| is(message, true, "SIP/2.0 200", &method));
    line.hangs_up();
}

#[test]
fn a_caller_who_vanishes_is_noticed_when_the_session_ends() {
    let stage = Stage::new(Loss::None);
    let line = Line::answered(stage, &["--timer=required", "--seconds=90"], &[], Office::default());
    let Line { caller, agent, _stage } = line;
    caller.vanish();
    let goodbye =
        agent.message_within("it is told goodbye", ENDED, |message| is(message, false, "BYE", "BYE"));
    assert!(goodbye.header("Reason").is_some(), "{goodbye:?}");
}
