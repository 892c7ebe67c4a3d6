//! What a gateway routes by at one moment: one generation of the table with the credentials that it names, in one piece.
//!
//! A call takes the [`Snapshot`] once and keeps it for one decision; a switch replaces table and credentials together, so
//! that no call ever sees a mixture of two generations.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::routing::decide::Index;
use crate::routing::table::CredentialId;

/// One generation of the table, ready for look-ups, with the credentials that its trunks name and no others.
pub struct Snapshot {
    /// `RoutingTable.spec.generation`.
    pub generation: i64,
    /// `RoutingTable.spec.hash`.
    pub hash: String,
    /// The table.
    pub index: Index,
    /// Every credential that a trunk of the table names.
    pub credentials: HashMap<CredentialId, Login>,
}

/// User name and password of a trunk. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}
