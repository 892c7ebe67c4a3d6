//! Worlds that are alike are made one, so that there are fewer to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::resources::routing_table::RoutingTableSpec;
use crate::routing::ack::Held;
use crate::routing::protocol::publisher::{HeadWrite, VaultWrite};
use crate::routing::protocol::{Known, Version};

use super::{World, Write};

impl World {
    /// The same world for all that are alike.
    pub(super) fn made_alike(mut self) -> Self {
        if !self.leader.runs {
            self.leader.drafts.clear();
        }
        self.renumber();
        self.shift();
        let sign = |i: usize| {
            let mut hasher = SipHasher13::new();
            (&self.gateways[i], &self.leases[i]).hash(&mut hasher);
            self.claim.as_ref().map(|claim| claim.pods[i]).hash(&mut hasher);
            hasher.finish()
        };
        // What is under way of claims and acknowledgements speaks of the gateways by their places.
        let placed = |write: &Write| matches!(write, Write::Claim(..) | Write::Lease(..));
        let placed = self.strays.iter().any(placed);
        if !placed && sign(0) > sign(1) {
            self.gateways.swap(0, 1);
            self.leases.swap(0, 1);
            if let Some(claim) = &mut self.claim {
                claim.pods.swap(0, 1);
            }
        }
        self
    }

    /// Begins generations at 1, so that worlds which differ only in how many there were are one.
    fn shift(&mut self) {
        if self.claim.as_ref().is_some_and(|claim| claim.wish == self.leader.wish) {
            self.leader.since = self.leader.since.map(|_| 0);
        }
        let mut specs: Vec<&mut Arc<RoutingTableSpec>> = Vec::new();
        let mut numbers: Vec<&mut i64> = vec![&mut self.newest];
        let mut tables: Vec<&mut Held> =
            self.leases.iter_mut().filter_map(|lease| lease.held.as_mut()).collect();
        specs.extend(self.head.iter_mut().map(|head| &mut head.spec));
        for gateway in &mut self.gateways {
            tables.extend(gateway.held.as_mut());
            specs.extend(gateway.fetch.as_mut());
        }
        for write in &mut self.strays {
            match write {
                Write::Head(write) => numbers.push(&mut write.spec.generation),
                Write::Lease(_, lease, over) => tables.extend(lease.held.iter_mut().chain(&mut over.held)),
                _ => {}
            }
        }
        numbers.extend(self.leader.since.as_mut());
        let publisher = &mut self.leader.publisher;
        numbers.push(&mut publisher.newest);
        if let Known::Present(head) = &mut publisher.head {
            specs.push(&mut head.spec);
        }
        specs.extend(publisher.history.values_mut());
        if let Some(run) = &mut publisher.run {
            tables.extend(&mut run.offer.held);
        }
        numbers.extend(tables.into_iter().map(|held| &mut held.generation));
        let least = numbers.iter().map(|number| **number).chain(specs.iter().map(|spec| spec.generation));
        let surplus = least.filter(|generation| *generation > 0).min().map_or(0, |least| least - 1);
        if surplus == 0 {
            return;
        }
        numbers.into_iter().filter(|number| **number > 0).for_each(|number| *number -= surplus);
        specs.into_iter().for_each(|spec| Arc::make_mut(spec).generation -= surplus);
        let history = std::mem::take(&mut self.leader.publisher.history);
        self.leader.publisher.history = history.into_values().map(|spec| (spec.generation, spec)).collect();
    }

    /// Gives versions of the same order the same numbers, so that worlds which differ only in how often something was
    /// written are one.
    fn renumber(&mut self) {
        let publisher = &mut self.leader.publisher;
        let known = publisher.vault.present().map(|vault| vault.version.resource_version.clone());
        publisher.vault_ours.retain(|version| Some(version) == known.as_ref());
        let mut head: Vec<&mut Version> = self.head.iter_mut().map(|head| &mut head.version).collect();
        let mut vault: Vec<&mut Version> = self.vault.iter_mut().map(|vault| &mut vault.version).collect();
        let mut slices: BTreeMap<&String, Vec<&mut Version>> = BTreeMap::new();
        for (name, version) in &mut self.slices {
            slices.entry(name).or_default().push(version);
        }
        if let Known::Present(known) = &mut publisher.head {
            head.push(&mut known.version);
        }
        if let Known::Present(known) = &mut publisher.vault {
            vault.push(&mut known.version);
        }
        for write in &mut self.strays {
            match write {
                Write::Head(HeadWrite { on: Some(version), .. }) => head.push(version),
                Write::Vault(VaultWrite { on: Some(version), .. }) => vault.push(version),
                Write::Delete(name, version) => slices.entry(name).or_default().push(version),
                _ => {}
            }
        }
        let known = slices.into_iter().map(|(name, versions)| (name.clone(), versions));
        let known = known.chain([("head".to_owned(), head), ("vault".to_owned(), vault)]);
        self.writes = known.map(|(object, versions)| (object, ranked(versions))).collect();
        if let Some(version) = publisher.vault.present().map(|vault| &vault.version.resource_version) {
            publisher.vault_ours.iter_mut().for_each(|ours| ours.clone_from(version));
        }
    }
}

/// Replaces numbers by their ranks; returns the highest.
fn ranked(mut versions: Vec<&mut Version>) -> u8 {
    let number = |text: &String| text.parse::<u8>().unwrap();
    let numbers =
        versions.iter().flat_map(|version| [number(&version.uid), number(&version.resource_version)]);
    let order: BTreeSet<u8> = numbers.collect();
    let rank = |text: &String| (order.range(..=number(text)).count()).to_string();
    for version in &mut versions {
        **version = Version { uid: rank(&version.uid), resource_version: rank(&version.resource_version) };
    }
    u8::try_from(order.len()).unwrap()
}
