//! Who holds which table: a gateway's pods and what their Leases say, as one roll. Pure.
//!
//! Only a pod that is ready counts: one that starts, fails or is gone never holds a status back, and a pod is ready only
//! with a table. A Lease counts only while its pod's uid is its holder.

use std::collections::{BTreeMap, BTreeSet};

use crate::routing::ack::{Acknowledgement, Held, TrunkReport};
use crate::routing::owner::owner;
use crate::routing::table::ObjectKey;

use super::scale::Load;
use super::watch::{LeaseFacts, PodFacts};

/// The pods of one gateway that have not ended, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roll {
    pods: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    ready: bool,
    terminating: bool,
    host_ip: Option<String>,
    unschedulable: Option<String>,
    deletion_cost: Option<String>,
    said: Option<Acknowledgement>,
}

impl Entry {
    fn held(&self) -> Option<i64> {
        self.said.as_ref().and_then(|said| said.table.as_ref()).map(|table| table.generation)
    }
}

/// How far a gateway's pods are with one table generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Every ready pod holds it, or a newer one.
    Held,
    /// No pod is ready.
    NoPods,
    /// A ready pod refused it.
    Rejected {
        /// The pod.
        pod: String,
        /// Why.
        reason: String,
    },
    /// A ready pod doesn't hold it yet.
    Waiting,
}

impl Roll {
    /// The roll of `gateway`.
    pub fn call(
        gateway: &ObjectKey,
        pods: &BTreeMap<ObjectKey, PodFacts>,
        leases: &BTreeMap<ObjectKey, LeaseFacts>,
    ) -> Self {
        let in_namespace = pods
            .range(ObjectKey::new(gateway.namespace.clone(), "")..)
            .take_while(|(key, _)| key.namespace == gateway.namespace);
        let pods =
            in_namespace.filter(|(_, pod)| pod.gateway == gateway.name && !pod.finished).map(|(key, pod)| {
                let lease =
                    leases.get(key).filter(|lease| lease.holder == pod.uid && lease.gateway == gateway.name);
                let entry = Entry {
                    ready: pod.ready,
                    terminating: pod.terminating,
                    host_ip: pod.host_ip.clone(),
                    unschedulable: pod.unschedulable.clone(),
                    deletion_cost: pod.deletion_cost.clone(),
                    said: lease.map(|lease| lease.said.clone()),
                };
                (key.name.clone(), entry)
            });
        Self { pods: pods.collect() }
    }

    fn ready(&self) -> impl Iterator<Item = (&String, &Entry)> + Clone {
        self.pods.iter().filter(|(_, pod)| pod.ready)
    }

    /// How far the pods are with `generation`.
    pub fn progress(&self, generation: i64) -> Progress {
        let mut behind =
            self.ready().filter(|(_, pod)| pod.held().is_none_or(|held| held < generation)).peekable();
        if self.ready().next().is_none() {
            return Progress::NoPods;
        }
        if behind.peek().is_none() {
            return Progress::Held;
        }
        behind
            .find_map(|(name, pod)| {
                let rejection = pod.said.as_ref()?.rejected.as_ref()?;
                (rejection.generation >= generation)
                    .then(|| Progress::Rejected { pod: name.clone(), reason: rejection.reason.clone() })
            })
            .unwrap_or(Progress::Waiting)
    }

    /// The generation that every ready pod holds; `None` without ready pods, 0 when one holds none.
    pub fn acknowledged(&self) -> Option<i64> {
        self.ready().map(|(_, pod)| pod.held().unwrap_or_default()).min()
    }

    /// The tables that pods hold, ready or not; each once.
    pub fn tables(&self) -> Vec<Held> {
        let mut tables = Vec::new();
        for table in self.pods.values().filter_map(|pod| pod.said.as_ref()?.table.as_ref()) {
            if !tables.contains(table) {
                tables.push(table.clone());
            }
        }
        tables
    }

    /// The generations that pods hold, ready or not.
    pub fn held(&self) -> impl Iterator<Item = i64> {
        self.pods.values().filter_map(Entry::held)
    }

    /// The generations that pods hold or have refused: where [`Self::progress`] may change.
    pub fn generations(&self) -> impl Iterator<Item = i64> {
        let said = self.pods.values().filter_map(|pod| pod.said.as_ref());
        let refused = said.filter_map(|said| said.rejected.as_ref()).map(|rejected| rejected.generation);
        self.held().chain(refused)
    }

    /// What is known of a trunk: what its owner found, or, until that is heard of, another pod that is ready.
    pub fn trunk(&self, trunk: &ObjectKey) -> Option<&TrunkReport> {
        let said = || self.ready().filter_map(|(_, pod)| pod.said.as_ref());
        let owner = owner(trunk, said().filter(|said| !said.draining).map(|said| said.instance));
        let mut reports = said().filter_map(|said| Some((said.instance, said.trunks.get(trunk)?)));
        let owners = reports.clone().find(|(instance, _)| Some(*instance) == owner);
        owners.or_else(|| reports.next()).map(|(_, report)| report)
    }

    /// The trunks of which something else is known than `before`.
    pub fn other_trunks(&self, before: &Self) -> BTreeSet<ObjectKey> {
        let named = |roll: &Self| -> BTreeSet<ObjectKey> {
            let said = roll.pods.values().filter_map(|pod| pod.said.as_ref());
            said.flat_map(|said| said.trunks.keys().cloned()).collect()
        };
        let mut trunks = named(self);
        trunks.extend(named(before));
        trunks.retain(|trunk| self.trunk(trunk) != before.trunk(trunk));
        trunks
    }

    /// Whether every pod that has not ended holds `generation` or newer.
    pub fn all_past(&self, generation: i64) -> bool {
        self.pods.values().all(|pod| pod.held().is_some_and(|held| held >= generation))
    }

    /// `held/ready` for `generation`.
    pub fn summary(&self, generation: i64) -> String {
        let held = self.ready().filter(|(_, pod)| pod.held().is_some_and(|held| held >= generation)).count();
        format!("{held}/{}", self.ready().count())
    }

    /// Ready pods that don't hold `generation`, with the reason.
    pub fn lagging(&self, generation: i64) -> BTreeMap<String, String> {
        let behind = self.ready().filter(|(_, pod)| pod.held().is_none_or(|held| held < generation));
        behind.map(|(name, pod)| (name.clone(), why_behind(pod, generation))).collect()
    }

    /// Ready pods that take new calls.
    pub fn serving(&self) -> i64 {
        count(self.ready().filter(|(_, pod)| !pod.terminating))
    }

    /// Calls that the pods hold.
    pub fn calls(&self) -> i64 {
        self.pods.values().filter_map(|pod| pod.said.as_ref()).map(|said| i64::from(said.calls)).sum()
    }

    /// The pods that are not on their way out, and the calls that they hold.
    pub fn loads(&self) -> Vec<Load> {
        let leaves = |pod: &Entry| pod.terminating || pod.said.as_ref().is_some_and(|said| said.draining);
        let stays = self.pods.iter().filter(|(_, pod)| !leaves(pod));
        let load = |(name, pod): (&String, &Entry)| Load {
            pod: name.clone(),
            ready: pod.ready,
            calls: pod.said.as_ref().map(|said| said.calls),
            deletion_cost: pod.deletion_cost.clone(),
        };
        stays.map(load).collect()
    }

    /// Why no node takes a pod that waits for one, as the scheduler says.
    pub fn unschedulable(&self) -> Option<&str> {
        self.pods.values().find_map(|pod| pod.unschedulable.as_deref())
    }

    /// Addresses of the nodes on which pods take new calls.
    pub fn nodes(&self) -> Vec<String> {
        let serving = self.ready().filter(|(_, pod)| !pod.terminating);
        let mut nodes: Vec<_> = serving.filter_map(|(_, pod)| pod.host_ip.clone()).collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }
}

fn why_behind(pod: &Entry, generation: i64) -> String {
    let Some(said) = &pod.said else { return "has not acknowledged any table yet".to_owned() };
    let holds = match &said.table {
        Some(table) => format!("holds generation {}", table.generation),
        None => "holds no table".to_owned(),
    };
    match &said.rejected {
        Some(rejection) if rejection.generation >= generation => {
            format!("{holds}; refused generation {}: {}", rejection.generation, rejection.reason)
        }
        _ => holds,
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> i64 {
    i64::try_from(items.count()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::ack::Rejection;

    fn gateway() -> ObjectKey {
        ObjectKey::new("vd", "default")
    }

    fn pod(uid: &str, ready: bool) -> PodFacts {
        PodFacts {
            gateway: "default".to_owned(),
            uid: uid.to_owned(),
            ready,
            terminating: false,
            finished: false,
            host_ip: None,
            unschedulable: None,
            deletion_cost: None,
        }
    }

    fn lease(uid: &str, generation: i64, rejected: Option<i64>) -> LeaseFacts {
        let table = Some(Held { generation, hash: String::new() });
        let rejected =
            rejected.map(|generation| Rejection { generation, reason: "slice x is missing".to_owned() });
        LeaseFacts {
            holder: uid.to_owned(),
            gateway: "default".to_owned(),
            said: Acknowledgement { table, rejected, calls: 2, ..Acknowledgement::default() },
        }
    }

    fn roll(entries: &[(&str, PodFacts, Option<LeaseFacts>)]) -> Roll {
        let key = |name: &str| ObjectKey::new("vd", name);
        let pods = entries.iter().map(|(name, pod, _)| (key(name), pod.clone())).collect();
        let leases =
            entries.iter().filter_map(|(name, _, lease)| Some((key(name), lease.clone()?))).collect();
        Roll::call(&gateway(), &pods, &leases)
    }

    #[test]
    fn every_ready_pod_has_to_hold_the_generation() {
        let one_behind = roll(&[
            ("a", pod("1", true), Some(lease("1", 7, None))),
            ("b", pod("2", true), Some(lease("2", 6, None))),
        ]);
        assert_eq!(one_behind.progress(6), Progress::Held);
        assert_eq!(one_behind.progress(7), Progress::Waiting);
        assert_eq!(one_behind.acknowledged(), Some(6));
        assert_eq!(one_behind.summary(7), "1/2");
        assert_eq!(one_behind.lagging(7)["b"], "holds generation 6");
        assert_eq!(one_behind.calls(), 4);
    }

    #[test]
    fn a_pod_that_is_not_ready_holds_nothing_back() {
        let starting =
            roll(&[("a", pod("1", true), Some(lease("1", 7, None))), ("b", pod("2", false), None)]);
        assert_eq!(starting.progress(7), Progress::Held);
        assert!(!starting.all_past(7), "but what it may still ask for is kept");
    }

    #[test]
    fn the_lease_of_an_earlier_pod_of_the_same_name_does_not_count() {
        let stale = roll(&[("a", pod("2", true), Some(lease("1", 7, None)))]);
        assert_eq!(stale.progress(7), Progress::Waiting);
        assert_eq!(stale.lagging(7)["a"], "has not acknowledged any table yet");
    }

    #[test]
    fn a_refusal_is_shown_with_the_pods_name_and_reason() {
        let refused = roll(&[("a", pod("1", true), Some(lease("1", 7, Some(8))))]);
        let expected = Progress::Rejected { pod: "a".to_owned(), reason: "slice x is missing".to_owned() };
        assert_eq!(refused.progress(8), expected);
        assert_eq!(refused.progress(7), Progress::Held);
        assert_eq!(refused.lagging(8)["a"], "holds generation 7; refused generation 8: slice x is missing");
    }

    #[test]
    fn a_pod_on_its_way_out_and_its_calls_are_no_load() {
        let mut draining = lease("2", 7, None);
        draining.said.draining = true;
        let leaving = PodFacts { terminating: true, ..pod("3", true) };
        let roll = roll(&[
            ("a", pod("1", true), Some(lease("1", 7, None))),
            ("b", pod("2", true), Some(draining)),
            ("c", leaving, Some(lease("3", 7, None))),
            ("d", pod("4", true), None),
        ]);
        let loads = roll.loads().into_iter().map(|load| (load.pod, load.calls));
        assert_eq!(loads.collect::<Vec<_>>(), [("a".to_owned(), Some(2)), ("d".to_owned(), None)]);
    }

    #[test]
    fn without_a_ready_pod_nothing_is_held() {
        assert_eq!(roll(&[]).progress(0), Progress::NoPods);
        assert_eq!(roll(&[("a", pod("1", false), Some(lease("1", 7, None)))]).progress(7), Progress::NoPods);
    }
}
