//! A table that is kept in slices: one changed entry costs the slice that holds it, not the table.
//!
//! Promise: after [`Sliced::settle`] its slices are those of [`super::cut()`] for the same entries, byte for byte.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::marker::PhantomData;
use std::ops::{Bound, Range};
use std::sync::Arc;

use serde_json::Value;

use super::cut::{Measure, PartName};
use super::{content, hash_of, push_json, push_row, table_hash, to_value};
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
#[derive(Clone, Debug)]
pub struct Outline<'a> {
    /// Which part of the table.
    pub part: PartName,
    /// See [`super::hash`].
    pub hash: &'a str,
    /// Length of the content's canonical JSON, bytes.
    pub bytes: usize,
    /// The section, if the slice is all of it.
    pub(super) section: Option<SectionName>,
    /// Which section of the part, and which of its rows.
    place: (usize, &'a Range<usize>),
}

/// A section of a part: by the key of its last row; `None` is what comes after all range ends.
pub(super) type SectionName = (PartName, Option<Arc<str>>);

/// A slice's entries, shared with the table that they were taken from: the content is made when it is needed.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Which part of the table.
    pub part: PartName,
    /// Hash of the content.
    pub hash: String,
    pub(super) rows: Vec<(Arc<str>, Arc<dyn Entry>)>,
}

/// An entry of any part.
pub(in crate::routing) trait Entry: Debug + Send + Sync {
    fn value(&self) -> Value;

    /// Appends its canonical JSON.
    fn push(&self, text: &mut Vec<u8>) {
        push_json(text, &self.value());
    }
}

impl Entry for AssistantEntry {
    fn value(&self) -> Value {
        to_value(self)
    }
}

impl Entry for DestinationEntry {
    fn value(&self) -> Value {
        to_value(self)
    }
}

impl Entry for NumberEntry {
    fn value(&self) -> Value {
        to_value(self)
    }

    /// Without a tree in between, which takes ten times as long: the fields are sorted.
    fn push(&self, text: &mut Vec<u8>) {
        push_json(text, self);
    }
}

impl Entry for TrunkEntry {
    fn value(&self) -> Value {
        to_value(self)
    }
}

impl Draft {
    /// The content: what [`super::Slice::content`] is.
    pub fn content(&self) -> Value {
        content(self.part, self.rows.iter().map(|(key, entry)| (key.to_string(), entry.value())))
    }
}

impl Default for Sliced {
    fn default() -> Self {
        Self {
            assistants: Part::new(PartName::Assistants),
            destinations: Part::new(PartName::Destinations),
            numbers: Part::new(PartName::Numbers),
            trunks: Part::new(PartName::Trunks),
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
    /// proportion to those; of the others only the hashes are looked at, a tenth of a microsecond for each.
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

    /// The slices as of the last [`Self::settle`], in the order of [`super::cut()`].
    pub fn outlines(&self) -> impl Iterator<Item = Outline<'_>> {
        let first = self.assistants.outlines().chain(self.destinations.outlines());
        first.chain(self.numbers.outlines()).chain(self.trunks.outlines())
    }

    /// The entries of a slice that [`Self::outlines`] has named.
    pub fn draft(&self, outline: &Outline<'_>) -> Draft {
        let rows = match outline.part {
            PartName::Assistants => self.assistants.rows_at(outline.place),
            PartName::Destinations => self.destinations.rows_at(outline.place),
            PartName::Numbers => self.numbers.rows_at(outline.place),
            PartName::Trunks => self.trunks.rows_at(outline.place),
        };
        Draft { part: outline.part, hash: outline.hash.to_owned(), rows }
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
    name: PartName,
    /// By the key's text.
    rows: BTreeMap<Arc<str>, Arc<V>>,
    /// In the order of rows, which they part among themselves: never none.
    sections: Vec<Section>,
    key: PhantomData<fn(&K)>,
}

/// The rows from the section before up to one after which a range ends.
#[derive(Debug)]
struct Section {
    /// The last row's key; `None` for what comes after all range ends, if anything.
    end: Option<Arc<str>>,
    /// `None` when a row has changed since.
    slices: Option<Vec<Kept>>,
}

impl Section {
    fn is_one_slice(&self) -> bool {
        self.slices.as_ref().is_some_and(|slices| slices.len() == 1)
    }
}

/// A slice: nearly always all of its section.
#[derive(Debug)]
struct Kept {
    /// Which rows of the section.
    rows: Range<usize>,
    hash: String,
    bytes: usize,
}

impl<K: Display, V: Entry + PartialEq + 'static> Part<K, V> {
    fn new(name: PartName) -> Self {
        let rest = Section { end: None, slices: None };
        Self { name, rows: BTreeMap::new(), sections: vec![rest], key: PhantomData }
    }

    pub(in crate::routing) fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.rows.get(&*key.to_string())
    }

    /// Sets or (`None`) removes an entry.
    pub(in crate::routing) fn set(&mut self, key: &K, entry: Option<Arc<V>>) -> Change<V> {
        let key: Arc<str> = key.to_string().into();
        let before = self.rows.get(&key);
        if before == entry.as_ref() {
            return Change::None;
        }
        let at = self.sections.partition_point(|section| section.end.as_ref().is_some_and(|end| *end < key));
        self.sections[at].slices = None;
        match (before, &entry) {
            (None, _) if self.name.ends_after(&key) => {
                self.sections.insert(at, Section { end: Some(key.clone()), slices: None });
            }
            (_, None) if self.name.ends_after(&key) => {
                self.sections.remove(at);
                self.sections[at].slices = None;
            }
            _ => {}
        }
        Change::From(match entry {
            Some(entry) => self.rows.insert(key, entry),
            None => self.rows.remove(&key),
        })
    }

    /// Returns whether anything was stale.
    fn settle(&mut self) -> bool {
        let mut stale = false;
        for at in 0..self.sections.len() {
            if self.sections[at].slices.is_none() {
                self.sections[at].slices = Some(self.cut(at));
                stale = true;
            }
        }
        stale
    }

    /// Cuts a section as [`super::cut()`] does, but for the trees of JSON.
    fn cut(&self, at: usize) -> Vec<Kept> {
        let mut text = Vec::new();
        let mut measures = Vec::new();
        for (key, entry) in self.section(at) {
            let start = text.len();
            push_row(&mut text, key, |text| entry.push(text));
            measures.push(Measure::new(key, text.len() - start));
        }
        let (mut row, mut rest) = (0, text.as_slice());
        let keep = |length: usize| {
            let rows = row..row + length;
            let (text, after) = rest.split_at(measures[rows.clone()].iter().map(|row| row.bytes).sum());
            (row, rest) = (rows.end, after);
            let content = self.name.content_text(text);
            Kept { rows, hash: hash_of(content), bytes: content.iter().map(|piece| piece.len()).sum() }
        };
        self.name.lengths(&measures).into_iter().map(keep).collect()
    }

    fn section(&self, at: usize) -> impl Iterator<Item = (&Arc<str>, &Arc<V>)> {
        let before = at.checked_sub(1).and_then(|before| self.sections[before].end.as_ref());
        let first = before.map_or(Bound::Unbounded, Bound::Excluded);
        let last = self.sections[at].end.as_ref().map_or(Bound::Unbounded, Bound::Included);
        self.rows.range::<Arc<str>, _>((first, last))
    }

    fn outlines(&self) -> impl Iterator<Item = Outline<'_>> {
        let slices =
            self.sections.iter().enumerate().flat_map(|(at, section)| {
                section.slices.iter().flatten().map(move |slice| (at, section, slice))
            });
        slices.map(|(at, section, slice)| Outline {
            part: self.name,
            hash: &slice.hash,
            bytes: slice.bytes,
            section: section.is_one_slice().then(|| (self.name, section.end.clone())),
            place: (at, &slice.rows),
        })
    }

    fn rows_at(&self, (at, rows): (usize, &Range<usize>)) -> Vec<(Arc<str>, Arc<dyn Entry>)> {
        let rows = self.section(at).skip(rows.start).take(rows.len());
        rows.map(|(key, entry)| (key.clone(), entry.clone() as Arc<dyn Entry>)).collect()
    }
}

/// What setting an entry has done.
pub(in crate::routing) enum Change<V> {
    /// It was there already.
    None,
    /// Something else, or nothing, was there.
    From(Option<Arc<V>>),
}

#[cfg(test)]
mod tests;
