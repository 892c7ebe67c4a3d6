//! RoutingTable: the head of a gateway's table: which slices, in one object, written by compare-and-swap.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::conditions::Condition;

/// The head of a gateway's routing table; has the SipGateway's name and namespace. Written by the operator only.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "voicedock.dev",
    version = "v1alpha1",
    kind = "RoutingTable",
    namespaced,
    status = "RoutingTableStatus",
    derive = "PartialEq",
    shortname = "rtable",
    category = "voicedock",
    doc = "The head of a gateway's routing table. Written by the operator; read it, don't edit it.",
    printcolumn(name = "Generation", type_ = "integer", json_path = ".spec.generation"),
    printcolumn(name = "Numbers", type_ = "integer", json_path = ".spec.counts.numbers"),
    printcolumn(name = "Destinations", type_ = "integer", json_path = ".spec.counts.destinations"),
    printcolumn(name = "Gateways", type_ = "string", json_path = ".status.summary"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.generation >= oldSelf.generation")
    .message("the generation of a table never goes back: publish a higher one"))]
pub struct RoutingTableSpec {
    /// Grows by one with every published table; never goes back.
    #[schemars(range(min = 1))]
    pub generation: i64,
    /// SHA-256 over the ordered hashes of the slices, hexadecimal: equal hash, equal table.
    #[schemars(length(min = 1, max = 128))]
    pub hash: String,
    /// Names of the RoutingSlices that make up the table, in the order over which `hash` is taken. Each ends with the hash
    /// of its content; one that is amended counts with the hash of its amendment.
    #[schemars(length(max = 8192), inner(length(min = 1, max = 253)))]
    pub slices: Vec<String>,
    /// What of these slices is different by now: a change of a few rows needs no slice of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub amendments: Vec<Amendment>,
    /// Slices that only the previous generation has, kept from collection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8192), inner(length(max = 253)))]
    pub previous_slices: Vec<String>,
    /// The Secret that holds the credential versions which trunks of this table name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub credentials_secret: Option<String>,
    /// How much is in the table.
    pub counts: TableCounts,
}

/// Rows that are not as a slice has them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Amendment {
    /// The slice: one of `slices`.
    #[schemars(length(min = 1, max = 253))]
    pub slice: String,
    /// Hash of the slice's content with these rows.
    #[schemars(length(min = 1, max = 128))]
    pub hash: String,
    /// Rows as they are, by their keys.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "super::crds::atomic_object")]
    pub rows: Map<String, Value>,
    /// Keys of rows that are no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096), inner(length(max = 512)))]
    pub gone: Vec<String>,
}

/// How much is in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TableCounts {
    /// Phone numbers.
    pub numbers: i64,
    /// Assistants.
    pub assistants: i64,
    /// Transfer destinations.
    pub destinations: i64,
    /// Trunks.
    pub trunks: i64,
}

/// Which gateways hold the table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoutingTableStatus {
    /// The generation of the spec that this status speaks of; -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Programmed`, `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Table generation that every ready gateway pod holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_generation: Option<i64>,
    /// Table generation that was published last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_generation: Option<i64>,
    /// `held/ready` gateway pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Pods that refuse the table or lag behind, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lagging: BTreeMap<String, String>,
}
