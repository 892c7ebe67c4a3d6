//! Number → its entry: one look into memory that isn't in the caches, at any table size.
//!
//! Hash tables by a part of the number, each small enough to be copied when a number in it changes; the others are shared
//! with the table before.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use siphasher::sip::SipHasher13;

use crate::routing::table::{E164, Entries, NumberEntry};

/// At 100,000 numbers a table has 400 of them, which are copied in some 10 µs.
const TABLES: u64 = 256;

type Table = HashMap<u64, Arc<NumberEntry>, BuildHasherDefault<SipHasher13>>;

#[derive(Clone)]
pub(super) struct Numbers(Vec<Arc<Table>>);

impl Numbers {
    pub(super) fn new(entries: &Entries<E164, NumberEntry>) -> Self {
        let mut numbers = Self((0..TABLES).map(|_| Arc::default()).collect());
        for (number, entry) in entries {
            numbers.set(number, Some(entry));
        }
        numbers
    }

    /// These with what `after` has and `before`, which they were made of, hasn't: takes time in proportion to that.
    pub(super) fn follow(
        &self,
        before: &Entries<E164, NumberEntry>,
        after: &Entries<E164, NumberEntry>,
    ) -> Self {
        let mut numbers = self.clone();
        for change in before.diff(after) {
            match change {
                DiffItem::Add(number, entry) | DiffItem::Update { new: (number, entry), .. } => {
                    numbers.set(number, Some(entry));
                }
                DiffItem::Remove(number, _) => numbers.set(number, None),
            }
        }
        numbers
    }

    pub(super) fn get(&self, number: &E164) -> Option<&Arc<NumberEntry>> {
        let digits = number.digits();
        self.0[position(digits)].get(&digits)
    }

    fn set(&mut self, number: &E164, entry: Option<&Arc<NumberEntry>>) {
        let digits = number.digits();
        let table = Arc::make_mut(&mut self.0[position(digits)]);
        match entry {
            Some(entry) => table.insert(digits, entry.clone()),
            None => table.remove(&digits),
        };
    }
}

fn position(digits: u64) -> usize {
    (digits % TABLES) as usize
}
