//! The gateways: for each, what is published, what is provisioned, how its pods are, and which of that work is due.
//!
//! One publication or collection and one provisioning of a gateway at a time; gateways don't wait for each other's
//! provisioning. What fails is tried again with back-off and shown in the statuses meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::{Client, ResourceExt};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::resources::SipGateway;
use crate::resources::conditions::reason;
use crate::routing::compile::{Finding, Kind, ObjectRef};
use crate::routing::index::GatewayTable;
use crate::routing::protocol::Version;
use crate::routing::table::ObjectKey;

use super::acknowledge::Roll;
use super::api::ApiError;
use super::attempts::Attempts;
use super::collect::{self, Useless};
use super::leader::Term;
use super::metrics::Metrics;
use super::names;
use super::provision::{self, Image, Provision, ProvisionError};
use super::publish::{self, Offer, Publication, PublishError};
use super::scaling::{Scaled, Scaling};
use super::spans::WorkSpan;
use super::state::{Loss, State};
use super::watch::OwnedKind;

/// Pause before a table is tried again whose Secret changed meanwhile.
const SECRET_PAUSE: Duration = Duration::from_millis(100);

/// Slices that are deleted in one go: a compile waits for it.
const BATCH: usize = 8;

/// A gateway's work.
#[derive(Default)]
pub struct Gateway {
    /// `None` while it is being worked on.
    publication: Option<Publication>,
    provision: Option<Provision>,
    /// Survives while `publication` is away.
    published: Published,
    roll: Roll,
    useless: Useless,
    publish: Attempts,
    /// What went while `publication` was away.
    losses: Vec<Loss>,
    /// Whether the head has to be sealed with the next publication.
    seal: bool,
    collect: Attempts,
    provisioning: Attempts,
    /// What the gateway was provisioned from: uid, generation and labels.
    provisioned_from: Option<(String, i64, BTreeMap<String, String>)>,
    scaling: Scaling,
    service: Option<Service>,
}

/// What is known of the published table.
#[derive(Clone, Debug, Default)]
struct Published {
    generation: Option<i64>,
    fullness: f64,
}

/// Work that has begun: what it comes to is given to [`Fleet::done`].
pub enum Work {
    /// Publish a table.
    Publish(publish::Job, Offer, Box<Publication>, Option<Instant>),
    /// Collect what is useless.
    Collect(publish::Job, Box<Publication>, Vec<(String, Version)>, bool),
    /// Make a gateway's objects.
    Provision(provision::Job, Box<Provision>),
}

/// What work came to.
pub enum Done {
    /// A table was published, or not.
    Published(ObjectKey, Box<Publication>, Option<Instant>, Result<bool, PublishError>),
    /// Useless slices were deleted, or not.
    Collected(ObjectKey, Box<Publication>, Result<(), PublishError>),
    /// A gateway's objects were made, or not.
    Provisioned(ObjectKey, Box<Provision>, Result<(), ProvisionError>),
}

impl Work {
    /// Does the work.
    pub async fn run(self) -> Done {
        match self {
            Self::Publish(job, offer, mut publication, since) => {
                let span = WorkSpan::begin("publish", "SipGateway", &job.key());
                let result = publication.publish(&job, offer).await;
                let said = |written: &bool| if *written { "written" } else { "unchanged" };
                let generation = publication.publisher.generation();
                span.end(generation, result.as_ref().map(said).map_err(|error| error as _));
                Done::Published(job.key(), publication, since, result)
            }
            Self::Collect(job, mut publication, ripe, prune) => {
                let span = WorkSpan::begin("collect", "SipGateway", &job.key());
                let result = collect::collect(&mut publication, &job, ripe, prune).await;
                span.end(None, result.as_ref().map(|()| "done").map_err(|error| error as _));
                Done::Collected(job.key(), publication, result)
            }
            Self::Provision(job, mut provision) => {
                let (key, generation) = (names::key(&*job.gateway), job.gateway.metadata.generation);
                let span = WorkSpan::begin("provision", "SipGateway", &key);
                let result = provision.apply(&job).await;
                span.end(generation, result.as_ref().map(|()| "done").map_err(|error| error as _));
                Done::Provisioned(key, provision, result)
            }
        }
    }
}

/// What beginning work takes.
pub struct Means<'a> {
    /// The client.
    pub client: &'a Client,
    /// The leader's term.
    pub term: &'a Term,
    /// Counters.
    pub metrics: &'a Arc<Metrics>,
    /// Image of gateway pods.
    pub image: &'a Image,
    /// How long useless slices are kept.
    pub grace: Duration,
}

/// What work that ended has changed.
#[derive(Default)]
pub struct News {
    /// A table was published (or found to be): at this gateway, at this generation.
    pub published: Option<(ObjectKey, i64)>,
    /// A Secret has to be read again.
    pub stale_secret: Option<ObjectKey>,
    /// The gateway's own statuses may differ now.
    pub gateway: Option<ObjectKey>,
    /// Statuses of all that the gateway holds may differ now.
    pub everything: bool,
    /// The gateway was scaled.
    pub scaled: Option<Scaled>,
}

/// All gateways.
#[derive(Default)]
pub struct Fleet {
    gateways: BTreeMap<ObjectKey, Gateway>,
}

impl Fleet {
    /// A gateway's roll.
    pub fn roll(&self, gateway: &ObjectKey) -> Option<&Roll> {
        self.gateways.get(gateway).map(|gateway| &gateway.roll)
    }

    /// Generation that is published and how full it is.
    pub fn published(&self, gateway: &ObjectKey) -> Option<(i64, f64)> {
        let published = &self.gateways.get(gateway)?.published;
        Some((published.generation?, published.fullness))
    }

    /// Whether this term knows what is published of a gateway, or what keeps it from being published. Before that, a status
    /// of what the gateway holds could only be guessed.
    pub fn is_verified(&self, gateway: &ObjectKey) -> bool {
        let known = self.gateways.get(gateway);
        known.is_none_or(|known| known.published.generation.is_some() || known.publish.hindrance.is_some())
    }

    /// Whether this term has made a gateway's objects once, or knows what keeps it from that.
    pub fn is_provisioned(&self, gateway: &ObjectKey) -> bool {
        let known = self.gateways.get(gateway);
        known.is_none_or(|known| known.provisioning.succeeded_once || known.provisioning.hindrance.is_some())
    }

    /// What keeps a gateway's table from being published.
    pub fn publish_hindrance(&self, gateway: &ObjectKey) -> Option<&Finding> {
        self.gateways.get(gateway)?.publish.hindrance.as_ref()
    }

    /// What keeps a gateway's objects from being made.
    pub fn provision_hindrance(&self, gateway: &ObjectKey) -> Option<&Finding> {
        self.gateways.get(gateway)?.provisioning.hindrance.as_ref()
    }

    /// How many pods a gateway should have, once its Deployment says so.
    pub fn replicas(&self, gateway: &ObjectKey) -> Option<i32> {
        self.gateways.get(gateway)?.scaling.replicas()
    }

    /// A gateway's Service as the API server has it.
    pub fn service(&self, gateway: &ObjectKey) -> Option<&Service> {
        self.gateways.get(gateway)?.service.as_ref()
    }

    /// Where a gateway is reached from outside.
    pub fn addresses(&self, gateway: &SipGateway) -> Vec<String> {
        let Some(known) = self.gateways.get(&names::key(gateway)) else { return Vec::new() };
        let service = known.service.as_ref();
        service.map(|service| provision::addresses(gateway, service, &known.roll.nodes())).unwrap_or_default()
    }

    /// Whether a table is being published: what changes now goes with the next.
    pub fn is_publishing(&self) -> bool {
        self.gateways.values().any(|gateway| gateway.publication.is_none())
    }

    /// Begins a term: everything is verified once.
    pub fn begin(&mut self) {
        self.gateways.clear();
    }

    /// Takes in what was compiled at `now`; returns the gateways whose published table is already that.
    pub fn compiled(
        &mut self,
        state: &State,
        now: Instant,
        changed_at: Instant,
        metrics: &Metrics,
    ) -> Vec<(ObjectKey, i64)> {
        let mut unchanged = Vec::new();
        let known = &state.index.objects().gateways;
        let gone: Vec<_> = self.gateways.keys().filter(|key| !known.contains_key(key)).cloned().collect();
        for key in gone {
            self.gateways.remove(&key);
            metrics.forget(&key);
        }
        for (key, table) in state.index.tables() {
            let Some(object) = alive(state, key) else { continue };
            let gateway = self.gateways.entry(key.clone()).or_insert_with(|| {
                let mut fresh = Gateway {
                    publication: Some(Publication::default()),
                    provision: Some(Provision::default()),
                    roll: state.roll(key),
                    ..Gateway::default()
                };
                fresh.publish.want(changed_at);
                fresh
            });
            match &gateway.publication {
                Some(publication) if publication.holds(table) => {
                    let generation = publication.publisher.generation();
                    unchanged.extend(generation.map(|generation| (key.clone(), generation)));
                }
                _ => gateway.publish.want(changed_at),
            }
            let from = (
                object.uid().unwrap_or_default(),
                object.metadata.generation.unwrap_or_default(),
                object.labels().clone(),
            );
            if gateway.provisioned_from.as_ref() != Some(&from) {
                gateway.provisioned_from = Some(from);
                gateway.scaling.asked(object.spec.replicas, object.spec.autoscaling.clone());
                gateway.provisioning.not_before = None;
                gateway.provisioning.want(now);
            }
        }
        unchanged
    }

    /// Takes in a roll; returns the one before when it differs.
    pub fn called(&mut self, key: &ObjectKey, roll: Roll, now: Instant) -> Option<Roll> {
        let gateway = self.gateways.get_mut(key)?;
        if gateway.roll == roll {
            return None;
        }
        gateway.collect.want(now);
        gateway.scaling.look_again();
        let before = std::mem::replace(&mut gateway.roll, roll);
        let publisher = gateway.publication.as_ref().map(|publication| &publication.publisher);
        if publisher.is_some_and(|publisher| publisher.is_exceeded(&gateway.roll.tables())) {
            warn!(
                "pods of gateway {key} hold a table that the published one has to exceed; it is published again"
            );
            gateway.publish.want(now);
        }
        Some(before)
    }

    /// Whether what is published may be relied on: see `routing::protocol`.
    pub fn is_sealed(&self, gateway: &ObjectKey) -> bool {
        let publication = self.gateways.get(gateway).and_then(|gateway| gateway.publication.as_ref());
        publication.is_some_and(|publication| publication.publisher.is_sealed())
    }

    /// Has a gateway's head sealed.
    pub fn seal(&mut self, gateway: &ObjectKey, now: Instant) {
        if let Some(gateway) = self.gateways.get_mut(gateway) {
            gateway.seal = true;
            gateway.publish.want(now);
        }
    }

    /// Compares the head and the credentials Secret that the watch shows with what was published.
    pub fn verify(&mut self, key: &ObjectKey, state: &State, now: Instant) {
        let Some(gateway) = self.gateways.get_mut(key) else { return };
        let Some(publication) = &mut gateway.publication else { return };
        let Some(object) = state.index.objects().gateways.get(key) else { return };
        if !publication.publisher.is_verified() {
            return;
        }
        let head = state.tables.get(key).is_none_or(|table| publication.observe(object, table));
        let secret = ObjectKey::new(key.namespace.clone(), names::credentials(&key.name));
        let vault = state.secrets.get(&secret);
        let credentials = vault.is_none_or(|version| publication.publisher.observe_vault(version));
        if !(head && credentials) {
            warn!("what is published of gateway {key} was changed by somebody else; it is published again");
            gateway.publish.want(now);
        }
    }

    /// Takes in that a slice was written: one that nothing names has to be collected, also if its deletion was refused
    /// because of that.
    pub fn found(&mut self, key: &ObjectKey, now: Instant) {
        if let Some(gateway) = self.gateways.get_mut(key) {
            gateway.collect.want(now);
        }
    }

    /// Takes in that something is gone that was published once.
    pub fn lost(&mut self, key: &ObjectKey, loss: Loss, state: &State, now: Instant) {
        let Some(gateway) = self.gateways.get_mut(key) else { return };
        let Some(publication) = &mut gateway.publication else {
            // Something is being published or collected: it is looked at again after that.
            return gateway.losses.push(loss);
        };
        let publisher = &mut publication.publisher;
        let (what, useless) = match &loss {
            Loss::Head(uid) => ("RoutingTable".to_owned(), publisher.observe_head_gone(uid)),
            Loss::Vault(uid) => ("Secret of credentials".to_owned(), publisher.observe_vault_gone(uid)),
            // One that has come again since is there.
            Loss::Slice(name) => {
                let there = state.slices.contains_key(&ObjectKey::new(key.namespace.clone(), name.clone()));
                (format!("RoutingSlice {name}"), there || publisher.observe_loss(name))
            }
        };
        if !useless {
            warn!("the {what} of gateway {key} was deleted by somebody else; it is published again");
            gateway.publish.want(now);
        }
    }

    /// Has a made object applied again, unless it is as we made it.
    pub fn drifted(
        &mut self,
        key: &ObjectKey,
        kind: OwnedKind,
        object: &ObjectKey,
        state: &State,
        now: Instant,
    ) {
        let Some(gateway) = self.gateways.get_mut(key) else { return };
        let facts = state.owned.get(&(kind, object.clone()));
        // While it is being provisioned the answer isn't known; once more is cheap and writes nothing.
        let recognised = |provision: &Provision| provision.recognises(kind, &object.name, facts);
        if !gateway.provision.as_ref().is_some_and(recognised) {
            gateway.provisioning.want(now);
        }
    }

    /// Begins the work that is due.
    pub fn start(&mut self, state: &State, means: &Means<'_>, now: Instant) -> Vec<Work> {
        let mut work = Vec::new();
        for (key, gateway) in &mut self.gateways {
            let Some((object, table)) = has_work(state, key) else { continue };
            if gateway.publish.is_due(now)
                && let Some(publication) = gateway.publication.take()
            {
                let since = gateway.publish.begin();
                let is_present =
                    |name: &str| state.slices.contains_key(&ObjectKey::new(key.namespace.clone(), name));
                let watched = state.tables.get(key).map(|table| &table.spec);
                let seal = std::mem::take(&mut gateway.seal);
                let held = gateway.roll.tables();
                let offer = Offer::new(key, table, &publication, watched, is_present, held, seal);
                work.push(Work::Publish(job(means, object), offer, Box::new(publication), since));
            }
            if gateway.collect.is_due(now)
                && !gateway.publish.due
                && let Some(mut publication) = gateway.publication.take()
            {
                gateway.collect.begin();
                let publisher = &mut publication.publisher;
                let present = state.slices_of(key).map(|(name, _)| name);
                let (ripe, next) = gateway.useless.ripe(present, publisher, &gateway.roll, means.grace, now);
                gateway.collect.not_before = next.filter(|_| ripe.len() <= BATCH);
                gateway.collect.due = next.is_some() || ripe.len() > BATCH;
                let seen = ripe.into_iter().take(BATCH).filter_map(|name| {
                    let slice = state.slices.get(&ObjectKey::new(key.namespace.clone(), name.clone()))?;
                    Some((name, slice.version.clone()))
                });
                let doomed: Vec<_> = seen.collect();
                let past = publisher.generation().is_some_and(|generation| gateway.roll.all_past(generation));
                let prune = past && publisher.surplus().is_some();
                if doomed.is_empty() && !prune {
                    gateway.publication = Some(publication);
                } else if !publisher.is_sealed() {
                    gateway.publication = Some(publication);
                    gateway.seal = true;
                    gateway.publish.want(now);
                    gateway.collect.want(now);
                } else {
                    work.push(Work::Collect(job(means, object), Box::new(publication), doomed, prune));
                }
            }
            if gateway.scaling.decide(&gateway.roll, now) {
                gateway.provisioning.want(now);
            }
            if gateway.provisioning.is_due(now)
                && let Some(provision) = gateway.provision.take()
            {
                gateway.provisioning.begin();
                let job = provision::Job {
                    client: means.client.clone(),
                    term: means.term.clone(),
                    metrics: means.metrics.clone(),
                    gateway: object.clone(),
                    image: means.image.clone(),
                    marks: gateway.scaling.marks(&gateway.roll),
                    replicas: gateway.scaling.wanted(),
                };
                work.push(Work::Provision(job, Box::new(provision)));
            }
        }
        work
    }

    /// Takes in what work came to.
    ///
    /// Fewer pods of a gateway must have been enough for `scale_window` before some are removed.
    pub fn done(
        &mut self,
        done: Done,
        state: &State,
        metrics: &Metrics,
        scale_window: Duration,
        now: Instant,
    ) -> News {
        match done {
            Done::Published(key, publication, since, result) => {
                let Some(gateway) = self.gateways.get_mut(&key) else { return News::default() };
                let mut news = News { gateway: Some(key.clone()), ..News::default() };
                gateway.published = Published {
                    generation: publication.publisher.generation(),
                    fullness: publication.fullness(),
                };
                gateway.publication = Some(*publication);
                match result {
                    Ok(written) => {
                        news.everything = gateway.publish.succeeded();
                        if written && let Some(since) = since {
                            metrics.published(now.duration_since(since).as_secs_f64());
                        }
                        news.published =
                            gateway.published.generation.map(|generation| (key.clone(), generation));
                        gateway.collect.want(now);
                    }
                    Err(PublishError::Api(ApiError::NotLeader { .. })) => {}
                    Err(error) => {
                        metrics.failed("publish");
                        gateway.publish.since = since;
                        if let PublishError::SecretChanged(secret) = &error {
                            // Its new version is on the way here and is compiled then.
                            news.stale_secret = Some(secret.clone());
                            gateway.publish.due = true;
                            gateway.publish.not_before = Some(now + SECRET_PAUSE);
                        } else if matches!(error, PublishError::Outdated(_)) {
                            debug!("{error}");
                            gateway.publish.due = true;
                        } else {
                            warn!("gateway {key}: {error}");
                            news.everything = gateway.publish.failed(now, publish_finding(&error));
                        }
                    }
                }
                self.returned(&key, state, now);
                news
            }
            Done::Collected(key, publication, result) => {
                let Some(gateway) = self.gateways.get_mut(&key) else { return News::default() };
                let mut news = News::default();
                let fullness = publication.fullness();
                if fullness != gateway.published.fullness {
                    gateway.published.fullness = fullness;
                    news.gateway = Some(key.clone());
                }
                if !publication.publisher.knows_vault() {
                    // What came of writing it isn't known, or somebody else wrote it first: it is read with a publication.
                    gateway.publish.want(now);
                }
                gateway.publication = Some(*publication);
                match result {
                    Ok(()) => {
                        gateway.collect.failures = 0;
                    }
                    Err(PublishError::Api(ApiError::NotLeader { .. })) => {}
                    Err(error) => {
                        metrics.failed("collect");
                        debug!("gateway {key}: {error}");
                        gateway.collect.failed(now, publish_finding(&error));
                    }
                }
                self.returned(&key, state, now);
                news
            }
            Done::Provisioned(key, provision, result) => {
                let Some(gateway) = self.gateways.get_mut(&key) else { return News::default() };
                gateway.service = provision.service.clone().or(gateway.service.take());
                gateway.provision = Some(*provision);
                let mut scaled = None;
                match result {
                    Ok(()) => {
                        gateway.provisioning.succeeded();
                        let provision = gateway.provision.as_ref();
                        scaled = provision.and_then(|made| gateway.scaling.applied(made, scale_window, now));
                    }
                    Err(ProvisionError::Api(ApiError::NotLeader { .. })) => {}
                    Err(error) => {
                        metrics.failed("provision");
                        warn!("gateway {key}: {error}");
                        let finding = Finding::not_yet(reason::PROVISION_FAILED, error.to_string());
                        gateway.provisioning.failed(now, finding);
                    }
                }
                News { gateway: Some(key), scaled, ..News::default() }
            }
        }
    }

    /// The publication is back: what the watches have told meanwhile is taken in.
    fn returned(&mut self, key: &ObjectKey, state: &State, now: Instant) {
        let losses = self.gateways.get_mut(key).map(|gateway| std::mem::take(&mut gateway.losses));
        for loss in losses.unwrap_or_default() {
            self.lost(key, loss, state, now);
        }
        self.verify(key, state, now);
    }

    /// When work that waits can be begun. What [`Self::start`] doesn't begin then must not be due here.
    pub fn wake(&self, state: &State) -> Option<Instant> {
        let waits = self.gateways.iter().filter(|(key, _)| has_work(state, key).is_some());
        waits
            .flat_map(|(_, gateway)| {
                let Gateway { publish, collect, provisioning, .. } = gateway;
                let free = gateway.publication.is_some();
                [
                    publish.wake().filter(|_| free),
                    collect.wake().filter(|_| free && !publish.due),
                    provisioning.wake().filter(|_| gateway.provision.is_some()),
                    gateway.scaling.wake(),
                ]
            })
            .flatten()
            .min()
    }
}

/// The gateway, unless it is being deleted: then nothing is made for it any more.
fn alive<'a>(state: &'a State, key: &ObjectKey) -> Option<&'a Arc<SipGateway>> {
    state.index.objects().gateways.get(key).filter(|gateway| gateway.metadata.deletion_timestamp.is_none())
}

/// The gateway and its table, if anything is made for it.
fn has_work<'a>(state: &'a State, key: &ObjectKey) -> Option<(&'a Arc<SipGateway>, &'a GatewayTable)> {
    Some((alive(state, key)?, state.index.tables().get(key)?))
}

fn job(means: &Means<'_>, gateway: &Arc<SipGateway>) -> publish::Job {
    publish::Job {
        client: means.client.clone(),
        term: means.term.clone(),
        metrics: means.metrics.clone(),
        gateway: gateway.clone(),
    }
}

fn publish_finding(error: &PublishError) -> Finding {
    match error {
        PublishError::TooLarge { .. } => Finding::not_yet(reason::TOO_LARGE, error.to_string()),
        _ => Finding::not_yet(reason::PUBLISH_FAILED, error.to_string()),
    }
}

/// The reference of a gateway among the kinds that people write.
pub fn as_object(key: &ObjectKey) -> ObjectRef {
    ObjectRef { kind: Kind::SipGateway, key: key.clone() }
}
