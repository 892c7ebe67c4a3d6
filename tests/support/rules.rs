//! The examples of `tests/resources/`: what the rules of the custom resources take and refuse, one file a kind.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use voicedock::resources::{GROUP, VERSION};

/// The examples of one kind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Examples {
    kind: String,
    /// A spec that is taken as it stands.
    base: Map<String, Value>,
    rules: Vec<RuleExamples>,
}

/// The examples of one rule: changes to the top-level fields of `base`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleExamples {
    /// The rule in a sentence.
    rule: String,
    #[serde(default)]
    takes: Vec<Map<String, Value>>,
    #[serde(default)]
    refuses: Vec<Map<String, Value>>,
    /// What the refusal must say.
    says: Option<String>,
}

/// One example.
pub struct Case {
    /// The object's kind.
    pub kind: String,
    /// The rule in a sentence.
    pub rule: String,
    /// The object's spec.
    pub spec: Value,
    /// What the refusal must say; `None` when the example is to be taken.
    pub says: Option<String>,
}

/// All of them.
pub fn examples() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/resources");
    let mut cases = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let examples: Examples =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for rule in &examples.rules {
            assert!(rule.refuses.is_empty() == rule.says.is_none(), "{}: says goes with refuses", rule.rule);
            let takes = rule.takes.iter().map(|changes| (changes, None));
            let refuses = rule.refuses.iter().map(|changes| (changes, rule.says.clone()));
            cases.extend(takes.chain(refuses).map(|(changes, says)| Case {
                kind: examples.kind.clone(),
                rule: rule.rule.clone(),
                spec: changed(&examples.base, changes),
                says,
            }));
        }
    }
    cases
}

/// `base` with some of its fields replaced. `null` at the top takes a field away only where `base` has one, so that an
/// example can also write a `null`.
fn changed(base: &Map<String, Value>, changes: &Map<String, Value>) -> Value {
    let mut spec = base.clone();
    for (field, value) in changes {
        if !(value.is_null() && spec.remove(field).is_some()) {
            spec.insert(field.clone(), value.clone());
        }
    }
    Value::Object(spec)
}

/// The object with that spec.
pub fn object(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind,
        "metadata": { "name": name, "namespace": namespace }, "spec": spec,
    })
}
