//! Calls to the API server that end: every one has a time-out, and every write ends with the leader's term.
//!
//! The client retries 429, 503 and 504 for minutes and reads have no time-out of their own; without a bound here one hung
//! call would hold up the table. Errors of calls that carry Secrets show a code and a reason, never the server's text.

use std::future::Future;
use std::time::Duration;

use super::leader::Term;

/// Longest that a read or a write of one object may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The field manager of everything that the operator writes.
pub const FIELD_MANAGER: &str = "voicedock-operator";

/// Why a call came to nothing. Each message says what was tried.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No answer in time.
    #[error("{what}: no answer from the API server within {} s; it is tried again", CALL_TIMEOUT.as_secs())]
    TimedOut {
        /// What was tried.
        what: String,
    },
    /// The API server, or the way to it, said no.
    #[error("{what}: {source}")]
    Failed {
        /// What was tried.
        what: String,
        /// What it said.
        #[source]
        source: kube::Error,
    },
    /// A call that carries Secret values failed; what the server said is left out.
    #[error("{what}: the API server said {reason}")]
    FailedSecret {
        /// What was tried.
        what: String,
        /// Code and reason of the answer.
        reason: String,
        /// A 409.
        conflict: bool,
    },
    /// The operator lost its lease before the call ended; the new leader does what is left.
    #[error("{what}: given up, because this replica is no longer the leader")]
    NotLeader {
        /// What was tried.
        what: String,
    },
}

impl ApiError {
    /// The object was changed by somebody else since it was read.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Failed { source: kube::Error::Api(status), .. } => status.is_conflict(),
            Self::FailedSecret { conflict, .. } => *conflict,
            _ => false,
        }
    }

    /// The object is another one by now, or not there, or there already: the call changed nothing and never will.
    pub fn is_superseded(&self) -> bool {
        self.is_conflict() || self.is_not_found() || self.is_already_exists()
    }

    /// The object, or its namespace, is gone.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Failed { source: kube::Error::Api(status), .. } if status.is_not_found())
    }

    /// An object of this name is there already.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::Failed { source: kube::Error::Api(status), .. } if status.is_already_exists())
    }
}

/// Makes a read, in bounded time.
pub async fn read<T>(
    what: impl Into<String>,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    let what = what.into();
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(ApiError::Failed { what, source }),
        Err(_) => Err(ApiError::TimedOut { what }),
    }
}

/// Makes a write as the leader, in bounded time: not begun, and no longer waited for, once `term` has ended.
pub async fn write<T>(
    term: &Term,
    what: impl Into<String>,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    let what = what.into();
    if !term.holds() {
        return Err(ApiError::NotLeader { what });
    }
    tokio::select! {
        biased;
        () = term.ended() => Err(ApiError::NotLeader { what }),
        done = read(what.clone(), call) => done,
    }
}

/// Takes the server's text out of an error of a call that carried Secret values.
pub fn redact(error: ApiError) -> ApiError {
    match error {
        ApiError::Failed { what, source: kube::Error::Api(status) } => ApiError::FailedSecret {
            what,
            conflict: status.is_conflict(),
            reason: format!("{} {}", status.code, status.reason),
        },
        ApiError::Failed { what, source: _ } => {
            ApiError::FailedSecret { what, conflict: false, reason: "nothing that can be read".to_owned() }
        }
        other => other,
    }
}
