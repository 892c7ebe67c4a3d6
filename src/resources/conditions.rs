//! Conditions and their reasons: the interface that `kubectl wait`, Flux, Argo CD and people read.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One condition of an object, as in the Kubernetes API conventions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs`, `Programmed`, `Reachable`, `Ready`, or `Stalled`.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// The generation of the spec that this condition speaks of.
    pub observed_generation: i64,
    /// When `status` last changed, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// A CamelCase constant of [`reason`].
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// A sentence that names the object and the remedy.
    #[schemars(length(max = 32768))]
    pub message: String,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known yet.
    Unknown,
}

/// Condition types.
pub mod condition {
    /// The spec makes sense and wins its conflicts.
    pub const ACCEPTED: &str = "Accepted";
    /// Everything it names exists, is permitted and has the right keys.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// Every ready gateway pod holds a table with this generation.
    pub const PROGRAMMED: &str = "Programmed";
    /// The trunk answers probes or holds our registration; only on trunks that have one of them.
    pub const REACHABLE: &str = "Reachable";
    /// On a RoutingTable, true when it is bad: the table is past 80 % of what the API server takes.
    pub const NEAR_SIZE_LIMIT: &str = "NearSizeLimit";
    /// Waiting mends nothing: the spec contradicts itself or can't be read. There only while it is true.
    pub const STALLED: &str = "Stalled";
    /// The summary of the others, for kstatus, Argo CD, Flux and `kubectl wait`.
    pub const READY: &str = "Ready";
}

/// Reasons, in one place. Each is part of the interface: never renamed.
pub mod reason {
    /// The condition holds and there is nothing to say.
    pub const ACCEPTED: &str = "Accepted";
    /// Everything it names was found.
    pub const RESOLVED: &str = "Resolved";
    /// Every ready gateway holds it.
    pub const PROGRAMMED: &str = "Programmed";
    /// All conditions hold.
    pub const READY: &str = "Ready";
    /// The spec contradicts itself or cannot be read.
    pub const INVALID: &str = "Invalid";
    /// An older object holds the same number.
    pub const CONFLICT: &str = "Conflict";
    /// Something it names does not exist.
    pub const REF_NOT_FOUND: &str = "RefNotFound";
    /// The target does not allow references from this namespace (or does not exist: the answer is the same).
    pub const REF_NOT_PERMITTED: &str = "RefNotPermitted";
    /// Something it names exists but was not accepted.
    pub const REF_NOT_ACCEPTED: &str = "RefNotAccepted";
    /// A Secret lacks a key that is needed.
    pub const SECRET_KEY_MISSING: &str = "SecretKeyMissing";
    /// A chain of fallbacks leads back to itself and was cut.
    pub const FALLBACK_LOOP: &str = "FallbackLoop";
    /// Nothing refers to it, so no gateway needs it.
    pub const NOT_USED: &str = "NotUsed";
    /// It is waiting for gateways to acknowledge.
    pub const PENDING: &str = "Pending";
    /// A gateway refused the table.
    pub const REJECTED: &str = "Rejected";
    /// The trunk answers.
    pub const REACHABLE: &str = "Reachable";
    /// The trunk doesn't answer, or takes nothing.
    pub const UNREACHABLE: &str = "Unreachable";
    /// No gateway pod is ready.
    pub const NO_GATEWAYS: &str = "NoReadyGateways";
    /// Kubernetes admits no pods of the gateway.
    pub const PODS_REFUSED: &str = "PodsRefused";
    /// The load balancer has no address yet.
    pub const ADDRESS_NOT_ASSIGNED: &str = "AddressNotAssigned";
    /// The table is too large for an object of the API server.
    pub const TOO_LARGE: &str = "TooLarge";
    /// The table is past 80 % of what the API server takes.
    pub const NEARLY_FULL: &str = "NearlyFull";
    /// The table is far from any limit.
    pub const FITS: &str = "Fits";
    /// The table can't be written at present.
    pub const PUBLISH_FAILED: &str = "PublishFailed";
    /// The gateway's pods, Service or permissions can't be written at present.
    pub const PROVISION_FAILED: &str = "ProvisionFailed";
}
