//! A table that changes against the definition, and what each kind of change rewrites.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::routing::slice::{LIMIT_BYTES, Slice, cut};
use crate::routing::table::Table;

fn e164(index: usize) -> E164 {
    format!("+3120{index:07}").parse().unwrap()
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

/// Of the usual size.
fn usual() -> Option<Arc<NumberEntry>> {
    Some(entry(1, 40))
}

/// Of `numbers` numbers that follow each other.
fn sliced(numbers: usize) -> Sliced {
    let mut sliced = Sliced::default();
    for index in 0..numbers {
        sliced.numbers.set(&e164(index), usual());
    }
    sliced.settle();
    sliced
}

fn slices(sliced: &Sliced) -> Vec<Slice> {
    let of = |outline: Outline<'_>| {
        let content = sliced.draft(&outline).content();
        assert_eq!(outline.bytes, content.to_string().len());
        Slice { part: outline.part.to_string(), hash: outline.hash.to_owned(), content }
    };
    sliced.outlines().map(of).collect()
}

fn hashes(sliced: &Sliced) -> BTreeSet<String> {
    sliced.outlines().map(|outline| outline.hash.to_owned()).collect()
}

/// Settles; returns how many slices have come and how many have gone.
fn rewritten(sliced: &mut Sliced, before: &mut BTreeSet<String>) -> (usize, usize) {
    sliced.settle();
    let after = hashes(sliced);
    let (come, gone) = (after.difference(before).count(), before.difference(&after).count());
    *before = after;
    (come, gone)
}

/// Numbers of which every third ends a section.
fn pool() -> Vec<E164> {
    let (ends, others): (Vec<_>, Vec<_>) =
        (0..10_000).map(e164).partition(|number| PartName::Numbers.ends_after(number.as_str()));
    ends.into_iter().take(20).chain(others.into_iter().step_by(150).take(40)).collect()
}

/// Large entries among small ones, so that sections are cut again.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        12 => 1..200usize,
        3 => LIMIT_BYTES / 16..LIMIT_BYTES / 4,
        1 => LIMIT_BYTES / 3..LIMIT_BYTES + 10,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn slices_that_are_kept_are_those_of_a_table_that_is_cut(
        changes in proptest::collection::vec((0..60usize, proptest::option::weighted(0.7, (0..3u16, size()))), 1..60),
        pauses in proptest::collection::vec(any::<bool>(), 60),
    ) {
        let (pool, mut table, mut sliced) = (pool(), Table::default(), Sliced::default());
        for ((number, value), pause) in changes.into_iter().zip(pauses) {
            let value = value.map(|(assistant, size)| entry(assistant, size));
            sliced.numbers.set(&pool[number], value.clone());
            match value {
                Some(value) => table.numbers.insert(pool[number].clone(), value),
                None => table.numbers.remove(&pool[number]),
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

    #[test]
    fn the_same_entries_make_the_same_slices_in_whatever_order_they_come(
        order in Just((0..2000).collect::<Vec<usize>>()).prop_shuffle(), passing in 1..400usize, pause in 100..500usize,
    ) {
        let mut shuffled = Sliced::default();
        for (turn, index) in order.iter().enumerate() {
            shuffled.numbers.set(&e164(*index), usual());
            shuffled.numbers.set(&e164(5000 + turn), usual());
            if let Some(turn) = turn.checked_sub(passing) {
                shuffled.numbers.set(&e164(5000 + turn), None);
            }
            if turn % pause == 0 {
                shuffled.settle();
            }
        }
        (0..order.len()).for_each(|turn| drop(shuffled.numbers.set(&e164(5000 + turn), None)));
        shuffled.settle();
        let ordered = sliced(order.len());
        prop_assert_eq!(shuffled.hash(), ordered.hash());
        prop_assert_eq!(slices(&shuffled), slices(&ordered));
    }
}

#[test]
fn a_number_is_written_in_canonical_form_without_a_tree() {
    let key = |name| Some(ObjectKey::new("shop", name));
    let whole = NumberEntry {
        transfer_trunk: key("office"),
        transfer_trunk_unusable: true,
        fallback: key("reception"),
        ..(*entry(1, 5)).clone()
    };
    for entry in [whole, (*entry(1, 5)).clone()] {
        let mut text = Vec::new();
        entry.push(&mut text);
        assert_eq!(String::from_utf8(text).unwrap(), entry.value().to_string());
    }
}

#[test]
fn another_value_rewrites_one_slice_and_another_key_at_most_two() {
    let mut sliced = sliced(8000);
    let mut before = hashes(&sliced);
    assert!(before.len() > 16, "{}", before.len());
    let ends: Vec<usize> =
        (0..8000).filter(|index| PartName::Numbers.ends_after(e164(*index).as_str())).collect();
    assert!(ends.len() > 16);
    for index in (0..8000).step_by(397).chain(ends.iter().copied()) {
        let ends = usize::from(ends.contains(&index));
        assert!(matches!(sliced.numbers.set(&e164(index), usual()), Change::None));
        assert_eq!(rewritten(&mut sliced, &mut before), (0, 0), "nothing is new at {index}");
        sliced.numbers.set(&e164(index), Some(entry(2, 40)));
        assert_eq!(rewritten(&mut sliced, &mut before), (1, 1), "another value at {index}");
        sliced.numbers.set(&e164(index), None);
        assert_eq!(rewritten(&mut sliced, &mut before), (1, 1 + ends), "gone at {index}");
        sliced.numbers.set(&e164(index), usual());
        assert_eq!(rewritten(&mut sliced, &mut before), (1 + ends, 1), "back at {index}");
    }
}

#[test]
fn numbers_that_are_created_one_after_the_other_cost_less_than_a_tenth_of_a_slice_each() {
    let (mut sliced, mut before, mut written) = (Sliced::default(), BTreeSet::new(), 0);
    for index in 0..10_000 {
        sliced.numbers.set(&e164(index), usual());
        if index % 16 == 15 {
            written += rewritten(&mut sliced, &mut before).0;
        }
    }
    assert!(written <= 1000, "{written} slices for 10,000 numbers in batches of 16");
}

#[test]
fn a_table_that_grows_a_hundredfold_rewrites_only_the_slices_that_it_grows_in() {
    let mut sliced = sliced(1000);
    let mut before = hashes(&sliced);
    let mut rewrites = 0;
    for batch in 1..100 {
        for index in batch * 1000..(batch + 1) * 1000 {
            sliced.numbers.set(&e164(index), usual());
        }
        let gone = rewritten(&mut sliced, &mut before).1;
        assert!(gone <= 1, "{gone} slices are rewritten at {batch},000 numbers");
        rewrites += gone;
    }
    let share = rewrites as f64 / before.len() as f64;
    assert!(share < 0.3, "{rewrites} rewrites for {} slices", before.len());
    let sizes: Vec<usize> = sliced.outlines().map(|outline| outline.bytes).collect();
    let mean = sizes.iter().sum::<usize>() / sizes.len();
    assert!((24 * 1024..32 * 1024).contains(&mean), "{mean} bytes on average");
}
