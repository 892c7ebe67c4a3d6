//! A leg on its way out: its host is looked up, and each way to it is tried until one takes the INVITE (RFC 3263 §4.3).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Leg, Shard, ShardInput, credentials};
use crate::call::{Dial, Input, LegKey};
use crate::gateway::lines::Taken;
use crate::gateway::resolve::{ResolveError, literal};
use crate::sip::event::{Flow, LegEvent, LegId, OutgoingInvite, RefusedBy};

/// How long a host may say nothing at all before the next one of its name is tried.
const PATIENCE: Duration = Duration::from_secs(4);

/// The ways to a leg's host that are left (RFC 3263 §4.3).
pub(super) struct Ways {
    dial: Box<Dial>,
    /// The one that is being tried.
    current: Flow,
    left: VecDeque<Flow>,
}

impl Shard {
    pub(super) fn dial(&mut self, key: u64, leg: LegKey, dial: Box<Dial>) {
        let line =
            dial.line.as_ref().map(|(trunk, limits)| self.shared.lines.take(trunk, *limits, Instant::now()));
        let line = match line.transpose() {
            Ok(line) => line,
            Err(limit) => {
                let refused =
                    LegEvent::Refused { code: 503, reason: limit.to_string(), by: RefusedBy::Limit };
                return self.pending.push_back((key, Input::Leg(leg, refused)));
            }
        };
        if let Some(assistant) = dial.assistant.clone() {
            self.begin_session(key, leg, assistant);
        }
        let Some(entry) = self.calls.get_mut(&key) else { return };
        let target = dial.target.clone();
        if let Some(spans) = &mut entry.spans {
            spans.dialled(leg, dial.line.as_ref().map(|(trunk, _)| trunk));
        }
        entry.legs.insert(leg, Leg::Resolving(dial, line));
        match literal(&target) {
            Some(way) => self.resolved(key, leg, Ok(vec![way])),
            None => {
                let (shared, sender) = (Arc::clone(&self.shared), self.self_sender.clone());
                tokio::spawn(async move {
                    let result = shared.resolver.resolve(&target).await;
                    // A shard that is gone has no calls that could wait for this.
                    let _ = sender.send(ShardInput::Resolved { call: key, leg, result }).await;
                });
            }
        }
    }

    pub(super) fn resolved(&mut self, key: u64, leg: LegKey, result: Result<Vec<Flow>, ResolveError>) {
        let Some(entry) = self.calls.get_mut(&key) else { return };
        let Some(Leg::Resolving(..)) = entry.legs.get(&leg) else { return };
        let Some(Leg::Resolving(dial, line)) = entry.legs.remove(&leg) else { return };
        match result {
            Ok(ways) => self.set_out(key, leg, dial, ways.into(), line),
            Err(error) => self.can_not_dial(key, leg, RefusedBy::Transport, error.to_string()),
        }
    }

    /// Sends the INVITE the first of these ways.
    fn set_out(
        &mut self,
        key: u64,
        leg: LegKey,
        dial: Box<Dial>,
        mut ways: VecDeque<Flow>,
        line: Option<Taken>,
    ) {
        let now = self.now();
        let Some(flow) = ways.pop_front() else {
            return self.can_not_dial(key, leg, RefusedBy::Transport, "there is no way to it".to_owned());
        };
        let flow = match self.shared.secured(flow, &dial.target) {
            Ok(flow) => flow,
            Err(error) => return self.can_not_dial(key, leg, RefusedBy::Transport, error.to_string()),
        };
        let Some(credentials) = credentials(&self.shared, dial.credential.clone()) else {
            let reason = "credentials are gone".to_owned();
            return self.can_not_dial(key, leg, RefusedBy::Unauthorized, reason);
        };
        let host = self.shared.advertised_host(flow.transport);
        let headers = dial.headers.iter();
        let headers = headers.map(|(name, value)| (name.clone(), value.replace("{host}", &host))).collect();
        let invite = OutgoingInvite {
            flow,
            uri: dial.target.uri.clone(),
            route: dial.target.route.clone(),
            from: dial.from.clone(),
            headers,
            max_forwards: dial.max_forwards,
            offer: dial.offer.clone(),
            credentials,
            patience: if ways.is_empty() { dial.patience } else { Some(dial.patience.unwrap_or(PATIENCE)) },
            session: dial.session,
        };
        let id = self.endpoint.invite(invite, now);
        if let Some(entry) = self.calls.get_mut(&key) {
            entry.legs.insert(leg, Leg::Live(id, line));
            self.legs.insert(id, (key, leg));
            if !ways.is_empty() {
                entry.ways.insert(leg, Ways { dial, current: flow, left: ways });
            }
            self.traced(key, leg, id);
        }
    }

    fn can_not_dial(&mut self, key: u64, leg: LegKey, by: RefusedBy, reason: String) {
        let Some(entry) = self.calls.get(&key) else { return };
        tracing::warn!(call = %entry.id, "a leg could not be dialled: {reason}");
        self.pending.push_back((key, Input::Leg(leg, LegEvent::Refused { code: 503, reason, by })));
    }

    /// Whether the INVITE goes the next way because of this: nobody answered, the transport failed, or the answer was 503
    /// (RFC 3263 §4.3). The call machine sees one leg, whichever way it goes.
    pub(super) fn goes_another_way(&mut self, leg: LegId, event: &LegEvent) -> bool {
        let Some(&(call, key)) = self.legs.get(&leg) else { return false };
        let Some(entry) = self.calls.get_mut(&call) else { return false };
        let Some(ways) = entry.ways.remove(&key) else { return false };
        let LegEvent::Refused { code, by, .. } = event else { return false };
        let no_way = match by {
            RefusedBy::Timeout | RefusedBy::Transport => true,
            RefusedBy::Response => *code == 503,
            RefusedBy::Cancelled | RefusedBy::Unauthorized | RefusedBy::Limit => false,
        };
        if !no_way {
            return false;
        }
        self.shared.resolver.avoid(ways.current);
        tracing::info!(call = %entry.id, code, "a host does not take the call, the next one of its name is tried");
        self.legs.remove(&leg);
        let line = match entry.legs.remove(&key) {
            Some(Leg::Live(_, line)) => line,
            _ => None,
        };
        self.set_out(call, key, ways.dial, ways.left, line);
        true
    }
}
