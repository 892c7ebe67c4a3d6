//! Slices → table: every hash is verified, and a table that follows another costs what is different in its slices.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::hash::Hash;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Error};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{canonical, hash_of};
use crate::routing::table::{Entries, Table};

/// Why slices don't make a table.
#[derive(Debug, thiserror::Error)]
pub enum SliceError {
    /// The content is not what the head says.
    #[error(
        "slice {part} has hash {found} where the head says {expected}; the operator will publish it again"
    )]
    WrongHash {
        /// Which slice.
        part: String,
        /// Hash that the head names.
        expected: String,
        /// Hash of the content.
        found: String,
    },
    /// The content can't be read.
    #[error("slice {part} can't be read: {source}; is the gateway older than the operator?")]
    Unreadable {
        /// Which slice.
        part: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Two slices hold the same entry: they are not of one generation.
    #[error(
        "slice {part} holds {key}, which another slice holds too; the operator will publish the table again"
    )]
    Overlap {
        /// Which slice.
        part: String,
        /// The entry's key.
        key: String,
    },
}

/// The rows of one slice as texts. An unknown map is an error, not silence: a gateway older than its operator keeps its table
/// and says so.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fragment<'a> {
    #[serde(default, borrow)]
    numbers: Rows<'a>,
    #[serde(default, borrow)]
    assistants: Rows<'a>,
    #[serde(default, borrow)]
    destinations: Rows<'a>,
    #[serde(default, borrow)]
    trunks: Rows<'a>,
}

type Rows<'a> = BTreeMap<String, &'a RawValue>;

/// Puts a table together from `(part, expected hash, content)`, in any order; every hash is verified. Whether the slices
/// are all slices of the table is the head's to say: compare [`super::table_hash`].
pub fn join<'a>(
    slices: impl IntoIterator<Item = (&'a str, &'a str, &'a Value)>,
) -> Result<Table, SliceError> {
    let slices: Vec<_> =
        slices.into_iter().map(|(part, hash, content)| (part, hash, canonical(content))).collect();
    let mut table = Table::default();
    replace(&mut table, [], slices.iter().map(|(part, hash, content)| (*part, *hash, &**content)))?;
    Ok(table)
}

/// Replaces slices of a table, `(part, content)`, by others, `(part, expected hash, content)`. Contents are canonical JSON; the
/// hashes of the new ones are verified. A row that is in both costs a comparison. After an error the table is of no use.
pub fn replace<'a>(
    table: &mut Table,
    gone: impl IntoIterator<Item = (&'a str, &'a str)>,
    come: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>,
) -> Result<(), SliceError> {
    let gone: Vec<_> =
        gone.into_iter().map(|(part, content)| fragment(part, content)).collect::<Result<_, _>>()?;
    let mut new = Vec::new();
    for (part, expected, content) in come {
        let found = hash_of([content.as_bytes()]);
        if found != expected {
            return Err(SliceError::WrongHash {
                part: part.to_owned(),
                expected: expected.to_owned(),
                found,
            });
        }
        new.push((part, fragment(part, content)?));
    }
    replace_rows(&mut table.numbers, &gone, &new, |fragment| &fragment.numbers)?;
    replace_rows(&mut table.assistants, &gone, &new, |fragment| &fragment.assistants)?;
    replace_rows(&mut table.destinations, &gone, &new, |fragment| &fragment.destinations)?;
    replace_rows(&mut table.trunks, &gone, &new, |fragment| &fragment.trunks)
}

fn fragment<'a>(part: &str, content: &'a str) -> Result<Fragment<'a>, SliceError> {
    serde_json::from_str(content).map_err(|source| SliceError::Unreadable { part: part.to_owned(), source })
}

fn replace_rows<'a, K, V>(
    entries: &mut Entries<K, V>,
    gone: &'a [Fragment<'a>],
    come: &[(&str, Fragment<'a>)],
    rows: impl for<'f> Fn(&'f Fragment<'a>) -> &'f Rows<'a>,
) -> Result<(), SliceError>
where
    K: Ord + Hash + Clone + FromStr<Err: Display>,
    V: DeserializeOwned,
{
    let mut old: HashMap<&str, &str> =
        gone.iter().flat_map(&rows).map(|(key, row)| (&**key, row.get())).collect();
    for (part, fragment) in come {
        let unreadable = |source| SliceError::Unreadable { part: (*part).to_owned(), source };
        for (text, row) in rows(fragment) {
            let before = old.remove(&**text);
            if before == Some(row.get()) {
                continue;
            }
            let key = K::from_str(text).map_err(|why| unreadable(serde_json::Error::custom(why)))?;
            if before.is_none() && entries.contains_key(&key) {
                return Err(SliceError::Overlap { part: (*part).to_owned(), key: text.clone() });
            }
            entries.insert(key, Arc::new(serde_json::from_str(row.get()).map_err(unreadable)?));
        }
    }
    // What was read once can be read again.
    old.into_keys().filter_map(|key| K::from_str(key).ok()).for_each(|key| drop(entries.remove(&key)));
    Ok(())
}
