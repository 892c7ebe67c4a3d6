//! RoutingSlice: an immutable, content-addressed piece of a routing table.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A piece of a routing table; its name holds the hash of its content. Written by the operator only, never changed.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "voicedock.dev",
    version = "v1alpha1",
    kind = "RoutingSlice",
    namespaced,
    derive = "PartialEq",
    category = "voicedock",
    doc = "An immutable, content-addressed piece of a routing table. Written by the operator; read it, don't edit it.",
    printcolumn(name = "Gateway", type_ = "string", json_path = ".spec.gateway"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf")
    .message("a RoutingSlice never changes: its name holds the hash of its content; write a new one"))]
pub struct RoutingSliceSpec {
    /// The gateway whose table this is a piece of.
    #[schemars(length(min = 1, max = 253))]
    pub gateway: String,
    /// Which part of the table this is, `numbers`.
    #[schemars(length(min = 1, max = 64))]
    pub part: String,
    /// The entries, as in `routing::table`.
    #[schemars(schema_with = "super::crds::atomic_object")]
    pub content: serde_json::Value,
}
