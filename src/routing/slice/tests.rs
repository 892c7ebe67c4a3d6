use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::routing::schedule::{Hours, Schedule};
use crate::routing::table::{
    AgentEntry, AssistantEntry, BackupEntry, CallerIdEntry, CallerIdHeaderEntry, DestinationEntry,
    DestinationTarget, E164, FailoverEntry, Limits, NumberEntry, NumberFormatEntry, ObjectKey, ReferEntry,
    SessionTimerEntry, SipTarget, TransportEntry, TrunkEntry,
};

fn number(index: usize) -> (E164, Arc<NumberEntry>) {
    let entry = NumberEntry {
        object: ObjectKey::new("shop", format!("line-{index}")),
        assistant: Some(ObjectKey::new("shop", "support")),
        transfer_trunk: Some(ObjectKey::new("shop", "office")),
        transfer_trunk_unusable: false,
        fallback: None,
    };
    (format!("+3120{index:07}").parse().unwrap(), Arc::new(entry))
}

fn target() -> SipTarget {
    SipTarget {
        uri: "sip:agent@host:5060".into(),
        host: "host".into(),
        port: Some(5060),
        transport: TransportEntry::Tcp,
        any_transport: false,
        route: None,
        tls: None,
    }
}

fn destination(description: String) -> Arc<DestinationEntry> {
    Arc::new(DestinationEntry {
        target: DestinationTarget::Sip(target()),
        description,
        message: None,
        trunk: None,
        by_refer: false,
        ring_timeout_seconds: 30,
        caller_id: CallerIdEntry::Fixed("+31201234567".parse().unwrap()),
        headers: vec![("X-Reason".into(), "sales".into())],
        schedule: Some(Schedule::new(
            "Europe/Amsterdam".parse().unwrap(),
            vec![Hours::new(6, "22:00", "24:00").unwrap()],
        )),
        then: vec![ObjectKey::new("shop", "night")],
        return_to_assistant: true,
    })
}

/// A table with an entry of each kind and of each variant.
fn table(numbers: usize) -> Table {
    let mut table = Table { numbers: (0..numbers).map(number).collect(), ..Table::default() };
    let key = ObjectKey::new("shop", "support");
    table.assistants.insert(
        key.clone(),
        Arc::new(AssistantEntry {
            agent: AgentEntry::Sip {
                targets: vec![target()],
                headers: vec![],
                answer_timeout_seconds: 10,
                hook: None,
            },
            destinations: BTreeMap::from([("sales".into(), ObjectKey::new("shop", "sales"))]),
            script: None,
            events: None,
        }),
    );
    table.destinations.insert(ObjectKey::new("shop", "sales"), destination("Sales: \"prices\" ≤ 5 €".into()));
    table.trunks.insert(
        ObjectKey::new("shop", "office"),
        Arc::new(TrunkEntry {
            host: "2001:db8::1".into(),
            port: None,
            transport: TransportEntry::Udp,
            any_transport: false,
            proxy: None,
            refer: Some(ReferEntry::Tel),
            failover: Some(FailoverEntry {
                hosts: vec![BackupEntry { priority: 10, host: "b".into(), port: Some(5070), weight: 1 }],
                final_codes: vec![486],
            }),
            credential: None,
            tls: None,
            credentials_missing: true,
            realm: Some("pbx".into()),
            authenticates: false,
            allowed_sources: vec!["203.0.113.0/24".parse().unwrap()],
            number_format: NumberFormatEntry::National { country_code: "31".into() },
            allowed_prefixes: vec!["+31".into()],
            denied_prefixes: vec![],
            limits: Limits { calls: Some(50), calls_per_second: None },
            inbound_limits: Limits { calls: None, calls_per_second: Some(5) },
            probe_seconds: None,
            register_seconds: None,
            caller_id_header: CallerIdHeaderEntry::PAI,
            session_timer: SessionTimerEntry { min_seconds: 90, seconds: 600 },
            allowed_namespaces: vec!["shop".into()],
        }),
    );
    table
}

fn join_all(slices: &[Slice]) -> Result<Table, SliceError> {
    join(slices.iter().map(|slice| (slice.part.as_str(), slice.hash.as_str(), &slice.content)))
}

#[test]
fn a_table_survives_being_cut_written_as_json_or_yaml_and_joined() {
    let table = table(2000);
    let slices = cut(&table);
    assert!(slices.len() > 5, "{}", slices.len());
    let json: Vec<Slice> = slices
        .iter()
        .map(|slice| Slice {
            content: serde_json::from_str(&slice.content.to_string()).unwrap(),
            ..slice.clone()
        })
        .collect();
    assert_eq!(join_all(&json).unwrap(), table);
    let yaml: Vec<Slice> = slices
        .iter()
        .map(|slice| {
            let text = serde_saphyr::to_string(&slice.content).unwrap();
            Slice { content: serde_saphyr::from_str(&text).unwrap(), ..slice.clone() }
        })
        .collect();
    assert_eq!(join_all(&yaml).unwrap(), table);
    let backwards: Vec<Slice> = slices.into_iter().rev().collect();
    assert_eq!(join_all(&backwards).unwrap(), table);
}

#[test]
fn an_empty_table_has_no_slices() {
    assert_eq!(cut(&Table::default()), vec![]);
    assert_eq!(join_all(&[]).unwrap(), Table::default());
}

#[test]
fn one_changed_number_changes_exactly_one_slice() {
    let before = table(8000);
    let mut after = before.clone();
    let entry = after.numbers.get_mut(&number(1234).0).unwrap();
    Arc::make_mut(entry).assistant = Some(ObjectKey::new("shop", "sales"));
    let (before, after) = (cut(&before), cut(&after));
    assert_eq!(before.len(), after.len());
    assert!(before.len() > 16);
    let changed: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].0.part, changed[0].1.part);
    assert_ne!(changed[0].0.hash, changed[0].1.hash);
    let table = |slices: &[Slice]| table_hash(slices.iter().map(|slice| slice.hash.as_str()));
    assert_ne!(table(&before), table(&after));
}

/// The keys of a slice's entries.
fn keys(slice: &Slice) -> Vec<&String> {
    slice.content[&slice.part].as_object().unwrap().keys().collect()
}

#[test]
fn slices_hold_the_entries_of_a_part_in_the_order_of_their_keys_text() {
    let mut table = table(3000);
    for (index, namespace) in ["a", "a-b", "a.b", "b"].into_iter().cycle().take(800).enumerate() {
        let key = ObjectKey::new(namespace, format!("dest-{index:03}"));
        table.destinations.insert(key, destination("Someone".to_owned()));
    }
    let slices = cut(&table);
    for part in ["assistants", "destinations", "numbers", "trunks"] {
        let of_part: Vec<&Slice> = slices.iter().filter(|slice| slice.part == part).collect();
        let all: Vec<&String> = of_part.iter().flat_map(|slice| keys(slice)).collect();
        assert!(all.is_sorted(), "{part}");
        assert!(of_part.len() >= all.len() / 300, "{part} has {} slices", of_part.len());
    }
    let parts: Vec<&String> = slices.iter().map(|slice| &slice.part).collect();
    assert!(parts.is_sorted());
    assert_eq!(join_all(&slices).unwrap(), table);
}

#[test]
fn large_entries_are_parted_and_one_that_is_too_large_stands_alone() {
    let mut table = Table::default();
    for index in 0..12 {
        let size = if index == 3 { LIMIT_BYTES + 1 } else { LIMIT_BYTES / 2 + 1 };
        table
            .destinations
            .insert(ObjectKey::new("shop", format!("dest-{index}")), destination("x".repeat(size)));
    }
    let slices = cut(&table);
    assert!(slices.iter().all(|slice| keys(slice).len() == 1));
    assert_eq!(slices.len(), 12);
    assert_eq!(join_all(&slices).unwrap(), table);
}

#[test]
fn no_slice_of_several_entries_passes_the_limit_and_none_is_cut_that_fits() {
    for size in [5_000, 30_000, 60_000] {
        let mut table = Table::default();
        for index in 0..150 {
            let key = ObjectKey::new("shop", format!("dest-{index:03}"));
            table.destinations.insert(key, destination("x".repeat(size)));
        }
        let slices = cut(&table);
        assert!(slices.iter().all(|slice| slice.content.to_string().len() <= LIMIT_BYTES), "{size}");
        let entry = slices[0].content.to_string().len() / keys(&slices[0]).len();
        let fitting = LIMIT_BYTES / entry;
        let fewest = 150_usize.div_ceil(fitting);
        assert!((fewest..=fewest * 8).contains(&slices.len()), "{} of at least {fewest}", slices.len());
        assert_eq!(join_all(&slices).unwrap(), table);
    }
}

#[test]
fn a_section_is_not_cut_again_before_its_slice_passes_the_limit() {
    let of_size = |size| {
        let mut table = Table::default();
        for (index, size) in [(1, 1000), (2, size)] {
            let key = ObjectKey::new("shop", format!("dest-{index}"));
            assert!(!PartName::Destinations.ends_after(&key.to_string()));
            table.destinations.insert(key, destination("x".repeat(size)));
        }
        cut(&table)
    };
    let rest = of_size(0)[0].content.to_string().len();
    assert_eq!(of_size(LIMIT_BYTES - rest).len(), 1);
    assert_eq!(of_size(LIMIT_BYTES - rest + 1).len(), 2);
}

#[test]
fn maps_of_json_are_sorted_so_that_their_text_is_canonical() {
    let value: Value = serde_json::from_str(r#"{"b": 1, "a": {"d": 2, "c": 3}}"#).unwrap();
    assert_eq!(value.to_string(), r#"{"a":{"c":3,"d":2},"b":1}"#);
}

#[test]
fn names_and_hashes_of_slices_are_part_of_the_format() {
    let slices = cut(&table(1));
    let names: Vec<_> = slices.iter().map(|slice| format!("{} {}", slice.part, slice.hash)).collect();
    let expected = [
        "assistants 5d9d46f7f607aeb64dbb7f56621f80f7",
        "destinations 2b4a7886347497bb5d1a5b38a1cad41e",
        "numbers 2a4720a5219409e1e70fb578d76f56ac",
        "trunks e8765968063b9495191476e1b8400858",
    ];
    assert_eq!(names, expected);
}

#[test]
fn where_slices_end_is_part_of_the_format() {
    let slices = cut(&table(1500));
    let numbers = slices.iter().filter(|slice| slice.part == "numbers");
    let ends: Vec<&str> = numbers.map(|slice| keys(slice).pop().unwrap().as_str()).collect();
    let expected =
        ["+31200000238", "+31200000805", "+31200000882", "+31200001356", "+31200001466", "+31200001499"];
    assert_eq!(ends, expected);
}

#[test]
fn fields_are_written_in_camel_case_and_without_nulls() {
    let text: String = cut(&table(1)).iter().map(|slice| slice.content.to_string()).collect();
    assert!(text.contains(r#""answerTimeoutSeconds":10"#), "{text}");
    assert!(text.contains(r#""countryCode":"31""#), "{text}");
    assert!(!text.contains("null") && !text.contains('_'), "{text}");
}

#[test]
fn a_slice_whose_content_is_not_what_the_head_says_is_refused() {
    let mut slices = cut(&table(3));
    slices[0].content["assistants"]["shop/support"]["agent"]["sip"]["answerTimeoutSeconds"] = 11.into();
    let refusal = join_all(&slices).unwrap_err();
    assert!(matches!(&refusal, SliceError::WrongHash { part, .. } if part == "assistants"), "{refusal}");
}

#[test]
fn a_slice_that_this_version_cannot_read_is_refused() {
    for content in [r#"{"queues": {}}"#, r#"{"numbers": {"0201234567": {"object": "a/b"}}}"#, r#"3"#] {
        let content: Value = serde_json::from_str(content).unwrap();
        let slice = Slice { part: "queues".into(), hash: hash(&content), content };
        let refusal = join_all(&[slice]).unwrap_err();
        assert!(matches!(refusal, SliceError::Unreadable { .. }), "{refusal}");
    }
}

#[test]
fn slices_of_two_generations_that_hold_the_same_entry_are_refused() {
    let mut slices = cut(&table(700));
    slices.extend(cut(&table(1)).into_iter().filter(|slice| slice.part.starts_with("numbers")));
    let refusal = join_all(&slices).unwrap_err();
    assert!(matches!(refusal, SliceError::Overlap { .. }), "{refusal}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_numbers_survive_cut_and_join(indices in proptest::collection::btree_set(0usize..9_999_999, 0..600)) {
        let mut table = table(0);
        table.numbers = indices.into_iter().map(number).collect();
        prop_assert_eq!(join_all(&cut(&table)).unwrap(), table);
    }
}
