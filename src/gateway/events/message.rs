//! What an event says: the product's webhook format, `{"message": {"type", "timestamp", "call", …}}`.
//!
//! | type | when | beside what all have |
//! |---|---|---|
//! | `status-update` | the call is answered, and over | `status`: `in-progress`, `ended`, `ended-with-error` |
//! | `transfer-update` | a transfer is asked for, dials, rings, is answered or failed | `transfer`: `status`, `destination`, at the end `outcome` |
//! | `end-of-call-report` | the call is over | `ended_reason`, times, `transfers` |

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::call::Record;
use crate::gateway::calls::{CallStatus, CallView, Outcome};

/// One event, ready to be sent.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::gateway) struct Message {
    /// Its type.
    pub(in crate::gateway) kind: &'static str,
    /// Its body.
    pub(in crate::gateway) body: Value,
}

/// What a call's owner is told when this has happened; `view` has taken note of it. `destination` is the one that the transfer
/// under way is at.
pub(in crate::gateway) fn messages(
    view: &CallView,
    record: &Record,
    destination: Option<&str>,
    now: Timestamp,
) -> Vec<Message> {
    let transfer = |status: &str| {
        let transfer = json!({ "status": status, "destination": destination });
        vec![message(view, "transfer-update", json!({ "transfer": transfer }), now)]
    };
    match record {
        Record::Answered => vec![message(view, "status-update", json!({ "status": "in-progress" }), now)],
        Record::TransferStarted { .. } => transfer("requested"),
        Record::TransferDialling { .. } => transfer("dialling"),
        Record::TransferRinging => transfer("ringing"),
        Record::TransferEnded(_) => {
            let Some(ended) = view.transfers.last() else { return Vec::new() };
            let status = if ended.outcome == Outcome::Answered { "answered" } else { "failed" };
            let transfer = json!({ "status": status, "destination": ended.destination, "outcome": ended });
            vec![message(view, "transfer-update", json!({ "transfer": transfer }), now)]
        }
        Record::Ended { reason } => {
            let status = if view.status == CallStatus::Failed { "ended-with-error" } else { "ended" };
            let over = json!({ "status": status, "ended_reason": reason });
            let report = json!({
                "ended_reason": reason,
                "started_at": milliseconds(view.started_at),
                "ended_at": view.ended_at.map(milliseconds),
                "duration_seconds": view.ended_at.map(|ended| (ended - view.started_at).get_seconds().max(0)),
                "transfers": view.transfers,
            });
            vec![message(view, "status-update", over, now), message(view, "end-of-call-report", report, now)]
        }
        _ => Vec::new(),
    }
}

fn message(view: &CallView, kind: &'static str, own: Value, now: Timestamp) -> Message {
    let mut message = json!({
        "type": kind,
        "timestamp": milliseconds(now),
        "call": { "id": view.id, "type": "inbound_phone_call", "status": view.status },
        "phone_number": {
            "number": view.assistant_phone,
            "name": view.number_id.as_ref().map(|number| &number.name),
        },
        "customer": { "number": view.caller_phone },
        "assistant": view.agent_id.as_ref().map(|assistant| json!({ "name": assistant.name })),
    });
    if let (Value::Object(message), Value::Object(own)) = (&mut message, own) {
        message.extend(own);
        message.extend(view.error.as_ref().map(|error| ("error".to_owned(), json!(error))));
    }
    Message { kind, body: json!({ "message": message }) }
}

/// RFC 3339 with milliseconds always, as in the API.
fn milliseconds(time: Timestamp) -> String {
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::gateway::calls::tests::view;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_770_000_000_000 + milliseconds).unwrap()
    }

    fn one(view: &CallView, record: &Record, destination: Option<&str>) -> Value {
        let mut messages = messages(view, record, destination, at(5));
        assert_eq!(messages.len(), 1);
        messages.remove(0).body["message"].take()
    }

    #[test]
    fn an_event_has_the_fields_of_the_product() {
        let view = view(1, CallStatus::InProgress, at(0));
        assert_eq!(
            one(&view, &Record::Answered, None),
            json!({
                "type": "status-update", "timestamp": "2026-02-02T02:40:00.005Z", "status": "in-progress",
                "call": { "id": "call_0badcafe_010000000000000001", "type": "inbound_phone_call", "status": "in-progress" },
                "phone_number": { "number": "+31201234567", "name": "main-line" },
                "customer": { "number": "+31612345678" },
                "assistant": { "name": "support" },
            })
        );
    }

    #[test]
    fn a_transfer_is_told_from_the_request_to_the_ring() {
        let view = view(1, CallStatus::InProgress, at(0));
        let destination = || "sales".to_owned();
        for (record, status) in [
            (Record::TransferStarted { destination: destination() }, "requested"),
            (Record::TransferDialling { destination: destination() }, "dialling"),
            (Record::TransferRinging, "ringing"),
        ] {
            let told = one(&view, &record, Some("sales"));
            assert_eq!(told["type"], "transfer-update");
            assert_eq!(told["transfer"], json!({ "status": status, "destination": "sales" }));
        }
    }

    #[test]
    fn the_end_is_told_with_a_report() {
        let mut view = view(1, CallStatus::Failed, at(0));
        view.ended_at = Some(at(0) + Duration::from_secs(61));
        let messages = messages(&view, &Record::Ended { reason: "caller-hung-up" }, None, at(61_000));
        let kinds: Vec<_> = messages.iter().map(|message| message.kind).collect();
        assert_eq!(kinds, ["status-update", "end-of-call-report"]);
        assert_eq!(messages[0].body["message"]["status"], "ended-with-error");
        let report = &messages[1].body["message"];
        assert_eq!(
            (&report["ended_reason"], &report["duration_seconds"]),
            (&json!("caller-hung-up"), &json!(61))
        );
        assert_eq!(report["transfers"], json!([]));
    }
}
