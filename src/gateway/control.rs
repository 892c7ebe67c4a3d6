//! Call control inside of a pod: from whoever asks (HTTP) to the shard that has the call, and back.
//!
//! Reads are answered from [`Calls`]; commands go to the call's shard over a bounded channel with a reply. A full channel
//! or a late reply is an error that says so: nobody who asks for something waits for more than [`REPLY_TIMEOUT`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand::seq::IndexedRandom;
use tokio::sync::{mpsc, oneshot};

use super::call_id::{CallId, Instance};
use super::calls::{CallView, Calls};
use super::trace::{MOST_TRACES, Subject, Trace, TraceId, Traces, Wanted};
use crate::call::{Command, Untold};
use crate::routing::decide::{TestRefusal, TransferRefusal};
use crate::routing::table::E164;

/// How long a shard may take to answer a command. Shards answer within microseconds; this bounds a fault.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// Commands that may wait for one shard.
pub const QUEUE: usize = 256;

/// What a shard is asked. A shard that drops `reply` has refused nothing and done nothing.
#[derive(Debug)]
pub enum ControlRequest {
    /// A command to a call, for the shard that has it.
    Command {
        /// Which call.
        call: CallId,
        /// What to do. A transfer is answered when it has begun (its message is being said, or its destination dialled), or was
        /// refused before that; the outcome is then recorded in the call's `transfers`. What the agent is told is answered when
        /// it is on its way to the agent; an end after a message when the message is.
        command: Command,
        /// What became of the command.
        reply: oneshot::Sender<Result<(), ControlError>>,
    },
    /// A destination is to be dialled to see whether it answers.
    Test {
        /// Which, and as whom.
        test: Test,
        /// The call that it is, or why nothing is dialled. The outcome is then recorded in the call's `transfers`.
        reply: oneshot::Sender<Result<CallId, ControlError>>,
    },
    /// A call, or the next one to a number, is to be traced.
    Trace {
        /// Where its messages go.
        trace: Arc<Trace>,
        /// Whether it has begun; the next call to a number is traced by whichever shard it comes to.
        reply: oneshot::Sender<Result<(), ControlError>>,
    },
}

/// Which destination is tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// Its name, as an assistant lists it, or that of a number's fallback.
    pub destination: String,
    /// The number whose call it would be transferred from; the first that leads to the destination when absent.
    pub number: Option<E164>,
    /// The only namespace whose numbers count; all when absent.
    pub namespace: Option<String>,
}

/// Why a command was not carried out. Nothing has changed for the call unless it says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No call of this pod has the id, or it was over too long ago.
    #[error("no call has the id {0}; GET /api/v1/calls lists those that there are")]
    UnknownCall(CallId),
    /// The call is over, or nobody has answered it yet.
    #[error("the call is {0}; only a call that is in progress can be controlled")]
    NotActive(&'static str),
    /// The call that is to be traced is over.
    #[error("the call is over; trace one that is up, or the next one to its number")]
    CallOver,
    /// Another transfer of the call is under way.
    #[error("the call is being transferred already; wait for the outcome in its 'transfers'")]
    TransferUnderWay,
    /// The assistant says goodbye.
    #[error(
        "the call ends as soon as the assistant has said goodbye; end-call without a message ends it at once"
    )]
    Ending,
    /// The agent can't be told anything.
    #[error(transparent)]
    Untold(#[from] Untold),
    /// The transfer was refused before anything was dialled.
    #[error(transparent)]
    Refused(#[from] TransferRefusal),
    /// Nobody who calls could get there.
    #[error(transparent)]
    Untestable(#[from] TestRefusal),
    /// Too many tests are under way.
    #[error(
        "as many destinations are being tested as a gateway pod tests at a time ({0}); try again when one is done"
    )]
    TooManyTests(usize),
    /// Too many traces are under way.
    #[error(
        "as many calls are being traced as a gateway pod traces at a time ({0}); stop one with DELETE, or try again when one is over"
    )]
    TooManyTraces(usize),
    /// No further calls are taken.
    #[error("this gateway takes no further calls now; try again in a moment")]
    Full,
    /// Too many commands wait already.
    #[error("this gateway has too many commands waiting; try again in a second")]
    Overloaded,
    /// The shard did not answer in time. The command may still be carried out.
    #[error(
        "the gateway did not answer in time; GET the call before you try again, it may have been carried out"
    )]
    NoReply,
    /// The process ends.
    #[error("this gateway is shutting down and the call with it")]
    ShuttingDown,
}

/// Asks for calls of this pod and commands them.
#[derive(Clone, Debug)]
pub struct CallControl {
    instance: Instance,
    calls: Arc<Calls>,
    traces: Arc<Traces>,
    shards: Arc<[mpsc::Sender<ControlRequest>]>,
}

impl CallControl {
    /// Control over the calls in `calls`, and for each shard the receiver of its commands.
    pub fn new(
        instance: Instance,
        shards: usize,
        calls: Arc<Calls>,
    ) -> (Self, Vec<mpsc::Receiver<ControlRequest>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::channel(QUEUE)).unzip();
        (Self { instance, calls, traces: Arc::default(), shards: senders.into() }, receivers)
    }

    /// The process whose calls these are.
    pub fn instance(&self) -> Instance {
        self.instance
    }

    /// The visible calls of this pod that are not over or have been for less than so many seconds, newest first.
    pub fn list(&self, ended_within: usize) -> Vec<Arc<CallView>> {
        let (now, seconds) = (Timestamp::now(), i64::try_from(ended_within).unwrap_or(i64::MAX));
        let mut calls = self.calls.list(now);
        calls.retain(|call| call.was_there_within(seconds, now));
        calls
    }

    /// One call of this pod.
    pub fn get(&self, id: CallId) -> Option<Arc<CallView>> {
        if id.instance == self.instance { self.calls.get(id, Timestamp::now()) } else { None }
    }

    /// Commands a call; see [`ControlRequest::Command`].
    pub async fn command(&self, id: CallId, command: Command) -> Result<(), ControlError> {
        let shard = match self.shards.get(usize::from(id.shard)) {
            Some(shard) if id.instance == self.instance => shard,
            _ => return Err(ControlError::UnknownCall(id)),
        };
        ask(shard, |reply| ControlRequest::Command { call: id, command, reply }).await
    }

    /// Dials a destination to see whether it answers; see [`ControlRequest::Test`].
    pub async fn test(&self, test: Test) -> Result<CallId, ControlError> {
        let shard = self.shards.choose(&mut rand::rng()).ok_or(ControlError::ShuttingDown)?;
        ask(shard, |reply| ControlRequest::Test { test, reply }).await
    }

    /// An id for a trace that is asked for here.
    pub fn new_trace_id(&self) -> TraceId {
        TraceId { instance: self.instance, serial: rand::random() }
    }

    /// Begins a trace; see [`ControlRequest::Trace`].
    pub async fn trace(&self, wanted: Wanted) -> Result<Arc<Trace>, ControlError> {
        let shards = match &wanted.subject {
            Subject::Number(_) => &*self.shards,
            Subject::Call(id) => match self.shards.get(usize::from(id.shard)) {
                Some(shard) if id.instance == self.instance => std::slice::from_ref(shard),
                _ => return Err(ControlError::UnknownCall(*id)),
            },
        };
        let (id, now) = (wanted.id, Instant::now());
        let trace = self.traces.begin(wanted, now).map_err(|_| ControlError::TooManyTraces(MOST_TRACES))?;
        for shard in shards {
            let begun = ask(shard, |reply| ControlRequest::Trace { trace: Arc::clone(&trace), reply }).await;
            if let Err(error) = begun {
                trace.stop(now);
                self.traces.forget(id, now);
                return Err(error);
            }
        }
        Ok(trace)
    }

    /// A trace of this pod that whoever asks may see: with a namespace, one that was begun for it.
    pub fn find_trace(&self, id: TraceId, namespace: Option<&str>) -> Option<Arc<Trace>> {
        self.traces.get(id, namespace, Instant::now())
    }
}

async fn ask<T>(
    shard: &mpsc::Sender<ControlRequest>,
    request: impl FnOnce(oneshot::Sender<Result<T, ControlError>>) -> ControlRequest,
) -> Result<T, ControlError> {
    let (reply, answer) = oneshot::channel();
    shard.try_send(request(reply)).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => ControlError::Overloaded,
        mpsc::error::TrySendError::Closed(_) => ControlError::ShuttingDown,
    })?;
    match tokio::time::timeout(REPLY_TIMEOUT, answer).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(ControlError::ShuttingDown),
        Err(_) => Err(ControlError::NoReply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::calls::tests::INSTANCE;

    fn id(shard: u8) -> CallId {
        CallId { instance: INSTANCE, shard, serial: 7 }
    }

    const END: Command = Command::End { message: None };

    fn control(shards: usize) -> (CallControl, Vec<mpsc::Receiver<ControlRequest>>) {
        CallControl::new(INSTANCE, shards, Arc::new(Calls::new(shards)))
    }

    #[tokio::test]
    async fn a_command_goes_to_the_shard_that_the_id_names() {
        let (control, mut shards) = control(2);
        let mut second = shards.remove(1);
        let shard = tokio::spawn(async move {
            let Some(ControlRequest::Command { call, reply, .. }) = second.recv().await else {
                panic!("no command")
            };
            reply.send(Err(ControlError::NotActive("ended"))).unwrap();
            call
        });
        assert_eq!(control.command(id(1), END).await, Err(ControlError::NotActive("ended")));
        assert_eq!(shard.await.unwrap(), id(1));
        assert!(shards[0].try_recv().is_err(), "no other shard hears of it");
    }

    #[tokio::test]
    async fn a_call_of_another_pod_or_shard_is_unknown() {
        let (control, _shards) = control(2);
        let foreign = CallId { instance: Instance(1), ..id(0) };
        assert_eq!(control.command(foreign, END).await, Err(ControlError::UnknownCall(foreign)));
        assert_eq!(control.command(id(2), END).await, Err(ControlError::UnknownCall(id(2))));
        assert!(control.get(foreign).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_does_not_answer_is_not_waited_for_longer_than_the_bound() {
        let (control, _shards) = control(1);
        assert_eq!(control.command(id(0), END).await, Err(ControlError::NoReply));
    }

    #[tokio::test]
    async fn a_full_queue_says_so_at_once() {
        let (control, _shards) = control(1);
        let waiting: Vec<_> = (0..QUEUE)
            .map(|_| {
                let control = control.clone();
                tokio::spawn(async move { control.command(id(0), END).await })
            })
            .collect();
        let full = || control.shards[0].capacity() == 0;
        tokio::time::timeout(REPLY_TIMEOUT, async {
            while !full() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert_eq!(control.command(id(0), END).await, Err(ControlError::Overloaded));
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn a_shard_that_is_gone_says_that_the_gateway_shuts_down() {
        let (control, shards) = control(1);
        drop(shards);
        assert_eq!(control.command(id(0), END).await, Err(ControlError::ShuttingDown));
    }
}
