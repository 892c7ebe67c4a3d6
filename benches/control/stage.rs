//! The stage: a namespace with a SipGateway, an operator that runs it, and three gateways that are subscribed.
//!
//! There are no nodes. The bench plays the kubelet: each gateway process has its Pod object, which is made `Ready` when the
//! process says that it is. All processes are cluster administrators, as is the bare client.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use k8s_openapi::{ByteString, NamespaceResourceScope};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use voicedock::resources::{RoutingSlice, RoutingTable, SipGateway};

use crate::calls::Agent;
use crate::clients::{Crowd, OURS, api, resource, until, within};
use crate::follow::{Acknowledged, Readiness};
use crate::objects::{self, Field, KINDS, NUMBER, Object, Office, number_name, trunk_name};
use crate::programs::{Program, Start};
use crate::report::say;
use crate::support::api_server::{ApiServer, SOON};
use crate::support::net::free_address;

/// Name of the SipGateway.
pub const GATEWAY: &str = "default";
/// Gateway pods.
pub const PODS: usize = 3;
/// Useless slices that are no work any more.
const LEFT_OVER: usize = 20;
/// Objects a second below which loading counts as stuck.
const SLOWEST: usize = 30;

/// The stage.
pub struct Stage {
    pub client: Client,
    pub namespace: String,
    operator: Option<Program>,
    pub gateways: Vec<Gateway>,
    pub acknowledged: watch::Receiver<Acknowledged>,
    pub readiness: watch::Receiver<Readiness>,
    pub office: Office,
    pub agent: Agent,
    /// What fields name that were changed, by its place.
    changed: BTreeMap<(usize, Field), usize>,
    operators: usize,
    start: Start,
    _watches: JoinSet<()>,
    _states: tempfile::TempDir,
}

/// A gateway pod's process.
pub struct Gateway {
    pub program: Program,
    /// Where it hears SIP.
    pub sip: std::net::SocketAddr,
}

impl Stage {
    /// An empty table, held by every gateway.
    pub async fn set(server: &ApiServer, start: Start, hint: &str) -> Self {
        let (client, namespace) = (server.client.clone(), server.namespace(hint).await);
        let agent = Agent::listen().await;
        let apply = PatchParams::apply("bench").force();
        // The admission plugin wants the account, and no controller makes it here.
        let account =
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
        accounts.patch("default", &apply, &Patch::Apply(account)).await.expect("a ServiceAccount");
        let gateways: Api<SipGateway> = Api::namespaced(client.clone(), &namespace);
        let gateway =
            SipGateway::new(GATEWAY, serde_json::from_value(json!({})).expect("every field may be left out"));
        gateways.create(&PostParams::default(), &gateway).await.expect("a SipGateway");

        let mut watches = JoinSet::new();
        let acknowledged = Acknowledged::of(PODS).follow(&mut watches, &client, &namespace, GATEWAY);
        let readiness = Readiness::follow(&mut watches, &client, &namespace);
        let operator = operator(&start, &namespace, 0);
        let states = tempfile::tempdir_in(&start.copies).expect("a directory for the gateways' disk copies");
        let mut gateways = Vec::new();
        for number in 0..PODS {
            let state = states.path().join(number.to_string());
            gateways.push(gateway_pod(&client, &start, &namespace, number, &state).await);
        }
        let mut stage = Self {
            client,
            namespace,
            operator: Some(operator),
            gateways,
            acknowledged,
            readiness,
            office: Office { numbers: 0, agent_port: agent.port() },
            agent,
            changed: BTreeMap::new(),
            operators: 1,
            start,
            _watches: watches,
            _states: states,
        };
        let first = stage.acknowledged.wait_for(|pods| pods.lowest() > 0);
        within(SOON, "the first table in every gateway", first).await.expect("the Leases are watched");
        stage
    }

    /// Objects of a kind in the stage's namespace.
    pub fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Loads what is missing up to so many numbers, and waits until all of it is `Ready`; the time from the first write to the last
    /// `Ready`.
    pub async fn grow(&mut self, crowd: &Crowd, numbers: usize) -> Duration {
        let before = Some(self.office).filter(|office| office.numbers > 0);
        let office = Office { numbers, ..self.office };
        let (present, wanted) = (before.map_or(0, |office| office.objects()), office.objects());
        let trunks = before.map_or(0, |office| office.trunks())..office.trunks();
        crowd
            .all(trunks, async |client, index| credentials(client, &self.namespace, &trunk_name(index)).await)
            .await;

        let start = Instant::now();
        let mut ready = self.readiness.clone();
        let load = async {
            let namespace = &self.namespace;
            crowd
                .all(office.beyond(before), async |client, object| create(client, namespace, &object).await)
                .await;
            ready.wait_for(|ready| ready.count() >= wanted).await.expect("the objects are watched");
        };
        let progress = async {
            loop {
                tokio::time::sleep(Duration::from_secs(20)).await;
                let ready = self.readiness.borrow().count();
                say(&format!("  {} of {} objects are Ready", ready - present, wanted - present));
            }
        };
        let limit = SOON + Duration::from_secs(((wanted - present) / SLOWEST) as u64);
        let load = async {
            tokio::select! {
                () = load => {}
                () = progress => {}
            }
        };
        within(limit, "all objects being Ready", load).await;
        self.office = office;
        self.readiness.borrow().last().map_or(Duration::ZERO, |last| last - start)
    }

    /// What a field of a number names.
    pub fn named(&self, number: usize, field: Field) -> String {
        let first = self.office.first(number, field).0;
        field.name(self.changed.get(&(number, field)).copied().unwrap_or(first))
    }

    /// The change that lets a field of a number name another object, any other: content that was there before would be found
    /// among the slices that aren't collected yet.
    pub fn turn(&mut self, number: usize, field: Field) -> Turn {
        let from = self.named(number, field);
        let (first, count) = self.office.first(number, field);
        let now = self.changed.entry((number, field)).or_insert(first);
        *now = (*now + rand::random_range(1..count)) % count;
        Turn { number, field, from, to: field.name(*now) }
    }

    /// Waits until next to nothing is left to be collected: a batch or two that became useless last.
    pub async fn is_tidy(&self) {
        let slices: Api<PartialObjectMeta<RoutingSlice>> = self.api();
        let heads: Api<RoutingTable> = self.api();
        let tidy = async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let head = heads.get(GATEWAY).await.ok()?;
            let present = slices.list_metadata(&Default::default()).await.ok()?.items.len();
            let kept = head.spec.slices.len() + head.spec.previous_slices.len();
            (present <= kept + LEFT_OVER).then_some(())
        };
        until(Duration::from_secs(300), "the collection of useless slices", tidy).await;
    }

    /// The operator.
    pub fn operator(&self) -> &Program {
        self.operator.as_ref().expect("there is always one")
    }

    /// Ends the operator, which gives its lease back, and starts another; the moment of its start.
    pub fn another_operator(&mut self) -> Instant {
        if let Some(operator) = self.operator.take() {
            operator.end();
        }
        let start = Instant::now();
        self.operator = Some(operator(&self.start, &self.namespace, self.operators));
        self.operators += 1;
        start
    }

    /// Ends all processes and deletes what they and people wrote.
    pub async fn strike(self) {
        let Self { operator, gateways, client, namespace, .. } = self;
        drop(operator);
        drop(gateways);
        for kind in KINDS.into_iter().chain([objects::GATEWAY, objects::TABLE, objects::SLICE]) {
            let all = api(&client, &namespace, OURS, kind);
            all.delete_collection(&Default::default(), &Default::default())
                .await
                .expect("objects can be deleted");
        }
    }
}

/// A number of which one field names another object than before.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The number's place.
    pub number: usize,
    /// The field.
    pub field: Field,
    /// What it named.
    pub from: String,
    /// What it is to name.
    pub to: String,
}

impl Turn {
    /// Writes it; returns the object's new generation.
    pub async fn write(&self, client: &Client, namespace: &str) -> i64 {
        let numbers = api(client, namespace, OURS, NUMBER);
        let patch = json!({ "spec": { self.field.key(): { "name": self.to } } });
        let written =
            numbers.patch(&number_name(self.number), &PatchParams::default(), &Patch::Merge(patch)).await;
        let written = written.unwrap_or_else(|error| panic!("a PhoneNumber can't be changed: {error}"));
        written.metadata.generation.unwrap_or_default()
    }
}

fn operator(start: &Start, namespace: &str, number: usize) -> Program {
    let name = format!("{namespace}-operator-{number}");
    let args = [
        format!("--namespace={namespace}"),
        format!("--default-gateway={namespace}/{GATEWAY}"),
        "--image=voicedock.local/voicedock:bench".to_owned(),
        format!("--identity={name}"),
    ];
    start.role("operator", &name, &args)
}

async fn gateway_pod(
    client: &Client,
    start: &Start,
    namespace: &str,
    number: usize,
    state: &std::path::Path,
) -> Gateway {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let name = format!("{namespace}-gateway-{number}");
    let labels =
        json!({ "app.kubernetes.io/managed-by": "voicedock-operator", "voicedock.dev/gateway": GATEWAY });
    let pod = json!({
        "metadata": { "name": name, "labels": labels },
        "spec": { "containers": [{ "name": "gateway", "image": "voicedock.local/voicedock:bench" }],
                  "automountServiceAccountToken": false },
    });
    let pod = serde_json::from_value(pod).expect("a Pod");
    let pod = pods.create(&PostParams::default(), &pod).await.expect("a Pod can be created");
    let sip = free_address();
    let args = [
        format!("--pod-name={name}"),
        format!("--pod-uid={}", pod.uid().unwrap_or_default()),
        format!("--pod-namespace={namespace}"),
        format!("--pod-ip={}", sip.ip()),
        format!("--gateway={GATEWAY}"),
        format!("--listeners=udp:{0},tcp:{0}", sip.port()),
        format!("--state={}", state.display()),
    ];
    let program = start.role("gateway", &name, &args);
    program.is_ready(&name).await;
    let ready = json!({ "status": {
        "phase": "Running", "hostIP": "10.9.8.7", "hostIPs": [{ "ip": "10.9.8.7" }],
        "conditions": [{ "type": "Ready", "status": "True" }],
    } });
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(ready))
        .await
        .expect("a Pod can be made Ready");
    Gateway { program, sip }
}

/// The Secret of a trunk.
async fn credentials(client: &Client, namespace: &str, name: &str) {
    let data = [("username", "acme"), ("password", "secret")];
    let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())));
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let secret = Secret { metadata, data: Some(data.into()), ..Secret::default() };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    secrets.create(&PostParams::default(), &secret).await.expect("a Secret can be created");
}

async fn create(client: &Client, namespace: &str, object: &Object) {
    let api = api(client, namespace, OURS, object.kind);
    let new = kube::api::DynamicObject::new(&object.name, &resource(OURS, object.kind))
        .data(json!({ "spec": object.spec }));
    let created = api.create(&PostParams::default(), &new).await;
    created.unwrap_or_else(|error| panic!("{} {} can't be created: {error}", object.kind.0, object.name));
}
