//! What can be set: the schema refuses what nobody reads, and what it takes changes what is rendered.

use std::sync::Mutex;
use std::thread;

use serde_json::{Map, Value, json};

use crate::support::tools::{output, printed, tool};
use crate::{chart, helm, root, template};

const CHARTS: [&str; 2] = ["voicedock", "voicedock-crds"];

fn schema() -> Value {
    read_json(&chart().join("values.schema.json"))
}

fn read_json(path: &std::path::Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_charts_pass_helms_lint() {
    for name in CHARTS {
        printed(helm(&["lint", "--strict", "--quiet"]).arg(chart().with_file_name(name)));
    }
}

#[test]
fn an_unknown_value_is_refused_wherever_it_stands() {
    for value in [
        "typo=1",
        "image.typo=1",
        "crds.typo=true",
        "operator.typo=1",
        "operator.log.typo=1",
        "operator.resources.typo={}",
        "operator.tolerations=[{\"typo\": 1}]",
        "operator.leaderElection.typo=1",
        "operator.podDisruptionBudget.typo=1",
        "operator.affinity={\"typo\": {}}",
        "operator.topologySpreadConstraints=[{\"maxSkew\": 1, \"topologyKey\": \"zone\", \"whenUnsatisfiable\": \"DoNotSchedule\", \"typo\": 1}]",
        "networkPolicy.typo=1",
        "networkPolicy.metricsFrom=[{\"typo\": 1}]",
        "monitoring.typo=1",
        "monitoring.serviceMonitor.typo=1",
        "monitoring.prometheusRule.typo=1",
        "monitoring.dashboard.typo=1",
        "rbac.typo=1",
        "tracing.typo=1",
        "test.typo=1",
        "gateway.typo=1",
        "api.typo=1",
        "api.log.typo=1",
        "gateway.advertise.typo=1",
        "gateway.autoscaling.typo=1",
        "gateway.apiKeys.typo=1",
        "gateway.allowedNamespaces={\"from\": \"All\", \"typo\": 1}",
        "gateway.listeners=[{\"transport\": \"UDP\", \"port\": 5060, \"typo\": 1}]",
    ] {
        let refused = output(helm(&["template", "voicedock", "--set-json", value]).arg(chart()));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && said.contains("additional properties 'typo'"),
            "{value}: {said}"
        );
    }
}

#[test]
fn the_schema_leaves_no_object_open_by_accident() {
    fn check(path: &str, schema: &Value) {
        let Some(fields) = schema.as_object() else { return };
        // Helm's own values, and objects of other people's kinds.
        let open = ["global", "anyObject"].iter().any(|name| path.contains(&format!(".{name}")));
        if fields.contains_key("properties") && !open {
            assert_eq!(schema["additionalProperties"], json!(false), "{path}");
        } else if schema["type"] == "object" {
            assert!(schema["additionalProperties"].is_object() || open, "{path}");
        }
        for (name, value) in fields {
            check(&format!("{path}.{name}"), value);
        }
    }
    for name in CHARTS {
        check("", &read_json(&chart().with_file_name(name).join("values.schema.json")));
    }
}

/// Another value than `now` that the schema takes, or the first of the schema's own examples.
fn another(schema: &Value, now: &Value) -> Value {
    if let Some(example) = schema["examples"].as_array().and_then(|examples| examples.first()) {
        return example.clone();
    }
    if let Some(choices) = schema["enum"].as_array() {
        return choices.iter().find(|choice| *choice != now).unwrap().clone();
    }
    match now {
        Value::Bool(now) => json!(!now),
        Value::Number(now) => json!(now.as_f64().unwrap() as i64 + 1),
        _ => json!("other"),
    }
}

/// The leaves of the schema that is followed with the defaults at its side: path, default, and another value.
fn leaves(root: &Value, schema: &Value, now: &Value, path: &str, found: &mut Vec<(String, Value, Value)>) {
    let schema = match schema["$ref"].as_str() {
        Some(pointer) => root.pointer(pointer.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    match schema["properties"].as_object() {
        Some(properties) if schema["examples"].is_null() => {
            for (name, inner) in properties.iter().filter(|(name, _)| *name != "global") {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let now = now
                    .get(name)
                    .unwrap_or_else(|| panic!("values.yaml has no {path}, which the schema takes"));
                leaves(root, inner, now, &path, found);
            }
        }
        _ => found.push((path.to_owned(), now.clone(), another(schema, now))),
    }
}

fn all_leaves() -> Vec<(String, Value, Value)> {
    let values: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(chart().join("values.yaml")).unwrap()).unwrap();
    let (schema, mut found) = (schema(), Vec::new());
    leaves(&schema, &schema, &values, "", &mut found);
    found
}

/// What has to be on for a value to be read, so that each is.
const EVERYTHING_ON: [&str; 6] = [
    "monitoring.renderMode=\"alwaysRender\"",
    "monitoring.serviceMonitor.enabled=true",
    "monitoring.prometheusRule.enabled=true",
    "monitoring.dashboard.enabled=true",
    "tracing.endpoint=\"http://collector:4318\"",
    // A key is made anew in each rendering.
    "gateway.apiKeys.secretName=\"keys\"",
];

#[test]
fn every_value_changes_what_is_rendered() {
    /// Those that the definitions, a key, another mode or `helm test` are needed for: tests of their own have them.
    const ELSEWHERE: [&str; 5] =
        ["crds.keep", "gateway.apiKeys.create", "monitoring.renderMode", "test.enabled", "test.number"];
    let render = |values: &[&str]| {
        let mut command = template(&EVERYTHING_ON);
        command.args(["--set-json", "crds.enabled=false"]);
        for value in values {
            command.args(["--set-json", value]);
        }
        output(&mut command)
    };
    let usual = render(&[]);
    assert!(usual.status.success(), "{}", String::from_utf8_lossy(&usual.stderr));
    let leaves: Vec<_> =
        all_leaves().into_iter().filter(|(path, ..)| !ELSEWHERE.contains(&path.as_str())).collect();
    assert!(leaves.len() > 70, "{}", leaves.len());
    let idle = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for part in leaves.chunks(leaves.len().div_ceil(2)) {
            let (render, usual, idle) = (&render, &usual, &idle);
            scope.spawn(move || {
                for (path, now, other) in part {
                    // One of the two is what it is already: by default, or for everything to be on.
                    let mut said = Vec::new();
                    let changes = [other, now].into_iter().any(|value| {
                        let changed = render(&[&format!("{path}={value}")]);
                        said.extend_from_slice(&changed.stderr);
                        changed.status.success() && changed.stdout != usual.stdout
                    });
                    if !changes {
                        let said = String::from_utf8_lossy(&said);
                        idle.lock().unwrap().push(format!("{path}={other} changes nothing: {said}"));
                    }
                }
            });
        }
    });
    assert_eq!(idle.into_inner().unwrap(), Vec::<String>::new());
}

#[test]
fn every_value_has_a_default_that_the_schema_takes() {
    fn check(values: &Map<String, Value>, schema: &Value, root: &Value, path: &str) {
        for (name, value) in values {
            let inner = &schema["properties"][name];
            let inner = inner["$ref"].as_str().map_or(inner, |pointer| root.pointer(&pointer[1..]).unwrap());
            assert!(!inner.is_null(), "{path}.{name} is in values.yaml and not in the schema");
            if let (Some(values), true) = (value.as_object(), inner["properties"].is_object()) {
                check(values, inner, root, &format!("{path}.{name}"));
            }
        }
    }
    let values: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(chart().join("values.yaml")).unwrap()).unwrap();
    let schema = schema();
    check(values.as_object().unwrap(), &schema, &schema, "");
    // The way back: `leaves` panics for what the schema takes and values.yaml lacks.
    assert!(!all_leaves().is_empty());
}

#[test]
fn the_readmes_say_what_the_values_files_say() {
    for name in CHARTS {
        let directory = chart().with_file_name(name);
        let generated = printed(
            std::process::Command::new(tool("helm-docs"))
                .current_dir(root())
                .args([
                    "--dry-run",
                    "--sort-values-order",
                    "file",
                    "--log-level",
                    "warning",
                    "--chart-search-root",
                ])
                .arg(&directory),
        );
        let kept = std::fs::read_to_string(directory.join("README.md")).unwrap_or_default();
        assert!(kept.trim() == generated.trim(), "charts/{name}/README.md is stale: run `make chart-docs`");
    }
}
