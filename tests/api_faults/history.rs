//! Everything that happens in a namespace, in the order in which it happens.
//!
//! One watch a kind, over all namespaces, from before anything is written in them. The API server counts the writes of all
//! kinds in one sequence, so that what was there at any moment is known exactly and not sampled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::sync::{OnceCell, watch};
use voicedock::resources::{
    Assistant, PhoneNumber, RoutingSlice, RoutingTable, SipGateway, SipTrunk, TransferDestination,
};

use crate::stage::Stage;
use crate::world::World;

/// How long a state may take to come: many scenes share the API server, and silent watches are noticed after 20 s.
pub const PATIENCE: Duration = Duration::from_secs(90);

static RECORDER: OnceCell<Arc<Recorder>> = OnceCell::const_new();

/// One write.
#[derive(Clone, Debug)]
pub struct Event {
    pub revision: u64,
    pub kind: String,
    pub name: String,
    /// The object as it was written; as it was last if it was deleted.
    pub object: DynamicObject,
    pub deleted: bool,
}

/// What happened in a namespace, and what is there now.
pub struct History {
    known: Arc<Mutex<Known>>,
    news: watch::Receiver<()>,
}

struct Known {
    events: Vec<Event>,
    world: World,
    news: watch::Sender<()>,
}

/// The histories of all namespaces.
#[derive(Default)]
struct Recorder {
    namespaces: Mutex<BTreeMap<String, Arc<Mutex<Known>>>>,
}

fn kinds() -> [ApiResource; 10] {
    [
        ApiResource::erase::<RoutingTable>(&()),
        ApiResource::erase::<RoutingSlice>(&()),
        ApiResource::erase::<Secret>(&()),
        ApiResource::erase::<Lease>(&()),
        ApiResource::erase::<Pod>(&()),
        ApiResource::erase::<SipGateway>(&()),
        ApiResource::erase::<SipTrunk>(&()),
        ApiResource::erase::<TransferDestination>(&()),
        ApiResource::erase::<Assistant>(&()),
        ApiResource::erase::<PhoneNumber>(&()),
    ]
}

impl History {
    /// Of a namespace in which nothing was written yet.
    pub async fn of(stage: &Stage) -> Self {
        let recorder = RECORDER.get_or_init(async || Recorder::start(stage).await).await;
        let (tell, news) = watch::channel(());
        let world = World::of(&stage.namespace);
        let known = Arc::new(Mutex::new(Known { events: Vec::new(), world, news: tell }));
        recorder.namespaces.lock().unwrap().insert(stage.namespace.clone(), known.clone());
        Self { known, news }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    /// Waits until the world is as it should be; `look` says what is still missing.
    pub async fn until(&self, look: impl Fn(&World) -> Result<(), String>) -> Result<(), String> {
        let mut news = self.news.clone();
        let found = async {
            loop {
                news.mark_unchanged();
                if look(&self.known().world).is_ok() {
                    return;
                }
                let _ = news.changed().await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.or_else(|_| {
            look(&self.known().world).map_err(|missing| format!("after {PATIENCE:?}, {missing}"))
        })
    }

    /// Waits until everything is known that has been written by now of the kinds that `is_wanted` by their plurals. Returns a
    /// revision up to which nothing of them is missing.
    pub async fn catch_up(&self, stage: &Stage, is_wanted: impl Fn(&str) -> bool) -> Result<u64, String> {
        let lists = kinds().into_iter().filter(|kind| is_wanted(&kind.plural)).map(async |kind| {
            let api = Api::<DynamicObject>::namespaced_with(stage.client.clone(), &stage.namespace, &kind);
            (kind.kind, api.list_metadata(&ListParams::default()).await.unwrap())
        });
        let mut complete = u64::MAX;
        for (kind, list) in join_all(lists).await {
            let now = revision(list.metadata.resource_version.as_deref());
            complete = complete.min(now);
            let there: BTreeMap<String, u64> = (list.items.iter())
                .map(|object| (object.name_any(), revision(object.metadata.resource_version.as_deref())))
                .collect();
            self.until(|world| {
                let (seen, newest) = world.versions(&kind);
                let arrived = there.values().all(|at| *at <= newest);
                let gone = seen.iter().all(|(name, seen)| *seen > now || there.contains_key(name));
                let all = arrived && gone;
                all.then_some(()).ok_or_else(|| format!("of {kind} only {seen:?} of {there:?}"))
            })
            .await?;
        }
        Ok(complete)
    }

    /// The events after a revision and up to another, in order.
    pub fn between(&self, after: u64, up_to: u64) -> Vec<Event> {
        let known = self.known();
        let wanted = |event: &&Event| after < event.revision && event.revision <= up_to;
        let mut events: Vec<_> = known.events.iter().filter(wanted).cloned().collect();
        drop(known);
        events.sort_by_key(|event| event.revision);
        events
    }
}

impl Recorder {
    /// Starts watching, in a thread of its own: tests come and go.
    async fn start(stage: &Stage) -> Arc<Self> {
        let recorder = Arc::new(Self::default());
        let (config, recording) = (stage.config(), recorder.clone());
        let (tell, started) = tokio::sync::oneshot::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let client = Client::try_from(config.await).unwrap();
                let mut watches = Vec::new();
                for kind in kinds() {
                    let api = Api::<DynamicObject>::all_with(client.clone(), &kind);
                    let first = api.watch(&WatchParams::default(), "").await.unwrap().boxed();
                    watches.push(recording.clone().record(kind, api, first));
                }
                tell.send(()).unwrap();
                join_all(watches).await;
            });
        });
        started.await.expect("it watches");
        recorder
    }

    async fn record(
        self: Arc<Self>,
        kind: ApiResource,
        api: Api<DynamicObject>,
        mut events: futures::stream::BoxStream<'static, kube::Result<WatchEvent<DynamicObject>>>,
    ) {
        let mut version = String::new();
        loop {
            while let Some(event) = events.next().await {
                let (object, deleted) = match event.unwrap() {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                    WatchEvent::Deleted(object) => (object, true),
                    WatchEvent::Bookmark(bookmark) => {
                        version = bookmark.metadata.resource_version;
                        continue;
                    }
                    WatchEvent::Error(status) => panic!("the watch of {}: {status:?}", kind.kind),
                };
                version = object.resource_version().unwrap_or_default();
                self.take_in(&kind.kind, object, deleted);
            }
            events = api.watch(&WatchParams::default(), &version).await.unwrap().boxed();
        }
    }

    fn take_in(&self, kind: &str, object: DynamicObject, deleted: bool) {
        let namespace = object.namespace().unwrap_or_default();
        let Some(known) = self.namespaces.lock().unwrap().get(&namespace).cloned() else { return };
        let revision = revision(object.metadata.resource_version.as_deref());
        let event = Event { revision, kind: kind.to_owned(), name: object.name_any(), object, deleted };
        let mut known = known.lock().unwrap();
        known.world.take_in(&event);
        known.events.push(event);
        known.news.send_replace(());
    }
}

impl Event {
    /// What a person needs to see of it.
    pub fn line(&self) -> String {
        let data = &self.object.data;
        let what = match self.kind.as_str() {
            _ if self.deleted => "deleted".to_owned(),
            "RoutingTable" => {
                let spec = &data["spec"];
                format!(
                    "generation {} {} after {}; {}",
                    spec["generation"],
                    spec["slices"],
                    spec["previousSlices"],
                    said(data)
                )
            }
            "RoutingSlice" => String::new(),
            "Lease" => format!("{:?}", self.object.annotations()),
            "Secret" => {
                format!("{:?}", data["data"].as_object().map(|data| data.keys().cloned().collect::<Vec<_>>()))
            }
            _ => format!("generation {:?}; {}", self.object.metadata.generation, said(data)),
        };
        short(&format!("{} {} {} {what}", self.revision, self.kind, self.name))
    }
}

/// Hashes cut to what tells them apart.
pub fn short(text: &str) -> String {
    let is_end = |c: char| !c.is_ascii_hexdigit();
    text.split_inclusive(is_end)
        .map(|word| {
            let hash = word.trim_end_matches(is_end);
            if hash.len() < 20 { word.to_owned() } else { word.replace(hash, &hash[..6]) }
        })
        .collect()
}

/// What a status says.
fn said(data: &Value) -> String {
    let conditions = data["status"]["conditions"].as_array().into_iter().flatten();
    let said = conditions.map(|condition| {
        format!(
            "{}={} {} at {}",
            condition["type"], condition["status"], condition["reason"], condition["observedGeneration"]
        )
    });
    said.collect::<Vec<_>>().join(", ").replace('"', "")
}

fn revision(resource_version: Option<&str>) -> u64 {
    resource_version.unwrap_or_default().parse().unwrap_or_default()
}
