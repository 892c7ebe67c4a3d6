//! A table that is kept in slices: one changed entry costs the slice that holds it, not the table.
//!
//! Promise: after [`Sliced::settle`] its slices are those of [`super::cut`] for the same entries, byte for byte.
//!
//! Rows are sorted by the reversed bits of their key's hash. A slice holds the rows whose hashes agree in the lowest k
//! bits; reversed, these are the highest, so that every slice is one range of rows, for every k.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Display};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::{
    LIMIT_BYTES, MAX_BUCKETS, bucket, canonical, content, hash_of, stable_hash, table_hash, target_count,
};
use crate::routing::table::{AssistantEntry, DestinationEntry, E164, NumberEntry, ObjectKey, TrunkEntry};

/// One gateway's table in slices.
#[derive(Debug)]
pub struct Sliced {
    pub(in crate::routing) assistants: Part<ObjectKey, AssistantEntry>,
    pub(in crate::routing) destinations: Part<ObjectKey, DestinationEntry>,
    pub(in crate::routing) numbers: Part<E164, NumberEntry>,
    pub(in crate::routing) trunks: Part<ObjectKey, TrunkEntry>,
    hash: String,
}

/// What is known of a slice without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline<'a> {
    /// Which part of the table.
    pub part: PartName,
    /// See [`super::hash`].
    pub hash: &'a str,
    /// Length of that JSON, bytes.
    pub bytes: usize,
}

/// The name of a slice's part of the table: `numbers-3-of-8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartName {
    map: &'static str,
    bucket: usize,
    count: usize,
}

/// A slice's entries, shared with the table that they were taken from: the content is made when it is needed.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Which part of the table.
    pub part: PartName,
    /// Hash of the content.
    pub hash: String,
    entries: Entries,
}

#[derive(Clone, Debug)]
enum Entries {
    Assistants(Vec<(String, Arc<AssistantEntry>)>),
    Destinations(Vec<(String, Arc<DestinationEntry>)>),
    Numbers(Vec<(String, Arc<NumberEntry>)>),
    Trunks(Vec<(String, Arc<TrunkEntry>)>),
}

impl Draft {
    /// The content: what [`super::Slice::content`] is.
    pub fn content(&self) -> Value {
        match &self.entries {
            Entries::Assistants(entries) => content(self.part.map, pairs(entries)),
            Entries::Destinations(entries) => content(self.part.map, pairs(entries)),
            Entries::Numbers(entries) => content(self.part.map, pairs(entries)),
            Entries::Trunks(entries) => content(self.part.map, pairs(entries)),
        }
    }
}

fn pairs<V>(entries: &[(String, Arc<V>)]) -> impl Iterator<Item = (&String, &V)> {
    entries.iter().map(|(key, entry)| (key, entry.as_ref()))
}

impl Display for PartName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-of-{}", self.map, self.bucket + 1, self.count)
    }
}

impl Default for Sliced {
    fn default() -> Self {
        Self {
            assistants: Part::new("assistants"),
            destinations: Part::new("destinations"),
            numbers: Part::new("numbers"),
            trunks: Part::new("trunks"),
            hash: table_hash([]),
        }
    }
}

impl Sliced {
    /// Hash of the table, as of the last [`Self::settle`].
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Brings the slices that hold a changed entry up to date; returns whether the table is another one now. Takes time in
    /// proportion to those, and to the number of slices.
    pub fn settle(&mut self) -> bool {
        let mut stale = self.assistants.settle();
        stale |= self.destinations.settle();
        stale |= self.numbers.settle();
        stale |= self.trunks.settle();
        if !stale {
            return false;
        }
        let hash = table_hash(self.outlines().map(|outline| outline.hash));
        let changed = hash != self.hash;
        self.hash = hash;
        changed
    }

    /// The slices in the order of [`super::cut`].
    pub fn outlines(&self) -> impl Iterator<Item = Outline<'_>> {
        let first = self.assistants.outlines().chain(self.destinations.outlines());
        first.chain(self.numbers.outlines()).chain(self.trunks.outlines())
    }

    /// The entries of a slice that [`Self::outlines`] has named.
    pub fn draft(&self, outline: &Outline<'_>) -> Draft {
        let part = outline.part;
        let entries = match part.map {
            "assistants" => Entries::Assistants(self.assistants.entries(part.bucket)),
            "destinations" => Entries::Destinations(self.destinations.entries(part.bucket)),
            "numbers" => Entries::Numbers(self.numbers.entries(part.bucket)),
            _ => Entries::Trunks(self.trunks.entries(part.bucket)),
        };
        Draft { part, hash: outline.hash.to_owned(), entries }
    }

    /// Entries of the table: numbers, assistants, destinations, trunks.
    pub fn counts(&self) -> [usize; 4] {
        [
            self.numbers.rows.len(),
            self.assistants.rows.len(),
            self.destinations.rows.len(),
            self.trunks.rows.len(),
        ]
    }
}

/// One map of the table.
#[derive(Debug)]
pub(in crate::routing) struct Part<K, V> {
    map: &'static str,
    /// By the reversed hash of the key, then by the key's text.
    rows: BTreeMap<(u64, String), Row<V>>,
    bytes: usize,
    /// Their number is a power of two.
    buckets: Vec<Bucket>,
    /// Buckets whose hash is not that of their rows.
    stale: BTreeSet<usize>,
    key: std::marker::PhantomData<fn(&K)>,
}

#[derive(Debug)]
struct Row<V> {
    entry: Arc<V>,
    bytes: usize,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    load: Load,
    /// Empty while there are no entries.
    hash: String,
    /// Length of the content's canonical JSON.
    bytes: usize,
}

/// How much a bucket holds, as [`super::cut`] measures it.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    entries: usize,
    bytes: usize,
}

impl Load {
    fn add(&mut self, other: Load) {
        self.entries += other.entries;
        self.bytes += other.bytes;
    }

    fn is_too_much(&self) -> bool {
        self.entries > 1 && self.bytes > LIMIT_BYTES
    }
}

impl<K: Display, V: Serialize + PartialEq> Part<K, V> {
    fn new(map: &'static str) -> Self {
        Self {
            map,
            rows: BTreeMap::new(),
            bytes: 0,
            buckets: vec![Bucket::default()],
            stale: BTreeSet::new(),
            key: std::marker::PhantomData,
        }
    }

    pub(in crate::routing) fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.rows.get(&place(key)).map(|row| &row.entry)
    }

    /// Sets or (`None`) removes an entry.
    pub(in crate::routing) fn set(&mut self, key: &K, entry: Option<Arc<V>>) -> Change<V> {
        let place = place(key);
        let before = self.rows.get(&place);
        if before.map(|row| &row.entry) == entry.as_ref() {
            return Change::None;
        }
        let number = self.bucket_of(&place);
        let load = &mut self.buckets[number].load;
        self.stale.insert(number);
        if let Some(row) = before {
            load.entries -= 1;
            load.bytes -= row.bytes;
            self.bytes -= row.bytes;
        }
        let before = match entry {
            None => self.rows.remove(&place),
            Some(entry) => {
                let bytes = place.1.len() + 4 + length(&*entry);
                load.add(Load { entries: 1, bytes });
                self.bytes += bytes;
                self.rows.insert(place, Row { entry, bytes })
            }
        };
        Change::From(before.map(|row| row.entry))
    }

    fn bucket_of(&self, (reversed, _): &(u64, String)) -> usize {
        bucket(reversed.reverse_bits(), self.buckets.len())
    }

    /// Returns whether anything was stale.
    fn settle(&mut self) -> bool {
        if self.stale.is_empty() {
            return false;
        }
        let count = self.wanted_count();
        if count != self.buckets.len() {
            self.buckets = vec![Bucket::default(); count];
            for (place, row) in &self.rows {
                let number = bucket(place.0.reverse_bits(), count);
                self.buckets[number].load.add(Load { entries: 1, bytes: row.bytes });
            }
            self.stale = (0..count).collect();
        }
        for number in std::mem::take(&mut self.stale) {
            let (hash, bytes) = match self.buckets[number].load.entries {
                0 => (String::new(), 0),
                _ => {
                    let rows = self.rows_of(number).map(|((_, key), row)| (key, row.entry.as_ref()));
                    let text = canonical(&content(self.map, rows));
                    (hash_of(&text), text.len())
                }
            };
            self.buckets[number].hash = hash;
            self.buckets[number].bytes = bytes;
        }
        true
    }

    /// How many buckets [`super::cut`] makes of the rows. Where a bucket is not too full, its halves aren't either.
    fn wanted_count(&self) -> usize {
        let mut count = target_count(self.bytes);
        while count < MAX_BUCKETS && self.is_overfull(count) {
            count *= 2;
        }
        count
    }

    fn is_overfull(&self, count: usize) -> bool {
        let mut loads = vec![Load::default(); count];
        if count <= self.buckets.len() {
            for (number, merged) in self.buckets.iter().enumerate() {
                loads[number % count].add(merged.load);
            }
        } else {
            for (place, row) in &self.rows {
                loads[bucket(place.0.reverse_bits(), count)].add(Load { entries: 1, bytes: row.bytes });
            }
        }
        loads.iter().any(Load::is_too_much)
    }

    fn rows_of(&self, number: usize) -> impl Iterator<Item = (&(u64, String), &Row<V>)> {
        let shift = 64 - self.buckets.len().trailing_zeros();
        let first = (number as u64).reverse_bits();
        let last = first.saturating_add(u64::MAX.checked_shl(shift).map_or(u64::MAX, |mask| !mask));
        let rows = self.rows.range((first, String::new())..);
        rows.take_while(move |((reversed, _), _)| *reversed <= last)
    }

    fn outlines(&self) -> impl Iterator<Item = Outline<'_>> {
        let count = self.buckets.len();
        let filled = self.buckets.iter().enumerate().filter(|(_, bucket)| !bucket.hash.is_empty());
        filled.map(move |(number, bucket)| Outline {
            part: PartName { map: self.map, bucket: number, count },
            hash: &bucket.hash,
            bytes: bucket.bytes,
        })
    }

    fn entries(&self, number: usize) -> Vec<(String, Arc<V>)> {
        self.rows_of(number).map(|((_, key), row)| (key.clone(), row.entry.clone())).collect()
    }
}

/// What setting an entry has done.
pub(in crate::routing) enum Change<V> {
    /// It was there already.
    None,
    /// Something else, or nothing, was there.
    From(Option<Arc<V>>),
}

fn place(key: &impl Display) -> (u64, String) {
    let text = key.to_string();
    (stable_hash(&text).reverse_bits(), text)
}

/// Length of the entry's JSON: that of its canonical form too, which only orders fields otherwise.
fn length(entry: &impl Serialize) -> usize {
    let mut counter = Counter(0);
    // Entries are plain data, and counting can't fail.
    let _ = serde_json::to_writer(&mut counter, entry);
    counter.0
}

struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routing::slice::{Slice, TARGET_BYTES, cut};
    use crate::routing::table::Table;

    fn slices(sliced: &Sliced) -> Vec<Slice> {
        let of = |outline: Outline<'_>| {
            let content = sliced.draft(&outline).content();
            assert_eq!(outline.bytes, content.to_string().len());
            Slice { part: outline.part.to_string(), hash: outline.hash.to_owned(), content }
        };
        sliced.outlines().map(of).collect()
    }

    fn entry(assistant: u16, size: usize) -> Arc<NumberEntry> {
        Arc::new(NumberEntry {
            object: ObjectKey::new("shop", "x".repeat(size)),
            assistant: Some(ObjectKey::new("shop", assistant.to_string())),
            transfer_trunk: None,
            transfer_trunk_unusable: false,
            fallback: None,
        })
    }

    /// Large entries among small ones: the number of slices grows, also past what the average asks for, and shrinks.
    fn size() -> impl Strategy<Value = usize> {
        prop_oneof![
            6 => 1..200usize,
            3 => TARGET_BYTES / 4..TARGET_BYTES,
            1 => LIMIT_BYTES / 3..LIMIT_BYTES + 10,
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn slices_that_are_kept_are_those_of_a_table_that_is_cut(
            changes in proptest::collection::vec((0..60u32, proptest::option::weighted(0.7, (0..3u16, size()))), 1..60),
            pauses in proptest::collection::vec(any::<bool>(), 80),
        ) {
            let mut table = Table::default();
            let mut sliced = Sliced::default();
            for ((number, value), pause) in changes.into_iter().zip(pauses) {
                let number: E164 = format!("+3120{number:07}").parse().unwrap();
                let value = value.map(|(assistant, size)| entry(assistant, size));
                sliced.numbers.set(&number, value.clone());
                match value {
                    Some(value) => table.numbers.insert(number, value),
                    None => table.numbers.remove(&number),
                };
                if pause {
                    let before = sliced.hash().to_owned();
                    let changed = sliced.settle();
                    let expected = cut(&table);
                    prop_assert_eq!(sliced.hash(), table_hash(expected.iter().map(|slice| slice.hash.as_str())));
                    prop_assert_eq!(changed, sliced.hash() != before);
                    prop_assert_eq!(slices(&sliced), expected);
                }
            }
        }
    }

    #[test]
    fn one_changed_entry_makes_one_slice_stale() {
        let mut sliced = Sliced::default();
        for number in 0..5000 {
            sliced.numbers.set(&format!("+3120{number:07}").parse().unwrap(), Some(entry(1, 100)));
        }
        sliced.settle();
        assert!(sliced.numbers.buckets.len() > 16);
        sliced.numbers.set(&"+31200001234".parse().unwrap(), Some(entry(1, 100)));
        assert!(sliced.numbers.stale.is_empty(), "nothing is new");
        sliced.numbers.set(&"+31200001234".parse().unwrap(), Some(entry(2, 100)));
        assert_eq!(sliced.numbers.stale.len(), 1);
    }
}
