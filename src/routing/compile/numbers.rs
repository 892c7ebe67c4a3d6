//! PhoneNumbers: which gateway answers them, who holds a number that several name, and what they refer to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::resources::conditions::reason;
use crate::resources::{PhoneNumber, SipGateway, SipTrunk};
use crate::routing::table::{DestinationEntry, E164, NumberEntry, ObjectKey};

use super::assistants::Assistant;
use super::gateways::Gateway;
use super::trunks::Trunk;
use super::verdict::{Checked, Failure, Problems, problem};
use super::{Kind, Objects, fields, grants};

/// A number that a gateway answers.
#[derive(PartialEq)]
pub(in crate::routing) struct Number {
    /// The gateway.
    pub gateway: ObjectKey,
    /// The number.
    pub number: E164,
    /// Who answers.
    pub entry: Arc<NumberEntry>,
}

/// What PhoneNumbers refer to.
pub(in crate::routing) struct Targets<'a> {
    pub gateways: &'a BTreeMap<ObjectKey, Checked<Gateway>>,
    pub assistants: &'a BTreeMap<ObjectKey, Checked<Assistant>>,
    pub destinations: &'a BTreeMap<ObjectKey, Checked<Arc<DestinationEntry>>>,
    pub trunks: &'a BTreeMap<ObjectKey, Checked<Trunk>>,
}

/// Checks every PhoneNumber.
pub(in crate::routing) fn check(
    objects: &Objects,
    targets: &Targets<'_>,
) -> BTreeMap<ObjectKey, Checked<Number>> {
    let holders = holders(objects);
    let checked = objects.numbers.iter().map(|(key, object)| {
        let slot = attached(objects, key, object).and_then(|gateway| slot(gateway, object));
        let holder = slot.and_then(|slot| holders.get(&slot)).map(|claim| claim.key);
        (key.clone(), check_one(objects, targets, holder, key, object))
    });
    checked.collect()
}

/// Checks one PhoneNumber; `holder` holds its number on its gateway. Only the gateway is essential: with anything else
/// missing the number stays in the table and calls go to what is left.
pub(in crate::routing) fn check_one(
    objects: &Objects,
    targets: &Targets<'_>,
    holder: Option<&ObjectKey>,
    key: &ObjectKey,
    object: &PhoneNumber,
) -> Checked<Number> {
    let mut accepted = Problems::default();
    let mut resolved = Problems::default();
    let number = accepted.take(fields::number("number", &object.spec.number));
    let gateway = resolved.take(gateway(objects, targets, key, object));
    if let Some(holder) = holder.filter(|holder| *holder != key) {
        accepted.add(
            reason::CONFLICT,
            format!(
                "PhoneNumber {holder} holds {} on this gateway, because the older object keeps a number; delete one of the \
                 two, or attach this one to another gateway.",
                object.spec.number
            ),
        );
    }
    let entry = entry(objects, targets, key, object, gateway.as_ref(), &mut resolved);
    let usable = number.zip(gateway).filter(|_| accepted.is_empty()).map(|(number, gateway)| Number {
        gateway,
        number,
        entry: Arc::new(entry),
    });
    Checked { accepted, resolved, usable }
}

/// The gateway that the object attaches to: named, or the operator's default.
pub(in crate::routing) fn named_gateway(
    objects: &Objects,
    key: &ObjectKey,
    object: &PhoneNumber,
) -> Option<ObjectKey> {
    let named = object.spec.gateway_ref.as_ref().map(|named| grants::target(&key.namespace, named));
    named.or_else(|| objects.default_gateway.clone())
}

/// The gateway that the object attaches to, if it exists and lets the namespace in.
pub(in crate::routing) fn attached(
    objects: &Objects,
    key: &ObjectKey,
    object: &PhoneNumber,
) -> Option<ObjectKey> {
    named_gateway(objects, key, object).filter(|gateway| {
        grants::permitted::<SipGateway>(objects, &key.namespace, gateway)
            && objects.gateways.contains_key(gateway)
    })
}

/// An object in the order in which numbers are given: older first, then by key. One without a time is the youngest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::routing) struct Claim<K> {
    created: (bool, Option<Time>),
    pub key: K,
}

impl<K> Claim<K> {
    pub(in crate::routing) fn new(key: K, object: &PhoneNumber) -> Self {
        let created = object.metadata.creation_timestamp.clone();
        Self { created: (created.is_none(), created), key }
    }

    /// Before every other claim, if `key` is before every other key.
    pub(in crate::routing) fn least(key: K) -> Self {
        Self { created: (false, None), key }
    }
}

/// What objects compete for: one number of one gateway. Only objects that may attach compete: nobody can block a number on
/// a gateway that doesn't let them in.
pub(in crate::routing) type Slot = (ObjectKey, E164);

/// What an object that is attached to `gateway` claims; nothing if its number can't be read.
pub(in crate::routing) fn slot(gateway: ObjectKey, object: &PhoneNumber) -> Option<Slot> {
    Some((gateway, object.spec.number.parse().ok()?))
}

/// Who holds each number of each gateway.
fn holders(objects: &Objects) -> BTreeMap<Slot, Claim<&ObjectKey>> {
    let mut holders: BTreeMap<Slot, Claim<&ObjectKey>> = BTreeMap::new();
    for (key, object) in &objects.numbers {
        let Some(gateway) = attached(objects, key, object) else { continue };
        let Some(slot) = slot(gateway, object) else { continue };
        let claim = Claim::new(key, object);
        match holders.entry(slot) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(claim);
            }
            std::collections::btree_map::Entry::Occupied(mut holder) => {
                if claim < *holder.get() {
                    holder.insert(claim);
                }
            }
        }
    }
    holders
}

fn gateway(
    objects: &Objects,
    targets: &Targets<'_>,
    key: &ObjectKey,
    object: &PhoneNumber,
) -> Result<ObjectKey, Problems> {
    let Some(gateway) = named_gateway(objects, key, object) else {
        return Err(problem(
            reason::REF_NOT_FOUND,
            "The operator has no default gateway; set gatewayRef, or give the operator a default gateway.",
        ));
    };
    let field = if object.spec.gateway_ref.is_some() {
        "gatewayRef"
    } else {
        "gatewayRef (left out: the operator's default)"
    };
    match grants::resolve::<SipGateway, _>(objects, targets.gateways, &key.namespace, &gateway) {
        Ok(_) => Ok(gateway),
        Err(failure) => Err(failure.of(field, Kind::SipGateway, &gateway)),
    }
}

fn entry(
    objects: &Objects,
    targets: &Targets<'_>,
    key: &ObjectKey,
    object: &PhoneNumber,
    gateway: Option<&ObjectKey>,
    resolved: &mut Problems,
) -> NumberEntry {
    let local = |name: &String| ObjectKey::new(&key.namespace, name);
    let spec = &object.spec;
    let assistant = spec.assistant_ref.as_ref().map(|named| local(&named.name));
    let assistant = assistant.and_then(|target| resolved.take(answering(targets, target, gateway)));
    let trunk = spec.transfer_trunk_ref.as_ref().map(|named| grants::target(&key.namespace, named));
    let trunk = trunk.and_then(|target| {
        let found = grants::resolve::<SipTrunk, _>(objects, targets.trunks, &key.namespace, &target);
        let checked = found.map_err(|failure| failure.of("transferTrunkRef", Kind::SipTrunk, &target));
        resolved.take(checked).map(|_| target)
    });
    let fallback = spec.fallback_ref.as_ref().map(|named| local(&named.name));
    let fallback = fallback.and_then(|target| {
        let found = grants::local(targets.destinations, &target);
        let checked = found.map_err(|failure| failure.of("fallbackRef", Kind::TransferDestination, &target));
        resolved.take(checked).map(|_| target)
    });
    NumberEntry {
        object: key.clone(),
        assistant,
        transfer_trunk_unusable: spec.transfer_trunk_ref.is_some() && trunk.is_none(),
        transfer_trunk: trunk,
        fallback,
    }
}

/// The assistant, if it can answer on the number's gateway.
fn answering(
    targets: &Targets<'_>,
    target: ObjectKey,
    gateway: Option<&ObjectKey>,
) -> Result<ObjectKey, Problems> {
    let assistant = grants::local(targets.assistants, &target)
        .map_err(|failure: Failure| failure.of("assistantRef", Kind::Assistant, &target))?;
    match gateway {
        Some(gateway) if !has_agent(targets.gateways, assistant, gateway) => Err(problem(
            reason::REF_NOT_ACCEPTED,
            format!(
                "assistantRef names Assistant {target}, which names no agent, and SipGateway {gateway} has no \
                 defaultAgent; set agent on the Assistant."
            ),
        )),
        _ => Ok(target),
    }
}

/// Whether the assistant can be reached from a gateway: by its own agent or by the gateway's default.
pub(in crate::routing) fn has_agent(
    gateways: &BTreeMap<ObjectKey, Checked<Gateway>>,
    assistant: &Assistant,
    gateway: &ObjectKey,
) -> bool {
    let default = gateways.get(gateway).and_then(|gateway| gateway.usable.as_ref());
    assistant.agent.is_some() || default.is_some_and(|gateway| gateway.default_agent.is_some())
}

/// The gateways that answer a PhoneNumber of each assistant that is named.
pub(in crate::routing) fn answering_gateways(objects: &Objects) -> BTreeMap<ObjectKey, BTreeSet<ObjectKey>> {
    let mut answering: BTreeMap<ObjectKey, BTreeSet<ObjectKey>> = BTreeMap::new();
    for (key, number) in &objects.numbers {
        let Some(named) = &number.spec.assistant_ref else { continue };
        let assistant = ObjectKey::new(&key.namespace, &named.name);
        let Some(gateway) = attached(objects, key, number) else { continue };
        answering.entry(assistant).or_default().insert(gateway);
    }
    answering
}

/// What is wrong with an assistant that names no agent, on those of the gateways that have no default one.
/// `attached` are the gateways that answer a PhoneNumber of it.
pub(in crate::routing) fn without_agent_on<'a>(
    gateways: &BTreeMap<ObjectKey, Checked<Gateway>>,
    assistant: &ObjectKey,
    checked: Option<&Checked<Assistant>>,
    attached: impl IntoIterator<Item = &'a ObjectKey>,
) -> Problems {
    let mut problems = Problems::default();
    let Some(usable) = checked.and_then(|checked| checked.usable.as_ref()) else { return problems };
    for gateway in attached {
        let accepted = gateways.get(gateway).is_some_and(Checked::is_accepted);
        if accepted && !has_agent(gateways, usable, gateway) {
            problems.add(
                reason::REF_NOT_FOUND,
                format!(
                    "Assistant {assistant} names no agent, and SipGateway {gateway}, which answers a PhoneNumber of it, has \
                     no defaultAgent; set agent."
                ),
            );
        }
    }
    problems
}
