//! The routing tables that the tests' calls are routed by.

use std::sync::Arc;

use crate::routing::schedule::{Hours, Schedule};
use crate::routing::table::*;

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("acme", name)
}

fn target(host: &str) -> SipTarget {
    SipTarget {
        uri: format!("sip:agent@{host}"),
        host: host.into(),
        port: None,
        transport: TransportEntry::Udp,
        any_transport: false,
        route: None,
        tls: None,
    }
}

fn destination(number: &str, return_to_assistant: bool) -> DestinationEntry {
    DestinationEntry {
        target: DestinationTarget::Number(number.parse().unwrap()),
        description: "a human".into(),
        message: None,
        trunk: None,
        by_refer: false,
        ring_timeout_seconds: 30,
        caller_id: CallerIdEntry::Preserve,
        headers: Vec::new(),
        schedule: None,
        then: Vec::new(),
        return_to_assistant,
    }
}

/// The destination with a message, and what it is.
pub(super) const ANNOUNCED: &str = "desk";
pub(super) const MESSAGE: &str = "I'm transferring you to the desk, one moment please.";

/// One number with a trunk, an assistant with two agent addresses that can be told what to say, and destinations.
pub(super) fn table(fallback: bool) -> Table {
    let mut table = Table::default();
    table.trunks.insert(
        key("carrier"),
        TrunkEntry {
            host: "198.51.100.1".into(),
            port: Some(5060),
            transport: TransportEntry::Udp,
            any_transport: false,
            proxy: None,
            refer: Some(ReferEntry::Sip { host: "carrier.example".into() }),
            failover: None,
            credential: None,
            tls: None,
            credentials_missing: false,
            realm: None,
            authenticates: false,
            allowed_sources: vec!["203.0.113.0/24".parse().unwrap()],
            number_format: NumberFormatEntry::E164,
            allowed_prefixes: Vec::new(),
            denied_prefixes: vec!["+3190".into()],
            limits: Limits::default(),
            inbound_limits: Limits::default(),
            probe_seconds: None,
            register_seconds: None,
            caller_id_header: CallerIdHeaderEntry::PAI,
            session_timer: SessionTimerEntry::default(),
            allowed_namespaces: vec!["acme".into()],
        }
        .into(),
    );
    let destinations = ["sales", "strict", "night", "team", "queue", "desk", "lobby"]
        .map(|name| (name.to_owned(), key(name)))
        .into();
    let agent = AgentEntry::Sip {
        targets: vec![target("192.0.2.10"), target("192.0.2.11")],
        headers: vec![("X-Tenant".into(), "acme".into())],
        answer_timeout_seconds: 10,
        hook: Some(HookEntry { url: "http://192.0.2.10/hook".into(), secret: CredentialId("v1".into()) }),
    };
    let assistant = AssistantEntry { agent, destinations, script: None, events: None };
    table.assistants.insert(key("support"), assistant.into());
    table.destinations.insert(key("sales"), destination("+31612345678", true).into());
    table.destinations.insert(key("strict"), destination("+31612345679", false).into());
    let mut night = destination("+31612345670", true);
    let hours = Hours::new(0, "22:00", "24:00").unwrap();
    night.schedule = Some(Schedule::new("Europe/Amsterdam".parse().unwrap(), vec![hours]));
    table.destinations.insert(key("night"), night.into());
    let mut queue = destination("+31612345672", true);
    queue.by_refer = true;
    queue.then = vec![key("sales")];
    table.destinations.insert(key("queue"), queue.into());
    let announced = |entry: DestinationEntry| DestinationEntry { message: Some(MESSAGE.into()), ..entry };
    let desk = destination("+31612345673", true);
    table.destinations.insert(key(ANNOUNCED), announced(desk).into());
    // Both it and the one after it are announced, and its trunk is to dial it.
    let lobby =
        DestinationEntry { by_refer: true, then: vec![key("desk")], ..destination("+31612345674", false) };
    table.destinations.insert(key("lobby"), announced(lobby).into());
    let mut team = destination("+31612345671", true);
    team.then = ["sales", "night", "strict"].map(key).into();
    table.destinations.insert(key("team"), team.into());
    table.numbers.insert(
        "+31201234567".parse().unwrap(),
        NumberEntry {
            object: key("main"),
            assistant: Some(key("support")),
            transfer_trunk: Some(key("carrier")),
            fallback: fallback.then(|| key("sales")),
            transfer_trunk_unusable: false,
        }
        .into(),
    );
    table
}

/// The table with two further hosts of its trunk.
pub(super) fn table_with_backups() -> Table {
    let mut table = table(true);
    let backup = |host: &str, priority| BackupEntry { priority, host: host.into(), port: None, weight: 10 };
    let carrier = table.trunks.get_mut(&key("carrier")).unwrap();
    Arc::make_mut(carrier).failover = Some(FailoverEntry {
        hosts: vec![backup("198.51.100.2", 10), backup("198.51.100.3", 20)],
        final_codes: vec![502],
    });
    table
}

/// The table with an agent that can't be told what to say.
pub(super) fn table_without_hook() -> Table {
    let mut table = table(false);
    let assistant = table.assistants.get_mut(&key("support")).unwrap();
    if let AgentEntry::Sip { hook, .. } = &mut Arc::make_mut(assistant).agent {
        *hook = None;
    }
    table
}

/// The table with an agent over OpenAI.
pub(super) fn table_over_openai() -> Table {
    let mut table = table(false);
    let assistant = table.assistants.get_mut(&key("support")).unwrap();
    let credential = |name: &str| CredentialId(name.into());
    Arc::make_mut(assistant).agent = AgentEntry::OpenAi(Box::new(OpenAiEntry {
        target: target("192.0.2.10"),
        api: "https://api.example.com/v1".into(),
        keys: Some(OpenAiKeys { api: credential("a"), webhook: credential("w") }),
        voice: None,
        audio_format: None,
        answer_timeout_seconds: 10,
    }));
    table
}
