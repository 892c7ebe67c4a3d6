//! What was found about each object, put together for its status.

use std::collections::{BTreeMap, BTreeSet};

use crate::resources::conditions::reason;
use crate::routing::table::{ObjectKey, Table};

use super::verdict::Problems;
use super::{
    Effective, Kind, ObjectRef, Objects, Verdict, assistants, destinations, numbers, tables, trunks,
};

/// One verdict for each object.
pub(super) fn build(
    parts: &tables::Parts<'_>,
    built: &BTreeMap<ObjectKey, (Table, tables::Credentials)>,
) -> BTreeMap<ObjectRef, Verdict> {
    let objects = parts.objects;
    let mut used: BTreeMap<ObjectRef, BTreeSet<ObjectKey>> = BTreeMap::new();
    for (gateway, (table, _)) in built {
        let keys = [
            (Kind::Assistant, table.assistants.keys().collect::<Vec<_>>()),
            (Kind::PhoneNumber, table.numbers.values().map(|entry| &entry.object).collect()),
            (Kind::SipGateway, vec![gateway]),
            (Kind::SipTrunk, table.trunks.keys().collect()),
            (Kind::TransferDestination, table.destinations.keys().collect()),
        ];
        for (kind, keys) in keys {
            for key in keys {
                used.entry(ObjectRef { kind, key: key.clone() }).or_default().insert(gateway.clone());
            }
        }
    }
    let mut verdicts = BTreeMap::new();
    let mut add = |kind: Kind,
                   key: &ObjectKey,
                   generation: Option<i64>,
                   accepted: &Problems,
                   resolved: &Problems,
                   effective| {
        let object = ObjectRef { kind, key: key.clone() };
        let verdict = Verdict {
            generation: generation.unwrap_or_default(),
            accepted: accepted.finding(reason::ACCEPTED, "The spec is accepted."),
            resolved_refs: resolved.finding(reason::RESOLVED, "Everything it names was found."),
            gateways: used.remove(&object).unwrap_or_default(),
            effective,
        };
        verdicts.insert(object, verdict);
    };
    for ((key, object), checked) in objects.gateways.iter().zip(parts.gateways.values()) {
        let generation = object.metadata.generation;
        add(Kind::SipGateway, key, generation, &checked.accepted, &checked.resolved, Effective::SipGateway);
    }
    for ((key, object), checked) in objects.trunks.iter().zip(parts.trunks.values()) {
        let effective = trunks::effective(&object.spec);
        add(Kind::SipTrunk, key, object.metadata.generation, &checked.accepted, &checked.resolved, effective);
    }
    for ((key, object), checked) in objects.destinations.iter().zip(parts.destinations.values()) {
        let effective = destinations::effective(&object.spec);
        add(
            Kind::TransferDestination,
            key,
            object.metadata.generation,
            &checked.accepted,
            &checked.resolved,
            effective,
        );
    }
    let naming = numbers_of_assistants(objects);
    for ((key, object), checked) in objects.assistants.iter().zip(parts.assistants.values()) {
        let effective = Effective::Assistant {
            agent: assistants::agent_name(&object.spec),
            destinations: checked.usable.as_ref().map_or(0, |assistant| assistant.destinations.len() as i64),
            numbers: naming.get(key).copied().unwrap_or_default(),
        };
        add(
            Kind::Assistant,
            key,
            object.metadata.generation,
            &checked.accepted,
            &checked.resolved,
            effective,
        );
    }
    for ((key, object), checked) in objects.numbers.iter().zip(parts.numbers.values()) {
        let effective = Effective::PhoneNumber { gateway: numbers::attached(objects, key, object) };
        add(
            Kind::PhoneNumber,
            key,
            object.metadata.generation,
            &checked.accepted,
            &checked.resolved,
            effective,
        );
    }
    verdicts
}

/// How many PhoneNumbers name each assistant.
fn numbers_of_assistants(objects: &Objects) -> BTreeMap<ObjectKey, i64> {
    let mut counts = BTreeMap::new();
    for (key, number) in &objects.numbers {
        if let Some(named) = &number.spec.assistant_ref {
            *counts.entry(ObjectKey::new(&key.namespace, &named.name)).or_default() += 1;
        }
    }
    counts
}
