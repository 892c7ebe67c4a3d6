//! What an agent is told: one signed request after the other, in a task that ends with the call.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{Shard, ShardInput};
use crate::call::{Channel, Input, LegKey, Tell, TellId};
use crate::gateway::hook;
use crate::gateway::plane::Shared;
use crate::gateway::snapshot::Credential;
use crate::routing::table::HookEntry;

/// What may wait for an agent. The call machine keeps to less.
const QUEUE: usize = 16;

/// The way to one agent of one call; given up when it is dropped.
pub(super) struct Line {
    /// The agent's leg.
    leg: LegKey,
    jobs: mpsc::Sender<Job>,
    _task: AbortOnDropHandle<()>,
}

/// Something that an agent is to be told.
struct Job {
    id: TellId,
    url: String,
    secret: String,
    notice: hook::Notice,
    within: Duration,
    until: Instant,
}

impl Shard {
    pub(super) fn tell(&mut self, key: u64, tell: Tell) {
        let id = tell.id;
        if let Err(why) = self.try_to_tell(key, tell) {
            self.pending.push_back((key, Input::Told(id, Err(why.to_owned()))));
        }
    }

    fn try_to_tell(&mut self, key: u64, tell: Tell) -> Result<(), &'static str> {
        match tell.channel.clone() {
            Channel::Hook(hook) => self.tell_by_hook(key, tell, hook),
            Channel::Session => self.tell_in_session(key, tell),
        }
    }

    fn tell_by_hook(&mut self, key: u64, tell: Tell, hook: HookEntry) -> Result<(), &'static str> {
        let Some(entry) = self.calls.get_mut(&key) else { return Ok(()) };
        let Tell { id, leg, what, within, .. } = tell;
        let snapshot = self.shared.snapshot.load();
        let Some(Credential::Signing { secret }) = snapshot.credentials.get(&hook.secret) else {
            return Err("the secret of the agent's hook is gone");
        };
        let notice = hook::Notice {
            what: what.into(),
            call_id: entry.id.to_string(),
            assistant: entry.call.assistant().map(ToString::to_string).unwrap_or_default(),
            number: entry.call.number().to_string(),
        };
        let job =
            Job { id, url: hook.url, secret: secret.clone(), notice, within, until: Instant::now() + within };
        // What another agent of the call was told is of no use any more.
        let line = match entry.line.take() {
            Some(line) if line.leg == leg => line,
            _ => open(key, leg, Arc::clone(&self.shared), self.self_sender.clone()),
        };
        let line = entry.line.insert(line);
        line.jobs.try_send(job).map_err(|_| "too much waits to be said already")
    }
}

/// A task that tells an agent one thing after the other.
fn open(call: u64, leg: LegKey, shared: Arc<Shared>, sender: mpsc::Sender<ShardInput>) -> Line {
    let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
    let task = tokio::spawn(async move {
        while let Some(Job { id, url, secret, notice, within, until }) = queue.recv().await {
            let told = tokio::time::timeout_at(until, shared.hooks.tell(&url, &secret, &notice));
            let told = told.await.unwrap_or(Err(hook::HookError::TooSlow(within)));
            let done = told.map_err(|error| error.to_string());
            // A shard that is gone has no calls that could wait for this.
            let _ = sender.send(ShardInput::Told { call, id, done }).await;
        }
    });
    Line { leg, jobs, _task: AbortOnDropHandle::new(task) }
}
