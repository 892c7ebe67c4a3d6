//! What the tests share: a namespace, objects as people write them, operators that can be ended or killed, gateway pods.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use clap::Parser;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod as PodObject, Secret};
use k8s_openapi::{ByteString, NamespaceResourceScope};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use voicedock::gateway::acknowledge::{self, OwnLease, Sources};
use voicedock::gateway::calls::Calls;
use voicedock::gateway::config;
use voicedock::gateway::disk::Disk;
use voicedock::gateway::metrics::GatewayMetrics;
use voicedock::gateway::peers;
use voicedock::gateway::snapshot::Snapshot;
use voicedock::gateway::table::{self, Holder, Source, TableState};
use voicedock::operator;
use voicedock::operator::leader::Timing;
use voicedock::resources::{RoutingSlice, RoutingTable};
use voicedock::routing::ack::{Acknowledgement, TrunkReports};
use voicedock::routing::slice::{self, layout};
use voicedock::routing::table::{ObjectKey, Table};
use voicedock::telemetry::{LogArgs, LogFormat};

use crate::support::api_server::{ApiServer, SOON, api_server};

/// Name of the SipGateway.
pub const GATEWAY: &str = "default";
/// The credentials Secret.
pub const CREDENTIALS: &str = "default-voicedock-credentials";

/// How fast operators are.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub lease: Timing,
    /// How long a slice is kept that is useless.
    pub collect_after: Duration,
    /// How long fewer pods must have been enough.
    pub scale_down_after: Duration,
}

pub const PACE: Pace = Pace {
    lease: Timing {
        duration: Duration::from_secs(3),
        give_up: Duration::from_secs(2),
        renew: Duration::from_millis(300),
    },
    collect_after: Duration::from_millis(200),
    scale_down_after: Duration::from_secs(300),
};

/// How often pods read the head besides watching it.
const CONFIRM_EVERY: Duration = Duration::from_secs(1);

static OPERATORS: AtomicU32 = AtomicU32::new(0);

/// A namespace on the API server.
pub struct Stage {
    pub client: Client,
    pub namespace: String,
    pub server: ApiServer,
}

impl Stage {
    /// An empty namespace.
    pub async fn empty(hint: &str) -> Self {
        crate::logs::capture();
        let server = api_server().await;
        let namespace = server.namespace(hint).await;
        Self { client: server.client.clone(), namespace, server }
    }

    /// A namespace that is there.
    #[allow(dead_code, reason = "most tests have one of their own")]
    pub async fn at(namespace: &str) -> Self {
        let server = api_server().await;
        Self { client: server.client.clone(), namespace: namespace.to_owned(), server }
    }

    /// A namespace with a SipGateway, one ready pod and an operator.
    pub async fn set(hint: &str) -> (Self, Operator, GatewayPod) {
        let stage = Self::empty(hint).await;
        stage.gateway().await;
        let operator = stage.operator();
        let pod = stage.pod("gw-1").await;
        (stage, operator, pod)
    }

    pub fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(&self.namespace, name)
    }

    fn of_kind(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("voicedock.dev", "v1alpha1", kind));
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// Applies an object of ours, as `kubectl apply --server-side` would.
    pub async fn apply(&self, kind: &str, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "voicedock.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
        });
        let params = PatchParams::apply("people").force();
        self.of_kind(kind).patch(name, &params, &Patch::Apply(object)).await.unwrap();
    }

    /// Deletes an object of ours.
    pub async fn delete(&self, kind: &str, name: &str) {
        self.of_kind(kind).delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Has an object of ours wait for somebody when it is deleted; for nobody with no finalizers.
    #[allow(dead_code, reason = "not all binaries delete")]
    pub async fn hold(&self, kind: &str, name: &str, finalizers: &[&str]) {
        let patch = json!({ "metadata": { "finalizers": finalizers } });
        self.of_kind(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// An object of ours as it lies at the API server.
    #[allow(dead_code, reason = "not all binaries look so closely")]
    pub async fn live(&self, kind: &str, name: &str) -> Value {
        serde_json::to_value(self.of_kind(kind).get(name).await.unwrap()).unwrap()
    }

    /// Writes a Secret with these keys, in place of all that it had.
    pub async fn secret(&self, name: &str, data: &[(&str, &str)]) {
        let api = self.api::<Secret>();
        let mut secret = Secret::default();
        secret.metadata.name = Some(name.to_owned());
        let values =
            data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        secret.data = Some(values.collect());
        match api.get_opt(name).await.unwrap() {
            Some(known) => {
                secret.metadata.resource_version = known.resource_version();
                api.replace(name, &PostParams::default(), &secret).await.unwrap();
            }
            None => drop(api.create(&PostParams::default(), &secret).await.unwrap()),
        }
    }

    /// Changes one value of a Secret.
    pub async fn secret_value(&self, name: &str, key: &str, value: &str) {
        let patch = json!({ "data": { key: ByteString(value.as_bytes().to_vec()) } });
        self.api::<Secret>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub async fn gateway(&self) {
        self.apply("SipGateway", GATEWAY, json!({ "exposure": "ClusterIP" })).await;
    }

    /// A number with an assistant, a destination and trunks with credentials: everything refers to something.
    pub async fn office(&self) {
        self.secret("office-pbx", &[("username", "acme"), ("password", "first-password")]).await;
        self.apply("SipTrunk", "office", office_trunk()).await;
        self.apply("TransferDestination", "sales", sales("+31612345678")).await;
        self.apply("Assistant", "support", support_assistant(&["sales"])).await;
        self.apply("PhoneNumber", "main", main_number("+31201234567")).await;
    }

    /// Starts an operator of this namespace.
    pub fn operator(&self) -> Operator {
        Operator::start(self.config(), Some(self.namespace.clone()), self.key(GATEWAY))
    }

    /// Starts an operator of this namespace whose way to the API server is another.
    pub fn operator_over(&self, config: kube::Config) -> Operator {
        self.operator_at(PACE, config)
    }

    /// The same, of another pace.
    pub fn operator_at(&self, pace: Pace, config: kube::Config) -> Operator {
        let namespace = Some(self.namespace.clone());
        Operator::start_at(pace, std::future::ready(config), namespace, self.key(GATEWAY))
    }

    /// The way to the API server.
    pub fn config(&self) -> impl Future<Output = kube::Config> + Send + 'static {
        config(self.server.kubeconfig.clone())
    }

    /// A ready gateway pod.
    pub async fn pod(&self, name: &str) -> GatewayPod {
        self.pod_over(name, self.client.clone(), CONFIRM_EVERY).await
    }

    /// A ready gateway pod whose way to the API server is another, and how often it reads the head besides watching it.
    pub async fn pod_over(&self, name: &str, client: Client, confirm_every: Duration) -> GatewayPod {
        let mut pod = GatewayPod::make_over(self, name, client, confirm_every).await;
        pod.run();
        pod.ready(true).await;
        pod
    }

    /// The published head; `None` when there is none.
    pub async fn head(&self) -> Option<RoutingTable> {
        self.api::<RoutingTable>().get_opt(GATEWAY).await.unwrap()
    }

    pub async fn generation(&self) -> i64 {
        self.head().await.map_or(0, |head| head.spec.generation)
    }

    /// The published table, put together from its slices as a gateway does. What a head names is there before the head is.
    pub async fn table(&self) -> Option<Table> {
        let head = self.head().await?;
        let mut pieces = Vec::new();
        for (name, hash, amendment) in layout::hashes(&head.spec) {
            let Some(slice) = found(&self.api::<RoutingSlice>(), name).await else {
                let now = self.generation().await;
                assert_ne!(now, head.spec.generation, "the head names {name}, which isn't there");
                return None;
            };
            let mut content = slice.spec.content;
            if let Some(amendment) = amendment {
                let amended = layout::amend(&content.to_string(), amendment).expect("a slice can be amended");
                content = serde_json::from_str(&amended).expect("that makes JSON");
            }
            pieces.push((slice.spec.part, hash, content));
        }
        let pieces = pieces.iter().map(|(part, hash, content)| (part.as_str(), *hash, content));
        Some(slice::join(pieces).expect("the published slices make a table"))
    }

    /// Waits until the published table is as it should be.
    pub async fn table_where(&self, what: &str, holds: impl Fn(&Table) -> bool) -> Table {
        eventually(what, async || self.table().await.filter(|table| holds(table))).await
    }

    /// A condition of an object: status, reason, message; only one that speaks of the object's present generation.
    pub async fn condition(&self, kind: &str, name: &str, type_: &str) -> Option<(String, String, String)> {
        let object = self.of_kind(kind).get_opt(name).await.unwrap()?;
        let conditions = object.data["status"]["conditions"].as_array()?;
        let found = conditions.iter().find(|condition| condition["type"] == type_)?;
        if found["observedGeneration"].as_i64() != object.metadata.generation {
            return None;
        }
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Some((text("status"), text("reason"), text("message")))
    }

    /// Waits until a condition has this status and reason; returns its message.
    pub async fn says(&self, kind: &str, name: &str, type_: &str, status: &str, reason: &str) -> String {
        let what = format!("{kind} {name}: {type_}={status} {reason}");
        let last = std::cell::RefCell::new(None);
        let look = async || {
            let found = self.condition(kind, name, type_).await;
            let message =
                found.clone().filter(|(s, r, _)| s == status && r == reason).map(|(_, _, message)| message);
            last.replace(found);
            message
        };
        match within(look).await {
            Some(message) => message,
            None => panic!("{what} did not come within {SOON:?}; it is {:?}", last.borrow()),
        }
    }

    pub async fn is_ready(&self, kind: &str, name: &str) {
        self.says(kind, name, "Ready", "True", "Ready").await;
    }

    /// Everything in the namespace, as JSON: `Kind name` → object. Leases are left out: they are renewed all the time.
    pub async fn everything(&self) -> BTreeMap<String, Value> {
        let discovery = Discovery::new(self.client.clone()).run().await.unwrap();
        let mut found = BTreeMap::new();
        for group in discovery.groups() {
            for (resource, capabilities) in group.recommended_resources() {
                if capabilities.scope != Scope::Namespaced
                    || !capabilities.supports_operation(verbs::LIST)
                    || resource.kind == "Lease"
                {
                    continue;
                }
                let api: Api<DynamicObject> =
                    Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
                for object in api.list(&ListParams::default()).await.unwrap() {
                    let name = format!("{} {}", resource.kind, object.name_any());
                    found.insert(name, serde_json::to_value(object).unwrap());
                }
            }
        }
        found
    }

    /// The version of everything in the namespace.
    pub async fn versions(&self) -> BTreeMap<String, String> {
        let all = self.everything().await.into_iter();
        all.map(|(name, object)| (name, object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()))
            .collect()
    }

    /// Waits until nothing has been written for a second, and returns the versions.
    pub async fn settled(&self) -> BTreeMap<String, String> {
        let mut last = (self.versions().await, Instant::now());
        let quiet = async {
            while last.1.elapsed() < Duration::from_secs(1) {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let now = self.versions().await;
                if now != last.0 {
                    last = (now, Instant::now());
                }
            }
        };
        tokio::time::timeout(SOON, quiet).await.expect("it comes to rest");
        last.0
    }
}

pub fn office_trunk() -> Value {
    json!({
        "host": "pbx.example.com", "credentialsSecretRef": { "name": "office-pbx" },
        "inbound": { "allowedSources": ["203.0.113.0/24"] },
    })
}

pub fn sales(number: &str) -> Value {
    json!({ "type": "number", "number": number, "description": "Sales", "trunkRef": { "name": "office" } })
}

pub fn support_assistant(destinations: &[&str]) -> Value {
    let destinations: Vec<_> =
        destinations.iter().map(|name| json!({ "destinationRef": { "name": name } })).collect();
    json!({
        "agent": { "sip": { "uri": "sip:agent@agent.example.com" } },
        "llmConfig": { "tools": [{ "type": "transfer_call", "destinations": destinations }] },
    })
}

pub fn main_number(number: &str) -> Value {
    json!({
        "number": number, "assistantRef": { "name": "support" }, "transferTrunkRef": { "name": "office" },
        "gatewayRef": { "name": GATEWAY },
    })
}

/// An operator in a runtime of its own.
pub struct Operator {
    runtime: Option<Runtime>,
    stop: CancellationToken,
    ended: watch::Receiver<Option<Result<(), String>>>,
    pub identity: String,
    pub http: std::net::SocketAddr,
}

impl Operator {
    /// Starts one; all namespaces are watched when `namespace` is `None`.
    pub fn start(
        config: impl Future<Output = kube::Config> + Send + 'static,
        namespace: Option<String>,
        default_gateway: ObjectKey,
    ) -> Self {
        Self::start_at(PACE, config, namespace, default_gateway)
    }

    fn start_at(
        pace: Pace,
        config: impl Future<Output = kube::Config> + Send + 'static,
        namespace: Option<String>,
        default_gateway: ObjectKey,
    ) -> Self {
        let identity = format!("operator-{}", OPERATORS.fetch_add(1, Ordering::Relaxed));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let http = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let args = operator::Args {
            namespace: default_gateway.namespace.clone(),
            watch_namespace: namespace,
            default_gateway: Some(default_gateway),
            image: "voicedock:test".to_owned(),
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            identity: identity.clone(),
            lease_name: "voicedock-operator".to_owned(),
            lease_duration_seconds: pace.lease.duration,
            lease_renew_deadline_seconds: pace.lease.give_up,
            lease_retry_seconds: pace.lease.renew,
            collect_after_seconds: pace.collect_after,
            scale_down_after_seconds: pace.scale_down_after,
            http,
            log: LogArgs { log: LogFormat::Text },
        };
        let stopped = stop.clone();
        let (tell, ended) = watch::channel(None);
        runtime.spawn(async move {
            let client = Client::try_from(config.await).unwrap();
            let result = operator::run_until(args, client, stopped).await;
            tell.send_replace(Some(result.map_err(|error| error.to_string())));
        });
        Self { runtime: Some(runtime), stop, ended, identity, http }
    }

    /// How often its controller has looked for work.
    pub async fn turns(&self) -> Option<u64> {
        let (_, metrics) = crate::support::net::get(self.http, "/metrics", "").await?;
        let line = metrics.lines().find_map(|line| line.strip_prefix("voicedock_operator_turns_total "))?;
        line.parse().ok()
    }

    /// Ends it as SIGTERM does.
    pub async fn end(mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(SOON, self.ended.wait_for(Option::is_some)).await;
        assert_eq!(ended.expect("it ends in time").expect("it says so").clone(), Some(Ok(())));
    }

    /// Ends it as SIGKILL does: nothing is said or given back.
    pub fn kill(self) {}
}

impl Drop for Operator {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    args: config::Args,
}

/// A gateway pod: the object, and the real control side beside it.
pub struct GatewayPod {
    api: Api<PodObject>,
    pub name: String,
    config: config::Config,
    holder: Option<(Source, Holder)>,
    sources: Option<Sources>,
    /// What calls are routed by.
    #[allow(dead_code, reason = "tests/api_faults looks at it")]
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// What is to be acknowledged.
    #[allow(dead_code, reason = "tests/api_faults looks at it")]
    pub table: watch::Receiver<TableState>,
    lease: Arc<OwnLease>,
    metrics: GatewayMetrics,
    _draining: watch::Sender<bool>,
    /// What it finds about trunks.
    #[allow(dead_code, reason = "tests/api_operator says what")]
    pub trunks: watch::Sender<TrunkReports>,
    _state: tempfile::TempDir,
    tasks: JoinSet<()>,
    client: Client,
}

impl GatewayPod {
    /// A pod whose process doesn't run yet.
    pub async fn make(stage: &Stage, name: &str) -> Self {
        Self::make_over(stage, name, stage.client.clone(), CONFIRM_EVERY).await
    }

    async fn make_over(stage: &Stage, name: &str, client: Client, confirm_every: Duration) -> Self {
        let api = stage.api::<PodObject>();
        let labels = json!({
            "app.kubernetes.io/managed-by": "voicedock-operator", "voicedock.dev/gateway": GATEWAY,
        });
        let object = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels },
            "spec": { "containers": [{ "name": "gateway", "image": "voicedock:test" }],
                      "automountServiceAccountToken": false },
        }));
        // The admission plugin wants the account, and no controller makes it here.
        let account =
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
        let accounts = stage.api::<k8s_openapi::api::core::v1::ServiceAccount>();
        accounts
            .patch("default", &PatchParams::apply("tests").force(), &Patch::Apply(account))
            .await
            .unwrap();
        let object = api.create(&PostParams::default(), &object.unwrap()).await.unwrap();
        let line = CommandLine::parse_from([
            "gateway",
            &format!("--pod-name={name}"),
            &format!("--pod-uid={}", object.uid().unwrap()),
            &format!("--pod-namespace={}", stage.namespace),
            "--pod-ip=127.0.0.1",
            &format!("--gateway={GATEWAY}"),
        ]);
        let config = config::Config::new(line.args, 1).unwrap();
        let metrics = GatewayMetrics::default();
        let state = tempfile::tempdir().unwrap();
        let disk = Disk::new(state.path(), stage.key(GATEWAY).to_string());
        let holder = Holder::load(disk, metrics.clone());
        let (snapshot, table) = (holder.snapshot(), holder.state());
        let source = Source {
            client: client.clone(),
            namespace: stage.namespace.clone(),
            gateway: GATEWAY.to_owned(),
            confirm_every,
        };
        let (draining, drains) = watch::channel(false);
        let trunks = watch::Sender::new(TrunkReports::new());
        let lease = Arc::<OwnLease>::default();
        let sources = Sources {
            table: table.clone(),
            draining: drains,
            calls: Arc::new(Calls::new(1)),
            trunks: trunks.subscribe(),
            lease: Arc::clone(&lease),
        };
        Self {
            api,
            name: name.to_owned(),
            config,
            holder: Some((source, holder)),
            sources: Some(sources),
            snapshot,
            table,
            lease,
            metrics,
            _draining: draining,
            trunks,
            _state: state,
            tasks: JoinSet::new(),
            client,
        }
    }

    /// Starts the process.
    pub fn run(&mut self) {
        let (source, holder) = self.holder.take().expect("it is started once");
        self.tasks.spawn(table::subscribe(source, holder));
        let sources = self.sources.take().expect("it is started once");
        let (client, config, metrics) = (self.client.clone(), self.config.clone(), self.metrics.clone());
        self.tasks.spawn(acknowledge::acknowledge(client.clone(), config.clone(), sources, metrics.clone()));
        let (peers, lease) = (Arc::default(), Arc::clone(&self.lease));
        self.tasks.spawn(peers::watch(client, config, peers, lease, metrics));
    }

    /// Writes its Lease, in place of a process that doesn't run.
    #[allow(dead_code, reason = "tests/api_operator has it hold calls")]
    pub async fn holds(&self, calls: u32) {
        let said = Acknowledgement { calls, ..Acknowledgement::default() };
        let lease = acknowledge::lease(&self.config, &said);
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.config.pod.namespace);
        leases.patch(&self.name, &PatchParams::apply("tests").force(), &Patch::Apply(lease)).await.unwrap();
    }

    /// Plays the kubelet.
    pub async fn ready(&self, ready: bool) {
        let status = if ready { "True" } else { "False" };
        let patch = json!({ "status": {
            "phase": "Running", "hostIP": "10.9.8.7", "hostIPs": [{ "ip": "10.9.8.7" }],
            "conditions": [{ "type": "Ready", "status": status }],
        } });
        self.api.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// The process is gone and the kubelet says so.
    pub async fn dies(mut self) {
        self.tasks.shutdown().await;
        self.api.delete(&self.name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }
}

async fn config(kubeconfig: PathBuf) -> kube::Config {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

/// Polls until there is something; `None` after a while.
async fn within<T, F: Future<Output = Option<T>>>(mut look: impl FnMut() -> F) -> Option<T> {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, found).await.ok()
}

/// Polls until there is something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, look: impl FnMut() -> F) -> T {
    within(look).await.unwrap_or_else(|| panic!("{what} did not come within {SOON:?}"))
}

/// An object, or nothing.
pub async fn found<K>(api: &Api<K>, name: &str) -> Option<K>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    api.get_opt(name).await.unwrap()
}
