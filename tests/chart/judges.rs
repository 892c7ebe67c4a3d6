//! What others' linters say of what we render, and of what the operator makes for a gateway: nothing that isn't answered here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::tools::{cached, output, printed, tool};
use crate::{chart, objects, root, template};

/// The version whose schemas objects have to fit.
const KUBERNETES: &str = "1.34.0";

/// Findings that stand, each with the reason. One that isn't found any more has to go from here.
const ANSWERED: &[(&str, &str)] = &[
    (
        "kube-score/container-resources/cpu-limit",
        "a limit throttles a process that has a deadline, of calls above all",
    ),
    ("checkov/CKV_K8S_11", "as above"),
    (
        "kube-score/container-ephemeral-storage-request-and-limit",
        "no process writes files outside of a sized emptyDir; logs count too, and a pod with calls must not be evicted for them",
    ),
    (
        "kube-score/container-image-pull-policy",
        "tags of a release never move and image.digest pins more; Always would keep pods from starting while the registry is away",
    ),
    ("checkov/CKV_K8S_15", "as above"),
    ("checkov/CKV_K8S_43", "the default is the release's tag; image.digest is there for who wants a digest"),
    (
        "kube-score/deployment-has-host-podantiaffinity",
        "topologySpreadConstraints do the same and let more replicas than nodes run",
    ),
    (
        "checkov/CKV_K8S_38",
        "operator, API and gateways speak to the API server: that is what the token is for",
    ),
];

/// As [`ANSWERED`], for what the operator makes for a gateway.
const ANSWERED_FOR_GATEWAYS: &[(&str, &str)] = &[(
    "kube-score/pod-networkpolicy",
    "the way out is open: SIP goes wherever trunks and agents are, and only the gateway knows where that is",
)];

/// A package that `hack/tools.sh` has put aside for Python.
fn python(package: &str) -> Command {
    let library = cached(package).unwrap_or_else(|| panic!("{package} is missing; run hack/tools.sh chart"));
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", library).env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

fn written(directory: &Path, name: &str, objects: &[Value]) -> PathBuf {
    let file = directory.join(name);
    // JSON is YAML, one document after the other.
    let text: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
    fs::write(&file, text).unwrap();
    file
}

/// Every finding of every linter on these objects: identity, and where.
pub fn findings(objects: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let directory = tempfile::tempdir().unwrap();
    let file = written(directory.path(), "objects.yaml", objects);
    let mut found = kube_score(&file);
    found.extend(checkov(&file));
    found
}

fn kube_score(file: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut command = Command::new(tool("kube-score"));
    command.args(["score", "--kubernetes-version", "v1.34", "--output-format", "json"]).arg(file);
    let judged: Value = serde_json::from_slice(&output(&mut command).stdout).expect("kube-score prints JSON");
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for object in judged.as_array().unwrap() {
        // 10 is fine, 7 nearly so, 5 a warning, 1 critical.
        for check in
            object["checks"].as_array().unwrap().iter().filter(|check| check["grade"].as_i64() < Some(7))
        {
            if check["skipped"] == true {
                continue;
            }
            let id = check["check"]["id"].as_str().unwrap();
            for comment in check["comments"].as_array().unwrap() {
                let summary = comment["summary"].as_str().unwrap();
                // One check stands for four things that have nothing to do with each other.
                let part = if summary == "CPU limit is not set" { "/cpu-limit" } else { "" };
                let place = format!("{}: {summary}", object["object_name"].as_str().unwrap());
                found.entry(format!("kube-score/{id}{part}")).or_default().insert(place);
            }
        }
    }
    found
}

fn checkov(file: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut command = python("checkov");
    command.args(["-m", "checkov.main", "--skip-download", "--quiet", "--compact", "--output", "json"]);
    command.args(["--framework", "kubernetes", "--file"]).arg(file);
    let said = output(&mut command);
    let judged: Value = serde_json::from_slice(&said.stdout)
        .unwrap_or_else(|error| panic!("checkov: {error}: {}", String::from_utf8_lossy(&said.stderr)));
    assert!(judged["summary"]["passed"].as_i64() > Some(50), "checkov has judged nothing: {judged}");
    assert_eq!(judged["summary"]["parsing_errors"], 0);
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for failed in judged["results"]["failed_checks"].as_array().unwrap() {
        let place =
            format!("{}: {}", failed["resource"].as_str().unwrap(), failed["check_name"].as_str().unwrap());
        found.entry(format!("checkov/{}", failed["check_id"].as_str().unwrap())).or_default().insert(place);
    }
    found
}

/// Fails for findings that have no reason in one of the lists above.
///
/// # Panics
/// With what was found where.
pub fn assert_answered(found: &BTreeMap<String, BTreeSet<String>>) {
    let answered: BTreeSet<_> = ANSWERED.iter().chain(ANSWERED_FOR_GATEWAYS).map(|(id, _)| *id).collect();
    let open: Vec<_> = found.iter().filter(|(id, _)| !answered.contains(id.as_str())).collect();
    assert!(open.is_empty(), "mend these, or say in tests/chart/judges.rs why they stand: {open:#?}");
}

/// All that the chart can render, without the definitions, which no linter has an opinion on.
fn everything() -> Vec<Value> {
    let mut command = template(&["crds.enabled=false", "monitoring.renderMode=\"alwaysRender\""]);
    command.arg("--values").arg(chart().join("values-ha.yaml"));
    objects(&printed(&mut command))
}

#[test]
fn kube_score_and_checkov_find_nothing_that_is_not_answered() {
    let found = findings(&everything());
    let open: Vec<_> = ANSWERED_FOR_GATEWAYS.iter().filter(|(id, _)| found.contains_key(*id)).collect();
    assert!(open.is_empty(), "the answer is for gateways only: {open:?}");
    assert_answered(&found);
    let gone: Vec<_> = ANSWERED.iter().filter(|(id, _)| !found.contains_key(*id)).collect();
    assert!(gone.is_empty(), "nobody finds these any more: {gone:?}");
}

#[test]
fn kubeconform_finds_every_object_valid() {
    let directory = tempfile::tempdir().unwrap();
    let schemas = directory.path().join("schemas");
    fs::create_dir(&schemas).unwrap();
    let mut definitions: Vec<_> =
        fs::read_dir(root().join("crds")).unwrap().map(|entry| entry.unwrap().path()).collect();
    definitions.sort();
    let script = root().join("tests/chart/schemas.py");
    printed(python("kubernetes-schemas").arg(script).arg(&schemas).arg(KUBERNETES).args(&definitions));
    let conform = |file: &Path| {
        let mut command = Command::new(tool("kubeconform"));
        command.args([
            "-strict",
            "-summary",
            "-output",
            "json",
            "-kubernetes-version",
            KUBERNETES,
            "-schema-location",
        ]);
        command.arg(schemas.join("{{.ResourceKind}}{{.KindSuffix}}.json"));
        // Their definitions are the Prometheus operator's; promtool judges the rules.
        command.args(["-skip", "ServiceMonitor,PodMonitor,PrometheusRule"]).arg(file);
        output(&mut command)
    };
    let text = printed(&mut template(&["monitoring.renderMode=\"alwaysRender\""]));
    let mut all = objects(&text);
    all.extend(everything());
    let said = conform(&written(directory.path(), "chart.yaml", &all));
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));

    // It would find what is wrong.
    let wrong = json!({ "apiVersion": "voicedock.dev/v1alpha1", "kind": "SipGateway", "metadata": { "name": "wrong" },
        "spec": { "replicas": 2, "typo": true } });
    let said = conform(&written(directory.path(), "wrong.yaml", &[wrong]));
    assert!(!said.status.success() && String::from_utf8_lossy(&said.stdout).contains("typo"));
}

#[test]
fn promtool_takes_the_alerts_and_they_fire_when_they_should() {
    let alerts = chart().join("files/alerts.yaml");
    printed(Command::new(tool("promtool")).args(["check", "rules", "--lint-fatal"]).arg(&alerts));
    let tests = root().join("tests/chart/alerts.test.yaml");
    printed(Command::new(tool("promtool")).args(["test", "rules"]).arg(&tests));
    // Each is tried.
    let tried = fs::read_to_string(&tests).unwrap();
    let rules: Value = serde_saphyr::from_str(&fs::read_to_string(&alerts).unwrap()).unwrap();
    for rule in
        rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap())
    {
        let name = rule["alert"].as_str().unwrap();
        assert!(
            tried.contains(&format!("alertname: {name}\n")),
            "tests/chart/alerts.test.yaml doesn't try {name}"
        );
    }
}
