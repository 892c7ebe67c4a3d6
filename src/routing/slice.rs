//! Table ⇄ content-addressed slices.
//!
//! Each of the four maps of a [`Table`] is cut into 2^k buckets by a stable hash of the entry's key, so that one changed
//! entry rewrites one slice. A slice's content is a table that holds only the entries of its bucket; its hash is over the
//! content in canonical JSON (sorted keys, no white space), so that it survives a round trip through the API server.
//!
//! [`cut`] is a pure function, so k depends on the entries alone: it doubles when an average slice would grow past
//! [`TARGET_BYTES`], and further while a slice of several entries is larger than [`LIMIT_BYTES`]. A table that grows across
//! such a line is rewritten once, whole. Only an entry that is larger by itself makes a slice above the limit.
//!
//! [`Sliced`] is a table that is kept in slices while it changes; `cut` defines what they are.

mod sliced;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::hash::Hasher;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher13;

pub(super) use sliced::Change;
pub use sliced::{Draft, Outline, PartName, Sliced};

use super::table::{
    AssistantEntry, DestinationEntry, E164, Entries, NumberEntry, ObjectKey, Table, TrunkEntry,
};

/// Average size of a slice's canonical JSON, bytes, past which the number of slices doubles: slices lie between half of
/// this and this on average, and (as keys spread by a hash) hardly ever above 48 KiB.
pub const TARGET_BYTES: usize = 32 * 1024;
/// Size of a slice of several entries, bytes, that is never exceeded: far below the 1.5 MiB of an object.
pub const LIMIT_BYTES: usize = 256 * 1024;
/// The number of slices of one part stops doubling here: entries whose keys collide so far can't be parted.
const MAX_BUCKETS: usize = 1 << 16;

/// One slice: its part, its hash and its content.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// Which part of the table, `numbers-3-of-8`.
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

/// Cuts a table into slices, ordered by part (assistants, destinations, numbers, trunks; then by bucket); equal tables
/// give equal slices. A bucket without entries gives no slice, so an empty table has none.
pub fn cut(table: &Table) -> Vec<Slice> {
    let mut slices = Vec::new();
    cut_part("assistants", &table.assistants, &mut slices);
    cut_part("destinations", &table.destinations, &mut slices);
    cut_part("numbers", &table.numbers, &mut slices);
    cut_part("trunks", &table.trunks, &mut slices);
    slices
}

/// Hash of a slice's content: the first 128 bits of the SHA-256 of its canonical JSON, 32 hexadecimal digits.
///
/// So many are enough, and a head that names thousands of slices stays small. To pass other entries off as a published
/// slice takes 2^128 attempts, and only the operator can write one. Whoever searches for two versions of an entry of his own
/// that make equal hashes (2^64 attempts, and he has to know all that shares the slice) gets gateways to keep the first.
pub fn hash(content: &Value) -> String {
    hash_of(&canonical(content))
}

/// The hash that the name of a RoutingSlice ends with.
pub fn hash_in(name: &str) -> &str {
    name.rsplit('-').next().unwrap_or(name)
}

/// Hash of a whole table: SHA-256, hexadecimal, over the hashes of its slices in the order of [`cut`].
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

/// An entry on its way into a bucket.
struct Piece {
    key: String,
    hash: u64,
    /// Bytes that the entry adds to its slice.
    bytes: usize,
    value: Value,
}

fn cut_part<K: Ord + Display, V: Serialize>(part: &str, entries: &Entries<K, V>, slices: &mut Vec<Slice>) {
    let pieces: Vec<Piece> = entries
        .iter()
        .map(|(key, entry)| {
            let key = key.to_string();
            let value = to_value(entry);
            Piece { hash: stable_hash(&key), bytes: key.len() + 4 + canonical(&value).len(), key, value }
        })
        .collect();
    let count = bucket_count(&pieces);
    let mut buckets: Vec<Map<String, Value>> = vec![Map::new(); count];
    for piece in pieces {
        buckets[bucket(piece.hash, count)].insert(piece.key, piece.value);
    }
    for (number, entries) in buckets.into_iter().enumerate().filter(|(_, entries)| !entries.is_empty()) {
        let content = whole(part, entries);
        slices.push(Slice {
            part: format!("{part}-{}-of-{count}", number + 1),
            hash: hash(&content),
            content,
        });
    }
}

/// The content of a slice.
fn content<'a, V: Serialize + 'a>(part: &str, entries: impl Iterator<Item = (&'a String, &'a V)>) -> Value {
    whole(part, entries.map(|(key, entry)| (key.clone(), to_value(entry))).collect())
}

fn whole(part: &str, entries: Map<String, Value>) -> Value {
    Value::Object(Map::from_iter([(part.to_owned(), Value::Object(entries))]))
}

/// How many buckets of [`TARGET_BYTES`] there are for all entries, a power of two.
fn target_count(bytes: usize) -> usize {
    bytes.div_ceil(TARGET_BYTES).next_power_of_two().min(MAX_BUCKETS)
}

/// How many buckets, a power of two; see the module's comment.
fn bucket_count(pieces: &[Piece]) -> usize {
    let mut count = target_count(pieces.iter().map(|piece| piece.bytes).sum());
    while count < MAX_BUCKETS && overfull(pieces, count) {
        count *= 2;
    }
    count
}

fn overfull(pieces: &[Piece], count: usize) -> bool {
    let mut buckets = vec![(0usize, 0usize); count];
    for piece in pieces {
        let (entries, bytes) = &mut buckets[bucket(piece.hash, count)];
        *entries += 1;
        *bytes += piece.bytes;
    }
    buckets.iter().any(|&(entries, bytes)| entries > 1 && bytes > LIMIT_BYTES)
}

/// The bucket of a hash: `count` is a power of two, so that doubling splits each bucket in two.
fn bucket(hash: u64, count: usize) -> usize {
    (hash % count as u64) as usize
}

/// The same on every replica and in every version: the keys of SipHash are part of the format.
fn stable_hash(key: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(key.as_bytes());
    hasher.finish()
}

/// `serde_json` without `preserve_order` keeps maps sorted, so its compact form is canonical (a test holds that).
fn canonical(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// [`hash`] of a content whose canonical JSON is `text`.
fn hash_of(text: &[u8]) -> String {
    hex(&Sha256::digest(text)[..16])
}

fn to_value<V: Serialize>(entry: &V) -> Value {
    // Entries are plain structs, enums, strings and numbers with string keys: nothing that serde_json can refuse.
    #[allow(clippy::expect_used)]
    serde_json::to_value(entry).expect("a table entry is plain data")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
