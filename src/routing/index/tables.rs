//! One gateway's table, kept up to date: what its numbers can reach, and nothing else.
//!
//! Numbers are added and taken; what they reach is counted, so that an entry is there as long as something leads to it.
//! Entries that may be others are marked and made anew at [`GatewayTable::settle`], each from what it is made of: the order
//! of changes doesn't matter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::routing::compile::assistants::{self, Assistant};
use crate::routing::compile::gateways::Gateway;
use crate::routing::compile::numbers::Number;
use crate::routing::compile::tables::{Counts, Wanted, agent_on, assistant_entry, credentials, trunk_entry};
use crate::routing::compile::trunks::Trunk;
use crate::routing::compile::verdict::Checked;
use crate::routing::compile::{CredentialSource, Kind, ObjectRef, Objects};
use crate::routing::slice::{Change, Sliced};
use crate::routing::table::{CredentialId, DestinationEntry, ObjectKey};

/// One gateway's table in slices, with its credentials.
#[derive(Debug)]
pub struct GatewayTable {
    gateway: ObjectKey,
    sliced: Sliced,
    credentials: BTreeMap<CredentialId, CredentialSource>,
    /// The credentials that each entry of the table names; only those that name some.
    by_owner: BTreeMap<(Kind, ObjectKey), Vec<(CredentialId, CredentialSource)>>,
    /// How many numbers name each assistant.
    assistants: Counts<ObjectKey>,
    /// How many numbers and assistants of the table name each destination.
    destinations: Counts<ObjectKey>,
    /// Who is tried after each of those.
    chains: BTreeMap<ObjectKey, Vec<ObjectKey>>,
    /// How many of these chains each destination is in.
    in_chains: Counts<ObjectKey>,
    wanted: Wanted,
    namespaces: Counts<String>,
    stale: Stale,
}

#[derive(Debug, Default)]
struct Stale {
    assistants: BTreeSet<ObjectKey>,
    destinations: BTreeSet<ObjectKey>,
    trunks: BTreeSet<ObjectKey>,
    /// Namespaces that have come or gone.
    namespaces: BTreeSet<String>,
    rows: bool,
}

/// What entries are made of.
pub(super) struct Means<'a> {
    pub objects: &'a Objects,
    pub gateways: &'a BTreeMap<ObjectKey, Checked<Gateway>>,
    pub trunks: &'a BTreeMap<ObjectKey, Checked<Trunk>>,
    pub destinations: &'a BTreeMap<ObjectKey, Checked<Arc<DestinationEntry>>>,
    pub assistants: &'a BTreeMap<ObjectKey, Checked<Assistant>>,
}

fn usable<'a, C>(checked: &'a BTreeMap<ObjectKey, Checked<C>>, key: &ObjectKey) -> Option<&'a C> {
    checked.get(key)?.usable.as_ref()
}

impl GatewayTable {
    pub(super) fn new(gateway: ObjectKey) -> Self {
        Self {
            gateway,
            sliced: Sliced::default(),
            credentials: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            assistants: Counts::default(),
            destinations: Counts::default(),
            chains: BTreeMap::new(),
            in_chains: Counts::default(),
            wanted: Wanted::default(),
            namespaces: Counts::default(),
            stale: Stale::default(),
        }
    }

    /// The table.
    pub fn sliced(&self) -> &Sliced {
        &self.sliced
    }

    /// Which Secret, and which of its keys, each credential of the table stands for.
    pub fn credentials(&self) -> &BTreeMap<CredentialId, CredentialSource> {
        &self.credentials
    }

    /// Whether the table holds the object; not for PhoneNumbers.
    pub(super) fn holds(&self, kind: Kind, key: &ObjectKey) -> bool {
        match kind {
            Kind::Assistant => self.sliced.assistants.get(key).is_some(),
            Kind::SipGateway => *key == self.gateway,
            Kind::SipTrunk => self.sliced.trunks.get(key).is_some(),
            Kind::TransferDestination => self.sliced.destinations.get(key).is_some(),
            Kind::PhoneNumber => false,
        }
    }

    /// A number is answered by this gateway.
    pub(super) fn add(&mut self, number: &Number) {
        let entry = &number.entry;
        let namespace = &entry.object.namespace;
        self.stale.rows = true;
        self.sliced.numbers.set(&number.number, Some(entry.clone()));
        if self.namespaces.add(namespace) {
            self.stale.namespaces.insert(namespace.clone());
        }
        if let Some(trunk) = &entry.transfer_trunk
            && self.wanted.add(trunk, namespace)
        {
            self.stale.trunks.insert(trunk.clone());
        }
        if let Some(destination) = &entry.fallback
            && self.destinations.add(destination)
        {
            self.stale.destinations.insert(destination.clone());
        }
        if let Some(assistant) = &entry.assistant
            && self.assistants.add(assistant)
        {
            self.stale.assistants.insert(assistant.clone());
        }
    }

    /// A number that was added isn't answered by this gateway any more, or in another way.
    pub(super) fn take(&mut self, number: &Number) {
        let entry = &number.entry;
        let namespace = &entry.object.namespace;
        self.stale.rows = true;
        // Another object may have got the number already.
        if self.sliced.numbers.get(&number.number).is_some_and(|now| now.object == entry.object) {
            self.sliced.numbers.set(&number.number, None);
        }
        if self.namespaces.take(namespace) {
            self.stale.namespaces.insert(namespace.clone());
        }
        if let Some(trunk) = &entry.transfer_trunk
            && self.wanted.take(trunk, namespace)
        {
            self.stale.trunks.insert(trunk.clone());
        }
        if let Some(destination) = &entry.fallback
            && self.destinations.take(destination)
        {
            self.stale.destinations.insert(destination.clone());
        }
        if let Some(assistant) = &entry.assistant
            && self.assistants.take(assistant)
        {
            self.stale.assistants.insert(assistant.clone());
        }
    }

    /// The entry of a trunk may be another one.
    pub(super) fn mark_trunk(&mut self, key: &ObjectKey) {
        self.stale.trunks.insert(key.clone());
    }

    /// The entry of a destination may be another one.
    pub(super) fn mark_destination(&mut self, key: &ObjectKey) {
        if self.destinations.contains(key) || self.in_chains.contains(key) {
            self.stale.destinations.insert(key.clone());
        }
    }

    /// The entry of an assistant may be another one.
    pub(super) fn mark_assistant(&mut self, key: &ObjectKey) {
        if self.assistants.contains(key) {
            self.stale.assistants.insert(key.clone());
        }
    }

    /// The entries of all assistants may be others: the gateway's default agent is.
    pub(super) fn mark_assistants(&mut self) {
        self.stale.assistants.extend(self.assistants.iter().cloned());
    }

    pub(super) fn is_stale(&self) -> bool {
        let stale = &self.stale;
        stale.rows
            || !(stale.assistants.is_empty()
                && stale.destinations.is_empty()
                && stale.trunks.is_empty()
                && stale.namespaces.is_empty())
    }

    /// Makes what is marked anew; adds the objects that came into the table or left it to `moved`. Returns whether table
    /// or credentials are others.
    pub(super) fn settle(&mut self, means: &Means<'_>, moved: &mut BTreeSet<ObjectRef>) -> bool {
        let hooks = self.settle_assistants(means, moved);
        self.settle_destinations(means, moved);
        let trunks = self.settle_trunks(means, moved);
        self.stale.rows = false;
        let credentials = (hooks || trunks) && self.settle_credentials();
        self.sliced.settle() || credentials
    }

    /// Returns whether others name credentials than before, or name other ones.
    fn settle_assistants(&mut self, means: &Means<'_>, moved: &mut BTreeSet<ObjectRef>) -> bool {
        let gateway = usable(means.gateways, &self.gateway);
        let mut others = false;
        for key in std::mem::take(&mut self.stale.assistants) {
            let named = self.assistants.contains(&key);
            let assistant = usable(means.assistants, &key).filter(|_| named);
            let reached = gateway.zip(assistant).and_then(|(gateway, it)| Some((agent_on(gateway, it)?, it)));
            let named = reached.map(|(agent, assistant)| credentials(agent, assistant)).unwrap_or_default();
            others |= self.set_credentials(Kind::Assistant, &key, &named);
            let entry = reached.map(|(agent, assistant)| Arc::new(assistant_entry(agent, assistant)));
            // A destination that is written in the assistant is changed with it.
            let listed = entry.iter().flat_map(|entry| entry.destinations.values());
            let inline = listed.filter(|listed| assistants::holder_of_inline(listed).is_some());
            self.stale.destinations.extend(inline.cloned());
            let Change::From(before) = self.sliced.assistants.set(&key, entry.clone()) else { continue };
            for destination in entry.iter().flat_map(|entry| entry.destinations.values()) {
                if self.destinations.add(destination) {
                    self.stale.destinations.insert(destination.clone());
                }
            }
            for destination in before.iter().flat_map(|before| before.destinations.values()) {
                if self.destinations.take(destination) {
                    self.stale.destinations.insert(destination.clone());
                }
            }
            if before.is_some() != entry.is_some() {
                moved.insert(ObjectRef { kind: Kind::Assistant, key });
            }
        }
        others
    }

    fn settle_destinations(&mut self, means: &Means<'_>, moved: &mut BTreeSet<ObjectRef>) {
        // A chain that comes or goes makes those in it stale.
        while let Some(key) = self.stale.destinations.pop_first() {
            let entry = match assistants::holder_of_inline(&key) {
                Some(assistant) => usable(means.assistants, &assistant).and_then(|it| it.inline.get(&key)),
                None => usable(means.destinations, &key),
            };
            let named = entry.filter(|_| self.destinations.contains(&key));
            self.set_chain(&key, named.map(|entry| entry.then.as_slice()).unwrap_or_default());
            let entry = entry.filter(|_| named.is_some() || self.in_chains.contains(&key)).cloned();
            let Change::From(before) = self.sliced.destinations.set(&key, entry.clone()) else { continue };
            if let Some(trunk) = entry.as_ref().and_then(|entry| entry.trunk.as_ref())
                && self.wanted.add(trunk, &key.namespace)
            {
                self.stale.trunks.insert(trunk.clone());
            }
            if let Some(trunk) = before.as_ref().and_then(|before| before.trunk.as_ref())
                && self.wanted.take(trunk, &key.namespace)
            {
                self.stale.trunks.insert(trunk.clone());
            }
            if before.is_some() != entry.is_some() {
                moved.insert(ObjectRef { kind: Kind::TransferDestination, key });
            }
        }
    }

    /// Who is tried after a destination that numbers or assistants name.
    fn set_chain(&mut self, key: &ObjectKey, chain: &[ObjectKey]) {
        let before = match chain {
            [] => self.chains.remove(key),
            chain if self.chains.get(key).is_some_and(|before| before == chain) => return,
            chain => self.chains.insert(key.clone(), chain.to_vec()),
        };
        for then in chain {
            if self.in_chains.add(then) {
                self.stale.destinations.insert(then.clone());
            }
        }
        for then in before.into_iter().flatten() {
            if self.in_chains.take(&then) {
                self.stale.destinations.insert(then);
            }
        }
    }

    /// Returns whether others name credentials than before, or name other ones.
    fn settle_trunks(&mut self, means: &Means<'_>, moved: &mut BTreeSet<ObjectRef>) -> bool {
        let changed = std::mem::take(&mut self.stale.namespaces);
        // Numbers of a namespace are reached over its own trunks and over the platform's, see `allowed_namespaces`.
        let platform = Some(&self.gateway.namespace).filter(|_| !changed.is_empty());
        for namespace in changed.iter().chain(platform) {
            let trunks = means.trunks.range(ObjectKey::new(namespace, "")..);
            let trunks = trunks.map(|(key, _)| key).take_while(|key| key.namespace == *namespace);
            self.stale.trunks.extend(trunks.cloned());
        }
        let mut others = false;
        for key in std::mem::take(&mut self.stale.trunks) {
            let trunk = usable(means.trunks, &key);
            let entry = trunk.and_then(|trunk| {
                let wanted = self.wanted.by(&key);
                trunk_entry(means.objects, &self.gateway, &key, trunk, &self.namespaces, wanted)
            });
            let named = trunk.filter(|_| entry.is_some()).map(|trunk| trunk.credentials.as_slice());
            others |= self.set_credentials(Kind::SipTrunk, &key, named.unwrap_or_default());
            let held = entry.is_some();
            if let Change::From(before) = self.sliced.trunks.set(&key, entry.map(Arc::new))
                && before.is_some() != held
            {
                moved.insert(ObjectRef { kind: Kind::SipTrunk, key });
            }
        }
        others
    }

    /// An entry names these credentials; returns whether it named others before.
    fn set_credentials(
        &mut self,
        kind: Kind,
        key: &ObjectKey,
        named: &[(CredentialId, CredentialSource)],
    ) -> bool {
        let owner = (kind, key.clone());
        if self.by_owner.get(&owner).map_or(&[][..], Vec::as_slice) == named {
            return false;
        }
        match named {
            [] => self.by_owner.remove(&owner),
            named => self.by_owner.insert(owner, named.to_vec()),
        };
        true
    }

    /// Returns whether the credentials are others.
    fn settle_credentials(&mut self) -> bool {
        let credentials: BTreeMap<_, _> = self.by_owner.values().flatten().cloned().collect();
        let changed = credentials != self.credentials;
        self.credentials = credentials;
        changed
    }
}
