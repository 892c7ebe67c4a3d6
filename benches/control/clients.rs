//! The clients of the API server that the bench itself is, and the clock that all of them are read by.

use std::future::Future;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use futures::future::join_all;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::core::{NotUsed, Object as Typed};
use serde::Deserialize;
use voicedock::resources::conditions::{Condition, ConditionStatus, condition};

use crate::objects::Kind;
use crate::support::api_server;

/// Connections of a client that creates many objects.
pub const CONNECTIONS: usize = 16;

/// Group of what people write.
pub const OURS: &str = "voicedock.dev";

/// An object of any kind, reduced to metadata and status.
pub type Reported = Typed<NotUsed, Status>;

/// What every status of ours has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    #[serde(default)]
    pub observed_generation: i64,
    #[serde(default)]
    conditions: Vec<Condition>,
}

impl Status {
    /// The generation at which the object is `Ready`, if it is.
    pub fn ready_at(&self) -> Option<i64> {
        let ready = self.conditions.iter().find(|found| found.type_ == condition::READY)?;
        (ready.status == ConditionStatus::True).then_some(ready.observed_generation)
    }
}

/// How the API server calls a kind of one of our groups.
pub fn resource(group: &str, kind: Kind) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1alpha1", kind.0), kind.1)
}

/// Objects of a kind of one of our groups.
pub fn api(client: &Client, namespace: &str, group: &str, kind: Kind) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource(group, kind))
}

/// A client with several connections.
pub struct Crowd(Vec<Client>);

impl Crowd {
    /// With [`CONNECTIONS`].
    pub async fn new(kubeconfig: &Path) -> Self {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(api_server::client(kubeconfig).await);
        }
        Self(clients)
    }

    /// Does all `work`, one piece at a time on each connection.
    pub async fn all<T>(&self, work: impl Iterator<Item = T>, each: impl AsyncFn(&Client, T)) {
        let work = Mutex::new(work);
        let next = || work.lock().expect("nobody panics with it").next();
        join_all(self.0.iter().map(async |client| {
            while let Some(piece) = next() {
                each(client, piece).await;
            }
        }))
        .await;
    }
}

/// The result of what may not take longer than `limit`.
pub async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => panic!("{what} did not happen within {limit:?}; the logs are in {}", crate::LOGS),
    }
}

/// Asks again and again until there is something.
pub async fn until<T>(limit: Duration, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(limit, what, found).await
}
