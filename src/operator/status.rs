//! What the statuses should say. Pure: objects, verdicts, published tables and acknowledgements in, statuses out.
//!
//! Promises: `lastTransitionTime` changes only with `status`; conditions of others are left alone; `observedGeneration`
//! stands on top and on each condition and is written together with them; messages hold nothing that changes by itself,
//! so that nothing is written without need.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::resources::assistant::{AssistantEffective, AssistantStatus};
use crate::resources::conditions::{Condition, ConditionStatus, condition, reason};
use crate::resources::phone_number::{PhoneNumberEffective, PhoneNumberStatus};
use crate::resources::routing_table::RoutingTableStatus;
use crate::resources::sip_gateway::{SipGatewayEffective, SipGatewayStatus};
use crate::resources::sip_trunk::{SipTrunkEffective, SipTrunkStatus};
use crate::resources::transfer_destination::{TransferDestinationEffective, TransferDestinationStatus};
use crate::routing::compile::{Effective, Finding, Verdict};

use super::acknowledge::{Progress, Roll};
use super::state::Reported;

/// Reasons of `Accepted=False` that only another spec mends. A number that another object holds, say, is none: it may be given up.
const BEYOND_WAITING: [&str; 1] = [reason::INVALID];
/// A share of the size limit from which on people are told.
const NEARLY_FULL: f64 = 0.8;

/// A status as it should be, and what it says now.
#[derive(Debug)]
pub struct Desired {
    /// The conditions that should be there.
    pub conditions: Vec<Condition>,
    /// The conditions that are there.
    pub before: Vec<Condition>,
    /// The merge patch for `status`; `None` when there is nothing to write.
    pub patch: Option<Value>,
}

impl Desired {
    /// Whether it says that gateways are being waited for, which passes by itself in a moment.
    pub fn waits_for_gateways(&self) -> bool {
        self.conditions
            .iter()
            .any(|found| found.type_ == condition::PROGRAMMED && found.reason == reason::PENDING)
            || self.loses_sight_of_a_trunk()
    }

    /// A pod that kept the trunk is gone, and the next one will tell in a moment.
    fn loses_sight_of_a_trunk(&self) -> bool {
        let is = |conditions: &[Condition], status| {
            conditions.iter().any(|found| found.type_ == condition::REACHABLE && found.status == status)
        };
        is(&self.conditions, ConditionStatus::Unknown)
            && (is(&self.before, ConditionStatus::True) || is(&self.before, ConditionStatus::False))
    }

    /// Whether nothing is new but the number of calls.
    pub fn counts_calls_only(&self) -> bool {
        let fields = self.patch.as_ref().and_then(|patch| patch["status"].as_object());
        fields.is_some_and(|fields| fields.keys().all(|field| field == "calls"))
    }
}

/// What a SipGateway's status says beyond its verdict.
#[derive(Debug, Default)]
pub struct GatewayReport {
    /// Ready pods that take new calls.
    pub replicas: i64,
    /// Pods that there should be.
    pub wanted: Option<i32>,
    /// Calls that the pods hold.
    pub calls: i64,
    /// Generation that every ready pod holds.
    pub table_generation: Option<i64>,
    /// Where SIP is heard from outside.
    pub addresses: Vec<String>,
}

/// The status of an object that people write. `reachable` is for SipTrunks that are probed or registered at, `gateway` for
/// SipGateways; `now` is RFC 3339.
pub fn of_object(
    object: Reported<'_>,
    verdict: &Verdict,
    programmed: Finding,
    reachable: Option<Finding>,
    gateway: Option<GatewayReport>,
    now: &str,
) -> Desired {
    let ready = summary(verdict, &programmed, reachable.as_ref());
    let mut findings = vec![
        (condition::ACCEPTED, verdict.accepted.clone()),
        (condition::RESOLVED_REFS, verdict.resolved_refs.clone()),
        (condition::PROGRAMMED, programmed),
    ];
    findings.extend(reachable.map(|reachable| (condition::REACHABLE, reachable)));
    findings.push((condition::READY, ready));
    findings.extend(stalled(&verdict.accepted).map(|stalled| (condition::STALLED, stalled)));
    let generation = verdict.generation;
    let conditions = |existing: &[Condition]| merge(existing, &findings, generation, now);
    let observed_generation = Some(generation);
    match (object, &verdict.effective) {
        (Reported::Assistant(object), effective) => {
            let existing = object.status.clone().unwrap_or_default();
            let (effective, numbers) = match effective {
                Effective::Assistant { agent, model, destinations, numbers } => {
                    let effective = AssistantEffective {
                        agent: agent.map(str::to_owned),
                        model: model.clone(),
                        destinations: Some(*destinations),
                    };
                    (Some(effective), Some(*numbers))
                }
                _ => (None, None),
            };
            let conditions = conditions(&existing.conditions);
            let desired = AssistantStatus { observed_generation, conditions, effective, numbers };
            desire(&existing, &desired, &existing.conditions, &desired.conditions)
        }
        (Reported::PhoneNumber(object), effective) => {
            let existing = object.status.clone().unwrap_or_default();
            let effective = match effective {
                Effective::PhoneNumber { gateway } => {
                    Some(PhoneNumberEffective { gateway: gateway.as_ref().map(ToString::to_string) })
                }
                _ => None,
            };
            let conditions = conditions(&existing.conditions);
            let desired = PhoneNumberStatus { observed_generation, conditions, effective };
            desire(&existing, &desired, &existing.conditions, &desired.conditions)
        }
        (Reported::SipTrunk(object), effective) => {
            let existing = object.status.clone().unwrap_or_default();
            let effective = match effective {
                Effective::SipTrunk { transport, port } => {
                    Some(SipTrunkEffective { transport: Some(*transport), port: *port })
                }
                _ => None,
            };
            let conditions = conditions(&existing.conditions);
            let desired = SipTrunkStatus { observed_generation, conditions, effective };
            desire(&existing, &desired, &existing.conditions, &desired.conditions)
        }
        (Reported::TransferDestination(object), effective) => {
            let existing = object.status.clone().unwrap_or_default();
            let effective = match effective {
                Effective::TransferDestination { target, method, ring_timeout_seconds } => {
                    Some(TransferDestinationEffective {
                        target: Some(target.clone()),
                        method: Some(*method),
                        ring_timeout_seconds: Some(*ring_timeout_seconds),
                    })
                }
                _ => None,
            };
            let conditions = conditions(&existing.conditions);
            let desired = TransferDestinationStatus { observed_generation, conditions, effective };
            desire(&existing, &desired, &existing.conditions, &desired.conditions)
        }
        (Reported::SipGateway(object), _) => {
            let existing = object.status.clone().unwrap_or_default();
            let report = gateway.unwrap_or_default();
            let desired = SipGatewayStatus {
                observed_generation,
                conditions: conditions(&existing.conditions),
                effective: report.wanted.map(|replicas| SipGatewayEffective { replicas: Some(replicas) }),
                replicas: Some(report.replicas),
                calls: Some(report.calls),
                table_generation: report.table_generation,
                addresses: report.addresses,
            };
            desire(&existing, &desired, &existing.conditions, &desired.conditions)
        }
    }
}

/// The status of a head.
pub fn of_table(
    existing: Option<&RoutingTableStatus>,
    object_generation: i64,
    table_generation: i64,
    roll: &Roll,
    fullness: f64,
    hindrance: Option<&Finding>,
    now: &str,
) -> Desired {
    let existing = existing.cloned().unwrap_or_default();
    let programmed = match roll.progress(table_generation) {
        Progress::Held => {
            finding(ConditionStatus::True, reason::PROGRAMMED, "Every ready gateway pod holds it.")
        }
        Progress::NoPods => finding(
            ConditionStatus::False,
            reason::NO_GATEWAYS,
            "No gateway pod is ready; `kubectl get pods` in this namespace shows why.",
        ),
        Progress::Rejected { pod, reason: why } => finding(
            ConditionStatus::False,
            reason::REJECTED,
            &format!("Pod {pod} refused it and keeps the table that it has: {why}"),
        ),
        Progress::Waiting => finding(
            ConditionStatus::False,
            reason::PENDING,
            "A ready gateway pod does not hold it yet; status.lagging names it.",
        ),
    };
    let full = if fullness >= NEARLY_FULL {
        let message = "The table's largest object is past 80 % of what the API server takes; spread the numbers over more \
                       SipGateways before it no longer fits.";
        finding(ConditionStatus::True, reason::NEARLY_FULL, message)
    } else {
        finding(ConditionStatus::False, reason::FITS, "The table is far from any limit of the API server.")
    };
    // A newer table that can't be published is worth more than that this one is held.
    let ready = match hindrance {
        Some(hindrance) => hindrance.clone(),
        None if programmed.status == ConditionStatus::True => {
            finding(ConditionStatus::True, reason::READY, "Every ready gateway pod holds it.")
        }
        None => programmed.clone(),
    };
    let findings =
        [(condition::PROGRAMMED, programmed), (condition::NEAR_SIZE_LIMIT, full), (condition::READY, ready)];
    let desired = RoutingTableStatus {
        observed_generation: Some(object_generation),
        conditions: merge(&existing.conditions, &findings, object_generation, now),
        acknowledged_generation: roll.acknowledged(),
        published_generation: Some(table_generation),
        summary: Some(roll.summary(table_generation)),
        lagging: roll.lagging(table_generation),
    };
    desire(&existing, &desired, &existing.conditions, &desired.conditions)
}

/// `Ready`: the first of the others that doesn't hold, or that all do. An object that nothing leads to is ready when it is
/// sound: it can be referred to.
/// A trunk of which nobody knows yet whether it answers holds nothing up.
fn summary(verdict: &Verdict, programmed: &Finding, reachable: Option<&Finding>) -> Finding {
    let unused = programmed.reason == reason::NOT_USED;
    let first = [&verdict.accepted, &verdict.resolved_refs, programmed].into_iter().find(|finding| {
        finding.status != ConditionStatus::True && !(unused && finding.reason == reason::NOT_USED)
    });
    let unreachable = reachable.filter(|reachable| reachable.status == ConditionStatus::False);
    let first = first.or(unreachable);
    match first {
        Some(failing) => Finding { status: ConditionStatus::False, ..failing.clone() },
        None if unused => {
            finding(ConditionStatus::True, reason::READY, "It can be used; no phone number leads to it yet.")
        }
        None => finding(ConditionStatus::True, reason::READY, "It is in use by every ready gateway pod."),
    }
}

/// `Stalled`, there only while it is true: Flux and Helm give up at once then, and would wait for nothing else.
fn stalled(accepted: &Finding) -> Option<Finding> {
    let beyond = accepted.status == ConditionStatus::False && BEYOND_WAITING.contains(&accepted.reason);
    beyond.then(|| Finding { status: ConditionStatus::True, ..accepted.clone() })
}

fn finding(status: ConditionStatus, reason: &'static str, message: &str) -> Finding {
    Finding { status, reason, message: message.to_owned() }
}

/// Our conditions in our order, then those of others as they are.
fn merge(existing: &[Condition], findings: &[(&str, Finding)], generation: i64, now: &str) -> Vec<Condition> {
    let ours = findings.iter().map(|(type_, finding)| {
        let before = existing.iter().find(|condition| condition.type_ == *type_);
        let since = before.filter(|before| before.status == finding.status);
        Condition {
            type_: (*type_).to_owned(),
            status: finding.status,
            observed_generation: generation,
            last_transition_time: since.map_or(now, |before| &before.last_transition_time).to_owned(),
            reason: finding.reason.to_owned(),
            message: finding.message.clone(),
        }
    });
    // Of these there may be none any more: of a trunk that isn't asked, of a spec that was mended.
    let passing = [condition::REACHABLE, condition::STALLED];
    let is_ours = |type_: &str| passing.contains(&type_) || findings.iter().any(|(ours, _)| type_ == *ours);
    let theirs = existing.iter().filter(|condition| !is_ours(&condition.type_));
    ours.chain(theirs.cloned()).collect()
}

fn desire<S: Serialize>(existing: &S, desired: &S, before: &[Condition], after: &[Condition]) -> Desired {
    Desired { conditions: after.to_vec(), before: before.to_vec(), patch: difference(existing, desired) }
}

/// The merge patch from one status to another: changed fields, `null` for those that go.
fn difference<S: Serialize>(existing: &S, desired: &S) -> Option<Value> {
    let (existing, desired) = (object(existing), object(desired));
    let mut patch = Map::new();
    for (field, value) in &desired {
        if existing.get(field) != Some(value) {
            let merged = match (existing.get(field), value) {
                (Some(Value::Object(old)), Value::Object(new)) => {
                    let gone = old
                        .keys()
                        .filter(|key| !new.contains_key(*key))
                        .map(|key| (key.clone(), Value::Null));
                    Value::Object(new.clone().into_iter().chain(gone).collect())
                }
                _ => value.clone(),
            };
            patch.insert(field.clone(), merged);
        }
    }
    for field in existing.keys().filter(|field| !desired.contains_key(*field)) {
        patch.insert(field.clone(), Value::Null);
    }
    (!patch.is_empty()).then(|| json!({ "status": patch }))
}

fn object(status: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests;
