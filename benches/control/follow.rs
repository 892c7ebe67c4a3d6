//! What the bench sees of the API server, each thing with the moment at which it was seen: in a watch, as others see it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::time::Instant;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::task::JoinSet;
use voicedock::resources::{RoutingSlice, RoutingTable};
use voicedock::routing::ack::{self, Acknowledgement};

use crate::clients::{OURS, Reported, resource};
use crate::objects::{KINDS, Kind};

/// Watches objects and notes in `state` what each version of them tells.
fn follow<K, S>(
    tasks: &mut JoinSet<()>,
    api: Api<K>,
    config: watcher::Config,
    state: watch::Sender<S>,
    mut note: impl FnMut(&mut S, K, Instant) + Send + 'static,
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    S: Send + Sync + 'static,
{
    let mut events = Box::pin(watcher(api, config).default_backoff());
    tasks.spawn(async move {
        while let Some(event) = events.next().await {
            let now = Instant::now();
            match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => {
                    state.send_modify(|state| note(state, object, now));
                }
                Ok(Event::Init | Event::InitDone | Event::Delete(_)) => {}
                Err(error) => eprintln!("a watch of the bench broke and is taken up again: {error}"),
            }
        }
    });
}

/// Which table generations the gateway pods acknowledge.
#[derive(Debug, Default)]
pub struct Acknowledged {
    by_pod: BTreeMap<String, i64>,
    pods: usize,
    /// When the lowest of all pods reached a generation; both only grow.
    reached: Vec<(i64, Instant)>,
}

impl Acknowledged {
    /// Of so many pods.
    pub fn of(pods: usize) -> Self {
        Self { pods, ..Self::default() }
    }

    /// Follows the Leases.
    pub fn follow(
        self,
        tasks: &mut JoinSet<()>,
        client: &Client,
        namespace: &str,
        gateway: &str,
    ) -> watch::Receiver<Self> {
        let (state, seen) = watch::channel(self);
        let config = watcher::Config::default().labels(&ack::selector(gateway));
        follow(
            tasks,
            Api::<Lease>::namespaced(client.clone(), namespace),
            config,
            state,
            |state, lease, now| {
                let said = Acknowledgement::parse(lease.annotations()).unwrap_or_default();
                state.by_pod.insert(lease.name_any(), said.table.map_or(0, |table| table.generation));
                let lowest = state.lowest();
                if state.reached.last().is_none_or(|(reached, _)| *reached < lowest) {
                    state.reached.push((lowest, now));
                }
            },
        );
        seen
    }

    /// The generation that every pod holds; 0 until all have one.
    pub fn lowest(&self) -> i64 {
        if self.by_pod.len() < self.pods {
            0
        } else {
            self.by_pod.values().copied().min().unwrap_or_default()
        }
    }

    /// When every pod held `generation` or a newer one.
    pub fn when(&self, generation: i64) -> Option<Instant> {
        let first = self.reached.partition_point(|(reached, _)| *reached < generation);
        self.reached.get(first).map(|(_, at)| *at)
    }
}

/// Which objects are `Ready`.
#[derive(Debug, Default)]
pub struct Readiness {
    /// At which generation, and since when.
    ready: HashMap<(Kind, String), (i64, Instant)>,
}

impl Readiness {
    /// Follows all kinds that are loaded.
    pub fn follow(tasks: &mut JoinSet<()>, client: &Client, namespace: &str) -> watch::Receiver<Self> {
        let (state, seen) = watch::channel(Self::default());
        for kind in KINDS {
            let api = Api::<Reported>::namespaced_with(client.clone(), namespace, &resource(OURS, kind));
            follow(tasks, api, watcher::Config::default(), state.clone(), move |state, object, now| {
                let Some(generation) = object.status.as_ref().and_then(|status| status.ready_at()) else {
                    return;
                };
                let known = state.ready.entry((kind, object.name_any())).or_insert((generation, now));
                if known.0 < generation {
                    *known = (generation, now);
                }
            });
        }
        seen
    }

    /// Objects that are `Ready`, or were once.
    pub fn count(&self) -> usize {
        self.ready.len()
    }

    /// When the last of them became so.
    pub fn last(&self) -> Option<Instant> {
        self.ready.values().map(|(_, at)| *at).max()
    }

    /// When an object was `Ready` at `generation`.
    pub fn when(&self, kind: Kind, name: &str, generation: i64) -> Option<Instant> {
        let (reached, at) = self.ready.get(&(kind, name.to_owned()))?;
        (*reached >= generation).then_some(*at)
    }
}

/// What is published: which slices hold what, which heads name which slices.
#[derive(Debug, Default)]
pub struct Published {
    /// Number and assistant, by the names of the slices that have them together.
    routes: HashMap<(String, String), BTreeSet<String>>,
    /// When a slice was seen, and when a head.
    pub slices: BTreeMap<String, Instant>,
    pub heads: BTreeMap<i64, Head>,
}

/// What a head says.
#[derive(Debug)]
pub struct Head {
    pub seen: Instant,
    slices: BTreeSet<String>,
    /// The assistants of numbers that have others than in the slices.
    amended: HashMap<String, String>,
}

impl Published {
    /// Follows slices and head of a gateway; of the slices that are written from now on.
    pub fn follow(
        tasks: &mut JoinSet<()>,
        client: &Client,
        namespace: &str,
        gateway: &str,
    ) -> watch::Receiver<Self> {
        let (state, seen) = watch::channel(Self::default());
        let slices = Api::<RoutingSlice>::namespaced(client.clone(), namespace);
        follow(tasks, slices, watcher::Config::default(), state.clone(), |state, slice, now| {
            let name = slice.name_any();
            for route in slice.spec.content["numbers"].as_object().into_iter().flat_map(routes) {
                state.routes.entry(route).or_default().insert(name.clone());
            }
            state.slices.insert(name, now);
        });
        let heads = Api::<RoutingTable>::namespaced(client.clone(), namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={gateway}"));
        follow(tasks, heads, config, state, |state, head, now| {
            state.heads.entry(head.spec.generation).or_insert_with(|| Head {
                seen: now,
                slices: head.spec.slices.iter().cloned().collect(),
                amended: head.spec.amendments.iter().flat_map(|amendment| routes(&amendment.rows)).collect(),
            });
        });
        seen
    }

    /// The first generation after `before` that routes a number to an assistant.
    pub fn first(&self, number: &str, assistant: &str, before: i64) -> Option<i64> {
        let slices = self.routes.get(&(number.to_owned(), assistant.to_owned()));
        let mut heads = self.heads.range(before + 1..);
        let has = |head: &Head| match head.amended.get(number) {
            Some(amended) => amended == assistant,
            None => slices.is_some_and(|slices| !head.slices.is_disjoint(slices)),
        };
        heads.find(|(_, head)| has(head)).map(|(generation, _)| *generation)
    }
}

/// Numbers and the names of their assistants.
fn routes(rows: &Map<String, Value>) -> impl Iterator<Item = (String, String)> {
    rows.iter().filter_map(|(number, entry)| {
        let assistant = entry["assistant"].as_str()?.rsplit('/').next()?;
        Some((number.clone(), assistant.to_owned()))
    })
}
