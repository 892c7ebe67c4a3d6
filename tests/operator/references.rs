//! Each kind of reference × {created later, deleted, changed, rotated}, and conflicts.

use serde_json::{Value, json};
use voicedock::routing::table::{DestinationTarget, Table};

use crate::stage::{GATEWAY, Stage, main_number, office_trunk, sales, support_assistant};

/// A reference: who holds it, what it names, and whether the table shows that it is followed.
struct Reference {
    field: &'static str,
    from: (&'static str, &'static str),
    to: (&'static str, &'static str, Value),
    followed: fn(&Table) -> bool,
}

fn number(table: &Table) -> Option<&voicedock::routing::table::NumberEntry> {
    table.numbers.values().next().map(|entry| &**entry)
}

/// Every reference but that to the gateway and those to Secrets, which have tests of their own.
fn references() -> Vec<Reference> {
    let object = |kind, name, spec| (kind, name, spec);
    vec![
        Reference {
            field: "PhoneNumber.assistantRef",
            from: ("PhoneNumber", "main"),
            to: object("Assistant", "support", support_assistant(&["sales"])),
            followed: |table| number(table).is_some_and(|number| number.assistant.is_some()),
        },
        Reference {
            field: "PhoneNumber.transferTrunkRef",
            from: ("PhoneNumber", "main"),
            to: object("SipTrunk", "line", json!({ "host": "line.example.com" })),
            followed: |table| number(table).is_some_and(|number| number.transfer_trunk.is_some()),
        },
        Reference {
            field: "PhoneNumber.fallbackRef",
            from: ("PhoneNumber", "main"),
            to: object("TransferDestination", "reception", sales("+31612345679")),
            followed: |table| number(table).is_some_and(|number| number.fallback.is_some()),
        },
        Reference {
            field: "Assistant.destinationRef",
            from: ("Assistant", "support"),
            to: object("TransferDestination", "sales", sales("+31612345678")),
            followed: |table| {
                table.assistants.values().any(|assistant| assistant.destinations.contains_key("sales"))
            },
        },
        Reference {
            field: "TransferDestination.trunkRef",
            from: ("TransferDestination", "sales"),
            to: object("SipTrunk", "office", office_trunk()),
            followed: |table| table.destinations.keys().any(|key| key.name == "sales"),
        },
    ]
}

async fn everything_but(stage: &Stage, missing: &str) {
    stage.secret("office-pbx", &[("username", "acme"), ("password", "first-password")]).await;
    let mut main = main_number("+31201234567");
    main["transferTrunkRef"] = json!({ "name": "line" });
    main["fallbackRef"] = json!({ "name": "reception" });
    let all = [
        ("SipTrunk", "office", office_trunk()),
        ("SipTrunk", "line", json!({ "host": "line.example.com" })),
        ("TransferDestination", "sales", sales("+31612345678")),
        ("TransferDestination", "reception", sales("+31612345679")),
        ("Assistant", "support", support_assistant(&["sales"])),
        ("PhoneNumber", "main", main),
    ];
    for (kind, name, spec) in all {
        if name != missing {
            stage.apply(kind, name, spec).await;
        }
    }
}

#[tokio::test]
async fn a_reference_to_what_comes_later_heals_by_itself_and_breaks_when_it_is_deleted() {
    let (stage, _operator, _pod) = Stage::set("ref").await;
    everything_but(&stage, "none").await;
    for Reference { field, from, to: (kind, name, spec), followed } in references() {
        stage.is_ready(from.0, from.1).await;
        stage.table_where(&format!("{field} in the table"), followed).await;

        stage.delete(kind, name).await;
        let message = stage.says(from.0, from.1, "ResolvedRefs", "False", "RefNotFound").await;
        assert!(message.contains(&format!("{}/{name}", stage.namespace)), "{field}: {message}");
        stage.says(from.0, from.1, "Ready", "False", "RefNotFound").await;
        stage.table_where(&format!("{field} out of the table"), |table| !followed(table)).await;

        stage.apply(kind, name, spec).await;
        stage.is_ready(from.0, from.1).await;
        stage.is_ready(kind, name).await;
        stage.table_where(&format!("{field} in the table again"), followed).await;
    }
}

#[tokio::test]
async fn order_of_creation_never_matters() {
    let (stage, _operator, _pod) = Stage::set("order").await;
    stage.apply("PhoneNumber", "main", main_number("+31201234567")).await;
    stage.says("PhoneNumber", "main", "Accepted", "True", "Accepted").await;
    stage.says("PhoneNumber", "main", "ResolvedRefs", "False", "RefNotFound").await;
    stage.apply("Assistant", "support", support_assistant(&["sales"])).await;
    stage.says("Assistant", "support", "ResolvedRefs", "False", "RefNotFound").await;
    stage.apply("TransferDestination", "sales", sales("+31612345678")).await;
    stage.says("TransferDestination", "sales", "ResolvedRefs", "False", "RefNotFound").await;
    stage.apply("SipTrunk", "office", office_trunk()).await;
    stage.says("SipTrunk", "office", "ResolvedRefs", "False", "RefNotFound").await;
    stage.secret("office-pbx", &[("username", "acme"), ("password", "first-password")]).await;
    for (kind, name) in [
        ("SipTrunk", "office"),
        ("TransferDestination", "sales"),
        ("Assistant", "support"),
        ("PhoneNumber", "main"),
        ("SipGateway", GATEWAY),
    ] {
        stage.is_ready(kind, name).await;
    }
}

#[tokio::test]
async fn a_changed_destination_is_what_gateways_dial_next() {
    let (stage, _operator, _pod) = Stage::set("changed").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    stage.apply("TransferDestination", "sales", sales("+31687654321")).await;
    stage.is_ready("TransferDestination", "sales").await;
    let dials = |table: &Table| {
        table.destinations.values().any(
            |destination| matches!(&destination.target, DestinationTarget::Number(n) if n.as_str() == "+31687654321"),
        )
    };
    let table = stage.table().await.unwrap();
    assert!(dials(&table), "what is Ready is published: {:?}", table.destinations);
}

#[tokio::test]
async fn a_number_waits_for_its_gateway() {
    let stage = Stage::empty("later").await;
    let _operator = stage.operator();
    stage.office().await;
    let message = stage.says("PhoneNumber", "main", "ResolvedRefs", "False", "RefNotFound").await;
    assert!(message.contains(&format!("{}/{GATEWAY}", stage.namespace)), "{message}");
    stage.gateway().await;
    stage.says("PhoneNumber", "main", "Programmed", "False", "NoReadyGateways").await;
    let _pod = stage.pod("gw-1").await;
    stage.is_ready("PhoneNumber", "main").await;
    stage.is_ready("SipGateway", GATEWAY).await;
    stage.delete("SipGateway", GATEWAY).await;
    stage.says("PhoneNumber", "main", "ResolvedRefs", "False", "RefNotFound").await;
}

#[tokio::test]
async fn of_two_numbers_the_older_object_wins_and_the_younger_heals_when_it_goes() {
    let (stage, _operator, _pod) = Stage::set("conflict").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    // Creation times have seconds: among equals the name decides, and "other" comes after "main".
    stage.apply("PhoneNumber", "other", main_number("+31201234567")).await;
    let message = stage.says("PhoneNumber", "other", "Accepted", "False", "Conflict").await;
    assert!(message.contains(&format!("{}/main", stage.namespace)), "it names the holder: {message}");
    stage.says("PhoneNumber", "other", "Ready", "False", "Conflict").await;
    stage.is_ready("PhoneNumber", "main").await;
    stage.delete("PhoneNumber", "main").await;
    stage.is_ready("PhoneNumber", "other").await;
    let table = stage.table().await.unwrap();
    assert_eq!(number(&table).unwrap().object.name, "other");
}

#[tokio::test]
async fn an_object_that_nothing_leads_to_is_ready_to_be_used() {
    let (stage, _operator, _pod) = Stage::set("unused").await;
    stage.apply("SipTrunk", "line", json!({ "host": "line.example.com" })).await;
    stage.is_ready("SipTrunk", "line").await;
    stage.says("SipTrunk", "line", "Programmed", "False", "NotUsed").await;
}

#[tokio::test]
async fn a_missing_secret_of_api_keys_is_shown_and_stops_no_call() {
    let (stage, _operator, _pod) = Stage::set("keys").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    let spec = json!({ "exposure": "ClusterIP", "apiKeysSecretRef": { "name": "keys" } });
    stage.apply("SipGateway", GATEWAY, spec).await;
    let why = stage.says("SipGateway", GATEWAY, "ResolvedRefs", "False", "RefNotFound").await;
    assert!(why.contains(&format!("Secret {}/keys", stage.namespace)), "{why}");
    stage.is_ready("PhoneNumber", "main").await;
    stage.secret("keys", &[]).await;
    stage.says("SipGateway", GATEWAY, "ResolvedRefs", "False", "SecretKeyMissing").await;
    stage.secret("keys", &[("dashboard", "a-key")]).await;
    stage.is_ready("SipGateway", GATEWAY).await;
}
