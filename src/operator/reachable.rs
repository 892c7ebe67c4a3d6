//! The condition `Reachable` of a SipTrunk: what the pods that keep it have found. Pure.
//!
//! Promise: it speaks of the trunk as its spec says now. A report about another host, of a pod that isn't ready or of a Lease
//! that is gone counts for nothing; then it is `Unknown`, which holds nothing up.

use crate::resources::conditions::{ConditionStatus, reason};
use crate::routing::compile::{Finding, Verdict};
use crate::routing::table::ObjectKey;

use super::acknowledge::Roll;

/// The condition of the trunk `key`, which is to be found at `address`, by the rolls of the gateways that hold it.
pub fn reachable<'a>(
    key: &ObjectKey,
    address: &str,
    verdict: &Verdict,
    rolls: impl Fn(&ObjectKey) -> Option<&'a Roll>,
) -> Finding {
    let finding = |status, reason, message| Finding { status, reason, message };
    let findings = verdict.gateways.iter().map(|gateway| {
        let report = rolls(gateway).and_then(|roll| roll.trunk(key)).filter(|report| report.address == address);
        match report {
            Some(report) if report.reachable => {
                let message = format!("Gateway {gateway} reaches {address}: {}.", report.said);
                finding(ConditionStatus::True, reason::REACHABLE, message)
            }
            Some(report) => {
                let message = format!(
                    "Gateway {gateway} does not reach {address}: {}. Check host, port and transport, and that the peer \
                     answers requests from the gateway's addresses.",
                    report.said
                );
                finding(ConditionStatus::False, reason::UNREACHABLE, message)
            }
            None => {
                let message = format!("Gateway {gateway} has not found out yet whether {address} can be reached.");
                finding(ConditionStatus::Unknown, reason::PENDING, message)
            }
        }
    });
    // What a person has to act on comes first, then what isn't known.
    let worst = findings.min_by_key(|finding| match finding.status {
        ConditionStatus::False => 0,
        ConditionStatus::Unknown => 1,
        ConditionStatus::True => 2,
    });
    worst.unwrap_or_else(|| {
        let message = "No phone number leads to it, so no gateway asks it.".to_owned();
        finding(ConditionStatus::Unknown, reason::NOT_USED, message)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::operator::watch::{LeaseFacts, PodFacts};
    use crate::routing::ack::{Acknowledgement, TrunkReport};
    use crate::routing::compile::Effective;
    use crate::routing::owner::owner;

    const ADDRESS: &str = "sip:pbx over UDP";

    fn trunk() -> ObjectKey {
        ObjectKey::new("a", "pbx")
    }

    fn report(reachable: bool) -> TrunkReport {
        TrunkReport { reachable, said: "OPTIONS was answered 200 OK".into(), address: ADDRESS.into() }
    }

    /// A pod: whether it is ready, drains, and what it reports.
    type Pod = (bool, bool, Option<TrunkReport>);

    fn roll(gateway: &ObjectKey, pods: &[Pod]) -> Roll {
        let mut all = (BTreeMap::new(), BTreeMap::new());
        for (number, (ready, draining, report)) in (1u32..).zip(pods) {
            let pod = PodFacts {
                gateway: gateway.name.clone(),
                uid: number.to_string(),
                ready: *ready,
                terminating: false,
                finished: false,
                host_ip: None,
                unschedulable: None,
                deletion_cost: None,
            };
            let trunks = report.iter().map(|report| (trunk(), report.clone())).collect();
            let said = Acknowledgement {
                instance: number,
                draining: *draining,
                trunks,
                ..Acknowledgement::default()
            };
            let lease = LeaseFacts { holder: number.to_string(), gateway: gateway.name.clone(), said };
            let key = ObjectKey::new("vd", format!("pod-{number}"));
            all.0.insert(key.clone(), pod);
            all.1.insert(key, lease);
        }
        Roll::call(gateway, &all.0, &all.1)
    }

    fn judge(rolls: &[(&str, &[Pod])]) -> Finding {
        let rolls: BTreeMap<ObjectKey, Roll> = rolls
            .iter()
            .map(|(name, pods)| {
                let gateway = ObjectKey::new("vd", *name);
                (gateway.clone(), roll(&gateway, pods))
            })
            .collect();
        let holds =
            || Finding { status: ConditionStatus::True, reason: reason::ACCEPTED, message: String::new() };
        let verdict = Verdict {
            generation: 1,
            accepted: holds(),
            resolved_refs: holds(),
            gateways: rolls.keys().cloned().collect::<BTreeSet<_>>(),
            effective: Effective::SipGateway,
        };
        reachable(&trunk(), ADDRESS, &verdict, |gateway| rolls.get(gateway))
    }

    #[test]
    fn it_says_what_a_ready_pod_found_with_the_answer() {
        let found = judge(&[("one", &[(true, false, Some(report(true)))])]);
        assert_eq!((found.status, found.reason), (ConditionStatus::True, reason::REACHABLE));
        assert_eq!(found.message, "Gateway vd/one reaches sip:pbx over UDP: OPTIONS was answered 200 OK.");
        let found = judge(&[("one", &[(true, false, Some(report(false)))])]);
        assert_eq!((found.status, found.reason), (ConditionStatus::False, reason::UNREACHABLE));
    }

    #[test]
    fn what_nobody_vouches_for_is_unknown() {
        let elsewhere = TrunkReport { address: "sip:old over UDP".into(), ..report(true) };
        for pods in [
            &[][..],
            &[(true, false, None)],
            &[(false, false, Some(report(true)))],
            &[(true, false, Some(elsewhere))],
        ] {
            let found = judge(&[("one", pods)]);
            assert_eq!((found.status, found.reason), (ConditionStatus::Unknown, reason::PENDING));
        }
        assert_eq!(judge(&[]).reason, reason::NOT_USED);
    }

    #[test]
    fn one_gateway_that_does_not_reach_it_is_named() {
        let good = [(true, false, Some(report(true)))];
        let found = judge(&[("one", &good), ("two", &[(true, false, Some(report(false)))])]);
        assert_eq!(found.status, ConditionStatus::False);
        assert!(found.message.starts_with("Gateway vd/two does not reach"), "{}", found.message);
        assert_eq!(judge(&[("one", &good), ("two", &[])]).status, ConditionStatus::Unknown);
    }

    #[test]
    fn of_two_reports_the_owners_counts() {
        let mine = owner(&trunk(), [1, 2]).unwrap();
        let pods = [1, 2].map(|pod| (true, false, Some(report(pod == mine))));
        assert_eq!(judge(&[("one", &pods)]).status, ConditionStatus::True);
        let pods = [1, 2].map(|pod| (true, pod == mine, Some(report(pod == mine))));
        assert_eq!(judge(&[("one", &pods)]).status, ConditionStatus::False, "a pod that drains owns nothing");
    }
}
