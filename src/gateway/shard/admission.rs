//! Whether a call is let in: over which trunk it comes, by its source address and by what its caller knows, and who answers
//! the number that it calls.

use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Shard;
use crate::gateway::lines::Taken;
use crate::gateway::snapshot::{Credential, Snapshot};
use crate::routing::decide::{Answer, AnswerRefusal};
use crate::routing::table::{CredentialId, Limits, ObjectKey, TrunkEntry};
use crate::sip::challenger::{Challenger, Judged};
use crate::sip::event::IncomingCall;
use crate::sip::rate::Sources;

/// Seconds after which a caller may try again who can't be let in, or asked for a proof, now.
const RETRY_AFTER: &str = "5";

/// Wrong passwords from one source: so many at once, and one a second.
const GUESSES: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
const GUESSES_PER_SECOND: NonZeroU32 = NonZeroU32::MIN;

/// What all shards know of callers who must prove who they are.
pub(in crate::gateway) struct Callers {
    challenger: Mutex<Challenger>,
    guesses: Mutex<Sources>,
    started: Instant,
}

impl Callers {
    pub(in crate::gateway) fn new(realm: String) -> Self {
        Self {
            challenger: Mutex::new(Challenger::new(realm, rand::random())),
            guesses: Mutex::new(Sources::new(GUESSES_PER_SECOND, GUESSES, rand::random())),
            started: Instant::now(),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A panic elsewhere can't leave these half changed in a way that lets anybody in.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a call is not let in.
pub(super) struct NotAdmitted {
    pub(super) code: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    /// For the counter of refused calls, and a sentence for the log; none for a challenge: the call comes again.
    pub(super) why: Option<(&'static str, String)>,
}

impl NotAdmitted {
    pub(super) fn new(code: u16, label: &'static str, why: impl ToString) -> Self {
        Self { code, headers: Vec::new(), why: Some((label, why.to_string())) }
    }

    /// It may come again in a while.
    fn for_now(label: &'static str, why: String) -> Self {
        let headers = vec![("Retry-After", RETRY_AFTER.to_owned())];
        Self { headers, ..Self::new(503, label, why) }
    }

    /// The login is gone that callers would be asked for.
    fn without_login(trunk: &ObjectKey) -> Self {
        let why = format!("trunk {trunk} authenticates callers, but its credentialsSecretRef is missing");
        Self::for_now("unauthorized", why)
    }
}

impl From<AnswerRefusal> for NotAdmitted {
    fn from(refusal: AnswerRefusal) -> Self {
        match &refusal {
            AnswerRefusal::UnknownSource(_) => Self::new(403, "unknown-source", refusal),
            AnswerRefusal::UnknownNumber(_) => Self::new(404, "unknown-number", refusal),
        }
    }
}

impl Shard {
    /// Who answers a call, if it is let in, and its place among those of its trunk where they are counted.
    pub(super) fn admit(
        &self,
        incoming: &IncomingCall,
        snapshot: &Snapshot,
    ) -> Result<(Answer, Option<Taken>), NotAdmitted> {
        let answer = self.who_answers(incoming, snapshot)?;
        let limits = answer.limits();
        if limits == Limits::default() {
            return Ok((answer, None));
        }
        match self.shared.arrivals.take(answer.trunk(), limits, Instant::now()) {
            Ok(place) => Ok((answer, Some(place))),
            Err(limit) => {
                let why = format!("trunk {}: {}", answer.trunk(), limit.inbound());
                Err(NotAdmitted::for_now("trunk-limit", why))
            }
        }
    }

    fn who_answers(&self, incoming: &IncomingCall, snapshot: &Snapshot) -> Result<Answer, NotAdmitted> {
        let (index, source) = (&snapshot.index, incoming.flow.peer.ip());
        match dialled(incoming, |called| index.who_answers(source, called)) {
            Ok(answer) => match answer.proof() {
                None => Ok(answer),
                Some(Some(credential)) => {
                    self.proven(incoming, snapshot, [((), credential)]).map(|()| answer)
                }
                Some(None) => Err(NotAdmitted::without_login(answer.trunk())),
            },
            Err(AnswerRefusal::UnknownSource(_)) if index.by_digest().next().is_some() => {
                let logins = index.by_digest().filter_map(|(trunk, credential)| Some((trunk, credential?)));
                let trunk = self.proven(incoming, snapshot, logins)?;
                Ok(dialled(incoming, |called| index.who_answers_over(trunk, called))?)
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Whether a call is let in over this trunk, whatever it wants: it comes in the place of a leg that the trunk carries.
    pub(super) fn admit_over(
        &self,
        incoming: &IncomingCall,
        snapshot: &Snapshot,
        key: &ObjectKey,
        trunk: &TrunkEntry,
    ) -> Result<(), NotAdmitted> {
        let from_anywhere = trunk.authenticates && trunk.allowed_sources.is_empty();
        if !from_anywhere && !trunk.admits(incoming.flow.peer.ip()) {
            let why = format!("its source is not in inbound.allowedSources of trunk {key}");
            return Err(NotAdmitted::new(403, "may-not-replace", why));
        }
        match &trunk.credential {
            _ if !trunk.authenticates => Ok(()),
            Some(credential) => self.proven(incoming, snapshot, [((), credential)]),
            None => Err(NotAdmitted::without_login(key)),
        }
    }

    /// Which of the logins a caller has proven to know.
    fn proven<'a, T>(
        &self,
        incoming: &IncomingCall,
        snapshot: &'a Snapshot,
        logins: impl IntoIterator<Item = (T, &'a CredentialId)>,
    ) -> Result<T, NotAdmitted> {
        let callers = &self.shared.callers;
        let (source, now) = (incoming.flow.peer.ip(), callers.now());
        if !incoming.authorization.is_empty() && !locked(&callers.guesses).has_room(source, now) {
            let why = "its source has tried too many wrong passwords; wait a while";
            return Err(NotAdmitted::new(403, "unauthorized", why));
        }
        let logins = logins.into_iter().filter_map(|(login, id)| match snapshot.credentials.get(id)? {
            Credential::Login { username, password } => Some((login, &**username, &**password)),
            Credential::Signing { .. } | Credential::Certificate { .. } | Credential::Authorities { .. } => {
                None
            }
        });
        let mut challenger = locked(&callers.challenger);
        let (stale, why) = match challenger.judge(&incoming.authorization, "INVITE", logins, now) {
            Judged::Proven(login) => return Ok(login),
            Judged::Unanswered { stale } => (stale, None),
            Judged::Wrong => {
                let _ = locked(&callers.guesses).take(source, now);
                let why = "user name or password is wrong; compare the caller's with its trunk's credentialsSecretRef";
                (false, Some(("unauthorized", why.to_owned())))
            }
        };
        Err(NotAdmitted { code: 401, headers: challenger.challenges(stale, now), why })
    }
}

/// Asks about the number that was dialled. A registrar sends a call to the Contact that we registered, whose user is that of
/// the registration: then what was dialled stands in To.
fn dialled(
    incoming: &IncomingCall,
    ask: impl Fn(&str) -> Result<Answer, AnswerRefusal>,
) -> Result<Answer, AnswerRefusal> {
    ask(&incoming.called).or_else(|refusal| match refusal {
        AnswerRefusal::UnknownNumber(_) if incoming.to.user != incoming.called => {
            ask(&incoming.to.user).map_err(|_| refusal)
        }
        refusal => Err(refusal),
    })
}
