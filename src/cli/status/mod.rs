//! `voicedock status`: do the gateways have what they should, do the trunks answer, and what isn't Ready, why?
//!
//! Read from the API server alone: statuses, which the operator keeps current, and the gateway pods' Leases, which they write
//! themselves. Calls by trunk are asked for at the pods, through the API server. What may not be read is said and not
//! taken for nothing. Exit code 1 means that something isn't as it should be, 2 that the cluster can't be asked.

mod judge;
mod report;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::operator::state::Reported;
use crate::resources::conditions::{Condition, condition};
use crate::resources::{Assistant, PhoneNumber, RoutingTable, SipGateway, SipTrunk, TransferDestination};
use crate::routing::table::ObjectKey;

use super::ask::{Asked, Question};
use super::call::{Call, State};
use super::cluster::{ClusterError, list, pages};
use super::gateways::{Desk, Gateways, Pod, gateways, pods};
use super::{UNWELL, WELL, unanswered};

use judge::{Judged, of_object, of_table};
use report::{Counted, Draining, Gateway, GatewayPod, Problem, Report, Trunk};

/// The operator's Lease, as the chart names it.
const OPERATOR: &str = "voicedock-operator";
/// For so long the operator may not have renewed its Lease, whose clock may be another than this machine's.
const OPERATOR_SILENT: SignedDuration = SignedDuration::from_secs(60);

/// What `voicedock status` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    question: Question,
}

/// Runs `voicedock status`.
pub async fn run(args: &Args) -> ExitCode {
    let asked = match Asked::new(&args.question).await {
        Ok(asked) => asked,
        Err(error) => return unanswered(&error),
    };
    match report(&asked).await {
        Ok(report) => args.question.output.write(&report, if report.fine { WELL } else { UNWELL }),
        Err(error) => unanswered(&error),
    }
}

async fn report(asked: &Asked) -> Result<Report, ClusterError> {
    let numbers: BTreeMap<_, Arc<PhoneNumber>> = list(&asked.api()).await?;
    let assistants: BTreeMap<_, Arc<Assistant>> = list(&asked.api()).await?;
    let destinations: BTreeMap<_, Arc<TransferDestination>> = list(&asked.api()).await?;
    let trunks: BTreeMap<_, Arc<SipTrunk>> = list(&asked.api()).await?;
    let mut found = gateways(asked, numbers.values().cloned()).await?;
    let pods = pods(asked, &mut found).await;
    let tables = tables(asked, &mut found).await;

    let mut problems = Vec::new();
    let mut judge = |object: Reported<'_>| -> Judged {
        let judged = of_object(object);
        problems.extend(judged.problem.clone());
        judged
    };
    let mut gateways = Vec::new();
    for (key, object) in &found.found {
        let ready = judge(Reported::SipGateway(object)).ready;
        gateways.push(gateway(key, object, ready, tables.get(key), &pods));
    }
    let calls = if trunks.is_empty() { Some(Vec::new()) } else { calls(asked, &mut found, &pods).await };
    let mut shown = Vec::new();
    for (key, object) in &trunks {
        let ready = judge(Reported::SipTrunk(object)).ready;
        shown.push(trunk(key, object, ready, calls.as_deref()));
    }
    let counted = [
        Counted::of("PhoneNumbers", numbers.values().map(|object| judge(Reported::PhoneNumber(object)))),
        Counted::of("Assistants", assistants.values().map(|object| judge(Reported::Assistant(object)))),
        Counted::of(
            "TransferDestinations",
            destinations.values().map(|object| judge(Reported::TransferDestination(object))),
        ),
    ];
    problems.extend(tables.iter().filter_map(|(key, table)| of_table(key, table)));
    problems.extend(pods.iter().filter_map(refused));
    problems.extend(operator(asked, &mut found).await);
    Ok(Report {
        fine: problems.is_empty(),
        gateways,
        pods: pods.iter().map(gateway_pod).collect(),
        trunks: shown,
        objects: counted.into(),
        problems,
        unknown: found.missing,
        place: asked.place(),
    })
}

/// The heads of the gateways' tables.
async fn tables(asked: &Asked, gateways: &mut Gateways) -> BTreeMap<ObjectKey, Arc<RoutingTable>> {
    let mut tables = BTreeMap::new();
    for key in gateways.found.keys().cloned().collect::<Vec<_>>() {
        let api: Api<RoutingTable> = Api::namespaced(asked.client.clone(), &key.namespace);
        let what = format!("read RoutingTable {key}");
        match crate::operator::api::read(what, api.get_opt(&key.name)).await {
            Ok(table) => tables.extend(table.map(|table| (key, Arc::new(table)))),
            Err(error) => gateways.missing.push(format!("Which table is wanted is missing: can't {error}.")),
        }
    }
    tables
}

fn gateway(
    key: &ObjectKey,
    object: &SipGateway,
    ready: bool,
    table: Option<&Arc<RoutingTable>>,
    pods: &[Pod],
) -> Gateway {
    let status = object.status.clone().unwrap_or_default();
    let own = || pods.iter().filter(|pod| pod.gateway == *key);
    let drain = || own().filter(|pod| pod.said.draining);
    let calls = own().map(|pod| i64::from(pod.said.calls)).sum();
    Gateway {
        gateway: key.clone(),
        ready,
        pods_ready: status.replicas,
        pods_wanted: status.effective.and_then(|effective| effective.replicas).or(object.spec.replicas),
        table_held: status.table_generation,
        table_wanted: table.map(|table| table.spec.generation),
        // Without Leases the operator's count, which is older.
        calls: if own().next().is_some() { Some(calls) } else { status.calls },
        draining: Draining {
            pods: drain().count(),
            calls: drain().map(|pod| u64::from(pod.said.calls)).sum(),
        },
        addresses: status.addresses,
    }
}

fn gateway_pod(pod: &Pod) -> GatewayPod {
    GatewayPod {
        pod: ObjectKey::new(&pod.gateway.namespace, &pod.peer.pod),
        gateway: pod.gateway.clone(),
        table_held: pod.said.table.as_ref().map(|held| held.generation),
        calls: pod.said.calls,
        draining: pod.said.draining,
    }
}

/// A pod that keeps an older table than it was offered.
fn refused(pod: &Pod) -> Option<Problem> {
    let refused = pod.said.rejected.as_ref()?;
    let generation = refused.generation;
    Some(Problem {
        kind: "Pod",
        object: ObjectKey::new(&pod.gateway.namespace, &pod.peer.pod),
        reason: "Rejected".to_owned(),
        message: format!("It refused table {generation} and keeps the one that it has: {}", refused.reason),
        since: None,
    })
}

/// The calls there are, if all of them can be had.
async fn calls(asked: &Asked, gateways: &mut Gateways, pods: &[Pod]) -> Option<Vec<Call>> {
    let looked = Desk::new(asked).look(gateways, pods, 0).await;
    let whole = looked.missing.is_empty() && gateways.missing.is_empty();
    let why = looked.missing.into_iter().map(|why| format!("Calls by trunk are not known. {why}"));
    gateways.missing.extend(why);
    whole.then_some(looked.calls)
}

fn trunk(key: &ObjectKey, object: &SipTrunk, ready: bool, calls: Option<&[Call]>) -> Trunk {
    let status = object.status.as_ref();
    let conditions: &[Condition] = status.map_or(&[], |status| &status.conditions);
    let reachable = conditions.iter().find(|found| found.type_ == condition::REACHABLE);
    let count = |carries: fn(&Call, &ObjectKey) -> bool| {
        calls.map(|calls| calls.iter().filter(|call| carries(call, key)).count())
    };
    Trunk {
        trunk: key.clone(),
        ready,
        reachable: reachable.map(|reachable| reachable.status),
        calls_in: count(|call, key| call.trunk.as_ref() == Some(key)),
        calls_out: count(|call, key| {
            call.state == State::Transferred && call.transfer_trunk.as_ref() == Some(key)
        }),
        said: reachable.map(|reachable| reachable.message.clone()),
    }
}

/// Whether somebody keeps all of this current. Another operator than the chart's is not known by its name.
async fn operator(asked: &Asked, gateways: &mut Gateways) -> Option<Problem> {
    if asked.namespace.is_some() {
        return None;
    }
    let named = ListParams::default().fields(&format!("metadata.name={OPERATOR}"));
    let leases = pages::<Lease>(&Api::all(asked.client.clone()), named).await.unwrap_or_default();
    let newest = leases.into_iter().max_by_key(renewed);
    let Some((lease, renewed)) = newest.and_then(|lease| renewed(&lease).map(|at| (lease, at))) else {
        let message = format!(
            "Whether an operator keeps this current: there is no Lease {OPERATOR}, or it may not be read; is VoiceDock installed?"
        );
        gateways.missing.push(message);
        return None;
    };
    let namespace = lease.namespace().unwrap_or_default();
    (Timestamp::now().duration_since(renewed) > OPERATOR_SILENT).then(|| Problem {
        kind: "Lease",
        message: format!(
            "No operator has renewed it since {renewed:.0}, so that nothing here is kept current; `kubectl get pods -n \
             {namespace}` shows whether one runs."
        ),
        object: ObjectKey::new(namespace, OPERATOR),
        reason: "NoLeader".to_owned(),
        since: Some(format!("{renewed:.0}")),
    })
}

fn renewed(lease: &Lease) -> Option<Timestamp> {
    lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gateway::peers::Peer;
    use crate::routing::ack::{Acknowledgement, Held, Rejection, TrunkReports};

    fn pod(name: &str, generation: i64, calls: u32, draining: bool) -> Pod {
        let address = "10.0.0.7:8080".parse().unwrap();
        let peer = Peer {
            pod: name.to_owned(),
            sip: "10.0.0.7".parse().unwrap(),
            http: address,
            draining,
            trunks: TrunkReports::new(),
        };
        let table = Some(Held { generation, hash: String::new() });
        let said = Acknowledgement { table, calls, draining, ..Acknowledgement::default() };
        Pod { gateway: ObjectKey::new("vd", "default"), peer, said }
    }

    fn object() -> SipGateway {
        serde_json::from_value(json!({
            "metadata": { "namespace": "vd", "name": "default" }, "spec": {},
            "status": { "replicas": 2, "effective": { "replicas": 3 }, "tableGeneration": 16, "calls": 4 },
        }))
        .unwrap()
    }

    #[test]
    fn a_gateway_is_shown_as_its_pods_say_and_without_them_as_the_operator_does() {
        let key = ObjectKey::new("vd", "default");
        let pods = [pod("gw-1", 17, 3, false), pod("gw-2", 16, 2, true)];
        let shown = gateway(&key, &object(), true, None, &pods);
        assert_eq!((shown.pods_ready, shown.pods_wanted, shown.calls), (Some(2), Some(3), Some(5)));
        assert_eq!((shown.draining.pods, shown.draining.calls), (1, 2));
        let report = Report {
            fine: true,
            gateways: vec![shown],
            pods: pods.iter().map(gateway_pod).collect(),
            trunks: Vec::new(),
            objects: Vec::new(),
            problems: Vec::new(),
            unknown: Vec::new(),
            place: "any namespace".to_owned(),
        };
        let text = report.to_string();
        assert!(text.contains("vd/default   True    2/3    16/?    5       1 with 2 calls\n"), "{text}");
        assert!(text.contains("vd/gw-2   default   16      2       drains\n"), "{text}");
        assert_eq!(gateway(&key, &object(), true, None, &[]).calls, Some(4));
    }

    #[test]
    fn a_pod_that_refuses_a_table_is_a_problem_with_its_reason() {
        let mut pod = pod("gw-1", 16, 0, false);
        assert!(refused(&pod).is_none());
        pod.said.rejected = Some(Rejection { generation: 17, reason: "slice x is missing.".to_owned() });
        let problem = refused(&pod).unwrap();
        let expected = "It refused table 17 and keeps the one that it has: slice x is missing.";
        assert_eq!((problem.object, problem.message.as_str()), (ObjectKey::new("vd", "gw-1"), expected));
    }
}
