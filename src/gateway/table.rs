//! The subscription: how a gateway comes to the newest routing table and never falls back behind it.
//!
//! ```text
//! watch the head ─▶ fetch the slices and credentials that aren't held ─▶ verify ─▶ swap ─▶ save to disk ─▶ acknowledge
//! ```
//!
//! Only the head is watched, by its name; slices are fetched by theirs, which hold their hashes. A head that can't be
//! followed (a slice is missing or wrong, credentials are missing, it is older than what is held) leaves the table as it
//! is; the reason goes into the acknowledgement, and it is tried again with a growing, jittered delay until it works
//! or a newer head comes. Without the API server the gateway goes on with what it has.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{FutureExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::watch;
use tokio::time::Instant;

use super::disk::{Disk, DiskError, Unsynced};
use super::metrics::GatewayMetrics;
use super::snapshot::{Credential, Parts, Piece, Snapshot, SnapshotError};
use crate::resources::routing_table::Amendment;
use crate::resources::{RoutingSlice, RoutingTable};
use crate::routing::ack::{Held, Rejection};
use crate::routing::protocol::follower::{Weighed, weigh};
use crate::routing::slice::{self, SliceError, layout};
use crate::routing::table::CredentialId;

/// How long one request to the API server may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the head is read besides being watched: bounds how long a watch that went silent goes unnoticed, and keeps the
/// age of the last sync true while nothing changes.
pub const CONFIRM_EVERY: Duration = Duration::from_secs(30);
/// Seconds after which the API server ends a watch and it is resumed.
const WATCH_SECONDS: u32 = 240;
/// Slices that are fetched at the same time.
const FETCHES: usize = 8;
/// The first delay after a head that can't be followed.
const RETRY_FROM: Duration = Duration::from_millis(200);
/// The longest.
const RETRY_TO: Duration = Duration::from_secs(15);

/// What is known of the table: what the acknowledgement says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableState {
    /// The table that calls are routed by; `None` before the first.
    pub held: Option<Held>,
    /// The head that was seen last, if it was refused.
    pub rejected: Option<Rejection>,
}

/// Whose table, and where it comes from.
#[derive(Clone)]
pub struct Source {
    /// The API server.
    pub client: Client,
    /// Namespace of the SipGateway.
    pub namespace: String,
    /// Name of the SipGateway.
    pub gateway: String,
    /// How often the head is read besides being watched; [`CONFIRM_EVERY`].
    pub confirm_every: Duration,
}

/// Why a head is not followed (yet). Says nothing secret.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// A slice is not there.
    #[error("RoutingSlice {0} does not exist; the operator will publish it again")]
    SliceMissing(String),
    /// The credentials Secret is not there.
    #[error(
        "Secret {0} with the credentials of the table's trunks does not exist; the operator will publish it again"
    )]
    SecretMissing(String),
    /// Trunks have credentials but the head names no Secret.
    #[error(
        "the table names trunk credentials but no credentials Secret; the operator will publish it again"
    )]
    NoSecretNamed,
    /// A value of the credentials Secret can't be read.
    #[error(
        "key {key} of Secret {secret} is not JSON with credentials as this version knows them; is the gateway older than the operator?"
    )]
    UnreadableCredential {
        /// The Secret.
        secret: String,
        /// The key.
        key: String,
    },
    /// The API server refused or could not be reached.
    #[error("{what} can't be read: {why}")]
    Api {
        /// What was asked for.
        what: String,
        /// Why.
        why: String,
    },
    /// What was fetched is not what the head says.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It would be a step back.
    #[error(
        "its generation {offered} is older than {held}, which is held; a gateway never goes back: was the RoutingTable \
         deleted? The operator must publish a generation above {held}"
    )]
    Older {
        /// The head's.
        offered: i64,
        /// What is held.
        held: i64,
    },
    /// The same generation with another content.
    #[error(
        "its generation {0} is held already with another content; the operator must publish a newer generation"
    )]
    Ambiguous(i64),
    /// The process ends.
    #[error("the gateway is shutting down")]
    ShuttingDown,
}

/// Holds the current table: the only place where it is switched.
pub struct Holder {
    snapshot: Arc<ArcSwap<Snapshot>>,
    state: watch::Sender<TableState>,
    metrics: GatewayMetrics,
    disk: Arc<Mutex<Disk>>,
    parts: Arc<Parts>,
}

impl Holder {
    /// The disk copy if there is one that holds; else no table yet. Blocks: call it before anything else runs.
    pub fn load(disk: Disk, metrics: GatewayMetrics) -> Self {
        let loaded = disk.load();
        let mut holder = Self {
            snapshot: Arc::new(ArcSwap::from_pointee(Snapshot::none())),
            state: watch::Sender::default(),
            metrics,
            disk: Arc::new(Mutex::new(disk)),
            parts: Arc::default(),
        };
        let unused =
            |why: &dyn Display| tracing::warn!("the disk copy of the routing table is not used: {why}");
        match loaded.map(|parts| parts.map(Parts::assemble)) {
            Ok(None) => {}
            Ok(Some(Ok((parts, snapshot)))) => {
                let generation = parts.generation;
                tracing::info!(generation, "starting with the routing table of the disk copy");
                holder.switch(parts, snapshot);
                holder.tell_held();
            }
            Ok(Some(Err(error))) => unused(&error),
            Err(error) => unused(&error),
        }
        holder
    }

    /// What calls are routed by: [`Snapshot::none`] until [`TableState::held`] is set.
    pub fn snapshot(&self) -> Arc<ArcSwap<Snapshot>> {
        Arc::clone(&self.snapshot)
    }

    /// What is to be acknowledged.
    pub fn state(&self) -> watch::Receiver<TableState> {
        self.state.subscribe()
    }

    /// Whether a head with this generation and hash is held (`true`), is to be followed (`false`), or may not be followed.
    fn weigh(&self, generation: i64, hash: &str) -> Result<bool, FollowError> {
        let held = (self.parts.generation > 0).then(|| self.held());
        match weigh(held.as_ref(), generation, hash) {
            Weighed::Held => Ok(true),
            Weighed::Newer => Ok(false),
            Weighed::Older => Err(FollowError::Older { offered: generation, held: self.parts.generation }),
            Weighed::Ambiguous => Err(FollowError::Ambiguous(generation)),
        }
    }

    fn held(&self) -> Held {
        Held { generation: self.parts.generation, hash: self.parts.hash.clone() }
    }

    /// Switches calls to verified parts: table and credentials in one store.
    fn switch(&mut self, parts: Parts, snapshot: Snapshot) {
        self.metrics.generation.set(parts.generation);
        self.metrics.switches.inc();
        self.snapshot.store(Arc::new(snapshot));
        self.parts = Arc::new(parts);
    }

    /// The current parts to the disk copy. A failure is logged and counted: the table is served all the same.
    async fn save(&self) {
        let parts = Arc::clone(&self.parts);
        let disk = Arc::clone(&self.disk);
        let saved = blocking(move || disk.lock().unwrap_or_else(PoisonError::into_inner).save(&parts)).await;
        told(&self.metrics, saved.unwrap_or(Ok(())));
    }

    /// Tidies the disk copy up and has it outlive a node that loses power. Nothing waits for it.
    fn sync(&self) {
        let (disk, metrics) = (Arc::clone(&self.disk), self.metrics.clone());
        tokio::task::spawn_blocking(move || {
            let unsynced = disk.lock().unwrap_or_else(PoisonError::into_inner).tidy();
            told(&metrics, unsynced.and_then(Unsynced::sync));
        });
    }

    /// Lets the held table be acknowledged; nothing is refused any more.
    fn tell_held(&self) {
        self.tell(TableState { held: Some(self.held()), rejected: None });
    }

    /// Lets a refusal be acknowledged.
    fn tell_rejected(&self, generation: i64, error: &FollowError) {
        self.metrics.rejections.inc();
        let reason = format!("generation {generation} is not followed: {error}");
        let held = self.state.borrow().held.clone();
        let before =
            self.tell(TableState { held, rejected: Some(Rejection { generation, reason: reason.clone() }) });
        if before {
            tracing::warn!("{reason}");
        }
    }

    /// Whether that was news.
    fn tell(&self, state: TableState) -> bool {
        self.state.send_if_modified(|current| {
            let changed = *current != state;
            if changed {
                *current = state;
            }
            changed
        })
    }
}

/// Logs and counts that the disk copy couldn't be written.
fn told(metrics: &GatewayMetrics, done: Result<(), DiskError>) {
    if let Err(error) = done {
        metrics.disk_failures.inc();
        tracing::warn!(
            "the disk copy of the routing table can't be written, a restart would need the API server: {error}"
        );
    }
}

/// Follows the head until the process ends.
pub async fn subscribe(source: Source, mut holder: Holder) {
    loop {
        // Returns when the watch has to be built anew; the delay keeps a fault from becoming a loop.
        follow(&source, &mut holder).await;
        tokio::time::sleep(jittered(Duration::from_secs(1))).await;
    }
}

async fn follow(source: &Source, holder: &mut Holder) {
    let heads: Api<RoutingTable> = Api::namespaced(source.client.clone(), &source.namespace);
    let config = watcher::Config::default()
        .fields(&format!("metadata.name={}", source.gateway))
        .timeout(WATCH_SECONDS);
    let mut events = pin!(watch_objects(heads.clone(), config).default_backoff());
    let mut seen: Option<RoutingTable> = None;
    let mut retry: Option<Instant> = None;
    let mut delays = delays();
    let mut confirm = Instant::now() + jittered(source.confirm_every);
    loop {
        let mut fresh = None;
        tokio::select! {
            event = events.next() => match event {
                Some(event) => fresh = heard(source, holder, event),
                None => return,
            },
            () = tokio::time::sleep_until(confirm) => {
                confirm = Instant::now() + jittered(source.confirm_every);
                fresh = confirmed(source, holder, &heads).await;
                let missed = match (&fresh, &seen) {
                    (Some(fresh), Some(seen)) => fresh.spec.generation > seen.spec.generation,
                    (Some(_), None) => true,
                    (None, _) => false,
                };
                if missed {
                    // It may be on its way; if it isn't, the watch is dead. Either way the new watch begins with a list.
                    tracing::warn!("the watch on RoutingTable {source} missed a change; watching anew");
                    if let Some(head) = fresh {
                        try_head(source, holder, &head).await;
                    }
                    return;
                }
            },
            () = until(retry) => {}
        }
        // Heads that came while another was being fetched: only the last one counts.
        while let Some(Some(event)) = events.next().now_or_never() {
            fresh = heard(source, holder, event).or(fresh);
        }
        if let Some(head) = fresh {
            if seen.as_ref().is_none_or(|seen| seen.spec != head.spec) {
                delays = self::delays();
            }
            seen = Some(head);
        } else if retry.is_none_or(|at| at > Instant::now()) {
            continue;
        }
        let Some(head) = &seen else { continue };
        retry = match try_head(source, holder, head).await {
            true => None,
            false => Some(Instant::now() + delays.next().unwrap_or(RETRY_TO)),
        };
    }
}

/// What an event of the watch says; a head if there is one.
fn heard(
    source: &Source,
    holder: &Holder,
    event: Result<Event<RoutingTable>, watcher::Error>,
) -> Option<RoutingTable> {
    match event {
        Ok(Event::Apply(head) | Event::InitApply(head)) => {
            holder.metrics.synced();
            Some(head)
        }
        Ok(Event::Delete(_)) => {
            let generation = holder.parts.generation;
            tracing::warn!("RoutingTable {source} was deleted; going on with generation {generation}");
            None
        }
        Ok(Event::InitDone) => {
            holder.metrics.synced();
            None
        }
        Ok(Event::Init) => None,
        Err(error) => {
            tracing::warn!("RoutingTable {source} can't be watched, trying again: {error}");
            None
        }
    }
}

/// Reads the head; `None` if that fails (the watch reports why) or it doesn't exist.
async fn confirmed(source: &Source, holder: &Holder, heads: &Api<RoutingTable>) -> Option<RoutingTable> {
    match bounded(format!("RoutingTable {source}"), heads.get_opt(&source.gateway)).await {
        Ok(head) => {
            holder.metrics.synced();
            head
        }
        Err(error) => {
            tracing::debug!("{error}");
            None
        }
    }
}

/// Follows a head; whether there is nothing left to do about it.
async fn try_head(source: &Source, holder: &mut Holder, head: &RoutingTable) -> bool {
    let (generation, hash) = (head.spec.generation, &head.spec.hash);
    let result = match holder.weigh(generation, hash) {
        Ok(true) => Ok(None),
        Ok(false) => fetch(source, head, &holder.parts, holder.snapshot.load_full()).await.map(Some),
        Err(error) => Err(error),
    };
    match result {
        Ok(fetched) => {
            let news = fetched.is_some();
            if let Some((parts, snapshot)) = fetched {
                holder.switch(parts, snapshot);
                holder.save().await;
                tracing::info!(generation, "routing by a new table");
            }
            holder.tell_held();
            if news {
                holder.sync();
            }
            true
        }
        Err(error) => {
            holder.tell_rejected(generation, &error);
            // A step back never becomes one forward: only another head helps.
            matches!(error, FollowError::Older { .. } | FollowError::Ambiguous(_))
        }
    }
}

/// Fetches what isn't held, and verifies the whole. `held` are the parts of the table of `before`.
async fn fetch(
    source: &Source,
    head: &RoutingTable,
    held: &Arc<Parts>,
    before: Arc<Snapshot>,
) -> Result<(Parts, Snapshot), FollowError> {
    let known = Known::of(held);
    let slices: Api<RoutingSlice> = Api::namespaced(source.client.clone(), &source.namespace);
    let wanted: Vec<_> = layout::hashes(&head.spec)
        .map(|(name, hash, amendment)| piece(slices.clone(), &known, name, hash, amendment))
        .collect();
    let slices: Vec<Piece> = futures::stream::iter(wanted).buffered(FETCHES).try_collect().await?;
    let parts = Parts {
        generation: head.spec.generation,
        hash: head.spec.hash.clone(),
        slices,
        credentials: held.credentials.clone(),
    };
    // Parsing and hashing a large table takes a while: not on a thread that others wait for.
    let (mut parts, table, before) = {
        let held = Arc::clone(held);
        blocking(move || {
            let table = parts.table(&held, before.index.table());
            (parts, table, before)
        })
        .await?
    };
    let table = table?;
    let lacks = |id: &CredentialId| !parts.credentials.contains_key(id);
    if table.credentials().any(|(.., id)| lacks(id)) {
        parts.credentials = credentials(source, head.spec.credentials_secret.as_deref()).await?;
    }
    parts.keep_named(&table)?;
    blocking(move || {
        let snapshot = parts.snapshot(table, &before);
        (parts, snapshot)
    })
    .await
}

/// The contents that are held.
struct Known<'a> {
    by_hash: HashMap<&'a str, &'a Arc<RawValue>>,
    /// By the slice, as it was amended last.
    by_name: HashMap<&'a str, &'a Arc<RawValue>>,
}

impl<'a> Known<'a> {
    fn of(held: &'a Parts) -> Self {
        Self {
            by_hash: held.slices.iter().map(|piece| (&*piece.hash, &piece.content)).collect(),
            by_name: held.slices.iter().map(|piece| (&*piece.name, &piece.content)).collect(),
        }
    }
}

/// A slice's content as the head says: held, or what is held of it amended, or fetched and amended.
async fn piece(
    slices: Api<RoutingSlice>,
    known: &Known<'_>,
    name: &str,
    hash: &str,
    amendment: Option<&Amendment>,
) -> Result<Piece, FollowError> {
    let piece = |content| Piece { name: name.to_owned(), hash: hash.to_owned(), content };
    if let Some(&content) = known.by_hash.get(hash) {
        return Ok(piece(content.clone()));
    }
    let unreadable =
        |source| FollowError::Snapshot(SliceError::Unreadable { part: name.to_owned(), source }.into());
    let amended = |content: &RawValue, amendment| {
        layout::amend(content.get(), amendment).and_then(RawValue::from_string).map_err(unreadable)
    };
    if let (Some(amendment), Some(held)) = (amendment, known.by_name.get(name)) {
        let content = amended(held, amendment)?;
        // Otherwise it had been amended in a row that the head has as the slice.
        if slice::hash_of_text(content.get()) == hash {
            return Ok(piece(content.into()));
        }
    }
    let fetched = bounded(format!("RoutingSlice {name}"), slices.get_opt(name)).await?;
    let fetched = fetched.ok_or_else(|| FollowError::SliceMissing(name.to_owned()))?;
    let content = to_raw_value(&fetched.spec.content).map_err(unreadable)?;
    Ok(piece(match amendment {
        Some(amendment) => amended(&content, amendment)?.into(),
        None => content.into(),
    }))
}

/// Every version of credentials in the gateway's Secret.
async fn credentials(
    source: &Source,
    secret: Option<&str>,
) -> Result<BTreeMap<CredentialId, Credential>, FollowError> {
    let name = secret.ok_or(FollowError::NoSecretNamed)?;
    let secrets: Api<Secret> = Api::namespaced(source.client.clone(), &source.namespace);
    let secret = bounded(format!("Secret {name}"), secrets.get_opt(name))
        .await?
        .ok_or_else(|| FollowError::SecretMissing(name.to_owned()))?;
    (secret.data.unwrap_or_default().into_iter())
        .map(|(key, value)| match serde_json::from_slice(&value.0) {
            Ok(credential) => Ok((CredentialId(key), credential)),
            // What serde says of it could hold a piece of the password.
            Err(_) => Err(FollowError::UnreadableCredential { secret: name.to_owned(), key }),
        })
        .collect()
}

/// One request, bounded: the client itself would wait for minutes.
async fn bounded<T>(
    what: String,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, FollowError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(FollowError::Api { what, why: error.to_string() }),
        Err(_) => Err(FollowError::Api {
            what,
            why: format!("the API server did not answer within {} s", REQUEST_TIMEOUT.as_secs()),
        }),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, FollowError> {
    // A panic in there is a bug of ours, and is reported as such by the runtime; the table stays as it is.
    tokio::task::spawn_blocking(work).await.map_err(|_| FollowError::ShuttingDown)
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn delays() -> impl Iterator<Item = Duration> {
    let delays = ExponentialBuilder::new().with_min_delay(RETRY_FROM).with_max_delay(RETRY_TO);
    delays.with_jitter().without_max_times().build()
}

/// Between three and five quarters of it: pods that start together don't ask together.
fn jittered(span: Duration) -> Duration {
    span.mul_f64(rand::random_range(0.75..1.25))
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.gateway)
    }
}
