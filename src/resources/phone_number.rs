//! PhoneNumber: a number, the assistant that answers it, and the trunk that carries its transfers.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::conditions::Condition;
use super::references::{LocalReference, ObjectReference};
use super::rules;

/// A phone number, its assistant and its transfer trunk.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "voicedock.dev",
    version = "v1alpha1",
    kind = "PhoneNumber",
    namespaced,
    status = "PhoneNumberStatus",
    derive = "PartialEq",
    shortname = "num",
    category = "voicedock",
    doc = "A phone number: who answers it, and which trunk carries its transfers.",
    printcolumn(name = "Number", type_ = "string", json_path = ".spec.number"),
    printcolumn(name = "Assistant", type_ = "string", json_path = ".spec.assistantRef.name"),
    printcolumn(name = "Trunk", type_ = "string", json_path = ".spec.transferTrunkRef.name"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct PhoneNumberSpec {
    /// The number, E.164. Immutable: a number that moves is a new object.
    #[schemars(length(max = rules::MAX_READ))]
    #[x_kube(validation = rules::e164())]
    #[x_kube(validation = Rule::new("self == oldSelf").message(
        "a number can't be changed: write a new PhoneNumber for the new number and delete this one"))]
    pub number: String,
    /// Name for people; the object's name when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub display_name: Option<String>,
    /// The Assistant that answers, in the same namespace. Without it calls go to `fallbackRef`, else are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assistant_ref: Option<LocalReference>,
    /// The trunk that carries transfers whose destination names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer_trunk_ref: Option<ObjectReference>,
    /// The gateway that answers the number; the operator's default gateway when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_ref: Option<ObjectReference>,
    /// The TransferDestination in the same namespace that gets the caller when the assistant can't be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_ref: Option<LocalReference>,
}

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhoneNumberStatus {
    /// The generation of the spec that this status speaks of; -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `ResolvedRefs`, `Programmed`, `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What was decided for fields that the spec leaves out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<PhoneNumberEffective>,
}

/// Decided values of a PhoneNumber.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhoneNumberEffective {
    /// The gateway that answers the number, `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
}
