//! What the operator knows of the cluster, and what a change touches. No I/O: a change goes in, [`Touched`] comes out.
//!
//! Promise: what doesn't change the meaning of an object (a status, an annotation) costs no compile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::{Resource, ResourceExt};

use crate::resources::conditions::Condition;
use crate::resources::{Assistant, PhoneNumber, RoutingTable, SipGateway, SipTrunk, TransferDestination};
use crate::routing::compile::{Kind, ObjectRef};
use crate::routing::index::{Index, Indexed};
use crate::routing::protocol::Version;
use crate::routing::table::ObjectKey;

use super::acknowledge::Roll;
use super::names;
use super::watch::{Change, Delta, LeaseFacts, OwnedFacts, OwnedKind, PodFacts, SliceFacts};

/// Everything that the watches have told.
#[derive(Default)]
pub struct State {
    /// What people write, and what it means; Secrets are told to it by whoever reads them.
    pub index: Index,
    /// Versions of all Secrets.
    pub secrets: BTreeMap<ObjectKey, Version>,
    /// Heads.
    pub tables: BTreeMap<ObjectKey, Arc<RoutingTable>>,
    /// Slices, without their content.
    pub slices: BTreeMap<ObjectKey, SliceFacts>,
    /// Objects made for gateways.
    pub owned: BTreeMap<(OwnedKind, ObjectKey), OwnedFacts>,
    pods: BTreeMap<ObjectKey, PodFacts>,
    leases: BTreeMap<ObjectKey, LeaseFacts>,
    namespaces: BTreeMap<ObjectKey, BTreeMap<String, String>>,
    synced: BTreeSet<usize>,
}

/// What has to be looked at again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// The objects mean something else now, or what is made for a gateway may be another.
    pub compile: bool,
    /// Assistants, trunks or gateways changed, which name Secrets.
    pub names_secrets: bool,
    /// Secrets whose version changed, or that are gone.
    pub secrets: BTreeSet<ObjectKey>,
    /// Objects whose status may differ from what it should be.
    pub objects: BTreeSet<ObjectRef>,
    /// Gateways whose pods or acknowledgements changed.
    pub rolls: BTreeSet<ObjectKey>,
    /// Gateways whose head changed.
    pub published: BTreeSet<ObjectKey>,
    /// Gateways for which a slice was written, whoever wrote it.
    pub found: BTreeSet<ObjectKey>,
    /// What gateways have lost of what was published for them.
    pub losses: BTreeSet<(ObjectKey, Loss)>,
    /// Kinds that were listed anew, with the round.
    pub listed_anew: BTreeSet<(u64, String)>,
    /// Made objects that changed, with the gateway that they were made for.
    pub owned: BTreeSet<(ObjectKey, OwnedKind, ObjectKey)>,
}

/// Something published that the watches have shown to be gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// A head, by its uid.
    Head(String),
    /// A Secret of credentials, by its uid.
    Vault(String),
    /// A slice, by its name.
    Slice(String),
}

/// Number of streams that have to list before anything is published.
const STREAMS: usize = 18;

impl State {
    /// Whether every watch has listed once. Before that, an object that is missing may only not have arrived.
    pub fn is_synced(&self) -> bool {
        self.synced.len() == STREAMS
    }

    /// The roll of a gateway's pods.
    pub fn roll(&self, gateway: &ObjectKey) -> Roll {
        Roll::call(gateway, &self.pods, &self.leases)
    }

    /// What is known of a gateway's Deployment.
    pub fn deployment(&self, gateway: &ObjectKey) -> Option<&OwnedFacts> {
        let deployment = ObjectKey::new(gateway.namespace.clone(), names::base(&gateway.name));
        self.owned.get(&(OwnedKind::Deployment, deployment))
    }

    /// Names of the slices of a gateway.
    pub fn slices_of<'a>(
        &'a self,
        gateway: &'a ObjectKey,
    ) -> impl Iterator<Item = (&'a String, &'a SliceFacts)> {
        self.slices
            .range(ObjectKey::new(gateway.namespace.clone(), "")..)
            .take_while(|(key, _)| key.namespace == gateway.namespace)
            .filter(|(_, slice)| slice.gateway == gateway.name)
            .map(|(key, slice)| (&key.name, slice))
    }

    /// Takes a change in; adds to `touched` what it touches.
    pub fn apply(&mut self, change: Change, touched: &mut Touched) {
        if let Some(stream) = listed(&change) {
            self.synced.insert(stream);
        }
        match change {
            Change::Assistants(delta) => {
                let changed = self.custom(delta, touched);
                touched.names_secrets |= changed;
            }
            Change::Numbers(delta) => {
                self.custom(delta, touched);
            }
            Change::Trunks(delta) => {
                let changed = self.custom(delta, touched);
                touched.names_secrets |= changed;
            }
            Change::Destinations(delta) => {
                self.custom(delta, touched);
            }
            Change::Gateways(delta) => {
                let known = &self.index.objects().gateways;
                let news = match &delta {
                    Delta::Put(key, new) => vec![(key, new)],
                    Delta::Gone(_) => Vec::new(),
                    Delta::Replace(all) => all.iter().collect(),
                };
                touched.compile |= news
                    .into_iter()
                    .any(|(key, new)| known.get(key).is_some_and(|old| !is_made_alike(old, new)));
                let changed = self.custom(delta, touched);
                touched.names_secrets |= changed;
            }
            Change::Tables(delta) => absorb(&mut self.tables, delta, |key, old, new| {
                touched.published.insert(key.clone());
                let uid = old.and_then(|old| old.uid());
                if let Some(uid) = uid.filter(|_| old.map(|old| old.uid()) != new.map(|new| new.uid())) {
                    touched.losses.insert((key.clone(), Loss::Head(uid)));
                }
            }),
            Change::Slices(delta) => absorb(&mut self.slices, delta, |key, old, new| {
                if let Some(slice) = new.filter(|_| old != new) {
                    touched.found.insert(ObjectKey::new(key.namespace.clone(), slice.gateway.clone()));
                }
                if let Some(slice) = old.filter(|_| new.is_none()) {
                    let gateway = ObjectKey::new(key.namespace.clone(), slice.gateway.clone());
                    touched.losses.insert((gateway, Loss::Slice(key.name.clone())));
                }
            }),
            Change::Secrets(delta) => absorb(&mut self.secrets, delta, |key, old, new| {
                if old != new {
                    touched.secrets.insert(key.clone());
                }
                if let Some(old) = old.filter(|old| new.is_none_or(|new| new.uid != old.uid))
                    && let Some(gateway) = names::gateway_of_credentials(key)
                {
                    touched.losses.insert((gateway, Loss::Vault(old.uid.clone())));
                }
            }),
            Change::Namespaces(delta) => {
                let mut changed = false;
                absorb(&mut self.namespaces, delta, |_, old, new| changed |= old != new);
                if changed {
                    let labels =
                        self.namespaces.iter().map(|(key, labels)| (key.name.clone(), labels.clone()));
                    touched.compile |= self.index.set_namespaces(labels.collect());
                }
            }
            Change::Pods(delta) => absorb(&mut self.pods, delta, |key, old, new| {
                if old != new {
                    for pod in [old, new].into_iter().flatten() {
                        touched.rolls.insert(ObjectKey::new(key.namespace.clone(), pod.gateway.clone()));
                    }
                }
            }),
            Change::Leases(delta) => absorb(&mut self.leases, delta, |key, old, new| {
                if old != new {
                    for lease in [old, new].into_iter().flatten() {
                        touched.rolls.insert(ObjectKey::new(key.namespace.clone(), lease.gateway.clone()));
                    }
                }
            }),
            Change::ListedAnew { kind, round } => drop(touched.listed_anew.insert((round, kind))),
            Change::Owned(kind, delta) => {
                let mine: BTreeMap<_, _> = match &delta {
                    Delta::Replace(_) => self.owned.extract_if(.., |(known, _), _| *known == kind).collect(),
                    Delta::Put(key, _) | Delta::Gone(key) => {
                        self.owned.remove_entry(&(kind, key.clone())).into_iter().collect()
                    }
                };
                let mut mine: BTreeMap<_, _> =
                    mine.into_iter().map(|((_, key), facts)| (key, facts)).collect();
                absorb(&mut mine, delta, |key, old, new| {
                    if let Some(facts) = new.or(old).filter(|_| old != new) {
                        let gateway = ObjectKey::new(key.namespace.clone(), facts.gateway.clone());
                        touched.owned.insert((gateway, kind, key.clone()));
                    }
                });
                self.owned.extend(mine.into_iter().map(|(key, facts)| ((kind, key), facts)));
            }
        }
    }

    /// Takes in objects that people write; returns whether they mean something else now.
    fn custom<K: Indexed>(&mut self, delta: Delta<Arc<K>>, touched: &mut Touched) -> bool {
        let mut touch = |key: &ObjectKey| {
            touched.objects.insert(ObjectRef { kind: K::KIND, key: key.clone() });
        };
        let changed = match delta {
            Delta::Put(key, object) => {
                touch(&key);
                self.index.apply(&key, object)
            }
            Delta::Gone(key) => {
                touch(&key);
                self.index.delete::<K>(&key)
            }
            Delta::Replace(all) => {
                all.keys().for_each(&mut touch);
                K::of(self.index.objects()).keys().filter(|key| !all.contains_key(key)).for_each(touch);
                self.index.reset(all)
            }
        };
        touched.compile |= changed;
        changed
    }

    /// An object that people write, by kind and key.
    pub fn object(&self, object: &ObjectRef) -> Option<Reported<'_>> {
        let (key, objects) = (&object.key, self.index.objects());
        Some(match object.kind {
            Kind::Assistant => Reported::Assistant(objects.assistants.get(key)?),
            Kind::PhoneNumber => Reported::PhoneNumber(objects.numbers.get(key)?),
            Kind::SipGateway => Reported::SipGateway(objects.gateways.get(key)?),
            Kind::SipTrunk => Reported::SipTrunk(objects.trunks.get(key)?),
            Kind::TransferDestination => Reported::TransferDestination(objects.destinations.get(key)?),
        })
    }
}

/// An object that people write, with its status as last seen.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Reported<'a> {
    Assistant(&'a Arc<Assistant>),
    PhoneNumber(&'a Arc<PhoneNumber>),
    SipGateway(&'a Arc<SipGateway>),
    SipTrunk(&'a Arc<SipTrunk>),
    TransferDestination(&'a Arc<TransferDestination>),
}

impl Reported<'_> {
    /// The conditions of its status.
    pub fn conditions(&self) -> &[Condition] {
        match self {
            Self::Assistant(object) => object.status.as_ref().map(|status| &status.conditions),
            Self::PhoneNumber(object) => object.status.as_ref().map(|status| &status.conditions),
            Self::SipGateway(object) => object.status.as_ref().map(|status| &status.conditions),
            Self::SipTrunk(object) => object.status.as_ref().map(|status| &status.conditions),
            Self::TransferDestination(object) => object.status.as_ref().map(|status| &status.conditions),
        }
        .map_or(&[], Vec::as_slice)
    }

    /// Its metadata.
    pub fn metadata(&self) -> &kube::api::ObjectMeta {
        match self {
            Self::Assistant(object) => &object.metadata,
            Self::PhoneNumber(object) => &object.metadata,
            Self::SipGateway(object) => &object.metadata,
            Self::SipTrunk(object) => &object.metadata,
            Self::TransferDestination(object) => &object.metadata,
        }
    }

    /// What an event about it names.
    pub fn reference(&self) -> k8s_openapi::api::core::v1::ObjectReference {
        match self {
            Self::Assistant(object) => object.object_ref(&()),
            Self::PhoneNumber(object) => object.object_ref(&()),
            Self::SipGateway(object) => object.object_ref(&()),
            Self::SipTrunk(object) => object.object_ref(&()),
            Self::TransferDestination(object) => object.object_ref(&()),
        }
    }
}

/// Whether what is made for a gateway is the same for two versions of it that mean the same to calls.
fn is_made_alike(a: &SipGateway, b: &SipGateway) -> bool {
    a.uid() == b.uid()
        && a.labels() == b.labels()
        && a.metadata.deletion_timestamp.is_some() == b.metadata.deletion_timestamp.is_some()
}

/// Brings `known` up to date and tells of each object that was put or is gone, with what was and what is.
fn absorb<T>(
    known: &mut BTreeMap<ObjectKey, T>,
    delta: Delta<T>,
    mut changed: impl FnMut(&ObjectKey, Option<&T>, Option<&T>),
) {
    match delta {
        Delta::Put(key, new) => {
            let old = known.remove(&key);
            changed(&key, old.as_ref(), Some(&new));
            known.insert(key, new);
        }
        Delta::Gone(key) => {
            if let Some(old) = known.remove(&key) {
                changed(&key, Some(&old), None);
            }
        }
        Delta::Replace(all) => {
            let old = std::mem::replace(known, all);
            for (key, new) in &*known {
                changed(key, old.get(key), Some(new));
            }
            for (key, old) in old.iter().filter(|(key, _)| !known.contains_key(key)) {
                changed(key, Some(old), None);
            }
        }
    }
}

/// The number of the stream whose list this is.
fn listed(change: &Change) -> Option<usize> {
    fn complete<T>(delta: &Delta<T>) -> bool {
        matches!(delta, Delta::Replace(_))
    }
    let (stream, complete) = match change {
        Change::Assistants(delta) => (0, complete(delta)),
        Change::Numbers(delta) => (1, complete(delta)),
        Change::Trunks(delta) => (2, complete(delta)),
        Change::Destinations(delta) => (3, complete(delta)),
        Change::Gateways(delta) => (4, complete(delta)),
        Change::Tables(delta) => (5, complete(delta)),
        Change::Slices(delta) => (6, complete(delta)),
        Change::Secrets(delta) => (7, complete(delta)),
        Change::Namespaces(delta) => (8, complete(delta)),
        Change::Pods(delta) => (9, complete(delta)),
        Change::Leases(delta) => (10, complete(delta)),
        Change::Owned(kind, delta) => (11 + *kind as usize, complete(delta)),
        Change::ListedAnew { .. } => return None,
    };
    complete.then_some(stream)
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::resources::phone_number::{PhoneNumberSpec, PhoneNumberStatus};

    fn number(generation: i64) -> Arc<PhoneNumber> {
        let spec: PhoneNumberSpec = serde_json::from_str(r#"{"number": "+31201234567"}"#).unwrap();
        let mut number = PhoneNumber::new("main", spec);
        number.metadata.generation = Some(generation);
        Arc::new(number)
    }

    fn key() -> ObjectKey {
        ObjectKey::new("a", "main")
    }

    fn after(state: &mut State, change: Change) -> Touched {
        let mut touched = Touched::default();
        state.apply(change, &mut touched);
        touched
    }

    #[test]
    fn a_changed_spec_compiles_and_a_changed_status_does_not() {
        let mut state = State::default();
        assert!(after(&mut state, Change::Numbers(Delta::Put(key(), number(1)))).compile);
        let mut reported = (*number(1)).clone();
        reported.status =
            Some(PhoneNumberStatus { observed_generation: Some(1), ..PhoneNumberStatus::default() });
        let touched = after(&mut state, Change::Numbers(Delta::Put(key(), Arc::new(reported))));
        assert!(!touched.compile);
        assert_eq!(touched.objects.len(), 1, "the status is looked at again");
        assert!(after(&mut state, Change::Numbers(Delta::Put(key(), number(2)))).compile);
    }

    #[test]
    fn whoever_names_secrets_has_them_looked_for_when_it_comes() {
        fn comes<T: DeserializeOwned>(kind: &str, spec: &str) -> Arc<T> {
            let head = format!(
                r#""apiVersion": "voicedock.dev/v1alpha1", "kind": "{kind}", "metadata": {{"name": "main"}}"#
            );
            Arc::new(serde_json::from_str(&format!("{{{head}, \"spec\": {spec}}}")).unwrap())
        }
        for (change, looked_for) in [
            (Change::Assistants(Delta::Put(key(), comes("Assistant", "{}"))), true),
            (Change::Gateways(Delta::Put(key(), comes("SipGateway", "{}"))), true),
            (Change::Trunks(Delta::Put(key(), comes("SipTrunk", r#"{"host": "pbx.example.com"}"#))), true),
            (Change::Numbers(Delta::Put(key(), number(1))), false),
        ] {
            assert_eq!(after(&mut State::default(), change).names_secrets, looked_for);
        }
    }

    #[test]
    fn a_delete_that_the_watch_missed_shows_in_the_next_list() {
        let mut state = State::default();
        after(&mut state, Change::Numbers(Delta::Put(key(), number(1))));
        let touched = after(&mut state, Change::Numbers(Delta::Replace(BTreeMap::new())));
        assert!(touched.compile && state.index.objects().numbers.is_empty());
    }

    #[test]
    fn a_slice_that_is_written_is_told_of_whoever_wrote_it() {
        let slice = SliceFacts { gateway: "default".to_owned(), version: Version::default() };
        let version = Version { resource_version: "2".to_owned(), ..Version::default() };
        let touched = SliceFacts { version, ..slice.clone() };
        let mut state = State::default();
        let gateways = BTreeSet::from([ObjectKey::new("a", "default")]);
        assert_eq!(after(&mut state, Change::Slices(Delta::Put(key(), slice.clone()))).found, gateways);
        assert!(after(&mut state, Change::Slices(Delta::Put(key(), slice.clone()))).found.is_empty());
        assert_eq!(after(&mut state, Change::Slices(Delta::Put(key(), touched))).found, gateways);
        let listed = BTreeMap::from([(key(), slice.clone()), (ObjectKey::new("a", "other"), slice)]);
        assert_eq!(after(&mut state, Change::Slices(Delta::Replace(listed))).found, gateways);
    }

    #[test]
    fn nothing_is_known_for_sure_before_every_watch_has_listed() {
        let mut state = State::default();
        let kinds = [
            OwnedKind::Deployment,
            OwnedKind::NetworkPolicy,
            OwnedKind::PodDisruptionBudget,
            OwnedKind::Role,
            OwnedKind::RoleBinding,
            OwnedKind::Service,
            OwnedKind::ServiceAccount,
        ];
        let owned = kinds.map(|kind| Change::Owned(kind, Delta::Replace(BTreeMap::new())));
        let rest = [
            Change::Assistants(Delta::Replace(BTreeMap::new())),
            Change::Numbers(Delta::Replace(BTreeMap::new())),
            Change::Trunks(Delta::Replace(BTreeMap::new())),
            Change::Destinations(Delta::Replace(BTreeMap::new())),
            Change::Gateways(Delta::Replace(BTreeMap::new())),
            Change::Tables(Delta::Replace(BTreeMap::new())),
            Change::Slices(Delta::Replace(BTreeMap::new())),
            Change::Secrets(Delta::Replace(BTreeMap::new())),
            Change::Namespaces(Delta::Replace(BTreeMap::new())),
            Change::Pods(Delta::Replace(BTreeMap::new())),
            Change::Leases(Delta::Replace(BTreeMap::new())),
        ];
        for change in owned.into_iter().chain(rest) {
            assert!(!state.is_synced());
            after(&mut state, change);
        }
        assert!(state.is_synced());
    }
}
