//! Who answers a call.

use proptest::prelude::*;

use super::*;

pub(super) fn who(world: &World, source: &str, called: &str) -> Result<Answer, AnswerRefusal> {
    world.index().who_answers(source.parse().unwrap(), called)
}

#[test]
fn a_call_is_answered_by_the_assistant_of_its_number() {
    let mut world = World::new();
    world.change_number(|number| number.fallback = Some(key("shop/sales")));
    let answer = who(&world, "203.0.113.7", "31201234567").unwrap();
    assert_eq!((answer.number().as_str(), answer.object()), ("+31201234567", &key("shop/main")));
    assert_eq!(answer.trunk(), &key("shop/carrier"));
    assert_eq!(answer.assistant().unwrap().0, &key("shop/support"));
    assert_eq!(answer.fallback(), Some(&key("shop/sales")));
}

#[test]
fn a_number_whose_assistant_is_missing_is_answered_without_one() {
    let mut world = World::new();
    world.change_number(|number| number.assistant = None);
    assert_eq!(who(&world, "203.0.113.7", "+31201234567").unwrap().assistant(), None);
}

#[test]
fn an_unknown_source_is_refused_and_an_unknown_number_too() {
    let world = World::new();
    let source: IpAddr = "198.51.100.1".parse().unwrap();
    assert_eq!(who(&world, "198.51.100.1", "+31201234567"), Err(AnswerRefusal::UnknownSource(source)));
    let unknown = AnswerRefusal::UnknownNumber(key("shop/carrier"));
    for called in ["+31201234568", "sales", "", "0201234567"] {
        assert_eq!(who(&world, "203.0.113.7", called), Err(unknown.clone()), "{called}");
    }
    let empty = Index::new(Arc::new(Table::default()));
    assert_eq!(empty.who_answers(source, "+31201234567"), Err(AnswerRefusal::UnknownSource(source)));
}

#[test]
fn each_trunk_reads_numbers_in_its_own_format() {
    let mut world = World::new();
    world.change_trunk("shop/carrier", |trunk| {
        trunk.number_format = NumberFormatEntry::National { country_code: "31".into() };
    });
    assert_eq!(who(&world, "203.0.113.7", "0201234567").unwrap().number(), &e164("+31201234567"));
}

#[test]
fn sources_are_matched_in_every_prefix_length_and_family() {
    let mut world = World::new();
    world.change_trunk("shop/carrier", |trunk| {
        let sources = ["203.0.113.7/32", "10.0.0.0/8", "2001:db8::/32"];
        trunk.allowed_sources = sources.iter().map(|source| source.parse().unwrap()).collect();
    });
    for source in ["203.0.113.7", "10.200.3.4", "2001:db8::5", "::ffff:203.0.113.7"] {
        assert!(who(&world, source, "+31201234567").is_ok(), "{source}");
    }
    for source in ["203.0.113.8", "11.0.0.1", "2001:db9::5", "::1"] {
        assert!(
            matches!(who(&world, source, "+31201234567"), Err(AnswerRefusal::UnknownSource(_))),
            "{source}"
        );
    }
}

#[test]
fn a_trunk_in_the_numbers_own_namespace_comes_before_a_shared_one() {
    let mut world = World::new();
    world.trunk("aaa/shared", trunk("shared", &["203.0.113.0/24"], &["aaa", "shop"]));
    assert_eq!(who(&world, "203.0.113.7", "+31201234567").unwrap().trunk(), &key("shop/carrier"));
    world.0.trunks.remove(&key("shop/carrier"));
    assert_eq!(who(&world, "203.0.113.7", "+31201234567").unwrap().trunk(), &key("aaa/shared"));
}

#[test]
fn a_trunk_that_the_numbers_namespace_may_not_use_brings_no_calls_to_it() {
    let mut world = World::new();
    world.trunk("evil/any", trunk("evil", &["0.0.0.0/0"], &["evil"]));
    let refusal = AnswerRefusal::UnknownNumber(key("evil/any"));
    assert_eq!(who(&world, "198.51.100.1", "+31201234567"), Err(refusal));
    assert_eq!(who(&world, "203.0.113.7", "+31201234567").unwrap().trunk(), &key("shop/carrier"));
}

proptest! {
    /// The look-up by source and number is the obvious loop over all trunks, only faster.
    #[test]
    fn who_answers_agrees_with_a_loop_over_all_trunks(
        trunks in proptest::collection::btree_map(
            ("[abc]", "[xyz]"),
            (proptest::collection::vec((0u8..4, 0u8..4, 22u8..=32), 0..3), proptest::collection::btree_set("[abc]", 0..3)),
            0..8,
        ),
        owner in "[abc]",
        source in (0u8..4, 0u8..4),
    ) {
        let mut table = Table::default();
        table.numbers.insert(e164("+31201234567"), Arc::new(number(&format!("{owner}/main"))));
        for ((namespace, name), (networks, allowed)) in trunks {
            let mut entry = trunk("host", &[], &[]);
            entry.allowed_sources = networks
                .into_iter()
                .map(|(c, d, length)| format!("10.0.{c}.{d}/{length}").parse().unwrap())
                .collect();
            entry.allowed_namespaces = allowed.into_iter().collect();
            table.trunks.insert(ObjectKey::new(namespace, name), Arc::new(entry));
        }
        let source: IpAddr = format!("10.0.{}.{}", source.0, source.1).parse().unwrap();
        let admitting: Vec<_> = table.trunks.iter().filter(|(_, entry)| entry.admits(source)).collect();
        let expected = match admitting.first() {
            None => Err(AnswerRefusal::UnknownSource(source)),
            Some((first, _)) => admitting
                .iter()
                .filter(|(_, entry)| entry.allowed_namespaces.contains(&owner))
                .min_by_key(|(key, _)| (key.namespace != owner, *key))
                .map(|(key, _)| (*key).clone())
                .ok_or_else(|| AnswerRefusal::UnknownNumber((*first).clone())),
        };
        let found = Index::new(Arc::new(table.clone())).who_answers(source, "+31201234567").map(|answer| answer.trunk().clone());
        prop_assert_eq!(found, expected);
    }
}
