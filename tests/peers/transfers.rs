//! Handing a caller to a human, in all ways, and what becomes of a caller whom nobody takes.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use voicedock::gateway::snapshot::Credential;
use voicedock::routing::table::CredentialId;

use crate::harness::control::{call_is, call_is_within, voicedock_id};
use crate::harness::hook::{self, Hook};
use crate::harness::network::{AGENT, Loss, PHONE};
use crate::harness::sipp::Sipp;
use crate::harness::stage::{CALLER, Office, SALES, Stage};
use crate::harness::wait::SOON;

/// A call that an assistant has answered.
pub struct Call {
    /// Where it happens.
    pub stage: Stage,
    /// The assistant.
    pub agent: Sipp,
    /// The caller.
    pub caller: Sipp,
    /// Its id.
    pub id: String,
}

impl Call {
    /// A caller with an assistant, in an office whose trunk is a phone on `trunk`.
    pub fn start(stage: Stage, office: Office) -> Self {
        Self::start_as("caller", stage, office)
    }

    /// The same with another scenario for the caller.
    pub fn start_as(scenario: &str, mut stage: Stage, office: Office) -> Self {
        let agent = stage.agent("agent");
        stage.open(Office { agent: agent.port, ..office });
        let caller = stage.caller(scenario);
        caller.sees(&["answered", &format!("m=audio {}", agent.media)]);
        let id = voicedock_id(&agent);
        Self { stage, agent, caller, id }
    }

    /// Asks for a transfer to the destination over HTTP.
    pub fn transfer(&self) {
        self.stage.control().transfer(&self.id, SALES.1);
    }

    /// The call's only transfer, once its outcome is known.
    pub fn outcome(&self) -> Value {
        let decided =
            |call: &Value| call["transfers"].as_array().is_some_and(|transfers| transfers.len() == 1);
        call_is_within(&self.stage.control(), &self.id, "has an outcome", SOON * 2, decided)["transfers"][0]
            .clone()
    }

    /// The caller is with the human; the agent is gone; then the caller leaves.
    pub fn ends_with(mut self, mut human: Sipp) {
        self.caller.sees(&["moved", &format!("m=audio {}", human.media)]);
        self.agent.ends_well();
        let outcome = self.outcome();
        assert_eq!(outcome["outcome"], "answered", "{outcome}");
        assert_eq!(outcome["trunk"], "acme/office", "{outcome}");
        self.caller.go_on(&self.caller.placed(1));
        self.caller.ends_well();
        human.ends_well();
        call_is(&self.stage.control(), &self.id, "is over", |call| call["status"] == "ended");
    }

    /// Nobody took the caller, who is still with the assistant; then the caller leaves.
    pub fn ends_with_the_assistant(mut self, outcome: &str, code: Option<u16>) {
        let transfer = self.outcome();
        assert_eq!(transfer["outcome"], outcome, "{transfer}");
        if let Some(code) = code {
            assert_eq!(transfer["sip_code"], code, "{transfer}");
        }
        let goes_on = |call: &Value| call["status"] == "in-progress";
        call_is(&self.stage.control(), &self.id, "goes on", goes_on);
        assert!(!self.caller.log().contains("moved"), "the caller was left alone:\n{}", self.caller.log());
        self.caller.go_on(&self.caller.placed(1));
        self.caller.ends_well();
        self.agent.ends_well();
    }
}

fn the_api_transfers_a_call(stage: Stage) {
    let human = stage.human("human");
    let call = Call::start(stage, Office { trunk: human.port, ..Office::default() });
    call.transfer();
    let shown = human.sees(&["ringing"]);
    assert!(shown.contains(CALLER), "the human sees who calls: {shown}");
    human.go_on(&human.call_id(&["ringing"]));
    call.ends_with(human);
}

fn the_agent_transfers_a_call_with_refer_and_hears_the_outcome(stage: Stage) {
    let human = stage.human("human");
    let call = Call::start(stage, Office { trunk: human.port, ..Office::default() });
    call.agent.ask_for_transfer(&call.agent.call_id(&["answered"]), "sip:sales@gateway.invalid");
    call.agent.sees(&["told", "SIP/2.0 100", "active"]);
    human.go_on(&human.call_id(&["ringing"]));
    call.agent.sees(&["told", "SIP/2.0 200", "terminated"]);
    call.ends_with(human);
}

fn a_human_who_hangs_up_ends_the_transferred_call(stage: Stage) {
    let mut human = stage.human("human");
    let mut call = Call::start(stage, Office { trunk: human.port, ..Office::default() });
    call.transfer();
    let leg = human.call_id(&["ringing"]);
    human.go_on(&leg);
    call.caller.sees(&["moved"]);
    call.agent.ends_well();
    human.go_on(&leg);
    human.ends_well();
    call.caller.sees(&["the other side hung up"]);
    call.caller.ends_well();
}

fn a_caller_whose_human_is_busy_stays_with_the_assistant(stage: Stage) {
    let mut human = stage.human("busy-human");
    let call = Call::start(stage, Office { trunk: human.port, ..Office::default() });
    call.transfer();
    human.ends_well();
    call.ends_with_the_assistant("busy", Some(486));
}

fn an_agent_that_asked_with_refer_hears_that_the_human_is_busy(stage: Stage) {
    let mut human = stage.human("busy-human");
    let call = Call::start(stage, Office { trunk: human.port, ..Office::default() });
    call.agent.ask_for_transfer(&call.agent.call_id(&["answered"]), "sip:sales@gateway.invalid");
    call.agent.sees(&["told", "SIP/2.0 486", "terminated"]);
    human.ends_well();
    call.ends_with_the_assistant("busy", Some(486));
}

fn a_caller_whose_human_does_not_answer_stays_with_the_assistant(stage: Stage) {
    let mut human = stage.human("human");
    let more = json!({ "destinations": { "acme/sales": { "ringTimeoutSeconds": 2 } } });
    let call = Call::start(stage, Office { trunk: human.port, more, ..Office::default() });
    call.transfer();
    human.sees(&["ringing"]);
    human.sees(&["cancelled"]);
    human.ends_well();
    call.ends_with_the_assistant("no-answer", None);
}

fn a_destination_that_is_busy_is_followed_by_the_next_one(stage: Stage) {
    let mut busy = stage.human("busy-human");
    let mut human = stage.party("backup", "human", PHONE);
    let uri = format!("sip:backup@{PHONE}:{}", human.port);
    let more = json!({ "destinations": {
        "acme/sales": { "then": ["acme/backup"] },
        "acme/backup": {
            "target": { "sip": { "uri": uri, "host": PHONE, "port": human.port, "transport": "UDP" } },
            "description": "Backup", "ringTimeoutSeconds": 30, "callerId": "preserve", "returnToAssistant": true,
        },
    } });
    let mut call = Call::start(stage, Office { trunk: busy.port, more, ..Office::default() });
    call.transfer();
    busy.ends_well();
    human.go_on(&human.call_id(&["ringing"]));
    call.caller.sees(&["moved", &format!("m=audio {}", human.media)]);
    call.agent.ends_well();
    let outcome = call.outcome();
    assert_eq!((&outcome["outcome"], &outcome["destination"]), (&json!("answered"), &json!("backup")));
    assert_eq!(
        (&outcome["attempts"], &outcome["tries"][0]["outcome"]),
        (&json!(2), &json!("busy")),
        "{outcome}"
    );
    call.caller.go_on(&call.caller.placed(1));
    call.caller.ends_well();
    human.ends_well();
}

fn a_caller_who_hangs_up_while_the_human_rings_takes_the_human_along(stage: Stage) {
    let mut human = stage.human("human");
    let mut call = Call::start(stage, Office { trunk: human.port, ..Office::default() });
    call.transfer();
    human.sees(&["ringing"]);
    call.caller.go_on(&call.caller.placed(1));
    call.caller.ends_well();
    human.sees(&["cancelled"]);
    human.ends_well();
    call.agent.ends_well();
    assert_eq!(call.outcome()["outcome"], "caller-hung-up");
}

fn a_human_who_answers_in_the_moment_in_which_the_caller_hangs_up_is_let_go(stage: Stage) {
    let mut human = stage.human("late-human");
    let mut call = Call::start(stage, Office { trunk: human.port, ..Office::default() });
    call.transfer();
    human.sees(&["ringing"]);
    call.caller.go_on(&call.caller.placed(1));
    call.caller.ends_well();
    human.sees(&["let go"]);
    human.ends_well();
    call.agent.ends_well();
    assert_eq!(call.outcome()["outcome"], "caller-hung-up");
}

fn a_transfer_to_a_destination_that_is_closed_is_refused_with_the_time_of_its_opening(stage: Stage) {
    let day = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).weekday().wrapping_add(3);
    let day = &format!("{day:?}")[..3];
    let (from, to) = (format!("{day} 00:00"), format!("{day} 23:59"));
    let hours = json!({ "timeZone": "UTC", "open": [{ "from": from, "to": to }] });
    let more = json!({ "destinations": { "acme/sales": { "schedule": hours } } });
    let call = Call::start(stage, Office { more, ..Office::default() });
    let command = json!({ "type": "transfer", "destination": SALES.1 });
    let answer = call.stage.control().command(&call.id, &command);
    assert_eq!((answer.status, &answer.body["error"]), (400, &json!("transfer_refused")));
    assert!(answer.body["message"].to_string().contains("closed; it opens"), "{}", answer.body);
    call.ends_with_the_assistant("closed", None);
}

fn a_caller_whose_trunk_takes_a_refer_is_sent_on_by_it(stage: Stage) {
    let more = json!({
        "trunks": { "acme/carrier": { "refer": "tel" } },
        "destinations": { "acme/sales": { "byRefer": true } },
    });
    let mut call = Call::start_as("referred-caller", stage, Office { more, ..Office::default() });
    call.agent.ask_for_transfer(&call.agent.call_id(&["answered"]), "sip:sales@gateway.invalid");
    call.caller.sees(&["referred to", &format!("<tel:{}>", SALES.0)]);
    call.agent.sees(&["told", "SIP/2.0 180", "active"]);
    call.agent.sees(&["told", "SIP/2.0 200", "terminated"]);
    call.caller.ends_well();
    call.agent.ends_well();
    assert_eq!(call.outcome()["outcome"], "answered");
}

fn a_trunk_whose_first_host_is_silent_is_reached_at_the_next_one(stage: Stage) {
    let human = stage.party("human", "human", PHONE);
    let silent =
        std::net::UdpSocket::bind((crate::harness::network::OFFICE, 0)).expect("it is an address of ours");
    let trunk = silent.local_addr().expect("the socket is bound").port();
    let hosts = json!([{ "priority": 1, "host": PHONE, "port": human.port, "weight": 1 }]);
    let more =
        json!({ "trunks": { "acme/office": { "failover": { "hosts": hosts, "finalCodes": [486] } } } });
    let call = Call::start(stage, Office { trunk, more, ..Office::default() });
    call.transfer();
    human.go_on(&human.call_id(&["ringing"]));
    call.ends_with(human);
}

fn a_trunk_whose_first_host_is_out_of_service_is_reached_at_the_next_one(stage: Stage) {
    let mut full = stage.human("unavailable-human");
    let human = stage.party("backup", "human", PHONE);
    let hosts = json!([{ "priority": 1, "host": PHONE, "port": human.port, "weight": 1 }]);
    let more =
        json!({ "trunks": { "acme/office": { "failover": { "hosts": hosts, "finalCodes": [486] } } } });
    let call = Call::start(stage, Office { trunk: full.port, more, ..Office::default() });
    call.transfer();
    full.ends_well();
    human.go_on(&human.call_id(&["ringing"]));
    call.ends_with(human);
}

flows! {
    the_api_transfers_a_call,
    the_agent_transfers_a_call_with_refer_and_hears_the_outcome,
    a_human_who_hangs_up_ends_the_transferred_call,
    a_caller_whose_human_is_busy_stays_with_the_assistant,
    an_agent_that_asked_with_refer_hears_that_the_human_is_busy,
    a_caller_whose_human_does_not_answer_stays_with_the_assistant,
    a_destination_that_is_busy_is_followed_by_the_next_one,
    a_caller_who_hangs_up_while_the_human_rings_takes_the_human_along,
    a_human_who_answers_in_the_moment_in_which_the_caller_hangs_up_is_let_go,
    a_transfer_to_a_destination_that_is_closed_is_refused_with_the_time_of_its_opening,
    a_caller_whose_trunk_takes_a_refer_is_sent_on_by_it,
    a_trunk_whose_first_host_is_silent_is_reached_at_the_next_one,
    a_trunk_whose_first_host_is_out_of_service_is_reached_at_the_next_one,
}

#[test]
fn a_human_is_dialled_once_the_agent_has_said_what_comes() {
    let stage = Stage::new(Loss::None);
    let (hook, human) = (Hook::at(AGENT), stage.human("human"));
    let more = json!({
        "assistants": { "acme/support": { "agent": { "sip": { "hook": { "url": hook.url, "secret": "hook" } } } } },
        "destinations": { "acme/sales": { "message": "One moment, please." } },
    });
    let signing = Credential::Signing { secret: "whsec".to_owned() };
    let credentials = BTreeMap::from([(CredentialId("hook".to_owned()), signing)]);
    let call = Call::start(stage, Office { trunk: human.port, more, credentials, ..Office::default() });
    call.transfer();
    let (asked, waits) = hook.asked();
    assert_eq!((&asked["type"], &asked["content"]), (&json!("say"), &json!("One moment, please.")));
    assert_eq!(asked["call_id"], call.id, "{asked}");
    assert_eq!(human.log(), "", "nobody is dialled while the caller hears it");
    hook::answer(waits);
    human.go_on(&human.call_id(&["ringing"]));
    let outcome = call.outcome();
    assert_eq!(outcome["message"]["heard"], true, "{outcome}");
    call.ends_with(human);
}
