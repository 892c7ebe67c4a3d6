//! The gateways of a cluster: which there are, what their pods say of themselves, and the calls that they have.
//!
//! Pods are known by their Leases. Their calls are asked for through the API server ([`port_forward`](super::port_forward)), with a
//! key of the SipGateway that whoever asks may read: who may not read the Secret doesn't see a call. What can't be had is said in
//! a sentence and never taken for nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::api::gateways::{NO_POD, selector};
use crate::api::secrets::bearers;
use crate::gateway::peers::{self, Peer};
use crate::http::access;
use crate::http::forward::{ForwardError, Forwarder, Wanted};
use crate::http::page::{LARGEST_LIMIT, LARGEST_OFFSET};
use crate::operator::api::{read, redact};
use crate::resources::{PhoneNumber, SipGateway};
use crate::routing::ack::{self, Acknowledgement};
use crate::routing::table::ObjectKey;

use super::ask::Asked;
use super::call::Call;
use super::cluster::{ClusterError, list, pages};
use super::port_forward::PortForward;

/// How long a pod may take for its calls, the way to it included: it may lead half around the world.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pods that are asked at the same time.
const AT_ONCE: usize = 16;
/// All that a pod gives to another one at once.
const ALL: usize = LARGEST_OFFSET + LARGEST_LIMIT;

/// Gateways, and what of them could not be had.
#[derive(Default)]
pub struct Gateways {
    /// By their keys.
    pub found: BTreeMap<ObjectKey, Arc<SipGateway>>,
    /// Sentences.
    pub missing: Vec<String>,
}

/// A gateway pod, as its Lease has it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its SipGateway.
    pub gateway: ObjectKey,
    /// Where it is.
    pub peer: Peer,
    /// What it says.
    pub said: Acknowledgement,
}

/// The calls of several pods.
#[derive(Default)]
pub struct Looked {
    /// Newest first.
    pub calls: Vec<Call>,
    /// Pods whose calls these are, by name.
    pub pods: Vec<ObjectKey>,
    /// Why others are missing, as sentences.
    pub missing: Vec<String>,
}

/// The gateways where they are asked about. Of a namespace, those too that answer its numbers.
///
/// # Errors
/// When gateways can't be listed.
pub async fn gateways(
    asked: &Asked,
    numbers: impl Iterator<Item = Arc<PhoneNumber>>,
) -> Result<Gateways, ClusterError> {
    let mut gateways = Gateways { found: list(&asked.api()).await?, missing: Vec::new() };
    if asked.namespace.is_none() {
        return Ok(gateways);
    }
    let effective =
        |number: Arc<PhoneNumber>| number.status.as_ref()?.effective.as_ref()?.gateway.as_ref()?.parse().ok();
    let named: std::collections::BTreeSet<ObjectKey> = numbers.filter_map(effective).collect();
    for key in named.into_iter().filter(|key| !gateways.found.contains_key(key)).collect::<Vec<_>>() {
        let api: Api<SipGateway> = Api::namespaced(asked.client.clone(), &key.namespace);
        match read(format!("read SipGateway {key}, which answers its numbers"), api.get_opt(&key.name)).await
        {
            Ok(Some(gateway)) => drop(gateways.found.insert(key, Arc::new(gateway))),
            Ok(None) => {}
            Err(error) => gateways.missing.push(format!("Can't {error}.")),
        }
    }
    Ok(gateways)
}

/// The pods of gateways, in the order of their names.
pub async fn pods(asked: &Asked, gateways: &mut Gateways) -> Vec<Pod> {
    let params = || ListParams::default().labels(&selector());
    let mut leases: Vec<Lease> = Vec::new();
    let namespaces: Vec<Option<&str>> = match asked.namespace {
        None => vec![None],
        Some(_) => {
            let mut all: Vec<_> = gateways.found.keys().map(|key| Some(key.namespace.as_str())).collect();
            all.dedup();
            all
        }
    };
    for namespace in namespaces {
        let api = match namespace {
            Some(namespace) => Api::namespaced(asked.client.clone(), namespace),
            None => Api::all(asked.client.clone()),
        };
        match pages(&api, params()).await {
            Ok(found) => leases.extend(found),
            Err(error) => {
                gateways.missing.push(format!("What gateway pods say of themselves is missing: {error}."))
            }
        }
    }
    let mut pods = Vec::new();
    for lease in leases {
        match pod(&lease) {
            Ok(pod) => pods.extend(pod.filter(|pod| gateways.found.contains_key(&pod.gateway))),
            Err(error) => {
                gateways.missing.push(format!("Lease {} can't be read: {error}.", lease.name_any()))
            }
        }
    }
    pods.sort_by(|a, b| (&a.gateway, &a.peer.pod).cmp(&(&b.gateway, &b.peer.pod)));
    pods
}

fn pod(lease: &Lease) -> Result<Option<Pod>, ack::AckError> {
    let said = Acknowledgement::parse(lease.annotations())?;
    let gateway = lease.labels().get(ack::GATEWAY_LABEL).zip(lease.namespace());
    let gateway = gateway.map(|(name, namespace)| ObjectKey::new(namespace, name));
    Ok(gateway.zip(peers::peer(lease)).map(|(gateway, (_, peer))| Pod { gateway, peer, said }))
}

/// Asks pods for their calls.
pub struct Desk {
    asked: Asked,
    ways: PortForward,
    forwarder: Forwarder<PortForward>,
    /// The key that opened a gateway last.
    keys: BTreeMap<ObjectKey, HeaderValue>,
}

impl Desk {
    /// For a cluster.
    pub fn new(asked: &Asked) -> Self {
        let ways = PortForward::new(asked.client.clone());
        let forwarder = Forwarder::over(ways.clone(), ANSWER_TIMEOUT);
        Self { asked: asked.clone(), ways, forwarder, keys: BTreeMap::new() }
    }

    /// The calls of pods that are not over, or have been for less than so many seconds.
    pub async fn look(&mut self, gateways: &Gateways, pods: &[Pod], ended_within: usize) -> Looked {
        let mut looked = Looked::default();
        for (key, gateway) in &gateways.found {
            let pods: Vec<&Pod> = pods.iter().filter(|pod| pod.gateway == *key).collect();
            if pods.is_empty() {
                continue;
            }
            let known = match self.keys.get(key) {
                Some(known) => Ok(vec![known.clone()]),
                None => self.keys_of(key, gateway).await,
            };
            match known {
                Ok(keys) => self.look_at(key, &keys, &pods, ended_within, &mut looked).await,
                Err(why) => looked.missing.push(format!("Calls of SipGateway {key} are missing: {why}.")),
            }
        }
        looked.calls.sort_by(|a, b| (b.since, &b.id).cmp(&(a.since, &a.id)));
        looked
    }

    async fn look_at(
        &mut self,
        gateway: &ObjectKey,
        keys: &[HeaderValue],
        pods: &[&Pod],
        ended_within: usize,
        looked: &mut Looked,
    ) {
        for pod in pods {
            self.ways.know(pod.peer.http, ObjectKey::new(&gateway.namespace, &pod.peer.pod));
        }
        let this = &*self;
        let answers = futures::stream::iter(pods)
            .map(async |pod| (*pod, this.ask(pod, keys, ended_within).await))
            .buffer_unordered(AT_ONCE);
        let answers: Vec<_> = answers.collect().await;
        let mut opened = None;
        for (pod, answer) in answers {
            match answer {
                Ok((key, calls)) => {
                    opened = Some(key);
                    looked.calls.extend(calls);
                    looked.pods.push(ObjectKey::new(&gateway.namespace, &pod.peer.pod));
                }
                Err(why) => {
                    looked.missing.push(format!(
                        "Calls of pod {}/{} are missing: it {why}.",
                        gateway.namespace, pod.peer.pod
                    ));
                }
            }
        }
        match opened {
            Some(key) => drop(self.keys.insert(gateway.clone(), key)),
            None => drop(self.keys.remove(gateway)),
        }
    }

    /// The calls of a pod, and the key that it took.
    async fn ask(
        &self,
        pod: &Pod,
        keys: &[HeaderValue],
        ended_within: usize,
    ) -> Result<(HeaderValue, Vec<Call>), String> {
        let wanted = Wanted { limit: ALL, ended_within };
        for key in keys {
            let mut headers = HeaderMap::from_iter([(header::AUTHORIZATION, key.clone())]);
            let namespace = self.asked.namespace.as_deref().map(HeaderValue::from_str).transpose();
            let namespace = namespace.map_err(|_| "has no namespace of that name".to_owned())?;
            headers.extend(namespace.map(|namespace| (access::NAMESPACE, namespace)));
            match self.forwarder.list(NO_POD, &pod.peer, &headers, wanted).await {
                Ok(list) => {
                    let calls =
                        list.calls.into_iter().map(|call| Call::read(call, &pod.gateway, &pod.peer.pod));
                    let calls: Result<Vec<_>, _> = calls.collect();
                    return calls
                        .map(|calls| (key.clone(), calls))
                        .map_err(|error| format!("gave an answer that can't be read: {error}"));
                }
                // A Secret takes up to a minute to reach a pod: it may know another of its keys.
                Err(ForwardError::Refused(StatusCode::UNAUTHORIZED)) => {}
                Err(ForwardError::TooSlow) => {
                    return Err(format!("did not answer within {} s", ANSWER_TIMEOUT.as_secs()));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("takes no key of the Secret; one that is new takes up to a minute to reach it".to_owned())
    }

    /// The keys of a gateway, or why they can't be had.
    async fn keys_of(&self, key: &ObjectKey, gateway: &SipGateway) -> Result<Vec<HeaderValue>, String> {
        let Some(secret) = &gateway.spec.api_keys_secret_ref else {
            return Err("it has no apiKeysSecretRef, so that nobody may ask; name a Secret with a key there"
                .to_owned());
        };
        let api: Api<Secret> = Api::namespaced(self.asked.client.clone(), &key.namespace);
        let place = format!("{}/{}", key.namespace, secret.name);
        let found = read(format!("read Secret {place}"), api.get_opt(&secret.name)).await.map_err(redact);
        match found {
            Ok(Some(secret)) => match bearers(secret) {
                keys if keys.is_empty() => Err(format!("Secret {place} has no key")),
                keys => Ok(keys),
            },
            Ok(None) => Err(format!("Secret {place}, which has its keys, does not exist")),
            Err(error) => Err(format!("{error}; only who may read it may see calls")),
        }
    }
}
