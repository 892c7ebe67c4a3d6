//! Agents whose sessions the gateway runs: a session begins with the INVITE to the agent and ends with its leg.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Shard;
use crate::agent::openai::conversation::Again;
use crate::call::{AskId, Conclusion, Input, LegKey, Outcome, Tell, Try};
use crate::gateway::call_id::CallId;
use crate::gateway::session::{self, Session, Whose};
use crate::routing::table::ObjectKey;
use crate::sip::event::{EndedBy, LegEvent, RefusedBy};

impl Shard {
    /// The agent on `leg` is about to be dialled.
    pub(super) fn begin_session(&mut self, key: u64, leg: LegKey, assistant: ObjectKey) {
        let Some(entry) = self.calls.get_mut(&key) else { return };
        let whose = Whose { id: entry.id, call: key, leg, assistant };
        let session = Session::begin(Arc::clone(&self.shared.openai), whose, self.self_sender.clone());
        entry.sessions.insert(leg, (session, None));
    }

    /// A call waits at OpenAI under the name `at`: whether it is one of these, and nobody has it yet.
    pub(super) fn waits(
        &mut self,
        call: CallId,
        assistant: &ObjectKey,
        at: String,
        reply: oneshot::Sender<bool>,
    ) {
        let entry = self.calls.get_mut(&call.serial).filter(|entry| entry.id == call);
        let taken = entry.is_some_and(|entry| {
            let is_ours = entry.call.assistant() == Some(assistant);
            // The newest: those before it have been given up.
            let newest = entry.sessions.values_mut().next_back().filter(|_| is_ours);
            newest.is_some_and(|(session, known)| {
                known.get_or_insert_with(|| at.clone()) == &at && session.tell(session::Input::Waiting(at))
            })
        });
        let _ = reply.send(taken);
    }

    /// The caller hears the agent.
    pub(super) fn joined(&mut self, key: u64, leg: LegKey, again: bool) {
        let again = if again { Again::Yes } else { Again::No };
        self.tell_session(key, leg, session::Input::Joined(again));
    }

    /// Whether the session of an agent takes it.
    pub(super) fn tell_in_session(&mut self, key: u64, tell: Tell) -> Result<(), &'static str> {
        let input = session::Input::Tell(tell.id, tell.what, tell.within);
        if self.tell_session(key, tell.leg, input) { Ok(()) } else { Err("the agent's session has ended") }
    }

    pub(super) fn conclude(&mut self, key: u64, leg: LegKey, ask: AskId, conclusion: &Conclusion) {
        // A caller who was joined with a human isn't spoken to any more.
        if let Some(result) = result(conclusion) {
            self.tell_session(key, leg, session::Input::Conclude(ask, result));
        }
    }

    /// What became of a leg is the end of its session, if it has one.
    pub(super) fn end_session(&mut self, key: u64, input: &Input) {
        let (leg, is_known) = match input {
            Input::Leg(leg, LegEvent::Ended(by)) => (*leg, matches!(by, EndedBy::Bye(_) | EndedBy::Cancel)),
            Input::Leg(leg, LegEvent::Refused { by, .. }) => (*leg, *by == RefusedBy::Response),
            _ => return,
        };
        let session = self.calls.get_mut(&key).and_then(|entry| entry.sessions.remove(&leg));
        if let Some((session, _)) = session {
            session.tell(session::Input::Over(is_known));
        }
    }

    fn tell_session(&self, key: u64, leg: LegKey, input: session::Input) -> bool {
        let entry = self.calls.get(&key);
        let session = entry.and_then(|entry| entry.sessions.get(&leg));
        session.is_some_and(|(session, _)| session.tell(input))
    }
}

/// The result of a tool, for the model to tell the caller about; `None` when the caller is gone.
fn result(conclusion: &Conclusion) -> Option<Value> {
    let record = match conclusion {
        Conclusion::Refused(refusal) => {
            return Some(json!({ "outcome": "refused", "reason": refusal.to_string() }));
        }
        Conclusion::Ended(record) => record,
    };
    if matches!(record.last.outcome, Outcome::Answered(_)) {
        return None;
    }
    let tried = |tried: &Try| json!({ "destination": tried.destination, "outcome": tried.outcome.as_str(), "reason": tried.reason });
    let mut result = tried(&record.last);
    if !record.before.is_empty() {
        result["tried_before"] = record.before.iter().map(tried).collect();
    }
    Some(result)
}
