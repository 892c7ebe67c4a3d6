//! What is wrong with an object, collected while it is checked, and the sentence that its condition says.

use std::fmt;

use crate::resources::conditions::{ConditionStatus, reason};
use crate::routing::table::ObjectKey;

use super::{Finding, Kind};

/// Problems that are named in one message; more are counted.
const MAX_SENTENCES: usize = 10;

/// Problems of one condition in the order in which they were found: that of the spec's fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::routing) struct Problems(Vec<(&'static str, String)>);

impl Problems {
    /// Adds a problem: a constant of [`reason`], and a sentence that names the object and the remedy.
    pub(in crate::routing) fn add(&mut self, reason: &'static str, sentence: impl Into<String>) {
        self.0.push((reason, sentence.into()));
    }

    /// Adds the problem of a field that can't be read.
    pub(in crate::routing) fn invalid(&mut self, sentence: impl Into<String>) {
        self.add(reason::INVALID, sentence);
    }

    pub(in crate::routing) fn extend(&mut self, others: Problems) {
        self.0.extend(others.0);
    }

    pub(in crate::routing) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a check that may fail; its problems are kept here.
    pub(in crate::routing) fn take<T>(&mut self, checked: Result<T, Problems>) -> Option<T> {
        checked.map_err(|problems| self.extend(problems)).ok()
    }

    /// The condition: it holds when there are no problems, else it has the reason of the first.
    pub(in crate::routing) fn finding(&self, good: &'static str, good_message: &str) -> Finding {
        let Some((first, _)) = self.0.first() else {
            return Finding { status: ConditionStatus::True, reason: good, message: good_message.to_owned() };
        };
        let sentences: Vec<&str> =
            self.0.iter().take(MAX_SENTENCES).map(|(_, sentence)| sentence.as_str()).collect();
        let mut message = sentences.join(" ");
        if self.0.len() > MAX_SENTENCES {
            message.push_str(&format!(" And {} more.", self.0.len() - MAX_SENTENCES));
        }
        Finding::not_yet(first, message)
    }
}

/// One problem.
pub(in crate::routing) fn problem(reason: &'static str, sentence: impl Into<String>) -> Problems {
    let mut problems = Problems::default();
    problems.add(reason, sentence);
    problems
}

/// An object that was checked: what its conditions say, and what it is good for if it is good for anything.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::routing) struct Checked<T> {
    /// Problems of `Accepted`.
    pub accepted: Problems,
    /// Problems of `ResolvedRefs`.
    pub resolved: Problems,
    /// The validated object; absent when nothing may use it.
    pub usable: Option<T>,
}

impl<T> Checked<T> {
    pub(in crate::routing) fn is_accepted(&self) -> bool {
        self.accepted.is_empty()
    }

    /// What it is good for, as a part of an object whose problems these are.
    pub(in crate::routing) fn within(self, accepted: &mut Problems, resolved: &mut Problems) -> Option<T> {
        accepted.extend(self.accepted);
        resolved.extend(self.resolved);
        self.usable
    }
}

/// How a reference fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::routing) enum Failure {
    /// It does not exist.
    Missing,
    /// Its grant doesn't let this namespace refer to it, or it is in another namespace and does not exist.
    Forbidden,
    /// It was not accepted.
    Refused,
    /// It was accepted, but what it needs itself is missing.
    Unusable,
}

impl Failure {
    /// The problem of `field`, which names `target`. The sentence of [`Failure::Forbidden`] is the same whether the
    /// target exists or not.
    pub(in crate::routing) fn of(self, field: &str, kind: Kind, target: &ObjectKey) -> Problems {
        match self {
            Self::Missing => problem(
                reason::REF_NOT_FOUND,
                format!(
                    "{field} names {kind} {target}, which does not exist; create it or correct the name."
                ),
            ),
            Self::Forbidden => problem(
                reason::REF_NOT_PERMITTED,
                format!(
                    "{field} names {kind} {target}, which may not be referred to from this namespace; correct the \
                     reference, or have its owner let this namespace in with allowedNamespaces."
                ),
            ),
            Self::Refused => problem(
                reason::REF_NOT_ACCEPTED,
                format!("{field} names {kind} {target}, which was not accepted; see its condition Accepted."),
            ),
            Self::Unusable => problem(
                reason::REF_NOT_ACCEPTED,
                format!(
                    "{field} names {kind} {target}, which can't be used now; see its condition ResolvedRefs."
                ),
            ),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Assistant => "Assistant",
            Self::PhoneNumber => "PhoneNumber",
            Self::SipGateway => "SipGateway",
            Self::SipTrunk => "SipTrunk",
            Self::TransferDestination => "TransferDestination",
        })
    }
}
