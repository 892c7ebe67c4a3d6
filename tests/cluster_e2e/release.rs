//! The life of the release: `helm test`, an upgrade from the version before, `helm uninstall` and a new installation.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::harness::cluster::{Cluster, items, text};
use crate::harness::control::{call_is, voicedock_id};
use crate::harness::installation::{self, GATEWAY, NAMESPACE, NODE_PORT};
use crate::harness::office::{Office, SALES};
use crate::harness::pods::{Pod, pod_per_node};
use crate::harness::process::{run, say, succeed};
use crate::harness::scene::Scene;
use crate::harness::sipp::Sipp;
use crate::harness::wait::{SOON, until, until_true};

/// Longest that all pods may take to be replaced.
const REPLACED: Duration = Duration::from_secs(90);
/// Tag of the image that stands for the version before.
const BEFORE: &str = "before";
/// What Helm made and has to take away again.
const RELEASE: &str = "sipgateways,deployments,services,clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts,\
     secrets,configmaps,poddisruptionbudgets,networkpolicies";

#[test]
fn helm_test_places_a_call() {
    let scene = Scene::new("helm-test");
    let pods = scene.pods();
    let mut helm = installation::helm(scene.cluster(), &["test", "voicedock", "--logs", "--timeout=60s"]);
    let said = succeed(&mut helm);
    for word in ["now hears assistant voicedock-test", "the gateway ends the call"] {
        assert!(said.contains(word), "the caller's log lacks '{word}': {said}");
    }
    until("all that was made for it is gone", SOON, || {
        let named = "phonenumbers,siptrunks,assistants,secrets,services,pods";
        let there =
            succeed(&mut scene.cluster().kubectl(&["--namespace", NAMESPACE, "get", named, "--output=name"]));
        if there.contains("voicedock-test") { Err(there) } else { Ok(()) }
    });
    assert_eq!(scene.pods(), pods);
}

/// The chart as the version before: there is no other yet that was released, so it is this one under another number, and runs
/// the same image by another name. An upgrade from it replaces every pod.
fn chart_of_the_version_before(scene: &Scene) -> PathBuf {
    let chart = scene.directory.join("chart");
    run(
        "cp",
        &[
            "-r",
            installation::chart().to_str().expect("the path is text"),
            chart.to_str().expect("so is this"),
        ],
    );
    let file = chart.join("Chart.yaml");
    let text = fs::read_to_string(&file).expect("a chart has a Chart.yaml");
    let older = text
        .lines()
        .map(|line| match line.split_once(": ") {
            Some(("version", _)) => "version: 0.0.1",
            Some(("appVersion", _)) => "appVersion: \"0.0.1\"",
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n");
    assert_ne!(older, text);
    fs::write(&file, older).expect("the copy can be written");
    chart
}

/// The default gateway's pods, one a node, once all of them have the image with this tag, and so has the operator.
fn pods_of(scene: &Scene, tag: &str) -> [Pod; 2] {
    until(&format!("all pods that take calls have the image {tag}"), REPLACED, || {
        let selector = "app.kubernetes.io/name in (voicedock-gateway, voicedock-operator, voicedock-api)";
        let list = scene.cluster().get(&["--namespace", NAMESPACE, "pods", "--selector", selector]);
        let there = items(&list).filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let images: Vec<_> = there.map(|pod| text(&pod["spec"]["containers"][0]["image"])).collect();
        let replaced = images.len() >= 6 && images.iter().all(|image| image.ends_with(&format!(":{tag}")));
        if replaced { Ok(()) } else { Err(format!("{images:?}")) }
    });
    pod_per_node(scene)
}

/// Callers over a pod's node, all of whom are answered.
fn held(scene: &Scene, name: &str, pod: &Pod, calls: u32) -> Sipp {
    let many = calls.to_string();
    let callers = scene.callers(name, "caller", pod, NODE_PORT, &["-m", &many, "-l", &many, "-r", "10"]);
    until("the held calls are answered", SOON, || {
        let answered = callers.log().matches("answered").count();
        if answered == calls as usize { Ok(()) } else { Err(format!("{answered} are")) }
    });
    callers
}

fn hang_up(callers: &mut Sipp, calls: u32) {
    for call in 1..=calls {
        callers.go_on(&callers.placed(call));
    }
    callers.ends_well();
}

fn only_these_are_left(cluster: &Cluster, pods: usize) {
    until("pods that had calls end with their last one", REPLACED, || {
        let selector = format!("voicedock.dev/gateway={GATEWAY}");
        let list = cluster.get(&["--namespace", NAMESPACE, "pods", "--selector", &selector]);
        let names: Vec<_> = items(&list).map(|pod| text(&pod["metadata"]["name"])).collect();
        if names.len() == pods { Ok(()) } else { Err(format!("{names:?}")) }
    });
}

#[test]
fn an_upgrade_from_the_version_before_loses_no_call_and_its_calls_can_still_be_transferred() {
    const HELD: u32 = 10;
    let scene = Scene::new("upgrade");
    let cluster = scene.cluster();
    let agent = scene.party("agent", "agent", None);
    let mut human = scene.party("human", "human", Some(1));
    scene.open(&Office { agent: agent.port, trunk: human.port, ..Office::default() });
    cluster.name_image(&installation::image(), BEFORE);
    let chart = chart_of_the_version_before(&scene);
    let upgrade = |chart: &str, tag: &str| {
        let tag = format!("--set-string=image.tag={tag}");
        let upgrade = ["upgrade", "voicedock", chart, "--reset-then-reuse-values", &tag];
        succeed(&mut installation::helm(cluster, &upgrade))
    };
    let tag = installation::image().1;
    upgrade(chart.to_str().expect("the path is text"), BEFORE);
    let old = pods_of(&scene, BEFORE);

    let mut talking = [held(&scene, "held-a", &old[0], HELD), held(&scene, "held-b", &old[1], HELD)];
    let id = voicedock_id(&agent);
    // 3 and 2 calls a second, each of half a second, over either node.
    let mut fresh: Vec<Sipp> = [("fresh-a", "3"), ("fresh-b", "2")]
        .iter()
        .zip(&old)
        .map(|((name, rate), pod)| {
            scene.callers(name, "short-caller", pod, NODE_PORT, &["-r", rate, "-d", "500"])
        })
        .collect();

    upgrade(installation::chart().to_str().expect("the path is text"), &tag);
    let new = pods_of(&scene, &tag);
    assert!(new.iter().all(|pod| !old.contains(pod)), "all pods were replaced");
    let answered = || agent.log().matches("answered").count();
    let before = answered();
    until_true("fifty more calls are answered", Duration::from_secs(30), || answered() >= before + 50);
    for fresh in &mut fresh {
        fresh.finish();
        fresh.ends_well();
    }

    // A call of the version before, transferred by way of a pod of this one.
    let control = scene.control(&new[0]);
    call_is(&control, &id, "is in progress", |call| call["status"] == "in-progress");
    control.transfer(&id, SALES);
    human.go_on(&human.call_id(&["ringing"]));
    until_true("its caller hears the human", SOON, || {
        talking.iter().any(|held| held.log().contains("moved"))
    });

    for held in &mut talking {
        hang_up(held, HELD);
    }
    human.ends_well();
    only_these_are_left(cluster, 2);
}

#[test]
fn helm_uninstall_leaves_definitions_and_numbers_its_calls_go_on_and_a_new_installation_finds_them() {
    const HELD: u32 = 2;
    let scene = Scene::new("uninstall");
    let cluster = scene.cluster();
    let agent = scene.party("agent", "agent", None);
    scene.open(&Office { agent: agent.port, ..Office::default() });
    let pods = pod_per_node(&scene);
    let mut talking = [held(&scene, "held-a", &pods[0], HELD), held(&scene, "held-b", &pods[1], HELD)];
    let definitions =
        || succeed(&mut cluster.kubectl(&["get", "customresourcedefinitions", "--output=name"]));
    let before = definitions();

    let _installed = InstalledAgain(cluster);
    succeed(&mut installation::helm(cluster, &["uninstall", "voicedock"]));
    until("all pods are told to end", SOON, || {
        let list = cluster.get(&["--namespace", NAMESPACE, "pods"]);
        let stay = items(&list).filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let stay: Vec<_> = stay.map(|pod| text(&pod["metadata"]["name"])).collect();
        if stay.is_empty() { Ok(()) } else { Err(format!("{stay:?}")) }
    });
    assert_eq!(definitions(), before);
    for object in
        ["siptrunk/office", "transferdestination/sales", "assistant/support", "phonenumber/main-line"]
    {
        succeed(&mut scene.kubectl(&["get", object]));
    }

    // Two calls of each node are with their pods still, which wait for them.
    for held in &mut talking {
        hang_up(held, HELD);
    }
    only_these_are_left(cluster, 0);
    let selector = "app.kubernetes.io/part-of=voicedock";
    until("nothing of the release is left", SOON, || {
        let which = ["--namespace", NAMESPACE, "get", RELEASE, "--selector", selector, "--output=name"];
        let left = succeed(&mut cluster.kubectl(&which));
        if left.is_empty() { Ok(()) } else { Err(left) }
    });

    installation::install(cluster);
    scene.ready("phonenumber/main-line");
    let [pod, _] = pod_per_node(&scene);
    let mut caller = held(&scene, "again", &pod, 1);
    hang_up(&mut caller, 1);
}

/// Whatever happens, the tests that follow find a release.
struct InstalledAgain(&'static Cluster);

impl Drop for InstalledAgain {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("helm: {}", say(&mut installation::upgrade(self.0)).errors);
        }
    }
}
