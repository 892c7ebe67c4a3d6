//! Watches: what changes in the cluster, reduced to what the operator may know, as one stream of [`Change`]s.
//!
//! Promises: an object that can't be read is skipped and logged, the others of its kind go on; of a Secret only identity and
//! version are kept (its metadata may carry the values in an annotation, so that is dropped here, at the door); a watch that
//! breaks is taken up again with back-off and jitter; one whose connection is dead is noticed within 20 s; a list
//! arrives as one [`Delta::Replace`], so that an object which was deleted meanwhile is noticed; what tables are compiled
//! from is listed anew when that is asked for, so that a leader never begins with less than the one before it knew.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{ObjectMeta, PartialObjectMeta};
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::resources::{
    Assistant, PhoneNumber, RoutingSlice, RoutingTable, SipGateway, SipTrunk, TransferDestination,
};
use crate::routing::ack::{self, Acknowledgement};
use crate::routing::protocol::Version;
use crate::routing::table::ObjectKey;

use super::metrics::Metrics;
use super::names;
use super::scale::DELETION_COST;

/// Seconds of a watch request. One that is not ended by the server 5 s after that hangs on a dead connection and is taken
/// up again: a longer time is a longer blindness when a node in between vanishes; a new request costs next to nothing.
const WATCH_SECONDS: u32 = 15;

/// What a watch says about objects of one kind.
#[derive(Clone, Debug)]
pub enum Delta<T> {
    /// The object is there, as given.
    Put(ObjectKey, T),
    /// The object is gone.
    Gone(ObjectKey),
    /// These objects are there, and no others.
    Replace(BTreeMap<ObjectKey, T>),
}

/// What changed.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Change {
    Assistants(Delta<Arc<Assistant>>),
    Numbers(Delta<Arc<PhoneNumber>>),
    Trunks(Delta<Arc<SipTrunk>>),
    Destinations(Delta<Arc<TransferDestination>>),
    Gateways(Delta<Arc<SipGateway>>),
    Tables(Delta<Arc<RoutingTable>>),
    Slices(Delta<SliceFacts>),
    /// All that is kept of Secrets.
    Secrets(Delta<Version>),
    /// Labels; the key's namespace is empty.
    Namespaces(Delta<BTreeMap<String, String>>),
    Pods(Delta<PodFacts>),
    Leases(Delta<LeaseFacts>),
    /// Objects that were made for a gateway.
    Owned(OwnedKind, Delta<OwnedFacts>),
    /// A list of one kind is complete that was begun after it was asked for this many times.
    ListedAnew {
        /// The kind.
        kind: String,
        /// How often it was asked for.
        round: u64,
    },
}

/// A RoutingSlice without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceFacts {
    /// The SipGateway that it belongs to, by label.
    pub gateway: String,
    /// The precondition of its deletion.
    pub version: Version,
}

/// What counts of a gateway's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Its SipGateway, by label.
    pub gateway: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Condition `Ready`.
    pub ready: bool,
    /// It is being deleted: it serves until its last call is gone.
    pub terminating: bool,
    /// It has ended and will not run again.
    pub finished: bool,
    /// Address of its node.
    pub host_ip: Option<String>,
    /// Why no node takes it, as the scheduler says.
    pub unschedulable: Option<String>,
    /// Its annotation [`DELETION_COST`].
    pub deletion_cost: Option<String>,
}

/// What a gateway pod's Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseFacts {
    /// The pod's uid.
    pub holder: String,
    /// Its SipGateway, by label.
    pub gateway: String,
    /// What the pod says.
    pub said: Acknowledgement,
}

/// The kinds that are made for a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum OwnedKind {
    Deployment,
    NetworkPolicy,
    PodDisruptionBudget,
    Role,
    RoleBinding,
    Service,
    ServiceAccount,
}

/// What counts of an object that was made for a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedFacts {
    /// Its SipGateway, by label.
    pub gateway: String,
    /// Identity and version.
    pub version: Version,
    /// `metadata.generation`, for kinds that have one: a write to the status leaves it as it is.
    pub generation: Option<i64>,
    /// Of a Deployment, why Kubernetes admits no more pods of it.
    pub pods_refused: Option<String>,
}

impl OwnedFacts {
    /// From metadata.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            gateway: label(metadata, ack::GATEWAY_LABEL),
            version: version(metadata),
            generation: metadata.generation.filter(|generation| *generation > 0),
            pods_refused: None,
        }
    }
}

/// Everything that is watched.
pub struct Watches {
    /// The client.
    pub client: Client,
    /// The one namespace that is watched; all when `None`.
    pub namespace: Option<String>,
    /// Where changes go.
    pub changes: mpsc::Sender<Change>,
    /// How often everything that tables are compiled from was asked to be listed anew.
    pub rounds: watch::Receiver<u64>,
    /// Counts what went wrong.
    pub metrics: Arc<Metrics>,
    /// Ends the watches.
    pub stop: CancellationToken,
}

impl Watches {
    /// Starts every watch; each says [`Delta::Replace`] once it has listed.
    pub fn start(self, tasks: &TaskTracker) {
        let own = watcher::Config::default();
        let ours = own.clone().labels(&format!(
            "{},{}={}",
            ack::GATEWAY_LABEL,
            ack::MANAGED_BY_LABEL,
            names::MANAGED_BY
        ));
        let theirs = own.clone().labels(&format!(
            "{},{}={}",
            ack::GATEWAY_LABEL,
            ack::MANAGED_BY_LABEL,
            ack::MANAGED_BY
        ));

        self.objects(tasks, &own, Change::Assistants);
        self.objects(tasks, &own, Change::Numbers);
        self.objects(tasks, &own, Change::Trunks);
        self.objects(tasks, &own, Change::Destinations);
        self.objects(tasks, &own, Change::Gateways);
        let versions = |secret: PartialObjectMeta<Secret>| Some(version(&secret.metadata));
        self.watch(tasks, &own, true, versions, Change::Secrets);
        self.watch::<DeserializeGuard<RoutingTable>, _>(tasks, &own, false, readable, Change::Tables);
        self.watch::<PartialObjectMeta<RoutingSlice>, _>(tasks, &own, false, slice_facts, Change::Slices);
        self.watch::<Pod, _>(tasks, &ours, false, pod_facts, Change::Pods);
        self.watch::<Lease, _>(tasks, &theirs, false, lease_facts, Change::Leases);
        self.watch(tasks, &ours, false, deployment_facts, |delta| {
            Change::Owned(OwnedKind::Deployment, delta)
        });
        self.owned::<NetworkPolicy>(tasks, &ours, OwnedKind::NetworkPolicy);
        self.owned::<PodDisruptionBudget>(tasks, &ours, OwnedKind::PodDisruptionBudget);
        self.owned::<Role>(tasks, &ours, OwnedKind::Role);
        self.owned::<RoleBinding>(tasks, &ours, OwnedKind::RoleBinding);
        self.owned::<Service>(tasks, &ours, OwnedKind::Service);
        self.owned::<ServiceAccount>(tasks, &ours, OwnedKind::ServiceAccount);
        self.namespaces(tasks, &own);
    }

    /// Number of kinds that are listed anew.
    pub fn inputs(&self) -> usize {
        6 + usize::from(self.namespace.is_none())
    }

    /// Namespaces are cluster-scoped: an operator of one namespace may not watch them, and needs no labels but that one's.
    fn namespaces(&self, tasks: &TaskTracker, config: &watcher::Config) {
        if let Some(namespace) = self.namespace.clone() {
            let labels = BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), namespace.clone())]);
            let only = BTreeMap::from([(ObjectKey::new("", namespace), labels)]);
            let changes = self.changes.clone();
            tasks.spawn(async move { changes.send(Change::Namespaces(Delta::Replace(only))).await });
            return;
        }
        let labels =
            |namespace: PartialObjectMeta<Namespace>| Some(namespace.metadata.labels.unwrap_or_default());
        self.follow(
            tasks,
            Api::<PartialObjectMeta<Namespace>>::all(self.client.clone()),
            config,
            true,
            labels,
            Change::Namespaces,
        );
    }

    /// Watches a kind that people write: an object that can't be read is left out and logged.
    fn objects<K>(&self, tasks: &TaskTracker, config: &watcher::Config, change: fn(Delta<Arc<K>>) -> Change)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        self.watch::<DeserializeGuard<K>, _>(tasks, config, true, readable, change);
    }

    fn owned<K>(&self, tasks: &TaskTracker, config: &watcher::Config, kind: OwnedKind)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Send + Sync + 'static,
    {
        let facts = |object: PartialObjectMeta<K>| Some(OwnedFacts::of(&object.metadata));
        self.watch(tasks, config, false, facts, move |delta| Change::Owned(kind, delta));
    }

    fn watch<K, T>(
        &self,
        tasks: &TaskTracker,
        config: &watcher::Config,
        anew: bool,
        reduce: impl Fn(K) -> Option<T> + Send + 'static,
        change: impl Fn(Delta<T>) -> Change + Send + 'static,
    ) where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
        T: Send + 'static,
    {
        let api = match &self.namespace {
            Some(namespace) => Api::<K>::namespaced(self.client.clone(), namespace),
            None => Api::<K>::all(self.client.clone()),
        };
        self.follow(tasks, api, config, anew, reduce, change);
    }

    fn follow<K, T>(
        &self,
        tasks: &TaskTracker,
        api: Api<K>,
        config: &watcher::Config,
        anew: bool,
        reduce: impl Fn(K) -> Option<T> + Send + 'static,
        change: impl Fn(Delta<T>) -> Change + Send + 'static,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
        T: Send + 'static,
    {
        let kind = K::kind(&()).into_owned();
        let (changes, stop, metrics) = (self.changes.clone(), self.stop.clone(), self.metrics.clone());
        let mut rounds = anew.then(|| self.rounds.clone());
        let config = config.clone().timeout(WATCH_SECONDS);
        tasks.spawn(async move {
            let mut listed = BTreeMap::new();
            loop {
                let round = rounds.as_mut().map(|rounds| *rounds.borrow_and_update());
                // A list is a read of what is there now, not of what a cache has.
                let mut events = Box::pin(watcher::watcher(api.clone(), config.clone()).default_backoff());
                loop {
                    let event = tokio::select! {
                        () = stop.cancelled() => return,
                        () = another(&mut rounds) => break,
                        event = events.next() => event,
                    };
                    let delta = match event {
                        Some(Ok(event)) => fold(event, &mut listed, &reduce),
                        Some(Err(error)) => {
                            metrics.watch_error(&kind);
                            warn!("watch of {kind}: {error}; it is taken up again");
                            None
                        }
                        None => return,
                    };
                    let Some(delta) = delta else { continue };
                    let complete = matches!(delta, Delta::Replace(_));
                    if changes.send(change(delta)).await.is_err() {
                        return;
                    }
                    if let Some(round) = round.filter(|_| complete)
                        && changes.send(Change::ListedAnew { kind: kind.clone(), round }).await.is_err()
                    {
                        return;
                    }
                }
            }
        });
    }
}

/// Returns when everything is asked to be listed anew once more.
async fn another(rounds: &mut Option<watch::Receiver<u64>>) {
    if let Some(rounds) = rounds
        && rounds.changed().await.is_ok()
    {
        return;
    }
    // Nobody asks (any more).
    std::future::pending().await
}

/// One event of a watch as a delta; what a list brings is gathered until it is complete.
pub fn fold<K: Resource, T>(
    event: Event<K>,
    listed: &mut BTreeMap<ObjectKey, T>,
    reduce: impl Fn(K) -> Option<T>,
) -> Option<Delta<T>> {
    match event {
        Event::Init => {
            listed.clear();
            None
        }
        Event::InitApply(object) => {
            let key = key(&object);
            if let Some(facts) = reduce(object) {
                listed.insert(key, facts);
            }
            None
        }
        Event::InitDone => Some(Delta::Replace(std::mem::take(listed))),
        Event::Apply(object) => {
            let key = key(&object);
            Some(match reduce(object) {
                Some(facts) => Delta::Put(key, facts),
                None => Delta::Gone(key),
            })
        }
        Event::Delete(object) => Some(Delta::Gone(key(&object))),
    }
}

fn key<K: Resource>(object: &K) -> ObjectKey {
    ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any())
}

fn version(metadata: &ObjectMeta) -> Version {
    Version {
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
    }
}

fn label(metadata: &ObjectMeta, name: &str) -> String {
    metadata.labels.as_ref().and_then(|labels| labels.get(name)).cloned().unwrap_or_default()
}

/// The object without what nobody reads, or nothing (and a log line) when this version can't read it.
fn readable<K: Resource<DynamicType = ()>>(guard: DeserializeGuard<K>) -> Option<Arc<K>> {
    match guard.0 {
        Ok(mut object) => {
            let metadata = object.meta_mut();
            metadata.managed_fields = None;
            if let Some(annotations) = metadata.annotations.as_mut() {
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            }
            Some(Arc::new(object))
        }
        Err(invalid) => {
            warn!(
                "{} {}/{} can't be read and is left out: {}; is its CustomResourceDefinition of another version?",
                K::kind(&()),
                invalid.metadata.namespace.as_deref().unwrap_or_default(),
                invalid.metadata.name.as_deref().unwrap_or_default(),
                invalid.error
            );
            None
        }
    }
}

fn slice_facts(slice: PartialObjectMeta<RoutingSlice>) -> Option<SliceFacts> {
    Some(SliceFacts {
        gateway: label(&slice.metadata, ack::GATEWAY_LABEL),
        version: version(&slice.metadata),
    })
}

fn deployment_facts(deployment: Deployment) -> Option<OwnedFacts> {
    let conditions = deployment.status.and_then(|status| status.conditions).unwrap_or_default();
    let failure = conditions.into_iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True");
    let pods_refused = failure.and_then(|failure| failure.message);
    Some(OwnedFacts { pods_refused, ..OwnedFacts::of(&deployment.metadata) })
}

fn pod_facts(mut pod: Pod) -> Option<PodFacts> {
    let deletion_cost = pod.metadata.annotations.as_mut().and_then(|all| all.remove(DELETION_COST));
    let status = pod.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let unschedulable = conditions
        .into_iter()
        .find(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("Unschedulable"));
    Some(PodFacts {
        gateway: label(&pod.metadata, ack::GATEWAY_LABEL),
        uid: pod.metadata.uid.unwrap_or_default(),
        ready,
        terminating: pod.metadata.deletion_timestamp.is_some(),
        finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        host_ip: status.host_ip,
        unschedulable: unschedulable.and_then(|unschedulable| unschedulable.message),
        deletion_cost,
    })
}

/// A Lease that can't be read counts as one that acknowledges nothing: its pod then shows as lagging.
fn lease_facts(lease: Lease) -> Option<LeaseFacts> {
    let gateway = label(&lease.metadata, ack::GATEWAY_LABEL);
    let said =
        Acknowledgement::parse(&lease.metadata.annotations.unwrap_or_default()).unwrap_or_else(|error| {
            warn!("Lease {}: {error}", lease.metadata.name.as_deref().unwrap_or_default());
            Acknowledgement::default()
        });
    let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
    Some(LeaseFacts { holder, gateway, said })
}
