//! Publishing a gateway's table: does what `routing::protocol` decides, one call to the API server after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tracing::{info, warn};

use crate::resources::routing_slice::RoutingSliceSpec;
use crate::resources::routing_table::{RoutingTableSpec, TableCounts};
use crate::resources::{RoutingSlice, RoutingTable, SipGateway};
use crate::routing::ack::Held;
use crate::routing::compile::CredentialSource;
use crate::routing::index::GatewayTable;
use crate::routing::protocol::publisher::{self, HeadWrite, Publisher, Step, Stuck, VaultWrite};
use crate::routing::protocol::{Head, Version, Written};
use crate::routing::slice::layout::{Bases, Layout, There};
use crate::routing::slice::{self, Draft, Outline};
use crate::routing::table::{CredentialId, ObjectKey};

use super::api::{ApiError, FIELD_MANAGER, read, write};
use super::leader::Term;
use super::metrics::Metrics;
use super::{credentials, names};

/// Most bytes of an object that we write: the API server takes 1.5 MiB a request, and 1 MiB of data in a Secret.
pub const SIZE_LIMIT: usize = 1024 * 1024;

/// Slices that are written at once.
const CONCURRENT_SLICES: usize = 8;

/// Annotation that changes with each touch, so that the object's version does.
pub(super) const TOUCHED: &str = "voicedock.dev/touched";

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
    /// Somebody else keeps writing.
    #[error("{what} of gateway {gateway} is being written by somebody else; is there a second operator?")]
    Contended {
        /// What.
        what: &'static str,
        /// Whose.
        gateway: ObjectKey,
    },
    /// The head turned out to be another one than the watch showed, so that slices are needed which weren't at hand.
    #[error("RoutingTable {0} is not what the watch shows; the table is offered again")]
    Outdated(ObjectKey),
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

impl Job {
    pub(super) fn key(&self) -> ObjectKey {
        names::key(&*self.gateway)
    }

    pub(super) fn namespace(&self) -> String {
        self.gateway.namespace().unwrap_or_default()
    }
}

/// A table that is to be published, with what is needed to write it.
pub struct Offer {
    offer: publisher::Offer,
    /// Slices that the head doesn't name, as far as it is known, or that aren't there.
    drafts: BTreeMap<String, Arc<Draft>>,
    /// What the table after this one can amend.
    bases: Bases,
    /// Length of the largest slice's content, bytes.
    largest: usize,
    sources: BTreeMap<CredentialId, CredentialSource>,
}

impl Offer {
    /// Offers `table` to follow what is `published`; `head` is what the watch shows. `is_present` tells whether the watch shows a slice of a name, `held` is what the gateway's pods hold, `seal` is
    /// [`publisher::Offer::seal`].
    pub fn new(
        gateway: &ObjectKey,
        table: &GatewayTable,
        published: &Publication,
        head: Option<&RoutingTableSpec>,
        is_present: impl Fn(&str) -> bool,
        held: Vec<Held>,
        seal: bool,
    ) -> Self {
        let sliced = table.sliced();
        let there = There { head: published.publisher.expected(head), bases: &published.bases, is_present };
        let name = |outline: &Outline<'_>| names::slice(&gateway.name, outline.part.as_str(), outline.hash);
        let Layout { slices, amendments, drafts, absent, bases } = Layout::new(sliced, &there, name);
        let [numbers, assistants, destinations, trunks] =
            sliced.counts().map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        let sources = table.credentials().clone();
        let spec = RoutingTableSpec {
            generation: 0,
            hash: sliced.hash().to_owned(),
            slices,
            amendments,
            previous_slices: Vec::new(),
            credentials_secret: (!sources.is_empty()).then(|| names::credentials(&gateway.name)),
            counts: TableCounts { numbers, assistants, destinations, trunks },
        };
        let largest = sliced.outlines().map(|outline| outline.bytes).max().unwrap_or_default();
        let credentials = Arc::new(sources.keys().cloned().collect());
        let offer = publisher::Offer { spec: Arc::new(spec), credentials, held, absent, seal };
        Self { offer, drafts, bases, largest, sources }
    }
}

/// A gateway's published table: what is known of it, and the head's object.
#[derive(Debug, Default)]
pub struct Publication {
    /// What is known and decided.
    pub publisher: Publisher,
    /// The head as last read, written or watched: for the metadata that others have written.
    object: Option<RoutingTable>,
    /// The rows of its slices.
    bases: Bases,
    /// Length of the head or of the largest slice, whichever is longer, bytes.
    largest: usize,
}

impl Publication {
    /// Whether the compiled table is what is published.
    pub fn holds(&self, table: &GatewayTable) -> bool {
        self.publisher.holds(table.sliced().hash(), table.credentials().keys())
    }

    /// The largest object of the publication as a share of [`SIZE_LIMIT`].
    pub fn fullness(&self) -> f64 {
        let vault = self.publisher.vault().map_or(0, |vault| vault.sizes.values().sum());
        self.largest.max(vault) as f64 / SIZE_LIMIT as f64
    }

    /// Takes in what the watch says of the head; false when it is not what was published.
    pub fn observe(&mut self, gateway: &SipGateway, watched: &RoutingTable) -> bool {
        let head = head_of(watched, gateway);
        let same = self.publisher.observe_head(&head);
        if self.publisher.head().is_some_and(|known| known.version == head.version) {
            self.object = Some(watched.clone());
        }
        same
    }

    /// Brings the published table to what was compiled. Returns whether the head was written.
    pub async fn publish(&mut self, job: &Job, offer: Offer) -> Result<bool, PublishError> {
        self.check_sizes(&job.key(), &offer)?;
        self.publisher.begin(offer.offer.clone());
        let result = self.run(job, &offer).await;
        match result {
            Ok(_) => self.bases = offer.bases,
            Err(_) => self.publisher.abandon(),
        }
        result
    }

    async fn run(&mut self, job: &Job, offer: &Offer) -> Result<bool, PublishError> {
        loop {
            match self.publisher.step() {
                Step::ReadHead => {
                    let key = job.key();
                    self.object =
                        read(format!("read RoutingTable {key}"), heads(job).get_opt(&key.name)).await?;
                    let head = self.object.as_ref().map(|table| head_of(table, &job.gateway));
                    self.publisher.head_read(head);
                }
                Step::ReadVault => self.publisher.vault_read(credentials::read_vault(job).await?),
                Step::ClaimSlices(names) => self.claim(job, offer, names).await?,
                Step::WriteVault(write) => self.write_vault(job, &offer.sources, write).await?,
                Step::WriteHead(write) => self.write_head(job, write).await?,
                Step::Done { written } => return Ok(written),
                Step::Stuck(why) => return Err(stuck(why, job.key())),
            }
        }
    }

    fn check_sizes(&mut self, gateway: &ObjectKey, offer: &Offer) -> Result<(), PublishError> {
        // Names of as many slices of the previous generation on top, at most.
        let head = bytes(&*offer.offer.spec) * 2;
        self.largest = head.max(offer.largest);
        for (what, bytes) in
            [("the head of the routing table", head), ("one entry of the routing table", offer.largest)]
        {
            if bytes > SIZE_LIMIT {
                return Err(PublishError::TooLarge { what, gateway: gateway.clone(), bytes });
            }
        }
        Ok(())
    }

    async fn claim(&mut self, job: &Job, offer: &Offer, names: Vec<String>) -> Result<(), PublishError> {
        let claim = |name: String| async move {
            let draft = offer.drafts.get(&name).ok_or_else(|| PublishError::Outdated(job.key()))?;
            claim_slice(job, &name, draft).await?;
            Ok::<_, PublishError>(name)
        };
        let claims: Vec<_> = names.into_iter().map(claim).collect();
        let mut claimed = stream::iter(claims).buffer_unordered(CONCURRENT_SLICES);
        while let Some(name) = claimed.try_next().await? {
            self.publisher.slice_claimed(name);
        }
        Ok(())
    }

    /// Writes the Secret of credentials as was decided.
    pub async fn write_vault(
        &mut self,
        job: &Job,
        sources: &BTreeMap<CredentialId, CredentialSource>,
        write: VaultWrite,
    ) -> Result<(), PublishError> {
        let added = credentials::fetch(job, sources, &write.add).await?;
        let (outcome, error) = credentials::write_vault(job, self.publisher.vault(), write, added).await?;
        self.publisher.vault_written(outcome);
        error.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn write_head(&mut self, job: &Job, HeadWrite { on, spec }: HeadWrite) -> Result<(), PublishError> {
        let key = job.key();
        let api = heads(job);
        let what = format!("write RoutingTable {key} generation {}", spec.generation);
        let counts = spec.counts;
        let mut object = match (on, self.object.take()) {
            (Some(Version { uid, resource_version }), object) => {
                let mut object = object.unwrap_or_else(|| RoutingTable::new(&key.name, spec.clone()));
                object.metadata.uid = Some(uid);
                object.metadata.resource_version = Some(resource_version);
                object
            }
            (None, _) => RoutingTable::new(&key.name, spec.clone()),
        };
        let ours = names::owned_metadata(&job.gateway, key.name.clone());
        object.metadata.namespace = ours.namespace;
        object.metadata.owner_references = ours.owner_references;
        object.labels_mut().extend(ours.labels.unwrap_or_default());
        object.metadata.managed_fields = None;
        object.spec = spec;
        object.status = None;
        let outcome = match object.metadata.resource_version {
            None => write(&job.term, what, api.create(&manager(), &object)).await,
            Some(_) => write(&job.term, what, api.replace(&key.name, &manager(), &object)).await,
        };
        match outcome {
            Ok(table) => {
                job.metrics.wrote("RoutingTable");
                info!(
                    "gateway {key}: generation {} is published: {} numbers, {} assistants, {} destinations, {} trunks",
                    table.spec.generation,
                    counts.numbers,
                    counts.assistants,
                    counts.destinations,
                    counts.trunks
                );
                self.publisher.head_written(Written::Landed(head_of(&table, &job.gateway)));
                self.object = Some(table);
                Ok(())
            }
            Err(error) if error.is_superseded() => {
                self.publisher.head_written(Written::Refused);
                Ok(())
            }
            Err(error) => {
                self.publisher.head_written(Written::Unknown);
                Err(error.into())
            }
        }
    }
}

fn stuck(why: Stuck, gateway: ObjectKey) -> PublishError {
    match why {
        Stuck::Deleting => PublishError::Deleting(gateway),
        Stuck::HeadContended => PublishError::Contended { what: "the RoutingTable", gateway },
        Stuck::VaultContended => PublishError::Contended { what: "the credentials Secret", gateway },
    }
}

/// What counts of a head's object.
fn head_of(table: &RoutingTable, gateway: &SipGateway) -> Head {
    Head {
        version: Version {
            uid: table.uid().unwrap_or_default(),
            resource_version: table.resource_version().unwrap_or_default(),
        },
        owned: table.owner_references() == [names::owner(gateway)],
        deleting: table.metadata.deletion_timestamp.is_some(),
        spec: Arc::new(table.spec.clone()),
    }
}

fn heads(job: &Job) -> Api<RoutingTable> {
    Api::namespaced(job.client.clone(), &job.namespace())
}

fn manager() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

/// Creates a slice. One that is there already (from a table of before, or from before a crash) gets a new version instead,
/// so that no deletion that was decided on before can hit it.
async fn claim_slice(job: &Job, name: &str, draft: &Draft) -> Result<(), PublishError> {
    let namespace = job.namespace();
    let api: Api<RoutingSlice> = Api::namespaced(job.client.clone(), &namespace);
    let spec = RoutingSliceSpec {
        gateway: job.gateway.name_any(),
        part: draft.part.to_string(),
        content: draft.content(),
    };
    let mut object = RoutingSlice::new(name, spec);
    object.metadata = names::owned_metadata(&job.gateway, name.to_owned());
    let params = manager();
    loop {
        let what = format!("create RoutingSlice {namespace}/{name}");
        match write(&job.term, what, api.create(&params, &object)).await {
            Ok(_) => {
                job.metrics.wrote("RoutingSlice");
                return Ok(());
            }
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error.into()),
        }
        let touch = Patch::Merge(json!({ "metadata": { "annotations": { TOUCHED: nonce() } } }));
        let manager = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let what = format!("touch RoutingSlice {namespace}/{name}");
        let found = match write(&job.term, what, api.patch(name, &manager, &touch)).await {
            Ok(found) => found,
            // It went in between: create it after all.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        job.metrics.wrote("RoutingSlice");
        if slice::hash(&found.spec.content) == draft.hash {
            return Ok(());
        }
        warn!("RoutingSlice {namespace}/{name} doesn't hold what its name says; it is written anew");
        let uid = Preconditions { uid: found.uid(), ..Preconditions::default() };
        let params = DeleteParams { preconditions: Some(uid), ..DeleteParams::default() };
        let what = format!("delete RoutingSlice {namespace}/{name}");
        write(&job.term, what, api.delete(name, &params)).await?;
    }
}

/// Never the same twice.
pub(super) fn nonce() -> String {
    format!("{:016x}", rand::random::<u64>())
}

fn bytes(value: &impl serde::Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len())
}
