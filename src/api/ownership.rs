//! Who owns which field of an object: what `metadata.managedFields` says (FieldsV1, as server-side apply writes it), and what
//! follows from it for a change of ours. Pure.
//!
//! Lists of our kinds' specs are owned as a whole, so that a path is made of field names only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::{Map, Value};

/// The field manager of everything that the API writes.
pub const FIELD_MANAGER: &str = "voicedock-api";

/// A field of a spec that differs between two versions of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Names from the spec downwards.
    pub path: Vec<String>,
    /// Its new value; `None` when it is taken away.
    pub value: Option<Value>,
}

/// A change of what another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The field, names from the spec downwards.
    pub path: Vec<String>,
    /// Who owns it, each once.
    pub managers: Vec<String>,
}

/// What is different in `after`. Objects are compared field by field, everything else as a whole.
pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    compare(&mut Vec::new(), Some(before), Some(after), &mut found);
    found
}

fn compare(path: &mut Vec<String>, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Change>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
            for name in names {
                path.push(name.clone());
                compare(path, old.get(name), new.get(name), found);
                path.pop();
            }
        }
        (None, Some(Value::Object(new))) if !new.is_empty() => {
            for (name, value) in new {
                path.push(name.clone());
                compare(path, None, Some(value), found);
                path.pop();
            }
        }
        (_, after) => found.push(Change { path: path.clone(), value: after.cloned() }),
    }
}

/// The first change of something that others own.
pub fn conflict(managed: &[ManagedFieldsEntry], changes: &[Change]) -> Option<Conflict> {
    changes.iter().find_map(|change| {
        let owns = |entry: &&ManagedFieldsEntry| spec(entry).is_some_and(|fields| owns(fields, &change.path));
        let managers = names(managed.iter().filter(|entry| !is_ours(entry)).filter(owns));
        (!managers.is_empty()).then(|| Conflict { path: change.path.clone(), managers })
    })
}

/// Everybody else who owns some part of the spec, each once.
pub fn others(managed: &[ManagedFieldsEntry]) -> Vec<String> {
    names(managed.iter().filter(|entry| !is_ours(entry) && spec(entry).is_some()))
}

/// What is to be applied: the part of `current`, a spec, that is ours already, with the changes.
pub fn applied(managed: &[ManagedFieldsEntry], current: &Value, changes: &[Change]) -> Value {
    let ours = managed.iter().find(|entry| is_ours(entry)).and_then(spec);
    let mut applied = ours.map_or_else(|| Value::Object(Map::new()), |fields| part(fields, current));
    for change in changes {
        put(&mut applied, &change.path, change.value.as_ref());
    }
    applied
}

fn names<'a>(entries: impl Iterator<Item = &'a ManagedFieldsEntry>) -> Vec<String> {
    let mut names: Vec<String> = entries.filter_map(|entry| entry.manager.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// An entry that we have applied. Whoever uses our name without apply is another manager, as the API server sees it.
fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
}

/// The fields of the spec that an entry owns; `None` when there are none, or when it is about a subresource.
fn spec(entry: &ManagedFieldsEntry) -> Option<&Value> {
    if entry.subresource.is_some() {
        return None;
    }
    entry.fields_v1.as_ref()?.0.get("f:spec")
}

/// Whether `fields` hold `path`, something above it that is owned as a whole, or something below it.
fn owns(fields: &Value, path: &[String]) -> bool {
    match path.split_first() {
        None => true,
        Some(_) if is_leaf(fields) => true,
        Some((name, rest)) => fields.get(format!("f:{name}")).is_some_and(|below| owns(below, rest)),
    }
}

/// A field that is owned as a whole: nothing is said of what is in it. (`.` alone owns an object and none of its fields.)
fn is_leaf(fields: &Value) -> bool {
    fields.as_object().is_none_or(Map::is_empty)
}

/// The part of `value` that `fields` name.
fn part(fields: &Value, value: &Value) -> Value {
    let (false, Some(fields), Some(values)) = (is_leaf(fields), fields.as_object(), value.as_object()) else {
        return value.clone();
    };
    let named = fields.iter().filter_map(|(name, below)| {
        let name = name.strip_prefix("f:")?;
        Some((name.to_owned(), part(below, values.get(name)?)))
    });
    Value::Object(named.collect())
}

fn put(object: &mut Value, path: &[String], value: Option<&Value>) {
    let Some((name, rest)) = path.split_first() else { return };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(fields) = object.as_object_mut() else { return };
    match (rest.is_empty(), value) {
        (true, Some(value)) => drop(fields.insert(name.clone(), value.clone())),
        (true, None) => drop(fields.remove(name)),
        (false, Some(_)) => put(fields.entry(name.clone()).or_insert(Value::Null), rest, value),
        (false, None) => {
            if let Some(below) = fields.get_mut(name) {
                put(below, rest, None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, operation: &str, fields: Value) -> ManagedFieldsEntry {
        serde_json::from_value(json!({
            "manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": fields },
        }))
        .unwrap()
    }

    fn paths(changes: &[Change]) -> Vec<String> {
        let sign = |change: &Change| if change.value.is_some() { "" } else { "-" };
        changes.iter().map(|change| format!("{}{}", sign(change), change.path.join("."))).collect()
    }

    #[test]
    fn changes_are_found_field_by_field_and_lists_as_a_whole() {
        let before = json!({ "a": 1, "llm": { "model": "x", "tools": [1, 2] }, "ref": { "name": "n" } });
        let after = json!({ "a": 1, "llm": { "model": "x", "tools": [1, 3], "provider": "p" }, "new": { "name": "m" } });
        assert_eq!(paths(&changes(&before, &after)), ["llm.tools", "llm.provider", "-ref", "new.name"]);
        assert_eq!(changes(&before, &before), []);
    }

    #[test]
    fn what_another_manager_owns_is_a_conflict_and_what_is_ours_is_none() {
        let managed = [
            entry(
                "argocd-controller",
                "Apply",
                json!({ "f:llm": { "f:tools": {} }, "f:agent": { ".": {}, "f:sip": { "f:uri": {} } } }),
            ),
            entry(FIELD_MANAGER, "Apply", json!({ "f:name": {}, "f:llm": { "f:model": {} } })),
            entry("kubectl-edit", "Update", json!({ "f:name": {} })),
        ];
        let change = |path: &str| Change { path: path.split('.').map(str::to_owned).collect(), value: None };
        let managers = |path: &str| conflict(&managed, &[change(path)]).map(|found| found.managers.join(","));
        assert_eq!(managers("llm.tools").as_deref(), Some("argocd-controller"));
        assert_eq!(managers("llm").as_deref(), Some("argocd-controller"), "something below it");
        assert_eq!(managers("agent.sip.uri.x").as_deref(), Some("argocd-controller"), "something above it");
        assert_eq!(managers("name").as_deref(), Some("kubectl-edit"), "owned together");
        assert_eq!(managers("llm.model"), None);
        assert_eq!(managers("agent.openai"), None);
        assert_eq!(others(&managed), ["argocd-controller", "kubectl-edit"]);
    }

    #[test]
    fn the_status_and_our_name_without_apply_are_told_apart() {
        let mut status = entry("voicedock-operator", "Apply", json!({ "f:name": {} }));
        status.subresource = Some("status".to_owned());
        let update = entry(FIELD_MANAGER, "Update", json!({ "f:name": {} }));
        assert_eq!(others(&[status]), Vec::<String>::new());
        assert_eq!(others(&[update]), [FIELD_MANAGER]);
    }

    #[test]
    fn only_what_is_ours_is_applied_with_the_changes() {
        let managed = [
            entry("argocd-controller", "Apply", json!({ "f:agent": { "f:sip": {} } })),
            entry(
                FIELD_MANAGER,
                "Apply",
                json!({ "f:name": {}, "f:llm": { "f:model": {}, "f:provider": {} } }),
            ),
        ];
        let current = json!({ "agent": { "sip": 1 }, "name": "n", "llm": { "model": "x", "provider": "p", "tools": [1] } });
        let change = |path: &[&str], value| Change {
            path: path.iter().map(|name| (*name).to_owned()).collect(),
            value,
        };
        let changes = [
            change(&["llm", "model"], Some(json!("y"))),
            change(&["llm", "provider"], None),
            change(&["new", "a"], Some(json!(1))),
        ];
        assert_eq!(
            applied(&managed, &current, &changes),
            json!({ "name": "n", "llm": { "model": "y" }, "new": { "a": 1 } })
        );
    }
}
