//! The compiler's tests: golden files, one a subject; properties over generated clusters; and what neither can say.

mod golden;
pub(in crate::routing) mod properties;
pub(in crate::routing) mod world;

use std::collections::BTreeSet;

use crate::resources::conditions::{ConditionStatus, reason};
use crate::routing::table::ObjectKey;

use super::{Kind, ObjectRef, Verdict, compile, secrets_needed};
use world::World;

fn verdict(world: &World, kind: Kind, key: &str) -> Verdict {
    let compiled = compile(&world.objects());
    compiled.verdicts[&ObjectRef { kind, key: key.parse().unwrap() }].clone()
}

#[test]
fn a_refusal_is_the_same_whether_the_target_exists_or_not() {
    let number = r#"
        kind: PhoneNumber
        metadata: {name: main, namespace: shop}
        spec:
          number: "+31201234567"
          transferTrunkRef: {name: pbx, namespace: other}
          gatewayRef: {name: gateway, namespace: other}
    "#;
    let destination = r#"
        kind: TransferDestination
        metadata: {name: sales, namespace: shop}
        spec: {type: number, number: "+31612345678", description: Sales, trunkRef: {name: pbx, namespace: other}}
    "#;
    let trunk = |name: &str| {
        format!(
            "kind: SipTrunk\nmetadata: {{name: {name}, namespace: other}}\nspec: {{host: pbx.example.com}}"
        )
    };
    let gateway =
        |name: &str| format!("kind: SipGateway\nmetadata: {{name: {name}, namespace: other}}\nspec: {{}}");
    let with = World::parse(&[number, destination, &trunk("pbx"), &gateway("gateway")]);
    let without = World::parse(&[number, destination, &trunk("another"), &gateway("another")]);
    for (kind, key) in [(Kind::PhoneNumber, "shop/main"), (Kind::TransferDestination, "shop/sales")] {
        let (with, without) = (verdict(&with, kind, key), verdict(&without, kind, key));
        assert_eq!(with, without);
        assert_eq!(with.resolved_refs.reason, reason::REF_NOT_PERMITTED);
        assert_eq!(with.accepted.status, ConditionStatus::True);
    }
}

#[test]
fn every_reason_of_the_compiler_is_in_a_golden_file() {
    let outputs: String =
        golden::cases().iter().map(|case| std::fs::read_to_string(case.output()).unwrap()).collect();
    for reason in [
        reason::INVALID,
        reason::CONFLICT,
        reason::REF_NOT_FOUND,
        reason::REF_NOT_PERMITTED,
        reason::REF_NOT_ACCEPTED,
        reason::SECRET_KEY_MISSING,
        reason::FALLBACK_LOOP,
    ] {
        assert!(outputs.contains(&format!("False {reason}: ")), "{reason}");
    }
}

#[test]
fn only_secrets_that_objects_name_are_needed() {
    let world = World::parse(&[
        "kind: SipTrunk\nmetadata: {name: a, namespace: shop}\nspec: {host: h, credentialsSecretRef: {name: login}}",
        "kind: SipTrunk\nmetadata: {name: b, namespace: shop}\nspec: {host: h}",
        "kind: SipGateway\nmetadata: {name: g, namespace: sys}\nspec: {apiKeysSecretRef: {name: keys}}",
    ]);
    let named = [ObjectKey::new("shop", "login"), ObjectKey::new("sys", "keys")];
    assert_eq!(secrets_needed(&world.objects()), BTreeSet::from(named));
}

#[test]
fn a_credential_gets_another_name_with_every_version_of_its_secret_and_with_other_keys() {
    let name = |reference: &str, uid: &str, version: &str| {
        let trunk = format!(
            "kind: SipTrunk\nmetadata: {{name: a, namespace: sys}}\nspec: {{host: h, inbound: {{allowedSources: [10.0.0.1]}}, \
             credentialsSecretRef: {reference}}}"
        );
        let facts = format!(
            "kind: Facts\nsecrets: {{sys/login: {{uid: {uid:?}, resourceVersion: {version:?}, keys: [username, password, pass]}}}}"
        );
        let number = "kind: PhoneNumber\nmetadata: {name: main, namespace: sys}\n\
                      spec: {number: '+31201234567', gatewayRef: {name: g}}";
        let gateway = "kind: SipGateway\nmetadata: {name: g, namespace: sys}\nspec: {}";
        let compiled = compile(&World::parse(&[&trunk, &facts, number, gateway]).objects());
        let credentials = &compiled.credentials[&ObjectKey::new("sys", "g")];
        assert_eq!(credentials.len(), 1);
        credentials.keys().next().unwrap().0.clone()
    };
    let first = name("{name: login}", "u1", "1");
    assert_eq!(first, name("{name: login}", "u1", "1"));
    let others = [
        name("{name: login}", "u1", "2"),
        name("{name: login}", "u2", "1"),
        name("{name: login, passwordKey: pass}", "u1", "1"),
        name("{name: login}", "u", "11"),
    ];
    assert_eq!(BTreeSet::from(others).into_iter().filter(|other| *other != first).count(), 4);
}

#[test]
fn a_chain_of_destinations_has_an_end() {
    let destination = |index: usize| {
        format!(
            "kind: TransferDestination\nmetadata: {{name: d{index}, namespace: shop}}\n\
             spec: {{type: number, number: '+31612345678', description: d, onFailure: {{then: [{{name: d{}}}]}}}}",
            index + 1
        )
    };
    let documents: Vec<String> = (0..40).map(destination).collect();
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    let found = verdict(&World::parse(&documents), Kind::TransferDestination, "shop/d0").resolved_refs;
    assert_eq!(found.reason, reason::INVALID);
    assert!(
        found.message.contains("more than 16 destinations") && found.message.contains("d16 "),
        "{}",
        found.message
    );
    let near_the_end = verdict(&World::parse(&documents), Kind::TransferDestination, "shop/d30");
    assert_eq!(near_the_end.resolved_refs.status, ConditionStatus::True);
}

#[test]
fn a_long_list_of_problems_is_counted_where_it_gets_long() {
    let references: String =
        (0..30).map(|index| format!("{{destinationRef: {{name: d{index}}}}}, ")).collect();
    let assistant = format!(
        "kind: Assistant\nmetadata: {{name: a, namespace: shop}}\n\
         spec: {{llmConfig: {{tools: [{{type: transfer_call, destinations: [{references}]}}]}}}}"
    );
    let verdict = verdict(&World::parse(&[&assistant]), Kind::Assistant, "shop/a");
    let message = verdict.resolved_refs.message;
    assert!(message.contains("shop/d9,") && !message.contains("shop/d10,"), "{message}");
    assert!(message.ends_with(" And 20 more."), "{message}");
}
