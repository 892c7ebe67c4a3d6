//! CANCELs that this pod has no INVITE for and has asked the other pods about, until one answers or time is up.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long an answer is awaited: less than the half second after which the CANCEL is sent again.
pub(super) const ANSWER_TIME: Duration = Duration::from_millis(400);
/// Open questions at the same time; CANCELs beyond are refused at once.
const MOST_OPEN: usize = 4096;

/// The branches of open questions, as [`crate::sip::proxy`] makes them: the same for a repetition.
#[derive(Debug, Default)]
pub(super) struct Questions(Mutex<HashSet<Box<[u8]>>>);

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is open from now on.
    Now,
    /// It was open already.
    Before,
    /// There are too many.
    TooMany,
}

impl Questions {
    /// Opens a question.
    pub(super) fn ask(&self, branch: &[u8]) -> Asked {
        let mut open = self.locked();
        if open.contains(branch) {
            return Asked::Before;
        }
        if open.len() >= MOST_OPEN {
            return Asked::TooMany;
        }
        open.insert(branch.into());
        Asked::Now
    }

    /// Closes a question, which was answered or is given up. False if it was closed before.
    pub(super) fn close(&self, branch: &[u8]) -> bool {
        self.locked().remove(branch)
    }

    /// A panic elsewhere can't leave the set half changed: each change is one insert or one remove.
    fn locked(&self) -> MutexGuard<'_, HashSet<Box<[u8]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_open_once_and_closed_once_and_not_too_many_are_open() {
        let questions = Questions::default();
        assert_eq!(questions.ask(b"a"), Asked::Now);
        assert_eq!(questions.ask(b"a"), Asked::Before);
        assert!(questions.close(b"a"));
        assert!(!questions.close(b"a"));
        for number in 0..MOST_OPEN {
            assert_eq!(questions.ask(&number.to_be_bytes()), Asked::Now);
        }
        assert_eq!(questions.ask(b"a"), Asked::TooMany);
    }
}
