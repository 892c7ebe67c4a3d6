//! The caller's signed identity on its way to the agent.

use std::sync::Arc;

use super::world::*;
use crate::routing::table::{AgentEntry, ObjectKey};

/// What the agent is sent of it, when it is called by this URI and the INVITE came with these users in From and To.
fn passed_on(uri: &str, from: &str, to: &str) -> Vec<(String, String)> {
    let mut table = table(false);
    let assistant = table.assistants.get_mut(&ObjectKey::new("acme", "support")).unwrap();
    if let AgentEntry::Sip { targets, .. } = &mut Arc::make_mut(assistant).agent {
        targets[0].uri = uri.into();
    }
    let mut world = World::called(table, |incoming| {
        incoming.from.user = from.into();
        incoming.to.user = to.into();
        incoming.identity = vec!["eyJ.one;info=<https://a>".into(), "eyJ.two;info=<https://b>".into()];
        incoming.date = Some("Thu, 26 Nov 2026 05:00:00 GMT".into());
    });
    let headers = world.leg(AGENT).dial.clone().unwrap().headers;
    headers.into_iter().filter(|(name, _)| name == "Identity" || name == "Date").collect()
}

#[test]
fn a_signed_identity_goes_to_an_agent_that_is_called_by_the_number_that_was_dialled() {
    let passed = passed_on("sip:+31-20-1234567@agent.example;user=phone", "+31687654321", "31201234567");
    let names: Vec<&str> = passed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Identity", "Identity", "Date"]);
    assert_eq!(passed[0].1, "eyJ.one;info=<https://a>", "verbatim");
}

#[test]
fn a_signed_identity_that_would_be_untrue_is_left_out() {
    let number = "sip:+31201234567@agent.example";
    assert_eq!(passed_on("sip:agent@agent.example", "+31687654321", "+31201234567"), [], "another number");
    assert_eq!(passed_on(number, "+31687654321", "+31201111111"), [], "it was dialled by another number");
    assert_eq!(passed_on(number, "alice", "+31201234567"), [], "a name is signed with its host");
}
