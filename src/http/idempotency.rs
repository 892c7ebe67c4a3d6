//! `Idempotency-Key`: a command that is sent twice is carried out once, and answered twice.
//!
//! A key belongs to one call, at the pod that has it. The same key with the same body gets the first answer again, with
//! `Idempotency-Replayed: true`; with another body 422; while the first is still being carried out 409. Commands that are not
//! carried out because they can't be read, or because the pod has no room, take no key. Answers are kept for [`KEEP`], at most
//! [`MOST`] of them: the oldest go first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

use super::error::ApiError;
use crate::gateway::call_id::CallId;

/// The header of a request.
pub const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header of an answer that was given before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// How long an answer is kept.
const KEEP: Duration = Duration::from_secs(3600);
/// Answers that are kept.
const MOST: usize = 10_000;
/// Longest key, characters.
const LONGEST: usize = 255;

/// What became of a command.
pub type Answer = Result<(), ApiError>;
type Name = (CallId, String);

/// The answers of this pod.
#[derive(Clone, Debug, Default)]
pub struct Answers(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    answers: HashMap<Name, Entry>,
    /// Oldest first.
    order: VecDeque<(Instant, Name)>,
}

#[derive(Debug)]
struct Entry {
    /// Of the body.
    hash: [u8; 32],
    /// Absent while the command is carried out.
    answer: Option<Answer>,
}

/// What a key stands for.
#[derive(Debug)]
pub enum Begun {
    /// Nothing yet: the command is to be carried out.
    New(Ticket),
    /// A command that was answered so.
    Before(Answer),
}

/// The right to answer a command.
#[derive(Debug)]
pub struct Ticket {
    answers: Answers,
    name: Name,
}

/// The key of a request, if it has one.
pub fn key(headers: &HeaderMap) -> Result<Option<&HeaderValue>, ApiError> {
    let Some(value) = headers.get(KEY) else { return Ok(None) };
    let is_fine = (1..=LONGEST).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
    if is_fine {
        return Ok(Some(value));
    }
    Err(ApiError::invalid(
        KEY.as_str(),
        format!("Idempotency-Key has 1 to {LONGEST} visible ASCII characters"),
    ))
}

impl Answers {
    /// Whether the command with this key and body is to be carried out.
    pub fn begin(
        &self,
        call: CallId,
        key: &HeaderValue,
        body: &[u8],
        now: Instant,
    ) -> Result<Begun, ApiError> {
        let name = (call, String::from_utf8_lossy(key.as_bytes()).into_owned());
        let hash = Sha256::digest(body).into();
        let mut kept = self.kept();
        kept.forget(now);
        match kept.answers.get(&name) {
            Some(entry) if entry.hash != hash => Err(ApiError::key_reused()),
            Some(Entry { answer: None, .. }) => Err(ApiError::key_in_use()),
            Some(Entry { answer: Some(answer), .. }) => Ok(Begun::Before(answer.clone())),
            None => {
                kept.answers.insert(name.clone(), Entry { hash, answer: None });
                kept.order.push_back((now, name.clone()));
                Ok(Begun::New(Ticket { answers: self.clone(), name }))
            }
        }
    }

    /// A panic elsewhere can't leave it half changed in a way that matters: an answer is forgotten at worst.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn forget(&mut self, now: Instant) {
        let too_old = |at: &Instant| now.saturating_duration_since(*at) > KEEP;
        while self.order.len() >= MOST || self.order.front().is_some_and(|(at, _)| too_old(at)) {
            let Some((_, name)) = self.order.pop_front() else { return };
            self.answers.remove(&name);
        }
    }
}

impl Ticket {
    /// The command was answered so. One that this pod had no room for may be sent again.
    pub fn answered(self, answer: &Answer) {
        let not_done = answer.as_ref().is_err_and(|error| error.body.error == "overloaded");
        let mut kept = self.answers.kept();
        if not_done {
            kept.answers.remove(&self.name);
        } else if let Some(entry) = kept.answers.get_mut(&self.name) {
            entry.answer = Some(answer.clone());
        }
    }
}

impl ApiError {
    fn key_reused() -> Self {
        let message =
            "this Idempotency-Key was sent with another body before; use a key for one command only";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", message).about(KEY.as_str())
    }

    fn key_in_use() -> Self {
        let message =
            "the command with this Idempotency-Key is still being carried out; send it again in a second";
        let refused = Self::new(StatusCode::CONFLICT, "idempotency_key_in_use", message).about(KEY.as_str());
        Self { retry_after: Some(1), ..refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::calls::tests::INSTANCE;

    fn call(serial: u64) -> CallId {
        CallId { instance: INSTANCE, shard: 0, serial }
    }

    fn begin(
        answers: &Answers,
        call: CallId,
        key: &'static str,
        body: &str,
        now: Instant,
    ) -> Result<Begun, ApiError> {
        answers.begin(call, &HeaderValue::from_static(key), body.as_bytes(), now)
    }

    fn new(begun: Result<Begun, ApiError>) -> Ticket {
        match begun {
            Ok(Begun::New(ticket)) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_command_is_carried_out_once_and_answered_as_often_as_it_is_sent() {
        let (answers, now) = (Answers::default(), Instant::now());
        let ticket = new(begin(&answers, call(1), "k", "a", now));
        assert_eq!(begin(&answers, call(1), "k", "a", now).unwrap_err().status, 409);
        ticket.answered(&Ok(()));
        assert!(matches!(begin(&answers, call(1), "k", "a", now), Ok(Begun::Before(Ok(())))));
        assert_eq!(begin(&answers, call(1), "k", "b", now).unwrap_err().status, 422);
        new(begin(&answers, call(2), "k", "b", now));
        new(begin(&answers, call(1), "l", "b", now));
    }

    #[test]
    fn what_there_was_no_room_for_may_be_sent_again() {
        let (answers, now) = (Answers::default(), Instant::now());
        let full = crate::gateway::control::ControlError::Overloaded;
        new(begin(&answers, call(1), "k", "a", now)).answered(&Err(full.into()));
        new(begin(&answers, call(1), "k", "a", now)).answered(&Err(ApiError::too_large(1)));
        assert!(matches!(begin(&answers, call(1), "k", "a", now), Ok(Begun::Before(Err(_)))));
    }

    #[test]
    fn answers_are_kept_for_a_while_and_only_so_many() {
        let (answers, now) = (Answers::default(), Instant::now());
        new(begin(&answers, call(0), "k", "a", now)).answered(&Ok(()));
        new(begin(&answers, call(0), "k", "a", now + KEEP + Duration::from_secs(1)));
        for serial in 0..2 * MOST as u64 {
            let _ = begin(&answers, call(serial), "k", "a", now);
        }
        let kept = answers.kept();
        assert!(kept.answers.len() <= MOST && kept.order.len() <= MOST);
    }
}
