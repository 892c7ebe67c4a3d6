//! Collecting what no gateway can ask for any more: slices of old tables, credential versions of old tables.
//!
//! Kept is what `routing::protocol` says; everything else goes after it has been useless for a grace time, which begins anew
//! with each leader. A deletion names the uid and the version that was seen, so that a slice which came back under the
//! same name, or into use, is never hit, however late the deletion lands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::try_join_all;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::time::Instant;
use tracing::info;

use crate::resources::RoutingSlice;
use crate::routing::protocol::Version;
use crate::routing::protocol::publisher::{Kept, Publisher};

use super::acknowledge::Roll;
use super::api::write;
use super::publish::{Job, Publication, PublishError};

/// How many grace times a slice is kept while a pod holds a table of an earlier leader, whose slices can't be told from
/// garbage. Bounded, so that one pod that is stuck doesn't fill the API server: a gateway asks for slices of a head only.
const UNTOLD: u32 = 10;

/// Since when each slice of a gateway has been useless.
#[derive(Debug, Default)]
pub struct Useless {
    since: BTreeMap<String, Instant>,
}

impl Useless {
    /// The slices that have been useless for `grace`, and when to look again if there are others.
    pub fn ripe<'a>(
        &mut self,
        present: impl Iterator<Item = &'a String>,
        publisher: &mut Publisher,
        roll: &Roll,
        grace: Duration,
        now: Instant,
    ) -> (Vec<String>, Option<Instant>) {
        let held = roll.held().collect();
        publisher.forget(&held);
        let Some(Kept { slices: kept, all_told }) = publisher.kept(&held) else { return (Vec::new(), None) };
        let grace = if all_told { grace } else { grace * UNTOLD };
        let useless: BTreeSet<_> = present.filter(|name| !kept.contains(*name)).cloned().collect();
        self.since.retain(|name, _| useless.contains(name));
        for name in useless {
            self.since.entry(name).or_insert(now);
        }
        let ripe = self.since.iter().filter(|(_, since)| now.duration_since(**since) >= grace);
        let ripe: Vec<_> = ripe.map(|(name, _)| name.clone()).collect();
        let next = self.since.values().map(|since| *since + grace).filter(|due| *due > now).min();
        (ripe, next)
    }
}

/// Deletes the slices `ripe`, each in the version that was seen, and surplus credential versions if `prune`.
pub async fn collect(
    publication: &mut Publication,
    job: &Job,
    ripe: Vec<(String, Version)>,
    prune: bool,
) -> Result<(), PublishError> {
    let namespace = job.namespace();
    let api: Api<RoutingSlice> = Api::namespaced(job.client.clone(), &namespace);
    let delete = |(name, version): (String, Version)| {
        let api = &api;
        let namespace = &namespace;
        async move {
            let seen =
                Preconditions { uid: Some(version.uid), resource_version: Some(version.resource_version) };
            let params = DeleteParams { preconditions: Some(seen), ..DeleteParams::default() };
            let what = format!("delete RoutingSlice {namespace}/{name}");
            match write(&job.term, what, api.delete(&name, &params)).await {
                Ok(_) => {
                    job.metrics.collected();
                    info!("RoutingSlice {namespace}/{name} is deleted: no gateway can ask for it any more");
                    Ok(())
                }
                Err(error) if error.is_superseded() => Ok(()),
                Err(error) => Err(error),
            }
        }
    };
    try_join_all(ripe.into_iter().map(delete)).await?;
    if let Some(write) = publication.publisher.surplus().filter(|_| prune) {
        publication.write_vault(job, &BTreeMap::new(), write).await?;
    }
    Ok(())
}
