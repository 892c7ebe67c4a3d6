//! Where else a trunk's call can be sent when its host doesn't take it.

use crate::routing::locate::choose;
use crate::routing::table::SipTarget;

/// Where else a call can be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failover {
    /// The trunk's other hosts that haven't been tried.
    pub elsewhere: Vec<Elsewhere>,
    /// Answers after which none of them is tried.
    pub final_codes: Vec<u16>,
}

/// One other host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The Request-URI and where it is sent.
    pub target: SipTarget,
    /// Lower is tried first.
    pub priority: u16,
    /// Share among equal priorities.
    pub weight: u16,
}

impl Failover {
    /// Whether a host that answered with `code` leaves it to others: 408 and 5xx speak of the host (RFC 3261 §21.5); every
    /// other refusal speaks of who was called, and would be the same elsewhere.
    pub fn after(&self, code: u16) -> bool {
        (code == 408 || (500..600).contains(&code)) && !self.final_codes.contains(&code)
    }

    /// Takes the host that is tried next: of the lowest priority, and among those by weight as for SRV records (RFC 2782).
    /// `dice` is a random number.
    pub fn take(&mut self, dice: u64) -> Option<SipTarget> {
        let shares = self.elsewhere.iter().map(|elsewhere| (elsewhere.priority, elsewhere.weight));
        let chosen = choose(shares, dice)?;
        Some(self.elsewhere.remove(chosen).target)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failover(hosts: &[(&str, u16, u16)]) -> Failover {
        let elsewhere = hosts.iter().map(|&(host, priority, weight)| Elsewhere {
            target: crate::routing::uri::parse_target(&format!("sip:{host}"), None).unwrap(),
            priority,
            weight,
        });
        Failover { elsewhere: elsewhere.collect(), final_codes: vec![486, 503] }
    }

    #[test]
    fn only_answers_that_speak_of_the_host_are_followed_by_another() {
        let failover = failover(&[]);
        for code in [408, 500, 502, 504, 599] {
            assert!(failover.after(code), "{code}");
        }
        for code in [302, 403, 404, 480, 486, 488, 503, 600, 603] {
            assert!(!failover.after(code), "{code}");
        }
    }

    proptest! {
        #[test]
        fn every_host_is_tried_once_in_the_order_of_priorities(
            hosts in prop::collection::vec((0..3u16, 0..3u16), 0..6), dice in any::<u64>()
        ) {
            let names: Vec<String> = (0..hosts.len()).map(|index| format!("h{index}")).collect();
            let named: Vec<_> = names.iter().zip(&hosts).map(|(name, &(p, w))| (name.as_str(), p, w)).collect();
            let mut failover = failover(&named);
            let tried: Vec<String> = std::iter::from_fn(|| failover.take(dice)).map(|target| target.host).collect();
            let priorities: Vec<u16> =
                tried.iter().map(|host| hosts[host[1..].parse::<usize>().unwrap()].0).collect();
            prop_assert!(priorities.is_sorted());
            let mut sorted = tried;
            sorted.sort();
            prop_assert_eq!(sorted, names);
        }
    }
}
