//! How one table gets from the operator to every gateway pod: the decisions, without the calls to the API server.
//!
//! [`publisher`] decides what a leader writes next (slices, then credentials, then the head) and what may be deleted;
//! [`follower`] decides what a gateway makes of a head. The drivers in `operator` and `gateway` do what these say and report
//! what came of it; the tests of this module put the same code into a small world and go through everything that can
//! happen there (crashes between any two writes, answers that are lost, writes that land late, watches that lag).
//!
//! Promises, as `docs/routing-table.md` explains them:
//!
//! 1. Atomic: a gateway routes by exactly one published generation, its credentials included.
//! 2. Forward only: generations of the head grow, also past its loss; a gateway never takes an older one.
//! 3. Convergent: once nothing changes any more, every gateway holds the compile of the last state, and the status says so.
//! 4. Truthful: what is said to be programmed is held, by that generation or a newer state.
//! 5. Fail-static: nothing here takes a table away from a gateway.
//! 6. Quiet: a table that is published already costs no write.
//! 7. Crash-safe: all that a published head names is there, at every moment; what nothing names any more is collected.
//!
//! Two rules carry 4 and 7 although a write that was sent may land at any later time, when its sender has long ceased to lead:
//!
//! - **Claimed before named.** A slice or a credential that the present head doesn't name is written (created, or touched if it
//!   is there) before a head names it. A deletion that was decided on earlier carries the version from before that, and fails.
//! - **Sealed before relied on.** A leader that says something new about what gateways hold, or deletes something, has
//!   written the head itself before, in its own term and with a known outcome. Whatever head write of an earlier leader
//!   is still under way then carries an older version, and fails. A leader that has nothing new to say writes nothing.

pub mod follower;
pub mod publisher;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::resources::routing_table::RoutingTableSpec;

use super::table::CredentialId;

/// Identity and version of an object on the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
}

/// A head as the API server has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    /// Which object, in which version.
    pub version: Version,
    /// Whether the gateway owns it, so that it goes with the gateway.
    pub owned: bool,
    /// Whether somebody is deleting it.
    pub deleting: bool,
    /// What it says.
    pub spec: Arc<RoutingTableSpec>,
}

/// The Secret of credentials as the API server has it, without the values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vault {
    /// Which object, in which version.
    pub version: Version,
    /// Whether the gateway owns it.
    pub owned: bool,
    /// The versions of credentials in it, with the sizes of their values in bytes.
    pub sizes: BTreeMap<CredentialId, usize>,
}

/// What is known of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Known<T> {
    /// It has to be read.
    #[default]
    Unknown,
    /// It isn't there.
    Absent,
    /// It is this.
    Present(T),
}

impl<T> Known<T> {
    /// What a read has found.
    pub fn found(object: Option<T>) -> Self {
        object.map_or(Self::Absent, Self::Present)
    }

    /// The object, if there is one.
    pub fn present(&self) -> Option<&T> {
        match self {
            Self::Present(object) => Some(object),
            Self::Unknown | Self::Absent => None,
        }
    }
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Written<T> {
    /// It landed, and this came of it.
    Landed(T),
    /// It was refused, because the object is another one by now: it will never land.
    Refused,
    /// Nobody knows: it may have landed, it may still land.
    Unknown,
}
