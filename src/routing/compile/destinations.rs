//! TransferDestinations, each by itself; [`super::chains`] links them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::resources::SipTrunk;
use crate::resources::transfer_destination::{
    self, CallerId, CallerIdMode, DestinationType, Finally, TransferDestinationSpec, TransferMethod,
};
use crate::routing::schedule::{Hours, Schedule};
use crate::routing::table::{CallerIdEntry, DestinationEntry, DestinationTarget, ObjectKey};

use super::trunks::Trunk;
use super::verdict::{Checked, Problems, problem};
use super::{Effective, Kind, Objects, chains, fields, grants};
use crate::resources::conditions::reason;

/// Seconds that a destination may ring.
pub(in crate::routing) const DEFAULT_RING_TIMEOUT_SECONDS: i32 = 30;

/// Checks every TransferDestination.
pub(in crate::routing) fn check(
    objects: &Objects,
    trunks: &BTreeMap<ObjectKey, Checked<Trunk>>,
) -> BTreeMap<ObjectKey, Checked<Arc<DestinationEntry>>> {
    let all = objects.destinations.iter();
    let alone =
        all.map(|(key, object)| (key.clone(), check_alone(objects, trunks, key, &object.spec))).collect();
    let all = objects.destinations.iter();
    all.filter_map(|(key, object)| Some((key.clone(), chains::link(&alone, key, &object.spec)?))).collect()
}

/// Checks one TransferDestination by itself. One whose own trunk can't be used is of no use: it must not go out over another.
pub(in crate::routing) fn check_alone(
    objects: &Objects,
    trunks: &BTreeMap<ObjectKey, Checked<Trunk>>,
    key: &ObjectKey,
    spec: &TransferDestinationSpec,
) -> Checked<Arc<DestinationEntry>> {
    let mut accepted = Problems::default();
    let entry = accepted.take(entry(spec));
    let mut resolved = Problems::default();
    let trunk = spec.trunk_ref.as_ref().map(|named| grants::target(&key.namespace, named));
    if let Some(trunk) = &trunk
        && let Err(failure) = grants::resolve::<SipTrunk, _>(objects, trunks, &key.namespace, trunk)
    {
        resolved.extend(failure.of("trunkRef", Kind::SipTrunk, trunk));
    }
    let usable = entry.filter(|_| accepted.is_empty() && resolved.is_empty()).map(|entry| {
        Arc::new(DestinationEntry { trunk, then: chains::named(&key.namespace, spec), ..entry })
    });
    Checked { accepted, resolved, usable }
}

/// Values that the status shows for what the spec leaves out.
pub(in crate::routing) fn effective(spec: &TransferDestinationSpec) -> Effective {
    Effective::TransferDestination {
        target: spec.number.clone().or_else(|| spec.uri.clone()).unwrap_or_default(),
        method: spec.method.unwrap_or(TransferMethod::Bridge),
        ring_timeout_seconds: spec.ring_timeout_seconds.unwrap_or(DEFAULT_RING_TIMEOUT_SECONDS),
    }
}

/// The entry, without trunk and chain.
fn entry(spec: &TransferDestinationSpec) -> Result<DestinationEntry, Problems> {
    let mut problems = Problems::default();
    let target = problems.take(target(spec));
    let seconds = spec.ring_timeout_seconds.unwrap_or(DEFAULT_RING_TIMEOUT_SECONDS);
    let seconds = problems.take(fields::bounded("ringTimeoutSeconds", seconds, 1, 600));
    let caller_id = problems.take(caller_id(spec.caller_id.as_ref()));
    let headers = problems.take(fields::headers("headers", &spec.headers));
    let schedule = spec.schedule.as_ref().and_then(|spec| problems.take(schedule(spec)));
    let finally = spec.on_failure.as_ref().and_then(|on_failure| on_failure.finally);
    match (target, seconds, caller_id, headers) {
        (Some(target), Some(ring_timeout_seconds), Some(caller_id), Some(headers)) if problems.is_empty() => {
            Ok(DestinationEntry {
                target,
                description: spec.description.clone(),
                message: spec.message.clone(),
                trunk: None,
                by_refer: spec.method == Some(TransferMethod::Refer),
                ring_timeout_seconds,
                caller_id,
                headers,
                schedule,
                then: Vec::new(),
                return_to_assistant: finally != Some(Finally::HangUp),
            })
        }
        _ => Err(problems),
    }
}

fn target(spec: &TransferDestinationSpec) -> Result<DestinationTarget, Problems> {
    match (spec.type_, &spec.number, &spec.uri) {
        (DestinationType::Number, Some(number), None) => {
            fields::number("number", number).map(DestinationTarget::Number)
        }
        (DestinationType::Sip, None, Some(uri)) => {
            fields::target("uri", uri, None).map(DestinationTarget::Sip)
        }
        (DestinationType::Number, ..) => {
            Err(problem(reason::INVALID, "type: number needs number and no uri."))
        }
        (DestinationType::Sip, ..) => Err(problem(reason::INVALID, "type: sip needs uri and no number.")),
    }
}

fn schedule(spec: &transfer_destination::Schedule) -> Result<Schedule, Problems> {
    let mut problems = Problems::default();
    let zone =
        spec.time_zone.parse().map_err(|error| problems.invalid(format!("schedule.timeZone: {error}.")));
    let mut hours = Vec::new();
    for open in &spec.open {
        for day in &open.days {
            match Hours::new(*day as usize, &open.from, &open.to) {
                Ok(found) => hours.push(found),
                Err(error) => problems.invalid(format!("schedule.open: {error}.")),
            }
        }
    }
    match zone {
        Ok(zone) if problems.is_empty() => Ok(Schedule::new(zone, hours)),
        _ => Err(problems),
    }
}

fn caller_id(caller_id: Option<&CallerId>) -> Result<CallerIdEntry, Problems> {
    match caller_id.map(|caller_id| (caller_id.mode, &caller_id.number)) {
        None | Some((CallerIdMode::Preserve, _)) => Ok(CallerIdEntry::Preserve),
        Some((CallerIdMode::PhoneNumber, _)) => Ok(CallerIdEntry::PhoneNumber),
        Some((CallerIdMode::Fixed, Some(number))) => {
            fields::number("callerId.number", number).map(CallerIdEntry::Fixed)
        }
        Some((CallerIdMode::Fixed, None)) => {
            Err(problem(reason::INVALID, "callerId.mode: Fixed needs callerId.number."))
        }
    }
}
