//! Source address → the trunks that admit it.
//!
//! One hash look-up for each prefix length that occurs (a handful in practice), whatever the number of trunks.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use siphasher::sip::SipHasher13;

use crate::routing::table::{Entries, ObjectKey, TrunkEntry};

/// Trunks by the networks they admit.
pub(super) struct Sources {
    /// In the order of their keys.
    trunks: Vec<(ObjectKey, Arc<TrunkEntry>)>,
    /// Positions in `trunks`, by network without host bits; ascending.
    networks: HashMap<IpNet, Vec<usize>, BuildHasherDefault<SipHasher13>>,
    /// Prefix lengths that occur, for IPv4 and IPv6.
    lengths: [BTreeSet<u8>; 2],
}

impl Sources {
    pub(super) fn new(trunks: &Entries<ObjectKey, TrunkEntry>) -> Self {
        let trunks: Vec<_> = trunks
            .iter()
            .filter(|(_, trunk)| !trunk.allowed_sources.is_empty())
            .map(|(key, trunk)| (key.clone(), trunk.clone()))
            .collect();
        let mut networks: HashMap<IpNet, Vec<usize>, _> = HashMap::default();
        let mut lengths = [BTreeSet::new(), BTreeSet::new()];
        for (position, (_, trunk)) in trunks.iter().enumerate() {
            for network in &trunk.allowed_sources {
                let network = network.trunc();
                lengths[family(network.addr())].insert(network.prefix_len());
                networks.entry(network).or_default().push(position);
            }
        }
        Self { trunks, networks, lengths }
    }

    /// The trunks that admit `source`, in the order of their keys, each once.
    pub(super) fn admitting(&self, source: IpAddr) -> impl Iterator<Item = (&ObjectKey, &TrunkEntry)> {
        let source = source.to_canonical();
        let mut positions: Vec<usize> = self.lengths[family(source)]
            .iter()
            .filter_map(|&length| IpNet::new(source, length).ok())
            .filter_map(|network| self.networks.get(&network.trunc()))
            .flatten()
            .copied()
            .collect();
        positions.sort_unstable();
        positions.dedup();
        positions.into_iter().map(|position| {
            let (key, trunk) = &self.trunks[position];
            (key, trunk.as_ref())
        })
    }
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}
