//! A call as `voicedock calls` shows it, read from what a gateway pod answers.
//!
//! The caller's number is personal data. It is here because whoever could ask the pod had a key of the SipGateway, which opens
//! it (docs/api.md); it goes to standard output and nowhere else.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::routing::table::ObjectKey;

/// One call; the names of its fields are part of the interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// Names it.
    pub id: String,
    /// Since when it is there.
    pub since: Timestamp,
    /// The caller's number; absent when it is withheld, and when the gateway calls by itself to test a destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The number that was called.
    pub to: String,
    /// Who answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assistant: Option<ObjectKey>,
    /// The trunk that it came in over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk: Option<ObjectKey>,
    /// The trunk over which a human has the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer_trunk: Option<ObjectKey>,
    /// How far it is.
    pub state: State,
    /// Whom it is transferred to, by name, number or URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<String>,
    /// The SipGateway.
    pub gateway: ObjectKey,
    /// The pod that has it.
    pub pod: String,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nobody has answered yet.
    Connecting,
    /// The assistant has the caller.
    WithAssistant,
    /// The caller is with the assistant while somebody else is dialled.
    Transferring,
    /// A human has the caller.
    Transferred,
    /// It was answered and is over.
    Ended,
    /// It is over and was never answered.
    Failed,
    /// Its pod is gone, and the call with it.
    Lost,
}

impl State {
    /// Whether the call is over.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Failed | Self::Lost)
    }
}

/// What a pod says of a call, as far as it is shown. What a pod of an older version does not say is absent.
#[derive(Debug, Deserialize)]
struct Said {
    id: String,
    caller_phone: Option<String>,
    assistant_phone: String,
    status: String,
    end_reason: Option<String>,
    started_at: Timestamp,
    agent_id: Option<ObjectKey>,
    #[serde(default)]
    trunk_id: Option<ObjectKey>,
    #[serde(default)]
    transferring_to: Option<String>,
    #[serde(default)]
    transfers: Vec<Transfer>,
}

#[derive(Debug, Deserialize)]
struct Transfer {
    outcome: String,
    destination: String,
    trunk: Option<ObjectKey>,
}

impl Call {
    /// What `pod` of `gateway` answered for one call.
    ///
    /// # Errors
    /// When it isn't a call.
    pub fn read(said: serde_json::Value, gateway: &ObjectKey, pod: &str) -> Result<Self, serde_json::Error> {
        let said = Said::deserialize(said)?;
        let human = said.transfers.last().filter(|transfer| transfer.outcome == "answered");
        let state = match said.status.as_str() {
            "connecting" => State::Connecting,
            "ended" => State::Ended,
            "failed" => State::Failed,
            _ if said.transferring_to.is_some() => State::Transferring,
            _ if human.is_some() => State::Transferred,
            _ => State::WithAssistant,
        };
        Ok(Self {
            id: said.id,
            since: said.started_at,
            from: said.caller_phone,
            to: said.assistant_phone,
            assistant: said.agent_id,
            trunk: said.trunk_id,
            transfer_trunk: human.and_then(|human| human.trunk.clone()),
            state,
            destination: said.transferring_to.or_else(|| human.map(|human| human.destination.clone())),
            end_reason: said.end_reason,
            gateway: gateway.clone(),
            pod: pod.to_owned(),
        })
    }

    /// The same call once its pod is gone.
    pub fn lost(self) -> Self {
        Self { state: State::Lost, ..self }
    }

    /// The cells of its row below [`HEAD`].
    pub fn row(&self) -> [String; COLUMNS] {
        let named = |key: &Option<ObjectKey>| key.as_ref().map(ToString::to_string).unwrap_or_default();
        [
            self.id.clone(),
            format!("{:.0}", self.since),
            self.from.clone().unwrap_or_default(),
            self.to.clone(),
            named(&self.assistant),
            named(&self.trunk),
            self.pod.clone(),
            InWords(self).to_string(),
        ]
    }
}

/// Columns of a table of calls.
const COLUMNS: usize = 8;
/// Their names.
pub const HEAD: [&str; COLUMNS] = ["ID", "SINCE", "FROM", "TO", "ASSISTANT", "TRUNK", "POD", "STATE"];

struct InWords<'a>(&'a Call);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let destination = self.0.destination.as_deref().unwrap_or("a human");
        let reason = self.0.end_reason.as_deref().unwrap_or("for no reason that is known");
        match self.0.state {
            State::Connecting => write!(f, "connecting"),
            State::WithAssistant => write!(f, "with the assistant"),
            State::Transferring => write!(f, "transferring to {destination}"),
            State::Transferred => write!(f, "with {destination}"),
            State::Ended => write!(f, "ended: {reason}"),
            State::Failed => write!(f, "failed: {reason}"),
            State::Lost => write!(f, "lost with its pod"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn said(change: Value) -> Call {
        let mut said = json!({
            "id": "call_0badcafe_010000000000000001", "caller_phone": "+31612345678", "assistant_phone": "+31201234567",
            "status": "in-progress", "end_reason": null, "started_at": "2026-02-02T02:40:00.000Z",
            "agent_id": "acme/support", "trunk_id": "acme/office", "transferring_to": null, "transfers": [],
        });
        said.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        Call::read(said, &ObjectKey::new("vd", "default"), "gw-1").unwrap()
    }

    #[test]
    fn a_state_says_who_has_the_caller() {
        let tried =
            |outcome: &str| json!([{ "outcome": outcome, "destination": "sales", "trunk": "acme/pbx" }]);
        for (change, words) in [
            (json!({ "status": "connecting" }), "connecting"),
            (json!({}), "with the assistant"),
            (json!({ "transferring_to": "sales" }), "transferring to sales"),
            (json!({ "transfers": tried("busy") }), "with the assistant"),
            (json!({ "transfers": tried("answered") }), "with sales"),
            (
                json!({ "transfers": tried("answered"), "transferring_to": "billing" }),
                "transferring to billing",
            ),
            (json!({ "status": "ended", "end_reason": "caller-hung-up" }), "ended: caller-hung-up"),
            (json!({ "status": "failed", "end_reason": "agent-failed" }), "failed: agent-failed"),
        ] {
            assert_eq!(InWords(&said(change.clone())).to_string(), words, "{change}");
        }
        assert_eq!(
            said(json!({ "transfers": tried("answered") })).transfer_trunk,
            Some(ObjectKey::new("acme", "pbx"))
        );
    }

    #[test]
    fn what_an_older_pod_does_not_say_is_absent() {
        let mut old = json!({
            "id": "x", "caller_phone": null, "assistant_phone": "+31201234567", "status": "in-progress", "end_reason": null,
            "started_at": "2026-02-02T02:40:00.000Z", "agent_id": null,
        });
        let read = |old: &Value| Call::read(old.clone(), &ObjectKey::new("vd", "default"), "gw-1");
        let call = read(&old).unwrap();
        assert_eq!((call.trunk, call.state), (None, State::WithAssistant));
        old.as_object_mut().unwrap().remove("status");
        assert!(read(&old).is_err());
    }
}
