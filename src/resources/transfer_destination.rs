//! TransferDestination: a person, queue or number that calls may be handed to.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::assistant::Header;
use super::conditions::Condition;
use super::references::{LocalReference, ObjectReference};
use super::rules;

/// A person, queue or number that calls may be handed to.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "voicedock.dev",
    version = "v1alpha1",
    kind = "TransferDestination",
    namespaced,
    status = "TransferDestinationStatus",
    derive = "PartialEq",
    shortname = "dest",
    category = "voicedock",
    doc = "A person, queue or number that calls may be handed to.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.effective.target"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type != 'number' || (has(self.number) && !has(self.uri))")
    .message("type: number needs number and no uri; for a SIP URI write type: sip"))]
#[x_kube(validation = Rule::new("self.type != 'sip' || (has(self.uri) && !has(self.number))")
    .message("type: sip needs uri and no number; for a phone number write type: number"))]
pub struct TransferDestinationSpec {
    /// Whether `number` or `uri` says where.
    #[serde(rename = "type")]
    pub type_: DestinationType,
    /// E.164; with `type: number`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::MAX_READ))]
    #[x_kube(validation = rules::e164())]
    pub number: Option<String>,
    /// A SIP URI; with `type: sip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = rules::sip_uri())]
    pub uri: Option<String>,
    /// When to use this destination, for the model.
    #[schemars(length(min = 1, max = 1024))]
    pub description: String,
    /// Said by the assistant and heard to its end before the destination is dialled. An agent that is reached over SIP needs a
    /// `hook` for it. A message that can't be said keeps nobody from being transferred. A number's fallback is dialled
    /// without it: there is no assistant to say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub message: Option<String>,
    /// The trunk that carries the transfer; else the number's transfer trunk, else the trunk that the call came in over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk_ref: Option<ObjectReference>,
    /// How the caller is handed over; `Bridge` when left out. With `Refer` the trunk that the caller came in over dials, under
    /// that trunk's `outbound` rules; `trunkRef` and `callerId` are for when it takes no REFER and the transfer is bridged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<TransferMethod>,
    /// Seconds that the destination may ring; 30 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600))]
    pub ring_timeout_seconds: Option<i32>,
    /// Whose number the destination sees; the caller's own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_id: Option<CallerId>,
    /// Headers on the INVITE to the destination, or on the REFER.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub headers: Vec<Header>,
    /// When the destination is open; always when left out. A transfer to a destination that is closed is refused at once,
    /// with the time of its next opening; the caller stays with the assistant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// What happens when the destination can't be had; back to the assistant when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
}

/// What says where a destination is; the product's own letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DestinationType {
    /// A phone number.
    Number,
    /// A SIP URI.
    Sip,
}

/// How the caller is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TransferMethod {
    /// The gateway dials the human and joins caller and human.
    Bridge,
    /// The caller's trunk is asked to dial, with REFER (RFC 3515).
    Refer,
}

/// Whose number the destination sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.mode == 'Fixed') == has(self.number)")
    .message("write a number with mode: Fixed, and only with it"))]
pub struct CallerId {
    /// Whose number it is.
    pub mode: CallerIdMode,
    /// E.164; with `mode: Fixed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::MAX_READ))]
    #[x_kube(validation = rules::e164())]
    pub number: Option<String>,
}

/// Whose number the destination sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CallerIdMode {
    /// The caller's.
    Preserve,
    /// The number that the caller dialled.
    PhoneNumber,
    /// The one given here.
    Fixed,
}

/// When a destination is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// IANA time zone.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new(r"self.matches('^(UTC|[A-Z][A-Za-z_]*(/[A-Za-z0-9_+-]+){1,2})$')")
        .message("write an IANA time zone, such as Europe/Amsterdam or UTC"))]
    pub time_zone: String,
    /// Open hours; the destination is closed at all other times.
    #[schemars(length(min = 1, max = 64))]
    pub open: Vec<OpenHours>,
}

/// Open hours on some days of the week.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.from < self.to").message(
    "from must be before to; hours over midnight are two entries, one to \"24:00\" and one from \"00:00\" the next day"))]
pub struct OpenHours {
    /// Days of the week.
    #[schemars(length(min = 1, max = 7))]
    #[x_kube(validation = rules::unique("day"))]
    pub days: Vec<Weekday>,
    /// `HH:MM`, inclusive.
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^([01][0-9]|2[0-3]):[0-5][0-9]$')")
        .message("write the time as HH:MM in quotes, from \"00:00\" to \"23:59\""))]
    pub from: String,
    /// `HH:MM`, exclusive; `24:00` is the end of the day.
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$')")
        .message("write the time as HH:MM in quotes, from \"00:01\" to \"24:00\""))]
    pub to: String,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// What happens when the destination can't be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OnFailure {
    /// Destinations in the same namespace that are tried in order, each followed by those that its own `onFailure.then`
    /// names. Nobody is tried twice: a chain that leads back is cut there and named in the status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = rules::unique("destination"))]
    pub then: Vec<LocalReference>,
    /// What happens when they fail too; `ReturnToAssistant` when left out. That of the destination that was asked for
    /// holds, not theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finally: Option<Finally>,
}

/// What happens to a caller whom nobody took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Finally {
    /// Back to the assistant, with the outcome.
    ReturnToAssistant,
    /// The call ends.
    HangUp,
}

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransferDestinationStatus {
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
    pub effective: Option<TransferDestinationEffective>,
}

/// Decided values of a TransferDestination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransferDestinationEffective {
    /// The number or URI that is dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// How the caller is handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<TransferMethod>,
    /// Seconds that the destination may ring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_timeout_seconds: Option<i32>,
}
