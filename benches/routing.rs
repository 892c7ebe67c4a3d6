//! `cargo bench`: compile (everything, one change), slicing, look-up and switch at 1,000 and 100,000 numbers.
//!
//! What a change costs should be the same in both columns: that is what `routing::index` and the shared maps of a table are
//! for. The cluster: every 1,000 numbers have 10 assistants, 5 trunks and 50 destinations.

#![allow(clippy::unwrap_used, reason = "a bench that can't be set up must fail")]

use std::collections::BTreeMap;
use std::sync::Arc;

use divan::{Bencher, black_box};
use serde_json::json;
use voicedock::gateway::snapshot::{Parts, Piece, Snapshot};
use voicedock::resources::{Assistant, PhoneNumber, SipGateway, SipTrunk, TransferDestination};
use voicedock::routing::compile::{Objects, compile};
use voicedock::routing::decide;
use voicedock::routing::index::Index;
use voicedock::routing::slice::{self, cut};
use voicedock::routing::table::{ObjectKey, Table};

const SIZES: [usize; 2] = [1_000, 100_000];

fn main() {
    divan::main();
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

fn number(index: usize, assistant: usize) -> (ObjectKey, Arc<PhoneNumber>) {
    let name = format!("line-{index}");
    let spec = json!({
        "number": format!("+3120{index:07}"),
        "assistantRef": {"name": format!("assistant-{assistant}")},
        "fallbackRef": {"name": "destination-0"},
    });
    let mut number = PhoneNumber::new(&name, serde_json::from_value(spec).unwrap());
    number.metadata.namespace = Some("shop".to_owned());
    (key(&name), Arc::new(number))
}

fn objects(numbers: usize) -> Objects {
    let [assistants, trunks, destinations] = [numbers / 100, numbers / 200, numbers / 20];
    let mut objects = Objects { default_gateway: Some(key("gateway")), ..Objects::default() };
    let gateway = SipGateway::new("gateway", serde_json::from_value(json!({})).unwrap());
    objects.gateways.insert(key("gateway"), Arc::new(gateway));
    for index in 0..trunks {
        let name = format!("trunk-{index}");
        let source = format!("10.{}.{}.1", index / 200, index % 200);
        let spec = json!({"host": "pbx.example.com", "inbound": {"allowedSources": [source]}});
        objects
            .trunks
            .insert(key(&name), Arc::new(SipTrunk::new(&name, serde_json::from_value(spec).unwrap())));
    }
    for index in 0..destinations {
        let name = format!("destination-{index}");
        let spec = json!({
            "type": "number", "number": format!("+316{index:08}"), "description": "Someone who knows",
            "trunkRef": {"name": format!("trunk-{}", index % trunks)},
        });
        let destination = TransferDestination::new(&name, serde_json::from_value(spec).unwrap());
        objects.destinations.insert(key(&name), Arc::new(destination));
    }
    for index in 0..assistants {
        let name = format!("assistant-{index}");
        let listed: Vec<_> = (0..5)
            .map(|listed| json!({"destinationRef": {"name": format!("destination-{}", (index * 5 + listed) % destinations)}}))
            .collect();
        let spec = json!({
            "agent": {"sip": {"uri": "sip:agent@ai.example.com"}},
            "llmConfig": {"tools": [{"type": "transfer_call", "destinations": listed}]},
        });
        objects
            .assistants
            .insert(key(&name), Arc::new(Assistant::new(&name, serde_json::from_value(spec).unwrap())));
    }
    objects.numbers = (0..numbers).map(|index| number(index, index % assistants)).collect();
    objects
}

fn index(objects: &Objects) -> Index {
    let mut index = Index::default();
    index.set_default_gateway(objects.default_gateway.clone());
    index.reset(objects.gateways.clone());
    index.reset(objects.trunks.clone());
    index.reset(objects.destinations.clone());
    index.reset(objects.assistants.clone());
    index.reset(objects.numbers.clone());
    index.settle();
    index
}

fn table(numbers: usize) -> Table {
    compile(&objects(numbers)).tables.remove(&key("gateway")).unwrap()
}

fn parts(table: &Table) -> Parts {
    let slices = cut(table);
    let hash = slice::table_hash(slices.iter().map(|slice| slice.hash.as_str()));
    let pieces = slices.into_iter().map(|slice| Piece {
        content: serde_json::value::to_raw_value(&slice.content).unwrap().into(),
        name: format!("gateway-{}-{}", slice.part, slice.hash),
        hash: slice.hash,
    });
    Parts { generation: 1, hash, slices: pieces.collect(), credentials: BTreeMap::new() }
}

#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn compile_everything(bencher: Bencher<'_, '_>, numbers: usize) {
    let objects = objects(numbers);
    bencher.bench_local(|| index(black_box(&objects)));
}

#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn compile_everything_and_cut_as_defined(bencher: Bencher<'_, '_>, numbers: usize) {
    let objects = objects(numbers);
    bencher.bench_local(|| {
        let compiled = compile(black_box(&objects));
        compiled.tables.values().map(cut).collect::<Vec<_>>()
    });
}

/// One number gets another assistant: checked, put into the table, its slice and the table's hash made anew.
#[divan::bench(args = SIZES, sample_count = 200, sample_size = 1)]
fn compile_and_slice_one_changed_number(bencher: Bencher<'_, '_>, numbers: usize) {
    let mut index = index(&objects(numbers));
    let mut turn = 0;
    bencher.bench_local(|| {
        turn += 1;
        let (key, changed) = number(turn * 37 % numbers, turn % 9);
        index.apply(&key, changed);
        index.settle()
    });
}

/// One destination gets another description.
#[divan::bench(args = SIZES, sample_count = 200, sample_size = 1)]
fn compile_and_slice_one_changed_destination(bencher: Bencher<'_, '_>, numbers: usize) {
    let objects = objects(numbers);
    let mut index = index(&objects);
    let mut turn = 0;
    bencher.bench_local(|| {
        turn += 1;
        let key = key(&format!("destination-{}", turn % 50));
        let mut changed = (*objects.destinations[&key]).clone();
        changed.spec.description = format!("Turn {turn}");
        index.apply(&key, Arc::new(changed));
        index.settle()
    });
}

#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn cut_everything(bencher: Bencher<'_, '_>, numbers: usize) {
    let table = table(numbers);
    bencher.bench_local(|| cut(black_box(&table)));
}

/// The entry of a number, for numbers far from each other in turn: at 100,000 the caches of the processor don't hold them.
/// Many short samples: on a busy machine most of them aren't interrupted.
#[divan::bench(args = SIZES, sample_count = 2000, sample_size = 500)]
fn look_up_a_number(bencher: Bencher<'_, '_>, numbers: usize) {
    let index = decide::Index::new(Arc::new(table(numbers)));
    let mut turn = 0;
    let called: Vec<_> =
        (0..numbers).map(|turn| format!("+3120{:07}", turn * 7919 % numbers).parse().unwrap()).collect();
    bencher.bench_local(|| {
        turn += 1;
        index.number(black_box(&called[turn % called.len()])).unwrap().object.name.len()
    });
}

/// Source address, number format, number, namespace, assistant: all that an INVITE asks.
#[divan::bench(args = SIZES, sample_count = 2000, sample_size = 500)]
fn decide_who_answers(bencher: Bencher<'_, '_>, numbers: usize) {
    let index = decide::Index::new(Arc::new(table(numbers)));
    let source = "10.0.3.1".parse().unwrap();
    let called: Vec<String> = (0..numbers).map(|turn| format!("+3120{:07}", turn * 7919 % numbers)).collect();
    let mut turn = 0;
    bencher.bench_local(|| {
        turn += 1;
        drop(black_box(index.who_answers(source, black_box(&called[turn % called.len()])).unwrap()));
    });
}

/// A gateway goes from one generation to the next, which has one other number: read, verify, make ready.
#[divan::bench(args = SIZES, sample_count = 100, sample_size = 1)]
fn switch_to_a_table_with_one_changed_number(bencher: Bencher<'_, '_>, numbers: usize) {
    let before = table(numbers);
    let mut after = before.clone();
    let at = after.numbers.keys().nth(numbers / 2).unwrap().clone();
    Arc::make_mut(after.numbers.get_mut(&at).unwrap()).fallback = None;
    let generations = [&before, &after].map(|table| {
        let parts = parts(table);
        let (_, snapshot) = parts.clone().assemble().unwrap();
        (parts, snapshot)
    });
    let mut turn = 0;
    bencher.bench_local(|| {
        turn += 1;
        let ((held, before), (next, _)) = (&generations[turn % 2], &generations[(turn + 1) % 2]);
        let table = next.table(held, before.index.table()).unwrap();
        next.snapshot(table, before)
    });
}

/// A gateway starts.
#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn switch_from_nothing(bencher: Bencher<'_, '_>, numbers: usize) {
    let parts = parts(&table(numbers));
    bencher
        .with_inputs(|| parts.clone())
        .bench_local_values(|parts| -> Snapshot { parts.assemble().unwrap().1 });
}
