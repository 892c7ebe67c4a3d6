//! What a gateway makes of a head: follow it, or not.
//!
//! Promise: a gateway never goes back, and two contents never share a generation.

use crate::routing::ack::Held;

/// What a head is to a gateway that holds a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Weighed {
    /// It is the table that is held.
    Held,
    /// It is newer: fetch what it names.
    Newer,
    /// It is older: only another head helps.
    Older,
    /// It is another table under the generation that is held: only another head helps.
    Ambiguous,
}

/// Compares a head with the table that is held.
pub fn weigh(held: Option<&Held>, generation: i64, hash: &str) -> Weighed {
    let Some(held) = held else { return Weighed::Newer };
    match generation.cmp(&held.generation) {
        std::cmp::Ordering::Less => Weighed::Older,
        std::cmp::Ordering::Greater => Weighed::Newer,
        std::cmp::Ordering::Equal if held.hash == hash => Weighed::Held,
        std::cmp::Ordering::Equal => Weighed::Ambiguous,
    }
}
