//! Who may refer to what. The grant is checked before the object is looked up, so that a refusal doesn't tell whether the
//! target exists.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::resources::references::{AllowedNamespaces, NamespacesFrom, ObjectReference};
use crate::resources::{SipGateway, SipTrunk};
use crate::routing::table::ObjectKey;

use super::Objects;
use super::verdict::{Checked, Failure};

/// Objects that grant references across namespaces.
pub(in crate::routing) trait Grants {
    fn of(objects: &Objects) -> &BTreeMap<ObjectKey, Arc<Self>>;
    fn allowed_namespaces(&self) -> Option<&AllowedNamespaces>;
}

impl Grants for SipTrunk {
    fn of(objects: &Objects) -> &BTreeMap<ObjectKey, Arc<Self>> {
        &objects.trunks
    }
    fn allowed_namespaces(&self) -> Option<&AllowedNamespaces> {
        self.spec.allowed_namespaces.as_ref()
    }
}

impl Grants for SipGateway {
    fn of(objects: &Objects) -> &BTreeMap<ObjectKey, Arc<Self>> {
        &objects.gateways
    }
    fn allowed_namespaces(&self) -> Option<&AllowedNamespaces> {
        self.spec.allowed_namespaces.as_ref()
    }
}

/// The key that a reference in `namespace` names.
pub(in crate::routing) fn target(namespace: &str, reference: &ObjectReference) -> ObjectKey {
    ObjectKey::new(reference.namespace.as_deref().unwrap_or(namespace), &reference.name)
}

/// Whether objects in `namespace` may refer to `target`. An object that doesn't exist grants nothing.
pub(in crate::routing) fn permitted<T: Grants>(
    objects: &Objects,
    namespace: &str,
    target: &ObjectKey,
) -> bool {
    if namespace == target.namespace {
        return true;
    }
    let Some(grant) = T::of(objects).get(target).and_then(|object| object.allowed_namespaces()) else {
        return false;
    };
    match grant.from {
        NamespacesFrom::Same => false,
        NamespacesFrom::All => true,
        NamespacesFrom::Selector => match (&grant.selector, objects.namespaces.get(namespace)) {
            (Some(selector), Some(labels)) => {
                selector.match_labels.iter().all(|(label, value)| labels.get(label) == Some(value))
            }
            _ => false,
        },
    }
}

/// The object that a reference from `namespace` leads to, if it is permitted, there and of use.
pub(in crate::routing) fn resolve<'a, T: Grants, C>(
    objects: &Objects,
    checked: &'a BTreeMap<ObjectKey, Checked<C>>,
    namespace: &str,
    target: &ObjectKey,
) -> Result<&'a C, Failure> {
    if !permitted::<T>(objects, namespace, target) {
        return Err(Failure::Forbidden);
    }
    local(checked, target)
}

/// The object that a reference within one namespace leads to, if it is there and of use.
pub(in crate::routing) fn local<'a, C>(
    checked: &'a BTreeMap<ObjectKey, Checked<C>>,
    target: &ObjectKey,
) -> Result<&'a C, Failure> {
    usable(checked.get(target))
}

/// The object that was checked, if it is there and of use.
pub(in crate::routing) fn usable<C>(checked: Option<&Checked<C>>) -> Result<&C, Failure> {
    let found = checked.ok_or(Failure::Missing)?;
    match &found.usable {
        Some(usable) => Ok(usable),
        None if found.is_accepted() => Err(Failure::Unusable),
        None => Err(Failure::Refused),
    }
}
