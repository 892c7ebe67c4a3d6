//! What runs a gateway: a Deployment, two Services, ServiceAccount, Role, RoleBinding, PodDisruptionBudget and NetworkPolicy,
//! owned by its SipGateway so that they are deleted with it.
//!
//! Server-side applied with one field manager: what somebody else adds stays, what somebody changes or deletes of ours
//! comes back, and applying the same again writes nothing. An object of the same name that is not the gateway's is
//! never taken over. The Service goes first, because the pods tell others the addresses that it has.

mod access;
mod network;
mod workload;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::info;

use crate::resources::SipGateway;
use crate::routing::ack;
use crate::routing::table::ObjectKey;

use super::api::{ApiError, FIELD_MANAGER, read, write};
use super::leader::Term;
use super::metrics::Metrics;
use super::names;
use super::scale;
use super::watch::{OwnedFacts, OwnedKind};

pub use network::{addresses, waits_for_balancer};
pub use workload::DEFAULT_REPLICAS;

/// How often the Deployment is applied anew because somebody wrote it meanwhile.
const CONFLICTS: u32 = 5;
/// Versions of an object that are remembered as our own, for a watch that lags behind.
const REMEMBERED: usize = 8;

/// Why a gateway's objects are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// A call failed; it is tried again.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The name is taken.
    #[error(
        "{kind} {name} is there already and is not this gateway's; rename it or the SipGateway, it is not touched"
    )]
    Foreign {
        /// Kind of the object.
        kind: String,
        /// `namespace/name` of the object.
        name: ObjectKey,
    },
    /// No names can be made of the gateway's.
    #[error(
        "'{name}' can't name a Service: a SipGateway needs at most {} lower-case letters, digits and hyphens, \
         a letter first; create it under another name",
        names::LONGEST_GATEWAY
    )]
    Name {
        /// Name of the gateway.
        name: String,
    },
}

/// What this leader has made for one gateway.
#[derive(Debug, Default)]
pub struct Provision {
    made: BTreeMap<(OwnedKind, String), Made>,
    /// The Service as the API server has it.
    pub service: Option<Service>,
    /// How many pods the Deployment asks for.
    pub replicas: Option<i32>,
    /// How many it asked for before it was applied last, if it was there.
    pub replicas_before: Option<i32>,
    /// Whether that was the number of somebody else, who has set it since we did.
    pub by_others: bool,
}

#[derive(Debug, Default)]
struct Made {
    uid: String,
    generation: Option<i64>,
    versions: VecDeque<String>,
}

/// The image of gateway pods.
#[derive(Clone, Debug)]
pub struct Image {
    /// As in a pod's `image`.
    pub name: String,
    /// As in a pod's `imagePullPolicy`; Kubernetes decides when `None`.
    pub pull_policy: Option<String>,
    /// Secrets of the pod's own namespace with the registry's credentials, as in a pod's `imagePullSecrets`.
    pub pull_secrets: Vec<String>,
    /// The standard variables that say where its traces go.
    pub tracing: Vec<(String, String)>,
}

/// What provisioning needs to know.
pub struct Job {
    /// The client.
    pub client: Client,
    /// The leader's term: without it nothing is written.
    pub term: Term,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The gateway.
    pub gateway: Arc<SipGateway>,
    /// Image of the pods.
    pub image: Image,
    /// How many pods there should be.
    pub replicas: Replicas,
    /// What changes on pods before the Deployment is applied: see [`scale::marks`].
    pub marks: Vec<(String, Option<&'static str>)>,
}

/// How many pods a gateway should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicas {
    /// So many, whatever others set.
    Fixed(i32),
    /// As many as were decided by its calls, or else as it has; a number that somebody else has set holds, within the bounds.
    ByCalls {
        /// What was decided; `None` before it is known how many there are.
        wanted: Option<i32>,
        /// Fewest.
        min: i32,
        /// Most.
        max: i32,
    },
}

impl Provision {
    /// Whether `facts` of the object `name` (`None`: it is gone) are what we made of it, or it is none that we make; else
    /// everything has to be applied again.
    pub fn recognises(&self, kind: OwnedKind, name: &str, facts: Option<&OwnedFacts>) -> bool {
        let Some(made) = self.made.get(&(kind, name.to_owned())) else { return true };
        let Some(facts) = facts else { return false };
        let unchanged_spec = facts.generation.is_some() && facts.generation == made.generation;
        made.uid == facts.version.uid
            && (unchanged_spec || made.versions.contains(&facts.version.resource_version))
    }

    /// Applies everything.
    pub async fn apply(&mut self, job: &Job) -> Result<(), ProvisionError> {
        let gateway = &job.gateway;
        if !names::usable(&gateway.name_any()) {
            return Err(ProvisionError::Name { name: gateway.name_any() });
        }
        let service = self.one(job, OwnedKind::Service, network::service(gateway)).await?;
        let before = if network::waits_for_balancer(gateway, &service) { found(job).await? } else { None };
        let advertise = network::advertise(gateway, &service, before.as_ref().and_then(workload::advertised));
        self.service = Some(service);
        self.one(job, OwnedKind::Service, network::api_service(gateway)).await?;
        self.one(job, OwnedKind::ServiceAccount, access::service_account(gateway)).await?;
        self.one(job, OwnedKind::Role, access::role(gateway)).await?;
        self.one(job, OwnedKind::RoleBinding, access::role_binding(gateway)).await?;
        self.one(job, OwnedKind::NetworkPolicy, network::network_policy(gateway)).await?;
        self.one(job, OwnedKind::PodDisruptionBudget, workload::disruption_budget(gateway)).await?;
        match advertise {
            Some(advertise) => self.deployment(job, &advertise).await,
            // The Service's next version brings us back.
            None => Ok(()),
        }
    }

    /// Applies the Deployment. With autoscaling, against the version in which the number of pods was seen: nobody's number is
    /// overwritten unseen.
    async fn deployment(&mut self, job: &Job, advertise: &str) -> Result<(), ProvisionError> {
        for retries in (0..CONFLICTS).rev() {
            let (replicas, version) = self.count(job).await?;
            if self.replicas_before.is_some_and(|before| replicas < before) {
                mark(job).await?;
            }
            let mut deployment =
                workload::deployment(&job.gateway, &job.image, advertise.to_owned(), replicas);
            deployment.metadata.resource_version = version;
            match self.one(job, OwnedKind::Deployment, deployment).await {
                Err(ProvisionError::Api(error)) if error.is_conflict() && retries > 0 => {}
                done => {
                    done?;
                    self.replicas = Some(replicas);
                    break;
                }
            }
        }
        Ok(())
    }

    /// How many pods the Deployment is going to ask for, and the version of it in which somebody else's number would show.
    async fn count(&mut self, job: &Job) -> Result<(i32, Option<String>), ProvisionError> {
        (self.replicas_before, self.by_others) = (self.replicas, false);
        let (wanted, min, max) = match job.replicas {
            Replicas::Fixed(replicas) => return Ok((replicas, None)),
            Replicas::ByCalls { wanted, min, max } => (wanted, min, max),
        };
        let Some(found) = found(job).await? else {
            return Ok((wanted.unwrap_or(min), None));
        };
        let name = names::base(&job.gateway.name_any());
        self.replicas_before = found.spec.as_ref().and_then(|spec| spec.replicas);
        let made = self.made.get(&(OwnedKind::Deployment, name));
        self.by_others = made.is_some_and(|made| found.metadata.generation > made.generation)
            && self.replicas_before != self.replicas;
        let as_found = self.replicas_before.unwrap_or(min).min(max).max(min);
        let replicas = wanted.filter(|_| !self.by_others).unwrap_or(as_found);
        Ok((replicas, found.metadata.resource_version))
    }

    async fn one<K>(&mut self, job: &Job, kind: OwnedKind, desired: K) -> Result<K, ProvisionError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let key = names::key(&desired);
        let kind_name = K::kind(&()).into_owned();
        let api: Api<K> = Api::namespaced(job.client.clone(), &key.namespace);
        if let Entry::Vacant(first) = self.made.entry((kind, key.name.clone())) {
            let found = read(format!("read {kind_name} {key}"), api.get_metadata_opt(&key.name)).await?;
            if let Some(found) = found {
                if !belongs(&found, &job.gateway) {
                    return Err(ProvisionError::Foreign { kind: kind_name, name: key });
                }
                let version = found.resource_version().unwrap_or_default();
                first.insert(Made { versions: VecDeque::from([version]), ..Made::default() });
            }
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let what = format!("apply {kind_name} {key}");
        let applied = write(&job.term, what, api.patch(&key.name, &params, &Patch::Apply(&desired))).await?;

        let facts = OwnedFacts::of(applied.meta());
        let made = self.made.entry((kind, key.name.clone())).or_default();
        if made.versions.back() != Some(&facts.version.resource_version) {
            job.metrics.wrote(&kind_name);
            info!("gateway {}: {kind_name} {key} is as it should be", names::key(&*job.gateway));
            made.versions.push_back(facts.version.resource_version);
        }
        if made.versions.len() > REMEMBERED {
            made.versions.pop_front();
        }
        made.uid = facts.version.uid;
        made.generation = facts.generation;
        Ok(applied)
    }
}

/// The Deployment as it is.
async fn found(job: &Job) -> Result<Option<Deployment>, ProvisionError> {
    let ObjectKey { namespace, name } = names::key(&*job.gateway);
    let name = names::base(&name);
    let api: Api<Deployment> = Api::namespaced(job.client.clone(), &namespace);
    Ok(read(format!("read Deployment {namespace}/{name}"), api.get_opt(&name)).await?)
}

/// Marks the pods that are to go first, and sets free those that aren't any more. One that is gone needs no mark.
async fn mark(job: &Job) -> Result<(), ProvisionError> {
    let namespace = job.gateway.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(job.client.clone(), &namespace);
    for (pod, mark) in &job.marks {
        let patch = json!({ "metadata": { "annotations": { (scale::DELETION_COST): mark } } });
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        let what = format!("mark Pod {namespace}/{pod}");
        match write(&job.term, what, api.patch_metadata(pod, &params, &patch)).await {
            Ok(_) => job.metrics.wrote("Pod"),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether an object was made for this gateway, or for an earlier one of the same name (whose pods then go on).
fn belongs<K: Resource>(object: &K, gateway: &SipGateway) -> bool {
    let labelled = |name: &str, value: &str| object.labels().get(name).is_some_and(|found| found == value);
    labelled(ack::MANAGED_BY_LABEL, names::MANAGED_BY) && labelled(ack::GATEWAY_LABEL, &gateway.name_any())
        || object.owner_references().iter().any(|owner| Some(&owner.uid) == gateway.metadata.uid.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::sip_gateway::{Limits, MaxRequestsPerSecond};

    fn gateway() -> SipGateway {
        let mut gateway = SipGateway::new(
            "default",
            serde_json::from_value(json!({ "apiKeysSecretRef": { "name": "keys" } })).unwrap(),
        );
        gateway.metadata.namespace = Some("vd".to_owned());
        gateway.metadata.uid = Some("u-1".to_owned());
        gateway
    }

    fn image() -> Image {
        Image {
            name: "voicedock:1".to_owned(),
            pull_policy: None,
            pull_secrets: Vec::new(),
            tracing: Vec::new(),
        }
    }

    #[test]
    fn pods_meet_the_restricted_standard() {
        let deployment = workload::deployment(&gateway(), &image(), "udp=1.2.3.4:5060".to_owned(), 2);
        let pod = deployment.spec.unwrap().template.spec.unwrap();
        let context = pod.security_context.unwrap();
        assert_eq!(context.run_as_non_root, Some(true));
        assert_eq!(context.seccomp_profile.unwrap().type_, "RuntimeDefault");
        let container = pod.containers[0].security_context.clone().unwrap();
        assert_eq!(container.allow_privilege_escalation, Some(false));
        assert_eq!(container.read_only_root_filesystem, Some(true));
        assert_eq!(container.capabilities.unwrap().drop, Some(vec!["ALL".to_owned()]));
    }

    #[test]
    fn a_pod_may_finish_its_drain_before_it_is_killed() {
        let mut gateway = gateway();
        gateway.spec.drain_timeout_seconds = Some(120);
        let deployment = workload::deployment(&gateway, &image(), String::new(), 2);
        assert_eq!(
            deployment.spec.unwrap().template.spec.unwrap().termination_grace_period_seconds,
            Some(135)
        );
    }

    #[test]
    fn a_limit_reaches_the_pods_and_one_that_is_left_out_is_theirs() {
        let env = |limits| {
            let mut gateway = gateway();
            gateway.spec.limits = limits;
            let deployment = workload::deployment(&gateway, &image(), String::new(), 2);
            let env = deployment.spec.unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
            let is_limit = |name: &str| name.contains("_MAX_") || name.ends_with("_RATE");
            let limits = env.into_iter().filter(|variable| is_limit(&variable.name));
            limits.map(|variable| (variable.name, variable.value.unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(env(None), []);
        let limits = Limits { max_concurrent_calls: Some(500), ..Limits::default() };
        assert_eq!(env(Some(limits)), [("VOICEDOCK_MAX_CALLS".to_owned(), "500".to_owned())]);
        let requests = MaxRequestsPerSecond { trunk_address: Some(0), stranger_address: Some(30) };
        let limits = Limits { max_requests_per_second: Some(requests), ..Limits::default() };
        let rates = [("VOICEDOCK_TRUNK_RATE", "0"), ("VOICEDOCK_STRANGER_RATE", "30")];
        assert_eq!(env(Some(limits)), rates.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn networks_of_events_reach_the_pods() {
        let mut gateway = gateway();
        gateway.spec.event_networks = vec!["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()];
        let deployment = workload::deployment(&gateway, &image(), String::new(), 2);
        let env = deployment.spec.unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
        let networks = env.into_iter().find(|variable| variable.name == "VOICEDOCK_EVENT_NETWORKS").unwrap();
        assert_eq!(networks.value.as_deref(), Some("10.0.0.0/8,fd00::/8"));
    }

    #[test]
    fn an_address_is_expanded_only_from_variables_that_come_before_it() {
        let deployment = workload::deployment(&gateway(), &image(), "udp=$(NODE_IP):30060".to_owned(), 2);
        let env = deployment.spec.unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
        let at = |name: &str| env.iter().position(|variable| variable.name == name).unwrap();
        assert!(at("NODE_IP") < at("VOICEDOCK_ADVERTISE") && at("POD_IP") < at("VOICEDOCK_ADVERTISE"));
    }

    #[test]
    fn an_object_of_somebody_else_is_not_taken_over() {
        let gateway = gateway();
        let mut service = network::service(&gateway);
        assert!(belongs(&service, &gateway));
        service.metadata.owner_references = None;
        assert!(belongs(&service, &gateway), "an earlier gateway of the same name made it");
        service.metadata.labels = None;
        assert!(!belongs(&service, &gateway));
    }

    #[test]
    fn a_write_to_a_deployments_status_is_not_drift() {
        let made =
            Made { uid: "d".to_owned(), generation: Some(3), versions: VecDeque::from(["7".to_owned()]) };
        let provision = Provision {
            made: BTreeMap::from([((OwnedKind::Deployment, "x".to_owned()), made)]),
            ..Provision::default()
        };
        let facts = |version: &str, generation| OwnedFacts {
            gateway: "default".to_owned(),
            version: crate::routing::protocol::Version {
                uid: "d".to_owned(),
                resource_version: version.to_owned(),
            },
            generation,
            pods_refused: None,
        };
        assert!(provision.recognises(OwnedKind::Deployment, "x", Some(&facts("9", Some(3)))));
        assert!(!provision.recognises(OwnedKind::Deployment, "x", Some(&facts("9", Some(4)))));
        assert!(!provision.recognises(OwnedKind::Deployment, "x", None));
        assert!(provision.recognises(OwnedKind::Deployment, "not-ours", Some(&facts("7", None))));
    }
}
