//! What GitOps clients think of each status that the operator writes: kstatus (Flux, Helm), and Argo CD with the script of
//! contrib/argocd. Of statuses from an API server `tests/operator/verdicts.rs` says the same.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use support::verdicts::{both, contrib};
use voicedock::operator::acknowledge::Roll;
use voicedock::operator::state::Reported;
use voicedock::operator::status::{GatewayReport, of_object, of_table};
use voicedock::resources::conditions::{ConditionStatus, reason};
use voicedock::resources::transfer_destination::TransferMethod;
use voicedock::resources::{Assistant, PhoneNumber, SipGateway, SipTrunk, TransferDestination, sip_trunk};
use voicedock::routing::compile::{Effective, Finding, Verdict};

const KINDS: [&str; 5] = ["Assistant", "PhoneNumber", "SipTrunk", "TransferDestination", "SipGateway"];

/// Which condition has the reason.
#[derive(Clone, Copy)]
enum At {
    Accepted,
    Refs,
    Programmed,
    Reachable(ConditionStatus),
    /// All hold.
    Nowhere,
}

/// A state that the operator says something of, and what becomes of that: the reason and where it stands, then what kstatus
/// says, then Argo CD. kstatus' `Failed` makes Flux and Helm give up; with `InProgress` they go on waiting.
const STATES: &[(&str, At, &str, &str)] = &[
    // Only another spec mends it.
    (reason::INVALID, At::Accepted, "Failed", "Degraded"),
    // Waiting may mend it, and somebody should look.
    (reason::CONFLICT, At::Accepted, "InProgress", "Degraded"),
    (reason::REF_NOT_PERMITTED, At::Refs, "InProgress", "Degraded"),
    (reason::FALLBACK_LOOP, At::Refs, "InProgress", "Degraded"),
    (reason::REJECTED, At::Programmed, "InProgress", "Degraded"),
    (reason::PODS_REFUSED, At::Programmed, "InProgress", "Degraded"),
    (reason::TOO_LARGE, At::Programmed, "InProgress", "Degraded"),
    (reason::PUBLISH_FAILED, At::Programmed, "InProgress", "Degraded"),
    (reason::PROVISION_FAILED, At::Programmed, "InProgress", "Degraded"),
    (reason::UNREACHABLE, At::Reachable(ConditionStatus::False), "InProgress", "Degraded"),
    // What it names comes later: the order of an apply never matters.
    (reason::REF_NOT_FOUND, At::Refs, "InProgress", "Progressing"),
    (reason::REF_NOT_ACCEPTED, At::Refs, "InProgress", "Progressing"),
    (reason::SECRET_KEY_MISSING, At::Refs, "InProgress", "Progressing"),
    // Gateways come, and load balancers.
    (reason::PENDING, At::Programmed, "InProgress", "Progressing"),
    (reason::NO_GATEWAYS, At::Programmed, "InProgress", "Progressing"),
    (reason::ADDRESS_NOT_ASSIGNED, At::Programmed, "InProgress", "Progressing"),
    // Nobody has asked the trunk yet: that holds nothing up.
    (reason::PENDING, At::Reachable(ConditionStatus::Unknown), "Current", "Healthy"),
    (reason::REACHABLE, At::Reachable(ConditionStatus::True), "Current", "Healthy"),
    // It can be referred to, and nobody does yet.
    (reason::NOT_USED, At::Programmed, "Current", "Healthy"),
    (reason::READY, At::Nowhere, "Current", "Healthy"),
];

/// Reasons that no `Ready` ever has: of conditions that hold, and of a table's size.
const ELSEWHERE: [&str; 5] =
    [reason::ACCEPTED, reason::RESOLVED, reason::PROGRAMMED, reason::NEARLY_FULL, reason::FITS];

/// An object of a kind as it lies at the API server, of generation 2.
fn object(kind: &str, status: &Value) -> Value {
    let spec = match kind {
        "Assistant" => json!({ "llmConfig": {}, "agent": { "sip": { "uri": "sip:agent@192.0.2.1" } } }),
        "PhoneNumber" => json!({ "number": "+31201234567" }),
        "SipTrunk" => json!({ "host": "pbx.example.com" }),
        "TransferDestination" => {
            json!({ "type": "number", "number": "+31612345678", "description": "Sales" })
        }
        _ => json!({}),
    };
    json!({
        "apiVersion": "voicedock.dev/v1alpha1", "kind": kind, "spec": spec, "status": status,
        "metadata": { "name": "it", "namespace": "acme", "generation": 2 },
    })
}

/// The status that the operator writes for a state.
fn status(kind: &str, why: &'static str, at: At) -> Value {
    let finding = |status, reason| Finding { status, reason, message: "Because.".to_owned() };
    let at_or = |here: bool, good| match here {
        true => finding(ConditionStatus::False, why),
        false => finding(ConditionStatus::True, good),
    };
    let effective = match kind {
        "Assistant" => Effective::Assistant { agent: Some("sip"), model: None, destinations: 1, numbers: 1 },
        "PhoneNumber" => Effective::PhoneNumber { gateway: None },
        "SipTrunk" => Effective::SipTrunk { transport: sip_trunk::Transport::Udp, port: None },
        "TransferDestination" => Effective::TransferDestination {
            target: "+31612345678".to_owned(),
            method: TransferMethod::Bridge,
            ring_timeout_seconds: 30,
        },
        _ => Effective::SipGateway,
    };
    let verdict = Verdict {
        generation: 2,
        accepted: at_or(matches!(at, At::Accepted), reason::ACCEPTED),
        resolved_refs: at_or(matches!(at, At::Refs), reason::RESOLVED),
        gateways: BTreeSet::new(),
        effective,
    };
    let programmed = at_or(matches!(at, At::Programmed), reason::PROGRAMMED);
    let reachable = match at {
        At::Reachable(status) => Some(finding(status, why)),
        _ => None,
    };
    let fresh = json!({ "observedGeneration": -1 });
    let it = object(kind, &fresh);
    let now = "2026-01-01T00:00:00Z";
    macro_rules! patch {
        ($type:ident, $report:expr) => {{
            let it: Arc<$type> = Arc::new(serde_json::from_value(it).unwrap());
            of_object(Reported::$type(&it), &verdict, programmed, reachable, $report, now).patch.unwrap()
        }};
    }
    let patch = match kind {
        "Assistant" => patch!(Assistant, None),
        "PhoneNumber" => patch!(PhoneNumber, None),
        "SipTrunk" => patch!(SipTrunk, None),
        "TransferDestination" => patch!(TransferDestination, None),
        _ => patch!(SipGateway, Some(GatewayReport::default())),
    };
    let mut status = fresh;
    status.as_object_mut().unwrap().extend(patch["status"].as_object().unwrap().clone());
    status
}

#[test]
fn flux_helm_and_argo_cd_take_each_status_for_what_it_means() {
    let states: Vec<_> = KINDS
        .iter()
        .flat_map(|kind| STATES.iter().map(move |state| (*kind, state)))
        .filter(|(kind, (_, at, ..))| *kind == "SipTrunk" || !matches!(at, At::Reachable(_)))
        .collect();
    let objects: Vec<_> =
        states.iter().map(|(kind, (why, at, ..))| object(kind, &status(kind, why, *at))).collect();
    for (((kind, (why, _, flux, argo)), object), [(said_flux, _), (said_argo, message)]) in
        states.iter().zip(&objects).zip(both(&objects))
    {
        assert_eq!((said_flux.as_str(), said_argo.as_str()), (*flux, *argo), "{kind} with {why}: {object}");
        if *argo != "Healthy" {
            assert_eq!(message, "Because.", "{kind} with {why}: the operator's own sentence is shown");
        }
    }
}

#[test]
fn an_object_is_waited_for_until_the_operator_has_seen_this_version_and_until_it_is_gone() {
    let ready = |kind: &str| status(kind, reason::READY, At::Nowhere);
    for kind in KINDS {
        let fresh = object(kind, &json!({ "observedGeneration": -1 }));
        let mut changed = object(kind, &ready(kind));
        changed["metadata"]["generation"] = json!(3);
        let mut leaving = object(kind, &ready(kind));
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        leaving["metadata"]["finalizers"] = json!(["example.com/mine"]);
        let said = both(&[fresh, changed, leaving]);
        let said: Vec<_> = said.iter().map(|[(flux, _), (argo, _)]| (flux.as_str(), argo.as_str())).collect();
        assert_eq!(
            said,
            [("InProgress", "Progressing"), ("InProgress", "Progressing"), ("Terminating", "Progressing")],
            "{kind}"
        );
    }
}

#[test]
fn a_table_that_no_pod_holds_is_waited_for_and_one_that_does_not_fit_is_not_left_alone() {
    let table = |hindrance: Option<&Finding>| {
        let patch =
            of_table(None, 2, 7, &Roll::default(), 0.1, hindrance, "2026-01-01T00:00:00Z").patch.unwrap();
        object("RoutingTable", &patch["status"])
    };
    let message = "Because.".to_owned();
    let full = Finding { status: ConditionStatus::False, reason: reason::TOO_LARGE, message };
    let said = both(&[table(None), table(Some(&full))]);
    let said: Vec<_> = said.iter().map(|[(flux, _), (argo, _)]| (flux.as_str(), argo.as_str())).collect();
    assert_eq!(said, [("InProgress", "Progressing"), ("InProgress", "Degraded")]);
}

#[test]
fn the_table_of_states_has_every_reason() {
    let text = include_str!("../src/resources/conditions.rs");
    let (_, reasons) = text.split_once("pub mod reason {").unwrap();
    let all: BTreeSet<&str> = reasons
        .lines()
        .filter(|line| line.trim().starts_with("pub const "))
        .map(|line| line.split('"').nth(1).unwrap())
        .collect();
    let tried: BTreeSet<&str> = STATES.iter().map(|(why, ..)| *why).chain(ELSEWHERE).collect();
    let missing: Vec<_> = all.difference(&tried).collect();
    assert!(missing.is_empty(), "what do Flux and Argo CD make of {missing:?}?");
}

#[test]
fn the_snippet_for_argocd_cm_has_the_script_for_each_kind() {
    let text = std::fs::read_to_string(contrib().join("argocd-cm.yaml")).unwrap();
    let snippet: BTreeMap<String, BTreeMap<String, String>> = serde_saphyr::from_str(&text).unwrap();
    let script = std::fs::read_to_string(contrib().join("health.lua")).unwrap();
    let wanted: BTreeMap<String, String> = KINDS
        .iter()
        .chain(&["RoutingTable"])
        .map(|kind| (format!("resource.customizations.health.voicedock.dev_{kind}"), script.clone()))
        .collect();
    let stale: Vec<_> = wanted.keys().filter(|name| snippet["data"].get(*name) != Some(&script)).collect();
    assert!(stale.is_empty(), "argocd-cm.yaml has another script than health.lua: {stale:?}");
    assert_eq!(snippet["data"].len(), wanted.len());
}
