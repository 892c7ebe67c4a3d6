use std::time::Duration;

use serde_json::json;

use super::*;
use crate::gateway::call_id::Instance;

pub(crate) const INSTANCE: Instance = Instance(0x0bad_cafe);

pub(crate) fn view(serial: u64, status: CallStatus, started_at: Timestamp) -> CallView {
    CallView {
        id: CallId { instance: INSTANCE, shard: (serial % 2) as u8, serial },
        caller_phone: Some("+31612345678".to_owned()),
        assistant_phone: "+31201234567".parse().unwrap(),
        status,
        direction: Direction::Inbound,
        end_reason: None,
        error: None,
        started_at,
        ended_at: None,
        duration_seconds: None,
        messages: [],
        agent_id: Some(ObjectKey::new("acme", "support")),
        number_id: Some(ObjectKey::new("acme", "main-line")),
        trunk_id: Some(Arc::new(ObjectKey::new("acme", "office-pbx"))),
        transferring_to: None,
        transfers: Vec::new(),
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_770_000_000 + seconds).unwrap()
}

#[test]
fn a_call_has_the_fields_of_the_product() {
    let mut call = view(1, CallStatus::InProgress, at(0));
    call.transfers.push(TransferOutcome {
        outcome: Outcome::NoAnswer,
        sip_code: Some(408),
        reason: Some("Request Timeout".to_owned()),
        destination: "sales".to_owned(),
        trunk: Some(ObjectKey::new("acme", "office-pbx")),
        attempts: 1,
        ring_seconds: 30,
        message: Some(Message { heard: true, reason: None }),
        tries: vec![Tried {
            destination: "sales".to_owned(),
            trunk: None,
            host: None,
            outcome: Outcome::Closed,
            sip_code: None,
            reason: "closed".to_owned(),
            ring_seconds: 0,
            message: None,
        }],
        at: at(40) + Duration::from_millis(5),
    });
    assert_eq!(
        serde_json::to_value(&call).unwrap(),
        json!({
            "id": "call_0badcafe_010000000000000001",
            "caller_phone": "+31612345678",
            "assistant_phone": "+31201234567",
            "status": "in-progress",
            "direction": "inbound",
            "end_reason": null,
            "error": null,
            "started_at": "2026-02-02T02:40:00.000Z",
            "ended_at": null,
            "duration_seconds": null,
            "messages": [],
            "agent_id": "acme/support",
            "number_id": "acme/main-line",
            "trunk_id": "acme/office-pbx",
            "transferring_to": null,
            "transfers": [{
                "outcome": "no-answer",
                "sip_code": 408,
                "reason": "Request Timeout",
                "destination": "sales",
                "trunk": "acme/office-pbx",
                "attempts": 1,
                "ring_seconds": 30,
                "message": { "heard": true, "reason": null },
                "tries": [{
                    "destination": "sales",
                    "trunk": null,
                    "host": null,
                    "outcome": "closed",
                    "sip_code": null,
                    "reason": "closed",
                    "ring_seconds": 0,
                    "message": null,
                }],
                "at": "2026-02-02T02:40:40.005Z",
            }],
        })
    );
}

#[test]
fn a_call_that_is_over_stays_visible_for_an_hour() {
    let calls = Calls::new(2);
    calls.record(view(1, CallStatus::InProgress, at(0)), at(0));
    assert_eq!(calls.live(), 1);
    calls.record(view(1, CallStatus::Ended, at(0)), at(95));
    assert_eq!(calls.live(), 0);
    let id = view(1, CallStatus::Ended, at(0)).id;
    let shown = calls.get(id, at(96)).unwrap();
    assert_eq!((shown.ended_at, shown.duration_seconds), (Some(at(95)), Some(95)));
    assert!(calls.get(id, at(95 + KEEP_SECONDS - 1)).is_some());
    assert!(calls.get(id, at(95 + KEEP_SECONDS)).is_none());
    assert!(calls.list(at(95 + KEEP_SECONDS)).is_empty());
}

#[test]
fn a_call_that_is_over_was_there_until_it_ended() {
    let ended = CallView { ended_at: Some(at(95)), ..view(1, CallStatus::Ended, at(0)) };
    assert!(ended.was_there_within(6, at(100)) && !ended.was_there_within(5, at(100)));
    assert!(!ended.was_there_within(0, at(95)), "none that is over");
    assert!(view(2, CallStatus::InProgress, at(0)).was_there_within(0, at(100)));
}

#[test]
fn only_the_newest_thousand_calls_that_are_over_are_kept() {
    let calls = Calls::new(2);
    for serial in 0..=KEEP_CALLS as u64 {
        calls.record(view(serial, CallStatus::Failed, at(0)), at(1));
    }
    assert_eq!(calls.list(at(2)).len(), KEEP_CALLS);
    assert!(calls.get(view(0, CallStatus::Failed, at(0)).id, at(2)).is_none(), "the oldest goes first");
}

#[test]
fn the_list_is_newest_first_and_names_each_call_once() {
    let calls = Calls::new(2);
    calls.record(view(1, CallStatus::InProgress, at(10)), at(10));
    calls.record(view(2, CallStatus::Connecting, at(30)), at(30));
    calls.record(view(3, CallStatus::Ended, at(20)), at(40));
    let serials: Vec<u64> = calls.list(at(50)).iter().map(|view| view.id.serial).collect();
    assert_eq!(serials, [2, 3, 1]);
}

#[test]
fn a_call_of_a_shard_that_does_not_exist_is_unknown() {
    let calls = Calls::new(1);
    let id = CallId { instance: INSTANCE, shard: 200, serial: 1 };
    assert!(calls.get(id, at(0)).is_none());
}
