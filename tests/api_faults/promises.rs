//! The promises of `routing-table.md`, held against everything that happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use voicedock::gateway::snapshot::Snapshot;
use voicedock::resources::RoutingTable;
use voicedock::resources::conditions::{ConditionStatus, condition};
use voicedock::resources::routing_table::RoutingTableSpec;
use voicedock::routing::ack::Held;
use voicedock::routing::slice;
use voicedock::routing::table::Table;

use crate::history::Event;
use crate::stage::GatewayPod;
use crate::world::World;

/// What was broken, each as a sentence.
pub type Broken = Arc<Mutex<Vec<String>>>;

/// A look at a history from its beginning: what it breaks of the promises. A head never names what isn't there; generations
/// only grow and each is one table; a gateway acknowledges only what was published; `Programmed=True` is said only of what
/// every ready pod has acknowledged.
#[derive(Default)]
pub struct Look {
    world: World,
    heads: BTreeMap<i64, RoutingTableSpec>,
    tables: BTreeMap<i64, Table>,
    /// The newest that each pod has ever said to hold: a pod never goes back, which [`watch_over`] sees for itself.
    held: BTreeMap<String, i64>,
    broken: Vec<String>,
}

impl Look {
    /// At a namespace.
    pub fn at(namespace: &str) -> Self {
        Self { world: World::of(namespace), ..Self::default() }
    }

    /// Takes in what happened next, in order; returns what it breaks, each as a sentence.
    pub fn take_in(&mut self, events: &[Event]) -> Vec<String> {
        for event in events {
            let before = self.broken.len();
            self.world.take_in(event);
            match event.kind.as_str() {
                "RoutingTable" => {
                    self.generation();
                    self.complete();
                    self.told_of_head();
                }
                "RoutingSlice" | "Secret" => self.complete(),
                "Lease" => self.acknowledged(),
                _ => self.told_of(event),
            }
            for broken in &mut self.broken[before..] {
                *broken = format!("revision {}: {broken}", event.revision);
            }
        }
        std::mem::take(&mut self.broken)
    }

    fn generation(&mut self) {
        let Some(RoutingTable { spec, .. }) = &self.world.head else { return };
        let newest = self.heads.last_key_value().map_or(0, |(newest, _)| *newest);
        if spec.generation < newest {
            self.broken.push(format!("the head goes back from {newest} to {}", spec.generation));
        }
        match self.heads.get(&spec.generation) {
            Some(known) if known != spec => {
                self.broken.push(format!("generation {} is {spec:?} after {known:?}", spec.generation));
            }
            Some(_) => {}
            None => drop(self.heads.insert(spec.generation, spec.clone())),
        }
    }

    /// The head is complete at this moment.
    fn complete(&mut self) {
        match self.world.published() {
            Ok(Some((generation, table))) => drop(self.tables.insert(generation, table)),
            Ok(None) => {}
            Err(missing) => self.broken.push(missing),
        }
    }

    fn acknowledged(&mut self) {
        for (pod, held) in self.world.held() {
            let Some(Held { generation, hash }) = held else { continue };
            if self.heads.get(&generation).is_none_or(|head| head.hash != hash) {
                self.broken.push(format!("pod {pod} holds {generation} {hash}, which was never published"));
            }
            let newest = self.held.entry(pod.clone()).or_default();
            *newest = generation.max(*newest);
        }
    }

    /// The oldest generation that a ready pod holds, as far as pods have said.
    fn held_by_all(&self) -> Option<i64> {
        let ready = self.world.held();
        ready.keys().map(|pod| self.held.get(*pod).copied().unwrap_or_default()).min()
    }

    fn told_of_head(&mut self) {
        let Some(RoutingTable { metadata, status: Some(status), .. }) = &self.world.head else { return };
        let says = status.conditions.iter().any(|found| {
            found.type_ == condition::PROGRAMMED
                && found.status == ConditionStatus::True
                && Some(found.observed_generation) == metadata.generation
        });
        let held = self.held_by_all();
        if says && held < status.published_generation {
            self.broken.push(format!(
                "the head says Programmed at {:?} while a pod holds {held:?}",
                status.published_generation
            ));
        }
        if status.acknowledged_generation > held {
            self.broken.push(format!(
                "the head says that all pods hold {:?} while one holds {held:?}",
                status.acknowledged_generation
            ));
        }
    }

    /// What the status of an object says is so at this moment.
    fn told_of(&mut self, event: &Event) {
        let reports = self.world.reports().into_iter();
        let mut of_event = reports.filter(|report| {
            format!("{:?}", report.object.kind) == event.kind && report.object.key.name == event.name
        });
        let Some(report) = of_event.next().filter(|report| report.says(condition::PROGRAMMED)) else {
            return;
        };
        for pod in self.world.held().keys() {
            let held = self.held.get(*pod).copied().unwrap_or_default();
            let table = self.tables.get(&held);
            if !table.is_some_and(|table| self.world.is_in(&report.object, table)) {
                self.broken.push(format!(
                    "{:?} is Programmed at generation {} while pod {pod} holds table {held}: {table:?}",
                    report.object, report.generation
                ));
            }
        }
    }
}

/// Watches over what calls are routed by in a pod, at each switch: never an older generation, always exactly one compiled
/// table, with the credentials that it names and no others.
pub fn watch_over(pod: &GatewayPod, broken: Broken) -> impl Future<Output = ()> + use<> {
    let (name, snapshots, mut table) = (pod.name.clone(), pod.snapshot.clone(), pod.table.clone());
    async move {
        let mut newest = 0;
        while table.changed().await.is_ok() {
            let snapshot = snapshots.load_full();
            if snapshot.generation < newest {
                let back = format!("pod {name} goes back from {newest} to {}", snapshot.generation);
                broken.lock().unwrap().push(back);
            }
            newest = snapshot.generation;
            if newest > 0
                && let Err(mixed) = is_one(&snapshot)
            {
                broken.lock().unwrap().push(format!("pod {name} at generation {newest}: {mixed}"));
            }
        }
    }
}

fn is_one(snapshot: &Snapshot) -> Result<(), String> {
    let table = snapshot.index.table();
    let slices = slice::cut(table);
    if slice::table_hash(slices.iter().map(|slice| &*slice.hash)) != snapshot.hash {
        return Err(format!("the table is not the one of hash {}: {table:?}", snapshot.hash));
    }
    let named: BTreeSet<_> = table.trunks.values().filter_map(|trunk| trunk.credential.as_ref()).collect();
    let has: BTreeSet<_> = snapshot.credentials.keys().collect();
    (named == has).then_some(()).ok_or_else(|| format!("it names the credentials {named:?} and has {has:?}"))
}
