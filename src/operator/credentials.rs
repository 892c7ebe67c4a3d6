//! The Secret with the credentials of a gateway's table: one key a version, `{"username": …, "password": …}`,
//! `{"certificate": …, "key": …}`, `{"authorities": …}` or `{"secret": …}`.
//!
//! A table names versions, never values, so that credentials switch with the routes. What goes in and out is decided in
//! `routing::protocol`: the versions of the head and of the table before it are kept, so that a gateway that is about to
//! fetch either finds what it needs; older ones go with the next write, and once every pod is past the table before, so does
//! what only that one named.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tracing::warn;

use crate::routing::compile::{
    AUTHORITIES_KEY, CERTIFICATE_KEY, CredentialKeys, CredentialSource, PRIVATE_KEY_KEY, credential_id,
};
use crate::routing::protocol::publisher::VaultWrite;
use crate::routing::protocol::{Vault, Version, Written};
use crate::routing::table::CredentialId;

use super::api::{ApiError, FIELD_MANAGER, read, redact, write};
use super::publish::{Job, PublishError, SIZE_LIMIT, TOUCHED, nonce};
use super::{names, secrets};

/// Secrets that are read at once.
const CONCURRENT_READS: usize = 16;

/// Reads the Secret; its values are dropped.
pub(super) async fn read_vault(job: &Job) -> Result<Option<Vault>, ApiError> {
    let name = names::credentials(&job.gateway.name_any());
    let what = format!("read Secret {}/{name}", job.namespace());
    let found = read(what, api(job).get_opt(&name)).await.map_err(redact)?;
    Ok(found.map(|secret| vault_of(job, secret)))
}

/// Writes the Secret as was decided: with `added`, the values to put in. The error, if there is one, is that of
/// [`Written::Unknown`].
pub(super) async fn write_vault(
    job: &Job,
    known: Option<&Vault>,
    VaultWrite { on, add: _, drop }: VaultWrite,
    added: BTreeMap<CredentialId, ByteString>,
) -> Result<(Written<Vault>, Option<ApiError>), PublishError> {
    let gateway = job.key();
    let mut sizes = known.map(|vault| vault.sizes.clone()).unwrap_or_default();
    sizes.retain(|id, _| !drop.contains(id));
    sizes.extend(added.iter().map(|(id, value)| (id.clone(), value.0.len())));
    let bytes = sizes.values().sum();
    if bytes > SIZE_LIMIT {
        return Err(PublishError::TooLarge { what: "the credentials Secret", gateway, bytes });
    }

    let name = names::credentials(&gateway.name);
    let metadata = names::owned_metadata(&job.gateway, name.clone());
    let what = format!("write Secret {}/{name}", gateway.namespace);
    let outcome = match on {
        None => {
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
            let mut data: serde_json::Map<_, _> = drop.into_iter().map(|id| (id.0, json!(null))).collect();
            data.extend(added.into_iter().map(|(id, value)| (id.0, json!(value))));
            let patch = json!({
                "metadata": {
                    "uid": version.uid,
                    "resourceVersion": version.resource_version,
                    "labels": metadata.labels,
                    "annotations": { TOUCHED: nonce() },
                    "ownerReferences": metadata.owner_references,
                },
                "data": data,
            });
            let params =
                PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            write(&job.term, what, api(job).patch(&name, &params, &Patch::Merge(patch))).await
        }
    };
    Ok(match outcome {
        Ok(secret) => {
            job.metrics.wrote("Secret");
            (Written::Landed(vault_of(job, secret)), None)
        }
        Err(error) if error.is_superseded() => (Written::Refused, None),
        Err(error) => (Written::Unknown, Some(redact(error))),
    })
}

/// What counts of the Secret.
fn vault_of(job: &Job, secret: Secret) -> Vault {
    let version = Version {
        uid: secret.uid().unwrap_or_default(),
        resource_version: secret.resource_version().unwrap_or_default(),
    };
    let owned = secret.owner_references() == [names::owner(&job.gateway)];
    let data = secret.data.unwrap_or_default().into_iter();
    let sizes = data.map(|(id, value)| (CredentialId(id), value.0.len())).collect();
    Vault { version, owned, sizes }
}

fn api(job: &Job) -> Api<Secret> {
    Api::namespaced(job.client.clone(), &job.namespace())
}

/// Reads the values of the given versions; fails when a Secret isn't the version any more that was compiled.
pub(super) async fn fetch(
    job: &Job,
    sources: &BTreeMap<CredentialId, CredentialSource>,
    wanted: &BTreeSet<CredentialId>,
) -> Result<BTreeMap<CredentialId, ByteString>, PublishError> {
    let read = |(id, source): (&CredentialId, &CredentialSource)| {
        let (id, source) = (id.clone(), source.clone());
        async move {
            let changed = || PublishError::SecretChanged(source.secret.clone());
            let content = secrets::fetch(&job.client, &source.secret).await?.ok_or_else(changed)?;
            if credential_id(&source, &content.facts) != id {
                return Err(changed());
            }
            let value = |key: &str| content.value(key).map(|value| value.reveal()).ok_or_else(changed);
            let document = |key: &str| content.document(key).map(|value| value.reveal()).ok_or_else(changed);
            let value = match &source.keys {
                CredentialKeys::Login { username, password } => {
                    json!({ "username": value(username)?, "password": value(password)? })
                }
                CredentialKeys::Certificate => {
                    json!({ "certificate": document(CERTIFICATE_KEY)?, "key": document(PRIVATE_KEY_KEY)? })
                }
                CredentialKeys::Authorities => json!({ "authorities": document(AUTHORITIES_KEY)? }),
                // A gateway that knows no signing secrets yet reads every value of the Secret: for it this is a login that
                // no trunk names, and it goes on following tables while it waits for its upgrade.
                CredentialKeys::Signing { key } => {
                    json!({ "secret": value(key)?, "username": "", "password": "" })
                }
            };
            Ok((id, ByteString(value.to_string().into_bytes())))
        }
    };
    let wanted = sources.iter().filter(|(id, _)| wanted.contains(*id));
    let reads: Vec<_> = wanted.map(read).collect();
    let values = stream::iter(reads).buffer_unordered(CONCURRENT_READS).try_collect().await;
    if let Err(PublishError::SecretChanged(secret)) = &values {
        warn!("Secret {secret} changed while it was being published; it is read again");
    }
    values
}
