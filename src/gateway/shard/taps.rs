//! SIP traces at a shard: which of its messages belong to a call that somebody looks at.
//!
//! A message is known by its Call-ID: each leg of a call has its own. While nobody looks there is nothing to compare.

use std::sync::Arc;
use std::time::Instant;

use sipx_sip::{HeaderName, Message, Method, Request};

use super::{Leg, Shard};
use crate::call::LegKey;
use crate::gateway::call_id::CallId;
use crate::gateway::control::ControlError;
use crate::gateway::snapshot::Snapshot;
use crate::gateway::trace::{Subject, Trace, Way};
use crate::routing::table::E164;
use crate::sip::event::{Flow, LegId};
use crate::sip::{glance, read};

/// Legs of a call that are followed; a call has a handful.
const MOST_LEGS: usize = 64;

/// The traces that concern this shard.
#[derive(Default)]
pub(super) struct Taps(Vec<Tap>);

/// One trace.
struct Tap {
    trace: Arc<Trace>,
    /// The call, once it has begun.
    call: Option<u64>,
    /// The Call-IDs of its legs.
    legs: Vec<(Box<[u8]>, LegKey)>,
}

impl Taps {
    /// Whether nobody looks.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A message came from `source`.
    pub(super) fn received(&mut self, message: &Message, source: Flow, snapshot: &Snapshot) {
        let now = self.prune();
        let Some(call_id) = message.headers().value(&HeaderName::CallId) else { return };
        let call_id = call_id.trim_ascii();
        if let Message::Request(request) = message
            && begins_call(request)
        {
            for tap in self.0.iter_mut().filter(|tap| tap.legs.is_empty()) {
                let Subject::Number(number) = &tap.trace.wanted.subject else { continue };
                let namespace = tap.trace.wanted.namespace.as_deref();
                if is_to(request, source, number, namespace, snapshot) && tap.trace.claim(now) {
                    tap.legs.push((call_id.into(), LegKey::Caller));
                }
            }
        }
        self.add(Way::In, source, call_id, &mut || message.to_bytes(), now);
    }

    /// A message is about to be sent.
    pub(super) fn sent(&mut self, flow: Flow, bytes: &bytes::Bytes) {
        let now = self.prune();
        if let Some(call_id) = glance::call_id(bytes) {
            self.add(Way::Out, flow, call_id, &mut || bytes.clone(), now);
        }
    }

    fn add(
        &self,
        way: Way,
        flow: Flow,
        call_id: &[u8],
        bytes: &mut dyn FnMut() -> bytes::Bytes,
        now: Instant,
    ) {
        for tap in &self.0 {
            if let Some((_, leg)) = tap.legs.iter().find(|(known, _)| **known == *call_id) {
                tap.trace.add(way, flow, Some(*leg), &bytes(), now);
            }
        }
    }

    /// A leg of a call has this Call-ID.
    fn follow(&mut self, call: u64, leg: LegKey, call_id: &[u8]) {
        for tap in self.0.iter_mut().filter(|tap| tap.call == Some(call) && tap.legs.len() < MOST_LEGS) {
            tap.legs.push((call_id.into(), leg));
        }
    }

    /// The INVITE with this Call-ID has become a call.
    fn began(&mut self, call: CallId, call_id: &[u8]) {
        let now = Instant::now();
        for tap in &mut self.0 {
            if tap.call.is_none() && tap.legs.iter().any(|(known, _)| **known == *call_id) {
                tap.call = Some(call.serial);
                tap.trace.is_of(call, now);
            }
        }
    }

    /// A call is over.
    pub(super) fn over(&mut self, call: u64) {
        let now = self.prune();
        self.0.iter().filter(|tap| tap.call == Some(call)).for_each(|tap| tap.trace.call_over(now));
    }

    /// Lets go of what is over, or has found its call at another shard.
    fn prune(&mut self) -> Instant {
        let now = Instant::now();
        self.0.retain(|tap| {
            let elsewhere = tap.legs.is_empty() && tap.call.is_none() && !tap.trace.waits(now);
            !elsewhere && !tap.trace.is_over(now)
        });
        now
    }
}

impl Shard {
    /// A trace begins.
    pub(super) fn tap(&mut self, trace: Arc<Trace>) -> Result<(), ControlError> {
        self.taps.prune();
        let Subject::Call(call) = trace.wanted.subject else {
            self.taps.0.push(Tap { trace, call: None, legs: Vec::new() });
            return Ok(());
        };
        let entry = self.calls.get(&call.serial).filter(|entry| entry.id == call);
        let entry = entry.ok_or(ControlError::CallOver)?;
        let legs: Vec<(LegKey, LegId)> = entry
            .legs
            .iter()
            .filter_map(|(leg, known)| match known {
                Leg::Live(id, _) => Some((*leg, *id)),
                Leg::Resolving(..) => None,
            })
            .collect();
        self.taps.0.push(Tap { trace, call: Some(call.serial), legs: Vec::new() });
        for (leg, id) in legs {
            self.traced(call.serial, leg, id);
        }
        Ok(())
    }

    /// A leg of a call has come to life.
    pub(super) fn traced(&mut self, call: u64, leg: LegKey, id: LegId) {
        if !self.taps.is_empty()
            && let Some(call_id) = self.endpoint.call_id_of(id)
        {
            self.taps.follow(call, leg, call_id);
        }
    }

    /// The caller's INVITE has become a call.
    pub(super) fn trace_call(&mut self, call: CallId, caller: LegId) {
        if !self.taps.is_empty()
            && let Some(call_id) = self.endpoint.call_id_of(caller)
        {
            self.taps.began(call, call_id);
        }
    }
}

fn begins_call(request: &Request) -> bool {
    request.method == Method::Invite && read::tag(&request.headers, &HeaderName::To).is_none()
}

/// Whether an INVITE calls a number: as its trunk writes numbers. One that comes over no trunk has to write it with its country code,
/// and is nobody's in particular.
fn is_to(
    request: &Request,
    source: Flow,
    number: &E164,
    namespace: Option<&str>,
    snapshot: &Snapshot,
) -> bool {
    let dialled = [Some(read::user_of(&request.uri)), read::user_of_to(&request.headers)];
    let index = &snapshot.index;
    dialled.into_iter().flatten().any(|dialled| {
        let by_source = index.who_answers(source.peer.ip(), &dialled).ok();
        let by_digest =
            || index.by_digest().find_map(|(trunk, _)| index.who_answers_over(trunk, &dialled).ok());
        match by_source.or_else(by_digest) {
            Some(answer) => {
                let is_theirs = |namespace| answer.object().namespace == namespace;
                answer.number() == number && namespace.is_none_or(is_theirs)
            }
            None => namespace.is_none() && digits(&dialled) == digits(number.as_str()),
        }
    })
}

/// Without what stands for "international".
fn digits(number: &str) -> String {
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    digits.trim_start_matches('0').to_owned()
}
