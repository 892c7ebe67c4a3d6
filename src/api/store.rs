//! Writes: objects are created, changed and deleted at the API server as one field manager among others.
//!
//! By server-side apply, never with force, and always against the version that was looked at: nobody's change is lost, and
//! what another manager owns is refused with its name ([`StoreError::Managed`]). Only what is ours already and what changes is
//! applied, so that nothing becomes ours that we only read.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{NamespaceResourceScope, Status};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::ownership::{self, Conflict, FIELD_MANAGER};
use crate::operator::api::{ApiError as CallError, read, redact};
use crate::routing::table::ObjectKey;

/// The field manager of `voicedock api-key`.
pub const CLIENT_MANAGER: &str = "voicedock";
/// How often a change is made anew because the object has changed meanwhile.
const TRIES: usize = 5;
/// A version that no object has: with it an apply makes a new object and never changes one.
const NO_VERSION: &str = "1";

/// A kind that the API writes.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("it is not there")]
    NotFound,
    /// An object of this name is there.
    #[error("there is one of this name already")]
    Exists,
    /// Another manager owns what would change.
    #[error("{} is managed by {}", .0.path.join("."), .0.managers.join(", "))]
    Managed(Conflict),
    /// The object breaks a rule of its kind.
    #[error("{}", .0.message)]
    Invalid(Box<Status>),
    /// It changes all the time.
    #[error("it was changed by somebody else each time; try again")]
    Busy,
    /// The API server, or the way to it, said no.
    #[error(transparent)]
    Call(CallError),
}

/// A new spec for an object, as two versions of what the API shows of it: whatever isn't in either stays as it is.
#[derive(Debug)]
pub struct Edit {
    /// What there is.
    pub before: Value,
    /// What there is to be.
    pub after: Value,
}

/// The way to the API server.
#[derive(Clone)]
pub struct Store {
    client: Client,
}

impl Store {
    /// Writes with this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    fn api<K: Kind>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Reads an object past every cache.
    pub async fn get<K: Kind>(&self, namespace: &str, name: &str) -> Result<Option<K>, CallError> {
        read(what::<K>("read", namespace, name), self.api(namespace).get_opt(name)).await
    }

    /// Makes a Secret. An error never holds what is in it.
    pub async fn create_secret(&self, secret: Secret) -> Result<(), CallError> {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let api = self.api::<Secret>(&namespace);
        let made = read(what::<Secret>("create", &namespace, &name), api.create(&params, &secret)).await;
        made.map(drop).map_err(redact)
    }

    /// Makes a new object. The names are tried in order until one is free.
    pub async fn create<K: Kind>(
        &self,
        namespace: &str,
        names: impl IntoIterator<Item = String>,
        spec: &Value,
    ) -> Result<K, StoreError> {
        for name in names {
            let object = json!({
                "apiVersion": K::api_version(&()), "kind": K::kind(&()),
                "metadata": { "name": name, "resourceVersion": NO_VERSION }, "spec": spec,
            });
            match self.apply(namespace, &name, object).await {
                Err(error) if error.is_conflict() => {}
                done => return done.map_err(StoreError::of),
            }
        }
        Err(StoreError::Exists)
    }

    /// Changes the spec of an object by what `edit` makes of it.
    pub async fn change<K: Kind, E: From<StoreError>>(
        &self,
        namespace: &str,
        name: &str,
        edit: impl Fn(&K) -> Result<Edit, E>,
    ) -> Result<K, E> {
        for _ in 0..TRIES {
            let found = self.get::<K>(namespace, name).await.map_err(StoreError::of)?;
            let found = found.ok_or(StoreError::NotFound)?;
            let Edit { before, after } = edit(&found)?;
            let changes = ownership::changes(&before, &after);
            if changes.is_empty() {
                return Ok(found);
            }
            let managed = found.managed_fields();
            if let Some(conflict) = ownership::conflict(managed, &changes) {
                return Err(StoreError::Managed(conflict).into());
            }
            let current = serde_json::to_value(&found).unwrap_or_default();
            let spec = ownership::applied(managed, current.get("spec").unwrap_or(&Value::Null), &changes);
            let object = json!({
                "apiVersion": K::api_version(&()), "kind": K::kind(&()),
                "metadata": { "name": name, "uid": found.uid(), "resourceVersion": found.resource_version() },
                "spec": spec,
            });
            match self.apply(namespace, name, object).await {
                Err(error) if error.is_conflict() => {}
                done => return done.map_err(|error| StoreError::of(error).into()),
            }
        }
        Err(StoreError::Busy.into())
    }

    /// Deletes an object, if nobody else owns a part of its spec. Returns what was deleted.
    pub async fn delete<K: Kind>(&self, namespace: &str, name: &str) -> Result<K, StoreError> {
        for _ in 0..TRIES {
            let found = self.get::<K>(namespace, name).await.map_err(StoreError::of)?;
            let found = found.ok_or(StoreError::NotFound)?;
            let managers = ownership::others(found.managed_fields());
            if !managers.is_empty() {
                return Err(StoreError::Managed(Conflict { path: Vec::new(), managers }));
            }
            let seen = Preconditions { uid: found.uid(), resource_version: found.resource_version() };
            let params = DeleteParams { preconditions: Some(seen), ..DeleteParams::background() };
            let api = self.api::<K>(namespace);
            let deleted = read(what::<K>("delete", namespace, name), api.delete(name, &params)).await;
            match deleted {
                Err(error) if error.is_conflict() => {}
                Err(error) if error.is_not_found() => return Err(StoreError::NotFound),
                Err(error) => return Err(StoreError::of(error)),
                Ok(_) => return Ok(found),
            }
        }
        Err(StoreError::Busy)
    }

    async fn apply<K: Kind>(&self, namespace: &str, name: &str, object: Value) -> Result<K, CallError> {
        let params = PatchParams::apply(FIELD_MANAGER).validation_strict();
        let api = self.api::<K>(namespace);
        read(what::<K>("apply", namespace, name), api.patch(name, &params, &Patch::Apply(object))).await
    }
}

fn what<K: Kind>(verb: &str, namespace: &str, name: &str) -> String {
    format!("{verb} {} {}", K::kind(&()), ObjectKey::new(namespace, name))
}

impl StoreError {
    /// What an error of a call means.
    pub fn of(error: CallError) -> Self {
        match error {
            CallError::Failed { source: kube::Error::Api(status), .. }
                if matches!(status.code, 400 | 422) =>
            {
                Self::Invalid(status)
            }
            error => Self::Call(error),
        }
    }
}
