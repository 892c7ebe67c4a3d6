//! `voicedock check` and `voicedock explain` as people run them, on manifests.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::rules::{examples, object};
use support::tools::output;

fn voicedock(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_voicedock"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).env("KUBECONFIG", "/nowhere");
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs it on manifests that come from standard input.
fn run_on(manifests: &str, arguments: &[&str]) -> Output {
    let mut command = voicedock(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn checked(manifests: &str) -> (i32, String) {
    let output = run_on(manifests, &["check", "-"]);
    (output.status.code().unwrap(), said(&output))
}

#[test]
fn what_the_api_server_takes_and_refuses_is_taken_and_refused_offline() {
    let directory = tempfile::tempdir().unwrap();
    let cases = examples();
    for (number, case) in cases.iter().enumerate() {
        let text = object(&case.kind, "shop", &format!("example-{number}"), &case.spec).to_string();
        fs::write(directory.path().join(format!("{number:04}.json")), text).unwrap();
    }
    let output = output(voicedock(&["check", "--output", "json"]).arg(directory.path()));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["objects"], cases.len());
    let mut refused: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for finding in report["findings"].as_array().unwrap() {
        if finding["reason"] == "Refused" {
            let file = Path::new(finding["file"].as_str().unwrap()).file_stem().unwrap();
            let said = format!("{}: {}", finding["field"], finding["message"]);
            refused.entry(file.to_string_lossy().into_owned()).or_default().push(said);
        }
    }
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        match (refused.get(&format!("{number:04}")), &case.says) {
            (Some(said), None) => wrong.push(format!("refused: {}: {} {:?}", case.rule, case.spec, said)),
            (None, Some(_)) => wrong.push(format!("taken: {} {}: {}", case.kind, case.rule, case.spec)),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn every_example_of_ours_is_right() {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let output = output(voicedock(&["check"]).arg(&path));
        assert_eq!(output.status.code(), Some(0), "{}: {}", path.display(), said(&output));
    }
}

const OFFICE: &str = r#"
apiVersion: voicedock.dev/v1alpha1
kind: SipTrunk
metadata: {name: office, namespace: shop}
spec:
  host: pbx.example.com
  credentialsSecretRef: {name: office-login}
  inbound: {allowedSources: [192.0.2.1]}
  outbound: {allowedPrefixes: ["+31"]}
---
apiVersion: voicedock.dev/v1alpha1
kind: TransferDestination
metadata: {name: sales, namespace: shop}
spec:
  type: number
  number: "+31612345678"
  description: People who want to buy
  schedule:
    timeZone: Europe/Amsterdam
    open:
    - {days: [Mon, Tue, Wed, Thu, Fri], from: "09:00", to: "17:00"}
---
apiVersion: voicedock.dev/v1alpha1
kind: Assistant
metadata: {name: support, namespace: shop}
spec:
  agent: {sip: {uri: "sip:agent@ai.example.com"}}
  llmConfig:
    tools: [{type: transfer_call, destinations: [{destinationRef: {name: sales}}]}]
---
apiVersion: voicedock.dev/v1alpha1
kind: PhoneNumber
metadata: {name: main, namespace: shop}
spec:
  number: "+31201234567"
  assistantRef: {name: support}
"#;

#[test]
fn manifests_that_are_right_are_said_to_be() {
    let (code, said) = checked(OFFICE);
    assert_eq!((code, said.as_str()), (0, "Checked 4 objects in 1 file: 0 errors, 0 warnings.\n"));
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_ends_with_one() {
    for (right, wrong, line) in [
        (
            "host: pbx.example.com",
            "host: pbx.example.com:5060",
            "-:6: error: SipTrunk shop/office: spec.host: ",
        ),
        (
            "number: \"+31201234567\"",
            "number: +31201234567",
            "-:35: error: PhoneNumber shop/main: spec.number: 31201234567 must be of type string; put it in quotes.",
        ),
        (
            "assistantRef:",
            "asistantRef:",
            "-:36: error: PhoneNumber shop/main: spec.asistantRef: there is no such field; correct its name or remove it.",
        ),
        (
            "assistantRef: {name: support}",
            "assistantRef: {name: suport}",
            "-:36: error: PhoneNumber shop/main: assistantRef names Assistant shop/suport, which does not exist; create it or correct the name.",
        ),
        (
            "kind: Assistant",
            "kind: Asistant",
            "-:24: error: Asistant shop/support: voicedock.dev has no kind Asistant; it has ",
        ),
        (
            "v1alpha1\nkind: SipTrunk",
            "v1\nkind: SipTrunk",
            "-:2: error: SipTrunk shop/office: voicedock.dev has no version v1; write apiVersion: voicedock.dev/v1alpha1.",
        ),
        (
            "metadata: {name: main,",
            "metadata: {name: Main,",
            "-:33: error: PhoneNumber shop/Main: metadata.name is needed",
        ),
        ("  description: People", " description: People", "-:"),
    ] {
        assert!(OFFICE.contains(right), "{right}");
        let (code, said) = checked(&OFFICE.replacen(right, wrong, 1));
        assert!(code == 1 && said.contains(line), "{wrong}: {code}:\n{said}");
    }
    let (code, said) = checked(&format!("{OFFICE}---{}", OFFICE.split("---").last().unwrap()));
    assert!(
        code == 1 && said.contains("The same object is already at -:31; remove one of the two."),
        "{said}"
    );
}

#[test]
fn other_kinds_are_passed_over_and_secrets_are_looked_into() {
    let login = |data: &str| {
        format!(
            "{OFFICE}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: office-login, namespace: shop}}\n{data}\n---\nkind: Service\napiVersion: v1\n"
        )
    };
    assert_eq!(checked(&login("stringData: {username: u, password: p}")).0, 0);
    assert_eq!(checked(&login("data: {username: dQ==, password: cA==}")).0, 0);
    let encrypted = "stringData: {username: \"ENC[x]\"}\nsops: {version: 3.9.0}";
    assert_eq!(checked(&login(encrypted)), checked(OFFICE), "nobody knows what an encrypted Secret holds");
    let (code, said) = checked(&login("stringData: {username: u}"));
    assert!(
        code == 1 && said.contains("Secret shop/office-login has no value under key 'password'"),
        "{said}"
    );
}

#[test]
fn a_question_that_can_not_be_answered_ends_with_two() {
    let nothing = tempfile::tempdir().unwrap();
    let missing = nothing.path().join("missing");
    for path in [nothing.path(), missing.as_path()] {
        let output = output(voicedock(&["check"]).arg(path));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && error.starts_with("voicedock: "), "{error}");
    }
    let output = output(&mut voicedock(&["explain", "+31201234567"]));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && error.contains("name manifests with --file"), "{error}");
}

fn explained(manifests: &str, arguments: &[&str]) -> (i32, String) {
    let arguments: Vec<&str> = ["explain", "--file", "-"].iter().chain(arguments).copied().collect();
    let output = run_on(manifests, &arguments);
    (output.status.code().unwrap(), said(&output))
}

#[test]
fn what_would_happen_to_a_call_is_explained_rule_by_rule() {
    let (code, said) = explained(OFFICE, &["+31201234567", "--at", "2026-11-26T10:00:00+01:00"]);
    let expected = "\
+31201234567 at 2026-11-26T09:00:00Z:
  PhoneNumber shop/main on SipGateway voicedock-system/default
  comes in over SipTrunk shop/office (from 192.0.2.1/32)
  is answered by Assistant shop/support (sip:agent@ai.example.com)
  transfer to sales:
    dials sip:+31612345678@pbx.example.com over SipTrunk shop/office (the trunk that the call came in over)
    shows the caller's number, rings 30 s
    if nobody answers, the caller goes back to the assistant
";
    assert_eq!((code, said.as_str()), (0, expected));
}

#[test]
fn what_would_not_work_is_explained_with_its_rule_and_ends_with_one() {
    for (arguments, reason) in [
        (
            &["+31201234567", "--transfer", "sales", "--at", "2026-11-29T10:00:00Z"][..],
            "refused: destination sales is closed; it opens ",
        ),
        (
            &["+31201234567", "--transfer", "billing"],
            "refused: 'billing' is not a destination of assistant shop/support; it may transfer to: sales",
        ),
        (
            &["+31201234567", "--transfer", "+441234567890", "--api"],
            "refused: trunk shop/office may not dial +441234567890; see its outbound.allowedPrefixes and deniedPrefixes",
        ),
        (
            &["+31201234567", "--source", "198.51.100.7"],
            "refused with 403: no trunk takes calls from 198.51.100.7",
        ),
        (&["+31201234568"], "+31201234568: no PhoneNumber holds it"),
    ] {
        let (code, said) = explained(OFFICE, arguments);
        assert!(code == 1 && said.contains(reason), "{arguments:?}: {code}: {said}");
    }
    let taken = OFFICE.replace("name: main,", "name: other,");
    let twice = format!("{OFFICE}---{}", taken.split("---").last().unwrap());
    let (_, said) = explained(&twice, &["+31201234567"]);
    assert!(said.contains("holds +31201234567 on this gateway"), "{said}");
}

#[test]
fn a_program_reads_the_same_as_json() {
    let (_, said) = explained(
        OFFICE,
        &["+31201234567", "--transfer", "sales", "--at", "2026-11-26T10:00:00Z", "-o", "json"],
    );
    let read: Value = serde_json::from_str(&said).unwrap();
    let call = &read["phoneNumbers"][0]["call"];
    assert_eq!(call["assistant"], "shop/support");
    assert_eq!(call["transfers"][0]["dialled"]["uri"], "sip:+31612345678@pbx.example.com");
    assert_eq!(read["works"], true);
}
