//! The objects of the cluster that the kubeconfig (or the pod's service account) names, read and never written.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::operator::{names, secrets};
use crate::routing::compile::{Objects, SecretFacts, secrets_needed};
use crate::routing::table::ObjectKey;

use super::gather;

/// Objects asked for at once.
const PAGE: u32 = 500;
/// How long the API server may take to be reached, and to answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Why a cluster's objects can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is no way to a cluster.
    #[error("no cluster: {0}; set KUBECONFIG, or name a kubeconfig with --kubeconfig")]
    NoCluster(String),
    /// The API server says no.
    #[error(
        "can't list {kinds}: {source}; it takes the permission to list them in every namespace that is asked about"
    )]
    List {
        /// What was asked for.
        kinds: String,
        /// What it said.
        source: kube::Error,
    },
    /// The API server says nothing.
    #[error("can't list {kinds}: the API server does not answer within {} s; is the cluster up?", PATIENCE.as_secs())]
    Silent {
        /// What was asked for.
        kinds: String,
    },
}

/// Everything that the compiler looks at. Secrets that may not be read are taken to hold what is needed of them.
///
/// # Errors
/// When the cluster isn't reached, or doesn't let its objects be listed.
pub async fn objects(client: Client, default_gateway: Option<ObjectKey>) -> Result<Objects, ClusterError> {
    let mut objects = Objects {
        assistants: list(&Api::all(client.clone())).await?,
        numbers: list(&Api::all(client.clone())).await?,
        trunks: list(&Api::all(client.clone())).await?,
        destinations: list(&Api::all(client.clone())).await?,
        gateways: list(&Api::all(client.clone())).await?,
        ..Objects::default()
    };
    for namespace in pages::<Namespace>(&Api::all(client.clone()), ListParams::default()).await? {
        let labels = namespace.labels().clone();
        objects.namespaces.insert(namespace.name_any(), labels);
    }
    for key in secrets_needed(&objects) {
        let api: Api<Secret> = Api::namespaced(client.clone(), &key.namespace);
        match api.get_opt(&key.name).await {
            Ok(Some(secret)) => drop(objects.secrets.insert(key, secrets::facts(secret))),
            Ok(None) => {}
            Err(_) => drop(objects.secrets.insert(key, SecretFacts::sealed())),
        }
    }
    let default = default_gateway.unwrap_or_else(|| gather::default_gateway(objects.gateways.keys()));
    objects.default_gateway = Some(default);
    Ok(objects)
}

/// All objects of a kind, by their keys.
///
/// # Errors
/// When the API server doesn't let them be listed.
pub async fn list<K>(api: &Api<K>) -> Result<BTreeMap<ObjectKey, Arc<K>>, ClusterError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let found = pages(api, ListParams::default()).await?;
    Ok(found.into_iter().map(|object| (names::key(&object), Arc::new(object))).collect())
}

/// All objects of a kind that the parameters select.
///
/// # Errors
/// When the API server doesn't let them be listed.
pub async fn pages<K>(api: &Api<K>, mut parameters: ListParams) -> Result<Vec<K>, ClusterError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let kinds = || K::plural(&()).into_owned();
    let mut found = Vec::new();
    parameters = parameters.limit(PAGE);
    loop {
        let page = tokio::time::timeout(PATIENCE, api.list(&parameters)).await;
        let page = page.map_err(|_| ClusterError::Silent { kinds: kinds() })?;
        let page = page.map_err(|source| ClusterError::List { kinds: kinds(), source })?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(found),
        }
    }
}
