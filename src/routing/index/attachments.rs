//! Which gateway each PhoneNumber attaches to, and what follows: who holds a number that several name, and which gateways
//! answer for an assistant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::resources::PhoneNumber;
use crate::routing::compile::numbers::{Claim, slot};
use crate::routing::compile::tables::Counts;
use crate::routing::table::{E164, ObjectKey};

/// One number of one gateway.
type Slot = (Arc<ObjectKey>, E164);

#[derive(Debug, Default)]
pub(super) struct Attachments {
    gateways: BTreeMap<Arc<ObjectKey>, Arc<ObjectKey>>,
    /// Of each slot, the first claim holds.
    claims: BTreeSet<(Arc<ObjectKey>, E164, Claim<Arc<ObjectKey>>)>,
    /// For each assistant that is named, the gateways that the naming PhoneNumbers attach to.
    answering: BTreeMap<ObjectKey, Counts<ObjectKey>>,
    /// Slots whose claims changed, with who held them before.
    contested: BTreeMap<Slot, Option<Arc<ObjectKey>>>,
    /// Assistants for which other gateways answer than before.
    moved: BTreeSet<ObjectKey>,
    /// One allocation for each gateway.
    names: BTreeSet<Arc<ObjectKey>>,
}

impl Attachments {
    /// The gateway that a PhoneNumber is known to attach to.
    pub(super) fn gateway(&self, number: &ObjectKey) -> Option<&ObjectKey> {
        self.gateways.get(number).map(AsRef::as_ref)
    }

    /// The PhoneNumber attaches to `gateway`; it attached to none before.
    pub(super) fn enter(&mut self, key: &ObjectKey, object: &PhoneNumber, gateway: ObjectKey) {
        let gateway = match self.names.get(&gateway) {
            Some(name) => name.clone(),
            None => {
                let name = Arc::new(gateway);
                self.names.insert(name.clone());
                name
            }
        };
        let key = Arc::new(key.clone());
        if let Some((_, number)) = slot((*gateway).clone(), object) {
            self.contest(&gateway, &number);
            self.claims.insert((gateway.clone(), number, Claim::new(key.clone(), object)));
        }
        if let Some(assistant) = assistant(&key, object)
            && self.answering.entry(assistant.clone()).or_default().add(&gateway)
        {
            self.moved.insert(assistant);
        }
        self.gateways.insert(key, gateway);
    }

    /// The PhoneNumber, which is still `object`, attaches to no gateway any more.
    pub(super) fn withdraw(&mut self, key: &ObjectKey, object: &PhoneNumber) {
        let Some((key, gateway)) = self.gateways.remove_entry(key) else { return };
        if let Some((_, number)) = slot((*gateway).clone(), object) {
            self.contest(&gateway, &number);
            self.claims.remove(&(gateway.clone(), number, Claim::new(key.clone(), object)));
        }
        if let Some(assistant) = assistant(&key, object)
            && let Some(gateways) = self.answering.get_mut(&assistant)
            && gateways.take(&gateway)
        {
            if gateways.is_empty() {
                self.answering.remove(&assistant);
            }
            self.moved.insert(assistant);
        }
    }

    /// Who holds the number that the PhoneNumber names, on the gateway that it attaches to.
    pub(super) fn holder(&self, key: &ObjectKey, object: &PhoneNumber) -> Option<&ObjectKey> {
        let gateway = self.gateways.get(key)?;
        let (_, number) = slot((**gateway).clone(), object)?;
        self.first(gateway, &number).map(AsRef::as_ref)
    }

    /// PhoneNumbers whose number is held by another one than the last time.
    pub(super) fn take_contested(&mut self) -> Vec<Arc<ObjectKey>> {
        let contested = std::mem::take(&mut self.contested);
        let changed = contested.into_iter().flat_map(|((gateway, number), before)| {
            if self.first(&gateway, &number) == before.as_ref() {
                return Vec::new();
            }
            let claims = self.from(&gateway, &number);
            let claims = claims.take_while(|(at, claimed, _)| *at == gateway && *claimed == number);
            claims.map(|(_, _, claim)| claim.key.clone()).collect()
        });
        changed.collect()
    }

    /// Assistants for which other gateways answer than the last time.
    pub(super) fn take_moved(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.moved)
    }

    /// The gateways that answer a PhoneNumber that names the assistant.
    pub(super) fn answering(&self, assistant: &ObjectKey) -> impl Iterator<Item = &ObjectKey> + Clone {
        self.answering.get(assistant).into_iter().flat_map(Counts::iter)
    }

    /// The assistants that are named by a PhoneNumber of the gateway.
    pub(super) fn answered_by(&self, gateway: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        let all = self.answering.iter();
        all.filter(|(_, gateways)| gateways.contains(gateway)).map(|(assistant, _)| assistant)
    }

    fn contest(&mut self, gateway: &Arc<ObjectKey>, number: &E164) {
        let slot = (gateway.clone(), number.clone());
        if !self.contested.contains_key(&slot) {
            let holder = self.first(gateway, number).cloned();
            self.contested.insert(slot, holder);
        }
    }

    fn first(&self, gateway: &Arc<ObjectKey>, number: &E164) -> Option<&Arc<ObjectKey>> {
        let (at, claimed, claim) = self.from(gateway, number).next()?;
        (at == gateway && claimed == number).then_some(&claim.key)
    }

    /// Claims from the first of a slot on.
    fn from(
        &self,
        gateway: &Arc<ObjectKey>,
        number: &E164,
    ) -> impl Iterator<Item = &(Arc<ObjectKey>, E164, Claim<Arc<ObjectKey>>)> {
        let least = Claim::least(Arc::new(ObjectKey::new("", "")));
        self.claims.range((gateway.clone(), number.clone(), least)..)
    }
}

fn assistant(key: &ObjectKey, object: &PhoneNumber) -> Option<ObjectKey> {
    object.spec.assistant_ref.as_ref().map(|named| ObjectKey::new(&key.namespace, &named.name))
}
