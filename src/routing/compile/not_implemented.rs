//! Fields that are in the schema but whose behaviour this version does not have. An object that sets one is not accepted,
//! and its status names all of them: nothing is silently ignored.
//!
//! To make a field live, remove its line here.

use crate::resources::assistant::AssistantSpec;
use crate::resources::conditions::reason;

use super::Kind;
use super::verdict::Problems;
use crate::routing::table::ObjectKey;

/// A field without behaviour.
pub(super) struct Gap<S> {
    /// As the manifest writes it, with the value where only that one is missing.
    field: &'static str,
    /// What to do instead.
    remedy: &'static str,
    is_set: fn(&S) -> bool,
}

#[rustfmt::skip]
pub(super) const ASSISTANT: &[Gap<AssistantSpec>] = &[
    Gap { field: "events", remedy: "remove it", is_set: |spec| spec.events.is_some() },
];

/// Names every field of `gaps` that the spec sets, in one sentence.
pub(super) fn check<S>(gaps: &[Gap<S>], kind: Kind, key: &ObjectKey, spec: &S) -> Problems {
    let set: Vec<String> = gaps
        .iter()
        .filter(|gap| (gap.is_set)(spec))
        .map(|gap| format!("{} ({})", gap.field, gap.remedy))
        .collect();
    let mut problems = Problems::default();
    if !set.is_empty() {
        let sentence = format!("{kind} {key} sets what this version does not have: {}.", set.join(", "));
        problems.add(reason::NOT_IMPLEMENTED, sentence);
    }
    problems
}

/// The name of every field, for tests.
#[cfg(test)]
pub(super) fn fields() -> Vec<&'static str> {
    ASSISTANT.iter().map(|gap| gap.field).collect()
}
