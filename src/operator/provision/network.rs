//! How a gateway's pods are reached: the Service, the NetworkPolicy, and which address each listener tells others. Pure.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::operator::names;
use crate::resources::SipGateway;
use crate::resources::sip_gateway::{Exposure, Listener};
use crate::resources::sip_trunk::Transport;

/// Port of call control, health and metrics: the Services' always, the pods' when the spec doesn't say.
const HTTP_PORT: i32 = 8080;

/// The listeners of a gateway: what its spec says, else UDP and TCP on 5060.
pub fn listeners(gateway: &SipGateway) -> Vec<Listener> {
    if !gateway.spec.listeners.is_empty() {
        return gateway.spec.listeners.clone();
    }
    let listener = |transport| Listener { transport, port: 5060, node_port: None, certificate_ref: None };
    vec![listener(Transport::Udp), listener(Transport::Tcp)]
}

/// The pods' port of call control, health and metrics.
pub fn http_port(gateway: &SipGateway) -> i32 {
    gateway.spec.http_port.unwrap_or(HTTP_PORT)
}

/// The exposure of a gateway: what its spec says, else `ClusterIP`.
pub fn exposure(gateway: &SipGateway) -> Exposure {
    gateway.spec.exposure.unwrap_or(Exposure::ClusterIP)
}

/// `udp`, `tcp` or `tls`.
pub fn scheme(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
    }
}

/// Name of a listener's port: of at most 15 characters, unique also when there are several listeners of a transport.
pub fn port_name(listener: &Listener, listeners: &[Listener]) -> String {
    let scheme = scheme(listener.transport);
    let several = listeners.iter().filter(|other| other.transport == listener.transport).count() > 1;
    if several { format!("sip-{scheme}-{}", listener.port) } else { format!("sip-{scheme}") }
}

/// The protocol of Kubernetes under a transport.
pub fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "UDP",
        Transport::Tcp | Transport::Tls => "TCP",
    }
}

/// The Service: SIP by exposure. Call control is on it too, except on a load balancer: plain HTTP with bearer keys has
/// no business on a public address; an Ingress with TLS in front of [`api_service`] has.
///
/// A pod that drains keeps answering its readiness probe, so that its EndpointSlice goes on serving the flows of its calls
/// while new ones go elsewhere. The source address is kept (`externalTrafficPolicy: Local`): trunks are known by it.
pub fn service(gateway: &SipGateway) -> Service {
    let exposure = exposure(gateway);
    let listeners = listeners(gateway);
    let on_nodes = exposure == Exposure::NodePort;
    let mut ports: Vec<_> = listeners
        .iter()
        .map(|listener| ServicePort {
            name: Some(port_name(listener, &listeners)),
            port: listener.port,
            target_port: Some(IntOrString::String(port_name(listener, &listeners))),
            protocol: Some(protocol(listener.transport).to_owned()),
            node_port: listener.node_port.filter(|_| on_nodes),
            ..ServicePort::default()
        })
        .collect();
    if exposure != Exposure::LoadBalancer {
        ports.push(http_of_service());
    }
    let type_ = match exposure {
        Exposure::LoadBalancer => "LoadBalancer",
        Exposure::NodePort => "NodePort",
        Exposure::HostNetwork | Exposure::ClusterIP => "ClusterIP",
    };
    let outside = type_ != "ClusterIP";
    let name = gateway.name_any();
    let mut metadata = names::owned_metadata(gateway, names::base(&name));
    metadata.annotations =
        Some(gateway.spec.annotations.clone()).filter(|annotations| !annotations.is_empty());
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(type_.to_owned()),
            selector: Some(names::selector(&name)),
            ports: Some(ports),
            external_traffic_policy: outside.then(|| "Local".to_owned()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The Service for call control, inside the cluster only.
pub fn api_service(gateway: &SipGateway) -> Service {
    let name = gateway.name_any();
    Service {
        metadata: names::owned_metadata(gateway, names::api_service(&name)),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(names::selector(&name)),
            ports: Some(vec![http_of_service()]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn http_of_service() -> ServicePort {
    ServicePort {
        name: Some("http".to_owned()),
        port: HTTP_PORT,
        target_port: Some(IntOrString::String("http".to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}

/// Which traffic reaches the pods: SIP on the listeners' ports from anywhere (a trunk is known by its address, and that
/// is the gateway's own check), HTTP from anywhere (bearer keys guard call control). Everything else is closed. What
/// the pods send is not restricted: SIP and DNS go wherever trunks and agents are. Pods on the nodes' network are beyond
/// its reach.
pub fn network_policy(gateway: &SipGateway) -> NetworkPolicy {
    let port = |port: i32, protocol: &str| NetworkPolicyPort {
        port: Some(IntOrString::Int(port)),
        protocol: Some(protocol.to_owned()),
        end_port: None,
    };
    let listeners = listeners(gateway);
    let sip = listeners.iter().map(|listener| port(listener.port, protocol(listener.transport))).collect();
    let rule = |ports| NetworkPolicyIngressRule { ports: Some(ports), from: None };
    let name = gateway.name_any();
    NetworkPolicy {
        metadata: names::owned_metadata(gateway, names::base(&name)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(names::selector(&name)),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![rule(sip), rule(vec![port(http_port(gateway), "TCP")])]),
            egress: None,
        }),
    }
}

/// What Contact and Via of each listener say, as `udp=host:port,tcp=host:port`; `$(NODE_IP)` and `$(POD_IP)` are put
/// in by the kubelet. `service` is the Service as the API server has it, with node ports and load balancer; `before` is what the
/// pods that there are say. `None` while a load balancer has no address and had none: whoever got a call then would be told
/// an address that leads nowhere. One that loses its address is expected to have it again.
pub fn advertise(gateway: &SipGateway, service: &Service, before: Option<&str>) -> Option<String> {
    let exposure = exposure(gateway);
    let host = match (&gateway.spec.advertise, exposure) {
        (Some(advertise), _) => literal(&advertise.address),
        (None, Exposure::NodePort | Exposure::HostNetwork) => "$(NODE_IP)".to_owned(),
        (None, Exposure::LoadBalancer) => match balancers(service).first() {
            Some(address) => literal(address),
            None => before.and_then(host_of).filter(|host| !host.starts_with("$("))?.to_owned(),
        },
        (None, Exposure::ClusterIP) => "$(POD_IP)".to_owned(),
    };
    let one = |listener: &Listener| {
        let port = if exposure == Exposure::NodePort { node_port(listener, service) } else { listener.port };
        format!("{}={host}:{port}", scheme(listener.transport))
    };
    Some(listeners(gateway).iter().map(one).collect::<Vec<_>>().join(","))
}

/// The host that listeners say, by what [`advertise`] made.
fn host_of(advertise: &str) -> Option<&str> {
    let (_, first) = advertise.split(',').next()?.split_once('=')?;
    Some(first.rsplit_once(':')?.0)
}

/// Where SIP is heard from outside, `transport:address:port`. `nodes` are the addresses of nodes with serving pods.
pub fn addresses(gateway: &SipGateway, service: &Service, nodes: &[String]) -> Vec<String> {
    let exposure = exposure(gateway);
    let hosts: Vec<String> = match (&gateway.spec.advertise, exposure) {
        (Some(advertise), _) => vec![advertise.address.clone()],
        (None, Exposure::NodePort | Exposure::HostNetwork) => nodes.to_vec(),
        (None, Exposure::LoadBalancer) => balancers(service),
        (None, Exposure::ClusterIP) => {
            service.spec.iter().filter_map(|spec| spec.cluster_ip.clone()).filter(|ip| ip != "None").collect()
        }
    };
    let listeners = listeners(gateway);
    let at = |host: &String| {
        let host = literal(host);
        listeners
            .iter()
            .map(|listener| {
                let port = match exposure {
                    Exposure::NodePort => node_port(listener, service),
                    _ => listener.port,
                };
                format!("{}:{host}:{port}", scheme(listener.transport))
            })
            .collect::<Vec<_>>()
    };
    hosts.iter().flat_map(at).collect()
}

/// Whether the load balancer has no address yet.
pub fn waits_for_balancer(gateway: &SipGateway, service: &Service) -> bool {
    exposure(gateway) == Exposure::LoadBalancer
        && gateway.spec.advertise.is_none()
        && balancers(service).is_empty()
}

fn balancers(service: &Service) -> Vec<String> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    ingress.iter().filter_map(|ingress| ingress.ip.clone().or_else(|| ingress.hostname.clone())).collect()
}

fn node_port(listener: &Listener, service: &Service) -> i32 {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let protocol = protocol(listener.transport);
    let found =
        ports.iter().find(|port| port.port == listener.port && port.protocol.as_deref() == Some(protocol));
    found.and_then(|port| port.node_port).or(listener.node_port).unwrap_or(listener.port)
}

/// An IPv6 address in brackets, anything else as it is.
fn literal(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn gateway(spec: serde_json::Value) -> SipGateway {
        SipGateway::new("default", serde_json::from_value(spec).unwrap())
    }

    fn service(value: serde_json::Value) -> Service {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_node_port_gateway_tells_its_nodes_address_and_the_port_that_kubernetes_chose() {
        let gateway = gateway(json!({ "exposure": "NodePort" }));
        let service = service(json!({ "spec": { "ports": [
            { "port": 5060, "protocol": "UDP", "nodePort": 30060 }, { "port": 5060, "protocol": "TCP", "nodePort": 30061 },
        ] } }));
        assert_eq!(
            advertise(&gateway, &service, None).as_deref(),
            Some("udp=$(NODE_IP):30060,tcp=$(NODE_IP):30061")
        );
        assert_eq!(
            addresses(&gateway, &service, &["10.1.0.1".to_owned()]),
            ["udp:10.1.0.1:30060", "tcp:10.1.0.1:30061"]
        );
    }

    #[test]
    fn a_load_balancer_is_told_once_it_has_an_address() {
        let gateway = gateway(json!({ "exposure": "LoadBalancer" }));
        assert_eq!(advertise(&gateway, &Service::default(), None), None);
        let of_pods = Some("udp=$(POD_IP):5060,tcp=$(POD_IP):5060");
        assert_eq!(advertise(&gateway, &Service::default(), of_pods), None, "that was another exposure");
        let service =
            service(json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "2001:db8::7" }] } } }));
        let expected = Some("udp=[2001:db8::7]:5060,tcp=[2001:db8::7]:5060".to_owned());
        assert_eq!(advertise(&gateway, &service, None), expected);
        let lost = advertise(&gateway, &Service::default(), expected.as_deref());
        assert_eq!(lost, expected, "it is expected to come back");
    }

    #[test]
    fn call_control_is_never_on_a_load_balancer() {
        let has_http = |service: Service| {
            service.spec.unwrap().ports.unwrap().iter().any(|port| port.name.as_deref() == Some("http"))
        };
        let balanced = gateway(json!({ "exposure": "LoadBalancer" }));
        assert!(!has_http(super::service(&balanced)));
        assert!(has_http(api_service(&balanced)));
        assert!(has_http(super::service(&gateway(json!({})))));
    }

    #[test]
    fn an_address_in_the_spec_wins() {
        let gateway =
            gateway(json!({ "exposure": "LoadBalancer", "advertise": { "address": "sip.example.com" } }));
        assert_eq!(
            advertise(&gateway, &Service::default(), None).as_deref(),
            Some("udp=sip.example.com:5060,tcp=sip.example.com:5060")
        );
    }
}
