//! The measure: what the same API server takes for a plain client's writes of objects like ours that nobody acts upon.
//!
//! The objects are of our kinds, with our schemas and rules, under another API group: the API server has the same work
//! with them, and nothing of ours watches them.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::{join_all, try_join_all};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use voicedock::resources::crds;

use crate::clients::{Crowd, Reported, api, resource, within};
use crate::objects::{KINDS, NUMBER, Object, Office};
use crate::support::api_server::{ApiServer, SOON};

/// API group of the bare objects.
const GROUP: &str = "bare.voicedock.dev";
/// Hops of a chain.
pub const HOPS: usize = 4;

/// Bare objects in a namespace of their own.
pub struct Bare {
    client: Client,
    namespace: String,
    /// What the watch shows of numbers: name, and generation that the status speaks of.
    seen: mpsc::UnboundedReceiver<(String, i64, Instant)>,
    chains: usize,
    _watch: JoinSet<()>,
}

impl Bare {
    /// Defines the kinds and begins to watch.
    pub async fn set(server: &ApiServer) -> Self {
        define(&server.client).await;
        let (client, namespace) = (server.client.clone(), server.namespace("bare").await);
        let (tell, mut seen) = mpsc::unbounded_channel();
        let numbers = Api::<Reported>::namespaced_with(client.clone(), &namespace, &resource(GROUP, NUMBER));
        let mut watch = JoinSet::new();
        // Something to be seen, so that a chain begins with a watch that stands.
        write(&client, &namespace, &like_number("first")).await;
        watch.spawn(async move {
            let mut events =
                watcher(numbers, watcher::Config::default()).default_backoff().applied_objects().boxed();
            while let Some(event) = events.next().await {
                let now = Instant::now();
                let Ok(object) = event else { continue };
                let observed = object.status.as_ref().map_or(-1, |status| status.observed_generation);
                if tell.send((object.name_any(), observed, now)).is_err() {
                    return;
                }
            }
        });
        within(SOON, "the first event of the bare watch", seen.recv()).await;
        Self { client, namespace, seen, chains: 0, _watch: watch }
    }

    /// A chain: create → watch → status → watch → status → watch → status → watch. Each write is begun when the watch has told of
    /// the one before. Returns the time from the beginning to the end of each hop.
    pub async fn chain(&mut self) -> [Duration; HOPS] {
        self.chains += 1;
        let object = like_number(&format!("chain-{}", self.chains));
        let api = api(&self.client, &self.namespace, GROUP, NUMBER);
        let mut times = [Duration::ZERO; HOPS];
        let mut writes = JoinSet::new();
        let start = Instant::now();
        for (hop, time) in times.iter_mut().enumerate() {
            let (api, written) = (api.clone(), object.clone());
            // Generation -1 is what an object begins with.
            let observed = if hop == 0 { -1 } else { hop as i64 };
            writes.spawn(async move {
                if hop == 0 {
                    create(&api, &written).await;
                } else {
                    report(&api, &written, observed).await;
                }
            });
            let event = async {
                while let Some((name, shown, at)) = self.seen.recv().await {
                    if name == object.name && shown == observed {
                        return at;
                    }
                }
                panic!("the bare watch ended")
            };
            *time = within(SOON, "the event of a bare write", event).await - start;
        }
        writes.join_all().await;
        times
    }

    /// Creates the objects of an office and writes the status of each once; how long that takes a client with
    /// [`CONNECTIONS`](crate::clients::CONNECTIONS).
    pub async fn bulk(&self, crowd: &Crowd, office: Office) -> Duration {
        let start = Instant::now();
        crowd
            .all(office.beyond(None), async |client, object| write(client, &self.namespace, &object).await)
            .await;
        start.elapsed()
    }
}

fn like_number(name: &str) -> Object {
    let spec = json!({
        "number": "+31201234567", "assistantRef": { "name": "support" }, "transferTrunkRef": { "name": "office" },
    });
    Object { kind: NUMBER, name: name.to_owned(), spec }
}

async fn write(client: &Client, namespace: &str, object: &Object) {
    let api = api(client, namespace, GROUP, object.kind);
    create(&api, object).await;
    report(&api, object, 1).await;
}

async fn create(api: &Api<DynamicObject>, object: &Object) {
    let new =
        DynamicObject::new(&object.name, &resource(GROUP, object.kind)).data(json!({ "spec": object.spec }));
    let created = api.create(&PostParams::default(), &new).await;
    created.unwrap_or_else(|error| panic!("a bare {} can't be created: {error}", object.kind.0));
}

/// Writes a status as the operator's.
async fn report(api: &Api<DynamicObject>, object: &Object, observed: i64) {
    let patch = Patch::Merge(json!({ "status": status(observed) }));
    let written = api.patch_status(&object.name, &PatchParams::default(), &patch).await;
    written
        .unwrap_or_else(|error| panic!("the status of a bare {} can't be written: {error}", object.kind.0));
}

fn status(observed: i64) -> Value {
    let conditions = [
        ("Accepted", "Accepted", "The spec makes sense"),
        ("ResolvedRefs", "Resolved", "Everything that it names was found"),
        ("Programmed", "Programmed", "Every ready gateway pod routes it"),
        ("Ready", "Ready", "All conditions hold"),
    ];
    let conditions = conditions.map(|(type_, reason, message)| {
        json!({
            "type": type_, "status": "True", "observedGeneration": observed, "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    });
    json!({ "observedGeneration": observed, "conditions": conditions })
}

/// Our definitions under the other group.
async fn define(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let ours = crds::all().into_iter();
    let loaded = ours.filter(|definition| KINDS.iter().any(|kind| kind.1 == definition.spec.names.plural));
    let bare: Vec<_> = loaded
        .map(|mut definition| {
            definition.metadata.name = Some(format!("{}.{GROUP}", definition.spec.names.plural));
            definition.spec.group = GROUP.to_owned();
            definition.spec.names.short_names = None;
            definition.spec.names.categories = None;
            definition
        })
        .collect();
    let params = PostParams::default();
    try_join_all(bare.iter().map(|definition| api.create(&params, definition)))
        .await
        .unwrap_or_else(|error| panic!("a definition of a bare kind is refused: {error}"));
    let established = bare.iter().map(async |definition| {
        let name = definition.name_any();
        let established = await_condition(api.clone(), &name, conditions::is_crd_established());
        within(SOON, "a definition of a bare kind to be established", established)
            .await
            .expect("it can be watched");
    });
    join_all(established).await;
}
