//! A cluster's objects from YAML as people write them, plus what the operator knows of Secrets and namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::ResourceExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::resources::{Assistant, PhoneNumber, SipGateway, SipTrunk, TransferDestination};
use crate::routing::compile::{Objects, SecretFacts};
use crate::routing::table::ObjectKey;

/// Objects in the order in which they were written.
#[derive(Clone, Debug, Default)]
pub(in crate::routing) struct World {
    pub documents: Vec<Document>,
}

/// One object, or the facts.
#[derive(Clone, Debug)]
pub(in crate::routing) enum Document {
    Assistant(Arc<Assistant>),
    PhoneNumber(Arc<PhoneNumber>),
    SipGateway(Arc<SipGateway>),
    SipTrunk(Arc<SipTrunk>),
    TransferDestination(Arc<TransferDestination>),
    Facts(Facts),
}

/// `kind: Facts`: what the operator knows besides the custom resources.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::routing) struct Facts {
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    default_gateway: Option<ObjectKey>,
    #[serde(default)]
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    secrets: BTreeMap<ObjectKey, Secret>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Secret {
    uid: String,
    resource_version: String,
    #[serde(default)]
    keys: BTreeSet<String>,
    #[serde(default)]
    certificates: BTreeSet<String>,
    #[serde(default)]
    private_keys: BTreeSet<String>,
}

impl World {
    /// Reads documents of one object each.
    pub fn parse(documents: &[&str]) -> Self {
        let values = documents
            .iter()
            .map(|text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}")));
        Self::from_values(values)
    }

    /// Reads a YAML stream.
    pub fn parse_stream(stream: &str) -> Self {
        Self::from_values(serde_saphyr::from_multiple::<Value>(stream).unwrap())
    }

    pub fn from_values(values: impl IntoIterator<Item = Value>) -> Self {
        Self { documents: values.into_iter().map(document).collect() }
    }

    pub fn objects(&self) -> Objects {
        let mut objects = Objects::default();
        for document in &self.documents {
            match document.clone() {
                Document::Assistant(object) => insert(&mut objects.assistants, object),
                Document::PhoneNumber(object) => insert(&mut objects.numbers, object),
                Document::SipGateway(object) => insert(&mut objects.gateways, object),
                Document::SipTrunk(object) => insert(&mut objects.trunks, object),
                Document::TransferDestination(object) => insert(&mut objects.destinations, object),
                Document::Facts(facts) => {
                    objects.default_gateway = facts.default_gateway.or(objects.default_gateway);
                    objects.namespaces.extend(facts.namespaces);
                    objects.secrets.extend(facts.secrets.into_iter().map(|(key, secret)| {
                        let Secret { uid, resource_version, keys, certificates, private_keys } = secret;
                        (
                            key,
                            SecretFacts {
                                uid,
                                resource_version,
                                keys,
                                certificates,
                                private_keys,
                                is_sealed: false,
                            },
                        )
                    }));
                }
            }
        }
        objects
    }
}

fn insert<T: ResourceExt>(objects: &mut BTreeMap<ObjectKey, Arc<T>>, object: Arc<T>) {
    let key = ObjectKey::new(object.namespace().unwrap_or_else(|| "default".into()), object.name_any());
    let previous = objects.insert(key.clone(), object);
    assert!(previous.is_none(), "{key} is there twice");
}

fn document(mut value: Value) -> Document {
    let kind = value["kind"].as_str().unwrap_or_else(|| panic!("no kind: {value}")).to_owned();
    if kind != "Facts" {
        value.as_object_mut().unwrap().entry("apiVersion").or_insert_with(|| "voicedock.dev/v1alpha1".into());
    }
    match kind.as_str() {
        "Assistant" => Document::Assistant(object(value)),
        "PhoneNumber" => Document::PhoneNumber(object(value)),
        "SipGateway" => Document::SipGateway(object(value)),
        "SipTrunk" => Document::SipTrunk(object(value)),
        "TransferDestination" => Document::TransferDestination(object(value)),
        "Facts" => Document::Facts(serde_json::from_value(value).unwrap()),
        other => panic!("unknown kind {other}"),
    }
}

/// The types forgive unknown fields (as Kubernetes clients do); a test must not: what is written has to be read.
fn object<T: DeserializeOwned + serde::Serialize>(value: Value) -> Arc<T> {
    let object: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"));
    let read = serde_json::to_value(&object).unwrap();
    assert_contains(&read, &value, "");
    Arc::new(object)
}

fn assert_contains(read: &Value, written: &Value, path: &str) {
    match (read, written) {
        (Value::Object(read), Value::Object(written)) => {
            for (key, value) in written {
                // Empty lists and maps are left out when an object is written.
                let is_empty = *value == serde_json::json!([]) || *value == serde_json::json!({});
                if is_empty && !read.contains_key(key) {
                    continue;
                }
                let path = format!("{path}.{key}");
                assert_contains(
                    read.get(key).unwrap_or_else(|| panic!("unknown field {path}")),
                    value,
                    &path,
                );
            }
        }
        (Value::Array(read), Value::Array(written)) => {
            assert_eq!(read.len(), written.len(), "{path}");
            for (index, (read, written)) in read.iter().zip(written).enumerate() {
                assert_contains(read, written, &format!("{path}[{index}]"));
            }
        }
        _ => assert_eq!(read, written, "{path}"),
    }
}

#[test]
#[should_panic(expected = "unknown field .spec.hosst")]
fn a_field_that_the_types_do_not_know_fails_the_test() {
    World::parse(&["kind: SipTrunk\nmetadata: {name: a}\nspec: {host: a, hosst: b}"]);
}
