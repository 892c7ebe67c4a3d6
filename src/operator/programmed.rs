//! Since which table generation each object is in the tables as it is now: what `Programmed` is measured against. Pure.
//!
//! Promise: `Programmed=True` means that every ready pod of every gateway concerned holds a table that was compiled
//! from the object's present generation and from present findings about what it names. So an object whose missing
//! reference has just been found is not `Ready` before the gateways know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::resources::conditions::{ConditionStatus, reason};
use crate::routing::compile::{Finding, Kind, ObjectRef, Verdict};
use crate::routing::table::ObjectKey;

use super::acknowledge::{Progress, Roll};

/// For each object, the first table generation of each gateway that holds it as it is now.
///
/// One changed object costs no look at the others.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<Arc<ObjectRef>, Entry>,
    /// The same by gateway and generation.
    since: BTreeMap<Arc<ObjectKey>, BTreeSet<(i64, Arc<ObjectRef>)>>,
    /// For each gateway, the objects whose verdict is newer than its published table.
    unrecorded: BTreeMap<ObjectKey, BTreeSet<ObjectRef>>,
}

/// What [`Ledger::record`] has changed.
#[derive(Debug, Default)]
pub struct Recorded {
    /// The objects for which it is news.
    pub news: Vec<ObjectRef>,
    /// Whether there are others, of which nothing can be said before the head is sealed.
    pub wants_seal: bool,
}

#[derive(Debug)]
struct Entry {
    verdict: Arc<Verdict>,
    since: Vec<(Arc<ObjectKey>, i64)>,
}

impl Entry {
    fn speaks_of(&self, verdict: &Verdict) -> bool {
        self.verdict.generation == verdict.generation
            && self.verdict.accepted == verdict.accepted
            && self.verdict.resolved_refs == verdict.resolved_refs
    }

    fn since(&self, gateway: &ObjectKey) -> Option<i64> {
        self.since.iter().find(|(known, _)| **known == *gateway).map(|(_, since)| *since)
    }
}

impl Ledger {
    /// There is a new verdict about an object: the next table that is recorded for a gateway of it is the first that was
    /// compiled together with the verdict.
    pub fn judged(&mut self, object: &ObjectRef, verdict: &Verdict) {
        if let Some((object, mut entry)) = self.entries.remove_entry(object) {
            let (kept, left) =
                entry.since.into_iter().partition(|(gateway, _)| verdict.gateways.contains(&**gateway));
            entry.since = kept;
            self.drop_since(&object, left);
            self.entries.insert(object, entry);
        }
        for gateway in &verdict.gateways {
            match self.unrecorded.get_mut(gateway) {
                Some(objects) => objects.insert(object.clone()),
                None => self.unrecorded.insert(gateway.clone(), BTreeSet::from([object.clone()])).is_none(),
            };
        }
    }

    /// The object is gone.
    pub fn forget(&mut self, object: &ObjectRef) {
        if let Some((object, entry)) = self.entries.remove_entry(object) {
            self.drop_since(&object, entry.since);
        }
    }

    /// Notes that table `generation` of `gateway` is published and was compiled together with `verdicts`, which all were
    /// given to [`Self::judged`]. An object for which `proven` (its status says already that the gateways hold it) is not
    /// asked of them again: tables only go forward. Of others nothing new can be said before the head is `sealed`.
    pub fn record(
        &mut self,
        gateway: &ObjectKey,
        generation: i64,
        sealed: bool,
        verdicts: &BTreeMap<ObjectRef, Arc<Verdict>>,
        proven: impl Fn(&ObjectRef, &Verdict) -> bool,
    ) -> Recorded {
        let mut recorded = Recorded::default();
        let mut waiting = BTreeSet::new();
        for object in self.unrecorded.remove(gateway).unwrap_or_default() {
            let Some(verdict) = verdicts.get(&object).filter(|verdict| verdict.gateways.contains(gateway))
            else {
                continue;
            };
            let known = self.entries.get(&object);
            let speaks = known.is_some_and(|entry| entry.speaks_of(verdict));
            if speaks && known.is_some_and(|entry| entry.since(gateway).is_some()) {
                continue;
            }
            let since = match known.is_none() && proven(&object, verdict) {
                true => 0,
                false if sealed => generation,
                false => {
                    waiting.insert(object);
                    continue;
                }
            };
            self.enter(&object, verdict, gateway, since, speaks);
            recorded.news.push(object);
        }
        if !waiting.is_empty() {
            recorded.wants_seal = true;
            self.unrecorded.insert(gateway.clone(), waiting);
        }
        recorded
    }

    /// The objects for which it makes a difference that a gateway's roll changed from `before` to `after`.
    pub fn affected(&self, gateway: &ObjectKey, before: &Roll, after: &Roll) -> Vec<ObjectRef> {
        let Some(held) = self.since.get(gateway) else { return Vec::new() };
        // Between two neighbouring generations that a roll speaks of, its progress is the same everywhere.
        let mut bounds: Vec<i64> =
            before.generations().chain(after.generations()).chain([i64::MAX]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let mut affected = Vec::new();
        let mut from = i64::MIN;
        for to in bounds {
            if before.progress(to) != after.progress(to) {
                let first = (from, Arc::new(least()));
                let concerned = held.range(first..).take_while(|(since, _)| *since <= to);
                affected.extend(concerned.map(|(_, object)| (**object).clone()));
            }
            from = to.saturating_add(1);
        }
        affected
    }

    /// Forgets everything: another replica may publish from now on.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn enter(
        &mut self,
        object: &ObjectRef,
        verdict: &Arc<Verdict>,
        gateway: &ObjectKey,
        since: i64,
        speaks: bool,
    ) {
        let (object, mut entry) = self.entries.remove_entry(object).unwrap_or_else(|| {
            (Arc::new(object.clone()), Entry { verdict: verdict.clone(), since: Vec::new() })
        });
        if !speaks {
            self.drop_since(&object, std::mem::take(&mut entry.since));
        }
        entry.verdict = verdict.clone();
        let gateway = match self.since.get_key_value(gateway) {
            Some((known, _)) => known.clone(),
            None => Arc::new(gateway.clone()),
        };
        self.since.entry(gateway.clone()).or_default().insert((since, object.clone()));
        entry.since.push((gateway, since));
        self.entries.insert(object, entry);
    }

    fn drop_since(&mut self, object: &Arc<ObjectRef>, since: Vec<(Arc<ObjectKey>, i64)>) {
        for (gateway, since) in since {
            if let Some(held) = self.since.get_mut(&gateway) {
                held.remove(&(since, object.clone()));
            }
        }
    }

    /// The table generation of `gateway` since which the object is in it as `verdict` says; `None` until that is published.
    fn since(&self, object: &ObjectRef, verdict: &Verdict, gateway: &ObjectKey) -> Option<i64> {
        self.entries.get(object).filter(|entry| entry.speaks_of(verdict))?.since(gateway)
    }

    /// The condition `Programmed` of an object. `hindrance` is what keeps a gateway's table from being published.
    pub fn programmed<'a>(
        &self,
        object: &ObjectRef,
        verdict: &Verdict,
        rolls: impl Fn(&ObjectKey) -> Option<&'a Roll>,
        hindrance: impl Fn(&ObjectKey) -> Option<Finding>,
    ) -> Finding {
        if verdict.accepted.status != ConditionStatus::True {
            return Finding::not_yet(
                verdict.accepted.reason,
                "No gateway is told of it, because it is not accepted.".to_owned(),
            );
        }
        if verdict.gateways.is_empty() {
            return Finding::not_yet(
                reason::NOT_USED,
                "No phone number leads to it, so no gateway needs it.".to_owned(),
            );
        }
        let waiting = |gateway: &ObjectKey| {
            let message = format!(
                "Gateway {gateway} does not hold it yet; `kubectl -n {} get routingtable {} -o yaml` shows the pods that lag.",
                gateway.namespace, gateway.name
            );
            Some(Finding::not_yet(reason::PENDING, message))
        };
        let findings = verdict.gateways.iter().filter_map(|gateway| {
            let Some(since) = self.since(object, verdict, gateway) else {
                return hindrance(gateway).or_else(|| waiting(gateway));
            };
            match rolls(gateway).map_or(Progress::NoPods, |roll| roll.progress(since)) {
                Progress::Held => None,
                Progress::Waiting => waiting(gateway),
                Progress::NoPods => Some(Finding::not_yet(
                    reason::NO_GATEWAYS,
                    format!(
                        "No pod of gateway {gateway} is ready; `kubectl -n {} get pods` shows why.",
                        gateway.namespace
                    ),
                )),
                Progress::Rejected { pod, reason: why } => Some(Finding::not_yet(
                    reason::REJECTED,
                    format!("Pod {pod} of gateway {gateway} refused the table and keeps the last one: {why}"),
                )),
            }
        });
        // What a person has to act on comes before what passes by itself.
        findings.min_by_key(|finding| finding.reason == reason::PENDING).unwrap_or_else(|| {
            let gateways: BTreeSet<String> = verdict.gateways.iter().map(ToString::to_string).collect();
            let named = gateways.into_iter().collect::<Vec<_>>().join(", ");
            Finding {
                status: ConditionStatus::True,
                reason: reason::PROGRAMMED,
                message: format!("Every ready pod of gateway {named} holds it."),
            }
        })
    }
}

/// Before every object.
fn least() -> ObjectRef {
    ObjectRef { kind: Kind::Assistant, key: ObjectKey::new("", "") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::watch::{LeaseFacts, PodFacts};
    use crate::routing::ack::{Acknowledgement, Held};
    use crate::routing::compile::Effective;

    fn gateway() -> ObjectKey {
        ObjectKey::new("vd", "default")
    }

    fn number() -> ObjectRef {
        ObjectRef { kind: Kind::PhoneNumber, key: ObjectKey::new("a", "main") }
    }

    fn holds() -> Finding {
        Finding { status: ConditionStatus::True, reason: reason::ACCEPTED, message: String::new() }
    }

    fn verdict(generation: i64) -> Verdict {
        Verdict {
            generation,
            accepted: holds(),
            resolved_refs: holds(),
            gateways: BTreeSet::from([gateway()]),
            effective: Effective::SipGateway,
        }
    }

    /// A roll with one ready pod at a table generation.
    fn at(generation: i64) -> Roll {
        let pod = PodFacts {
            gateway: "default".to_owned(),
            uid: "1".to_owned(),
            ready: true,
            terminating: false,
            finished: false,
            host_ip: None,
            unschedulable: None,
            deletion_cost: None,
        };
        let table = Some(Held { generation, hash: String::new() });
        let said = Acknowledgement { table, ..Acknowledgement::default() };
        let lease = LeaseFacts { holder: "1".to_owned(), gateway: "default".to_owned(), said };
        let key = ObjectKey::new("vd", "pod");
        Roll::call(&gateway(), &BTreeMap::from([(key.clone(), pod)]), &BTreeMap::from([(key, lease)]))
    }

    fn record(ledger: &mut Ledger, generation: i64, verdict: &Verdict) -> usize {
        let verdicts = BTreeMap::from([(number(), Arc::new(verdict.clone()))]);
        ledger.judged(&number(), verdict);
        ledger.record(&gateway(), generation, true, &verdicts, |_, _| false).news.len()
    }

    fn programmed(ledger: &Ledger, verdict: &Verdict, roll: &Roll) -> &'static str {
        ledger.programmed(&number(), verdict, |_| Some(roll), |_| None).reason
    }

    #[test]
    fn an_object_is_programmed_when_its_present_generation_is_held() {
        let mut ledger = Ledger::default();
        assert_eq!(programmed(&ledger, &verdict(1), &at(9)), reason::PENDING, "it isn't published");
        record(&mut ledger, 5, &verdict(1));
        assert_eq!(programmed(&ledger, &verdict(1), &at(4)), reason::PENDING);
        assert_eq!(programmed(&ledger, &verdict(1), &at(5)), reason::PROGRAMMED);
        assert_eq!(programmed(&ledger, &verdict(2), &at(5)), reason::PENDING, "the new spec isn't published");
        record(&mut ledger, 6, &verdict(2));
        assert_eq!(programmed(&ledger, &verdict(2), &at(5)), reason::PENDING);
        assert_eq!(programmed(&ledger, &verdict(2), &at(6)), reason::PROGRAMMED);
    }

    #[test]
    fn a_table_that_changes_because_of_another_object_asks_nothing_new() {
        let mut ledger = Ledger::default();
        assert_eq!(record(&mut ledger, 5, &verdict(1)), 1);
        assert_eq!(record(&mut ledger, 6, &verdict(1)), 0);
        assert_eq!(programmed(&ledger, &verdict(1), &at(5)), reason::PROGRAMMED);
        assert!(ledger.affected(&gateway(), &at(5), &at(6)).is_empty());
        assert_eq!(ledger.affected(&gateway(), &at(4), &at(5)), [number()]);
    }

    #[test]
    fn a_roll_that_moves_on_concerns_the_objects_in_between() {
        let mut ledger = Ledger::default();
        let line = |name: &str| ObjectRef { kind: Kind::PhoneNumber, key: ObjectKey::new("a", name) };
        for (generation, name) in [(3, "c"), (5, "e"), (6, "f"), (9, "i")] {
            let verdicts = BTreeMap::from([(line(name), Arc::new(verdict(1)))]);
            ledger.judged(&line(name), &verdict(1));
            ledger.record(&gateway(), generation, true, &verdicts, |_, _| false);
        }
        assert_eq!(ledger.affected(&gateway(), &at(4), &at(6)), [line("e"), line("f")]);
        assert_eq!(ledger.affected(&gateway(), &at(9), &at(10)), []);
        assert_eq!(
            ledger.affected(&gateway(), &Roll::default(), &at(6)).len(),
            4,
            "a first pod concerns all"
        );
        ledger.forget(&line("e"));
        assert_eq!(ledger.affected(&gateway(), &at(4), &at(6)), [line("f")]);
        ledger.judged(&line("f"), &Verdict { gateways: BTreeSet::new(), ..verdict(1) });
        assert_eq!(ledger.affected(&gateway(), &at(4), &at(6)), [], "it has left the table");
    }

    #[test]
    fn an_object_whose_reference_was_found_waits_for_the_table_that_knows_it() {
        let mut ledger = Ledger::default();
        let missing =
            Finding { status: ConditionStatus::False, reason: reason::REF_NOT_FOUND, message: String::new() };
        record(&mut ledger, 5, &Verdict { resolved_refs: missing, ..verdict(1) });
        assert_eq!(programmed(&ledger, &verdict(1), &at(5)), reason::PENDING);
        record(&mut ledger, 6, &verdict(1));
        assert_eq!(programmed(&ledger, &verdict(1), &at(6)), reason::PROGRAMMED);
    }

    #[test]
    fn a_new_leader_believes_what_a_status_has_proven() {
        let mut ledger = Ledger::default();
        let verdicts = BTreeMap::from([(number(), Arc::new(verdict(1)))]);
        ledger.judged(&number(), &verdict(1));
        let recorded = ledger.record(&gateway(), 9, false, &verdicts, |_, _| true);
        assert!(!recorded.wants_seal, "nothing new is said");
        assert_eq!(programmed(&ledger, &verdict(1), &at(8)), reason::PROGRAMMED);
    }

    #[test]
    fn nothing_new_is_said_before_the_head_is_sealed() {
        let mut ledger = Ledger::default();
        let verdicts = BTreeMap::from([(number(), Arc::new(verdict(1)))]);
        ledger.judged(&number(), &verdict(1));
        assert!(ledger.record(&gateway(), 9, false, &verdicts, |_, _| false).wants_seal);
        assert_eq!(programmed(&ledger, &verdict(1), &at(9)), reason::PENDING);
        assert!(!ledger.record(&gateway(), 10, true, &verdicts, |_, _| false).wants_seal);
        assert_eq!(programmed(&ledger, &verdict(1), &at(9)), reason::PENDING);
        assert_eq!(programmed(&ledger, &verdict(1), &at(10)), reason::PROGRAMMED);
    }

    #[test]
    fn what_keeps_a_table_from_being_published_is_said() {
        let ledger = Ledger::default();
        let hindrance = Finding::not_yet(reason::TOO_LARGE, "too large".to_owned());
        let found = ledger.programmed(&number(), &verdict(1), |_| None, |_| Some(hindrance.clone()));
        assert_eq!(found.reason, reason::TOO_LARGE);
    }
}
