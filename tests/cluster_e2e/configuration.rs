//! From `kubectl apply` to calls: numbers come, credentials change, everything goes, and a table that is wrong is refused.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher13;

use crate::harness::cluster::{items, text};
use crate::harness::control::{voicedock_id, voicedock_ids};
use crate::harness::installation::{NAMESPACE, NODE_PORT};
use crate::harness::office::{Office, SALES};
use crate::harness::pods::{Pod, pod_per_node, restarts, said};
use crate::harness::probe::Probe;
use crate::harness::process::{say, succeed};
use crate::harness::scene::Scene;
use crate::harness::trunk::{AFTER, BEFORE, Trunk};
use crate::harness::wait::{SOON, until};

/// What every namespace has without anybody's doing.
const GIVEN: [&str; 2] = ["configmap/kube-root-ca.crt", "serviceaccount/default"];
/// Kinds of which nothing may be left.
const KINDS: &str = "deployments,replicasets,pods,services,endpointslices,serviceaccounts,configmaps,secrets,roles,rolebindings,\
     leases,networkpolicies,poddisruptionbudgets,assistants,phonenumbers,siptrunks,transferdestinations,sipgateways,\
     routingtables,routingslices";

#[test]
fn a_new_number_works_on_every_gateway_within_two_seconds_of_kubectl_apply() {
    let scene = Scene::new("new-number");
    let agent = scene.party("agent", "agent", None);
    scene.open(&Office { agent: agent.port, ..Office::default() });
    let pods = pod_per_node(&scene);
    let probes = pods.each_ref().map(|pod| Probe::new(scene.cluster(), pod.node, NODE_PORT));

    let number = scene.number.replacen("+312", "+317", 1);
    for probe in &probes {
        assert_eq!(probe.call(&number), Some(404), "nobody has the number yet");
    }
    let line = format!(
        "apiVersion: voicedock.dev/v1alpha1\nkind: PhoneNumber\nmetadata: {{name: second-line}}\n\
         spec: {{number: \"{number}\", assistantRef: {{name: support}}}}\n"
    );
    scene.apply(&line);
    let applied = Instant::now();
    for probe in &probes {
        until("the new number is answered", Duration::from_secs(2).saturating_sub(applied.elapsed()), || {
            match probe.call(&number) {
                Some(200) => Ok(()),
                other => Err(format!("the answer is {other:?}")),
            }
        });
    }
    println!("a new number is answered on both nodes {:?} after kubectl apply returned", applied.elapsed());
    scene.ready("phonenumber/second-line");
}

#[test]
fn credentials_are_rotated_without_a_pod_restart_and_without_losing_a_call() {
    let scene = Scene::new("rotation");
    let pods = pod_per_node(&scene);
    let restarted = || pods.each_ref().map(|pod| restarts(scene.cluster(), pod));
    let never = restarted();
    let agent = scene.party("agent", "agent", None);
    let human = scene.party("human", "human", None);
    let trunk = Trunk::start(&scene.directory, scene.host(), human.port);
    let login = |(username, password): (&str, &str)| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: office}}\ntype: kubernetes.io/basic-auth\n\
             stringData: {{username: {username}, password: {password}}}\n"
        )
    };
    scene.apply(&login(BEFORE));
    let trunk_spec = "  credentialsSecretRef: {name: office}\n";
    scene.open(&Office { agent: agent.port, trunk: trunk.port, trunk_spec, ..Office::default() });

    // One call that was transferred with the old credentials, one that is with the assistant.
    let mut callers =
        scene.callers("held", "caller", &pods[0], NODE_PORT, &["-m", "2", "-l", "2", "-r", "10"]);
    let ids: Vec<String> = until("two calls are answered", SOON, || {
        let log = agent.log();
        let ids: Vec<_> = voicedock_ids(&log).collect();
        if ids.len() == 2 { Ok(ids) } else { Err(log) }
    });
    let control = scene.control(&pods[0]);
    control.transfer(&ids[0], SALES);
    let first = human.call_id(&["ringing", "authenticated as before"]);
    human.go_on(&first);
    callers.sees(&["moved"]);

    let before = acknowledged(&scene).into_iter().max().expect("there are pods");
    scene.apply(&login(AFTER));
    let rotated = until("every pod has acknowledged a newer table", SOON, || {
        let held = acknowledged(&scene);
        if held.iter().all(|generation| *generation > before) {
            Ok(held)
        } else {
            Err(format!("{held:?}, after {before}"))
        }
    });
    println!("table {before} before the rotation, {rotated:?} after");
    control.transfer(&ids[1], SALES);
    let second = human.call_id(&["ringing", "authenticated as after"]);
    human.go_on(&second);
    until("both callers have moved", SOON, || {
        let log = callers.log();
        if log.matches("moved").count() == 2 { Ok(()) } else { Err(log) }
    });

    for call in 1..=2 {
        callers.go_on(&callers.placed(call));
    }
    callers.ends_well();
    assert_eq!(pod_per_node(&scene), pods, "no pod was replaced");
    assert_eq!(restarted(), never, "no pod was started again");
}

#[test]
fn a_trunk_whose_credentials_vanish_carries_no_call_out() {
    let scene = Scene::new("vanished");
    let mut agent = scene.party("agent", "agent", Some(1));
    let human = scene.party("human", "human", None);
    scene.apply(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: office}\ntype: kubernetes.io/basic-auth\n\
         stringData: {username: someone, password: something}\n",
    );
    let trunk_spec = "  credentialsSecretRef: {name: office}\n";
    scene.open(&Office { agent: agent.port, trunk: human.port, trunk_spec, ..Office::default() });
    let [pod, _] = pod_per_node(&scene);
    let mut caller = scene.caller(&pod);
    caller.sees(&["answered"]);
    let id = voicedock_id(&agent);

    let before = acknowledged(&scene).into_iter().max().expect("there are pods");
    succeed(&mut scene.kubectl(&["delete", "secret", "office"]));
    until("every pod knows", SOON, || {
        let held = acknowledged(&scene);
        if held.iter().all(|generation| *generation > before) { Ok(()) } else { Err(format!("{held:?}")) }
    });
    let transfer = serde_json::json!({ "type": "transfer", "destination": SALES });
    let answer = scene.control(&pod).command(&id, &transfer);
    assert_eq!(answer.status, 400, "{}", answer.body);
    let message = answer.body["message"].as_str().unwrap_or_default();
    assert!(message.contains(&format!("{}/office", scene.namespace)), "it names the trunk: {message}");
    assert_eq!(human.log(), "", "nobody was called");

    caller.go_on(&caller.placed(1));
    caller.ends_well();
    agent.ends_well();
}

/// The table generations that the default gateway's pods route by, as their Leases say.
fn acknowledged(scene: &Scene) -> Vec<i64> {
    let generation = |pod: &Pod| said(scene.cluster(), NAMESPACE, pod, "generation");
    scene.pods().iter().map(|pod| generation(pod).parse().expect("a generation is a number")).collect()
}

#[test]
fn kubectl_delete_leaves_no_object_behind() {
    let scene = Scene::new("delete");
    let agent = scene.party("agent", "agent", None);
    let login = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: office}\ntype: kubernetes.io/basic-auth\n\
                 stringData: {username: someone, password: something}\n";
    let trunk_spec = "  credentialsSecretRef: {name: office}\n";
    let office = Office { agent: agent.port, trunk_spec, ..Office::default() };
    let manifests = format!("{}{login}", scene.secluded(&office));
    scene.apply(&manifests);
    scene.secluded_pod();
    let there = left_over(&scene);
    for kind in ["deployment", "service", "role", "lease", "routingtable", "routingslice"] {
        assert!(there.iter().any(|object| object.starts_with(kind)), "there is a {kind}: {there:?}");
    }

    let file = scene.write("everything.yaml", &manifests);
    succeed(&mut scene.kubectl(&["delete", "--filename", &file, "--timeout=60s"]));
    until("nothing is left", Duration::from_secs(60), || match left_over(&scene) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?} is left")),
    });
}

fn left_over(scene: &Scene) -> BTreeSet<String> {
    let list = scene.cluster().get(&["--namespace", &scene.namespace, KINDS]);
    let name = |object: &serde_json::Value| {
        format!("{}/{}", text(&object["kind"]).to_lowercase(), text(&object["metadata"]["name"]))
    };
    items(&list).map(name).filter(|name| !GIVEN.contains(&name.as_str())).collect()
}

/// A number like this one, but for its last digits, after which a slice ends (`voicedock::routing::slice` says where): of any
/// other the change would ride in the head and make no new slice.
fn that_ends_a_slice(number: &str) -> String {
    let ends = |number: &String| {
        let mut hasher = SipHasher13::new_with_keys(0, 0);
        hasher.write(number.as_bytes());
        hasher.finish().trailing_zeros() >= 8
    };
    let (stem, _) = number.split_at(number.len() - 4);
    (0..10_000).map(|last| format!("{stem}{last:04}")).find(ends).expect("one number in 256 does")
}

#[test]
fn a_slice_that_somebody_forged_is_written_anew_and_never_routed_by() {
    let scene = Scene::new("wrong-slice");
    let agent = scene.party("agent", "agent", None);
    scene.apply(&scene.secluded(&Office { agent: agent.port, ..Office::default() }));
    let pod = scene.secluded_pod();
    let probe = Probe::new(scene.cluster(), pod.node, scene.node_port);

    // A slice that the table had and will have again, with the same name because it will have the same content.
    let number = that_ends_a_slice(&scene.number.replacen("+312", "+317", 1));
    let line = format!(
        "apiVersion: voicedock.dev/v1alpha1\nkind: PhoneNumber\nmetadata: {{name: second-line}}\n\
         spec: {{number: \"{number}\", assistantRef: {{name: support}}, gatewayRef: {{name: own}}}}\n"
    );
    let slices = || -> BTreeSet<String> {
        let table = scene.cluster().get(&["--namespace", &scene.namespace, "routingtable", "own"]);
        table["spec"]["slices"].as_array().into_iter().flatten().map(text).collect()
    };
    let before = slices();
    scene.apply(&line);
    scene.ready("phonenumber/second-line");
    let slice = slices().difference(&before).next().expect("a new number makes a new slice").clone();
    succeed(&mut scene.kubectl(&["delete", "phonenumber", "second-line"]));
    until("the number is gone", SOON, || match probe.call(&number) {
        Some(404) => Ok(()),
        other => Err(format!("the answer is {other:?}")),
    });

    // Somebody who may write slices puts another content under that name.
    let mut forged = scene.cluster().get(&["--namespace", &scene.namespace, "routingslice", &slice]);
    let forged_number = number.replacen("+317", "+318", 1);
    let content = forged["spec"]["content"].to_string().replace(&number, &forged_number);
    forged["spec"]["content"] = serde_json::from_str(&content).expect("it is JSON still");
    let metadata = forged["metadata"].as_object_mut().expect("it has metadata");
    metadata.retain(|field, _| ["name", "namespace", "labels", "ownerReferences"].contains(&field.as_str()));
    let file = scene.write("forged.json", &forged.to_string());
    let _ = say(&mut scene.kubectl(&["delete", "routingslice", &slice]));
    succeed(&mut scene.kubectl(&["create", "--filename", &file]));

    scene.apply(&line);
    scene.ready("phonenumber/second-line");
    assert_eq!(probe.call(&number), Some(200));
    assert_eq!(probe.call(&forged_number), Some(404), "what was forged is not served");
    let real = scene.cluster().get(&["--namespace", &scene.namespace, "routingslice", &slice]);
    assert!(!real["spec"]["content"].to_string().contains(&forged_number), "the forgery is gone");
    scene.ready("sipgateway/own");
}

#[test]
fn a_number_moves_to_another_assistant_while_its_calls_go_on() {
    let scene = Scene::new("moves");
    let mut first = scene.party("first", "agent", Some(1));
    let mut second = scene.party("second", "agent", Some(1));
    scene.open(&Office { agent: first.port, ..Office::default() });
    let [pod, _] = pod_per_node(&scene);
    let mut early = scene.callers("early", "caller", &pod, NODE_PORT, &["-m", "1"]);
    early.sees(&["answered", &format!("m=audio {}", first.media)]);
    voicedock_id(&first);

    scene.open(&Office { agent: second.port, ..Office::default() });
    let mut late = scene.callers("late", "caller", &pod, NODE_PORT, &["-m", "1"]);
    late.sees(&["answered", &format!("m=audio {}", second.media)]);

    for (caller, agent) in [(&mut early, &mut first), (&mut late, &mut second)] {
        caller.go_on(&caller.placed(1));
        caller.ends_well();
        agent.ends_well();
    }
}
