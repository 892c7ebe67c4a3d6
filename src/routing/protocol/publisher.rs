//! What a leader writes next to bring a gateway's published table to what was compiled, and what it may delete.
//!
//! A run begins with [`Publisher::begin`]; [`Publisher::step`] says what to do, the driver does it and reports what came of
//! it, until the run is done. The order makes a crash between any two writes harmless: until the head is written nobody
//! looks at the rest. One publisher lives as long as one term of one leader; the next leader begins with a fresh one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::resources::routing_table::RoutingTableSpec;
use crate::routing::ack::Held;
use crate::routing::table::CredentialId;

use super::{Head, Known, Vault, Version, Written};

/// Attempts at a compare-and-swap in one run.
const ATTEMPTS: u8 = 4;
/// Versions of the Secret that are remembered as our own, for a watch that lags behind.
const REMEMBERED: usize = 16;

/// A table that is to be published, as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Offer {
    /// The head; generation and previous slices are the publisher's to say.
    pub spec: Arc<RoutingTableSpec>,
    /// The credentials that the table names.
    pub credentials: Arc<BTreeSet<CredentialId>>,
    /// What the gateway's pods say to hold.
    pub held: Vec<Held>,
    /// Slices of the table that the watch doesn't show.
    pub absent: BTreeSet<String>,
    /// Something new is to be said or deleted on the strength of the head: it has to be sealed.
    pub seal: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Read the head, then [`Publisher::head_read`].
    ReadHead,
    /// Read the Secret of credentials, then [`Publisher::vault_read`].
    ReadVault,
    /// Create each of these slices, or touch it if it is there, in any order; then [`Publisher::slice_claimed`] for each.
    ClaimSlices(Vec<String>),
    /// Write the Secret of credentials, then [`Publisher::vault_written`].
    WriteVault(VaultWrite),
    /// Write the head, then [`Publisher::head_written`].
    WriteHead(HeadWrite),
    /// The published table is what was offered. The run has ended.
    Done {
        /// Whether the head was written for it.
        written: bool,
    },
    /// The run has ended without that.
    Stuck(Stuck),
}

/// A write of the Secret. Its version changes, even if nothing is added or dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VaultWrite {
    /// The version that it has to have; `None`: it has not to be there.
    pub on: Option<Version>,
    /// Versions of credentials to put in.
    pub add: BTreeSet<CredentialId>,
    /// Versions of credentials to take out.
    pub drop: BTreeSet<CredentialId>,
}

/// A write of the head.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeadWrite {
    /// The version that it has to have; `None`: it has not to be there.
    pub on: Option<Version>,
    /// What it says then.
    pub spec: RoutingTableSpec,
}

/// Why a run ended without a published table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stuck {
    /// Somebody is deleting the head.
    Deleting,
    /// Somebody else keeps writing the head.
    HeadContended,
    /// Somebody else keeps writing the Secret.
    VaultContended,
}

/// What a leader knows of a gateway's published table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Publisher {
    pub(super) head: Known<Head>,
    /// Whether this leader has written the head, and no write of the head can land any more of which it doesn't know.
    sealed: bool,
    /// The newest generation that this leader has seen; survives the loss of the head.
    pub(super) newest: i64,
    pub(super) vault: Known<Vault>,
    vault_sealed: bool,
    /// Versions of the Secret that this leader has read or written.
    pub(super) vault_ours: VecDeque<String>,
    /// Somebody else wrote the Secret: its values can't be trusted.
    spoiled: bool,
    /// What was compiled for the head; `None` until that is proven to be what is published.
    published: Option<Published>,
    /// The generations that this leader has published or found.
    pub(super) history: BTreeMap<i64, Arc<RoutingTableSpec>>,
    /// Slices of the head that somebody has deleted.
    lost: BTreeSet<String>,
    pub(super) run: Option<Run>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Published {
    hash: String,
    credentials: Arc<BTreeSet<CredentialId>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Run {
    pub(super) offer: Offer,
    claimed: BTreeSet<String>,
    written: bool,
    refused: u8,
    vault_refused: u8,
}

/// The slices that may still be asked for.
#[derive(Debug)]
pub struct Kept {
    /// Their names.
    pub slices: BTreeSet<String>,
    /// False when a pod holds a table of which this leader knows only the generation.
    pub all_told: bool,
}

impl Publisher {
    /// The generation that is published, as far as it is known.
    pub fn generation(&self) -> Option<i64> {
        self.head.present().map(|head| head.spec.generation)
    }

    /// The head's object, as far as it is known.
    pub fn head(&self) -> Option<&Head> {
        self.head.present()
    }

    /// What a run has to expect the head to say: what is known of it (also, that there is none); only while nothing is, what
    /// the watch shows. An offer that is laid out against another head than the run finds has to be made again.
    pub fn expected<'a>(&'a self, watched: Option<&'a RoutingTableSpec>) -> Option<&'a RoutingTableSpec> {
        match &self.head {
            Known::Present(head) => Some(&head.spec),
            Known::Absent => None,
            Known::Unknown => watched,
        }
    }

    /// Whether the head is proven to be what was compiled last for it.
    pub fn is_verified(&self) -> bool {
        self.published.is_some() && self.head.present().is_some()
    }

    /// Whether a table with this hash and these credentials is what is published.
    pub fn holds<'a>(&self, hash: &str, mut credentials: impl Iterator<Item = &'a CredentialId>) -> bool {
        self.head.present().is_some()
            && self.lost.is_empty()
            && self.published.as_ref().is_some_and(|published| {
                published.hash == hash && published.credentials.iter().eq(credentials.by_ref())
            })
    }

    /// Whether what is published may be relied on in what is said and deleted.
    pub fn is_sealed(&self) -> bool {
        self.sealed && self.is_verified()
    }

    /// Whether pods hold something that the head has to exceed: tables that it doesn't know of.
    pub fn is_exceeded(&self, held: &[Held]) -> bool {
        self.head.present().is_some_and(|head| exceeded(&head.spec, held))
    }

    /// Begins a run.
    pub fn begin(&mut self, offer: Offer) {
        self.run =
            Some(Run { offer, claimed: BTreeSet::new(), written: false, refused: 0, vault_refused: 0 });
    }

    /// Ends the run: a step has failed in a way that says nothing about the head or the Secret.
    pub fn abandon(&mut self) {
        self.run = None;
    }

    /// What to do next; the same until it is reported.
    pub fn step(&mut self) -> Step {
        let Some(run) = &self.run else { return Step::Done { written: false } };
        let head = match &self.head {
            Known::Unknown => return Step::ReadHead,
            Known::Present(head) if head.deleting => return self.stuck(Stuck::Deleting),
            Known::Present(head) => Some(head),
            Known::Absent => None,
        };
        let unclaimed = self.unclaimed(run, head);
        if !unclaimed.is_empty() {
            return Step::ClaimSlices(unclaimed);
        }
        let vault = match &self.vault {
            Known::Unknown if run.vault_refused >= ATTEMPTS => return self.stuck(Stuck::VaultContended),
            Known::Unknown => return Step::ReadVault,
            Known::Present(vault) => Some(vault),
            Known::Absent => None,
        };
        if let Some(write) = self.vault_write(run, head, vault) {
            return Step::WriteVault(write);
        }
        if run.refused >= ATTEMPTS {
            return self.stuck(Stuck::HeadContended);
        }
        if let Some(write) = self.head_write(run, head) {
            return Step::WriteHead(write);
        }
        self.done()
    }

    fn stuck(&mut self, why: Stuck) -> Step {
        self.run = None;
        Step::Stuck(why)
    }

    /// The slices that the present head doesn't name, or that aren't there.
    fn unclaimed(&self, run: &Run, head: Option<&Head>) -> Vec<String> {
        let named: BTreeSet<&String> = head.iter().flat_map(|head| &head.spec.slices).collect();
        let unproven = self.published.is_none();
        let due = |name: &&String| {
            let absent = self.lost.contains(*name) || (unproven && run.offer.absent.contains(*name));
            (absent || !named.contains(name)) && !run.claimed.contains(*name)
        };
        run.offer.spec.slices.iter().filter(due).cloned().collect()
    }

    fn vault_write(&self, run: &Run, head: Option<&Head>, vault: Option<&Vault>) -> Option<VaultWrite> {
        let needed = &run.offer.credentials;
        let present = |id: &CredentialId| vault.is_some_and(|vault| vault.sizes.contains_key(id));
        let add: BTreeSet<_> = needed.iter().filter(|id| self.spoiled || !present(id)).cloned().collect();
        let published = self.published.as_ref();
        // What the present head names, as far as it is known, was kept by whoever led before.
        let named = head.is_some_and(|head| head.spec.hash == run.offer.spec.hash)
            || published.is_some_and(|published| needed.is_subset(&published.credentials));
        let revived = vault.is_some() && !self.vault_sealed && !named && !needed.is_empty();
        if add.is_empty() && !revived && vault.is_none_or(|vault| vault.owned) {
            return None;
        }
        let keep = |id: &CredentialId| {
            needed.contains(id) || published.is_none_or(|published| published.credentials.contains(id))
        };
        let drop =
            vault.iter().flat_map(|vault| vault.sizes.keys()).filter(|id| !keep(id)).cloned().collect();
        Some(VaultWrite { on: vault.map(|vault| vault.version.clone()), add, drop })
    }

    fn head_write(&self, run: &Run, head: Option<&Head>) -> Option<HeadWrite> {
        let offer = &run.offer;
        if let Some(head) = head
            && same(&head.spec, &offer.spec)
            && head.owned
            && !exceeded(&head.spec, &offer.held)
            && (self.sealed || !offer.seal)
        {
            return None;
        }
        let held = offer.held.iter().map(|held| held.generation).max();
        let last = head.map(|head| head.spec.generation).max(held).unwrap_or_default();
        let spec = RoutingTableSpec {
            generation: last.max(self.newest) + 1,
            previous_slices: previous(head, &offer.spec),
            ..(*offer.spec).clone()
        };
        Some(HeadWrite { on: head.map(|head| head.version.clone()), spec })
    }

    fn done(&mut self) -> Step {
        if let (Some(run), Some(head)) = (self.run.take(), self.head.present()) {
            self.published =
                Some(Published { hash: run.offer.spec.hash.clone(), credentials: run.offer.credentials });
            self.newest = self.newest.max(head.spec.generation);
            self.history.insert(head.spec.generation, head.spec.clone());
            self.lost.clear();
            return Step::Done { written: run.written };
        }
        Step::Done { written: false }
    }

    /// What a read of the head has found.
    pub fn head_read(&mut self, found: Option<Head>) {
        self.newest = self.newest.max(found.as_ref().map_or(0, |head| head.spec.generation));
        self.head = Known::found(found);
    }

    /// A slice is there, and nothing decided on before can delete it.
    pub fn slice_claimed(&mut self, name: String) {
        if let Some(run) = &mut self.run {
            run.claimed.insert(name);
        }
    }

    /// What a read of the Secret has found.
    pub fn vault_read(&mut self, found: Option<Vault>) {
        if let Some(vault) = &found {
            self.remember(&vault.version);
        }
        self.vault = Known::found(found);
    }

    /// What came of a [`VaultWrite`].
    pub fn vault_written(&mut self, outcome: Written<Vault>) {
        match outcome {
            Written::Landed(vault) => {
                self.remember(&vault.version);
                self.vault = Known::Present(vault);
                self.vault_sealed = true;
                self.spoiled = false;
            }
            Written::Refused => {
                // Somebody else wrote it: another leader, or a person whose values can't be trusted.
                self.vault = Known::Unknown;
                self.spoiled = true;
                if let Some(run) = &mut self.run {
                    run.vault_refused += 1;
                }
            }
            Written::Unknown => {
                self.vault = Known::Unknown;
                self.vault_sealed = false;
                self.run = None;
            }
        }
    }

    /// What came of a [`HeadWrite`].
    pub fn head_written(&mut self, outcome: Written<Head>) {
        match outcome {
            Written::Landed(head) => {
                self.newest = self.newest.max(head.spec.generation);
                self.head = Known::Present(head);
                self.sealed = true;
                if let Some(run) = &mut self.run {
                    run.written = true;
                }
            }
            Written::Refused => {
                self.head = Known::Unknown;
                self.published = None;
                if let Some(run) = &mut self.run {
                    run.refused += 1;
                }
            }
            Written::Unknown => {
                self.lose_head();
                self.run = None;
            }
        }
    }

    /// Takes in a head that the watch shows; false when it is not what was published. That the watch shows none is a lag,
    /// unless it has shown how the head went.
    pub fn observe_head(&mut self, watched: &Head) -> bool {
        let Known::Present(head) = &self.head else { return true };
        if watched.spec == head.spec && watched.version.uid == head.version.uid {
            self.head = Known::Present(watched.clone());
        } else if watched.spec.generation >= head.spec.generation {
            self.lose_head();
            return false;
        }
        true
    }

    /// Takes in that the watch has shown how a head went; false when it is the published one.
    pub fn observe_head_gone(&mut self, uid: &str) -> bool {
        let ours = self.head.present().is_some_and(|head| head.version.uid == uid);
        if ours {
            self.lose_head();
        }
        !ours
    }

    fn lose_head(&mut self) {
        self.head = Known::Unknown;
        self.published = None;
        self.sealed = false;
    }

    /// Takes in a version of the Secret that the watch shows; false when somebody else wrote it.
    pub fn observe_vault(&mut self, watched: &Version) -> bool {
        if self.vault == Known::Unknown || self.vault_ours.contains(&watched.resource_version) {
            return true;
        }
        self.lose_vault();
        false
    }

    /// Takes in that the watch has shown how a Secret went; false when it is the one with the credentials.
    pub fn observe_vault_gone(&mut self, uid: &str) -> bool {
        let ours = self.vault.present().is_some_and(|vault| vault.version.uid == uid);
        if ours {
            self.lose_vault();
        }
        !ours
    }

    fn lose_vault(&mut self) {
        self.vault = Known::Unknown;
        self.vault_sealed = false;
        self.spoiled = true;
        self.published = None;
    }

    /// Takes in that the watch has shown how a slice went; false when the head names it.
    pub fn observe_loss(&mut self, slice: &str) -> bool {
        let named = self.head.present().is_some_and(|head| head.spec.slices.iter().any(|name| name == slice));
        if named {
            self.lost.insert(slice.to_owned());
        }
        !named
    }

    /// The slices that a gateway may still ask for when its pods hold these generations; `None` while that isn't known.
    /// Others may be deleted once [`Self::is_sealed`].
    pub fn kept(&self, held: &BTreeSet<i64>) -> Option<Kept> {
        let head = self.head.present()?;
        self.published.as_ref()?;
        let generation = head.spec.generation;
        let mut slices: BTreeSet<String> = head.spec.slices.iter().cloned().collect();
        slices.extend(head.spec.previous_slices.iter().cloned());
        for generation in held {
            let named = self.history.get(generation).into_iter().flat_map(|spec| &spec.slices);
            slices.extend(named.cloned());
        }
        let told = |held: &i64| *held >= generation - 1 || self.history.contains_key(held);
        Some(Kept { slices, all_told: held.iter().all(told) })
    }

    /// Forgets the generations that are over: pods hold others.
    pub fn forget(&mut self, held: &BTreeSet<i64>) {
        let generation = self.generation().unwrap_or_default();
        self.history.retain(|known, _| *known >= generation - 1 || held.contains(known));
    }

    /// The versions of credentials that the published table doesn't name. They may be taken out once [`Self::is_sealed`]
    /// and no pod holds an older table.
    pub fn surplus(&self) -> Option<VaultWrite> {
        let (vault, published) = (self.vault.present()?, self.published.as_ref()?);
        let drop: BTreeSet<_> =
            vault.sizes.keys().filter(|id| !published.credentials.contains(*id)).cloned().collect();
        (!drop.is_empty()).then(|| VaultWrite { on: Some(vault.version.clone()), add: BTreeSet::new(), drop })
    }

    /// Whether it is known what the Secret of credentials is, or that there is none. If it isn't, the next run reads it.
    pub fn knows_vault(&self) -> bool {
        self.vault != Known::Unknown
    }

    /// The Secret of credentials, as far as it is known.
    pub fn vault(&self) -> Option<&Vault> {
        self.vault.present()
    }

    fn remember(&mut self, version: &Version) {
        self.vault_ours.push_back(version.resource_version.clone());
        if self.vault_ours.len() > REMEMBERED {
            self.vault_ours.pop_front();
        }
    }
}

/// Whether a published head says what is offered.
fn same(published: &RoutingTableSpec, offered: &RoutingTableSpec) -> bool {
    published.hash == offered.hash
        && published.slices == offered.slices
        && published.amendments == offered.amendments
        && published.counts == offered.counts
        && published.credentials_secret == offered.credentials_secret
}

/// Whether a pod holds what is newer than the head, or has the head's generation and another content.
fn exceeded(head: &RoutingTableSpec, held: &[Held]) -> bool {
    held.iter().any(|held| {
        held.generation > head.generation || (held.generation == head.generation && held.hash != head.hash)
    })
}

/// The slices of the head before that the new one doesn't name. The same content under the next generation keeps what was
/// kept.
fn previous(before: Option<&Head>, spec: &RoutingTableSpec) -> Vec<String> {
    let Some(before) = before.map(|head| &head.spec) else { return Vec::new() };
    if before.slices == spec.slices {
        return before.previous_slices.clone();
    }
    let named: BTreeSet<&String> = spec.slices.iter().collect();
    before.slices.iter().filter(|name| !named.contains(name)).cloned().collect()
}
