//! What there is of one kind, in memory: reads are answered from here and never wait for the API server.
//!
//! Kept current by a watch. What this process has written itself is put in at once, so that it is seen by the next read;
//! an older version that the watch brings after that changes nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;
use kube::{Resource, ResourceExt};

use crate::operator::watch::Delta;
use crate::routing::table::ObjectKey;

/// An object and when it was made and last changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<K> {
    /// The object, without its managed fields.
    pub object: K,
    /// When it was created.
    pub created: Timestamp,
    /// When somebody last changed anything but its status.
    pub updated: Timestamp,
}

impl<K: Resource> Stored<K> {
    /// From an object as the API server has it.
    pub fn new(mut object: K) -> Self {
        let metadata = object.meta_mut();
        let created = metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let managed = metadata.managed_fields.take().unwrap_or_default();
        let of_spec = managed.into_iter().filter(|entry| entry.subresource.is_none());
        let updated = of_spec.filter_map(|entry| entry.time).map(|time| time.0).max().unwrap_or(created);
        if let Some(annotations) = metadata.annotations.as_mut() {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
        Self { object, created, updated: updated.max(created) }
    }

    fn key(&self) -> ObjectKey {
        ObjectKey::new(self.object.namespace().unwrap_or_default(), self.object.name_any())
    }

    /// Versions of one object are numbers that grow (KEP-5504).
    fn version(&self) -> u64 {
        self.object.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default()
    }
}

/// All objects of one kind.
#[derive(Debug)]
pub struct Cache<K>(RwLock<Inner<K>>);

#[derive(Debug)]
struct Inner<K> {
    listed: bool,
    namespaces: HashMap<String, Namespace<K>>,
}

#[derive(Debug)]
struct Namespace<K> {
    by_name: HashMap<String, Arc<Stored<K>>>,
    newest_first: BTreeMap<(Reverse<Timestamp>, String), Arc<Stored<K>>>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self(RwLock::new(Inner { listed: false, namespaces: HashMap::new() }))
    }
}

impl<K: Resource> Cache<K> {
    /// Whether the watch has listed once.
    pub fn is_listed(&self) -> bool {
        self.read().listed
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Stored<K>>> {
        self.read().namespaces.get(namespace)?.by_name.get(name).cloned()
    }

    /// A page of a namespace's objects, newest first, and how many there are.
    pub fn page(&self, namespace: &str, limit: usize, offset: usize) -> (Vec<Arc<Stored<K>>>, usize) {
        let inner = self.read();
        let Some(found) = inner.namespaces.get(namespace) else { return (Vec::new(), 0) };
        let page = found.newest_first.values().skip(offset).take(limit).cloned().collect();
        (page, found.newest_first.len())
    }

    /// The first object of a namespace of which this holds.
    pub fn find(&self, namespace: &str, holds: impl Fn(&K) -> bool) -> Option<Arc<Stored<K>>> {
        let inner = self.read();
        let mut all = inner.namespaces.get(namespace)?.by_name.values();
        all.find(|stored| holds(&stored.object)).cloned()
    }

    /// Takes in what the watch says.
    pub fn hear(&self, delta: Delta<Stored<K>>) {
        match delta {
            Delta::Put(_, stored) => {
                self.put(stored);
            }
            Delta::Gone(key) => self.remove(&key),
            Delta::Replace(all) => {
                let mut inner = Inner { listed: true, namespaces: HashMap::new() };
                all.into_values().for_each(|stored| drop(inner.put(stored)));
                *self.write() = inner;
            }
        }
    }

    /// Takes in an object that was just written or read; what was there stays if it is newer. Returns what there is now.
    pub fn put(&self, stored: Stored<K>) -> Arc<Stored<K>> {
        self.write().put(stored)
    }

    /// Takes out an object that was just deleted.
    pub fn remove(&self, key: &ObjectKey) {
        self.write().remove(key);
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner<K>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<K>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Resource> Inner<K> {
    fn put(&mut self, stored: Stored<K>) -> Arc<Stored<K>> {
        let key = stored.key();
        let found = self.namespaces.get(&key.namespace).and_then(|found| found.by_name.get(&key.name));
        if let Some(known) = found
            && known.object.uid() == stored.object.uid()
            && known.version() > stored.version()
        {
            return Arc::clone(known);
        }
        self.remove(&key);
        let stored = Arc::new(stored);
        let namespace = self
            .namespaces
            .entry(key.namespace)
            .or_insert_with(|| Namespace { by_name: HashMap::new(), newest_first: BTreeMap::new() });
        namespace.newest_first.insert((Reverse(stored.created), key.name.clone()), Arc::clone(&stored));
        namespace.by_name.insert(key.name, Arc::clone(&stored));
        stored
    }

    fn remove(&mut self, key: &ObjectKey) {
        let Some(namespace) = self.namespaces.get_mut(&key.namespace) else { return };
        if let Some(known) = namespace.by_name.remove(&key.name) {
            namespace.newest_first.remove(&(Reverse(known.created), key.name.clone()));
        }
        if namespace.by_name.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::PhoneNumber;

    fn number(name: &str, version: u32, created: &str) -> Stored<PhoneNumber> {
        let object = json!({
            "apiVersion": "voicedock.dev/v1alpha1", "kind": "PhoneNumber",
            "metadata": {
                "name": name, "namespace": "acme", "uid": name, "resourceVersion": version.to_string(),
                "creationTimestamp": created,
            },
            "spec": { "number": "+31201234567", "displayName": version.to_string() },
        });
        Stored::new(serde_json::from_value(object).unwrap())
    }

    fn names(cache: &Cache<PhoneNumber>, limit: usize, offset: usize) -> (Vec<String>, usize) {
        let (page, total) = cache.page("acme", limit, offset);
        (page.iter().map(|stored| stored.object.name_any()).collect(), total)
    }

    #[test]
    fn a_page_is_newest_first_and_knows_how_many_there_are() {
        let cache = Cache::default();
        cache.put(number("old", 1, "2026-01-01T00:00:00Z"));
        cache.put(number("new", 2, "2026-01-03T00:00:00Z"));
        cache.put(number("between", 3, "2026-01-02T00:00:00Z"));
        assert_eq!(names(&cache, 2, 0), (vec!["new".to_owned(), "between".to_owned()], 3));
        assert_eq!(names(&cache, 2, 2), (vec!["old".to_owned()], 3));
        assert_eq!(cache.page("globex", 9, 0).1, 0);
    }

    #[test]
    fn what_a_watch_brings_late_does_not_undo_what_was_written() {
        let cache = Cache::default();
        cache.put(number("main", 7, "2026-01-01T00:00:00Z"));
        let key = ObjectKey::new("acme", "main");
        cache.hear(Delta::Put(key.clone(), number("main", 6, "2026-01-01T00:00:00Z")));
        assert_eq!(cache.get("acme", "main").unwrap().version(), 7);
        cache.hear(Delta::Put(key.clone(), number("main", 8, "2026-01-01T00:00:00Z")));
        assert_eq!(cache.get("acme", "main").unwrap().version(), 8);
        cache.hear(Delta::Gone(key));
        assert_eq!(names(&cache, 9, 0).1, 0);
    }

    #[test]
    fn a_list_replaces_everything() {
        let cache = Cache::default();
        cache.put(number("gone", 1, "2026-01-01T00:00:00Z"));
        assert!(!cache.is_listed());
        let listed = number("here", 2, "2026-01-01T00:00:00Z");
        cache.hear(Delta::Replace([(listed.key(), listed)].into_iter().collect()));
        assert!(cache.is_listed());
        assert_eq!(names(&cache, 9, 0).0, ["here"]);
    }
}
