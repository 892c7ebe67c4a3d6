//! Whether an object is Ready, and if not, why and what to do. Pure.

use kube::api::ObjectMeta;

use crate::operator::state::Reported;
use crate::resources::RoutingTable;
use crate::resources::conditions::{Condition, ConditionStatus, condition};
use crate::routing::table::ObjectKey;

use super::report::Problem;

/// What an object's status comes to.
pub struct Judged {
    /// Whether it is Ready, as it is now.
    pub ready: bool,
    /// Why not. Absent also for what is being deleted.
    pub problem: Option<Problem>,
}

/// Judges an object that people write.
pub fn of_object(object: Reported<'_>) -> Judged {
    let kind = match object {
        Reported::Assistant(_) => "Assistant",
        Reported::PhoneNumber(_) => "PhoneNumber",
        Reported::SipGateway(_) => "SipGateway",
        Reported::SipTrunk(_) => "SipTrunk",
        Reported::TransferDestination(_) => "TransferDestination",
    };
    let metadata = object.metadata();
    let key = ObjectKey::new(
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    );
    let problem = why(metadata, object.conditions()).map(|(reason, message, since)| Problem {
        kind,
        object: key,
        reason,
        message,
        since,
    });
    let ready = problem.is_none();
    Judged { ready, problem: problem.filter(|_| metadata.deletion_timestamp.is_none()) }
}

/// Judges a head.
pub fn of_table(key: &ObjectKey, table: &RoutingTable) -> Option<Problem> {
    let conditions: &[Condition] = table.status.as_ref().map_or(&[], |status| &status.conditions);
    let full = conditions.iter().find(|found| found.type_ == condition::NEAR_SIZE_LIMIT);
    let full = full.filter(|full| full.status == ConditionStatus::True).map(told);
    let (reason, message, since) = why(&table.metadata, conditions).or(full)?;
    Some(Problem { kind: "RoutingTable", object: key.clone(), reason, message, since })
}

/// Reason, sentence and since when, if the object isn't Ready as it is now.
fn why(metadata: &ObjectMeta, conditions: &[Condition]) -> Option<(String, String, Option<String>)> {
    let unseen = |what: &str| {
        let message = format!(
            "The operator has not looked at it {what}; `kubectl get pods -A -l app.kubernetes.io/part-of=voicedock` shows \
             whether one runs."
        );
        Some(("NotSeen".to_owned(), message, None))
    };
    let Some(ready) = conditions.iter().find(|found| found.type_ == condition::READY) else {
        return unseen("yet");
    };
    if ready.observed_generation < metadata.generation.unwrap_or_default() {
        return unseen("since it was changed");
    }
    (ready.status != ConditionStatus::True).then(|| told(ready))
}

fn told(condition: &Condition) -> (String, String, Option<String>) {
    let since = Some(condition.last_transition_time.clone()).filter(|since| !since.is_empty());
    (condition.reason.clone(), condition.message.clone(), since)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::resources::PhoneNumber;

    fn judged(generation: i64, conditions: Value) -> Judged {
        let number: PhoneNumber = serde_json::from_value(json!({
            "metadata": { "namespace": "acme", "name": "main", "generation": generation },
            "spec": { "number": "+31201234567" },
            "status": { "conditions": conditions },
        }))
        .unwrap();
        of_object(Reported::PhoneNumber(&Arc::new(number)))
    }

    fn ready(status: &str, observed: i64) -> Value {
        json!([{
            "type": "Ready", "status": status, "observedGeneration": observed, "reason": "RefNotFound",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "message": "assistantRef names nobody; create it.",
        }])
    }

    #[test]
    fn an_object_that_is_not_ready_says_why_in_the_operators_words() {
        assert!(judged(2, ready("True", 2)).ready);
        let problem = judged(2, ready("False", 2)).problem.unwrap();
        assert_eq!((problem.kind, problem.reason.as_str()), ("PhoneNumber", "RefNotFound"));
        assert_eq!(problem.message, "assistantRef names nobody; create it.");
    }

    #[test]
    fn a_status_of_an_older_spec_says_nothing_of_this_one() {
        for (generation, conditions) in [(3, ready("True", 2)), (1, json!([]))] {
            let judged = judged(generation, conditions);
            assert!(!judged.ready);
            assert_eq!(judged.problem.unwrap().reason, "NotSeen");
        }
    }
}
