//! Since which table generation each object is in the tables as it is now: what `Programmed` is measured against. Pure.
//!
//! Promise: `Programmed=True` means that every ready pod of every gateway concerned holds a table that was compiled
//! from the object's present generation and from present findings about what it names. So an object whose missing
//! reference has just been found is not `Ready` before the gateways know.

use std::collections::{BTreeMap, BTreeSet};

use crate::resources::conditions::{ConditionStatus, reason};
use crate::routing::compile::{Finding, ObjectRef, Verdict};
use crate::routing::table::ObjectKey;

use super::acknowledge::{Progress, Roll};

/// For each object, the first table generation of each gateway that holds it as it is now.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<ObjectRef, Entry>,
}

#[derive(Debug)]
struct Entry {
    generation: i64,
    accepted: Finding,
    resolved_refs: Finding,
    since: BTreeMap<ObjectKey, i64>,
}

impl Entry {
    fn speaks_of(&self, verdict: &Verdict) -> bool {
        self.generation == verdict.generation
            && self.accepted == verdict.accepted
            && self.resolved_refs == verdict.resolved_refs
    }
}

impl Ledger {
    /// Notes that table `generation` of `gateway` is published and was compiled together with `verdicts`. An object for
    /// which `proven` (its status says already that the gateways hold it) is not asked of them again: tables only go
    /// forward. Returns the objects for which this is news.
    pub fn record(
        &mut self,
        gateway: &ObjectKey,
        generation: i64,
        verdicts: &BTreeMap<ObjectRef, Verdict>,
        proven: impl Fn(&ObjectRef, &Verdict) -> bool,
    ) -> Vec<ObjectRef> {
        let mut news = Vec::new();
        for (object, verdict) in verdicts {
            if !verdict.gateways.contains(gateway) {
                if let Some(entry) = self.entries.get_mut(object) {
                    entry.since.remove(gateway);
                }
                continue;
            }
            match self.entries.get_mut(object) {
                Some(entry) if entry.speaks_of(verdict) => {
                    if !entry.since.contains_key(gateway) {
                        entry.since.insert(gateway.clone(), generation);
                        news.push(object.clone());
                    }
                }
                known => {
                    news.push(object.clone());
                    let since = if known.is_none() && proven(object, verdict) { 0 } else { generation };
                    let entry = Entry {
                        generation: verdict.generation,
                        accepted: verdict.accepted.clone(),
                        resolved_refs: verdict.resolved_refs.clone(),
                        since: BTreeMap::from([(gateway.clone(), since)]),
                    };
                    self.entries.insert(object.clone(), entry);
                }
            }
        }
        self.entries.retain(|object, _| verdicts.contains_key(object));
        news
    }

    /// The objects for which it makes a difference that a gateway's roll changed from `before` to `after`.
    pub fn affected(&self, gateway: &ObjectKey, before: &Roll, after: &Roll) -> Vec<ObjectRef> {
        let mut known: BTreeMap<i64, bool> = BTreeMap::new();
        let mut differs = |since: i64| {
            *known.entry(since).or_insert_with(|| before.progress(since) != after.progress(since))
        };
        let concerned =
            self.entries.iter().filter_map(|(object, entry)| Some((object, *entry.since.get(gateway)?)));
        concerned.filter(|(_, since)| differs(*since)).map(|(object, _)| object.clone()).collect()
    }

    /// Forgets everything: another replica may publish from now on.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The table generation of `gateway` since which the object is in it as `verdict` says; `None` until that is published.
    fn since(&self, object: &ObjectRef, verdict: &Verdict, gateway: &ObjectKey) -> Option<i64> {
        self.entries.get(object).filter(|entry| entry.speaks_of(verdict))?.since.get(gateway).copied()
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
            return not_yet(
                verdict.accepted.reason,
                "No gateway is told of it, because it is not accepted.".to_owned(),
            );
        }
        if verdict.gateways.is_empty() {
            return not_yet(
                reason::NOT_USED,
                "No phone number leads to it, so no gateway needs it.".to_owned(),
            );
        }
        let waiting = |gateway: &ObjectKey| {
            let message = format!(
                "Gateway {gateway} does not hold it yet; `kubectl -n {} get routingtable {} -o yaml` shows the pods that lag.",
                gateway.namespace, gateway.name
            );
            Some(not_yet(reason::PENDING, message))
        };
        let findings = verdict.gateways.iter().filter_map(|gateway| {
            let Some(since) = self.since(object, verdict, gateway) else {
                return hindrance(gateway).or_else(|| waiting(gateway));
            };
            match rolls(gateway).map_or(Progress::NoPods, |roll| roll.progress(since)) {
                Progress::Held => None,
                Progress::Waiting => waiting(gateway),
                Progress::NoPods => Some(not_yet(
                    reason::NO_GATEWAYS,
                    format!(
                        "No pod of gateway {gateway} is ready; `kubectl -n {} get pods` shows why.",
                        gateway.namespace
                    ),
                )),
                Progress::Rejected { pod, reason: why } => Some(not_yet(
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

fn not_yet(reason: &'static str, message: String) -> Finding {
    Finding { status: ConditionStatus::False, reason, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::watch::{LeaseFacts, PodFacts};
    use crate::routing::ack::{Acknowledgement, Held};
    use crate::routing::compile::{Effective, Kind};

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
        };
        let table = Some(Held { generation, hash: String::new() });
        let said = Acknowledgement { table, ..Acknowledgement::default() };
        let lease = LeaseFacts { holder: "1".to_owned(), gateway: "default".to_owned(), said };
        let key = ObjectKey::new("vd", "pod");
        Roll::call(&gateway(), &BTreeMap::from([(key.clone(), pod)]), &BTreeMap::from([(key, lease)]))
    }

    fn record(ledger: &mut Ledger, generation: i64, verdict: &Verdict) -> usize {
        let verdicts = BTreeMap::from([(number(), verdict.clone())]);
        ledger.record(&gateway(), generation, &verdicts, |_, _| false).len()
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
        let verdicts = BTreeMap::from([(number(), verdict(1))]);
        ledger.record(&gateway(), 9, &verdicts, |_, _| true);
        assert_eq!(programmed(&ledger, &verdict(1), &at(8)), reason::PROGRAMMED);
    }

    #[test]
    fn what_keeps_a_table_from_being_published_is_said() {
        let ledger = Ledger::default();
        let hindrance = not_yet(reason::TOO_LARGE, "too large".to_owned());
        let found = ledger.programmed(&number(), &verdict(1), |_| None, |_| Some(hindrance.clone()));
        assert_eq!(found.reason, reason::TOO_LARGE);
    }
}
