//! What calls with an agent over OpenAI share: the way to the API, the secrets as they are now, and the webhooks that come in.
//!
//! Nothing is kept of a secret: each request looks for it in the table's generation of that moment, so that a revoked one isn't
//! used again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::call_id::CallId;
use super::openai_metrics::OpenAiMetrics;
use super::plane::USER_AGENT;
use super::shard::ShardInput;
use super::snapshot::{Credential, Snapshot};
use super::tls::{self, TlsError};
use crate::agent::openai::rest::{Api, ApiError, Place};
use crate::agent::openai::webhook::{self, NotBelieved, Signed, Waiting};
use crate::metrics::Metrics;
use crate::routing::table::{AssistantEntry, CredentialId, ObjectKey, OpenAiEntry};

/// Ids of webhooks that are remembered.
const REMEMBERED: usize = 4096;
/// How old a call may be of which a webhook tells: an INVITE that nobody answers is given up before.
const OLDEST_SECONDS: i64 = 120;

/// See the module.
pub struct OpenAi {
    snapshot: Arc<ArcSwap<Snapshot>>,
    /// By the authorities that are trusted.
    apis: Mutex<HashMap<Option<CredentialId>, Api>>,
    seen: Mutex<Seen>,
    shards: OnceLock<Vec<mpsc::Sender<ShardInput>>>,
    metrics: OpenAiMetrics,
}

#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

/// Why the agent of an assistant can't be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum NoAccess {
    /// The table has another agent for it now, or no secrets.
    #[error(
        "Assistant {0} has no agent over OpenAI with all of its secrets now; see its condition ResolvedRefs"
    )]
    Gone(ObjectKey),
    /// The authorities can't be used.
    #[error("agent.openai.caBundleRef of Assistant {0}: {1}")]
    Tls(ObjectKey, TlsError),
}

/// How the agent of an assistant is spoken to at this moment.
pub(super) struct Access {
    pub(super) api: Api,
    pub(super) place: Place,
    pub(super) assistant: Arc<AssistantEntry>,
    pub(super) snapshot: Arc<Snapshot>,
}

impl Access {
    /// How it is reached.
    pub(super) fn agent(&self) -> Option<&OpenAiEntry> {
        self.assistant.agent.openai()
    }
}

/// What became of a webhook about a call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The call has it.
    Delivered,
    /// It came before.
    Repeated,
    /// Nobody waits for it any more.
    Late,
    /// The assistant is none of this gateway's.
    Foreign,
}

impl OpenAi {
    /// By the secrets of this snapshot.
    pub fn new(snapshot: Arc<ArcSwap<Snapshot>>, metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            snapshot,
            apis: Mutex::default(),
            seen: Mutex::default(),
            shards: OnceLock::new(),
            metrics: OpenAiMetrics::new(metrics),
        })
    }

    /// Calls are with these shards from now on.
    pub(super) fn attach(&self, shards: Vec<mpsc::Sender<ShardInput>>) {
        let _ = self.shards.set(shards);
    }

    /// How the agent of an assistant is spoken to now.
    pub(super) fn access(&self, assistant: &ObjectKey) -> Result<Access, NoAccess> {
        let snapshot = self.snapshot.load_full();
        let gone = || NoAccess::Gone(assistant.clone());
        let entry = snapshot.index.table().assistants.get(assistant).ok_or_else(gone)?.clone();
        let openai = entry.agent.openai().ok_or_else(gone)?;
        let keys = openai.keys.as_ref().ok_or_else(gone)?;
        let key = secret(&snapshot, &keys.api).ok_or_else(gone)?.to_owned();
        let place = Place { base: openai.api.clone(), key };
        let authorities = openai.target.tls.as_ref().and_then(|tls| tls.authorities.clone());
        let api =
            self.api(authorities, &snapshot).map_err(|error| NoAccess::Tls(assistant.clone(), error))?;
        Ok(Access { api, place, assistant: entry, snapshot })
    }

    fn api(&self, authorities: Option<CredentialId>, snapshot: &Snapshot) -> Result<Api, TlsError> {
        let mut apis = locked(&self.apis);
        if let Some(api) = apis.get(&authorities) {
            return Ok(api.clone());
        }
        let config = tls::config(authorities.as_ref(), None, snapshot)?;
        let api = Api::new(Arc::new(config), USER_AGENT);
        // Rotated authorities have another name; those that no table names any more go.
        apis.retain(|id, _| id.as_ref().is_none_or(|id| snapshot.credentials.contains_key(id)));
        apis.insert(authorities, api.clone());
        Ok(api)
    }

    /// The answer to a request, counted.
    pub(super) fn answered<T>(
        &self,
        request: &'static str,
        answer: Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.metrics.request(request, answer.as_ref().err());
        answer
    }

    /// Takes a webhook about a call that waits, to the call that it is for.
    pub async fn take(
        self: &Arc<Self>,
        signed: Signed<'_>,
        body: &[u8],
        created: Option<i64>,
        waiting: Waiting,
        now: Timestamp,
    ) -> Result<Taken, NotBelieved> {
        let taken = self.taken(signed, body, created, waiting, now).await;
        self.metrics.webhook(taken.as_ref().copied());
        taken
    }

    async fn taken(
        self: &Arc<Self>,
        signed: Signed<'_>,
        body: &[u8],
        created: Option<i64>,
        waiting: Waiting,
        now: Timestamp,
    ) -> Result<Taken, NotBelieved> {
        let Ok(assistant) = waiting.assistant.parse::<ObjectKey>() else { return Ok(Taken::Foreign) };
        {
            let snapshot = self.snapshot.load();
            let entry = snapshot.index.table().assistants.get(&assistant);
            let keys = entry.and_then(|entry| entry.agent.openai()?.keys.as_ref());
            let Some(secret) = keys.and_then(|keys| secret(&snapshot, &keys.webhook)) else {
                return Ok(Taken::Foreign);
            };
            webhook::verify(secret, signed, body, now)?;
        }
        if !locked(&self.seen).is_new(signed.id) {
            return Ok(Taken::Repeated);
        }
        let is_late = created.is_some_and(|created| now.as_second() - created > OLDEST_SECONDS);
        if !is_late && self.deliver(&waiting, &assistant).await {
            return Ok(Taken::Delivered);
        }
        self.turn_away(assistant, waiting.at);
        Ok(Taken::Late)
    }

    /// Whether the call has it now.
    async fn deliver(&self, waiting: &Waiting, assistant: &ObjectKey) -> bool {
        let Ok(call) = waiting.call.parse::<CallId>() else { return false };
        let shards = self.shards.get().map(Vec::as_slice).unwrap_or_default();
        let Some(shard) = shards.get(usize::from(call.shard)) else { return false };
        let (reply, answer) = oneshot::channel();
        let (assistant, at) = (assistant.clone(), waiting.at.clone());
        let input = ShardInput::Waiting { call, assistant, at, reply };
        shard.send(input).await.is_ok() && answer.await.unwrap_or(false)
    }

    /// Nobody waits for this call: the agent would talk to nobody.
    fn turn_away(self: &Arc<Self>, assistant: ObjectKey, at: String) {
        let openai = Arc::clone(self);
        tokio::spawn(async move {
            let turned_away = match openai.access(&assistant) {
                Ok(access) => {
                    let rejected = access.api.reject(&access.place, &at).await;
                    openai.answered("reject", rejected).map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            match turned_away {
                Ok(()) => tracing::info!(%assistant, "a call that nobody waits for any more was turned away"),
                Err(why) => tracing::debug!(%assistant, "a call that nobody waits for stays: {why}"),
            }
        });
    }
}

impl Seen {
    fn is_new(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

fn secret<'a>(snapshot: &'a Snapshot, id: &CredentialId) -> Option<&'a str> {
    match snapshot.credentials.get(id)? {
        Credential::Signing { secret } => Some(secret),
        _ => None,
    }
}

/// A panic elsewhere can't leave these half changed: what is missing is made anew.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
