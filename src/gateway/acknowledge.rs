//! The acknowledgement: this pod's Lease, which says what calls are routed by (`routing::ack` has the contract).
//!
//! Written when something in it has changed, whole, so that what no longer holds disappears; and against the version that was
//! seen last, so that a write which was given up can't land after a later one. A failed write is tried again with a growing,
//! jittered delay and what is true then; nothing waits for it. A Lease that is not as it was written, because somebody changed
//! or deleted it, is written again.
//! A pod that ends leaves its Lease as draining; it goes with the pod, which owns it. So a gateway needs no right to
//! delete Leases.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use super::calls::Calls;
use super::config::Config;
use super::metrics::GatewayMetrics;
use super::table::TableState;
use crate::routing::ack::{self, Acknowledgement, TrunkReports};

/// Field manager of the Lease.
const FIELD_MANAGER: &str = "voicedock-gateway";
/// How long one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// A changed number of calls is written at most this often; everything else at once.
const CALLS_EVERY: Duration = Duration::from_secs(5);
/// The first delay after a write that failed.
const RETRY_FROM: Duration = Duration::from_millis(200);
/// The longest.
const RETRY_TO: Duration = Duration::from_secs(5);
/// Versions of the Lease that are remembered as our own, for a watch that lags behind.
const REMEMBERED: usize = 8;

/// What the acknowledgement is made from.
pub struct Sources {
    /// The table, after the swap.
    pub table: watch::Receiver<TableState>,
    /// Whether the pod drains.
    pub draining: watch::Receiver<bool>,
    /// How many calls there are.
    pub calls: Arc<Calls>,
    /// What was found about the trunks that the pod keeps.
    pub trunks: watch::Receiver<TrunkReports>,
    /// The Lease as it was written.
    pub lease: Arc<OwnLease>,
}

/// This pod's Lease: as it was written, and as the watch on it shows it.
#[derive(Debug, Default)]
pub struct OwnLease {
    versions: Mutex<Versions>,
    disturbed: Notify,
}

#[derive(Debug, Default)]
struct Versions {
    /// That came of our writes.
    written: VecDeque<String>,
    /// A write is under way: what the watch shows may be what comes of it.
    writing: bool,
    /// The last that the watch has shown and that wasn't compared yet; `None` inside when it has shown that there is no
    /// Lease.
    shown: Option<Option<String>>,
}

impl OwnLease {
    /// Takes in the version that the watch shows; `None` when there is no Lease.
    pub fn show(&self, version: Option<String>) {
        let mut versions = self.versions();
        versions.shown = Some(version);
        self.compare(&mut versions);
    }

    fn begin(&self) {
        self.versions().writing = true;
    }

    /// Takes in the version that came of a write; `None` when that isn't known.
    fn written(&self, version: Option<String>) {
        let mut versions = self.versions();
        versions.writing = false;
        versions.written.extend(version);
        if versions.written.len() > REMEMBERED {
            versions.written.pop_front();
        }
        self.compare(&mut versions);
    }

    fn compare(&self, versions: &mut Versions) {
        if versions.writing {
            return;
        }
        let Some(shown) = versions.shown.take() else { return };
        if shown.is_none_or(|shown| !versions.written.contains(&shown)) {
            self.disturbed.notify_one();
        }
    }

    fn versions(&self) -> MutexGuard<'_, Versions> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes this pod's Lease until the process ends.
pub async fn acknowledge(client: Client, config: Config, mut sources: Sources, metrics: GatewayMetrics) {
    let leases: Api<Lease> = Api::namespaced(client, &config.pod.namespace);
    let mut written: Option<Acknowledgement> = None;
    let mut version: Option<String> = None;
    let mut calls_due = tokio::time::interval(CALLS_EVERY);
    calls_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut with_calls = true;
    let mut delays = delays();
    loop {
        let mut wanted = sources.acknowledgement(&config);
        if let (Some(written), false) = (&written, with_calls) {
            wanted.calls = written.calls;
        }
        if written.as_ref() != Some(&wanted) {
            sources.lease.begin();
            let outcome = write(&leases, &config, &wanted, version.take()).await;
            version = outcome.as_ref().ok().cloned();
            sources.lease.written(version.clone());
            if let Err(why) = outcome {
                metrics.acknowledgement_failures.inc();
                let pod = &config.pod.name;
                tracing::warn!(
                    "Lease {pod}, which acknowledges the table, can't be written, trying again: {why}"
                );
                // Only time helps; what is written then is what is true then.
                tokio::time::sleep(delays.next().unwrap_or(RETRY_TO)).await;
                (written, with_calls) = (None, true);
                continue;
            }
            written = Some(wanted);
            delays = self::delays();
        }
        with_calls = false;
        // A closed channel means that the process ends: what was said last stays.
        tokio::select! {
            Ok(()) = sources.table.changed() => {},
            Ok(()) = sources.draining.changed() => {},
            Ok(()) = sources.trunks.changed() => {},
            () = sources.lease.disturbed.notified() => written = None,
            _ = calls_due.tick() => with_calls = true,
        }
    }
}

impl Sources {
    fn acknowledgement(&mut self, config: &Config) -> Acknowledgement {
        let table = self.table.borrow_and_update().clone();
        Acknowledgement {
            table: table.held,
            rejected: table.rejected,
            draining: *self.draining.borrow_and_update(),
            calls: u32::try_from(self.calls.live()).unwrap_or(u32::MAX),
            address: config.http_of_pod().to_string(),
            instance: config.pod.instance.0,
            trunks: self.trunks.borrow_and_update().clone(),
        }
    }
}

/// The pod's Lease that says this.
pub fn lease(config: &Config, said: &Acknowledgement) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(config.pod.name.clone()),
            namespace: Some(config.pod.namespace.clone()),
            labels: Some(ack::labels(&config.gateway)),
            annotations: Some(said.annotations()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: config.pod.name.clone(),
                uid: config.pod.uid.clone(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec { holder_identity: Some(config.pod.uid.clone()), ..LeaseSpec::default() }),
    }
}

/// Writes the Lease over the version `seen`, `None` if none is known; returns the version that came of it.
async fn write(
    leases: &Api<Lease>,
    config: &Config,
    said: &Acknowledgement,
    seen: Option<String>,
) -> Result<String, String> {
    let written = write_over(leases, lease(config, said), seen);
    match tokio::time::timeout(WRITE_TIMEOUT, written).await {
        Ok(Ok(version)) => Ok(version),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the API server did not answer within {} s", WRITE_TIMEOUT.as_secs())),
    }
}

async fn write_over(
    leases: &Api<Lease>,
    mut lease: Lease,
    mut seen: Option<String>,
) -> Result<String, kube::Error> {
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let name = lease.name_any();
    loop {
        let known = seen.is_some();
        if !known {
            seen = leases.get_metadata_opt(&name).await?.and_then(|found| found.resource_version());
        }
        lease.metadata.resource_version = seen.take();
        let written = match lease.metadata.resource_version {
            Some(_) => leases.replace(&name, &parameters, &lease).await,
            None => leases.create(&parameters, &lease).await,
        };
        match written {
            Ok(written) => return Ok(written.resource_version().unwrap_or_default()),
            // The Lease is ours alone: whoever else wrote to it, or deleted it, loses.
            Err(kube::Error::Api(status)) if known && (status.code == 409 || status.code == 404) => {}
            Err(error) => return Err(error),
        }
    }
}

fn delays() -> impl Iterator<Item = Duration> {
    let delays = ExponentialBuilder::new().with_min_delay(RETRY_FROM).with_max_delay(RETRY_TO);
    delays.with_jitter().without_max_times().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_disturbed(lease: &OwnLease) -> bool {
        use futures::FutureExt;
        lease.disturbed.notified().now_or_never().is_some()
    }

    fn shown(version: &str) -> Option<String> {
        Some(version.to_owned())
    }

    #[test]
    fn a_watch_that_lags_behind_our_own_writes_shows_nothing_new() {
        let lease = OwnLease::default();
        for version in ["1", "2"] {
            lease.begin();
            lease.written(shown(version));
        }
        lease.show(shown("1"));
        lease.show(shown("2"));
        lease.begin();
        lease.show(shown("3"));
        assert!(!is_disturbed(&lease), "it may be what is just being written");
        lease.written(shown("3"));
        assert!(!is_disturbed(&lease));
    }

    #[test]
    fn a_version_that_nobody_here_wrote_is_noticed() {
        let lease = OwnLease::default();
        lease.begin();
        lease.written(None);
        lease.begin();
        lease.written(shown("5"));
        lease.show(shown("6"));
        assert!(is_disturbed(&lease), "the write that was given up has landed");
        lease.begin();
        lease.show(shown("7"));
        lease.written(shown("8"));
        assert!(is_disturbed(&lease), "it may have come before ours or after");
        lease.begin();
        lease.written(shown("8"));
        assert!(!is_disturbed(&lease), "once for each that the watch shows");
        lease.show(None);
        assert!(is_disturbed(&lease), "it is gone");
    }
}
