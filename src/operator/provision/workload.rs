//! A gateway's pods: the Deployment and its PodDisruptionBudget. Pure.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction,
    LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    SeccompProfile, SecretVolumeSource, SecurityContext, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::ObjectMeta;

use crate::operator::names;
use crate::resources::SipGateway;
use crate::resources::sip_gateway::Exposure;

use super::Image;
use super::network::{exposure, http_port, listeners, port_name, protocol, scheme};

/// What Contact and Via say.
const ADVERTISE: &str = "VOICEDOCK_ADVERTISE";
/// Number of pods when the spec doesn't say.
pub const DEFAULT_REPLICAS: i32 = 2;
/// Seconds that a pod which is told to stop waits for its calls, when the spec doesn't say.
pub const DRAIN_SECONDS: i32 = 3600;
/// Seconds between the end of the drain and the kill, for the last BYEs.
const AFTER_DRAIN_SECONDS: i64 = 15;
/// The user of distroless images; any that isn't root would do.
const USER: i64 = 65532;
/// Where the table's copy lies: it outlives a restart of the container, and no more than that.
const STATE_DIRECTORY: &str = "/var/lib/voicedock";
/// Where the certificates of TLS listeners are mounted, each in a directory named after its port.
const CERTIFICATES_DIRECTORY: &str = "/etc/voicedock/certificates";
/// Where call control's keys are mounted.
const API_KEYS_DIRECTORY: &str = "/etc/voicedock/api-keys";

/// The pods. An update brings a new pod up before an old one drains; on the nodes' network the old one goes first, one at a
/// time, because the new one may need its ports and there may be no other node.
pub fn deployment(gateway: &SipGateway, image: &Image, advertise: String, replicas: i32) -> Deployment {
    let name = gateway.name_any();
    let mut labels = names::inherited(gateway);
    labels.extend(names::labels(&name));
    Deployment {
        metadata: names::owned_metadata(gateway, names::base(&name)),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            selector: selector(&name),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(i32::from(on_host(gateway)))),
                    max_surge: Some(IntOrString::Int(i32::from(!on_host(gateway)))),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
                spec: Some(pod(gateway, image, advertise)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// What the pods of a Deployment of ours say of their address.
pub fn advertised(deployment: &Deployment) -> Option<&str> {
    let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
    let env = pod.containers.first()?.env.iter().flatten();
    env.filter(|variable| variable.name == ADVERTISE).find_map(|variable| variable.value.as_deref())
}

/// One pod at a time may be moved; one that isn't ready holds nobody back.
pub fn disruption_budget(gateway: &SipGateway) -> PodDisruptionBudget {
    let name = gateway.name_any();
    PodDisruptionBudget {
        metadata: names::owned_metadata(gateway, names::base(&name)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector(&name)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

fn selector(gateway: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(names::selector(gateway)), ..LabelSelector::default() }
}

fn drain_seconds(gateway: &SipGateway) -> i32 {
    gateway.spec.drain_timeout_seconds.unwrap_or(DRAIN_SECONDS)
}

/// Whether the pods are on the nodes' own network.
fn on_host(gateway: &SipGateway) -> bool {
    exposure(gateway) == Exposure::HostNetwork
}

fn pod(gateway: &SipGateway, image: &Image, advertise: String) -> PodSpec {
    let spec = &gateway.spec;
    let name = gateway.name_any();
    let on_host = on_host(gateway);
    let spread = if spec.topology_spread_constraints.is_empty() {
        vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(selector(&name)),
            match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
            ..TopologySpreadConstraint::default()
        }]
    } else {
        spec.topology_spread_constraints.clone()
    };
    let pull_secrets = image.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
    PodSpec {
        image_pull_secrets: Some(pull_secrets.collect()).filter(|secrets: &Vec<_>| !secrets.is_empty()),
        service_account_name: Some(names::base(&name)),
        automount_service_account_token: Some(true),
        enable_service_links: Some(false),
        host_network: on_host.then_some(true),
        dns_policy: on_host.then(|| "ClusterFirstWithHostNet".to_owned()),
        termination_grace_period_seconds: Some(i64::from(drain_seconds(gateway)) + AFTER_DRAIN_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(gateway, image, advertise)],
        volumes: Some(volumes(gateway)),
        node_selector: Some(spec.node_selector.clone()).filter(|labels| !labels.is_empty()),
        tolerations: Some(spec.tolerations.clone()).filter(|tolerations| !tolerations.is_empty()),
        topology_spread_constraints: Some(spread),
        priority_class_name: spec.priority_class_name.clone(),
        ..PodSpec::default()
    }
}

fn container(gateway: &SipGateway, image: &Image, advertise: String) -> Container {
    let listeners = listeners(gateway);
    // A port of the node is claimed, so that the scheduler gives no node two pods that want the same.
    let port = |name: String, number: i32, protocol: &str| ContainerPort {
        name: Some(name),
        container_port: number,
        host_port: on_host(gateway).then_some(number),
        protocol: Some(protocol.to_owned()),
        ..ContainerPort::default()
    };
    let sip = listeners
        .iter()
        .map(|listener| port(port_name(listener, &listeners), listener.port, protocol(listener.transport)));
    let ports = sip.chain([port("http".to_owned(), http_port(gateway), "TCP")]).collect();
    // On the nodes' network call control is heard at one address of the node only, the one at which peers and the kubelet ask.
    let http = format!("{}:{}", if on_host(gateway) { "$(POD_IP)" } else { "" }, http_port(gateway));
    let heard = listeners.iter().map(|listener| format!("{}:{}", scheme(listener.transport), listener.port));
    let mut mounts = vec![VolumeMount {
        name: "state".to_owned(),
        mount_path: STATE_DIRECTORY.to_owned(),
        ..VolumeMount::default()
    }];
    if gateway.spec.api_keys_secret_ref.is_some() {
        mounts.push(VolumeMount {
            name: "api-keys".to_owned(),
            mount_path: API_KEYS_DIRECTORY.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
    mounts.extend(certificates(gateway).map(|(port, _)| VolumeMount {
        name: certificate_volume(port),
        mount_path: format!("{CERTIFICATES_DIRECTORY}/{port}"),
        read_only: Some(true),
        ..VolumeMount::default()
    }));
    Container {
        name: "gateway".to_owned(),
        image: Some(image.name.clone()),
        image_pull_policy: image.pull_policy.clone(),
        args: Some(vec!["gateway".to_owned()]),
        env: Some(
            [
                vec![
                    from_field("POD_NAME", "metadata.name"),
                    from_field("POD_UID", "metadata.uid"),
                    from_field("POD_NAMESPACE", "metadata.namespace"),
                    from_field("POD_IP", "status.podIP"),
                    from_field("NODE_IP", "status.hostIP"),
                    env("VOICEDOCK_GATEWAY", gateway.name_any()),
                    env("VOICEDOCK_GATEWAY_UID", gateway.uid().unwrap_or_default()),
                    env("VOICEDOCK_LISTENERS", heard.collect::<Vec<_>>().join(",")),
                    env(ADVERTISE, advertise),
                    env("VOICEDOCK_HTTP", http),
                    env("VOICEDOCK_DRAIN_SECONDS", drain_seconds(gateway).to_string()),
                ],
                limits(gateway),
                image.tracing.iter().map(|(name, value)| env(name, value.clone())).collect(),
            ]
            .concat(),
        ),
        ports: Some(ports),
        // Draining doesn't fail the readiness probe: calls of a pod that ends keep their way to it.
        startup_probe: Some(probe("/healthz", 1, 60)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        liveness_probe: Some(probe("/healthz", 10, 3)),
        resources: gateway.spec.resources.clone(),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// What is left out is for the pods to decide.
fn limits(gateway: &SipGateway) -> Vec<EnvVar> {
    let limits = gateway.spec.limits.clone().unwrap_or_default();
    let requests = limits.max_requests_per_second.unwrap_or_default();
    let networks = Some(gateway.spec.event_networks.join(",")).filter(|networks| !networks.is_empty());
    [
        ("VOICEDOCK_MAX_CALLS", limits.max_concurrent_calls),
        ("VOICEDOCK_MAX_CALLS_PER_SECOND", limits.max_calls_per_second),
        ("VOICEDOCK_TRUNK_RATE", requests.trunk_address),
        ("VOICEDOCK_STRANGER_RATE", requests.stranger_address),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(env(name, value?.to_string())))
    .chain(networks.map(|networks| env("VOICEDOCK_EVENT_NETWORKS", networks)))
    .collect()
}

/// The table's copy holds credentials, so it lies in memory and never on a node's disk.
fn volumes(gateway: &SipGateway) -> Vec<Volume> {
    let state = Volume {
        name: "state".to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: Some(Quantity("256Mi".to_owned())),
        }),
        ..Volume::default()
    };
    let api_keys = gateway.spec.api_keys_secret_ref.as_ref().map(|secret| Volume {
        name: "api-keys".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.name.clone()),
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    // Optional: a certificate that comes later is found then, and one that is missing holds up no other listener.
    let certificates = certificates(gateway).map(|(port, secret)| Volume {
        name: certificate_volume(port),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    [Some(state), api_keys].into_iter().flatten().chain(certificates).collect()
}

/// The ports of TLS listeners and the Secrets with their certificates.
fn certificates(gateway: &SipGateway) -> impl Iterator<Item = (i32, String)> {
    let listeners = listeners(gateway).into_iter();
    listeners.filter_map(|listener| Some((listener.port, listener.certificate_ref?.name)))
}

fn certificate_volume(port: i32) -> String {
    format!("certificate-{port}")
}

fn env(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), value_from: None }
}

fn from_field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: path.to_owned(), api_version: Some("v1".to_owned()) };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment_of(spec: serde_json::Value) -> DeploymentSpec {
        let gateway = SipGateway::new("default", serde_json::from_value(spec).unwrap());
        deployment(&gateway, &image(&[]), String::new(), 2).spec.unwrap()
    }

    fn image(pull_secrets: &[&str]) -> Image {
        let pull_secrets = pull_secrets.iter().map(|name| (*name).to_owned()).collect();
        Image { name: String::new(), pull_policy: None, pull_secrets, tracing: Vec::new() }
    }

    #[test]
    fn pods_pull_their_image_with_the_credentials_that_the_operator_was_told_of() {
        let gateway = SipGateway::new("default", serde_json::from_value(json!({})).unwrap());
        let pod = pod(&gateway, &image(&["registry", "mirror"]), String::new());
        assert_eq!(json!(pod.image_pull_secrets), json!([{ "name": "registry" }, { "name": "mirror" }]));
        assert_eq!(deployment_of(json!({})).template.spec.unwrap().image_pull_secrets, None);
    }

    #[test]
    fn on_the_nodes_network_the_scheduler_knows_of_every_port_and_no_update_needs_a_spare_node() {
        let deployment = deployment_of(json!({
            "exposure": "HostNetwork", "httpPort": 9080,
            "listeners": [{ "transport": "UDP", "port": 5060 }, { "transport": "TCP", "port": 5070 }],
        }));
        let strategy = deployment.strategy.unwrap().rolling_update.unwrap();
        assert_eq!(
            (strategy.max_unavailable, strategy.max_surge),
            (Some(IntOrString::Int(1)), Some(IntOrString::Int(0)))
        );
        let pod = deployment.template.spec.unwrap();
        assert_eq!(pod.host_network, Some(true));
        assert_eq!(pod.dns_policy.as_deref(), Some("ClusterFirstWithHostNet"));
        let container = &pod.containers[0];
        let claimed = container.ports.iter().flatten().map(|port| (port.container_port, port.host_port));
        assert_eq!(claimed.collect::<Vec<_>>(), [(5060, Some(5060)), (5070, Some(5070)), (9080, Some(9080))]);
        let http = container.env.iter().flatten().find(|variable| variable.name == "VOICEDOCK_HTTP");
        assert_eq!(
            http.unwrap().value.as_deref(),
            Some("$(POD_IP):9080"),
            "and at no other address of the node"
        );
    }

    #[test]
    fn on_the_pods_own_network_no_port_of_a_node_is_claimed_and_a_new_pod_comes_first() {
        let deployment = deployment_of(json!({ "exposure": "NodePort" }));
        let strategy = deployment.strategy.unwrap().rolling_update.unwrap();
        assert_eq!(
            (strategy.max_unavailable, strategy.max_surge),
            (Some(IntOrString::Int(0)), Some(IntOrString::Int(1)))
        );
        let pod = deployment.template.spec.unwrap();
        assert!(pod.containers[0].ports.iter().flatten().all(|port| port.host_port.is_none()));
    }

    #[test]
    fn the_certificate_of_a_listener_is_mounted_where_the_gateway_looks_for_it() {
        let listeners =
            json!([{ "transport": "TLS", "port": 5061, "certificateRef": { "name": "sip-tls" } }]);
        let spec = serde_json::from_value(json!({ "listeners": listeners })).unwrap();
        let gateway = SipGateway::new("default", spec);
        let mounts = container(&gateway, &image(&[]), String::new());
        let mounts = mounts.volume_mounts.unwrap();
        let mount =
            mounts.iter().find(|mount| mount.mount_path == "/etc/voicedock/certificates/5061").unwrap();
        let volumes = volumes(&gateway);
        let volume = volumes.iter().find(|volume| volume.name == mount.name).unwrap();
        let secret = volume.secret.as_ref().unwrap();
        assert_eq!((secret.secret_name.as_deref(), secret.optional), (Some("sip-tls"), Some(true)));
    }
}
