//! Table ⇄ content-addressed slices.
//!
//! Each of the four maps of a [`Table`] is cut into slices such that one changed entry rewrites one of them; [`mod@cut`] says
//! where. A slice's content is a table that holds only its entries; its hash is over the content in canonical JSON (sorted
//! keys, no white space), so that it survives a round trip through the API server.
//!
//! [`cut()`] is a pure function of the table and defines the slices. [`Sliced`] is a table that is kept in them while it
//! changes.

mod cut;
mod join;
pub mod layout;
mod sliced;

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

pub use cut::PartName;
pub use join::{SliceError, join, replace};
pub(super) use sliced::Change;
pub use sliced::{Draft, Outline, Sliced};

use self::cut::Measure;
use super::table::{Entries, Table};

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
    hash_of_text(&canonical(content))
}

/// [`hash`] of a content in canonical JSON.
pub fn hash_of_text(content: &str) -> String {
    hash_of([content.as_bytes()])
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
