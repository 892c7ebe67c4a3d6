//! What a gateway routes by at one moment: one generation of the table with the credentials that it names, in one piece.
//!
//! [`Parts`] is a generation as it is fetched and kept on disk; [`Parts::assemble`] verifies it whole and makes the
//! [`Snapshot`] that calls use. A switch replaces table and credentials together, so that no call ever sees a mixture of
//! two generations.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::routing::decide::Index;
use crate::routing::slice::{self, SliceError};
use crate::routing::table::{CredentialId, ObjectKey, Table};

/// One generation of the table, ready for look-ups, with the credentials that it names and no others.
pub struct Snapshot {
    /// `RoutingTable.spec.generation`; 0 before the first table.
    pub generation: i64,
    /// `RoutingTable.spec.hash`.
    pub hash: String,
    /// The table.
    pub index: Index,
    /// Every credential that the table names.
    pub credentials: HashMap<CredentialId, Credential>,
}

/// One value of the credentials Secret. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Credential {
    /// For signatures. Read before a login, which its value can be read as too.
    Signing {
        /// The secret.
        secret: String,
    },
    /// For digest authentication.
    Login {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// What is shown over TLS.
    Certificate {
        /// The certificate and those between it and its authority, PEM.
        certificate: String,
        /// Its private key, PEM.
        key: String,
    },
    /// Who is trusted over TLS.
    Authorities {
        /// Their certificates, PEM.
        authorities: String,
    },
}

/// One generation as it was fetched: not verified yet.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// `RoutingTable.spec.generation`.
    pub generation: i64,
    /// `RoutingTable.spec.hash`.
    pub hash: String,
    /// The slices in the head's order.
    pub slices: Vec<Piece>,
    /// Credentials; those that the table doesn't name are left out of the snapshot.
    pub credentials: BTreeMap<CredentialId, Credential>,
}

/// One slice as text: a tenth of the memory that it takes as a tree.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Name of its RoutingSlice.
    pub name: String,
    /// The hash that the head names.
    pub hash: String,
    /// The content, in canonical JSON.
    pub content: Arc<RawValue>,
}

/// Why parts are not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A slice is not what the head says.
    #[error(transparent)]
    Slice(#[from] SliceError),
    /// The slices are not those of the head.
    #[error(
        "the slices have the table hash {found} where the head says {expected}; the operator will publish the table again"
    )]
    WrongTableHash {
        /// The head's.
        expected: String,
        /// That of the slices.
        found: String,
    },
    /// Credentials that the table names are not there.
    #[error(
        "the credentials {credential} of {kind} {key} are not in the gateway's credentials Secret; the operator will publish them again"
    )]
    MissingCredential {
        /// Their version.
        credential: String,
        /// Whose they are: a trunk's or an assistant's.
        kind: &'static str,
        /// That one's key.
        key: ObjectKey,
    },
}

impl Snapshot {
    /// No table yet: routes nothing.
    pub fn none() -> Self {
        Self {
            generation: 0,
            hash: String::new(),
            index: Index::new(Arc::new(Table::default())),
            credentials: HashMap::new(),
        }
    }
}

impl Parts {
    /// The table, the hashes of its slices and its own verified. `held` are the parts of a table `before`, verified: what
    /// these have in common isn't read again, so that it takes time in proportion to what is new.
    pub fn table(&self, held: &Parts, before: &Table) -> Result<Table, SnapshotError> {
        let old: HashSet<&str> = held.slices.iter().map(|piece| &*piece.hash).collect();
        let new: HashSet<&str> = self.slices.iter().map(|piece| &*piece.hash).collect();
        let gone = held.slices.iter().filter(|piece| !new.contains(&*piece.hash));
        let come = self.slices.iter().filter(|piece| !old.contains(&*piece.hash));
        let mut table = before.clone();
        slice::replace(
            &mut table,
            gone.map(|piece| (&*piece.name, piece.content.get())),
            come.map(|piece| (&*piece.name, &*piece.hash, piece.content.get())),
        )?;
        let found = slice::table_hash(self.slices.iter().map(|piece| &*piece.hash));
        if found == self.hash {
            Ok(table)
        } else {
            Err(SnapshotError::WrongTableHash { expected: self.hash.clone(), found })
        }
    }

    /// Keeps the credentials that `table`, which is [`Self::table`], names, and no others; all of them have to be there.
    pub fn keep_named(&mut self, table: &Table) -> Result<(), SnapshotError> {
        let mut named = BTreeMap::new();
        for (kind, key, id) in table.credentials() {
            let credential = self.credentials.get(id).ok_or_else(|| SnapshotError::MissingCredential {
                credential: id.0.clone(),
                kind,
                key: key.clone(),
            })?;
            named.insert(id.clone(), credential.clone());
        }
        self.credentials = named;
        Ok(())
    }

    /// Makes `table`, which is [`Self::table`], ready for look-ups; `before` is the table before.
    pub fn snapshot(&self, table: Table, before: &Snapshot) -> Snapshot {
        Snapshot {
            generation: self.generation,
            hash: self.hash.clone(),
            index: before.index.follow(Arc::new(table)),
            credentials: self
                .credentials
                .iter()
                .map(|(id, credential)| (id.clone(), credential.clone()))
                .collect(),
        }
    }

    /// All of it: verifies, drops what isn't named, and makes the table ready for look-ups.
    pub fn assemble(mut self) -> Result<(Self, Snapshot), SnapshotError> {
        let table = self.table(&Parts::default(), &Table::default())?;
        self.keep_named(&table)?;
        let snapshot = self.snapshot(table, &Snapshot::none());
        Ok((self, snapshot))
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("generation", &self.generation)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::routing::table::{NumberEntry, TrunkEntry};

    /// A table with these numbers, as a gateway fetches it.
    pub(crate) fn parts(generation: i64, numbers: &[&str]) -> Parts {
        of_table(generation, &table(numbers))
    }

    /// The same with one trunk whose credentials have the version `version`.
    pub(crate) fn parts_with_login(generation: i64, version: &str, password: &str) -> Parts {
        let mut table = table(&["+31201234567"]);
        let id = CredentialId(version.to_owned());
        let trunk = serde_json::json!({
            "host": "pbx.example.com", "transport": "UDP", "credential": version, "numberFormat": "e164",
            "callerIdHeader": "PAI", "allowedNamespaces": ["acme"],
        });
        let trunk: TrunkEntry = serde_json::from_value(trunk).unwrap();
        table.trunks.insert(ObjectKey::new("acme", "office-pbx"), Arc::new(trunk));
        let mut parts = of_table(generation, &table);
        let login = Credential::Login { username: "acme".to_owned(), password: password.to_owned() };
        parts.credentials.insert(id, login);
        parts
    }

    fn table(numbers: &[&str]) -> Table {
        let mut table = Table::default();
        for number in numbers {
            let object = format!("acme/{}", number.trim_start_matches('+'));
            let entry: NumberEntry = serde_json::from_value(serde_json::json!({ "object": object })).unwrap();
            table.numbers.insert(number.parse().unwrap(), Arc::new(entry));
        }
        table
    }

    fn of_table(generation: i64, table: &Table) -> Parts {
        let slices = slice::cut(table);
        Parts {
            generation,
            hash: slice::table_hash(slices.iter().map(|slice| &*slice.hash)),
            slices: (slices.into_iter())
                .map(|slice| Piece {
                    name: format!("gateway-{}-{}", slice.part, slice.hash),
                    hash: slice.hash,
                    content: serde_json::value::to_raw_value(&slice.content).unwrap().into(),
                })
                .collect(),
            credentials: BTreeMap::new(),
        }
    }

    #[test]
    fn a_generation_is_verified_whole() {
        let (_, snapshot) = parts(3, &["+31201234567", "+31201234568"]).assemble().unwrap();
        assert_eq!(snapshot.generation, 3);
        assert_eq!(snapshot.index.table().numbers.len(), 2);
    }

    #[test]
    fn the_next_generation_is_the_same_whether_or_not_the_one_before_is_held() {
        let numbers: Vec<String> = (0..600).map(|number| format!("+3120{number:07}")).collect();
        let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let generations = [&numbers[..500], &numbers[3..600], &numbers[..0], &numbers[100..200]];
        let mut held = (Parts::default(), Snapshot::none());
        for (generation, numbers) in (1..).zip(generations) {
            let next = parts(generation, numbers);
            let table = next.table(&held.0, held.1.index.table()).unwrap();
            let snapshot = next.snapshot(table, &held.1);
            let (_, alone) = next.clone().assemble().unwrap();
            assert_eq!(snapshot.index.table(), alone.index.table());
            for number in &["+31200000001", "+31200000150", "+31200000599"].map(|text| text.parse().unwrap())
            {
                assert_eq!(snapshot.index.number(number), alone.index.number(number));
            }
            held = (next, snapshot);
        }
    }

    #[test]
    fn a_slice_that_holds_an_entry_of_a_slice_that_is_kept_is_refused() {
        let held = parts(1, &["+31201234567"]);
        let (_, snapshot) = held.clone().assemble().unwrap();
        let mut next = held.clone();
        next.slices.extend(parts(2, &["+31201234567", "+31201234568"]).slices);
        let refused = next.table(&held, snapshot.index.table());
        assert!(matches!(refused, Err(SnapshotError::Slice(SliceError::Overlap { .. }))));
    }

    #[test]
    fn a_slice_of_another_table_is_refused() {
        let mut mixed = parts(3, &["+31201234567"]);
        mixed.slices[0].content = parts(2, &["+31201234568"]).slices.remove(0).content;
        assert!(matches!(mixed.assemble(), Err(SnapshotError::Slice(SliceError::WrongHash { .. }))));
        let mut mixed = parts(3, &["+31201234567"]);
        mixed.slices = parts(2, &["+31201234568"]).slices;
        assert!(matches!(mixed.assemble(), Err(SnapshotError::WrongTableHash { .. })));
        let mut short = parts(3, &["+31201234567"]);
        short.slices.clear();
        assert!(matches!(short.assemble(), Err(SnapshotError::WrongTableHash { .. })));
    }

    #[test]
    fn a_table_is_not_switched_to_without_the_credentials_that_it_names() {
        let mut parts = parts_with_login(1, "v2", "secret");
        let login = parts.credentials.remove(&CredentialId("v2".to_owned())).unwrap();
        parts.credentials.insert(CredentialId("v1".to_owned()), login);
        let error = parts.assemble().unwrap_err();
        assert!(error.to_string().contains("v2 of trunk acme/office-pbx"), "{error}");
    }

    #[test]
    fn credentials_that_the_table_does_not_name_are_dropped() {
        let mut parts = parts_with_login(1, "v2", "secret");
        let revoked = Credential::Login { username: "acme".to_owned(), password: "revoked".to_owned() };
        parts.credentials.insert(CredentialId("v1".to_owned()), revoked);
        let (parts, snapshot) = parts.assemble().unwrap();
        assert_eq!(parts.credentials.len(), 1);
        assert_eq!(snapshot.credentials.len(), 1);
        assert!(snapshot.credentials.contains_key(&CredentialId("v2".to_owned())));
    }

    #[test]
    fn a_secret_for_signatures_is_read_as_such_although_older_gateways_can_read_it_as_a_login() {
        let value = r#"{"secret":"whsec","username":"","password":""}"#;
        let read: Credential = serde_json::from_str(value).unwrap();
        assert!(matches!(&read, Credential::Signing { secret } if secret == "whsec"));
        let kept: Credential = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert!(kept == read, "as the disk copy keeps it");
        let login: Credential = serde_json::from_str(r#"{"username":"a","password":"b"}"#).unwrap();
        assert!(matches!(login, Credential::Login { .. }));
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = format!("{:?}", parts_with_login(1, "v1", "hunter2"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
