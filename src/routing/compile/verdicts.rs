//! What was found about each object, put together for its status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::api::ObjectMeta;

use crate::resources::conditions::reason;
use crate::resources::{Assistant, PhoneNumber, SipGateway, SipTrunk, TransferDestination};
use crate::routing::table::{DestinationEntry, ObjectKey, Table};

use super::gateways::Gateway;
use super::numbers::Number;
use super::trunks::Trunk;
use super::verdict::{Checked, Problems};
use super::{
    Effective, Kind, ObjectRef, Objects, SPEC_ACCEPTED, Verdict, assistants, destinations, numbers, tables,
    trunks,
};

/// One verdict for each object.
pub(in crate::routing) fn build(
    parts: &tables::Parts<'_>,
    built: &BTreeMap<ObjectKey, (Table, tables::Credentials)>,
    remarks: &BTreeMap<ObjectKey, Remarks>,
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
    let mut add = |kind: Kind, key: &ObjectKey, verdict: &dyn Fn(BTreeSet<ObjectKey>) -> Verdict| {
        let object = ObjectRef { kind, key: key.clone() };
        let gateways = used.remove(&object).unwrap_or_default();
        verdicts.insert(object, verdict(gateways));
    };
    for ((key, object), checked) in objects.gateways.iter().zip(parts.gateways.values()) {
        add(Kind::SipGateway, key, &|gateways| of_gateway(object, checked, gateways));
    }
    for ((key, object), checked) in objects.trunks.iter().zip(parts.trunks.values()) {
        add(Kind::SipTrunk, key, &|gateways| of_trunk(object, checked, gateways));
    }
    for ((key, object), checked) in objects.destinations.iter().zip(parts.destinations.values()) {
        add(Kind::TransferDestination, key, &|gateways| of_destination(object, checked, gateways));
    }
    let naming = numbers_of_assistants(objects);
    for ((key, object), checked) in objects.assistants.iter().zip(parts.assistants.values()) {
        let numbers = naming.get(key).copied().unwrap_or_default();
        add(Kind::Assistant, key, &|gateways| {
            let remarks = remarks.get(key).cloned().unwrap_or_default();
            let found = OfNumbers { problems: Problems::default(), remarks, numbers };
            of_assistant(object, checked, found, gateways)
        });
    }
    for ((key, object), checked) in objects.numbers.iter().zip(parts.numbers.values()) {
        let gateway = numbers::attached(objects, key, object);
        add(Kind::PhoneNumber, key, &|gateways| of_number(object, checked, gateway.clone(), gateways));
    }
    verdicts
}

/// The verdict about a SipGateway whose table is that of `gateways`: itself or none.
pub(in crate::routing) fn of_gateway(
    object: &SipGateway,
    checked: &Checked<Gateway>,
    gateways: BTreeSet<ObjectKey>,
) -> Verdict {
    let effective = Effective::SipGateway;
    verdict(&object.metadata, &checked.accepted, None, &checked.resolved, effective, gateways)
}

/// The verdict about a SipTrunk that the tables of `gateways` hold.
pub(in crate::routing) fn of_trunk(
    object: &SipTrunk,
    checked: &Checked<Trunk>,
    gateways: BTreeSet<ObjectKey>,
) -> Verdict {
    let effective = trunks::effective(&object.spec);
    verdict(&object.metadata, &checked.accepted, None, &checked.resolved, effective, gateways)
}

/// The verdict about a TransferDestination that the tables of `gateways` hold.
pub(in crate::routing) fn of_destination(
    object: &TransferDestination,
    checked: &Checked<Arc<DestinationEntry>>,
    gateways: BTreeSet<ObjectKey>,
) -> Verdict {
    let effective = destinations::effective(&object.spec);
    verdict(&object.metadata, &checked.accepted, None, &checked.resolved, effective, gateways)
}

/// What whoever wrote an Assistant should know although it is accepted.
#[derive(Clone, Debug, Default)]
pub(in crate::routing) struct Remarks {
    /// The realtime model that answers.
    model: Option<String>,
    sentences: Vec<String>,
}

impl Remarks {
    /// Those about an assistant; `attached` are the gateways that answer a PhoneNumber of it.
    pub(in crate::routing) fn of<'a>(
        gateways: &'a BTreeMap<ObjectKey, Checked<Gateway>>,
        checked: &'a Checked<assistants::Assistant>,
        attached: impl IntoIterator<Item = &'a ObjectKey> + Clone,
    ) -> Self {
        let (model, mapped) = assistants::model(gateways, checked, attached.clone()).unzip();
        let unsaid = assistants::unsaid(gateways, checked, attached);
        Self { model, sentences: mapped.flatten().into_iter().chain(unsaid).collect() }
    }
}

/// What only the PhoneNumbers of an Assistant show.
pub(in crate::routing) struct OfNumbers {
    /// What is wrong with it.
    pub problems: Problems,
    /// What depends on the gateways that answer them.
    pub remarks: Remarks,
    /// How many name it.
    pub numbers: i64,
}

/// The verdict about an Assistant that the tables of `gateways` hold.
pub(in crate::routing) fn of_assistant(
    object: &Assistant,
    checked: &Checked<assistants::Assistant>,
    OfNumbers { problems, remarks: Remarks { model, sentences }, numbers }: OfNumbers,
    gateways: BTreeSet<ObjectKey>,
) -> Verdict {
    let effective = Effective::Assistant {
        agent: assistants::agent_name(&object.spec),
        model,
        destinations: checked.usable.as_ref().map_or(0, |assistant| assistant.destinations.len() as i64),
        numbers,
    };
    let mut resolved = checked.resolved.clone();
    resolved.extend(problems);
    let remark = (!sentences.is_empty()).then(|| sentences.join(" "));
    verdict(&object.metadata, &checked.accepted, remark, &resolved, effective, gateways)
}

/// The verdict about a PhoneNumber that attaches to `gateway` and that the tables of `gateways` hold: that one or none.
pub(in crate::routing) fn of_number(
    object: &PhoneNumber,
    checked: &Checked<Number>,
    gateway: Option<ObjectKey>,
    gateways: BTreeSet<ObjectKey>,
) -> Verdict {
    let effective = Effective::PhoneNumber { gateway };
    verdict(&object.metadata, &checked.accepted, None, &checked.resolved, effective, gateways)
}

/// `remark` is what the one who wrote the object should know although it is accepted.
fn verdict(
    metadata: &ObjectMeta,
    accepted: &Problems,
    remark: Option<String>,
    resolved: &Problems,
    effective: Effective,
    gateways: BTreeSet<ObjectKey>,
) -> Verdict {
    let good = match remark {
        Some(remark) => format!("{SPEC_ACCEPTED} {remark}"),
        None => SPEC_ACCEPTED.to_owned(),
    };
    Verdict {
        generation: metadata.generation.unwrap_or_default(),
        accepted: accepted.finding(reason::ACCEPTED, &good),
        resolved_refs: resolved.finding(reason::RESOLVED, "Everything it names was found."),
        gateways,
        effective,
    }
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
