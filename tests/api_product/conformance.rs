//! The OpenAPI document is what the API does: schemathesis asks everything that it lists, with data that fits and data that
//! doesn't, and judges the answers.

use std::process::Command;

use serde_json::{Value, json};

use crate::stage::Stage;
use crate::support::tools::{cached, output};

/// What schemathesis looks at. That every body which fits the document is taken is not among it: rules of the resources say
/// more than a schema can (a host, a name that exists).
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,ignored_auth,unsupported_method,use_after_free";

#[tokio::test]
async fn the_document_lists_what_there_is_and_every_schema_that_it_names() {
    let stage = Stage::set("openapi").await;
    let (status, document) = stage.ask_as("", "GET", "/openapi.json", None);
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/assistants",
            "/assistants/{id}",
            "/calls",
            "/calls/test-destination",
            "/calls/{id}",
            "/calls/{id}/control",
            "/health",
            "/numbers",
            "/numbers/{id}",
            "/sip-trunks",
            "/sip-trunks/{id}",
            "/traces",
            "/traces/{id}",
        ]
    );
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        found.extend(value.get("$ref").and_then(Value::as_str));
        match value {
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            Value::Object(fields) => fields.values().for_each(|field| references(field, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn schemathesis_finds_nothing_that_the_document_does_not_say() {
    let stage = Stage::with("schemathesis", &["--key-rate", "0"]).await;
    let packages = cached("schemathesis").expect("hack/tools.sh cluster installs schemathesis");
    let url = format!("http://{}/api/v1/openapi.json", stage.api.http);
    let mut judge = Command::new("python3");
    judge.args(["-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", &url]);
    judge.args([
        "--url",
        &format!("http://{}/api/v1", stage.api.http),
        "--checks",
        CHECKS,
        "--max-examples",
        "15",
    ]);
    judge.args([
        "-H",
        &format!("Authorization: Bearer {}", stage.key),
        "--seed",
        "1",
        "--workers",
        "2",
        "--no-color",
    ]);
    let notes = tempfile::tempdir().unwrap();
    judge.env("PYTHONPATH", packages).env("NO_PROXY", "*").current_dir(notes.path());
    let heard = output(&mut judge);
    let text = String::from_utf8_lossy(&heard.stdout);
    assert!(heard.status.success(), "{text}");
    assert!(text.contains("Tested: 22"), "it has asked every operation: {text}");
}
