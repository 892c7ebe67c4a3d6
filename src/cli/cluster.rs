//! The objects of the cluster that the kubeconfig (or the pod's service account) names, read and never written.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::operator::secrets;
use crate::routing::compile::{Objects, SecretFacts, secrets_needed};
use crate::routing::table::ObjectKey;

use super::gather;

/// Objects asked for at once.
const PAGE: u32 = 500;

/// Why a cluster's objects can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is no way to a cluster.
    #[error("no cluster: {0}; set KUBECONFIG, or name manifests with --file")]
    NoCluster(String),
    /// The API server gives no list.
    #[error("can't list {kinds}: {source}; it takes the permission to list them in all namespaces")]
    List {
        /// What was asked for.
        kinds: String,
        /// What it said.
        source: kube::Error,
    },
}

/// Everything that the compiler looks at. Secrets that may not be read are taken to hold what is needed of them.
///
/// # Errors
/// When the cluster isn't reached, or doesn't let its objects be listed.
pub async fn objects(default_gateway: Option<ObjectKey>) -> Result<Objects, ClusterError> {
    let client = Client::try_default().await.map_err(|error| ClusterError::NoCluster(error.to_string()))?;
    let mut objects = Objects {
        assistants: list(&client).await?,
        numbers: list(&client).await?,
        trunks: list(&client).await?,
        destinations: list(&client).await?,
        gateways: list(&client).await?,
        ..Objects::default()
    };
    for namespace in pages::<Namespace>(&Api::all(client.clone())).await? {
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

async fn list<K>(client: &Client) -> Result<BTreeMap<ObjectKey, Arc<K>>, ClusterError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let found = pages::<K>(&Api::all(client.clone())).await?;
    let key = |object: &K| ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any());
    Ok(found.into_iter().map(|object| (key(&object), Arc::new(object))).collect())
}

async fn pages<K>(api: &Api<K>) -> Result<Vec<K>, ClusterError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut found = Vec::new();
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let failed = |source| ClusterError::List { kinds: K::plural(&()).into_owned(), source };
        let page = api.list(&parameters).await.map_err(failed)?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(found),
        }
    }
}
