//! What is rendered for Prometheus and Grafana, and that it speaks of metrics that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::tools::output;
use crate::{chart, of_kind, one, rendered, root, template};

const ON: [&str; 3] = [
    "monitoring.serviceMonitor.enabled=true",
    "monitoring.prometheusRule.enabled=true",
    "monitoring.dashboard.enabled=true",
];
const KINDS: [&str; 3] = ["ServiceMonitor", "PodMonitor", "PrometheusRule"];

#[test]
fn without_the_prometheus_operators_kinds_its_objects_are_skipped_refused_or_rendered_as_was_said() {
    let skipped = rendered(&ON);
    assert!(KINDS.iter().all(|kind| of_kind(&skipped, kind).is_empty()));
    assert_eq!(of_kind(&skipped, "ConfigMap").len(), 1, "the dashboard needs none of them");

    let refused = output(template(&ON).args(["--set", "monitoring.renderMode=failIfMissing"]));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("install the Prometheus operator's"), "{said}");

    for known in [vec!["--set", "monitoring.renderMode=alwaysRender"], kinds_known()] {
        let text = output(template(&ON).args(known)).stdout;
        let objects = crate::objects(&String::from_utf8(text).unwrap());
        let numbers = KINDS.map(|kind| of_kind(&objects, kind).len());
        assert_eq!(numbers, [2, 1, 1]);
    }
}

fn kinds_known() -> Vec<&'static str> {
    vec![
        "--api-versions=monitoring.coreos.com/v1/ServiceMonitor",
        "--api-versions=monitoring.coreos.com/v1/PodMonitor",
        "--api-versions=monitoring.coreos.com/v1/PrometheusRule",
    ]
}

fn monitored() -> Vec<Value> {
    rendered(&[&ON[..], &[r#"monitoring.renderMode="alwaysRender""#]].concat())
}

#[test]
fn each_monitor_finds_a_service_and_a_port_of_it() {
    let objects = monitored();
    for monitor in of_kind(&objects, "ServiceMonitor") {
        let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
        let found: Vec<_> = of_kind(&objects, "Service")
            .into_iter()
            .filter(|service| {
                wanted.iter().all(|(name, value)| &service["metadata"]["labels"][name] == value)
            })
            .collect();
        assert_eq!(found.len(), 1, "{}", monitor["metadata"]["name"]);
        let ports = found[0]["spec"]["ports"].as_array().unwrap();
        let wanted = &monitor["spec"]["endpoints"][0]["port"];
        assert!(ports.iter().any(|port| &port["name"] == wanted), "{wanted} of {ports:?}");
    }
    let pods = &one(&objects, "PodMonitor")["spec"];
    assert_eq!(pods["namespaceSelector"]["any"], json!(true), "gateways are in any namespace");
    let labels = pods["selector"]["matchLabels"].as_object().unwrap();
    let given = voicedock::operator::names::selector("default");
    assert!(
        labels.iter().all(|(name, value)| given.get(name).map(String::as_str) == value.as_str()),
        "{labels:?}"
    );
}

/// The names of metrics in a text, without the endings that Prometheus gives to counters and histograms.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.match_indices("voicedock_")
        .filter(|(at, _)| !text[..*at].ends_with(name))
        .map(|(at, _)| text[at..].split(|c| !name(c)).next().unwrap())
        .map(|name| {
            ["_total", "_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap_or(name)
        })
        .map(str::to_owned)
        .collect()
}

/// The names of all metrics that the program registers, read from its source: a family that has counted nothing yet is in
/// no answer of /metrics.
fn metrics_of_the_program() -> BTreeSet<String> {
    fn visit(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let program = text.split("#[cfg(test)]").next().unwrap();
                // A sub-registry's prefix holds for what is registered at the variable that it is bound to.
                let sub = program
                    .split("sub_registry_with_prefix(\"")
                    .nth(1)
                    .and_then(|rest| rest.split('"').next());
                let bound = program
                    .lines()
                    .find(|line| line.contains("sub_registry_with_prefix"))
                    .and_then(|line| line.trim().strip_prefix("let ")?.split(' ').next());
                for call in ["register(", "encode_descriptor("] {
                    for (at, _) in program.match_indices(call) {
                        let rest = program[at + call.len()..].trim_start();
                        let Some(name) = rest.strip_prefix('"').and_then(|rest| rest.split('"').next())
                        else {
                            continue;
                        };
                        let receiver = program[..at]
                            .trim_end_matches('.')
                            .rsplit(|c: char| !(c.is_alphanumeric() || c == '_'));
                        let here = receiver.clone().next() == bound
                            || (call == "encode_descriptor(" && bound.is_some());
                        let name = match sub.filter(|_| here) {
                            Some(sub) => format!("voicedock_{sub}_{name}"),
                            None => format!("voicedock_{name}"),
                        };
                        found.insert(name);
                    }
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    visit(&root().join("src"), &mut found);
    found
}

#[test]
fn alerts_and_dashboard_speak_of_metrics_that_there_are() {
    let there = metrics_of_the_program();
    assert!(there.contains("voicedock_operator_leader") && there.contains("voicedock_calls"), "{there:?}");
    for file in ["alerts.yaml", "dashboard.json"] {
        let used = metrics_in(&fs::read_to_string(chart().join("files").join(file)).unwrap());
        assert!(used.len() > 10, "{file}: {used:?}");
        let unknown: Vec<_> = used.difference(&there).collect();
        assert!(unknown.is_empty(), "{file} asks for metrics that the program doesn't have: {unknown:?}");
    }
}

#[test]
fn the_documentation_names_every_metric_and_no_other() {
    let table = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows: String = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').nth(1).unwrap())
        .collect();
    // The registry gives an info metric its ending.
    let documented: BTreeSet<_> =
        metrics_in(&rows).into_iter().map(|name| name.replace("build_info", "build")).collect();
    let there = metrics_of_the_program();
    let missing: Vec<_> = there.difference(&documented).collect();
    let invented: Vec<_> = documented.difference(&there).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "docs/metrics.md lacks {missing:?} and has {invented:?} too many"
    );
}

#[test]
fn each_alert_has_a_severity_a_sentence_and_a_runbook() {
    let objects = monitored();
    let rule = one(&objects, "PrometheusRule");
    let alerts: Vec<_> = rule["spec"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .collect();
    let mut pages = BTreeSet::new();
    for alert in alerts {
        let name = alert["alert"].as_str().unwrap();
        assert!(
            ["critical", "warning", "info"].contains(&alert["labels"]["severity"].as_str().unwrap()),
            "{name}"
        );
        assert!(alert["annotations"]["description"].as_str().unwrap().ends_with('.'), "{name}");
        let page =
            alert["annotations"]["runbook_url"].as_str().unwrap().rsplit_once('/').unwrap().1.to_owned();
        let text = fs::read_to_string(root().join("docs/runbooks").join(&page)).unwrap_or_default();
        assert!(
            text.starts_with(&format!("# {name}\n")),
            "docs/runbooks/{page} is missing or has another title"
        );
        for part in ["## What it means", "## What to do"] {
            assert!(text.contains(part), "docs/runbooks/{page} lacks {part}");
        }
        pages.insert(page);
    }
    let kept = fs::read_dir(root().join("docs/runbooks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let idle: Vec<_> = kept.filter(|page| page != "README.md" && !pages.contains(page)).collect();
    assert!(idle.is_empty(), "runbooks of no alert: {idle:?}");
}

#[test]
fn the_dashboard_is_json_with_a_picture_for_each_expression() {
    let objects = monitored();
    let map = one(&objects, "ConfigMap");
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let dashboard: Value = serde_json::from_str(map["data"]["voicedock.json"].as_str().unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let numbers: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(numbers.len(), panels.len(), "two panels have one id");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert!(
            !panel["targets"].as_array().unwrap().is_empty() && panel["description"].is_string(),
            "{}",
            panel["title"]
        );
    }
}
