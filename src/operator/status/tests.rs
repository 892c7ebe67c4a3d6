use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::resources::PhoneNumber;
use crate::routing::table::ObjectKey;

fn holds(reason: &'static str) -> Finding {
    finding(ConditionStatus::True, reason, "It does.")
}

fn verdict() -> Verdict {
    Verdict {
        generation: 2,
        accepted: holds(reason::ACCEPTED),
        resolved_refs: holds(reason::RESOLVED),
        gateways: BTreeSet::new(),
        effective: Effective::PhoneNumber { gateway: Some(ObjectKey::new("vd", "default")) },
    }
}

fn number(status: Value) -> Arc<PhoneNumber> {
    let mut number =
        PhoneNumber::new("main", serde_json::from_value(json!({ "number": "+31201234567" })).unwrap());
    number.status = serde_json::from_value(status).unwrap();
    Arc::new(number)
}

fn desired(number: &Arc<PhoneNumber>, verdict: &Verdict, programmed: Finding, now: &str) -> Desired {
    of_object(Reported::PhoneNumber(number), verdict, programmed, None, None, now)
}

fn patched(status: Value, patch: &Value) -> Value {
    let mut status = status;
    for (field, value) in patch["status"].as_object().unwrap() {
        status[field] = value.clone();
    }
    status
}

#[test]
fn a_second_look_writes_nothing() {
    let fresh = json!({ "observedGeneration": -1 });
    let first =
        desired(&number(fresh.clone()), &verdict(), holds(reason::PROGRAMMED), "2026-01-01T00:00:00Z");
    let written = patched(fresh, &first.patch.unwrap());
    assert_eq!(written["observedGeneration"], 2);
    assert_eq!(written["effective"]["gateway"], "vd/default");
    let second = desired(&number(written), &verdict(), holds(reason::PROGRAMMED), "2026-01-02T00:00:00Z");
    assert_eq!(second.patch, None);
}

#[test]
fn the_time_of_a_transition_changes_only_with_the_status() {
    let first = desired(&number(json!({})), &verdict(), holds(reason::PROGRAMMED), "2026-01-01T00:00:00Z");
    let written = patched(json!({}), &first.patch.unwrap());
    let mut broken = verdict();
    broken.resolved_refs =
        finding(ConditionStatus::False, reason::REF_NOT_FOUND, "Assistant a/b does not exist.");
    let second = desired(&number(written), &broken, holds(reason::PROGRAMMED), "2026-01-02T00:00:00Z");
    let time = |type_: &str| {
        let found = second.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
        found.last_transition_time.clone()
    };
    assert_eq!(time(condition::ACCEPTED), "2026-01-01T00:00:00Z");
    assert_eq!(time(condition::RESOLVED_REFS), "2026-01-02T00:00:00Z");
    assert_eq!(time(condition::READY), "2026-01-02T00:00:00Z");
    let ready = second.conditions.iter().find(|condition| condition.type_ == condition::READY).unwrap();
    assert_eq!((ready.status, ready.reason.as_str()), (ConditionStatus::False, reason::REF_NOT_FOUND));
    assert_eq!(ready.message, "Assistant a/b does not exist.");
}

#[test]
fn conditions_of_others_are_left_alone() {
    let theirs = json!({ "type": "example.com/Audited", "status": "True", "observedGeneration": 1,
        "lastTransitionTime": "2025-01-01T00:00:00Z", "reason": "Audited", "message": "" });
    let number = number(json!({ "conditions": [theirs.clone()] }));
    let patch =
        desired(&number, &verdict(), holds(reason::PROGRAMMED), "2026-01-01T00:00:00Z").patch.unwrap();
    assert_eq!(patch["status"]["conditions"].as_array().unwrap().last(), Some(&theirs));
}

#[test]
fn an_unused_object_is_ready_and_a_broken_unused_one_is_not() {
    let unused = finding(ConditionStatus::False, reason::NOT_USED, "No phone number leads to it.");
    assert_eq!(summary(&verdict(), &unused, None).status, ConditionStatus::True);
    let mut broken = verdict();
    broken.resolved_refs =
        finding(ConditionStatus::False, reason::REF_NOT_FOUND, "SipTrunk a/b does not exist.");
    assert_eq!(summary(&broken, &unused, None).reason, reason::REF_NOT_FOUND);
}

#[test]
fn only_a_spec_that_waiting_cannot_mend_is_stalled_and_no_longer_once_it_is_mended() {
    let stalled = |desired: &Desired| {
        let found = desired.conditions.iter().find(|condition| condition.type_ == condition::STALLED);
        found.map(|found| (found.status, found.message.clone()))
    };
    let mut refused = verdict();
    let sentence = "number '12' is not E.164; write it like +31201234567.";
    refused.accepted = finding(ConditionStatus::False, reason::INVALID, sentence);
    let unused = finding(ConditionStatus::False, reason::NOT_USED, "No gateway holds it.");
    let first = desired(&number(json!({})), &refused, unused.clone(), "2026-01-01T00:00:00Z");
    assert_eq!(stalled(&first), Some((ConditionStatus::True, sentence.to_owned())));

    let written = patched(json!({}), &first.patch.unwrap());
    let mended = desired(&number(written), &verdict(), holds(reason::PROGRAMMED), "2026-01-02T00:00:00Z");
    assert_eq!(stalled(&mended), None);

    refused.accepted = finding(ConditionStatus::False, reason::CONFLICT, "PhoneNumber a/b holds it.");
    let contested = desired(&number(json!({})), &refused, unused, "2026-01-01T00:00:00Z");
    assert_eq!(stalled(&contested), None, "it may be given up");
}

#[test]
fn a_field_that_goes_is_nulled() {
    let before = json!({ "a": 1, "b": { "x": 1, "y": 2 } });
    let after = json!({ "b": { "x": 1 } });
    assert_eq!(
        difference(&before, &after),
        Some(json!({ "status": { "a": null, "b": { "x": 1, "y": null } } }))
    );
}

#[test]
fn a_trunk_that_is_unreachable_is_not_ready_and_one_of_which_nothing_is_known_holds_nothing_up() {
    let programmed = holds(reason::PROGRAMMED);
    let reachable = |status| finding(status, reason::UNREACHABLE, "It does not answer.");
    let ready = |status| summary(&verdict(), &programmed, Some(&reachable(status))).status;
    assert_eq!(ready(ConditionStatus::True), ConditionStatus::True);
    assert_eq!(ready(ConditionStatus::Unknown), ConditionStatus::True);
    assert_eq!(ready(ConditionStatus::False), ConditionStatus::False);
}

fn trunk_status(status: Value, reachable: Option<Finding>) -> Desired {
    let spec = serde_json::from_value(json!({ "host": "pbx.example.com" })).unwrap();
    let mut trunk = crate::resources::SipTrunk::new("pbx", spec);
    trunk.status = serde_json::from_value(status).unwrap();
    let trunk = Arc::new(trunk);
    let now = "2026-01-01T00:00:00Z";
    of_object(Reported::SipTrunk(&trunk), &verdict(), holds(reason::PROGRAMMED), reachable, None, now)
}

#[test]
fn a_probe_that_is_turned_off_takes_its_condition_along() {
    let first = trunk_status(json!({}), Some(holds(reason::REACHABLE)));
    let written = patched(json!({}), &first.patch.unwrap());
    let conditions = trunk_status(written, None).conditions;
    assert!(conditions.iter().all(|condition| condition.type_ != condition::REACHABLE));
}

#[test]
fn a_trunk_that_changes_hands_is_waited_for_but_a_new_one_is_not() {
    let unknown = || Some(finding(ConditionStatus::Unknown, reason::PENDING, "Nobody has found out yet."));
    let fresh = trunk_status(json!({}), unknown());
    assert!(!fresh.waits_for_gateways());
    let known = trunk_status(json!({}), Some(holds(reason::REACHABLE)));
    let written = patched(json!({}), &known.patch.unwrap());
    assert!(trunk_status(written, unknown()).waits_for_gateways());
}
