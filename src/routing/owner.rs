//! Which pod of a gateway keeps a trunk: probes it, registers at it. Pure.
//!
//! Rendezvous hashing: every pod finds the same owner by itself, and when a pod comes or goes only the trunks move that it
//! takes or had.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::table::ObjectKey;

/// The owner of a trunk among the pods with these instance ids; `None` among none.
pub fn owner(trunk: &ObjectKey, pods: impl IntoIterator<Item = u32>) -> Option<u32> {
    pods.into_iter().max_by_key(|pod| {
        let mut hasher = SipHasher24::new();
        hasher.write(trunk.namespace.as_bytes());
        hasher.write_u8(b'/');
        hasher.write(trunk.name.as_bytes());
        hasher.write_u32(*pod);
        // Two pods that score alike still have one order.
        (hasher.finish(), *pod)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn owners(pods: &[u32]) -> BTreeMap<String, u32> {
        let names = (0..1000).map(|number| format!("trunk-{number}"));
        names
            .map(|name| (name.clone(), owner(&ObjectKey::new("acme", name), pods.iter().copied()).unwrap()))
            .collect()
    }

    #[test]
    fn the_order_in_which_pods_are_known_makes_no_difference() {
        assert_eq!(owners(&[1, 2, 3]), owners(&[3, 1, 2]));
        assert_eq!(owner(&ObjectKey::new("acme", "pbx"), []), None);
    }

    #[test]
    fn only_the_trunks_of_a_pod_that_goes_move_and_the_others_share_them() {
        let (three, two) = (owners(&[1, 2, 3]), owners(&[1, 2]));
        let moved: Vec<_> = three.iter().filter(|(name, pod)| two[*name] != **pod).collect();
        assert!(moved.iter().all(|(_, pod)| **pod == 3));
        assert!((250..420).contains(&moved.len()), "{}", moved.len());
        let to_first = moved.iter().filter(|(name, _)| two[*name] == 1).count();
        assert!((moved.len() / 3..moved.len() * 2 / 3).contains(&to_first), "{to_first}");
    }
}
