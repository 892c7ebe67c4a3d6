//! A small world around the protocol: an API server, leaders that follow each other, two gateways, and all that goes wrong.
//!
//! The leader runs the real [`Publisher`], the gateways the real [`weigh`]; what stands here are the rules of the API server
//! and the little that the drivers add. A leader loses its lease at any moment: because it was killed, or because it was
//! paused and has a write under way (a *stray*) that lands at any later time or never. A grace time has always just run out.
//! A watch that lags is a leader that looks later; only of wishes a lag is kept, because what follows may depend on it.

mod alike;
mod leader;
mod wishes;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::resources::routing_table::RoutingTableSpec;
use crate::routing::ack::Held;
use crate::routing::protocol::follower::{Weighed, weigh};
use crate::routing::protocol::publisher::{HeadWrite, VaultWrite};
use crate::routing::protocol::{Head, Vault, Version, Written};
use crate::routing::table::CredentialId;

use self::leader::Leader;
pub(super) use self::wishes::content;
use self::wishes::credentials;
use super::explore::Model;

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
    /// A write of an acknowledgement is given up; it is under way, and lands at any later time or never.
    pub late_acknowledgements: u8,
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
pub(super) struct Lease {
    pod: u8,
    held: Option<Held>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Claim {
    wish: u8,
    pods: [Option<u8>; 2],
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Gateway {
    pod: u8,
    held: Option<Held>,
    /// What it holds isn't acknowledged yet by a write that was answered.
    unsaid: bool,
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
    /// Over the one that was seen.
    Lease(usize, Lease, Lease),
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
    /// A write of the leader lands, its answer is lost.
    LoseAnswer(Write),
    /// A write of the leader is late and the leader gives it up.
    GiveUp(Write),
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
    /// The acknowledgement is late and the gateway gives it up.
    GiveUpAcknowledging(usize),
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
            Write::Lease(i, lease, over) => {
                if self.leases[*i] != *over {
                    return Ok(false);
                }
                self.leases[*i] = lease.clone();
            }
        }
        Ok(true)
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
                    (gateway.held, gateway.unsaid) = (Some(new), true);
                    match self.left {
                        Mishaps { slow_acknowledgements: 0, late_acknowledgements: 0, .. } => self.say(i),
                        Mishaps { slow_acknowledgements: 0, .. } => {}
                        _ => self.left.slow_acknowledgements -= 1,
                    }
                }
            }
            Action::Acknowledge(i) => self.say(i),
            Action::GiveUpAcknowledging(i) => {
                self.left.late_acknowledgements -= 1;
                self.strays.push(Write::Lease(i, self.lease_of(i), self.leases[i].clone()));
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

    /// A gateway writes what it holds, and is answered.
    fn say(&mut self, i: usize) {
        self.leases[i] = self.lease_of(i);
        self.gateways[i].unsaid = false;
    }

    fn lease_of(&self, i: usize) -> Lease {
        Lease { pod: self.gateways[i].pod, held: self.gateways[i].held.clone() }
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
        if left.lost_answers > 0 {
            let writes = pending.iter().chain(idle.iter().map(|(_, write)| write));
            found.extend(writes.flat_map(|w| [Action::LoseAnswer(w.clone()), Action::GiveUp(w.clone())]));
        }
        found.extend(idle.into_iter().map(|(action, _)| action));
        if left.takeovers > 0 {
            let leaves = std::iter::once(None).chain(writes.into_iter().map(Some));
            found.extend(leaves.map(|leaves| Action::TakeOver { leaves }));
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
            if gateway.unsaid {
                found.push(Action::Acknowledge(i));
                if left.late_acknowledgements > 0 {
                    found.push(Action::GiveUpAcknowledging(i));
                }
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
            Action::LoseAnswer(write) | Action::GiveUp(write) => {
                world.left.lost_answers -= 1;
                world.leader.next = None;
                match action {
                    Action::LoseAnswer(_) => drop(world.land(write)?),
                    _ => world.strays.push(write.clone()),
                }
                world.unknown(write);
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
        world.leader.looks |= self.leases != world.leases || world.has_slices_since(self);
        // As the collector does whenever it looks.
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
                | Action::LoseAnswer(_)
                | Action::GiveUp(_)
                | Action::GiveUpAcknowledging(_)
                | Action::TakeOver { .. }
                | Action::Stray(_)
                | Action::Restart(_)
                | Action::Replace(_)
                | Action::DeleteHead
        )
    }

    /// Every promise about the end: all hold the last wish and say so, the status says so, nothing is left over, nothing is
    /// left to do.
    fn is_done(&self) -> bool {
        let wanted = content(self.wish);
        let Some(head) = &self.head else { return false };
        let named =
            |name: &String| head.spec.slices.contains(name) || head.spec.previous_slices.contains(name);
        let table = Held { generation: head.spec.generation, hash: head.spec.hash.clone() };
        let ids = self.vault.iter().flat_map(|vault| vault.sizes.keys());
        let fulfilled = head.spec.hash == wanted.spec.hash
            && self.gateways.iter().all(|gateway| gateway.held.as_ref() == Some(&table))
            && self.leases.iter().all(|lease| lease.held.as_ref() == Some(&table))
            && self.claim.as_ref().is_some_and(|claim| claim.wish == self.wish)
            && self.slices.keys().all(named)
            && ids.eq(wanted.credentials.iter());
        fulfilled && self.actions().iter().all(|action| !Self::is_progress(action))
    }

    fn canonical(self) -> Self {
        self.made_alike()
    }
}
