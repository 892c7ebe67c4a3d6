//! SIP traces: what a call says on the wire, for somebody who asked for it, for a while.
//!
//! A trace belongs to one call, or to the next one to a number, and is begun by a command (`http::traces`). The shard that has the
//! call puts its messages in, redacted ([`redact`]) before they are kept; they are read over HTTP. Bounds, for each trace: a time that
//! whoever asks chooses (at most [`MOST_SECONDS`]), [`MOST_MESSAGES`], [`MOST_BYTES`]; for a pod: [`MOST_TRACES`]. One that is over
//! is kept for [`KEEP`], so that its end can be read. Nothing is written to disk, and a call without a trace costs nothing.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::call_id::{CallId, Instance, hexadecimal};
use super::calls::milliseconds;
use crate::call::LegKey;
use crate::routing::table::E164;
use crate::sip::event::Flow;
use crate::sip::redact::redact;

/// How long a trace may run, seconds; for the next call to a number, how long that is waited for as well.
pub const MOST_SECONDS: u32 = 600;
/// How long it runs when nothing is said, seconds.
pub const USUAL_SECONDS: u32 = 60;
/// Traces of a pod at the same time.
pub const MOST_TRACES: usize = 8;
/// Messages of a trace.
pub const MOST_MESSAGES: usize = 1000;
/// Text of a trace, bytes.
pub const MOST_BYTES: usize = 1 << 20;
/// Text of one answer, bytes; the rest is in the next one.
const PAGE_BYTES: usize = 256 * 1024;
/// How long a trace that is over can be read.
pub const KEEP: Duration = Duration::from_secs(120);
/// A call that is over still says goodbye: the trace is over when it has been silent for so long.
const SILENCE: Duration = Duration::from_secs(2);

/// Names a trace: the pod that was asked for it, and a number drawn at random, so that it can't be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TraceId {
    /// The process that was asked.
    pub instance: Instance,
    /// Tells its traces apart.
    pub serial: u64,
}

/// A text is not the id of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a trace: they look like trace_0badcafe_0123456789abcdef")]
pub struct NotATraceId;

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trace_{}_{:016x}", self.instance, self.serial)
    }
}

impl FromStr for TraceId {
    type Err = NotATraceId;
    fn from_str(text: &str) -> Result<Self, NotATraceId> {
        let read = || {
            let (instance, serial) = text.strip_prefix("trace_")?.split_once('_')?;
            Some(Self { instance: instance.parse().ok()?, serial: hexadecimal(serial, 16)? })
        };
        read().ok_or(NotATraceId)
    }
}

impl From<TraceId> for String {
    fn from(id: TraceId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for TraceId {
    type Error = NotATraceId;
    fn try_from(text: String) -> Result<Self, NotATraceId> {
        text.parse()
    }
}

/// What is traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// This call.
    Call(CallId),
    /// The next call to this number.
    Number(E164),
}

/// A trace as it is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its id.
    pub id: TraceId,
    /// What is traced.
    pub subject: Subject,
    /// The only namespace that whoever asks sees; all when `None`.
    pub namespace: Option<String>,
    /// How long it runs.
    pub span: Duration,
}

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// To the gateway.
    In,
    /// From the gateway.
    Out,
}

/// One message of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TracedMessage {
    /// Its place in the trace, from 1.
    pub number: usize,
    /// When it came or went.
    #[serde(serialize_with = "milliseconds")]
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// Which way.
    pub way: Way,
    /// Of which leg of the call: `caller`, or `dialled-1` for the first party that was dialled, agent or human.
    pub leg: String,
    /// `UDP`, `TCP` or `TLS`.
    pub transport: &'static str,
    /// The peer's address and port.
    pub peer: String,
    /// The message, redacted; lines end in `\n`.
    pub text: String,
}

/// How far a trace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TraceState {
    /// No call to the number has come yet.
    Waiting,
    /// It goes on.
    Running,
    /// Nothing more comes.
    Over,
}

/// Why it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Over {
    /// The call is, or was never let in.
    CallOver,
    /// Its time is.
    Time,
    /// It has as many messages or bytes as a trace may have.
    Full,
    /// Somebody stopped it.
    Stopped,
}

/// What is shown of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TraceView {
    /// Names the trace.
    #[schemars(with = "String")]
    pub id: TraceId,
    /// The call, as soon as there is one.
    #[schemars(with = "Option<String>")]
    pub call: Option<CallId>,
    /// How far the trace is.
    pub state: TraceState,
    /// Why it is over, once it is.
    pub over: Option<Over>,
    /// Messages after those that were asked for; there may be more.
    pub messages: Vec<Arc<TracedMessage>>,
    /// Whether there are more than fit into one answer: ask again, after the last one of these.
    pub more: bool,
}

/// One trace.
#[derive(Debug)]
pub struct Trace {
    /// As it was asked for.
    pub wanted: Wanted,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    call: Option<CallId>,
    /// Whether a call was found.
    found: bool,
    /// The pod that it was found at, if that is another.
    elsewhere: Option<Instance>,
    /// Whether that call goes on.
    live: bool,
    /// When the time is over.
    ends: Instant,
    /// When the last message came.
    last: Instant,
    over: Option<(Over, Instant)>,
    messages: Vec<Arc<TracedMessage>>,
    bytes: usize,
}

impl Trace {
    fn new(wanted: Wanted, now: Instant) -> Self {
        let call = match &wanted.subject {
            Subject::Call(call) => Some(*call),
            Subject::Number(_) => None,
        };
        let inner = Inner {
            call,
            found: call.is_some(),
            elsewhere: None,
            live: call.is_some(),
            ends: now + wanted.span,
            last: now,
            over: None,
            messages: Vec::new(),
            bytes: 0,
        };
        Self { wanted, inner: Mutex::new(inner) }
    }

    /// Whether a call to the number is still waited for. Exactly one call is let in: the first that asks.
    pub fn claim(&self, now: Instant) -> bool {
        let mut inner = self.inner(now);
        let free = !inner.found && inner.over.is_none();
        if free {
            inner.found = true;
            inner.ends = now + self.wanted.span;
            inner.last = now;
        }
        free
    }

    /// Whether a call to the number is still waited for.
    pub fn waits(&self, now: Instant) -> bool {
        let inner = self.inner(now);
        !inner.found && inner.over.is_none()
    }

    /// Whether nothing more is wanted.
    pub fn is_over(&self, now: Instant) -> bool {
        self.inner(now).over.is_some()
    }

    /// The call that was waited for came to another pod, which has its messages.
    pub fn is_at(&self, pod: Instance, now: Instant) {
        if self.claim(now) {
            let mut inner = self.inner(now);
            (inner.elsewhere, inner.live) = (Some(pod), true);
        }
    }

    /// The other pod that has its messages, if one has.
    pub fn elsewhere(&self, now: Instant) -> Option<Instance> {
        self.inner(now).elsewhere
    }

    /// The call that was waited for is this one.
    pub fn is_of(&self, call: CallId, now: Instant) {
        let mut inner = self.inner(now);
        (inner.call, inner.live) = (Some(call), true);
    }

    /// The call is over; what it still says is taken.
    pub fn call_over(&self, now: Instant) {
        let mut inner = self.inner(now);
        (inner.live, inner.last) = (false, now);
    }

    /// Ends it.
    pub fn stop(&self, now: Instant) {
        self.inner(now).over.get_or_insert((Over::Stopped, now));
    }

    /// Takes a message in.
    pub fn add(&self, way: Way, flow: Flow, leg: Option<LegKey>, bytes: &[u8], now: Instant) {
        if self.is_over(now) {
            return;
        }
        // Outside of the lock: whoever reads doesn't wait for it.
        let text = redact(bytes);
        let mut inner = self.inner(now);
        inner.last = now;
        if inner.messages.len() >= MOST_MESSAGES || inner.bytes + text.len() > MOST_BYTES {
            inner.over.get_or_insert((Over::Full, now));
            return;
        }
        inner.bytes += text.len();
        let message = TracedMessage {
            number: inner.messages.len() + 1,
            at: Timestamp::now(),
            way,
            leg: match leg {
                Some(LegKey::Dialled(number)) => format!("dialled-{}", u32::from(number) + 1),
                Some(LegKey::Caller) | None => "caller".to_owned(),
            },
            transport: flow.transport.name(),
            peer: flow.peer.to_string(),
            text,
        };
        inner.messages.push(Arc::new(message));
    }

    /// What there is after the message `after`.
    pub fn view(&self, after: usize, now: Instant) -> TraceView {
        let inner = self.inner(now);
        let mut room = PAGE_BYTES;
        let rest = inner.messages.get(after..).unwrap_or_default();
        let fits = |message: &&Arc<TracedMessage>| {
            let fits = message.text.len() <= room;
            room = room.saturating_sub(message.text.len());
            fits
        };
        let messages: Vec<_> = rest.iter().take_while(fits).cloned().collect();
        let state = match inner.over {
            Some(_) => TraceState::Over,
            None if inner.found => TraceState::Running,
            None => TraceState::Waiting,
        };
        TraceView {
            id: self.wanted.id,
            call: inner.call,
            state,
            over: inner.over.map(|(why, _)| why),
            more: messages.len() < rest.len(),
            messages,
        }
    }

    /// As it is now: time passes by itself.
    fn inner(&self, now: Instant) -> MutexGuard<'_, Inner> {
        // A panic elsewhere can't leave it half changed in a way that matters.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.over.is_none() {
            if inner.ends <= now {
                inner.over = Some((Over::Time, inner.ends));
            } else if inner.found && !inner.live && inner.last + SILENCE <= now {
                inner.over = Some((Over::CallOver, now));
            }
        }
        inner
    }

    fn over_since(&self, now: Instant) -> Option<Instant> {
        self.inner(now).over.map(|(_, since)| since)
    }
}

/// The traces of a pod.
#[derive(Debug, Default)]
pub struct Traces(Mutex<Vec<Arc<Trace>>>);

/// As many run as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl Traces {
    /// Begins one.
    pub fn begin(&self, wanted: Wanted, now: Instant) -> Result<Arc<Trace>, TooMany> {
        let mut traces = self.kept(now);
        if traces.len() >= MOST_TRACES {
            // The one that has been over for longest makes room.
            let over = traces.iter().enumerate().filter_map(|(at, trace)| Some((trace.over_since(now)?, at)));
            let Some((_, at)) = over.min() else { return Err(TooMany) };
            traces.remove(at);
        }
        let trace = Arc::new(Trace::new(wanted, now));
        traces.push(Arc::clone(&trace));
        Ok(trace)
    }

    /// The one with this id, if whoever asks sees it: with a namespace those of that namespace.
    pub fn get(&self, id: TraceId, namespace: Option<&str>, now: Instant) -> Option<Arc<Trace>> {
        let traces = self.kept(now);
        let is_theirs = |trace: &Trace| namespace.is_none() || trace.wanted.namespace.as_deref() == namespace;
        traces.iter().find(|trace| trace.wanted.id == id && is_theirs(trace)).cloned()
    }

    /// Forgets one: it could not be begun.
    pub fn forget(&self, id: TraceId, now: Instant) {
        self.kept(now).retain(|trace| trace.wanted.id != id);
    }

    fn kept(&self, now: Instant) -> MutexGuard<'_, Vec<Arc<Trace>>> {
        let mut traces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        traces.retain(|trace| trace.over_since(now).is_none_or(|since| since + KEEP > now));
        traces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::event::Transport;

    const CALL: CallId = CallId { instance: Instance(7), shard: 0, serial: 1 };
    const SPAN: Duration = Duration::from_secs(60);

    fn wanted(serial: u64, subject: Subject) -> Wanted {
        let id = TraceId { instance: Instance(7), serial };
        Wanted { id, subject, namespace: Some("acme".to_owned()), span: SPAN }
    }

    fn number() -> Subject {
        Subject::Number("+31201234567".parse().unwrap())
    }

    fn add(trace: &Trace, text: &str, now: Instant) {
        let flow = Flow { transport: Transport::Udp, peer: "192.0.2.1:5060".parse().unwrap() };
        trace.add(Way::In, flow, Some(LegKey::Dialled(0)), text.as_bytes(), now);
    }

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = TraceId { instance: Instance(0x0bad_cafe), serial: 0x0123 };
        assert_eq!(id.to_string(), "trace_0badcafe_0000000000000123");
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "trace_", "trace_0badcafe_123", "call_0badcafe_0000000000000123"] {
            assert_eq!(wrong.parse::<TraceId>(), Err(NotATraceId), "{wrong}");
        }
    }

    #[test]
    fn a_trace_ends_with_its_time_and_can_be_read_for_a_while() {
        let (traces, now) = (Traces::default(), Instant::now());
        let trace = traces.begin(wanted(1, Subject::Call(CALL)), now).unwrap();
        add(&trace, "BYE sip:h SIP/2.0\r\n\r\n", now);
        add(&trace, "BYE sip:h SIP/2.0\r\n\r\n", now + SPAN);
        let view = trace.view(0, now + SPAN);
        assert_eq!((view.state, view.over, view.messages.len()), (TraceState::Over, Some(Over::Time), 1));
        assert_eq!(view.messages[0].leg, "dialled-1");
        let id = trace.wanted.id;
        assert!(traces.get(id, None, now + SPAN + KEEP - Duration::from_millis(1)).is_some());
        assert!(traces.get(id, None, now + SPAN + KEEP).is_none());
    }

    #[test]
    fn a_call_that_is_over_is_heard_out() {
        let (traces, now) = (Traces::default(), Instant::now());
        let trace = traces.begin(wanted(1, Subject::Call(CALL)), now).unwrap();
        trace.call_over(now);
        add(&trace, "BYE sip:h SIP/2.0\r\n\r\n", now + SILENCE / 2);
        assert!(!trace.is_over(now + SILENCE));
        let view = trace.view(0, now + SILENCE * 2);
        assert_eq!((view.over, view.messages.len()), (Some(Over::CallOver), 1));
    }

    #[test]
    fn the_next_call_to_a_number_is_one_call() {
        let (traces, now) = (Traces::default(), Instant::now());
        let trace = traces.begin(wanted(1, number()), now).unwrap();
        assert_eq!(trace.view(0, now).state, TraceState::Waiting);
        let late = now + SPAN - Duration::from_secs(1);
        assert!(trace.claim(late) && !trace.claim(late));
        trace.is_of(CALL, late);
        let view = trace.view(0, now + SPAN);
        assert_eq!(
            (view.state, view.call),
            (TraceState::Running, Some(CALL)),
            "its time begins with the call"
        );
        let unmet = traces.begin(wanted(2, number()), now).unwrap();
        assert!(!unmet.claim(now + SPAN), "it is waited for no longer than that");
    }

    #[test]
    fn a_trace_has_so_many_messages_and_bytes_and_a_page_so_many() {
        let (traces, now) = (Traces::default(), Instant::now());
        let trace = traces.begin(wanted(1, Subject::Call(CALL)), now).unwrap();
        for _ in 0..MOST_MESSAGES + 1 {
            add(&trace, "BYE sip:h SIP/2.0\r\n\r\n", now);
        }
        let view = trace.view(990, now);
        assert_eq!((view.over, view.messages.len(), view.more), (Some(Over::Full), 10, false));
        assert!(trace.view(usize::MAX, now).messages.is_empty());

        let trace = traces.begin(wanted(2, Subject::Call(CALL)), now).unwrap();
        let large = format!("BYE sip:h SIP/2.0\r\nServer: {}\r\n\r\n", "a".repeat(10_000));
        (0..200).for_each(|_| add(&trace, &large, now));
        let (mut after, mut bytes) = (0, 0);
        loop {
            let view = trace.view(after, now);
            let page: usize = view.messages.iter().map(|message| message.text.len()).sum();
            assert!(page <= PAGE_BYTES);
            (after, bytes) = (after + view.messages.len(), bytes + page);
            if !view.more {
                break;
            }
        }
        assert!((MOST_BYTES / 2..=MOST_BYTES).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_pod_has_so_many_traces_and_those_that_are_over_make_room() {
        let (traces, now) = (Traces::default(), Instant::now());
        let all: Vec<_> = (0..MOST_TRACES)
            .map(|n| traces.begin(wanted(n as u64, Subject::Call(CALL)), now).unwrap())
            .collect();
        assert_eq!(traces.begin(wanted(99, number()), now).err(), Some(TooMany));
        all[3].stop(now);
        traces.begin(wanted(99, number()), now).unwrap();
        assert!(traces.get(all[3].wanted.id, None, now).is_none());
    }

    #[test]
    fn a_namespace_sees_its_own_traces() {
        let (traces, now) = (Traces::default(), Instant::now());
        let id = traces.begin(wanted(1, number()), now).unwrap().wanted.id;
        let sees = |namespace| traces.get(id, namespace, now).is_some();
        assert!(sees(None) && sees(Some("acme")) && !sees(Some("other")));
    }
}
