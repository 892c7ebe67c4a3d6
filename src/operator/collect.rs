//! Collecting what no gateway can ask for any more: slices of old tables, credential versions of old tables.
//!
//! Kept are the slices of the head, of the table before, and of any table that a pod which has not ended still
//! acknowledges; everything else goes after it has been useless for a grace time, which begins anew with each leader. A
//! deletion names the uid, so that a slice which came back under the same name is never hit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::try_join_all;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::time::Instant;
use tracing::info;

use crate::resources::RoutingSlice;

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
        publication: &mut Publication,
        roll: &Roll,
        grace: Duration,
        now: Instant,
    ) -> (Vec<String>, Option<Instant>) {
        let Some(Kept { slices: kept, all_told }) = kept(publication, roll) else {
            return (Vec::new(), None);
        };
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

struct Kept {
    slices: BTreeSet<String>,
    /// False when a pod holds a table of which this leader knows only the generation.
    all_told: bool,
}

/// The slices that a gateway may still ask for; `None` before the head is known to be what was compiled.
fn kept(publication: &mut Publication, roll: &Roll) -> Option<Kept> {
    let head = publication.head.as_ref()?;
    publication.published.as_ref()?;
    let generation = head.spec.generation;
    let mut slices: BTreeSet<String> = head.spec.slices.iter().map(|slice| slice.name.clone()).collect();
    slices.extend(head.spec.previous_slices.iter().cloned());

    let held: BTreeSet<i64> = roll.held().collect();
    publication.history.retain(|known, _| *known >= generation - 1 || held.contains(known));
    for generation in &held {
        slices.extend(publication.history.get(generation).into_iter().flatten().cloned());
    }
    let told = |held: &i64| *held >= generation - 1 || publication.history.contains_key(held);
    Some(Kept { slices, all_told: held.iter().all(told) })
}

/// Deletes the slices `ripe` (name and uid) and, when no pod holds an older table, surplus credential versions.
pub async fn collect(
    publication: &mut Publication,
    job: &Job,
    ripe: Vec<(String, String)>,
    prune_credentials: bool,
) -> Result<(), PublishError> {
    let namespace = job.namespace();
    let api: Api<RoutingSlice> = Api::namespaced(job.client.clone(), &namespace);
    let delete = |(name, uid): (String, String)| {
        let api = &api;
        let namespace = &namespace;
        async move {
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid: Some(uid), ..Preconditions::default() }),
                ..DeleteParams::default()
            };
            let what = format!("delete RoutingSlice {namespace}/{name}");
            match write(&job.term, what, api.delete(&name, &params)).await {
                Ok(_) => {
                    job.metrics.collected();
                    info!("RoutingSlice {namespace}/{name} is deleted: no gateway can ask for it any more");
                    Ok(())
                }
                Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
                Err(error) => Err(error),
            }
        }
    };
    try_join_all(ripe.into_iter().map(delete)).await?;
    if prune_credentials {
        publication.credentials.prune(job, &job.key()).await?;
    }
    Ok(())
}
