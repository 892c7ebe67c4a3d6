//! Layouts against the table that they lay out, as a gateway reads them.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::resources::routing_table::TableCounts;
use crate::routing::slice::{Slice, cut, hash, join, table_hash};
use crate::routing::table::{E164, NumberEntry, ObjectKey, Table};

/// What is on the API server, and what a leader knows of it.
#[derive(Default)]
struct World {
    sliced: Sliced,
    table: Table,
    slices: HashMap<String, Value>,
    head: Option<RoutingTableSpec>,
    bases: Bases,
}

fn e164(index: usize) -> E164 {
    format!("+3120{index:07}").parse().unwrap()
}

impl World {
    fn with_numbers(numbers: usize) -> Self {
        let mut world = Self::default();
        (0..numbers).for_each(|index| world.set(index, Some(0)));
        world.publish();
        world
    }

    fn set(&mut self, index: usize, assistant: Option<usize>) {
        let entry = assistant.map(|assistant| {
            Arc::new(NumberEntry {
                object: ObjectKey::new("shop", format!("line-{index}")),
                assistant: Some(ObjectKey::new("shop", assistant.to_string())),
                transfer_trunk: None,
                transfer_trunk_unusable: false,
                fallback: None,
            })
        });
        self.sliced.numbers.set(&e164(index), entry.clone());
        match entry {
            Some(entry) => self.table.numbers.insert(e164(index), entry),
            None => self.table.numbers.remove(&e164(index)),
        };
    }

    fn layout(&mut self) -> Layout {
        self.sliced.settle();
        let is_present = |name: &str| self.slices.contains_key(name);
        let there = There { head: self.head.as_ref(), bases: &self.bases, is_present };
        Layout::new(&self.sliced, &there, |outline| format!("gateway-{}-{}", outline.part, outline.hash))
    }

    /// Publishes the table, as a gateway reads it then; returns how many slices were written for it.
    fn publish(&mut self) -> usize {
        let layout = self.layout();
        let written = layout.drafts.len();
        assert!(layout.absent.iter().all(|name| layout.drafts.contains_key(name)));
        self.slices.extend(layout.drafts.iter().map(|(name, draft)| (name.clone(), draft.content())));
        self.bases = layout.bases;
        self.head = Some(RoutingTableSpec {
            generation: 1,
            hash: self.sliced.hash().to_owned(),
            slices: layout.slices,
            amendments: layout.amendments,
            previous_slices: Vec::new(),
            credentials_secret: None,
            counts: TableCounts::default(),
        });
        assert_eq!(self.read(), self.table);
        written
    }

    fn head(&self) -> &RoutingTableSpec {
        self.head.as_ref().unwrap()
    }

    fn amended(&self) -> usize {
        self.head().amendments.iter().map(|amendment| amendment.rows.len() + amendment.gone.len()).sum()
    }

    /// The table that the head and its slices make: that of the leader, cut as it has to be.
    fn read(&self) -> Table {
        let slices: Vec<Slice> = hashes(self.head())
            .map(|(name, hash, amendment)| {
                let text = self.slices[name].to_string();
                let text =
                    amendment.map_or_else(|| text.clone(), |amendment| amend(&text, amendment).unwrap());
                let content: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(content.to_string(), text, "canonical");
                Slice { part: "numbers".to_owned(), hash: hash.to_owned(), content }
            })
            .collect();
        assert_eq!(table_hash(slices.iter().map(|slice| &*slice.hash)), self.head().hash);
        assert!(slices.iter().all(|slice| hash(&slice.content) == slice.hash));
        assert_eq!(slices, cut(&self.table));
        join(slices.iter().map(|slice| (&*slice.part, &*slice.hash, &slice.content))).unwrap()
    }

    /// Another leader: it knows what it reads.
    fn take_over(&mut self) {
        self.bases = Bases::default();
    }
}

#[test]
fn a_change_of_a_row_is_told_in_the_head_and_writes_no_slice() {
    let mut world = World::with_numbers(1500);
    let slices = world.head().slices.clone();
    world.set(1234, Some(1));
    assert_eq!(world.publish(), 0);
    assert_eq!(world.head().slices, slices);
    world.set(1300, None);
    assert_eq!(world.publish(), 0);
    assert_eq!(world.amended(), 2);
}

#[test]
fn a_row_that_is_as_it_was_when_its_slice_was_written_needs_no_amendment() {
    let mut world = World::with_numbers(1500);
    world.set(1234, Some(1));
    world.publish();
    world.set(1234, Some(0));
    assert_eq!(world.publish(), 0);
    assert_eq!(world.head().amendments, []);
}

#[test]
fn amendments_that_have_grown_become_slices_and_leave_room_for_more() {
    let mut world = World::with_numbers(1000);
    let mut written = Vec::new();
    for turn in 0..200 {
        world.set(turn * 7919 % 1000, Some(turn));
        written.push(world.publish());
        let bytes = serde_json::to_vec(&world.head().amendments).unwrap().len();
        assert!(bytes < AMENDMENTS_BYTES + AMENDMENTS_BYTES / 8, "{bytes}");
    }
    assert!(written.iter().filter(|slices| **slices > 0).count() < 12, "{written:?}");
}

#[test]
fn a_new_leader_leaves_a_layout_as_it_is() {
    let mut world = World::with_numbers(1000);
    world.set(3, Some(1));
    world.publish();
    let before = world.head().clone();
    world.take_over();
    assert_eq!(world.publish(), 0);
    assert_eq!(*world.head(), before);
}

#[test]
fn a_new_leader_amends_what_was_not_amended_and_writes_what_was() {
    let mut world = World::with_numbers(1500);
    world.set(3, Some(1));
    world.publish();
    world.take_over();
    world.publish();
    world.set(1499, Some(1));
    assert_eq!(world.publish(), 1);
    assert_eq!((world.head().amendments.len(), world.amended()), (1, 1));
}

#[test]
fn a_slice_that_was_deleted_is_written_as_the_table_is() {
    let mut world = World::with_numbers(1000);
    world.set(3, Some(1));
    world.publish();
    let amended = world.head().amendments[0].slice.clone();
    world.slices.remove(&amended);
    assert_eq!(world.publish(), 1);
    assert_eq!(world.head().amendments, []);
    let whole = world.head().slices[0].clone();
    world.slices.remove(&whole);
    let layout = world.layout();
    assert_eq!((layout.absent.len(), layout.drafts.contains_key(&whole)), (1, true));
}

#[test]
fn a_section_whose_last_row_goes_needs_no_write_but_the_heads() {
    let mut world = World::with_numbers(1);
    world.set(0, None);
    assert_eq!(world.publish(), 0);
    assert_eq!(world.head().slices, Vec::<String>::new());
}

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    Set(usize, Option<usize>),
    Publish,
    TakeOver,
    Lose(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..700usize, proptest::option::weighted(0.8, 0..3usize)).prop_map(|(index, value)| Step::Set(index, value)),
        4 => Just(Step::Publish),
        1 => Just(Step::TakeOver),
        1 => (0..8usize).prop_map(Step::Lose),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_layout_reads_as_the_table(numbers in 0..600usize, steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::with_numbers(numbers);
        for step in steps {
            match step {
                Step::Set(index, assistant) => world.set(index, assistant),
                Step::Publish => drop(world.publish()),
                Step::TakeOver => world.take_over(),
                Step::Lose(at) => {
                    if let Some(name) = world.head().slices.get(at).cloned() {
                        world.slices.remove(&name);
                    }
                }
            }
        }
        world.publish();
    }
}
