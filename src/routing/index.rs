//! Objects → tables and verdicts, kept up to date: one changed object costs what depends on it.
//!
//! ```text
//! apply, delete, reset ─▶ what changed ─▶ settle: checks, kind by kind in the order of reference ─▶ tables, slices ─▶ verdicts
//! ```
//!
//! Promise: after [`Index::settle`], tables, credentials and verdicts are what [`super::compile::compile`] makes of the same
//! objects, whatever the way there; the [`Delta`] names exactly what differs from the last time. A change stops where it
//! makes no difference: an object of the same [meaning](objects::Meaning) isn't checked again, those that refer to an
//! object are checked again only when they would see it otherwise, and a slice is made anew only when an entry of it is
//! another one.
//!
//! Synchronous and pure: no clock, no I/O, no task of its own.

mod attachments;
mod dependants;
mod objects;
mod settle;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::resources::references::NamespacesFrom;
use crate::resources::{SipGateway, SipTrunk};

use super::compile::assistants::Assistant;
use super::compile::chains::Alone;
use super::compile::gateways::Gateway;
use super::compile::grants::{self, Grants};
use super::compile::numbers::Number;
use super::compile::trunks::Trunk;
use super::compile::verdict::Checked;
use super::compile::{Kind, ObjectRef, Objects, SecretFacts, Verdict};
use super::table::{DestinationEntry, ObjectKey};
use attachments::Attachments;
use dependants::{Dependants, Node};

pub use objects::Indexed;
pub use tables::GatewayTable;

/// Everything that is known, and what it means.
#[derive(Default)]
pub struct Index {
    objects: Objects,
    dependants: Dependants,
    attachments: Attachments,
    dirty: Dirty,
    gateways: BTreeMap<ObjectKey, Checked<Gateway>>,
    trunks: BTreeMap<ObjectKey, Checked<Trunk>>,
    /// Each by itself.
    alone: Alone,
    /// With their chains.
    destinations: BTreeMap<ObjectKey, Checked<Arc<DestinationEntry>>>,
    assistants: BTreeMap<ObjectKey, Checked<Assistant>>,
    numbers: BTreeMap<ObjectKey, Checked<Number>>,
    tables: BTreeMap<ObjectKey, GatewayTable>,
    verdicts: BTreeMap<ObjectRef, Arc<Verdict>>,
}

/// What [`Index::settle`] has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Objects whose verdict is new or another one.
    pub verdicts: BTreeSet<ObjectRef>,
    /// Objects that have no verdict any more.
    pub gone: BTreeSet<ObjectRef>,
    /// Gateways whose table or credentials are others, are new, or are gone.
    pub tables: BTreeSet<ObjectKey>,
}

/// What has to be looked at again, by kind.
#[derive(Debug, Default)]
struct Dirty {
    gateways: BTreeSet<ObjectKey>,
    trunks: BTreeSet<ObjectKey>,
    destinations: BTreeSet<ObjectKey>,
    assistants: BTreeSet<ObjectKey>,
    numbers: BTreeSet<ObjectKey>,
    verdicts: BTreeSet<ObjectRef>,
}

impl Dirty {
    fn mark(&mut self, kind: Kind, key: &ObjectKey) {
        let marked = match kind {
            Kind::Assistant => &mut self.assistants,
            Kind::PhoneNumber => &mut self.numbers,
            Kind::SipGateway => &mut self.gateways,
            Kind::SipTrunk => &mut self.trunks,
            Kind::TransferDestination => &mut self.destinations,
        };
        if !marked.contains(key) {
            marked.insert(key.clone());
        }
    }

    fn mark_verdict(&mut self, kind: Kind, key: &ObjectKey) {
        self.verdicts.insert(ObjectRef { kind, key: key.clone() });
    }
}

impl Index {
    /// An object is there, as given; returns whether that means something new.
    pub fn apply<K: Indexed>(&mut self, key: &ObjectKey, object: Arc<K>) -> bool {
        let known = K::of_mut(&mut self.objects).get_mut(key);
        if let Some(known) = known
            && known.meaning() == object.meaning()
        {
            // What has no meaning here (a status, an annotation) may be newer.
            *known = object;
            return false;
        }
        self.replace(key, Some(object));
        true
    }

    /// An object is gone; returns whether it was there.
    pub fn delete<K: Indexed>(&mut self, key: &ObjectKey) -> bool {
        let known = K::of(&self.objects).contains_key(key);
        if known {
            self.replace::<K>(key, None);
        }
        known
    }

    /// These objects of a kind are there, and no others; returns whether that means something new.
    pub fn reset<K: Indexed>(&mut self, objects: BTreeMap<ObjectKey, Arc<K>>) -> bool {
        let gone: Vec<ObjectKey> =
            K::of(&self.objects).keys().filter(|key| !objects.contains_key(key)).cloned().collect();
        let mut changed = !gone.is_empty();
        for key in gone {
            self.delete::<K>(&key);
        }
        for (key, object) in objects {
            changed |= self.apply(&key, object);
        }
        changed
    }

    /// Where the trunk is that this is and that gateway pods ask whether it is there.
    pub fn asked(&self, object: &ObjectRef) -> Option<String> {
        let checked = self.trunks.get(&object.key).filter(|_| object.kind == Kind::SipTrunk)?;
        let entry = &checked.usable.as_ref()?.entry;
        entry.is_kept().then(|| entry.address())
    }

    /// What is known of a Secret; returns whether that is new.
    pub fn set_secret(&mut self, key: &ObjectKey, facts: Option<SecretFacts>) -> bool {
        if self.objects.secrets.get(key) == facts.as_ref() {
            return false;
        }
        match facts {
            Some(facts) => self.objects.secrets.insert(key.clone(), facts),
            None => self.objects.secrets.remove(key),
        };
        for (kind, dependant) in self.dependants.of(&Node::Secret(key.clone())) {
            self.dirty.mark(*kind, dependant);
        }
        true
    }

    /// Labels of all namespaces; returns whether any are new.
    pub fn set_namespaces(&mut self, namespaces: BTreeMap<String, BTreeMap<String, String>>) -> bool {
        let before = std::mem::take(&mut self.objects.namespaces);
        let names: BTreeSet<&String> = before.keys().chain(namespaces.keys()).collect();
        let changed: Vec<String> = names
            .into_iter()
            .filter(|namespace| before.get(*namespace) != namespaces.get(*namespace))
            .cloned()
            .collect();
        let (trunks, gateways) =
            (by_selector::<SipTrunk>(&self.objects), by_selector::<SipGateway>(&self.objects));
        let permits = |objects: &Objects| -> Vec<bool> {
            let of = |namespace: &String| {
                let trunks = trunks.iter().map(|key| grants::permitted::<SipTrunk>(objects, namespace, key));
                let gateways =
                    gateways.iter().map(|key| grants::permitted::<SipGateway>(objects, namespace, key));
                trunks.chain(gateways).collect::<Vec<_>>()
            };
            changed.iter().flat_map(of).collect()
        };
        self.objects.namespaces = before;
        let permitted = permits(&self.objects);
        self.objects.namespaces = namespaces;
        let permitted = permitted.into_iter().zip(permits(&self.objects));
        let targets = trunks.iter().map(|key| (Kind::SipTrunk, key));
        let targets: Vec<_> = targets.chain(gateways.iter().map(|key| (Kind::SipGateway, key))).collect();
        let pairs =
            changed.iter().flat_map(|namespace| targets.iter().map(move |target| (namespace, target)));
        for ((namespace, (kind, key)), _) in
            pairs.zip(permitted).filter(|(_, (before, after))| before != after)
        {
            self.dirty.mark(*kind, key);
            for (kind, dependant) in self.dependants.of(&Node::Object(*kind, (*key).clone())) {
                if dependant.namespace == *namespace {
                    self.dirty.mark(*kind, dependant);
                }
            }
        }
        !changed.is_empty()
    }

    /// The gateway of PhoneNumbers that name none; returns whether it is another one.
    pub fn set_default_gateway(&mut self, gateway: Option<ObjectKey>) -> bool {
        if self.objects.default_gateway == gateway {
            return false;
        }
        let all = self.objects.numbers.iter();
        let without = all.filter(|(_, object)| object.spec.gateway_ref.is_none());
        let without: Vec<_> = without.map(|(key, object)| (key.clone(), object.clone())).collect();
        for (key, object) in &without {
            self.unlink(key, &**object);
        }
        self.objects.default_gateway = gateway;
        for (key, object) in &without {
            self.link(key, &**object);
            self.dirty.mark(Kind::PhoneNumber, key);
        }
        true
    }

    /// The objects as they were given last.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The Secrets that objects name: the operator reads these and no others.
    pub fn secrets_needed(&self) -> impl Iterator<Item = &ObjectKey> {
        self.dependants.secrets()
    }

    /// The table of each accepted gateway, as of the last [`Self::settle`].
    pub fn tables(&self) -> &BTreeMap<ObjectKey, GatewayTable> {
        &self.tables
    }

    /// One verdict for each object, as of the last [`Self::settle`].
    pub fn verdicts(&self) -> &BTreeMap<ObjectRef, Arc<Verdict>> {
        &self.verdicts
    }

    /// Puts `object` in the place of what was there, and marks what has to be looked at again.
    fn replace<K: Indexed>(&mut self, key: &ObjectKey, object: Option<Arc<K>>) {
        if K::KIND == Kind::PhoneNumber
            && let Some(number) = self.objects.numbers.get(key)
        {
            self.attachments.withdraw(key, number);
        }
        let before = K::of_mut(&mut self.objects).remove(key);
        if let Some(before) = &before {
            self.unlink(key, &**before);
        }
        if let Some(object) = &object {
            self.link(key, &**object);
        }
        let grant = |object: &Option<Arc<K>>| object.as_ref().and_then(|object| object.grant().cloned());
        if grant(&before) != grant(&object) {
            for (kind, dependant) in self.dependants.of(&Node::Object(K::KIND, key.clone())) {
                self.dirty.mark(*kind, dependant);
            }
        }
        self.dirty.mark(K::KIND, key);
        if let Some(object) = object {
            K::of_mut(&mut self.objects).insert(key.clone(), object);
        }
    }

    fn link<K: Indexed>(&mut self, key: &ObjectKey, object: &K) {
        let shared = Arc::new(key.clone());
        for node in object.references(key, &self.objects) {
            self.counts_for_verdict(&node);
            self.dependants.add(node, K::KIND, &shared);
        }
    }

    fn unlink<K: Indexed>(&mut self, key: &ObjectKey, object: &K) {
        for node in object.references(key, &self.objects) {
            self.counts_for_verdict(&node);
            self.dependants.remove(&node, K::KIND, key);
        }
    }

    /// The status of an Assistant says how many PhoneNumbers name it.
    fn counts_for_verdict(&mut self, node: &Node) {
        if let Node::Object(kind @ Kind::Assistant, key) = node {
            self.dirty.mark_verdict(*kind, key);
        }
    }
}

/// Objects whose grant asks for labels of namespaces.
fn by_selector<K: Grants>(objects: &Objects) -> Vec<ObjectKey> {
    let selects = |object: &K| {
        object.allowed_namespaces().is_some_and(|allowed| allowed.from == NamespacesFrom::Selector)
    };
    K::of(objects).iter().filter(|(_, object)| selects(object)).map(|(key, _)| key.clone()).collect()
}

#[cfg(test)]
mod tests;
