//! What a shard keeps of one call: the machine, its legs and timers, and the ways to its agent.

use std::collections::BTreeMap;

use tokio::sync::OwnedSemaphorePermit;

use super::dialling::Ways;
use super::telling::Line;
use crate::call::{Call, Dial, LegKey, Timer};
use crate::gateway::call_id::CallId;
use crate::gateway::call_spans::CallSpans;
use crate::gateway::lines::Taken;
use crate::gateway::session::Session;
use crate::gateway::view;
use crate::sip::event::LegId;
use crate::sip::time::Millis;

/// One call and what the driver keeps about it.
pub(super) struct Entry {
    pub(super) call: Call,
    pub(super) id: CallId,
    pub(super) view: view::View,
    pub(super) legs: BTreeMap<LegKey, Leg>,
    /// Of legs that are being dialled and could go another way.
    pub(super) ways: BTreeMap<LegKey, Ways>,
    pub(super) timers: BTreeMap<Timer, Millis>,
    /// The way to the agent, beside SIP.
    pub(super) line: Option<Line>,
    /// Of agents whose sessions this gateway runs, and the name under which the call waits there.
    pub(super) sessions: BTreeMap<LegKey, (Session, Option<String>)>,
    /// What is told of it to a collector, if anybody wants to know.
    pub(super) spans: Option<Box<CallSpans>>,
    /// The right to test a destination, if that is what it is; held until the call is forgotten.
    #[allow(dead_code, reason = "dropping it gives it back")]
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// Its place among the calls that came in over its trunk, where they are counted.
    #[allow(dead_code, reason = "dropping it gives it back")]
    pub(super) place: Option<Taken>,
}

impl Entry {
    /// A call that has just begun.
    pub(super) fn new(id: CallId, call: Call, legs: BTreeMap<LegKey, Leg>) -> Self {
        Self {
            view: view::View::new(id, &call),
            spans: CallSpans::begin(id, &call),
            call,
            id,
            legs,
            ways: BTreeMap::new(),
            timers: BTreeMap::new(),
            line: None,
            sessions: BTreeMap::new(),
            permit: None,
            place: None,
        }
    }
}

/// A leg as the driver knows it, and its place among the calls of its trunk.
pub(super) enum Leg {
    /// Its host is being looked up.
    Resolving(Box<Dial>, Option<Taken>),
    /// It is a leg of the endpoint.
    Live(LegId, Option<Taken>),
}
