//! What runs a gateway: made, kept as it should be, never taken from somebody else.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use voicedock::resources::SipGateway;

use crate::stage::{GATEWAY, Stage, eventually, found};

const NAME: &str = "default-voicedock";

async fn deployment(stage: &Stage) -> Deployment {
    let api = stage.api::<Deployment>();
    eventually("the Deployment", async || found(&api, NAME).await).await
}

fn env(deployment: &Deployment, name: &str) -> String {
    let pod = deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    let env = pod.containers[0].env.as_ref().unwrap();
    env.iter().find(|variable| variable.name == name).unwrap().value.clone().unwrap_or_default()
}

#[tokio::test]
async fn everything_that_a_gateway_needs_is_made_and_owned_by_it() {
    async fn owner<K>(stage: &Stage, name: &str) -> Option<String>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let object = found(&stage.api::<K>(), name).await?;
        object.owner_references().first().map(|owner| owner.uid.clone())
    }
    let (stage, _operator, _pod) = Stage::set("made").await;
    stage.office().await;
    stage.is_ready("SipGateway", GATEWAY).await;
    let uid = found(&stage.api::<SipGateway>(), GATEWAY).await.unwrap().uid();
    eventually("all of it, owned by the SipGateway", async || {
        let owners = [
            owner::<Deployment>(&stage, NAME).await,
            owner::<Service>(&stage, NAME).await,
            owner::<Service>(&stage, "default-voicedock-api").await,
            owner::<ServiceAccount>(&stage, NAME).await,
            owner::<Role>(&stage, NAME).await,
            owner::<RoleBinding>(&stage, NAME).await,
            owner::<PodDisruptionBudget>(&stage, NAME).await,
            owner::<NetworkPolicy>(&stage, NAME).await,
            owner::<voicedock::resources::RoutingTable>(&stage, GATEWAY).await,
            owner::<k8s_openapi::api::core::v1::Secret>(&stage, crate::stage::CREDENTIALS).await,
            owner::<voicedock::resources::RoutingSlice>(&stage, stage.head().await?.spec.slices.first()?)
                .await,
        ];
        owners.iter().all(|owner| *owner == uid).then_some(())
    })
    .await;
}

#[tokio::test]
async fn pods_are_admitted_where_pod_security_is_restricted() {
    let stage = Stage::empty("restricted").await;
    let label = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    namespaces.patch(&stage.namespace, &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    let _operator = stage.operator();
    let spec = json!({ "exposure": "NodePort", "apiKeysSecretRef": { "name": "keys" } });
    stage.apply("SipGateway", GATEWAY, spec).await;
    let pod = as_made_of(deployment(&stage).await);
    stage.api::<Pod>().create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await.unwrap();
}

/// A pod as the Deployment would make it.
fn as_made_of(deployment: Deployment) -> Pod {
    let template = deployment.spec.unwrap().template;
    let mut pod = Pod { metadata: template.metadata.unwrap(), spec: template.spec, status: None };
    pod.metadata.name = Some("as-the-deployment-would".to_owned());
    pod
}

#[tokio::test]
async fn pods_that_pod_security_refuses_are_told_of_with_the_remedy_until_they_are_admitted() {
    let (stage, _operator, _pod) = Stage::set("refused").await;
    stage.is_ready("SipGateway", GATEWAY).await;
    let label = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "baseline" } } });
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    namespaces.patch(&stage.namespace, &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    stage.apply("SipGateway", GATEWAY, json!({ "exposure": "HostNetwork" })).await;
    let on_host = eventually("a Deployment on the nodes' network", async || {
        let deployment = deployment(&stage).await;
        let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
        (pod.host_network == Some(true)).then_some(deployment)
    })
    .await;
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let refusal = stage.api::<Pod>().create(&params, &as_made_of(on_host)).await.unwrap_err();
    let kube::Error::Api(refusal) = refusal else { panic!("{refusal}") };

    // As the controllers write down what the API server says.
    let failure = |status: &str| {
        json!({ "status": { "conditions": [{
            "type": "ReplicaFailure", "status": status, "reason": "FailedCreate", "message": refusal.message,
        }] } })
    };
    let api = stage.api::<Deployment>();
    api.patch_status(NAME, &PatchParams::default(), &Patch::Merge(failure("True"))).await.unwrap();
    let message = stage.says("SipGateway", GATEWAY, "Ready", "False", "PodsRefused").await;
    assert!(message.contains("hostNetwork=true"), "{message}");
    let remedy = format!("label {} with pod-security.kubernetes.io/enforce=privileged", stage.namespace);
    assert!(message.contains(&remedy), "{message}");
    api.patch_status(NAME, &PatchParams::default(), &Patch::Merge(failure("False"))).await.unwrap();
    stage.is_ready("SipGateway", GATEWAY).await;
}

#[tokio::test]
async fn what_somebody_changes_or_deletes_comes_back() {
    let (stage, _operator, _pod) = Stage::set("drift").await;
    let api = stage.api::<Deployment>();
    let uid = deployment(&stage).await.uid();
    stage.settled().await;
    let replicas = |deployment: &Deployment| deployment.spec.as_ref().unwrap().replicas;

    let scale = json!({ "spec": { "replicas": 7 } });
    api.patch(NAME, &PatchParams::default(), &Patch::Merge(scale)).await.unwrap();
    eventually("two replicas again", async || (replicas(&found(&api, NAME).await?) == Some(2)).then_some(()))
        .await;

    api.delete(NAME, &DeleteParams::default()).await.unwrap();
    eventually("another Deployment", async || (found(&api, NAME).await?.uid() != uid).then_some(())).await;

    let roles = stage.api::<Role>();
    let widen = json!({ "rules": [{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["*"] }] });
    roles.patch(NAME, &PatchParams::default(), &Patch::Merge(widen)).await.unwrap();
    eventually("the Role as it was", async || (found(&roles, NAME).await?.rules?.len() == 4).then_some(()))
        .await;
    stage.api::<Service>().delete(NAME, &DeleteParams::default()).await.unwrap();
    eventually("the Service", async || found(&stage.api::<Service>(), NAME).await).await;
}

#[tokio::test]
async fn what_somebody_adds_is_left_alone() {
    let (stage, _operator, _pod) = Stage::set("add").await;
    let api = stage.api::<Deployment>();
    deployment(&stage).await;
    stage.settled().await;
    // As `kubectl rollout restart` does.
    let restart = json!({ "spec": { "template": { "metadata": { "annotations": {
        "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z" } } } } });
    let restarted = api.patch(NAME, &PatchParams::default(), &Patch::Merge(restart)).await.unwrap();
    stage.settled().await;
    let now = deployment(&stage).await;
    assert_eq!(now.metadata.generation, restarted.metadata.generation);
}

#[tokio::test]
async fn an_object_of_somebody_else_is_not_taken_over_and_the_status_says_so() {
    let stage = Stage::empty("foreign").await;
    let theirs: Service = serde_json::from_value(json!({
        "metadata": { "name": NAME }, "spec": { "ports": [{ "port": 80 }], "selector": { "app": "shop" } },
    }))
    .unwrap();
    let before = stage.api::<Service>().create(&PostParams::default(), &theirs).await.unwrap();
    stage.gateway().await;
    let _operator = stage.operator();
    let message = stage.says("SipGateway", GATEWAY, "Programmed", "False", "ProvisionFailed").await;
    assert!(message.contains(&format!("Service {}/{NAME}", stage.namespace)), "{message}");
    stage.says("SipGateway", GATEWAY, "Ready", "False", "ProvisionFailed").await;
    assert_eq!(found(&stage.api::<Service>(), NAME).await.unwrap().spec, before.spec);
    stage.api::<Service>().delete(NAME, &DeleteParams::default()).await.unwrap();
    deployment(&stage).await;
}

#[tokio::test]
async fn exposure_decides_what_pods_tell_others_about_their_address() {
    let (stage, _operator, _pod) = Stage::set("expose").await;
    assert_eq!(
        env(&deployment(&stage).await, "VOICEDOCK_ADVERTISE"),
        "udp=$(POD_IP):5060,tcp=$(POD_IP):5060"
    );

    stage.apply("SipGateway", GATEWAY, json!({ "exposure": "NodePort" })).await;
    let api = stage.api::<Service>();
    let service = eventually("a NodePort Service", async || {
        let service = found(&api, NAME).await?;
        (service.spec.as_ref()?.type_.as_deref() == Some("NodePort")).then_some(service)
    })
    .await;
    let spec = service.spec.unwrap();
    assert_eq!(spec.external_traffic_policy.as_deref(), Some("Local"));
    let ports = spec.ports.unwrap();
    let node_port =
        |name: &str| ports.iter().find(|port| port.name.as_deref() == Some(name)).unwrap().node_port.unwrap();
    let expected = format!("udp=$(NODE_IP):{},tcp=$(NODE_IP):{}", node_port("sip-udp"), node_port("sip-tcp"));
    advertises(&stage, &expected).await;
    eventually("the addresses of nodes with ready pods", async || {
        let gateway = found(&stage.api::<SipGateway>(), GATEWAY).await?;
        let expected = [
            format!("udp:10.9.8.7:{}", node_port("sip-udp")),
            format!("tcp:10.9.8.7:{}", node_port("sip-tcp")),
        ];
        (gateway.status?.addresses == expected).then_some(())
    })
    .await;

    stage.apply("SipGateway", GATEWAY, json!({ "exposure": "HostNetwork" })).await;
    advertises(&stage, "udp=$(NODE_IP):5060,tcp=$(NODE_IP):5060").await;
    eventually("the nodes' addresses", async || {
        let gateway = found(&stage.api::<SipGateway>(), GATEWAY).await?;
        (gateway.status?.addresses == ["udp:10.9.8.7:5060", "tcp:10.9.8.7:5060"]).then_some(())
    })
    .await;

    stage.apply("SipGateway", GATEWAY, json!({ "exposure": "LoadBalancer" })).await;
    let message = stage.says("SipGateway", GATEWAY, "Ready", "False", "AddressNotAssigned").await;
    assert!(message.contains(&format!("Service {}/{NAME}", stage.namespace)), "{message}");
    stage.settled().await;
    advertises(&stage, "udp=$(NODE_IP):5060,tcp=$(NODE_IP):5060").await;
    balancer(&stage, &["203.0.113.7"]).await;
    advertises(&stage, "udp=203.0.113.7:5060,tcp=203.0.113.7:5060").await;
    stage.is_ready("SipGateway", GATEWAY).await;
}

/// As a load balancer's controller writes down which addresses there are.
async fn balancer(stage: &Stage, addresses: &[&str]) {
    let ingress: Vec<Value> = addresses.iter().map(|address| json!({ "ip": address })).collect();
    let status = json!({ "status": { "loadBalancer": { "ingress": ingress } } });
    let api = stage.api::<Service>();
    eventually("the Service", async || {
        api.patch_status(NAME, &PatchParams::default(), &Patch::Merge(&status)).await.ok()
    })
    .await;
}

#[tokio::test]
async fn no_pod_is_started_before_its_load_balancer_has_an_address_and_none_goes_when_that_is_lost() {
    let stage = Stage::empty("balancer").await;
    let _operator = stage.operator();
    stage.apply("SipGateway", GATEWAY, json!({ "exposure": "LoadBalancer" })).await;
    let message = stage.says("SipGateway", GATEWAY, "Ready", "False", "AddressNotAssigned").await;
    assert!(message.contains("no pod is started before"), "{message}");
    stage.settled().await;
    assert!(found(&stage.api::<Deployment>(), NAME).await.is_none());
    balancer(&stage, &["203.0.113.7"]).await;
    let address = "udp=203.0.113.7:5060,tcp=203.0.113.7:5060";
    advertises(&stage, address).await;

    balancer(&stage, &[]).await;
    stage.settled().await;
    let spec = json!({ "exposure": "LoadBalancer", "replicas": 5 });
    stage.apply("SipGateway", GATEWAY, spec).await;
    eventually("five pods, at the address that was known", async || {
        let deployment = deployment(&stage).await;
        let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        assert_eq!(env(&deployment, "VOICEDOCK_ADVERTISE"), address);
        (replicas == Some(5)).then_some(())
    })
    .await;
}

async fn advertises(stage: &Stage, expected: &str) {
    eventually(&format!("{expected} in the pods"), async || {
        (env(&deployment(stage).await, "VOICEDOCK_ADVERTISE") == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn labels_by_which_gitops_tools_track_are_not_handed_down() {
    let stage = Stage::empty("labels").await;
    stage.gateway().await;
    let labels: Value =
        json!({ "metadata": { "labels": { "team": "voice", "argocd.argoproj.io/instance": "shop" } } });
    stage.api::<SipGateway>().patch(GATEWAY, &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
    let _operator = stage.operator();
    let deployment = deployment(&stage).await;
    assert_eq!(deployment.labels().get("team").map(String::as_str), Some("voice"));
    assert!(!deployment.labels().contains_key("argocd.argoproj.io/instance"));
}

#[tokio::test]
async fn nothing_is_made_for_a_gateway_that_is_being_deleted() {
    let (stage, _operator, _pod) = Stage::set("delete").await;
    stage.office().await;
    stage.is_ready("SipGateway", GATEWAY).await;
    let api = stage.api::<SipGateway>();
    let hold = json!({ "metadata": { "finalizers": ["example.com/hold"] } });
    api.patch(GATEWAY, &PatchParams::default(), &Patch::Merge(hold)).await.unwrap();
    api.delete(GATEWAY, &DeleteParams::default()).await.unwrap();
    stage.settled().await;
    stage.api::<Deployment>().delete(NAME, &DeleteParams::default()).await.unwrap();
    stage.settled().await;
    assert!(found(&stage.api::<Deployment>(), NAME).await.is_none());
}
