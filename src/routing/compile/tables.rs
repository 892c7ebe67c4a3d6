//! One table a gateway: what its numbers can reach, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::resources::SipTrunk;
use crate::routing::table::{AssistantEntry, CredentialId, DestinationEntry, ObjectKey, Table, TrunkEntry};

use super::agents::Agent;
use super::assistants::Assistant;
use super::gateways::Gateway;
use super::numbers::Number;
use super::trunks::Trunk;
use super::verdict::Checked;
use super::{CredentialSource, Objects, grants};

/// What tables are made of. Everything usable was validated: nothing here can fail.
pub(in crate::routing) struct Parts<'a> {
    pub objects: &'a Objects,
    pub gateways: &'a BTreeMap<ObjectKey, Checked<Gateway>>,
    pub trunks: &'a BTreeMap<ObjectKey, Checked<Trunk>>,
    pub destinations: &'a BTreeMap<ObjectKey, Checked<Arc<DestinationEntry>>>,
    pub assistants: &'a BTreeMap<ObjectKey, Checked<Assistant>>,
    pub numbers: &'a BTreeMap<ObjectKey, Checked<Number>>,
}

/// Where the credentials of a table are.
pub(in crate::routing) type Credentials = BTreeMap<CredentialId, CredentialSource>;

/// The table of each accepted gateway, with its credentials.
pub(in crate::routing) fn build(parts: &Parts<'_>) -> BTreeMap<ObjectKey, (Table, Credentials)> {
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
    let mut namespaces = Counts::default();
    let mut wanted = Wanted::default();
    let mut credentials = Credentials::new();
    for number in numbers {
        let namespace = &number.entry.object.namespace;
        table.numbers.insert(number.number.clone(), number.entry.clone());
        namespaces.add(namespace);
        if let Some(trunk) = &number.entry.transfer_trunk {
            wanted.add(trunk, namespace);
        }
        if let Some(destination) = &number.entry.fallback {
            add_destination(parts, destination, &mut table, &mut wanted);
        }
        if let Some(assistant) = &number.entry.assistant {
            credentials.extend(add_assistant(parts, gateway, assistant, &mut table, &mut wanted));
        }
    }
    credentials.extend(add_trunks(parts, key, &namespaces, &wanted, &mut table));
    (table, credentials)
}

/// How often each thing is there: it is gone when it was taken as often as it was added.
#[derive(Debug)]
pub(in crate::routing) struct Counts<K>(BTreeMap<K, usize>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Counts<K> {
    /// Whether it is there now and wasn't before.
    pub(in crate::routing) fn add(&mut self, thing: &K) -> bool {
        match self.0.get_mut(thing) {
            Some(count) => {
                *count += 1;
                false
            }
            None => self.0.insert(thing.clone(), 1).is_none(),
        }
    }

    /// Whether it isn't there any more and was before.
    pub(in crate::routing) fn take(&mut self, thing: &K) -> bool {
        match self.0.get_mut(thing) {
            Some(1) => self.0.remove(thing).is_some(),
            Some(count) => {
                *count -= 1;
                false
            }
            None => false,
        }
    }

    pub(in crate::routing) fn contains(&self, thing: &K) -> bool {
        self.0.contains_key(thing)
    }

    pub(in crate::routing) fn iter(&self) -> impl Iterator<Item = &K> + Clone {
        self.0.keys()
    }

    pub(in crate::routing) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Trunks that objects of the table name, and the namespaces of those objects.
#[derive(Debug, Default)]
pub(in crate::routing) struct Wanted(BTreeMap<ObjectKey, Counts<String>>);

impl Wanted {
    /// Whether that is new.
    pub(in crate::routing) fn add(&mut self, trunk: &ObjectKey, namespace: &String) -> bool {
        self.0.entry(trunk.clone()).or_default().add(namespace)
    }

    /// Whether that was the last time.
    pub(in crate::routing) fn take(&mut self, trunk: &ObjectKey, namespace: &String) -> bool {
        let Some(namespaces) = self.0.get_mut(trunk) else { return false };
        let last = namespaces.take(namespace);
        if namespaces.is_empty() {
            self.0.remove(trunk);
        }
        last
    }

    pub(in crate::routing) fn by(&self, trunk: &ObjectKey) -> Option<&Counts<String>> {
        self.0.get(trunk)
    }
}

/// Returns the credentials that the assistant's entry names.
fn add_assistant(
    parts: &Parts<'_>,
    gateway: &Gateway,
    key: &ObjectKey,
    table: &mut Table,
    wanted: &mut Wanted,
) -> Vec<(CredentialId, CredentialSource)> {
    if table.assistants.contains_key(key) {
        return Vec::new();
    }
    let Some(assistant) = parts.assistants.get(key).and_then(|checked| checked.usable.as_ref()) else {
        return Vec::new();
    };
    let Some(agent) = agent_on(gateway, assistant) else { return Vec::new() };
    table.assistants.insert(key.clone(), Arc::new(assistant_entry(agent, assistant)));
    for destination in assistant.destinations.values() {
        match assistant.inline.get(destination) {
            Some(entry) => {
                table.destinations.insert(destination.clone(), entry.clone());
            }
            None => add_destination(parts, destination, table, wanted),
        }
    }
    credentials(agent, assistant)
}

/// What the entry of an assistant names that is reached so.
pub(in crate::routing) fn credentials(
    agent: &Agent,
    assistant: &Assistant,
) -> Vec<(CredentialId, CredentialSource)> {
    let events = assistant.events.iter().map(|events| &events.credential);
    agent.credentials.iter().chain(events).cloned().collect()
}

/// How an assistant is reached from a gateway; `None` when it has no agent there.
pub(in crate::routing) fn agent_on<'a>(gateway: &'a Gateway, assistant: &'a Assistant) -> Option<&'a Agent> {
    assistant.agent.as_ref().or(gateway.default_agent.as_ref())
}

/// The entry of an assistant that is reached so.
pub(in crate::routing) fn assistant_entry(agent: &Agent, assistant: &Assistant) -> AssistantEntry {
    AssistantEntry {
        agent: agent.entry.clone(),
        destinations: assistant.destinations.clone(),
        script: agent.entry.openai().map(|_| assistant.script.entry(agent)),
        events: assistant.events.as_ref().map(|events| events.entry.clone()),
    }
}

/// A destination, and those that are tried after it.
fn add_destination(parts: &Parts<'_>, key: &ObjectKey, table: &mut Table, wanted: &mut Wanted) {
    let usable = |key| parts.destinations.get(key).and_then(|checked| checked.usable.as_ref());
    let then = usable(key).into_iter().flat_map(|entry| &entry.then);
    for key in std::iter::once(key).chain(then) {
        let Some(entry) = usable(key) else { continue };
        if let Some(trunk) = &entry.trunk {
            wanted.add(trunk, &key.namespace);
        }
        table.destinations.insert(key.clone(), entry.clone());
    }
}

/// Trunks that the table names, and those that may bring calls to its numbers.
fn add_trunks(
    parts: &Parts<'_>,
    gateway: &ObjectKey,
    namespaces: &Counts<String>,
    wanted: &Wanted,
    table: &mut Table,
) -> Credentials {
    let mut credentials = Credentials::new();
    for (key, checked) in parts.trunks {
        let Some(trunk) = &checked.usable else { continue };
        let wanted = wanted.by(key);
        if let Some(entry) = trunk_entry(parts.objects, gateway, key, trunk, namespaces, wanted) {
            table.trunks.insert(key.clone(), Arc::new(entry));
            credentials.extend(trunk.credentials.iter().cloned());
        }
    }
    credentials
}

/// The entry of a trunk; `None` when a gateway with numbers of `namespaces` has no use for it. `wanted` are the namespaces
/// whose objects name it.
pub(in crate::routing) fn trunk_entry(
    objects: &Objects,
    gateway: &ObjectKey,
    key: &ObjectKey,
    trunk: &Trunk,
    namespaces: &Counts<String>,
    wanted: Option<&Counts<String>>,
) -> Option<TrunkEntry> {
    let allowed = allowed_namespaces(objects, gateway, key, namespaces, wanted);
    let brings_calls_in = trunk.entry.brings_calls_in() && !allowed.is_empty();
    (wanted.is_some() || brings_calls_in)
        .then(|| TrunkEntry { allowed_namespaces: allowed, ..trunk.entry.clone() })
}

/// See [`TrunkEntry::allowed_namespaces`]: the grant lets a namespace in, and the namespace wants the trunk.
fn allowed_namespaces(
    objects: &Objects,
    gateway: &ObjectKey,
    trunk: &ObjectKey,
    namespaces: &Counts<String>,
    wanted: Option<&Counts<String>>,
) -> Vec<String> {
    let mut allowed = BTreeSet::new();
    if namespaces.contains(&trunk.namespace) {
        allowed.insert(&trunk.namespace);
    }
    allowed.extend(wanted.into_iter().flat_map(Counts::iter));
    if trunk.namespace == gateway.namespace {
        allowed.extend(namespaces.iter());
    }
    let permitted =
        allowed.into_iter().filter(|namespace| grants::permitted::<SipTrunk>(objects, namespace, trunk));
    permitted.cloned().collect()
}
