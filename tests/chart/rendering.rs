//! What the chart renders.

use serde_json::{Value, json};

use crate::support::tools::printed;
use crate::{chart, helm, of_kind, of_role, one, rendered, template};

#[test]
fn operator_and_gateways_run_the_same_image() {
    for (values, image) in [
        (vec![], format!("ghcr.io/voicedock/voicedock:{}", env!("CARGO_PKG_VERSION"))),
        (
            vec![r#"image={"registry": "", "repository": "voicedock", "tag": "dev"}"#],
            "voicedock:dev".to_owned(),
        ),
        (
            vec![
                r#"image.tag="ignored""#,
                r#"image.digest="sha256:0000000000000000000000000000000000000000000000000000000000000000""#,
            ],
            format!("ghcr.io/voicedock/voicedock@sha256:{}", "0".repeat(64)),
        ),
    ] {
        let objects = rendered(&values);
        for role in ["operator", "api"] {
            let pod = &of_role(&objects, "Deployment", role)["spec"]["template"]["spec"];
            assert_eq!(pod["containers"][0]["image"], json!(image), "{role}");
        }
        let container =
            &of_role(&objects, "Deployment", "operator")["spec"]["template"]["spec"]["containers"][0];
        let env = container["env"].as_array().unwrap();
        assert!(env.contains(&json!({ "name": "VOICEDOCK_IMAGE", "value": image })), "{env:?}");
    }
}

#[test]
fn every_pod_pulls_the_image_with_the_credentials_that_the_values_name() {
    let values = r#"image.pullSecrets=["registry", "mirror"]"#;
    let named = json!([{ "name": "registry" }, { "name": "mirror" }]);
    let objects = rendered(&[values]);
    for role in ["operator", "api"] {
        assert_eq!(pods(&objects, role)["spec"]["imagePullSecrets"], named, "{role}");
        assert_eq!(pods(&rendered(&[]), role)["spec"]["imagePullSecrets"], Value::Null, "{role}");
    }
    let env = pods(&objects, "operator")["spec"]["containers"][0]["env"].as_array().unwrap();
    let told = json!({ "name": "VOICEDOCK_IMAGE_PULL_SECRETS", "value": "registry,mirror" });
    assert!(env.contains(&told), "the operator starts the gateways: {env:?}");
    assert_eq!(one(&tested(&[values]), "Pod")["spec"]["imagePullSecrets"], named);
}

#[test]
fn the_operator_is_told_which_gateway_is_the_default() {
    let told = |values: &[&str]| {
        let objects = rendered(values);
        let arguments =
            pods(&objects, "operator")["spec"]["containers"][0]["args"].as_array().unwrap().clone();
        assert_eq!(arguments[0], "operator");
        arguments.iter().find_map(|one| Some(one.as_str()?.strip_prefix("--default-gateway=")?.to_owned()))
    };
    assert_eq!(told(&[]).as_deref(), Some("voicedock-system/default"));
    assert_eq!(told(&[r#"gateway.name="edge""#]).as_deref(), Some("voicedock-system/edge"));
    assert_eq!(told(&["gateway.enabled=false"]), None);
    let elsewhere = told(&["gateway.enabled=false", r#"operator.defaultGateway="edge/de""#]);
    assert_eq!(elsewhere.as_deref(), Some("edge/de"));
}

#[test]
fn a_gateway_with_autoscaling_has_no_fixed_number_of_pods() {
    let spec = |values: &[&str]| one(&rendered(values), "SipGateway")["spec"].clone();
    assert_eq!(spec(&[])["replicas"], 2);
    let autoscaling = json!({ "min": 2, "max": 10, "targetCallsPerPod": 200 });
    let scaled = spec(&[&format!("gateway.autoscaling={autoscaling}")]);
    assert_eq!((&scaled["autoscaling"], &scaled["replicas"]), (&autoscaling, &Value::Null));
}

#[test]
fn the_definitions_can_be_left_out_and_are_kept_unless_told_otherwise() {
    let keep = |objects: &[Value]| -> Vec<Value> {
        let definitions = of_kind(objects, "CustomResourceDefinition");
        definitions
            .iter()
            .map(|crd| crd["metadata"]["annotations"]["helm.sh/resource-policy"].clone())
            .collect()
    };
    assert_eq!(keep(&rendered(&[])), vec![json!("keep"); 7]);
    assert_eq!(keep(&rendered(&["crds.keep=false"])), vec![Value::Null; 7]);
    assert_eq!(keep(&rendered(&["crds.enabled=false"])), Vec::<Value>::new());
}

#[test]
fn the_operator_may_not_write_what_people_write() {
    let objects = rendered(&[]);
    let rules = of_role(&objects, "ClusterRole", "operator")["rules"].as_array().unwrap().clone();
    let has = |value: &Value, wanted: &str| value.as_array().unwrap().iter().any(|one| one == wanted);
    for resource in ["assistants", "phonenumbers", "sipgateways", "siptrunks", "transferdestinations"] {
        let verbs: Vec<_> = rules
            .iter()
            .filter(|rule| has(&rule["resources"], resource))
            .flat_map(|rule| rule["verbs"].as_array().unwrap().clone())
            .collect();
        assert_eq!(verbs, [json!("get"), json!("list"), json!("watch")], "{resource}");
    }
    for rule in &rules {
        for (field, everything) in [("apiGroups", "*"), ("resources", "*"), ("verbs", "*")] {
            assert!(!has(&rule[field], everything), "{rule}");
        }
        for dangerous in ["escalate", "bind", "impersonate"] {
            assert!(!has(&rule["verbs"], dangerous), "{rule}");
        }
    }
}

#[test]
fn the_api_has_two_replicas_may_change_no_gateway_and_can_be_left_out() {
    let objects = rendered(&[]);
    assert_eq!(of_role(&objects, "Deployment", "api")["spec"]["replicas"], 2);
    let rules = of_role(&objects, "ClusterRole", "api")["rules"].as_array().unwrap();
    for rule in rules {
        let text = rule.to_string();
        assert!(!text.contains('*') && !text.contains("sipgateways") && !text.contains("status"), "{text}");
    }
    let secrets = rules.iter().find(|rule| rule["resources"] == json!(["secrets"])).unwrap();
    assert_eq!(secrets["verbs"], json!(["list", "watch", "create"]));
    assert!(
        !rendered(&["api.enabled=false"]).iter().any(|object| object["metadata"]["name"] == "voicedock-api")
    );
}

/// The pods of a role: what its Deployment makes.
fn pods<'a>(objects: &'a [Value], role: &str) -> &'a Value {
    &of_role(objects, "Deployment", role)["spec"]["template"]
}

#[test]
fn pods_go_where_the_values_say_and_spread_over_nodes_when_these_say_nothing() {
    let objects = rendered(&[]);
    for role in ["operator", "api"] {
        let spread = &pods(&objects, role)["spec"]["topologySpreadConstraints"];
        assert_eq!(spread.as_array().unwrap().len(), 1);
        assert_eq!(spread[0]["topologyKey"], "kubernetes.io/hostname");
        let selector = &of_role(&objects, "Deployment", role)["spec"]["selector"];
        assert_eq!(&spread[0]["labelSelector"], selector, "{role}: of its own pods");
    }

    let zones = json!([{ "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule" }]);
    let tolerations = json!([{ "key": "voice", "operator": "Exists" }]);
    let objects = rendered(&[
        &format!("operator.topologySpreadConstraints={zones}"),
        &format!("operator.tolerations={tolerations}"),
        r#"operator.nodeSelector={"pool": "voice"}"#,
        r#"operator.priorityClassName="system-cluster-critical""#,
    ]);
    let pod = &pods(&objects, "operator")["spec"];
    assert_eq!(pod["topologySpreadConstraints"][0]["whenUnsatisfiable"], "DoNotSchedule");
    assert_eq!(
        pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]["app.kubernetes.io/name"],
        "voicedock-operator",
        "a constraint that selects nobody would hold nobody"
    );
    assert_eq!((&pod["tolerations"], &pod["nodeSelector"]["pool"]), (&tolerations, &json!("voice")));
    assert_eq!(pod["priorityClassName"], "system-cluster-critical");
    assert_eq!(pods(&objects, "api")["spec"]["priorityClassName"], Value::Null);
}

#[test]
fn a_drain_of_nodes_leaves_all_replicas_but_one_or_as_many_as_was_said() {
    let objects = rendered(&[r#"api.podDisruptionBudget.maxUnavailable="50%""#]);
    assert_eq!(of_role(&objects, "PodDisruptionBudget", "operator")["spec"]["maxUnavailable"], 1);
    assert_eq!(of_role(&objects, "PodDisruptionBudget", "api")["spec"]["maxUnavailable"], "50%");
    let off = ["operator.podDisruptionBudget.enabled=false", "api.podDisruptionBudget.enabled=false"];
    assert!(of_kind(&rendered(&off), "PodDisruptionBudget").is_empty());
}

#[test]
fn network_policies_let_in_who_is_named_and_out_to_what_is_needed() {
    let objects = rendered(&[]);
    let policy = |objects: &[Value], role| of_role(objects, "NetworkPolicy", role)["spec"].clone();
    for role in ["operator", "api"] {
        let spec = policy(&objects, role);
        assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
        let selector = &of_role(&objects, "Deployment", role)["spec"]["selector"];
        assert_eq!(&spec["podSelector"], selector);
        assert_eq!(spec["ingress"][0]["from"], Value::Null);
    }
    // No rule without a port or a peer: that would be a way to everything.
    let ways = policy(&objects, "operator")["egress"].as_array().unwrap().clone();
    assert_eq!(ways.len(), 2, "the API server and DNS");
    assert!(ways.iter().all(|way| way["ports"].as_array().is_some_and(|ports| !ports.is_empty())));
    let ways = policy(&objects, "api")["egress"].as_array().unwrap().clone();
    assert_eq!(ways.len(), 3);
    let gateways = &ways[2]["to"][0];
    assert_eq!(
        gateways["podSelector"]["matchLabels"],
        json!({ "app.kubernetes.io/name": "voicedock-gateway" })
    );

    let prometheus =
        json!([{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "monitoring" } } }]);
    let ingress = json!([{ "podSelector": { "matchLabels": { "app": "ingress" } } }]);
    let objects = rendered(&[
        &format!("networkPolicy.metricsFrom={prometheus}"),
        &format!("networkPolicy.apiFrom={ingress}"),
    ]);
    assert_eq!(policy(&objects, "operator")["ingress"][0]["from"], prometheus);
    let api = policy(&objects, "api");
    assert_eq!((&api["ingress"][0]["from"], &api["ingress"][1]["from"]), (&ingress, &prometheus));
    assert!(of_kind(&rendered(&["networkPolicy.enabled=false"]), "NetworkPolicy").is_empty());
}

#[test]
fn operator_and_api_are_told_where_traces_go_and_may_go_there() {
    let variables = |objects: &[Value], role: &str| -> Vec<(String, String)> {
        let env = pods(objects, role)["spec"]["containers"][0]["env"].as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = env.iter().map(|variable| (text(&variable["name"]), text(&variable["value"])));
        all.filter(|(name, _)| name.starts_with("OTEL_")).collect()
    };
    assert!(variables(&rendered(&[]), "operator").is_empty());
    for (endpoint, port) in [
        ("http://collector.example:4318", 4318),
        ("https://collector.example/otlp", 443),
        ("http://[2001:db8::1]", 80),
    ] {
        let objects = rendered(&[
            &format!("tracing.endpoint={}", json!(endpoint)),
            "tracing.sampleRatio=0.25",
            r#"tracing.resourceAttributes={"team": "voice", "deployment.environment.name": "test"}"#,
        ]);
        for role in ["operator", "api"] {
            let expected = [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
                ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
                ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,team=voice"),
            ];
            let expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            assert_eq!(variables(&objects, role), expected, "{role}");
            let ways = of_role(&objects, "NetworkPolicy", role)["spec"]["egress"].clone();
            let found = ways.as_array().unwrap().iter().any(|way| way["ports"][0]["port"] == json!(port));
            assert!(found, "{role} to port {port}: {ways}");
        }
    }
}

#[test]
fn viewers_editors_and_administrators_of_a_namespace_get_what_is_theirs() {
    let objects = rendered(&[]);
    let may = |role: &str, resource: &str| -> Vec<Value> {
        let aggregated = format!("rbac.authorization.k8s.io/aggregate-to-{role}");
        of_kind(&objects, "ClusterRole")
            .into_iter()
            .filter(|found| found["metadata"]["labels"][&aggregated] == "true")
            .flat_map(|found| found["rules"].as_array().unwrap())
            .filter(|rule| rule["resources"].as_array().unwrap().iter().any(|one| one == resource))
            .flat_map(|rule| rule["verbs"].as_array().unwrap().clone())
            .collect()
    };
    let read = [json!("get"), json!("list"), json!("watch")];
    for resource in ["assistants", "phonenumbers", "siptrunks", "transferdestinations"] {
        assert_eq!(may("view", resource), read, "{resource}");
        assert!(
            may("edit", resource).contains(&json!("create"))
                && may("admin", resource).contains(&json!("patch"))
        );
    }
    assert_eq!(may("edit", "sipgateways"), read, "it makes pods");
    assert!(may("admin", "sipgateways").contains(&json!("create")));
    assert_eq!(may("admin", "routingtables"), read, "the operator's alone");
    assert!(may("admin", "routingslices").is_empty());
    let names = |values: &[&str]| of_kind(&rendered(values), "ClusterRole").len();
    assert_eq!((names(&[]), names(&["rbac.aggregate=false"])), (5, 2));
}

#[test]
fn an_installation_for_one_namespace_asks_for_nothing_of_the_cluster() {
    let objects = rendered(&["namespaceOnly=true", "crds.enabled=false"]);
    for object in &objects {
        assert_eq!(object["metadata"]["namespace"], "voicedock-system", "{} is not in it", object["kind"]);
    }
    for role in ["operator", "api"] {
        let env = &pods(&objects, role)["spec"]["containers"][0]["env"];
        let watched =
            env.as_array().unwrap().iter().find(|one| one["name"] == "VOICEDOCK_WATCH_NAMESPACE").unwrap();
        assert_eq!(watched["valueFrom"]["fieldRef"]["fieldPath"], "metadata.namespace");
        let rules = of_role(&objects, "Role", role)["rules"].to_string();
        assert!(!rules.contains("namespaces"), "{rules}");
        assert_eq!(of_role(&objects, "RoleBinding", role)["roleRef"]["kind"], "Role");
    }
}

#[test]
fn the_leases_timings_are_the_operators_own_unless_others_are_given() {
    let arguments =
        |values: &[&str]| pods(&rendered(values), "operator")["spec"]["containers"][0]["args"].to_string();
    let said = arguments(&[
        "operator.leaderElection.leaseDurationSeconds=15",
        "operator.leaderElection.retrySeconds=0.5",
    ]);
    for part in
        ["--lease-duration-seconds=15", "--lease-renew-deadline-seconds=5", "--lease-retry-seconds=0.5"]
    {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn extra_objects_are_templates_as_text_and_as_objects() {
    let extra = json!([
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: text}\ndata: {gateway: '{{ .Values.gateway.name }}'}\n",
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "object", "namespace": "{{ .Release.Namespace }}" } },
    ]);
    let objects = rendered(&[&format!("extraObjects={extra}")]);
    let found = of_kind(&objects, "ConfigMap");
    assert_eq!((found.len(), &found[0]["data"]["gateway"]), (2, &json!("default")));
    assert_eq!(found[1]["metadata"]["namespace"], "voicedock-system");
}

#[test]
fn the_gateway_outlives_the_release_only_when_that_is_said() {
    let policy = |values: &[&str]| one(&rendered(values), "SipGateway")["metadata"]["annotations"].clone();
    assert_eq!(policy(&[]), Value::Null);
    assert_eq!(policy(&["gateway.keep=true"]), json!({ "helm.sh/resource-policy": "keep" }));
}

#[test]
fn the_values_for_high_availability_have_three_of_each_on_different_nodes() {
    let mut command = template(&[]);
    command.arg("--values").arg(chart().join("values-ha.yaml"));
    let objects = crate::objects(&printed(&mut command));
    for role in ["operator", "api"] {
        assert_eq!(of_role(&objects, "Deployment", role)["spec"]["replicas"], 3);
        let spread = pods(&objects, role)["spec"]["topologySpreadConstraints"].to_string();
        assert!(
            spread.contains("topology.kubernetes.io/zone") && spread.contains("DoNotSchedule"),
            "{spread}"
        );
    }
    assert_eq!(one(&objects, "SipGateway")["spec"]["replicas"], 3);
}

#[test]
fn the_charts_have_the_same_definitions_and_the_version_of_the_program() {
    let definitions = |objects: &[Value]| -> Vec<Value> {
        of_kind(objects, "CustomResourceDefinition").into_iter().map(|found| found["spec"].clone()).collect()
    };
    let alone = printed(helm(&["template", "voicedock-crds"]).arg(chart().with_file_name("voicedock-crds")));
    let alone = crate::objects(&alone);
    assert_eq!(definitions(&alone), definitions(&rendered(&[])));
    assert_eq!(alone.len(), 7, "and nothing else");
    assert!(alone.iter().all(|found| found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"));
    for name in ["voicedock", "voicedock-crds"] {
        let about = printed(helm(&["show", "chart"]).arg(chart().with_file_name(name)));
        assert!(about.contains(&format!("appVersion: {}", env!("CARGO_PKG_VERSION"))), "{about}");
    }
}

/// What `helm test` makes, with values set.
fn tested(values: &[&str]) -> Vec<Value> {
    let mut command = helm(&["template", "voicedock", "--namespace", "voicedock-system"]);
    command.arg(chart()).args(["--set", "crds.enabled=false"]);
    for value in values {
        command.args(["--set-json", value]);
    }
    let mut objects = crate::objects(&printed(&mut command));
    objects.retain(|object| object["metadata"]["annotations"]["helm.sh/hook"] == "test");
    objects
}

#[test]
fn the_test_calls_a_number_of_its_own_through_the_gateway_and_leaves_nothing() {
    let objects = tested(&[r#"test.number="+15005550123""#, r#"gateway.name="edge""#]);
    assert_eq!(one(&objects, "PhoneNumber")["spec"]["number"], "+15005550123");
    assert_eq!(one(&objects, "PhoneNumber")["spec"]["gatewayRef"]["name"], "edge");
    let pod = &one(&objects, "Pod")["spec"];
    let caller = pod["containers"][0]["args"].to_string();
    for part in ["--gateway=edge-voicedock.voicedock-system.svc:5060", "--to=+15005550123", "answered"] {
        assert!(caller.contains(part) && !caller.contains("--tcp"), "{caller}");
    }
    // The trunk's password is the caller's, and nobody else's for longer than the test.
    let secret = &one(&objects, "Secret")["stringData"];
    let login = format!("{}:{}", secret["username"].as_str().unwrap(), secret["password"].as_str().unwrap());
    assert_eq!(secret["login"], json!(login));
    for object in objects.iter().filter(|object| object["kind"] != "Pod") {
        let policy = object["metadata"]["annotations"]["helm.sh/hook-delete-policy"].as_str().unwrap();
        assert!(policy.contains("hook-succeeded") && policy.contains("hook-failed"), "{}", object["kind"]);
    }
    let selector = &one(&objects, "Service")["spec"]["selector"];
    let labels = &one(&objects, "Pod")["metadata"]["labels"];
    assert!(selector.as_object().unwrap().iter().all(|(name, value)| &labels[name] == value));

    let over_tcp = tested(&[r#"gateway.listeners=[{"transport": "TCP", "port": 5070}]"#]);
    let caller = one(&over_tcp, "Pod")["spec"]["containers"][0]["args"].to_string();
    assert!(caller.contains("--tcp") && caller.contains(".svc:5070"), "{caller}");
    assert_eq!(one(&over_tcp, "Assistant")["spec"]["agent"]["sip"]["transport"], "TCP");
    for off in ["test.enabled=false", "gateway.enabled=false"] {
        assert!(tested(&[off]).is_empty(), "{off}");
    }
}
