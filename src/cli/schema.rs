//! What the API server refuses at `kubectl apply`, found without one: the schemas of the custom resources with their rules.
//!
//! The schemas are those of `voicedock crds`. Whoever reads them is not the API server's own code, so a test holds the two
//! together: every example of `tests/resources/` is taken or refused here as it is there.

use std::collections::BTreeMap;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{Draft, ValidationError, Validator};
use kube_cel::{CompiledSchema, compile_schema};
use serde_json::{Value, json};

use crate::resources::crds;

/// The kinds that people write, each with what its objects must be like.
pub struct Schemas {
    kinds: BTreeMap<String, Schema>,
    evaluator: kube_cel::Validator,
}

struct Schema {
    /// What the structure was made of.
    written: Value,
    structure: Validator,
    rules: CompiledSchema,
}

/// Why an object is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Names of fields and positions in lists, from the object's root.
    pub path: Vec<String>,
    /// What is wrong, as a part of a sentence.
    pub message: String,
}

/// A schema of this program that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the schema of {kind} can't be used: {reason}; this is a bug of voicedock")]
pub struct SchemaError {
    kind: String,
    reason: String,
}

impl Schemas {
    /// The schemas of this version.
    ///
    /// # Errors
    /// Never, unless a schema is broken.
    pub fn new() -> Result<Self, SchemaError> {
        let mut kinds = BTreeMap::new();
        for crd in crds::all() {
            let kind = crd.spec.names.kind.clone();
            let failed = |reason: String| SchemaError { kind: kind.clone(), reason };
            let version = crd.spec.versions.into_iter().next();
            let written = version.and_then(|version| version.schema?.open_api_v3_schema);
            let mut schema = serde_json::to_value(written).map_err(|error| failed(error.to_string()))?;
            if let Some(properties) = schema["properties"].as_object_mut() {
                properties.remove("status");
            }
            patterns(&mut schema);
            let rules = compile_schema(&schema);
            if let Some(error) = rules.compilation_errors().first() {
                return Err(failed(error.to_string()));
            }
            let root = json!({"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}});
            if let (Some(properties), Value::Object(root)) = (schema["properties"].as_object_mut(), root) {
                properties.extend(root);
            }
            closed(&mut schema);
            let structure = jsonschema::options()
                .with_draft(Draft::Draft4)
                .build(&schema)
                .map_err(|error| failed(error.to_string()))?;
            kinds.insert(kind, Schema { written: schema, structure, rules });
        }
        Ok(Self { kinds, evaluator: kube_cel::Validator::new() })
    }

    /// Whether there is such a kind.
    pub fn has(&self, kind: &str) -> bool {
        self.kinds.contains_key(kind)
    }

    /// The kinds, those too that the operator writes.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(String::as_str)
    }

    /// Why an object of that kind would be refused; its status is not looked at.
    pub fn refusals(&self, kind: &str, object: &Value) -> Vec<Refusal> {
        let Some(schema) = self.kinds.get(kind) else { return Vec::new() };
        let mut object = object.clone();
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
        // A field that is null is the same as one that is left out.
        without_nulls(&mut object);
        let refusals: Vec<_> =
            schema.structure.iter_errors(&object).flat_map(|error| refusal(&schema.written, error)).collect();
        if !refusals.is_empty() {
            // The API server as well evaluates rules only on what has the right shape.
            return refusals;
        }
        let broken = self.evaluator.validate_compiled(&schema.rules, &object, None);
        let broken = broken.err().into_iter().flatten();
        broken.map(|error| Refusal { path: steps(&error.field_path), message: error.message }).collect()
    }
}

/// Refuses fields that the schema doesn't name, as `kubectl` does.
fn closed(schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    let is_open = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true))
        || schema.contains_key("additionalProperties");
    if schema.contains_key("properties") && !is_open {
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    for (keyword, inner) in schema.iter_mut() {
        match (keyword.as_str(), inner) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(closed),
            ("items" | "additionalProperties", inner) => closed(inner),
            _ => {}
        }
    }
}

/// Takes rules that are nothing but a regular expression for patterns, which are compiled once and not at each evaluation. The
/// rule's message stays beside it, see [`MESSAGE`].
fn patterns(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    if let (false, Some(Value::Array(rules))) =
        (fields.contains_key("pattern"), fields.get_mut("x-kubernetes-validations"))
    {
        let found =
            rules.iter().enumerate().find_map(|(at, rule)| Some((at, pattern(rule["rule"].as_str()?)?)));
        if let Some((at, pattern)) = found {
            let message = rules.remove(at)["message"].take();
            fields.insert("pattern".to_owned(), pattern.into());
            fields.insert(MESSAGE.to_owned(), message);
        }
    }
    for (keyword, inner) in fields.iter_mut() {
        match (keyword.as_str(), inner) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(patterns),
            ("items" | "additionalProperties", inner) => patterns(inner),
            _ => {}
        }
    }
}

/// Beside a pattern that a rule was: what the rule says.
const MESSAGE: &str = "x-voicedock-message";

/// The regular expression of `self.matches('…')`, unless it is written with escapes other than of a backslash.
fn pattern(rule: &str) -> Option<String> {
    let literal = rule.strip_prefix("self.matches('")?.strip_suffix("')")?;
    let plain = literal.replace("\\\\", "");
    let is_simple = !plain.contains(['\\', '\'']);
    is_simple.then(|| literal.replace("\\\\", "\\"))
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// `spec.listeners[1].port` → its steps.
fn steps(path: &str) -> Vec<String> {
    path.split(['.', '[', ']']).filter(|step| !step.is_empty()).map(str::to_owned).collect()
}

/// The API server's words, where they are better than the library's.
fn refusal(schema: &Value, error: ValidationError<'_>) -> Vec<Refusal> {
    let path: Vec<String> = error
        .instance_path()
        .as_str()
        .split('/')
        .skip(1)
        .map(|step| step.replace("~1", "/").replace("~0", "~"))
        .collect();
    let below = |name: &str, message: &str| {
        let path = path.iter().cloned().chain([name.to_owned()]).collect();
        Refusal { path, message: message.to_owned() }
    };
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .map(|name| below(name, "there is no such field; correct its name or remove it"))
            .collect(),
        ValidationErrorKind::Required { property } => {
            vec![below(property.as_str().unwrap_or_default(), "this is needed")]
        }
        ValidationErrorKind::Type { kind } => {
            let types = match kind {
                TypeKind::Single(one) => one.to_string(),
                TypeKind::Multiple(several) => {
                    let names: Vec<_> = several.iter().map(|one| one.to_string()).collect();
                    names.join(" or ")
                }
            };
            let quotes = if types == "string" { "; put it in quotes" } else { "" };
            vec![Refusal {
                message: format!("{} must be of type {types}{quotes}", shown(error.instance())),
                path,
            }]
        }
        ValidationErrorKind::Enum { options } => {
            let options: Vec<_> = options.as_array().into_iter().flatten().collect();
            let options: Vec<_> = options.iter().map(|option| shown(option)).collect();
            let message = format!("{} is none of {}", shown(error.instance()), options.join(", "));
            vec![Refusal { path, message }]
        }
        ValidationErrorKind::Pattern { .. } => {
            let node =
                error.schema_path().as_str().rsplit_once('/').and_then(|(node, _)| schema.pointer(node));
            let message = node.and_then(|node| node[MESSAGE].as_str()).map(str::to_owned);
            vec![Refusal { message: message.unwrap_or_else(|| error.to_string()), path }]
        }
        _ => vec![Refusal { message: error.to_string(), path }],
    }
}

/// A value in a message: not more of it than fits in a line.
fn shown(value: &Value) -> String {
    const MOST: usize = 60;
    let text = match value {
        Value::Object(_) => "this".to_owned(),
        Value::Array(_) => "this list".to_owned(),
        value => value.to_string(),
    };
    if text.chars().count() <= MOST { text } else { text.chars().take(MOST).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Schemas;

    fn refusals(kind: &str, spec: serde_json::Value) -> Vec<String> {
        let object = json!({"apiVersion": "voicedock.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec});
        let refusals = Schemas::new().unwrap().refusals(kind, &object);
        refusals.iter().map(|refusal| format!("{}: {}", refusal.path.join("."), refusal.message)).collect()
    }

    #[test]
    fn what_is_wrong_is_said_with_the_field_and_the_remedy() {
        assert_eq!(
            refusals("PhoneNumber", json!({"number": 31_201_234_567_u64, "trunkRef": {}})),
            [
                "spec.number: 31201234567 must be of type string; put it in quotes",
                "spec.trunkRef: there is no such field; correct its name or remove it",
            ]
        );
        assert_eq!(refusals("PhoneNumber", json!({})), ["spec.number: this is needed"]);
        let wrong = refusals("PhoneNumber", json!({"number": "0201234567"}));
        assert!(wrong[0].starts_with("spec.number: write the number in E.164"), "{wrong:?}");
        assert_eq!(refusals("PhoneNumber", json!({"number": "+31201234567", "displayName": null})), [""; 0]);
    }
}
