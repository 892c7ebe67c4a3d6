//! The Secret with the credentials of a gateway's table: one key a version, `{"username": …, "password": …}`.
//!
//! A table names versions, never values, so that credentials switch with the routes. The versions of the head and of the
//! table before it are kept: a gateway that is about to fetch either finds what it needs. Older ones go with the next
//! write, and once every pod is past the table before, so does what only that one named.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tracing::warn;

use crate::routing::compile::{CredentialSource, credential_id};
use crate::routing::table::{CredentialId, ObjectKey};

use super::api::{FIELD_MANAGER, read, redact, write};
use super::names;
use super::publish::{Job, PublishError, SIZE_LIMIT};
use super::secrets;
use super::watch::Version;

/// Secrets that are read at once.
const CONCURRENT_READS: usize = 16;
/// Attempts to write the Secret while somebody else does.
const ATTEMPTS: usize = 4;
/// Versions of the Secret that are remembered as our own, for a watch that lags behind.
const REMEMBERED: usize = 16;

/// What this leader knows of a gateway's credentials Secret: never a value.
#[derive(Debug, Default)]
pub struct Credentials {
    known: Option<Known>,
    ours: VecDeque<String>,
    /// Somebody else wrote the Secret: its values can't be trusted.
    spoiled: bool,
    /// What the published table names; `None` until that is known.
    published: Option<BTreeSet<CredentialId>>,
    /// Bytes of the Secret's data.
    pub bytes: usize,
    /// Whether the Secret, once created, has been there for others to see: the watch lags behind its creation.
    seen: bool,
}

#[derive(Debug)]
struct Known {
    /// `None` while there is no Secret.
    resource_version: Option<String>,
    sizes: BTreeMap<CredentialId, usize>,
    owned: bool,
}

impl Credentials {
    /// Takes in what the watch says of the Secret; false when somebody else wrote or deleted it.
    pub fn observe(&mut self, watched: Option<&Version>) -> bool {
        let Some(known) = &self.known else { return true };
        match watched {
            Some(version) if self.ours.contains(&version.resource_version) => {
                self.seen = true;
                true
            }
            None if known.resource_version.is_none() || !self.seen => true,
            _ => {
                self.known = None;
                self.spoiled = true;
                false
            }
        }
    }

    /// Notes which versions the published table names.
    pub fn published(&mut self, ids: BTreeSet<CredentialId>) {
        self.published = Some(ids);
    }

    /// Makes sure that every version that the table names is in the Secret.
    pub async fn ensure(
        &mut self,
        job: &Job,
        gateway: &ObjectKey,
        needed: &BTreeMap<CredentialId, CredentialSource>,
    ) -> Result<(), PublishError> {
        for _ in 0..ATTEMPTS {
            let known = match self.known.take() {
                Some(known) => known,
                None => self.look(job).await?,
            };
            let missing: BTreeMap<_, _> =
                needed.iter().filter(|(id, _)| self.spoiled || !known.sizes.contains_key(id)).collect();
            let settled = known.owned || known.resource_version.is_none();
            if missing.is_empty() && settled {
                self.bytes = known.sizes.values().sum();
                self.known = Some(known);
                return Ok(());
            }
            let added = fetch(job, missing).await?;
            let keep = |id: &CredentialId| {
                needed.contains_key(id)
                    || self.published.as_ref().is_none_or(|published| published.contains(id))
            };
            let dropped: Vec<_> = known.sizes.keys().filter(|id| !keep(id)).cloned().collect();
            if self.write(job, gateway, known, added, dropped).await? {
                self.spoiled = false;
            }
        }
        Err(PublishError::Contended(gateway.clone()))
    }

    /// Removes versions that the published table doesn't name. Only once no pod holds an older one.
    pub async fn prune(&mut self, job: &Job, gateway: &ObjectKey) -> Result<(), PublishError> {
        let (Some(known), Some(published)) = (self.known.take(), self.published.clone()) else {
            return Ok(());
        };
        let dropped: Vec<_> = known.sizes.keys().filter(|id| !published.contains(id)).cloned().collect();
        if dropped.is_empty() {
            self.known = Some(known);
            return Ok(());
        }
        self.write(job, gateway, known, BTreeMap::new(), dropped).await?;
        Ok(())
    }

    /// Whether [`Self::prune`] would write.
    pub fn has_surplus(&self) -> bool {
        match (&self.known, &self.published) {
            (Some(known), Some(published)) => known.sizes.keys().any(|id| !published.contains(id)),
            _ => false,
        }
    }

    async fn look(&mut self, job: &Job) -> Result<Known, PublishError> {
        let name = names::credentials(&job.gateway.name_any());
        let found = read(format!("read Secret {}/{name}", job.namespace()), api(job).get_opt(&name))
            .await
            .map_err(redact)?;
        let Some(secret) = found else {
            return Ok(Known { resource_version: None, sizes: BTreeMap::new(), owned: false });
        };
        let resource_version = secret.resource_version().unwrap_or_default();
        self.remember(resource_version.clone());
        self.seen = true;
        let owned = secret.owner_references() == [names::owner(&job.gateway)];
        let sizes =
            secret.data.unwrap_or_default().into_iter().map(|(id, value)| (CredentialId(id), value.0.len()));
        Ok(Known { resource_version: Some(resource_version), sizes: sizes.collect(), owned })
    }

    /// One write; false when somebody else was faster, so that the Secret has to be read again.
    async fn write(
        &mut self,
        job: &Job,
        gateway: &ObjectKey,
        known: Known,
        added: BTreeMap<CredentialId, ByteString>,
        dropped: Vec<CredentialId>,
    ) -> Result<bool, PublishError> {
        let mut sizes = known.sizes;
        sizes.retain(|id, _| !dropped.contains(id));
        sizes.extend(added.iter().map(|(id, value)| (id.clone(), value.0.len())));
        let bytes = sizes.values().sum();
        if bytes > SIZE_LIMIT {
            return Err(PublishError::TooLarge {
                what: "the credentials Secret",
                gateway: gateway.clone(),
                bytes,
            });
        }

        let name = names::credentials(&gateway.name);
        let metadata = names::owned_metadata(&job.gateway, name.clone());
        let what = format!("write Secret {}/{name}", gateway.namespace);
        let outcome = match known.resource_version {
            None => {
                self.seen = false;
                let secret = Secret {
                    metadata,
                    type_: Some("voicedock.dev/credentials".to_owned()),
                    data: Some(added.into_iter().map(|(id, value)| (id.0, value)).collect()),
                    ..Secret::default()
                };
                let params =
                    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
                write(&job.term, what, api(job).create(&params, &secret)).await
            }
            Some(version) => {
                let mut data: serde_json::Map<_, _> =
                    dropped.into_iter().map(|id| (id.0, json!(null))).collect();
                data.extend(added.into_iter().map(|(id, value)| (id.0, json!(value))));
                let patch = json!({
                    "metadata": {
                        "resourceVersion": version,
                        "labels": metadata.labels,
                        "ownerReferences": metadata.owner_references,
                    },
                    "data": data,
                });
                let params =
                    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
                write(&job.term, what, api(job).patch(&name, &params, &Patch::Merge(patch))).await
            }
        };
        match outcome {
            Ok(secret) => {
                job.metrics.wrote("Secret");
                let version = secret.resource_version().unwrap_or_default();
                self.remember(version.clone());
                self.bytes = bytes;
                self.known = Some(Known { resource_version: Some(version), sizes, owned: true });
                Ok(true)
            }
            Err(error) if error.is_conflict() || error.is_already_exists() || error.is_not_found() => {
                self.known = None;
                Ok(false)
            }
            Err(error) => {
                self.known = None;
                Err(redact(error).into())
            }
        }
    }

    fn remember(&mut self, resource_version: String) {
        self.ours.push_back(resource_version);
        if self.ours.len() > REMEMBERED {
            self.ours.pop_front();
        }
    }
}

fn api(job: &Job) -> Api<Secret> {
    Api::namespaced(job.client.clone(), &job.namespace())
}

/// Reads the values of the given versions; fails when a Secret isn't the version any more that was compiled.
async fn fetch(
    job: &Job,
    missing: BTreeMap<&CredentialId, &CredentialSource>,
) -> Result<BTreeMap<CredentialId, ByteString>, PublishError> {
    let read = |(id, source): (&CredentialId, &CredentialSource)| {
        let (id, source) = (id.clone(), source.clone());
        async move {
            let changed = || PublishError::SecretChanged(source.secret.clone());
            let content = secrets::fetch(&job.client, &source.secret).await?.ok_or_else(changed)?;
            if credential_id(&source, &content.facts) != id {
                return Err(changed());
            }
            let username = content.value(&source.username_key).ok_or_else(changed)?;
            let password = content.value(&source.password_key).ok_or_else(changed)?;
            let value = json!({ "username": username.reveal(), "password": password.reveal() });
            Ok((id, ByteString(value.to_string().into_bytes())))
        }
    };
    let values =
        stream::iter(missing.into_iter().map(read)).buffer_unordered(CONCURRENT_READS).try_collect().await;
    if let Err(PublishError::SecretChanged(secret)) = &values {
        warn!("Secret {secret} changed while it was being published; it is read again");
    }
    values
}
