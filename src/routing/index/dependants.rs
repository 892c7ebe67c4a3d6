//! Who refers to what. The way forward is in the objects themselves; this is the way back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::routing::compile::Kind;
use crate::routing::table::ObjectKey;

/// What can be referred to, whether it exists or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// A Secret.
    Secret(ObjectKey),
    /// An object that people write.
    Object(Kind, ObjectKey),
}

/// For each node, the objects that refer to it.
#[derive(Debug, Default)]
pub(super) struct Dependants {
    of: BTreeMap<Node, BTreeSet<(Kind, Arc<ObjectKey>)>>,
}

impl Dependants {
    pub(super) fn add(&mut self, node: Node, kind: Kind, key: &Arc<ObjectKey>) {
        self.of.entry(node).or_default().insert((kind, key.clone()));
    }

    pub(super) fn remove(&mut self, node: &Node, kind: Kind, key: &ObjectKey) {
        if let Some(dependants) = self.of.get_mut(node) {
            dependants.remove(&(kind, Arc::new(key.clone())));
            if dependants.is_empty() {
                self.of.remove(node);
            }
        }
    }

    /// The objects that refer to `node`.
    pub(super) fn of(&self, node: &Node) -> impl Iterator<Item = &(Kind, Arc<ObjectKey>)> {
        self.of.get(node).into_iter().flatten()
    }

    /// How many objects refer to `node`.
    pub(super) fn count(&self, node: &Node) -> usize {
        self.of.get(node).map_or(0, BTreeSet::len)
    }

    /// Secrets that are referred to.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &ObjectKey> {
        // Secrets are the lowest of the nodes.
        self.of.keys().map_while(|node| match node {
            Node::Secret(key) => Some(key),
            Node::Object(..) => None,
        })
    }
}
