//! A new leader: from the start of its process until it knows that what is published is what it has compiled, and what it writes.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt};
use voicedock::resources::{RoutingSlice, RoutingTable};

use crate::bulk::writes;
use crate::clients::{OURS, resource, until};
use crate::objects::KINDS;
use crate::report::Latencies;
use crate::stage::{GATEWAY, Stage};
use crate::support::api_server::SOON;

/// How long a leader is watched for writes after it has verified the table.
const WATCHED: Duration = Duration::from_secs(3);

/// What was measured.
#[derive(Default)]
pub struct Leader {
    /// From the start of the process.
    pub verified: Latencies,
    /// Writes of all leaders together: those that they count, or objects that differ afterwards, whichever is more.
    pub writes: usize,
}

/// Lets `times` leaders follow one another. The lease is free when each starts; it is no write that counts.
pub async fn measure(stage: &mut Stage, times: usize) -> Leader {
    let mut leader = Leader::default();
    let label = format!("gateway=\"{}/{GATEWAY}\"", stage.namespace);
    for _ in 0..times {
        stage.is_tidy().await;
        let before = versions(stage).await;
        let generation = stage.acknowledged.borrow().lowest() as f64;
        let start = stage.another_operator();
        // The operator shows a table's generation as soon as this term has verified it and not before.
        let verified = async || {
            let metrics = stage.operator().metrics().await?;
            let mut tables = metrics.samples("voicedock_operator_table_generation");
            tables.any(|(labels, found)| labels == label && found == generation).then_some(())
        };
        until(SOON, "a verified table", verified).await;
        leader.verified.extend([start.elapsed()]);
        tokio::time::sleep(WATCHED).await;
        let counted = writes(stage).await.values().sum::<f64>() as usize;
        let after = versions(stage).await;
        let differ = after.iter().filter(|(name, version)| before.get(*name) != Some(version)).count();
        leader.writes += counted.max(differ);
    }
    leader
}

/// Versions of all that people wrote, of the head and of the slices.
async fn versions(stage: &Stage) -> BTreeMap<String, Option<String>> {
    let mut versions = BTreeMap::new();
    let params = ListParams::default();
    let mut take = |kind: &str, found: Vec<(String, Option<String>)>| {
        versions.extend(found.into_iter().map(|(name, version)| (format!("{kind} {name}"), version)));
    };
    for kind in KINDS {
        let api: Api<kube::api::DynamicObject> =
            Api::namespaced_with(stage.client.clone(), &stage.namespace, &resource(OURS, kind));
        let all = api.list_metadata(&params).await.expect("objects can be listed");
        take(kind.0, all.iter().map(|object| (object.name_any(), object.resource_version())).collect());
    }
    let slices = stage.api::<RoutingSlice>().list_metadata(&params).await.expect("slices can be listed");
    take(
        "slice",
        slices
            .iter()
            .map(|slice: &PartialObjectMeta<_>| (slice.name_any(), slice.resource_version()))
            .collect(),
    );
    let head = stage.api::<RoutingTable>().get(GATEWAY).await.expect("there is a head");
    take("head", vec![(head.name_any(), head.resource_version())]);
    versions
}
