//! A small world around the protocol: an API server, leaders that follow each other, two gateways, and all that goes wrong.
//!
//! The leader runs the real [`Publisher`], the gateways the real [`weigh`]; what stands here are the rules of the API server
//! and the little that the drivers add. A leader loses its lease at any moment: because it was killed, or because it was
//! paused and has a write under way (a *stray*) that lands at any later time or never. A grace time has always just run out.
//! A watch that lags is a leader that looks later; only of wishes a lag is kept, because what follows may depend on it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use serde_json::Map;
use siphasher::sip::SipHasher13;

use crate::resources::routing_table::{Amendment, RoutingTableSpec, TableCounts};
use crate::routing::ack::Held;
use crate::routing::protocol::follower::{Weighed, weigh};
use crate::routing::protocol::publisher::{HeadWrite, Offer, Publisher, Step, VaultWrite};
use crate::routing::protocol::{Head, Known, Vault, Version, Written};
use crate::routing::table::CredentialId;

use super::explore::Model;

/// What people want, one after the other: slices and credentials of the compiled table. The first comes back in the end, as
/// when changes are taken back: its slice may be on its way out then, and a leader that saw nothing in between finds nothing
/// to write. Credentials that come back were never changed. The third is the second with a row more: a leader that knows the
/// rows of `b` tells it as an amendment of that slice.
const WISHES: [(&[&str], &[&str]); 4] =
    [(&["a"], &["k"]), (&["b"], &[]), (&["b", "c"], &["l"]), (&["a"], &["k"])];

pub(super) struct Content {
    pub spec: Arc<RoutingTableSpec>,
    pub credentials: Arc<BTreeSet<CredentialId>>,
}

/// The compiled table of a wish.
pub(super) fn content(wish: u8) -> &'static Content {
    static CONTENTS: OnceLock<Vec<Content>> = OnceLock::new();
    let make = |(slices, credentials): &(&[&str], &[&str])| Content {
        spec: Arc::new(RoutingTableSpec {
            generation: 0,
            hash: slices.concat(),
            slices: slices.iter().map(|name| (*name).to_owned()).collect(),
            amendments: Vec::new(),
            previous_slices: Vec::new(),
            credentials_secret: None,
            counts: TableCounts::default(),
        }),
        credentials: Arc::new(credentials.iter().map(|id| CredentialId((*id).to_owned())).collect()),
    };
    &CONTENTS.get_or_init(|| WISHES.iter().map(make).collect())[wish as usize]
}

/// How a leader that may or may not know the rows of `b` lays out a wish, as `routing::slice::layout` does; with the slices that
/// it could write.
fn layout(
    wish: u8,
    head: Option<&RoutingTableSpec>,
    knows_rows: bool,
    is_present: impl Fn(&String) -> bool,
) -> (Arc<RoutingTableSpec>, BTreeSet<String>) {
    let mut spec = content(wish).spec.clone();
    if let Some(head) = head {
        if head.hash == spec.hash && head.slices.iter().all(&is_present) {
            let published = Arc::make_mut(&mut spec);
            (published.slices, published.amendments) = (head.slices.clone(), head.amendments.clone());
            return (spec, BTreeSet::new());
        }
        let base = "b".to_owned();
        if spec.hash == "bc" && knows_rows && head.slices.contains(&base) && is_present(&base) {
            let amended = Arc::make_mut(&mut spec);
            let amendment =
                Amendment { slice: base.clone(), hash: "bc".into(), rows: Map::new(), gone: Vec::new() };
            (amended.slices, amended.amendments) = (vec![base], vec![amendment]);
            return (spec, BTreeSet::new());
        }
    }
    let named = |name: &String| head.is_some_and(|head| head.slices.contains(name)) && is_present(name);
    let drafts = spec.slices.iter().filter(|name| !named(name)).cloned().collect();
    (spec, drafts)
}

/// The credentials that the table with this hash names.
fn credentials(hash: &str) -> &'static BTreeSet<CredentialId> {
    let wish = (0_u8..).zip(WISHES).find(|(_, (slices, _))| slices.concat() == hash).unwrap().0;
    &content(wish).credentials
}

/// Whether the values that a write adds can be read: those of what isn't wanted any more may be gone.
fn can_read(wish: u8, write: &VaultWrite) -> bool {
    write.add.iter().all(|id| id.0 == "k" || content(wish).credentials.contains(id))
}

/// How often each mishap may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Mishaps {
    /// The lease goes to the other operator.
    pub takeovers: u8,
    /// An answer to a write is lost, although the leader goes on.
    pub lost_answers: u8,
    /// A gateway's process starts anew from its disk copy.
    pub restarts: u8,
    /// A gateway's pod goes and another comes in its place.
    pub replacements: u8,
    /// Somebody deletes the head.
    pub deletions: u8,
    /// How often a gateway that has switched may take its time to say so.
    pub slow_acknowledgements: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    wish: u8,
    last_wish: u8,
    /// Somebody may delete the head: then only who holds a table knows how far generations were.
    heads_get_lost: bool,
    /// The newest generation that a head ever had.
    newest: i64,
    head: Option<Head>,
    slices: BTreeMap<String, Version>,
    vault: Option<Vault>,
    leases: [Lease; 2],
    /// `Programmed=True`: which wish it is said of, and for which pods.
    claim: Option<Claim>,
    /// Versions that each object was given: equal ones in worlds that are alike.
    writes: BTreeMap<String, u8>,
    leader: Leader,
    strays: Vec<Write>,
    gateways: [Gateway; 2],
    left: Mishaps,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Lease {
    pod: u8,
    held: Option<Held>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Claim {
    wish: u8,
    pods: [Option<u8>; 2],
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Leader {
    wish: u8,
    publisher: Publisher,
    runs: bool,
    due: bool,
    seal: bool,
    /// Since which generation the wish is in the table.
    since: Option<i64>,
    /// What it is about to write.
    next: Option<Write>,
    /// The slices that it could write in this run.
    drafts: BTreeSet<String>,
    /// Whether it knows the rows of `b`, from when the head said what they are.
    knows_rows: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Gateway {
    pod: u8,
    held: Option<Held>,
    /// The head that is being followed.
    fetch: Option<Arc<RoutingTableSpec>>,
}

/// A write that is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Write {
    /// Create it, or touch it if it is there.
    Slice(String),
    Vault(VaultWrite),
    Head(HeadWrite),
    Delete(String, Version),
    /// Against a status that says this.
    Claim(Claim, Option<Claim>),
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    /// People want something else.
    Wish,
    /// The leader's watch shows what people want.
    SeeWish,
    /// The leader's watches show that the head or the Secret is not what it wrote.
    SeeOthers,
    /// The leader begins a run.
    Begin,
    /// A write of the run lands and is answered.
    Step,
    /// The leader says that the wish is programmed.
    Claim,
    Collect(String),
    Prune,
    /// The write lands, its answer is lost.
    LoseAnswer,
    /// The write is late and the leader gives it up.
    GiveUp,
    /// The lease goes to the other operator, which reads all wishes anew; a write of the old leader is under way.
    TakeOver {
        leaves: Option<Write>,
    },
    Stray(usize),
    /// A gateway hears of the head and fetches the slices.
    Fetch(usize),
    /// It fetches the credentials and switches.
    Switch(usize),
    Acknowledge(usize),
    Restart(usize),
    Replace(usize),
    DeleteHead,
}

impl World {
    pub(super) fn new(last_wish: u8, left: Mishaps) -> Self {
        Self {
            wish: 0,
            last_wish,
            heads_get_lost: left.deletions > 0,
            newest: 0,
            head: None,
            slices: BTreeMap::new(),
            vault: None,
            leases: Default::default(),
            claim: None,
            writes: BTreeMap::new(),
            leader: Leader { due: true, ..Leader::default() },
            strays: Vec::new(),
            gateways: Default::default(),
            left,
        }
    }

    fn version(&mut self, object: &str, uid: Option<&str>) -> Version {
        let writes = self.writes.entry(object.to_owned()).or_default();
        *writes += 1;
        let number = writes.to_string();
        Version { uid: uid.map_or_else(|| number.clone(), str::to_owned), resource_version: number }
    }

    /// A write arrives at the API server. Returns whether it changed anything.
    fn land(&mut self, write: &Write) -> Result<bool, String> {
        match write {
            Write::Slice(name) => {
                let uid = self.slices.get(name).map(|version| version.uid.clone());
                let version = self.version(name, uid.as_deref());
                self.slices.insert(name.clone(), version);
            }
            Write::Delete(name, version) => {
                if self.slices.get(name) != Some(version) {
                    return Ok(false);
                }
                self.slices.remove(name);
            }
            Write::Vault(write) => {
                if self.vault.as_ref().map(|vault| &vault.version) != write.on.as_ref() {
                    return Ok(false);
                }
                let version = self.version("vault", write.on.as_ref().map(|version| &*version.uid));
                let mut sizes = self.vault.take().map(|vault| vault.sizes).unwrap_or_default();
                sizes.retain(|id, _| !write.drop.contains(id));
                sizes.extend(write.add.iter().map(|id| (id.clone(), 1)));
                self.vault = Some(Vault { version, owned: true, sizes });
            }
            Write::Head(write) => {
                if self.head.as_ref().map(|head| &head.version) != write.on.as_ref() {
                    return Ok(false);
                }
                if write.spec.generation <= self.newest && !self.heads_get_lost {
                    return Err(format!("2: generation {} after {}", write.spec.generation, self.newest));
                }
                self.newest = write.spec.generation;
                let version = self.version("head", write.on.as_ref().map(|version| &*version.uid));
                let spec = Arc::new(write.spec.clone());
                self.head = Some(Head { version, owned: true, deleting: false, spec });
            }
            Write::Claim(claim, before) => {
                // The object's version: its spec, and its status.
                if claim.wish != self.wish || self.claim != *before {
                    return Ok(false);
                }
                let mut claim = claim.clone();
                for (pod, gateway) in claim.pods.iter_mut().zip(&self.gateways) {
                    *pod = pod.filter(|pod| *pod == gateway.pod);
                }
                self.claim = Some(claim);
            }
        }
        Ok(true)
    }

    /// What else the leader could write: claims, deletions.
    fn idle_writes(&self) -> Vec<(Action, Write)> {
        let leader = &self.leader;
        let mut found = Vec::new();
        if leader.runs || leader.due {
            return found;
        }
        if let Some(claim) = self.claimable() {
            found.push((Action::Claim, Write::Claim(claim, self.claim.clone())));
        }
        if leader.publisher.is_sealed() {
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

    fn held(&self) -> BTreeSet<i64> {
        self.leases.iter().filter_map(|lease| lease.held.as_ref()).map(|held| held.generation).collect()
    }

    fn tables(&self) -> Vec<Held> {
        let mut held: Vec<Held> = self.leases.iter().filter_map(|lease| lease.held.clone()).collect();
        held.sort_by(|a, b| (a.generation, &a.hash).cmp(&(b.generation, &b.hash)));
        held.dedup();
        held
    }

    fn prunable(&self) -> Option<VaultWrite> {
        let generation = self.leader.publisher.generation()?;
        let past = |lease: &Lease| lease.held.as_ref().is_some_and(|held| held.generation >= generation);
        self.leader.publisher.surplus().filter(|_| self.leases.iter().all(past))
    }

    /// Compares the published table with the wish, after anything has changed for an idle leader.
    fn weigh_wish(&mut self) {
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
        if sealing && (!self.useless().is_empty() || self.prunable().is_some()) {
            (self.leader.seal, self.leader.due) = (true, true);
        }
    }

    fn begin(&mut self) {
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
    fn step(&mut self) -> Result<(), String> {
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
    fn go_on(&mut self) {
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
                    leader.runs = false;
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
    fn is_disturbed(&self) -> bool {
        let known = &self.leader.publisher;
        if known.head() == self.head.as_ref() && known.vault() == self.vault.as_ref() {
            return known.is_verified() && known.is_exceeded(&self.tables());
        }
        known.is_verified() && !self.observe(&mut known.clone())
    }

    /// Shows a publisher what is there; false when that is not what it published.
    fn observe(&self, publisher: &mut Publisher) -> bool {
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
    fn unknown(&mut self, write: &Write) {
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

    fn gateway(&mut self, action: &Action) -> Result<(), String> {
        match *action {
            Action::Fetch(i) => {
                let spec = self.head.as_ref().unwrap().spec.clone();
                let gateway = &mut self.gateways[i];
                let held = gateway.held.as_ref().map(|held| held.hash.clone()).unwrap_or_default();
                let there = |name: &String| held.contains(&**name) || self.slices.contains_key(name);
                match weigh(gateway.held.as_ref(), spec.generation, &spec.hash) {
                    Weighed::Newer if spec.slices.iter().all(there) => gateway.fetch = Some(spec),
                    Weighed::Older | Weighed::Ambiguous if !self.heads_get_lost => {
                        return Err(format!("2: a gateway that holds {:?} finds {spec:?}", gateway.held));
                    }
                    _ => {}
                }
            }
            Action::Switch(i) => {
                let gateway = &mut self.gateways[i];
                let fetch = gateway.fetch.take().unwrap();
                let needed = credentials(&fetch.hash);
                let known = gateway.held.as_ref().map(|held| credentials(&held.hash));
                let there = |id: &CredentialId| {
                    known.is_some_and(|known| known.contains(id))
                        || self.vault.as_ref().is_some_and(|vault| vault.sizes.contains_key(id))
                };
                if needed.iter().all(there) {
                    let new = Held { generation: fetch.generation, hash: fetch.hash.clone() };
                    if gateway.held.as_ref().is_some_and(|old| old.generation >= new.generation) {
                        return Err(format!("2: a gateway goes from {:?} to {new:?}", gateway.held));
                    }
                    gateway.held = Some(new);
                    match self.left.slow_acknowledgements {
                        0 => self.leases[i].held = gateway.held.clone(),
                        left => self.left.slow_acknowledgements = left - 1,
                    }
                }
            }
            Action::Acknowledge(i) => {
                self.leases[i] = Lease { pod: self.gateways[i].pod, held: self.gateways[i].held.clone() };
            }
            Action::Restart(i) => {
                self.left.restarts -= 1;
                self.gateways[i].fetch = None;
            }
            Action::Replace(i) => {
                self.left.replacements -= 1;
                let pod = self.gateways[i].pod + 1;
                self.gateways[i] = Gateway { pod, ..Gateway::default() };
                self.leases[i] = Lease { pod, held: None };
                if let Some(claim) = &mut self.claim {
                    claim.pods[i] = None;
                }
            }
            _ => unreachable!("it concerns the leader"),
        }
        Ok(())
    }

    /// What is wrong with the world as it is.
    fn check(&self) -> Result<(), String> {
        if let Some(head) = &self.head {
            for name in &head.spec.slices {
                if !self.slices.contains_key(name) {
                    return Err(format!("7: the head names slice {name}, which isn't there"));
                }
            }
            for id in credentials(&head.spec.hash) {
                if !self.vault.as_ref().is_some_and(|vault| vault.sizes.contains_key(id)) {
                    return Err(format!(
                        "7: the head's table names credentials {}, which aren't there",
                        id.0
                    ));
                }
            }
        }
        if let Some(claim) = &self.claim {
            for (pod, gateway) in claim.pods.iter().zip(&self.gateways) {
                if pod.is_none() {
                    continue;
                }
                let held = gateway.held.as_ref().map(|held| &*held.hash);
                let fine = (claim.wish..=self.wish).any(|wish| Some(&*content(wish).spec.hash) == held);
                if !fine {
                    return Err(format!(
                        "4: wish {} is said to be programmed, a gateway holds {held:?}",
                        claim.wish
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Model for World {
    type Action = Action;

    fn actions(&self) -> Vec<Action> {
        let (leader, left) = (&self.leader, &self.left);
        let mut found = Vec::new();
        if self.wish < self.last_wish {
            found.push(Action::Wish);
        }
        let idle = self.idle_writes();
        let pending = leader.next.clone();
        if leader.runs {
            found.push(Action::Step);
        } else {
            if leader.wish < self.wish {
                found.push(Action::SeeWish);
            }
            if self.is_disturbed() {
                found.push(Action::SeeOthers);
            }
            if leader.due {
                found.push(Action::Begin);
            }
        }
        let mut writes: Vec<Write> =
            pending.iter().chain(idle.iter().map(|(_, write)| write)).cloned().collect();
        if self.heads_get_lost {
            // Only a head that isn't there protects from one that is created late: three mishaps at once, mended afterwards.
            writes.retain(|write| !matches!(write, Write::Head(HeadWrite { on: None, .. })));
        }
        found.extend(idle.into_iter().map(|(action, _)| action));
        if left.takeovers > 0 {
            let leaves = std::iter::once(None).chain(writes.into_iter().map(Some));
            found.extend(leaves.map(|leaves| Action::TakeOver { leaves }));
        }
        if left.lost_answers > 0 && pending.is_some() {
            found.extend([Action::LoseAnswer, Action::GiveUp]);
        }
        found.extend((0..self.strays.len()).map(Action::Stray));
        for (i, gateway) in self.gateways.iter().enumerate() {
            let news = |head: &Head| {
                weigh(gateway.held.as_ref(), head.spec.generation, &head.spec.hash) != Weighed::Held
            };
            if gateway.fetch.is_some() {
                found.push(Action::Switch(i));
            } else if self.head.as_ref().is_some_and(news) {
                found.push(Action::Fetch(i));
            }
            if self.leases[i].held != gateway.held {
                found.push(Action::Acknowledge(i));
            }
            if left.restarts > 0 && gateway.fetch.is_some() {
                found.push(Action::Restart(i));
            }
            if left.replacements > 0 {
                found.push(Action::Replace(i));
            }
        }
        if left.deletions > 0 && self.head.is_some() {
            found.push(Action::DeleteHead);
        }
        found
    }

    fn after(&self, action: &Action) -> Result<Self, String> {
        let mut world = self.clone();
        match action {
            Action::Wish => world.wish += 1,
            Action::SeeWish => {
                world.leader.wish = world.wish;
                world.leader.since = None;
            }
            Action::SeeOthers => {
                let mut publisher = std::mem::take(&mut world.leader.publisher);
                world.observe(&mut publisher);
                world.leader.publisher = publisher;
                world.leader.due = true;
            }
            Action::Begin => world.begin(),
            Action::Step => world.step()?,
            Action::Claim | Action::Collect(_) => {
                let writes = world.idle_writes();
                let same = |known: &Action| match (known, action) {
                    (Action::Collect(known), Action::Collect(name)) => known == name,
                    (known, action) => matches!((known, action), (Action::Claim, Action::Claim)),
                };
                let (_, write) = writes.into_iter().find(|(known, _)| same(known)).unwrap();
                world.land(&write)?;
            }
            Action::Prune => {
                let write = world.prunable().unwrap();
                let landed = world.land(&Write::Vault(write))?;
                world.leader.publisher.vault_written(match landed {
                    true => Written::Landed(world.vault.clone().unwrap()),
                    false => Written::Refused,
                });
                world.leader.due |= !landed;
            }
            Action::LoseAnswer | Action::GiveUp => {
                world.left.lost_answers -= 1;
                let write = world.leader.next.take().unwrap();
                match action {
                    Action::LoseAnswer => drop(world.land(&write)?),
                    _ => world.strays.push(write.clone()),
                }
                world.unknown(&write);
            }
            Action::TakeOver { leaves } => {
                world.left.takeovers -= 1;
                world.strays.extend(leaves.clone());
                world.leader = Leader { due: true, wish: world.wish, ..Leader::default() };
            }
            Action::Stray(i) => {
                let write = world.strays.remove(*i);
                world.land(&write)?;
            }
            Action::DeleteHead => {
                world.left.deletions -= 1;
                world.head = None;
            }
            _ => world.gateway(action)?,
        }
        world.go_on();
        // As the collector does whenever anything has changed.
        world.leader.publisher.forget(&world.held());
        if !world.leader.runs {
            world.weigh_wish();
        }
        world.check()?;
        Ok(world)
    }

    fn is_progress(action: &Action) -> bool {
        !matches!(
            action,
            Action::Wish
                | Action::LoseAnswer
                | Action::GiveUp
                | Action::TakeOver { .. }
                | Action::Stray(_)
                | Action::Restart(_)
                | Action::Replace(_)
                | Action::DeleteHead
        )
    }

    /// Every promise about the end: all hold the last wish, the status says so, nothing is left over, nothing is left to do.
    fn is_done(&self) -> bool {
        let wanted = content(self.wish);
        let Some(head) = &self.head else { return false };
        let named =
            |name: &String| head.spec.slices.contains(name) || head.spec.previous_slices.contains(name);
        let table = Held { generation: head.spec.generation, hash: head.spec.hash.clone() };
        let ids = self.vault.iter().flat_map(|vault| vault.sizes.keys());
        let fulfilled = head.spec.hash == wanted.spec.hash
            && self.gateways.iter().all(|gateway| gateway.held.as_ref() == Some(&table))
            && self.claim.as_ref().is_some_and(|claim| claim.wish == self.wish)
            && self.slices.keys().all(named)
            && ids.eq(wanted.credentials.iter());
        fulfilled && self.actions().iter().all(|action| !Self::is_progress(action))
    }

    fn canonical(mut self) -> Self {
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
        // A claim that is under way speaks of the gateways by their places.
        let placed = self.strays.iter().any(|write| matches!(write, Write::Claim(..)));
        if !placed && sign(0) > sign(1) {
            self.gateways.swap(0, 1);
            self.leases.swap(0, 1);
            if let Some(claim) = &mut self.claim {
                claim.pods.swap(0, 1);
            }
        }
        self
    }
}

impl World {
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
            if let Write::Head(write) = write {
                numbers.push(&mut write.spec.generation);
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
