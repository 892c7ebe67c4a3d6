//! The examples for Flux and Argo CD: what they point at is there, and the charts take the values that they give.

use std::fs;

use serde_json::{Value, json};

use crate::support::tools::{printed, tool};
use crate::{helm, objects, of_kind, root};

fn example(file: &str) -> Vec<Value> {
    objects(&fs::read_to_string(root().join("examples/gitops").join(file)).unwrap())
}

/// What `helm template` makes of a chart in this repository with these values.
fn rendered_with(path: &str, values: &Value) -> Vec<Value> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), values.to_string()).unwrap();
    let mut command =
        helm(&["template", "voicedock", "--namespace", "voicedock-system", "--skip-tests", "--values"]);
    objects(&printed(command.arg(file.path()).arg(root().join(path))))
}

#[test]
fn both_tools_install_the_definitions_apart_and_an_operator_whose_keys_stay() {
    let releases = example("flux/operator.yaml");
    let applications = example("argocd/operator.yaml");
    let flux = of_kind(&releases, "HelmRelease").into_iter().map(|release| {
        let path = release["spec"]["chart"]["spec"]["chart"].as_str().unwrap();
        (path.to_owned(), release["spec"]["values"].clone())
    });
    let argo = of_kind(&applications, "Application").into_iter().map(|application| {
        let source = &application["spec"]["source"];
        (source["path"].as_str().unwrap().to_owned(), source["helm"]["valuesObject"].clone())
    });
    for (tool, charts) in [("flux", flux.collect::<Vec<_>>()), ("argocd", argo.collect())] {
        let paths: Vec<_> = charts.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["charts/voicedock-crds", "charts/voicedock"], "{tool}");
        let [definitions, operator] =
            [0, 1].map(|number: usize| rendered_with(&charts[number].0, &charts[number].1));
        assert_eq!(of_kind(&definitions, "CustomResourceDefinition").len(), 7, "{tool}");
        assert!(of_kind(&operator, "CustomResourceDefinition").is_empty(), "{tool}");
        assert!(
            of_kind(&operator, "Secret").is_empty(),
            "{tool}: a key would be another one in each rendering"
        );
        assert_eq!(of_kind(&operator, "SipGateway").len(), 1, "{tool}");
        // What is rendered twice is the same: nothing to apply again.
        assert_eq!(operator, rendered_with(&charts[1].0, &charts[1].1), "{tool}");
    }
    let monitored =
        rendered_with("charts/voicedock", &applications[1]["spec"]["source"]["helm"]["valuesObject"]);
    assert_eq!(of_kind(&monitored, "ServiceMonitor").len(), 2, "Argo CD doesn't say what the cluster knows");
}

#[test]
fn the_teams_folder_is_one_that_both_tools_point_at_and_holds_what_it_lists() {
    let kustomization = &example("flux/numbers.yaml")[0];
    let application = &example("argocd/numbers.yaml")[0];
    let path = application["spec"]["source"]["path"].as_str().unwrap();
    assert_eq!(kustomization["spec"]["path"], json!(format!("./{path}")));
    assert_eq!(kustomization["spec"]["wait"], json!(true));
    let made = objects(&printed(
        std::process::Command::new(tool("kubectl")).arg("kustomize").arg(root().join(path)),
    ));
    let kinds: Vec<_> = made.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    for kind in ["Namespace", "SipTrunk", "TransferDestination", "Assistant", "PhoneNumber"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    assert!(!kinds.contains(&"Secret"), "no secret lies in git as it is");
    // Both ways to the trunk's login make the Secret that the trunk names, with the keys that it reads.
    let trunk = made.iter().find(|object| object["kind"] == "SipTrunk").unwrap();
    let named = &trunk["spec"]["credentialsSecretRef"]["name"];
    let sops = &example("tenant/trunk-credentials.sops.yaml")[0];
    let external = &example("tenant/trunk-credentials.external.yaml")[0];
    assert_eq!((&sops["metadata"]["name"], &external["spec"]["target"]["name"]), (named, named));
    assert_eq!(sops["type"], external["spec"]["target"]["template"]["type"]);
    let keys: Vec<_> = external["spec"]["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["secretKey"].as_str().unwrap())
        .collect();
    let fields: Vec<_> = sops["stringData"].as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), fields.len());
    assert!(fields.iter().all(|field| keys.contains(&field.as_str())), "{fields:?}");
}
