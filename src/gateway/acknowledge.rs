//! The acknowledgement: this pod's Lease, which says what calls are routed by (`routing::ack` has the contract).
//!
//! Written when something in it has changed, by server-side apply, so that each write is whole: what no longer holds
//! disappears. A failed write is tried again with a growing, jittered delay and what is true then; nothing waits for it.
//! A pod that ends leaves its Lease as draining; it goes with the pod, which owns it. So a gateway needs no right to
//! delete Leases.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::{Api, Client};
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use super::calls::Calls;
use super::config::Config;
use super::metrics::GatewayMetrics;
use super::table::TableState;
use crate::routing::ack::{self, Acknowledgement};

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

/// What the acknowledgement is made from.
pub struct Sources {
    /// The table, after the swap.
    pub table: watch::Receiver<TableState>,
    /// Whether the pod drains.
    pub draining: watch::Receiver<bool>,
    /// How many calls there are.
    pub calls: Arc<Calls>,
    /// The Lease is not as it was written: somebody changed or deleted it.
    pub disturbed: Arc<Notify>,
}

/// Writes this pod's Lease until the process ends.
pub async fn acknowledge(client: Client, config: Config, mut sources: Sources, metrics: GatewayMetrics) {
    let leases: Api<Lease> = Api::namespaced(client, &config.pod.namespace);
    let mut written: Option<Acknowledgement> = None;
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
            if let Err(why) = write(&leases, &config, &wanted).await {
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
            () = sources.disturbed.notified() => written = None,
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

async fn write(leases: &Api<Lease>, config: &Config, said: &Acknowledgement) -> Result<(), String> {
    // The Lease is ours alone: whoever else wrote to it loses.
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let lease = Patch::Apply(lease(config, said));
    match tokio::time::timeout(WRITE_TIMEOUT, leases.patch(&config.pod.name, &parameters, &lease)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the API server did not answer within {} s", WRITE_TIMEOUT.as_secs())),
    }
}

fn delays() -> impl Iterator<Item = Duration> {
    let delays = ExponentialBuilder::new().with_min_delay(RETRY_FROM).with_max_delay(RETRY_TO);
    delays.with_jitter().without_max_times().build()
}
