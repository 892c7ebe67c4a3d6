//! Watches of the API server that never end: each tells one part what there is and what changes.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::StreamExt;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::operator::watch::{Delta, fold};

/// Seconds of a watch request; one that is silent for five more is taken up again. A key that is revoked while a node in
/// between vanishes is taken for so long at most.
const WATCH_SECONDS: u32 = 15;

/// Tells `hear` what `reduce` makes of each object, until `stop`. An object that can't be read is left out and logged. A
/// watch that breaks is taken up again; until then everything stays as it was last seen.
pub async fn follow<K, T>(
    api: Api<DeserializeGuard<K>>,
    selector: Option<&str>,
    reduce: impl Fn(K) -> Option<T>,
    mut hear: impl FnMut(Delta<T>),
    stop: CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let kind = K::kind(&()).into_owned();
    let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
    if let Some(selector) = selector {
        config = config.labels(selector);
    }
    let readable = |guard: DeserializeGuard<K>| match guard.0 {
        Ok(object) => reduce(object),
        Err(invalid) => {
            let named = invalid.metadata.name.unwrap_or_default();
            let namespace = invalid.metadata.namespace.unwrap_or_default();
            warn!(
                "{kind} {namespace}/{named} can't be read and is left out: {}; is its CustomResourceDefinition of another version?",
                invalid.error
            );
            None
        }
    };
    let mut listed = BTreeMap::new();
    let mut events = std::pin::pin!(watcher::watcher(api, config).default_backoff());
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            Some(Ok(event)) => {
                if let Some(delta) = fold(event, &mut listed, readable) {
                    hear(delta);
                }
            }
            Some(Err(error)) => warn!("watch of {kind}: {error}; it is taken up again"),
            None => return,
        }
    }
}
