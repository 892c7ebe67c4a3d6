//! Table ⇄ content-addressed slices.
//!
//! Each of the four maps of a [`Table`] is cut into slices such that one changed entry rewrites one of them; [`mod@cut`] says
//! where. A slice's content is a table that holds only its entries; its hash is over the content in canonical JSON (sorted
//! keys, no white space), so that it survives a round trip through the API server.
//!
//! [`cut()`] is a pure function of the table and defines the slices. [`Sliced`] is a table that is kept in them while it
//! changes.

mod cut;
mod sliced;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

pub use cut::PartName;
pub(super) use sliced::Change;
pub use sliced::{Draft, Outline, Sliced};

use self::cut::Measure;
use super::table::{
    AssistantEntry, DestinationEntry, E164, Entries, NumberEntry, ObjectKey, Table, TrunkEntry,
};

/// Size of a slice of several entries, bytes of canonical JSON, that is never exceeded: far below the 1.5 MiB of an object.
/// An entry that is larger by itself makes a slice of its own.
pub const LIMIT_BYTES: usize = 256 * 1024;

/// One slice: its part, its hash and its content.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// Which part of the table, `numbers`.
    pub part: String,
    /// See [`hash`].
    pub hash: String,
    /// The entries: `{"numbers": {…}}`, by the part.
    pub content: Value,
}

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

/// What one slice holds: a table of which every map may be absent. An unknown map is an error, not silence: a gateway
/// older than its operator keeps its table and says so.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fragment {
    #[serde(default)]
    numbers: BTreeMap<E164, Arc<NumberEntry>>,
    #[serde(default)]
    assistants: BTreeMap<ObjectKey, Arc<AssistantEntry>>,
    #[serde(default)]
    destinations: BTreeMap<ObjectKey, Arc<DestinationEntry>>,
    #[serde(default)]
    trunks: BTreeMap<ObjectKey, Arc<TrunkEntry>>,
}

/// Cuts a table into slices, ordered by part (assistants, destinations, numbers, trunks), then by key; equal tables give
/// equal slices. A slice holds at least one entry, so an empty table has none.
pub fn cut(table: &Table) -> Vec<Slice> {
    let mut slices = Vec::new();
    cut_part(PartName::Assistants, &table.assistants, &mut slices);
    cut_part(PartName::Destinations, &table.destinations, &mut slices);
    cut_part(PartName::Numbers, &table.numbers, &mut slices);
    cut_part(PartName::Trunks, &table.trunks, &mut slices);
    slices
}

/// Hash of a slice's content: the first 128 bits of the SHA-256 of its canonical JSON, 32 hexadecimal digits.
///
/// So many are enough, and a head that names thousands of slices stays small. To pass other entries off as a published
/// slice takes 2^128 attempts, and only the operator can write one. Whoever searches for two versions of an entry of his own
/// that make equal hashes (2^64 attempts, and he has to know all that shares the slice) gets gateways to keep the first.
pub fn hash(content: &Value) -> String {
    hash_of([canonical(content).as_bytes()])
}

/// The hash that the name of a RoutingSlice ends with.
pub fn hash_in(name: &str) -> &str {
    name.rsplit('-').next().unwrap_or(name)
}

/// Hash of a whole table: SHA-256, hexadecimal, over the hashes of its slices in the order of [`cut()`].
pub fn table_hash<'a>(hashes: impl IntoIterator<Item = &'a str>) -> String {
    let mut digest = Sha256::new();
    for hash in hashes {
        digest.update(hash.as_bytes());
        digest.update(b"\n");
    }
    hex(&digest.finalize())
}

/// Puts a table together from `(part, expected hash, content)`, in any order; every hash is verified. Whether the slices
/// are all slices of the table is the head's to say: compare [`table_hash`].
pub fn join<'a>(
    slices: impl IntoIterator<Item = (&'a str, &'a str, &'a Value)>,
) -> Result<Table, SliceError> {
    let mut table = Table::default();
    for (part, expected, content) in slices {
        add(&mut table, part, expected, content)?;
    }
    Ok(table)
}

/// Adds the entries of one slice to a table; the hash is verified.
pub fn add(table: &mut Table, part: &str, expected: &str, content: &Value) -> Result<(), SliceError> {
    let found = hash(content);
    if found != expected {
        return Err(SliceError::WrongHash { part: part.to_owned(), expected: expected.to_owned(), found });
    }
    let fragment = fragment(part, content)?;
    merge(part, &mut table.numbers, fragment.numbers)?;
    merge(part, &mut table.assistants, fragment.assistants)?;
    merge(part, &mut table.destinations, fragment.destinations)?;
    merge(part, &mut table.trunks, fragment.trunks)
}

/// Takes the entries of one slice, which was added before, out of a table.
pub fn take(table: &mut Table, part: &str, content: &Value) -> Result<(), SliceError> {
    let fragment = fragment(part, content)?;
    fragment.numbers.keys().for_each(|key| drop(table.numbers.remove(key)));
    fragment.assistants.keys().for_each(|key| drop(table.assistants.remove(key)));
    fragment.destinations.keys().for_each(|key| drop(table.destinations.remove(key)));
    fragment.trunks.keys().for_each(|key| drop(table.trunks.remove(key)));
    Ok(())
}

fn fragment(part: &str, content: &Value) -> Result<Fragment, SliceError> {
    Fragment::deserialize(content).map_err(|source| SliceError::Unreadable { part: part.to_owned(), source })
}

fn merge<K: Ord + Clone + Display, V>(
    part: &str,
    into: &mut Entries<K, V>,
    from: BTreeMap<K, Arc<V>>,
) -> Result<(), SliceError> {
    for (key, entry) in from {
        if into.contains_key(&key) {
            return Err(SliceError::Overlap { part: part.to_owned(), key: key.to_string() });
        }
        into.insert(key, entry);
    }
    Ok(())
}

fn cut_part<K: Ord + Display, V: Serialize>(
    part: PartName,
    entries: &Entries<K, V>,
    slices: &mut Vec<Slice>,
) {
    // By the keys' text, which is the order of rows.
    let rows: BTreeMap<String, Value> =
        entries.iter().map(|(key, entry)| (key.to_string(), to_value(entry))).collect();
    let measures: Vec<Measure> = (rows.iter())
        .map(|(key, value)| {
            let mut text = Vec::new();
            push_row(&mut text, key, |text| push_json(text, value));
            Measure::new(key, text.len())
        })
        .collect();
    let mut rows = rows.into_iter();
    for length in part.lengths(&measures) {
        let content = content(part, rows.by_ref().take(length));
        slices.push(Slice { part: part.to_string(), hash: hash(&content), content });
    }
}

/// Appends a row as it stands in its slice's canonical JSON, with a comma.
fn push_row(text: &mut Vec<u8>, key: &str, push_entry: impl FnOnce(&mut Vec<u8>)) {
    push_json(text, key);
    text.push(b':');
    push_entry(text);
    text.push(b',');
}

/// The content of a slice.
fn content(part: PartName, rows: impl Iterator<Item = (String, Value)>) -> Value {
    Value::Object(Map::from_iter([(part.to_string(), Value::Object(rows.collect()))]))
}

/// [`hash`] of a content whose canonical JSON is made of these pieces.
fn hash_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut digest = Sha256::new();
    pieces.into_iter().for_each(|piece| digest.update(piece));
    hex(&digest.finalize()[..16])
}

/// `serde_json` without `preserve_order` keeps maps sorted, so its compact form is canonical (a test holds that).
fn canonical(value: &Value) -> String {
    value.to_string()
}

fn to_value<V: Serialize>(entry: &V) -> Value {
    // Entries are plain structs, enums, strings and numbers with string keys: nothing that serde_json can refuse.
    #[allow(clippy::expect_used)]
    serde_json::to_value(entry).expect("a table entry is plain data")
}

/// Appends JSON. That of a struct is canonical if its fields are sorted.
fn push_json<V: Serialize + ?Sized>(text: &mut Vec<u8>, value: &V) {
    // As above; and memory can always be written to.
    #[allow(clippy::expect_used)]
    serde_json::to_writer(text, value).expect("a table entry is plain data");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
