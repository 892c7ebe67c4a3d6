//! The leader: the real [`Publisher`], and the little that the operator adds to it.

use std::collections::BTreeSet;

use crate::routing::ack::Held;
use crate::routing::protocol::publisher::{Offer, Publisher, Step, VaultWrite};
use crate::routing::protocol::{Version, Written};

use super::wishes::{can_read, content, layout};
use super::{Action, Claim, Lease, World, Write};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    pub(super) wish: u8,
    pub(super) publisher: Publisher,
    pub(super) runs: bool,
    pub(super) due: bool,
    pub(super) seal: bool,
    /// Since which generation the wish is in the table.
    pub(super) since: Option<i64>,
    /// The collector has a reason to look: a run has ended, a slice was written, pods or what they say have changed. It
    /// looks until it finds nothing.
    pub(super) looks: bool,
    /// What it is about to write.
    pub(super) next: Option<Write>,
    /// The slices that it could write in this run.
    pub(super) drafts: BTreeSet<String>,
    /// Whether it knows the rows of `b`, from when the head said what they are.
    pub(super) knows_rows: bool,
}

impl World {
    /// What else the leader could write: claims, deletions.
    pub(super) fn idle_writes(&self) -> Vec<(Action, Write)> {
        let leader = &self.leader;
        let mut found = Vec::new();
        if leader.runs || leader.due {
            return found;
        }
        if let Some(claim) = self.claimable() {
            found.push((Action::Claim, Write::Claim(claim, self.claim.clone())));
        }
        if leader.looks && leader.publisher.is_sealed() {
            for (name, version) in self.useless() {
                found.push((Action::Collect(name.clone()), Write::Delete(name, version)));
            }
            if let Some(write) = self.prunable() {
                found.push((Action::Prune, Write::Vault(write)));
            }
        }
        found
    }

    fn claimable(&self) -> Option<Claim> {
        let leader = &self.leader;
        let since = leader.since?;
        let pods = || self.leases.iter().filter_map(|lease| lease.held.as_ref());
        let held = pods().next().is_some() && pods().all(|held| held.generation >= since);
        let pods = std::array::from_fn(|i| self.leases[i].held.as_ref().map(|_| self.leases[i].pod));
        let news = self.claim.as_ref().is_none_or(|claim| claim.wish != leader.wish);
        (held && news && leader.wish == self.wish).then_some(Claim { wish: leader.wish, pods })
    }

    fn useless(&self) -> Vec<(String, Version)> {
        let Some(kept) = self.leader.publisher.kept(&self.held()) else { return Vec::new() };
        let slices = self.slices.iter().filter(|(name, _)| !kept.slices.contains(*name));
        slices.map(|(name, version)| (name.clone(), version.clone())).collect()
    }

    /// Whether slices were written since the world was as it was before.
    pub(super) fn has_slices_since(&self, before: &Self) -> bool {
        self.slices.iter().any(|(name, version)| before.slices.get(name) != Some(version))
    }

    pub(super) fn held(&self) -> BTreeSet<i64> {
        self.leases.iter().filter_map(|lease| lease.held.as_ref()).map(|held| held.generation).collect()
    }

    fn tables(&self) -> Vec<Held> {
        let mut held: Vec<Held> = self.leases.iter().filter_map(|lease| lease.held.clone()).collect();
        held.sort_by(|a, b| (a.generation, &a.hash).cmp(&(b.generation, &b.hash)));
        held.dedup();
        held
    }

    pub(super) fn prunable(&self) -> Option<VaultWrite> {
        let generation = self.leader.publisher.generation()?;
        let past = |lease: &Lease| lease.held.as_ref().is_some_and(|held| held.generation >= generation);
        self.leader.publisher.surplus().filter(|_| self.leases.iter().all(past))
    }

    /// Compares the published table with the wish, after anything has changed for an idle leader.
    pub(super) fn weigh_wish(&mut self) {
        self.leader.looks &= self.leader.due || !self.useless().is_empty() || self.prunable().is_some();
        let sealing = !self.leader.publisher.is_sealed();
        let wanted = content(self.leader.wish);
        if !self.leader.publisher.holds(&wanted.spec.hash, wanted.credentials.iter()) {
            self.leader.due = true;
            return;
        }
        if self.leader.since.is_none() {
            let said = self.claim.as_ref().is_some_and(|claim| claim.wish == self.leader.wish);
            match said {
                true => self.leader.since = Some(0),
                false if sealing => (self.leader.seal, self.leader.due) = (true, true),
                false => self.leader.since = self.leader.publisher.generation(),
            }
        }
        if sealing && self.leader.looks && (!self.useless().is_empty() || self.prunable().is_some()) {
            (self.leader.seal, self.leader.due) = (true, true);
        }
    }

    pub(super) fn begin(&mut self) {
        let held = self.tables();
        let leader = &mut self.leader;
        let wanted = content(leader.wish);
        let is_present = |name: &String| self.slices.contains_key(name);
        let head = leader.publisher.expected(self.head.as_ref().map(|head| &*head.spec));
        let (spec, drafts) = layout(leader.wish, head, leader.knows_rows, is_present);
        let absent = spec.slices.iter().filter(|name| !is_present(name)).cloned();
        leader.drafts = drafts;
        leader.publisher.begin(Offer {
            spec: spec.clone(),
            credentials: wanted.credentials.clone(),
            held,
            absent: absent.collect(),
            seal: std::mem::take(&mut leader.seal),
        });
        (leader.runs, leader.due) = (true, false);
    }

    /// A write of the run that goes well.
    pub(super) fn step(&mut self) -> Result<(), String> {
        let write = self.leader.next.take().unwrap();
        let landed = self.land(&write)?;
        let publisher = &mut self.leader.publisher;
        match write {
            Write::Slice(name) => publisher.slice_claimed(name),
            Write::Vault(_) => publisher.vault_written(match landed {
                true => Written::Landed(self.vault.clone().unwrap()),
                false => Written::Refused,
            }),
            Write::Head(_) => publisher.head_written(match landed {
                true => Written::Landed(self.head.clone().unwrap()),
                false => Written::Refused,
            }),
            _ => {}
        }
        Ok(())
    }

    /// The leader goes on to its next write. A read commutes with all that others do until then.
    pub(super) fn go_on(&mut self) {
        let leader = &mut self.leader;
        while leader.runs && leader.next.is_none() {
            match leader.publisher.step() {
                Step::ReadHead => leader.publisher.head_read(self.head.clone()),
                Step::ReadVault => leader.publisher.vault_read(self.vault.clone()),
                Step::ClaimSlices(names) => match names.into_iter().next() {
                    Some(name) if leader.drafts.contains(&name) => leader.next = Some(Write::Slice(name)),
                    // The head turned out to be another one than the watch showed: it offers again.
                    _ => {
                        leader.publisher.abandon();
                        (leader.runs, leader.due) = (false, true);
                    }
                },
                Step::WriteHead(write) => leader.next = Some(Write::Head(write)),
                Step::WriteVault(write) if can_read(self.wish, &write) => {
                    leader.next = Some(Write::Vault(write));
                }
                Step::WriteVault(_) => {
                    leader.publisher.abandon();
                    (leader.runs, leader.due) = (false, true);
                }
                Step::Done { .. } => {
                    (leader.runs, leader.looks) = (false, true);
                    let head = leader.publisher.head().map(|head| &head.spec);
                    leader.knows_rows = head.is_some_and(|head| {
                        head.slices.iter().any(|name| name == "b")
                            && (head.amendments.is_empty() || leader.knows_rows)
                    });
                }
                Step::Stuck(_) => (leader.runs, leader.due) = (false, true),
            }
        }
    }

    /// Whether the leader's watches would show something that it didn't write.
    pub(super) fn is_disturbed(&self) -> bool {
        let known = &self.leader.publisher;
        if known.head() == self.head.as_ref() && known.vault() == self.vault.as_ref() {
            return known.is_verified() && known.is_exceeded(&self.tables());
        }
        known.is_verified() && !self.observe(&mut known.clone())
    }

    /// Shows a publisher what is there; false when that is not what it published.
    pub(super) fn observe(&self, publisher: &mut Publisher) -> bool {
        let mut same = !publisher.is_exceeded(&self.tables());
        let known = publisher.head().map(|head| head.version.uid.clone());
        if let Some(known) =
            known.filter(|uid| self.head.as_ref().is_none_or(|head| head.version.uid != *uid))
        {
            same &= publisher.observe_head_gone(&known);
        }
        if let Some(head) = &self.head {
            same &= publisher.observe_head(head);
        }
        if let Some(vault) = &self.vault {
            same &= publisher.observe_vault(&vault.version);
        }
        same
    }

    /// The leader gives a write up.
    pub(super) fn unknown(&mut self, write: &Write) {
        let publisher = &mut self.leader.publisher;
        match write {
            Write::Vault(_) => publisher.vault_written(Written::Unknown),
            Write::Head(_) => publisher.head_written(Written::Unknown),
            _ => publisher.abandon(),
        }
        if self.leader.runs || !matches!(write, Write::Claim(..) | Write::Delete(..)) {
            (self.leader.runs, self.leader.due) = (false, true);
        }
    }
}
