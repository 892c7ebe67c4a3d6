//! One pod of a gateway registers at a carrier; when it goes, another one does, and the carrier's calls find it.

use std::time::Duration;

use crate::harness::installation::{GATEWAY, NAMESPACE};
use crate::harness::office::Office;
use crate::harness::pods::{leaving, pod_per_node};
use crate::harness::process::succeed;
use crate::harness::registrar::{LOGIN, Registrar};
use crate::harness::scene::Scene;
use crate::harness::wait::until;

/// Longer than a pod waits for calls that a test before has left behind.
const DRAINED: Duration = Duration::from_secs(90);

/// A call by way of the registrar is answered and ends.
fn is_called(scene: &Scene, registrar: &Registrar, name: &str) {
    let mut caller = scene.callers_at(name, "caller", registrar.at, &["-m", "1"]);
    caller.sees(&["answered"]);
    caller.go_on(&caller.placed(1));
    caller.ends_well();
}

#[test]
fn a_registration_moves_when_its_pod_is_told_to_stop_and_calls_follow_it() {
    let scene = Scene::new("registration");
    let agent = scene.party("agent", "agent", None);
    let registrar = Registrar::start(&scene.directory, scene.host());
    let (user, password) = LOGIN;
    scene.apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: office}}\ntype: kubernetes.io/basic-auth\n\
         stringData: {{username: {user}, password: {password}}}\n"
    ));
    let trunk_spec = "  credentialsSecretRef: {name: office}\n  realm: registrar.example\n  \
                      register: {expiresSeconds: 120}\n";
    scene.open(&Office { agent: agent.port, trunk: registrar.at.port(), trunk_spec, ..Office::default() });
    let pods = pod_per_node(&scene);
    let contact = registrar.registers_after(0);
    let owner = pods.iter().find(|pod| contact.contains(&format!("@{}:", pod.node)));
    let owner = owner.unwrap_or_else(|| panic!("{contact} is no node's"));
    is_called(&scene, &registrar, "before");
    assert!(registrar.contacts().iter().all(|other| *other == contact), "one pod registers: {contact}");

    let cluster = scene.cluster();
    succeed(&mut cluster.kubectl(&["--namespace", NAMESPACE, "delete", "pod", &owner.name, "--wait=false"]));
    until("the pod is gone", DRAINED, || match &leaving(cluster, NAMESPACE, GATEWAY)[..] {
        [] => Ok(()),
        pods => Err(format!("{pods:?}")),
    });
    // It may be at the same node again, if the pod that took its place is there.
    registrar.registers_after(registrar.contacts().len());
    is_called(&scene, &registrar, "after");
    pod_per_node(&scene);
}
