//! One table a gateway: what its numbers can reach, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::resources::SipTrunk;
use crate::routing::table::{AssistantEntry, CredentialId, DestinationEntry, ObjectKey, Table, TrunkEntry};

use super::assistants::Assistant;
use super::gateways::Gateway;
use super::numbers::Number;
use super::trunks::Trunk;
use super::verdict::Checked;
use super::{CredentialSource, Objects, grants};

/// What tables are made of. Everything usable was validated: nothing here can fail.
pub(super) struct Parts<'a> {
    pub objects: &'a Objects,
    pub gateways: &'a BTreeMap<ObjectKey, Checked<Gateway>>,
    pub trunks: &'a BTreeMap<ObjectKey, Checked<Trunk>>,
    pub destinations: &'a BTreeMap<ObjectKey, Checked<Arc<DestinationEntry>>>,
    pub assistants: &'a BTreeMap<ObjectKey, Checked<Assistant>>,
    pub numbers: &'a BTreeMap<ObjectKey, Checked<Number>>,
}

/// Where the credentials of a table are.
pub(super) type Credentials = BTreeMap<CredentialId, CredentialSource>;

/// The table of each accepted gateway, with its credentials.
pub(super) fn build(parts: &Parts<'_>) -> BTreeMap<ObjectKey, (Table, Credentials)> {
    let mut attached: BTreeMap<&ObjectKey, Vec<&Number>> = BTreeMap::new();
    for number in parts.numbers.values().filter_map(|checked| checked.usable.as_ref()) {
        attached.entry(&number.gateway).or_default().push(number);
    }
    let accepted = parts.gateways.iter().filter_map(|(key, checked)| Some((key, checked.usable.as_ref()?)));
    accepted
        .map(|(key, gateway)| {
            let numbers = attached.get(key).map(Vec::as_slice).unwrap_or_default();
            (key.clone(), table(parts, key, gateway, numbers))
        })
        .collect()
}

fn table(parts: &Parts<'_>, key: &ObjectKey, gateway: &Gateway, numbers: &[&Number]) -> (Table, Credentials) {
    let mut table = Table::default();
    let mut namespaces = BTreeSet::new();
    let mut wanted = Wanted::default();
    for number in numbers {
        table.numbers.insert(number.number.clone(), Arc::new(number.entry.clone()));
        namespaces.insert(number.entry.object.namespace.as_str());
        if let Some(trunk) = &number.entry.transfer_trunk {
            wanted.add(trunk, &number.entry.object.namespace);
        }
        if let Some(destination) = &number.entry.fallback {
            add_destination(parts, destination, &mut table, &mut wanted);
        }
        if let Some(assistant) = &number.entry.assistant {
            add_assistant(parts, gateway, assistant, &mut table, &mut wanted);
        }
    }
    let credentials = add_trunks(parts, key, &namespaces, &wanted, &mut table);
    (table, credentials)
}

/// Trunks that objects of the table name, and the namespaces of those objects.
#[derive(Default)]
struct Wanted(BTreeMap<ObjectKey, BTreeSet<String>>);

impl Wanted {
    fn add(&mut self, trunk: &ObjectKey, namespace: &str) {
        self.0.entry(trunk.clone()).or_default().insert(namespace.to_owned());
    }
}

fn add_assistant(
    parts: &Parts<'_>,
    gateway: &Gateway,
    key: &ObjectKey,
    table: &mut Table,
    wanted: &mut Wanted,
) {
    if table.assistants.contains_key(key) {
        return;
    }
    let Some(assistant) = parts.assistants.get(key).and_then(|checked| checked.usable.as_ref()) else {
        return;
    };
    let Some(agent) = assistant.agent.as_ref().or(gateway.default_agent.as_ref()) else { return };
    let entry = AssistantEntry { agent: agent.clone(), destinations: assistant.destinations.clone() };
    table.assistants.insert(key.clone(), Arc::new(entry));
    for destination in assistant.destinations.values() {
        match assistant.inline.get(destination) {
            Some(entry) => {
                table.destinations.insert(destination.clone(), entry.clone());
            }
            None => add_destination(parts, destination, table, wanted),
        }
    }
}

fn add_destination(parts: &Parts<'_>, key: &ObjectKey, table: &mut Table, wanted: &mut Wanted) {
    let Some(entry) = parts.destinations.get(key).and_then(|checked| checked.usable.as_ref()) else { return };
    if let Some(trunk) = &entry.trunk {
        wanted.add(trunk, &key.namespace);
    }
    table.destinations.insert(key.clone(), entry.clone());
}

/// Trunks that the table names, and those that may bring calls to its numbers.
fn add_trunks(
    parts: &Parts<'_>,
    gateway: &ObjectKey,
    namespaces: &BTreeSet<&str>,
    wanted: &Wanted,
    table: &mut Table,
) -> Credentials {
    let mut credentials = Credentials::new();
    for (key, checked) in parts.trunks {
        let Some(trunk) = &checked.usable else { continue };
        let wanted = wanted.0.get(key);
        let allowed = allowed_namespaces(parts.objects, gateway, key, namespaces, wanted);
        let brings_calls_in = !trunk.entry.allowed_sources.is_empty() && !allowed.is_empty();
        if wanted.is_none() && !brings_calls_in {
            continue;
        }
        let entry = TrunkEntry { allowed_namespaces: allowed, ..trunk.entry.clone() };
        table.trunks.insert(key.clone(), Arc::new(entry));
        credentials.extend(trunk.credential.clone());
    }
    credentials
}

/// See [`TrunkEntry::allowed_namespaces`]: the grant lets a namespace in, and the namespace wants the trunk.
fn allowed_namespaces(
    objects: &Objects,
    gateway: &ObjectKey,
    trunk: &ObjectKey,
    namespaces: &BTreeSet<&str>,
    wanted: Option<&BTreeSet<String>>,
) -> Vec<String> {
    let mut allowed = BTreeSet::new();
    allowed.extend(namespaces.get(trunk.namespace.as_str()).copied());
    allowed.extend(wanted.into_iter().flatten().map(String::as_str));
    if trunk.namespace == gateway.namespace {
        allowed.extend(namespaces);
    }
    let permitted =
        allowed.into_iter().filter(|namespace| grants::permitted::<SipTrunk>(objects, namespace, trunk));
    permitted.map(str::to_owned).collect()
}
