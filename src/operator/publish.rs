//! Publishing a gateway's table: slices, then credentials, then the head.
//!
//! The order makes a crash between any two writes harmless: until the head is written nobody looks at the rest. The head is
//! one compare-and-swap on its resourceVersion, with a generation that only grows, also past the loss of the head itself (pods
//! remember what they hold). A table that is published already costs no write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use tracing::{info, warn};

use crate::resources::routing_slice::RoutingSliceSpec;
use crate::resources::routing_table::{RoutingTableSpec, SliceReference, TableCounts};
use crate::resources::{RoutingSlice, RoutingTable, SipGateway};
use crate::routing::compile::CredentialSource;
use crate::routing::index::GatewayTable;
use crate::routing::slice::{self, Draft};
use crate::routing::table::{CredentialId, ObjectKey};

use super::api::{ApiError, FIELD_MANAGER, read, write};
use super::credentials::Credentials;
use super::leader::Term;
use super::metrics::Metrics;
use super::names;

/// Most bytes of an object that we write: the API server takes 1.5 MiB a request, and 1 MiB of data in a Secret.
pub const SIZE_LIMIT: usize = 1024 * 1024;

/// Slices that are written at once.
const CONCURRENT_SLICES: usize = 8;

/// Attempts at the compare-and-swap before the table is compiled anew.
const ATTEMPTS: usize = 4;

/// Why a table was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A call failed; it is tried again.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A Secret isn't the version that was compiled any more (or is gone): compile again.
    #[error("Secret {0} changed while its version was being published; the table is compiled again")]
    SecretChanged(ObjectKey),
    /// Something is too large for an object of the API server.
    #[error(
        "{what} of gateway {gateway} has {bytes} bytes, more than the {SIZE_LIMIT} that fit: the gateways keep the last \
         table; spread the numbers over more SipGateways"
    )]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Whose.
        gateway: ObjectKey,
        /// How large it is.
        bytes: usize,
    },
    /// The head is being deleted by somebody.
    #[error("RoutingTable {0} is being deleted; it is written anew as soon as it is gone")]
    Deleting(ObjectKey),
    /// Somebody else keeps writing the head.
    #[error("RoutingTable {0} is being written by somebody else; is there a second operator?")]
    Contended(ObjectKey),
}

/// What publishing needs to know.
pub struct Job {
    /// The client.
    pub client: Client,
    /// The leader's term: without it nothing is written.
    pub term: Term,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The gateway.
    pub gateway: Arc<SipGateway>,
}

/// A table that is to be published, as it was at one moment.
pub struct Offer {
    /// Hash of the table.
    hash: String,
    /// All slices.
    slices: Vec<SliceReference>,
    /// Slices that aren't there, by name.
    missing: Vec<(String, Draft)>,
    /// Length of the largest slice's content, bytes.
    largest: usize,
    counts: TableCounts,
    credentials: BTreeMap<CredentialId, CredentialSource>,
    /// The newest generation that a pod of the gateway says to hold.
    newest_held: i64,
}

impl Offer {
    /// Offers `table`; `is_present` tells whether there is a slice of a name.
    pub fn new(
        gateway: &ObjectKey,
        table: &GatewayTable,
        is_present: impl Fn(&str) -> bool,
        newest_held: i64,
    ) -> Self {
        let sliced = table.sliced();
        let (mut slices, mut missing, mut largest) = (Vec::new(), Vec::new(), 0);
        for outline in sliced.outlines() {
            let name = names::slice(&gateway.name, &outline.part.to_string(), outline.hash);
            if !is_present(&name) {
                missing.push((name.clone(), sliced.draft(&outline)));
            }
            largest = largest.max(outline.bytes);
            slices.push(SliceReference { name, hash: outline.hash.to_owned() });
        }
        let [numbers, assistants, destinations, trunks] =
            sliced.counts().map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        Self {
            hash: sliced.hash().to_owned(),
            slices,
            missing,
            largest,
            counts: TableCounts { numbers, assistants, destinations, trunks },
            credentials: table.credentials().clone(),
            newest_held,
        }
    }

    /// The head, but for what depends on the head before.
    fn head(&self, gateway: &ObjectKey) -> RoutingTableSpec {
        RoutingTableSpec {
            generation: 0,
            hash: self.hash.clone(),
            slices: self.slices.clone(),
            previous_slices: Vec::new(),
            credentials_secret: (!self.credentials.is_empty()).then(|| names::credentials(&gateway.name)),
            counts: self.counts,
        }
    }
}

/// Which table is published: its hash, and the credentials that it names.
#[derive(Debug)]
pub struct Published {
    hash: String,
    credentials: BTreeSet<CredentialId>,
}

impl Job {
    pub(super) fn key(&self) -> ObjectKey {
        names::key(&*self.gateway)
    }

    pub(super) fn namespace(&self) -> String {
        self.gateway.namespace().unwrap_or_default()
    }
}

/// What this leader knows of a gateway's published table.
#[derive(Debug, Default)]
pub struct Publication {
    /// The head as last read, written or watched; `None` until it has been read.
    pub head: Option<RoutingTable>,
    /// Slices of the generations that this leader has published or found.
    pub history: BTreeMap<i64, BTreeSet<String>>,
    /// The credentials Secret.
    pub credentials: Credentials,
    /// What was compiled for the head; `None` until that is proven to be what is published.
    pub published: Option<Published>,
    /// Largest object of the publication as a share of [`SIZE_LIMIT`].
    pub fullness: f64,
    /// The newest generation that this leader has seen; survives the loss of the head.
    newest: i64,
    /// Whether the head, once created, has been there for others to see: the watch lags behind its creation.
    seen: bool,
}

impl Publication {
    /// The generation that is published.
    pub fn generation(&self) -> Option<i64> {
        self.head.as_ref().map(|head| head.spec.generation)
    }

    /// Whether the compiled table is what is published.
    pub fn holds(&self, table: &GatewayTable) -> bool {
        self.published.as_ref().is_some_and(|published| {
            published.hash == table.sliced().hash()
                && published.credentials.iter().eq(table.credentials().keys())
        }) && self.head.is_some()
    }

    /// Takes in what the watch says of the head; false when it is not what was published.
    pub fn observe(&mut self, watched: Option<&Arc<RoutingTable>>) -> bool {
        match (&self.head, watched) {
            (Some(head), Some(watched)) if watched.spec.generation < head.spec.generation => true,
            (Some(head), Some(watched)) if watched.spec == head.spec && watched.uid() == head.uid() => {
                self.head = Some((**watched).clone());
                self.seen = true;
                true
            }
            (Some(_), None) if !self.seen => true,
            _ => {
                self.head = None;
                false
            }
        }
    }

    /// Brings the published table to what was compiled. Returns whether the head was written.
    pub async fn publish(&mut self, job: &Job, offer: Offer) -> Result<bool, PublishError> {
        let key = job.key();
        let spec = offer.head(&key);
        self.check_sizes(&key, &spec, offer.largest)?;

        if self.head.is_none() {
            self.head = read(format!("read RoutingTable {key}"), heads(job).get_opt(&key.name)).await?;
            self.seen = self.head.is_some();
        }
        let missing: Vec<_> =
            offer.missing.iter().map(|(name, draft)| create_slice(job, name, draft)).collect();
        stream::iter(missing).buffer_unordered(CONCURRENT_SLICES).try_collect::<()>().await?;
        self.credentials.ensure(job, &key, &offer.credentials).await?;
        self.fullness = self.fullness.max(self.credentials.bytes as f64 / SIZE_LIMIT as f64);
        let written = self.write_head(job, &key, spec, offer.newest_held).await?;
        let credentials: BTreeSet<_> = offer.credentials.into_keys().collect();
        self.credentials.published(credentials.clone());
        self.published = Some(Published { hash: offer.hash, credentials });
        if let Some(head) = &self.head {
            self.newest = head.spec.generation;
            let names = head.spec.slices.iter().map(|slice| slice.name.clone()).collect();
            self.history.insert(head.spec.generation, names);
        }
        Ok(written)
    }

    fn check_sizes(
        &mut self,
        gateway: &ObjectKey,
        spec: &RoutingTableSpec,
        slice: usize,
    ) -> Result<(), PublishError> {
        let head = bytes(spec) + spec.slices.len() * 80; // names of as many slices of the previous generation on top
        self.fullness = head.max(slice) as f64 / SIZE_LIMIT as f64;
        for (what, bytes) in
            [("the head of the routing table", head), ("one entry of the routing table", slice)]
        {
            if bytes > SIZE_LIMIT {
                return Err(PublishError::TooLarge { what, gateway: gateway.clone(), bytes });
            }
        }
        Ok(())
    }

    async fn write_head(
        &mut self,
        job: &Job,
        key: &ObjectKey,
        mut spec: RoutingTableSpec,
        newest_held: i64,
    ) -> Result<bool, PublishError> {
        let api = heads(job);
        for _ in 0..ATTEMPTS {
            let current = self.head.take();
            if let Some(head) = &current {
                if head.metadata.deletion_timestamp.is_some() {
                    return Err(PublishError::Deleting(key.clone()));
                }
                let same = RoutingTableSpec {
                    generation: head.spec.generation,
                    previous_slices: head.spec.previous_slices.clone(),
                    ..spec.clone()
                };
                if head.spec == same && head.owner_references() == [names::owner(&job.gateway)] {
                    self.head = current;
                    return Ok(false);
                }
            }
            let last = current.as_ref().map_or(0, |head| head.spec.generation);
            spec.generation = last.max(self.newest).max(newest_held) + 1;
            spec.previous_slices = left_out(current.as_ref(), &spec);
            let what = format!("write RoutingTable {key} generation {}", spec.generation);
            let outcome = match current {
                None => {
                    let mut head = RoutingTable::new(&key.name, spec.clone());
                    head.metadata = names::owned_metadata(&job.gateway, key.name.clone());
                    write(&job.term, what, api.create(&manager(), &head)).await
                }
                Some(mut head) => {
                    let ours = names::owned_metadata(&job.gateway, key.name.clone());
                    head.metadata.owner_references = ours.owner_references;
                    head.labels_mut().extend(ours.labels.unwrap_or_default());
                    head.metadata.managed_fields = None;
                    head.spec = spec.clone();
                    write(&job.term, what, api.replace(&key.name, &manager(), &head)).await
                }
            };
            match outcome {
                Ok(head) => {
                    job.metrics.wrote("RoutingTable");
                    info!(
                        "gateway {key}: generation {} is published: {} numbers, {} assistants, {} destinations, {} trunks",
                        head.spec.generation,
                        spec.counts.numbers,
                        spec.counts.assistants,
                        spec.counts.destinations,
                        spec.counts.trunks
                    );
                    self.head = Some(head);
                    return Ok(true);
                }
                Err(error) if error.is_conflict() || error.is_already_exists() || error.is_not_found() => {
                    self.head = read(format!("read RoutingTable {key}"), api.get_opt(&key.name)).await?;
                    self.seen = self.head.is_some();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(PublishError::Contended(key.clone()))
    }
}

/// The slices of the head before that the new one doesn't name: few, so that they add little to a large head.
fn left_out(before: Option<&RoutingTable>, spec: &RoutingTableSpec) -> Vec<String> {
    let named: BTreeSet<&String> = spec.slices.iter().map(|slice| &slice.name).collect();
    let before = before.iter().flat_map(|head| &head.spec.slices).map(|slice| &slice.name);
    before.filter(|name| !named.contains(name)).cloned().collect()
}

fn heads(job: &Job) -> Api<RoutingTable> {
    Api::namespaced(job.client.clone(), &job.namespace())
}

fn manager() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

async fn create_slice(job: &Job, name: &str, slice: &Draft) -> Result<(), PublishError> {
    let namespace = job.namespace();
    let api: Api<RoutingSlice> = Api::namespaced(job.client.clone(), &namespace);
    let spec = RoutingSliceSpec {
        gateway: job.gateway.name_any(),
        part: slice.part.to_string(),
        content: slice.content(),
    };
    let mut object = RoutingSlice::new(name, spec);
    object.metadata = names::owned_metadata(&job.gateway, name.to_owned());
    let params = manager();
    let create =
        || write(&job.term, format!("create RoutingSlice {namespace}/{name}"), api.create(&params, &object));
    match create().await {
        Ok(_) => job.metrics.wrote("RoutingSlice"),
        Err(error) if error.is_already_exists() => {
            // Ours from before a crash, or something that only has the name: the hash tells.
            let found = read(format!("read RoutingSlice {namespace}/{name}"), api.get_opt(name)).await?;
            if let Some(found) = found
                && slice::hash(&found.spec.content) != slice.hash
            {
                warn!("RoutingSlice {namespace}/{name} doesn't hold what its name says; it is written anew");
                let uid = Preconditions { uid: found.uid(), ..Preconditions::default() };
                let params = DeleteParams { preconditions: Some(uid), ..DeleteParams::default() };
                write(
                    &job.term,
                    format!("delete RoutingSlice {namespace}/{name}"),
                    api.delete(name, &params),
                )
                .await?;
                create().await?;
                job.metrics.wrote("RoutingSlice");
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn bytes(value: &impl serde::Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uid: &str, generation: i64) -> RoutingTable {
        let spec = RoutingTableSpec {
            generation,
            hash: "h".to_owned(),
            slices: Vec::new(),
            previous_slices: Vec::new(),
            credentials_secret: None,
            counts: TableCounts { numbers: 0, assistants: 0, destinations: 0, trunks: 0 },
        };
        let mut head = RoutingTable::new("default", spec);
        head.metadata.uid = Some(uid.to_owned());
        head
    }

    #[test]
    fn a_watch_that_lags_behind_our_own_writes_is_not_somebody_else() {
        let mut publication = Publication { head: Some(head("a", 1)), ..Publication::default() };
        assert!(publication.observe(None), "the head that was just created isn't in the watch yet");
        assert!(publication.observe(Some(&head("a", 1).into())));
        publication.head = Some(head("a", 2));
        assert!(publication.observe(Some(&head("a", 1).into())));
        assert_eq!(publication.generation(), Some(2));
    }

    #[test]
    fn a_head_that_somebody_deleted_or_replaced_is_noticed() {
        let seen = || Publication { head: Some(head("a", 1)), seen: true, ..Publication::default() };
        assert!(!seen().observe(None));
        assert!(!seen().observe(Some(&head("b", 1).into())));
        assert!(!seen().observe(Some(&head("a", 7).into())));
    }
}
