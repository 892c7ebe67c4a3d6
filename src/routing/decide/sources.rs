//! Source address → the trunks that admit it.
//!
//! One hash look-up for each prefix length that occurs (a handful in practice), whatever the number of trunks.

use std::borrow::Cow;
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
    trunks: Vec<(Arc<ObjectKey>, Arc<TrunkEntry>)>,
    /// Positions in `trunks`, by network without host bits; ascending, each once.
    networks: HashMap<IpNet, Vec<usize>, BuildHasherDefault<SipHasher13>>,
    /// Prefix lengths that occur, for IPv4 and IPv6.
    lengths: [BTreeSet<u8>; 2],
    /// Trunks that are recognised by digest, wherever they call from; in the order of their keys.
    anywhere: Vec<(Arc<ObjectKey>, Arc<TrunkEntry>)>,
}

impl Sources {
    pub(super) fn new(all: &Entries<ObjectKey, TrunkEntry>) -> Self {
        let trunks: Vec<_> = all
            .iter()
            .filter(|(_, trunk)| !trunk.allowed_sources.is_empty())
            .map(|(key, trunk)| (Arc::new(key.clone()), trunk.clone()))
            .collect();
        let mut networks: HashMap<IpNet, Vec<usize>, _> = HashMap::default();
        let mut lengths = [BTreeSet::new(), BTreeSet::new()];
        for (position, (_, trunk)) in trunks.iter().enumerate() {
            for network in &trunk.allowed_sources {
                let network = network.trunc();
                lengths[family(network.addr())].insert(network.prefix_len());
                let positions: &mut Vec<usize> = networks.entry(network).or_default();
                if positions.last() != Some(&position) {
                    positions.push(position);
                }
            }
        }
        let anywhere = |trunk: &TrunkEntry| trunk.authenticates && trunk.allowed_sources.is_empty();
        let anywhere = all
            .iter()
            .filter(|(_, trunk)| anywhere(trunk))
            .map(|(key, trunk)| (Arc::new(key.clone()), trunk.clone()))
            .collect();
        Self { trunks, networks, lengths, anywhere }
    }

    /// The trunks that are recognised by digest alone.
    pub(super) fn anywhere(&self) -> impl Iterator<Item = (&Arc<ObjectKey>, &TrunkEntry)> {
        self.anywhere.iter().map(|(key, trunk)| (key, trunk.as_ref()))
    }

    /// The trunks that admit `source`, in the order of their keys, each once.
    pub(super) fn admitting(&self, source: IpAddr) -> impl Iterator<Item = (&Arc<ObjectKey>, &TrunkEntry)> {
        let source = source.to_canonical();
        let mut lists = self.lengths[family(source)]
            .iter()
            .filter_map(move |&length| IpNet::new(source, length).ok())
            .filter_map(|network| self.networks.get(&network.trunc()));
        let first = lists.next().map(Vec::as_slice).unwrap_or_default();
        let positions = match lists.next() {
            // Nearly always: nothing to bring in order, and nothing to allocate.
            None => Cow::Borrowed(first),
            Some(second) => {
                let mut all: Vec<usize> =
                    first.iter().chain(second).chain(lists.flatten()).copied().collect();
                all.sort_unstable();
                all.dedup();
                Cow::Owned(all)
            }
        };
        (0..positions.len()).map(move |at| {
            let (key, trunk) = &self.trunks[positions[at]];
            (key, trunk.as_ref())
        })
    }
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}
