//! Properties over generated clusters: small, dense in references, with everything broken now and then.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::World;
use crate::resources::conditions::{ConditionStatus, reason};
use crate::routing::compile::{Compiled, Kind, ObjectRef, Objects, compile};
use crate::routing::slice::{cut, join};
use crate::routing::table::{ObjectKey, Table};

fn key() -> impl Strategy<Value = (String, String)> {
    ("n[ab]", "k[0-3]")
}

fn reference() -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => Just(Value::Null),
        2 => "k[0-3]".prop_map(|name| json!({"name": name})),
        1 => key().prop_map(|(namespace, name)| json!({"name": name, "namespace": namespace})),
    ]
}

fn local() -> impl Strategy<Value = Value> {
    prop_oneof![1 => Just(Value::Null), 3 => "k[0-3]".prop_map(|name| json!({"name": name}))]
}

fn grant() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!({"from": "All"})),
        Just(json!({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}})),
    ]
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![8 => "\\+3120000000[0-5]", 1 => Just("020".to_owned())]
}

fn trunk() -> impl Strategy<Value = Value> {
    let sources = proptest::collection::vec("10\\.0\\.[0-3]\\.0/24", 0..3);
    (grant(), sources, any::<bool>(), 0..8u8, local()).prop_map(
        |(grant, sources, inbound, broken, secret)| {
            json!({
                "host": "pbx.example.com",
                "transport": if broken == 0 { "TLS" } else { "UDP" },
                "allowedNamespaces": grant,
                "inbound": if inbound { json!({"allowedSources": sources}) } else { Value::Null },
                "credentialsSecretRef": secret,
            })
        },
    )
}

fn destination() -> impl Strategy<Value = Value> {
    let then = proptest::collection::vec("k[0-3]".prop_map(|name| json!({"name": name})), 0..3);
    (number(), reference(), then, 0..8u8).prop_map(|(number, trunk, then, kind)| {
        let mut spec = json!({"type": "number", "number": number, "description": "d", "trunkRef": trunk});
        match kind {
            0 => spec = json!({"type": "sip", "uri": "sip:desk@example.com", "description": "d", "trunkRef": trunk}),
            1 => spec["message"] = "One moment.".into(),
            2 => spec["method"] = "Refer".into(),
            _ => {}
        }
        if !then.is_empty() {
            spec["onFailure"] = json!({ "then": then });
        }
        spec
    })
}

/// Where an agent is told what to say.
fn hook() -> impl Strategy<Value = Value> {
    let hook = |name: String| json!({"url": "http://ai/hook", "secretRef": {"name": name}});
    prop_oneof![1 => Just(Value::Null), 1 => "k[0-3]".prop_map(hook)]
}

fn assistant() -> impl Strategy<Value = Value> {
    let listed = prop_oneof![
        3 => "k[0-3]".prop_map(|name| json!({"destinationRef": {"name": name}})),
        1 => (number(), any::<bool>()).prop_map(|(number, says)| {
            let message = says.then_some("One moment.");
            json!({"type": "number", "number": number, "description": "d", "message": message})
        }),
    ];
    (proptest::collection::vec(listed, 0..4), 0..8u8, hook()).prop_map(|(destinations, agent, hook)| {
        let tools = if destinations.is_empty() {
            json!([{"type": "end_call"}])
        } else {
            json!([{"type": "transfer_call", "destinations": destinations}])
        };
        let agent = match agent {
            0 => json!({"sip": {"uri": "sips:agent@ai"}}),
            1 | 2 => Value::Null,
            3 => json!({"openai": {
                "projectId": "proj_b", "apiKeySecretRef": {"name": "k0", "key": "password"},
                "webhookSecretRef": {"name": "k0", "key": "secret"},
            }}),
            _ => json!({"sip": {"uri": "sip:agent@ai", "hook": hook}}),
        };
        json!({"agent": agent, "llmConfig": {"tools": tools}})
    })
}

fn phone_number() -> impl Strategy<Value = Value> {
    (number(), local(), reference(), local(), reference()).prop_map(
        |(number, assistant, trunk, fallback, gateway)| {
            json!({
                "number": number,
                "assistantRef": assistant,
                "transferTrunkRef": trunk,
                "fallbackRef": fallback,
                "gatewayRef": gateway,
            })
        },
    )
}

fn gateway() -> impl Strategy<Value = Value> {
    let agent = proptest::option::of("default|other");
    (grant(), agent, hook(), 0..8u8).prop_map(|(grant, default, hook, broken)| {
        let secret = json!({"name": "k0", "key": "password"});
        let openai =
            json!({"openai": {"projectId": "proj_a", "apiKeySecretRef": secret, "webhookSecretRef": secret}});
        let sip = default.map(|user| json!({"sip": {"uri": format!("sip:{user}@ai"), "hook": hook}}));
        json!({"allowedNamespaces": grant, "defaultAgent": if broken == 0 { Some(openai) } else { sip }})
    })
}

/// An object of any kind.
pub(in crate::routing) fn object() -> impl Strategy<Value = Value> {
    let of = |kind: &'static str, spec: BoxedStrategy<Value>| {
        (key(), spec, 0..3u8).prop_map(move |((namespace, name), spec, age)| {
            let created = format!("2026-01-01T00:00:0{age}Z");
            without_nulls(json!({
                "kind": kind,
                "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
                "spec": spec,
            }))
        })
    };
    prop_oneof![
        3 => of("SipTrunk", trunk().boxed()),
        4 => of("TransferDestination", destination().boxed()),
        4 => of("Assistant", assistant().boxed()),
        6 => of("PhoneNumber", phone_number().boxed()),
        2 => of("SipGateway", gateway().boxed()),
    ]
}

/// Objects with unique keys in some order, the facts last.
fn cluster() -> impl Strategy<Value = Vec<Value>> {
    proptest::collection::vec(object(), 0..40).prop_map(|objects| {
        let mut seen = BTreeSet::new();
        let mut unique: Vec<Value> =
            objects.into_iter().filter(|object| seen.insert(name_of(object))).collect();
        let mut gateway =
            json!({"kind": "SipGateway", "metadata": {"name": "default", "namespace": "na"}, "spec": {}});
        gateway["spec"]["allowedNamespaces"] = json!({"from": "All"});
        unique.push(gateway);
        unique.push(json!({
            "kind": "Facts",
            "defaultGateway": "na/default",
            "namespaces": {"na": {"team": "a"}, "nb": {}},
            "secrets": {
                "na/k0": {"uid": "1", "resourceVersion": "1", "keys": ["username", "password", "secret"]},
                "na/k1": {"uid": "2", "resourceVersion": "1", "keys": ["username"]},
                "nb/k0": {"uid": "3", "resourceVersion": "1", "keys": ["secret", "password"]},
            },
        }));
        unique
    })
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Value::Array(values) => values.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

fn name_of(object: &Value) -> String {
    format!("{} {}/{}", object["kind"], object["metadata"]["namespace"], object["metadata"]["name"])
}

fn compiled(documents: &[Value]) -> Compiled {
    compile(&World::from_values(documents.iter().cloned()).objects())
}

/// The bytes that would be published.
fn published(compiled: &Compiled) -> String {
    let slices: Vec<_> = compiled.tables.iter().map(|(gateway, table)| (gateway, cut(table))).collect();
    format!("{slices:?}")
}

/// Everything that refers to `target`, directly or through others, and itself.
fn referring(objects: &Objects, target: &ObjectRef) -> BTreeSet<ObjectRef> {
    let at = |kind, key: ObjectKey| ObjectRef { kind, key };
    let mut edges: Vec<(ObjectRef, ObjectRef)> = Vec::new();
    for (key, object) in &objects.destinations {
        let from = at(Kind::TransferDestination, key.clone());
        edges.extend(object.spec.trunk_ref.iter().map(|named| {
            let namespace = named.namespace.as_ref().unwrap_or(&key.namespace);
            (from.clone(), at(Kind::SipTrunk, ObjectKey::new(namespace, &named.name)))
        }));
        let then = object.spec.on_failure.iter().flat_map(|on_failure| &on_failure.then);
        edges.extend(then.map(|named| {
            (from.clone(), at(Kind::TransferDestination, ObjectKey::new(&key.namespace, &named.name)))
        }));
    }
    for (key, object) in &objects.assistants {
        let tools = object.spec.llm_config.iter().flat_map(|llm_config| &llm_config.tools);
        let named =
            tools.flat_map(|tool| &tool.destinations).filter_map(|listed| listed.destination_ref.as_ref());
        edges.extend(named.map(|named| {
            let destination = ObjectKey::new(&key.namespace, &named.name);
            (at(Kind::Assistant, key.clone()), at(Kind::TransferDestination, destination))
        }));
    }
    for (key, object) in &objects.numbers {
        let from = at(Kind::PhoneNumber, key.clone());
        let spec = &object.spec;
        let own = |name: &String| ObjectKey::new(&key.namespace, name);
        edges.extend(
            spec.assistant_ref.iter().map(|named| (from.clone(), at(Kind::Assistant, own(&named.name)))),
        );
        edges.extend(
            spec.fallback_ref
                .iter()
                .map(|named| (from.clone(), at(Kind::TransferDestination, own(&named.name)))),
        );
        edges.extend(spec.transfer_trunk_ref.iter().map(|named| {
            let namespace = named.namespace.as_ref().unwrap_or(&key.namespace);
            (from.clone(), at(Kind::SipTrunk, ObjectKey::new(namespace, &named.name)))
        }));
    }
    let mut found = BTreeSet::from([target.clone()]);
    loop {
        let more: Vec<_> =
            edges.iter().filter(|(_, to)| found.contains(to)).map(|(from, _)| from.clone()).collect();
        let before = found.len();
        found.extend(more);
        if found.len() == before {
            return found;
        }
    }
}

fn assert_closed(table: &Table) -> Result<(), TestCaseError> {
    let namespaces: BTreeSet<&String> =
        table.numbers.values().map(|number| &number.object.namespace).collect();
    let mut reached = BTreeSet::new();
    for number in table.numbers.values() {
        let namespace = &number.object.namespace;
        if let Some(assistant) = &number.assistant {
            prop_assert_eq!(&assistant.namespace, namespace);
            let assistant = &table.assistants[assistant];
            reached.extend(assistant.destinations.values());
        }
        if let Some(trunk) = &number.transfer_trunk {
            prop_assert!(table.trunks[trunk].allowed_namespaces.contains(namespace));
            prop_assert!(!number.transfer_trunk_unusable);
        }
        reached.extend(&number.fallback);
    }
    let answering: BTreeSet<_> =
        table.numbers.values().filter_map(|number| number.assistant.as_ref()).collect();
    prop_assert_eq!(answering, table.assistants.keys().collect::<BTreeSet<_>>());
    for destination in reached.clone() {
        reached.extend(&table.destinations[destination].then);
    }
    prop_assert_eq!(reached, table.destinations.keys().collect::<BTreeSet<_>>());
    for (key, destination) in &table.destinations {
        let chain: BTreeSet<_> = std::iter::once(key).chain(&destination.then).collect();
        prop_assert_eq!(chain.len(), destination.then.len() + 1, "nobody is in a chain twice");
        if let Some(trunk) = &destination.trunk {
            prop_assert!(table.trunks[trunk].allowed_namespaces.contains(&key.namespace));
        }
    }
    for trunk in table.trunks.values() {
        prop_assert!(!trunk.allowed_namespaces.is_empty());
        prop_assert!(trunk.allowed_namespaces.is_sorted());
        prop_assert!(trunk.allowed_namespaces.iter().all(|namespace| namespaces.contains(namespace)));
        prop_assert!(!(trunk.credentials_missing && trunk.credential.is_some()));
    }
    Ok(())
}

/// Breaks an object so that it is no longer accepted; a PhoneNumber is taken away.
fn break_document(documents: &mut Vec<Value>, index: usize) -> Option<ObjectRef> {
    let document = &mut documents[index];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let metadata = &document["metadata"];
    let key = ObjectKey::new(text(&metadata["namespace"]), text(&metadata["name"]));
    let kind = match document["kind"].as_str().unwrap() {
        "SipTrunk" => {
            document["spec"]["host"] = json!("not a host");
            Kind::SipTrunk
        }
        "TransferDestination" => {
            document["spec"]["number"] = json!("020");
            Kind::TransferDestination
        }
        "Assistant" => {
            document["spec"]["agent"] = json!({"sip": {"uri": "not a URI"}});
            Kind::Assistant
        }
        "PhoneNumber" => {
            documents.remove(index);
            Kind::PhoneNumber
        }
        _ => return None,
    };
    Some(ObjectRef { kind, key })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_same_objects_in_any_order_give_the_same_bytes(
        (documents, shuffled) in cluster().prop_flat_map(|documents| (Just(documents.clone()), Just(documents).prop_shuffle()))
    ) {
        let mut shuffled = shuffled;
        for document in &mut shuffled {
            if let Some(sources) = document.pointer_mut("/spec/inbound/allowedSources").and_then(Value::as_array_mut) {
                sources.reverse();
            }
        }
        let (one, other) = (compiled(&documents), compiled(&shuffled));
        prop_assert_eq!(published(&one), published(&other));
        prop_assert_eq!(one, other);
    }

    #[test]
    fn every_reference_in_a_table_leads_somewhere_and_tables_survive_cutting(documents in cluster()) {
        let compiled = compiled(&documents);
        for (gateway, table) in &compiled.tables {
            assert_closed(table)?;
            let slices = cut(table);
            let parts = slices.iter().map(|slice| (slice.part.as_str(), slice.hash.as_str(), &slice.content));
            prop_assert_eq!(&join(parts).unwrap(), table);
            let named: BTreeSet<_> = table.credentials().map(|(.., id)| id).collect();
            prop_assert_eq!(named, compiled.credentials[gateway].keys().collect::<BTreeSet<_>>());
        }
    }

    #[test]
    fn verdicts_say_what_the_tables_hold(documents in cluster()) {
        let compiled = compiled(&documents);
        prop_assert_eq!(compiled.verdicts.len(), documents.len() - 1);
        let mut holders = BTreeSet::new();
        for (object, verdict) in &compiled.verdicts {
            for gateway in &verdict.gateways {
                let table = &compiled.tables[gateway];
                let held = match object.kind {
                    Kind::Assistant => table.assistants.contains_key(&object.key),
                    Kind::PhoneNumber => table.numbers.values().any(|number| number.object == object.key),
                    Kind::SipGateway => *gateway == object.key,
                    Kind::SipTrunk => table.trunks.contains_key(&object.key),
                    Kind::TransferDestination => table.destinations.contains_key(&object.key),
                };
                prop_assert!(held, "{:?} in {}", object, gateway);
            }
            if verdict.accepted.status == ConditionStatus::False {
                prop_assert!(verdict.gateways.is_empty(), "{:?}", object);
            }
            prop_assert!(!verdict.accepted.message.is_empty() && verdict.accepted.message.ends_with('.'));
            prop_assert!(!verdict.resolved_refs.message.is_empty() && verdict.resolved_refs.message.ends_with('.'));
            if object.kind == Kind::PhoneNumber && !verdict.gateways.is_empty() {
                holders.insert(object.key.clone());
            }
        }
        let held = compiled.tables.values().flat_map(|table| table.numbers.values().map(|number| number.object.clone()));
        prop_assert_eq!(held.collect::<BTreeSet<_>>(), holders);
    }

    #[test]
    fn a_broken_object_changes_nothing_for_objects_that_do_not_refer_to_it(
        documents in cluster(), index in any::<prop::sample::Index>()
    ) {
        let mut broken = documents.clone();
        let Some(target) = break_document(&mut broken, index.index(documents.len() - 2 + usize::from(documents.len() == 2)))
        else { return Ok(()) };
        let objects = World::from_values(documents.iter().cloned()).objects();
        let mut related = referring(&objects, &target);
        if target.kind == Kind::PhoneNumber {
            // Who was in conflict with it may hold the number now, and who it named is no longer asked of.
            let number = &objects.numbers[&target.key].spec;
            let rivals = objects.numbers.iter().filter(|(_, rival)| rival.spec.number == number.number);
            related.extend(rivals.map(|(key, _)| ObjectRef { kind: Kind::PhoneNumber, key: key.clone() }));
            related.extend(number.assistant_ref.iter().map(|named| ObjectRef {
                kind: Kind::Assistant,
                key: ObjectKey::new(&target.key.namespace, &named.name),
            }));
        }
        let (before, after) = (compiled(&documents), compiled(&broken));
        for (object, verdict) in before.verdicts.iter().filter(|(object, _)| !related.contains(object)) {
            let now = &after.verdicts[object];
            prop_assert_eq!((&verdict.accepted, &verdict.resolved_refs), (&now.accepted, &now.resolved_refs), "{:?}", object);
        }
        let unrelated = |kind, key: &ObjectKey| !related.contains(&ObjectRef { kind, key: key.clone() });
        for (gateway, before) in &before.tables {
            let after = &after.tables[gateway];
            for (number, entry) in before.numbers.iter().filter(|(_, entry)| unrelated(Kind::PhoneNumber, &entry.object)) {
                prop_assert_eq!(Some(entry), after.numbers.get(number));
            }
            for (key, entry) in before.assistants.iter().filter(|(key, _)| unrelated(Kind::Assistant, key)) {
                prop_assert_eq!(entry, after.assistants.get(key).unwrap_or(entry));
            }
            for (key, entry) in before.destinations.iter().filter(|(key, _)| unrelated(Kind::TransferDestination, key)) {
                prop_assert_eq!(entry, after.destinations.get(key).unwrap_or(entry));
            }
        }
    }

    #[test]
    fn two_objects_never_hold_one_number_on_one_gateway(documents in cluster()) {
        let compiled = compiled(&documents);
        let objects = World::from_values(documents.iter().cloned()).objects();
        for (object, verdict) in &compiled.verdicts {
            if verdict.accepted.reason != reason::CONFLICT {
                continue;
            }
            let loser = &objects.numbers[&object.key];
            let holders: Vec<_> = objects
                .numbers
                .iter()
                .filter(|(key, other)| *key != &object.key && other.spec.number == loser.spec.number)
                .filter(|(key, _)| verdict.accepted.message.contains(&format!("PhoneNumber {key} holds")))
                .collect();
            prop_assert_eq!(holders.len(), 1, "{}", verdict.accepted.message);
            let (key, holder) = holders[0];
            let age = |key: &ObjectKey, number: &crate::resources::PhoneNumber| {
                (number.metadata.creation_timestamp.clone(), key.clone())
            };
            prop_assert!(age(key, holder) < age(&object.key, loser));
        }
    }
}
