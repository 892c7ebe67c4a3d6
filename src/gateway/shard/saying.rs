//! What an agent is told to say: one signed request, in a task of its own that ends with the call.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::{Shard, ShardInput};
use crate::call::{self, Input};
use crate::gateway::hook;
use crate::gateway::snapshot::Credential;

impl Shard {
    pub(super) fn say(&mut self, key: u64, say: call::Say) {
        let Some(entry) = self.calls.get_mut(&key) else { return };
        let call::Say { utterance, hook, content, within } = say;
        let snapshot = self.shared.snapshot.load();
        let Some(Credential::Signing { secret }) = snapshot.credentials.get(&hook.secret) else {
            let why = "the secret of the agent's hook is gone".to_owned();
            return self.pending.push_back((key, Input::Said(utterance, Err(why))));
        };
        let secret = secret.clone();
        let say = hook::Say {
            call_id: entry.id.to_string(),
            assistant: entry.call.assistant().map(ToString::to_string).unwrap_or_default(),
            number: entry.call.number().to_string(),
            content,
            end_after: false,
        };
        let (shared, sender) = (Arc::clone(&self.shared), self.self_sender.clone());
        let saying = tokio::spawn(async move {
            let heard = shared.hooks.say(&hook.url, &secret, &say, within).await;
            let heard = heard.map_err(|error| error.to_string());
            // A shard that is gone has no calls that could wait for this.
            let _ = sender.send(ShardInput::Said { call: key, utterance, heard }).await;
        });
        entry.saying = Some(AbortOnDropHandle::new(saying));
    }
}
