//! The gateway pods: which there are, which of them a namespace's calls may be at, and the keys that open them.
//!
//! Pods are known by their Leases, as they know each other. A namespace's calls are asked for only at gateways that the operator
//! says answer its numbers, and at the default gateway: whoever can make a Lease in a namespace of their own is not believed
//! about anybody else's calls. The keys are those of the SipGateway; their Secret carries the labels
//! `voicedock.dev/holds: gateway-keys` and `voicedock.dev/gateway: <name>`, as the chart writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use serde_json::Value;

use super::router::Service;
use crate::gateway::call_id::{CallId, Instance};
use crate::gateway::peers::{self, Peer, Peers};
use crate::http::access;
use crate::http::calls::CallList;
use crate::http::error::ApiError;
use crate::http::forward::{Ask, Forwarder, Passed, Wanted};
use crate::operator::watch::Delta;
use crate::routing::ack;
use crate::routing::table::{E164, ObjectKey};

/// What a process that is no pod says where a pod says its instance.
pub const NO_POD: Instance = Instance(0);

/// The pods of all gateways, by gateway.
#[derive(Debug, Default)]
pub struct Gateways {
    leases: Mutex<BTreeMap<ObjectKey, Pod>>,
    pods: ArcSwap<BTreeMap<ObjectKey, Peers>>,
    forwarder: Forwarder,
}

/// A gateway pod.
#[derive(Clone, Debug)]
pub struct Pod {
    gateway: ObjectKey,
    instance: Instance,
    peer: Peer,
}

/// Selects the Leases of gateway pods.
pub fn selector() -> String {
    format!("{},{}={}", ack::GATEWAY_LABEL, ack::MANAGED_BY_LABEL, ack::MANAGED_BY)
}

/// The pod that a Lease speaks of.
pub fn reduce(lease: Lease) -> Option<Pod> {
    let gateway = ObjectKey::new(lease.namespace()?, lease.labels().get(ack::GATEWAY_LABEL)?);
    let (instance, peer) = peers::peer(&lease)?;
    Some(Pod { gateway, instance, peer })
}

impl Gateways {
    /// Takes in what the watch says.
    pub fn hear(&self, delta: Delta<Pod>) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        match delta {
            Delta::Put(key, pod) => drop(leases.insert(key, pod)),
            Delta::Gone(key) => drop(leases.remove(&key)),
            Delta::Replace(all) => *leases = all,
        }
        let mut pods: BTreeMap<ObjectKey, Peers> = BTreeMap::new();
        for pod in leases.values() {
            pods.entry(pod.gateway.clone()).or_default().0.insert(pod.instance, pod.peer.clone());
        }
        self.pods.store(Arc::new(pods));
    }

    /// Any pod: that with this instance, else the first that takes calls.
    pub fn any(&self, instance: Option<Instance>) -> Option<Peer> {
        let pods = self.pods.load();
        let owner = instance.and_then(|instance| pods.values().find_map(|peers| peers.get(instance)));
        let mut all = pods.values().flat_map(|peers| peers.0.values());
        owner.or_else(|| all.find(|peer| !peer.draining)).cloned()
    }

    /// Sends a request to a pod as it came.
    pub async fn pass_on(
        &self,
        peer: &Peer,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Passed, ApiError> {
        let ask = Ask { own: NO_POD, method: Method::POST, path, headers };
        let passed = self.forwarder.pass_on(peer, ask, body).await;
        passed.map_err(|error| ApiError::unavailable(format!("gateway pod {} {error}", peer.pod)))
    }
}

/// Asks gateways in the name of a namespace.
pub struct Desk<'a> {
    service: &'a Service,
    namespace: &'a str,
}

impl<'a> Desk<'a> {
    /// For calls of this namespace.
    pub fn new(service: &'a Service, namespace: &'a str) -> Self {
        Self { service, namespace }
    }

    /// Whether calls of the namespace may be at a gateway.
    fn concerns(&self, gateway: &ObjectKey) -> bool {
        let named = gateway.to_string();
        self.service.default_gateway.as_ref() == Some(gateway)
            || self.service.numbers.find(self.namespace, |number| effective(number) == Some(&named)).is_some()
    }

    /// The calls of each pod, or the sentence that says why they can't be had.
    pub async fn lists(&self, wanted: Wanted) -> Vec<Result<CallList<Value>, String>> {
        let pods = self.service.gateways.pods.load_full();
        let mut named: BTreeSet<ObjectKey> = self.service.default_gateway.iter().cloned().collect();
        let numbers = self.service.numbers.page(self.namespace, usize::MAX, 0).0;
        let effective: BTreeSet<&String> =
            numbers.iter().filter_map(|number| effective(&number.object)).collect();
        named.extend(effective.into_iter().filter_map(|gateway| gateway.parse().ok()));
        let asked =
            pods.iter().filter(|(gateway, _)| named.contains(gateway)).map(async |(gateway, peers)| {
                let Some(headers) = self.headers(gateway).into_iter().next() else {
                    return vec![Err(format!("calls of gateway {gateway} are missing: {}", no_key(gateway)))];
                };
                self.service.gateways.forwarder.lists(NO_POD, peers, &headers, wanted).await
            });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Asks the pod that has a call. `sent` are the headers of whoever asks: those of them that matter go along.
    pub async fn ask(
        &self,
        call: CallId,
        method: Method,
        path: &str,
        sent: &HeaderMap,
        body: Bytes,
    ) -> Result<Passed, ApiError> {
        let asked = self.ask_process(call.instance, method, path, sent, body).await;
        asked.unwrap_or_else(|| Err(ApiError::no_call(&call.to_string())))
    }

    /// Asks the pod with this instance; `None` if the namespace's calls are at none that has it.
    pub async fn ask_process(
        &self,
        instance: Instance,
        method: Method,
        path: &str,
        sent: &HeaderMap,
        body: Bytes,
    ) -> Option<Result<Passed, ApiError>> {
        let pods = self.service.gateways.pods.load_full();
        let found = pods.iter().find_map(|(gateway, peers)| Some((gateway, peers.get(instance)?)));
        let (gateway, peer) = found.filter(|(gateway, _)| self.concerns(gateway))?;
        Some(self.ask_pod(gateway, peer, method, path, sent, body).await)
    }

    /// Asks a pod that takes calls of the gateway that answers a number of the namespace.
    pub async fn ask_gateway_of(
        &self,
        number: &E164,
        method: Method,
        path: &str,
        sent: &HeaderMap,
        body: Bytes,
    ) -> Result<Passed, ApiError> {
        let found = self.service.numbers.find(self.namespace, |object| object.spec.number == number.as_str());
        let unknown =
            || ApiError::not_found("the namespace has no such number; GET /api/v1/numbers lists them");
        let number = found.ok_or_else(|| unknown().about("number"))?;
        let gateway: Option<ObjectKey> = effective(&number.object).and_then(|gateway| gateway.parse().ok());
        let gateway = gateway.ok_or_else(|| {
            ApiError::unavailable("no gateway answers the number yet; look at the status of its PhoneNumber")
        })?;
        let pods = self.service.gateways.pods.load_full();
        let peer = pods.get(&gateway).and_then(|peers| peers.0.values().find(|peer| !peer.draining));
        let peer = peer.ok_or_else(|| no_pod(&gateway))?;
        self.ask_pod(&gateway, peer, method, path, sent, body).await
    }

    /// Asks a pod that takes calls of each gateway that the namespace's calls may be at, until one knows what is meant: the answer
    /// of the last one that was asked.
    pub async fn ask_any(
        &self,
        method: Method,
        path: &str,
        sent: &HeaderMap,
        body: Bytes,
    ) -> Result<Passed, ApiError> {
        let pods = self.service.gateways.pods.load_full();
        let mut answer = Err(ApiError::not_found(
            "no gateway answers numbers of this namespace; look at the status of its PhoneNumbers",
        ));
        for (gateway, peers) in pods.iter().filter(|(gateway, _)| self.concerns(gateway)) {
            answer = match peers.0.values().find(|peer| !peer.draining) {
                Some(peer) => self.ask_pod(gateway, peer, method.clone(), path, sent, body.clone()).await,
                None => Err(no_pod(gateway)),
            };
            if matches!(&answer, Ok(passed) if passed.status != StatusCode::NOT_FOUND) {
                break;
            }
        }
        answer
    }

    async fn ask_pod(
        &self,
        gateway: &ObjectKey,
        peer: &Peer,
        method: Method,
        path: &str,
        sent: &HeaderMap,
        body: Bytes,
    ) -> Result<Passed, ApiError> {
        let unknown = || ApiError::unavailable(no_key(gateway));
        for mut headers in self.headers(gateway) {
            for name in [header::CONTENT_TYPE, HeaderName::from_static("idempotency-key")] {
                headers.extend(sent.get(&name).map(|value| (name, value.clone())));
            }
            let ask = Ask { own: NO_POD, method: method.clone(), path, headers: &headers };
            let passed = self.service.gateways.forwarder.pass_on(peer, ask, body.clone()).await;
            match passed {
                // A Secret takes up to a minute to reach a pod: it may know another of its keys.
                Ok(Passed { status: StatusCode::UNAUTHORIZED, .. }) => {}
                Ok(passed) => return Ok(passed),
                Err(error) => {
                    return Err(ApiError::unavailable(format!("gateway pod {} {error}", peer.pod)));
                }
            }
        }
        Err(unknown())
    }

    /// What is sent to a gateway's pods: each of its keys, with the namespace that it is narrowed to.
    fn headers(&self, gateway: &ObjectKey) -> Vec<HeaderMap> {
        let Ok(namespace) = HeaderValue::from_str(self.namespace) else { return Vec::new() };
        let keys = self.service.secrets.gateway_keys(gateway);
        let headers = |key: HeaderValue| {
            HeaderMap::from_iter([(header::AUTHORIZATION, key), (access::NAMESPACE, namespace.clone())])
        };
        keys.into_iter().map(headers).collect()
    }
}

/// The gateway that answers a number, as the operator says.
fn effective(number: &crate::resources::PhoneNumber) -> Option<&String> {
    number.status.as_ref()?.effective.as_ref()?.gateway.as_ref()
}

fn no_pod(gateway: &ObjectKey) -> ApiError {
    ApiError::unavailable(format!(
        "no pod of gateway {gateway} takes calls now; look at the status of the SipGateway"
    ))
}

fn no_key(gateway: &ObjectKey) -> String {
    format!(
        "gateway {gateway} takes no key that the API knows; give its apiKeysSecretRef a Secret with the labels \
         voicedock.dev/holds: gateway-keys and voicedock.dev/gateway: {}",
        gateway.name
    )
}
