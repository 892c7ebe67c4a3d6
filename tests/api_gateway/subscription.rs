//! The subscription, the disk copy, the acknowledgement and the peers of a pod, without sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use clap::Parser;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use voicedock::gateway::acknowledge::{self, OwnLease, Sources};
use voicedock::gateway::calls::Calls;
use voicedock::gateway::config::{Args, Config};
use voicedock::gateway::disk::Disk;
use voicedock::gateway::metrics::GatewayMetrics;
use voicedock::gateway::peers::{self, Peers};
use voicedock::gateway::snapshot::{Credential, Snapshot};
use voicedock::gateway::table::{self, Holder, Source, TableState};
use voicedock::resources::{RoutingSlice, RoutingTable};
use voicedock::routing::ack::{Acknowledgement, TrunkReports};
use voicedock::routing::slice;
use voicedock::routing::table::CredentialId;

use crate::operator::{GATEWAY, cluster, eventually, number, slice_name, table_of, table_with_credential};
use crate::support::api_server::api_server;

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    args: Args,
}

/// A gateway pod's control side, without sockets.
struct Pod {
    config: Config,
    snapshot: Arc<ArcSwap<Snapshot>>,
    state: watch::Receiver<TableState>,
    peers: Arc<ArcSwap<Peers>>,
    draining: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Pod {
    fn start(client: &Client, namespace: &str, name: &str, state: &tempfile::TempDir) -> Self {
        let line = CommandLine::parse_from([
            "gateway",
            &format!("--pod-name={name}"),
            &format!("--pod-uid=uid-of-{name}"),
            &format!("--pod-namespace={namespace}"),
            "--pod-ip=127.0.0.1",
            &format!("--gateway={GATEWAY}"),
        ]);
        let config = Config::new(line.args, 1).unwrap();
        let metrics = GatewayMetrics::default();
        let disk = Disk::new(state.path(), format!("{namespace}/{GATEWAY}"));
        let holder = Holder::load(disk, metrics.clone());
        let (snapshot, table) = (holder.snapshot(), holder.state());
        let source = Source {
            client: client.clone(),
            namespace: namespace.to_owned(),
            gateway: GATEWAY.to_owned(),
            confirm_every: Duration::from_secs(1),
        };
        let (draining, drains) = watch::channel(false);
        let lease = Arc::<OwnLease>::default();
        let peers = Arc::new(ArcSwap::default());
        let sources = Sources {
            table: table.clone(),
            draining: drains,
            calls: Arc::new(Calls::new(1)),
            trunks: watch::channel(TrunkReports::new()).1,
            lease: Arc::clone(&lease),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(table::subscribe(source, holder));
        tasks.spawn(acknowledge::acknowledge(client.clone(), config.clone(), sources, metrics.clone()));
        tasks.spawn(peers::watch(client.clone(), config.clone(), Arc::clone(&peers), lease, metrics));
        Self { config, snapshot, state: table, peers, draining, _tasks: tasks }
    }

    /// Waits until calls are routed by this generation.
    async fn holds(&self, generation: i64) -> Arc<Snapshot> {
        eventually(&format!("generation {generation}"), async || {
            let snapshot = self.snapshot.load_full();
            (snapshot.generation == generation).then_some(snapshot)
        })
        .await
    }
}

fn password(snapshot: &Snapshot, id: &CredentialId) -> String {
    match &snapshot.credentials[id] {
        Credential::Login { password, .. } => password.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_published_table_is_routed_by_and_then_acknowledged() {
    let (client, operator, state) = cluster("follow").await;
    let pod = Pod::start(&client, &operator.namespace, "gw-1", &state);
    operator.hears("gw-1", "a Lease without a table", |said| said.table.is_none().then_some(())).await;
    operator.publish(1, &table_of(&["+31201234567"])).await;
    let held = operator.hears("gw-1", "the acknowledgement", |said| said.table.clone()).await;
    let snapshot = pod.snapshot.load();
    assert_eq!((held.generation, &held.hash), (1, &snapshot.hash), "never before the swap");
    assert_eq!(snapshot.index.table().numbers.len(), 1);

    let lease = operator.lease("gw-1").await.unwrap();
    assert_eq!(lease.labels()["voicedock.dev/gateway"], GATEWAY);
    let owner = &lease.owner_references()[0];
    assert_eq!((&*owner.kind, &*owner.name, &*owner.uid), ("Pod", "gw-1", "uid-of-gw-1"));
    let said = Acknowledgement::parse(lease.annotations()).unwrap();
    assert_eq!((&*said.address, said.instance), ("127.0.0.1:8080", pod.config.pod.instance.0));

    pod.draining.send_replace(true);
    operator.hears("gw-1", "that it drains", |said| said.draining.then_some(())).await;
}

#[tokio::test]
async fn a_slice_that_is_missing_leaves_the_table_as_it_is_until_it_comes() {
    let (client, operator, state) = cluster("missing").await;
    operator.publish(1, &table_of(&["+31201234567"])).await;
    let pod = Pod::start(&client, &operator.namespace, "gw-1", &state);
    pod.holds(1).await;
    let next = slice::cut(&table_of(&["+31201234568"]));
    operator.write_head(2, &next).await;
    let (held, rejected) =
        operator.hears("gw-1", "a rejection", |said| said.table.clone().zip(said.rejected.clone())).await;
    assert_eq!((held.generation, rejected.generation), (1, 2));
    assert!(
        rejected.reason.contains(&format!("RoutingSlice {} does not exist", slice_name(&next[0]))),
        "{rejected:?}"
    );
    assert_eq!(pod.snapshot.load().generation, 1);

    operator.write_slice(&next[0]).await;
    pod.holds(2).await;
    operator
        .hears("gw-1", "generation 2 without a rejection", |said| {
            (said.table.as_ref()?.generation == 2 && said.rejected.is_none()).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_slice_with_another_content_than_its_hash_is_rejected() {
    let (client, operator, state) = cluster("wrong").await;
    operator.publish(1, &table_of(&["+31201234567"])).await;
    let pod = Pod::start(&client, &operator.namespace, "gw-1", &state);
    pod.holds(1).await;
    let mut next = slice::cut(&table_of(&["+31201234568"]));
    let right = next[0].content.clone();
    next[0].content = slice::cut(&table_of(&["+31209999999"])).remove(0).content;
    operator.write_slice(&next[0]).await;
    operator.write_head(2, &next).await;
    let rejected = operator.hears("gw-1", "a rejection", |said| said.rejected.clone()).await;
    assert!(rejected.reason.contains("where the head says"), "{rejected:?}");
    assert_eq!(pod.snapshot.load().generation, 1);

    next[0].content = right;
    let slices: Api<RoutingSlice> = operator.api();
    slices.delete(&slice_name(&next[0]), &DeleteParams::default()).await.unwrap();
    operator.write_slice(&next[0]).await;
    assert!(pod.holds(2).await.index.table().numbers.contains_key(&number("+31201234568")));
}

#[tokio::test]
async fn a_gateway_never_goes_back_to_an_older_table() {
    let (client, operator, state) = cluster("older").await;
    operator.publish(5, &table_of(&["+31201234567"])).await;
    let pod = Pod::start(&client, &operator.namespace, "gw-1", &state);
    pod.holds(5).await;
    for generation in [4, 5] {
        // The API server refuses to take a generation back; deleting the object gets around that.
        operator.api::<RoutingTable>().delete(GATEWAY, &DeleteParams::default()).await.unwrap();
        operator.publish(generation, &table_of(&["+31201234568"])).await;
        let what = format!("the rejection of {generation}");
        let reason = operator
            .hears("gw-1", &what, |said| {
                said.rejected.clone().filter(|rejected| rejected.generation == generation)
            })
            .await
            .reason;
        assert!(
            reason.contains("the operator must publish") || reason.contains("The operator must"),
            "{reason}"
        );
        assert!(pod.snapshot.load().index.table().numbers.contains_key(&number("+31201234567")));
    }
    operator.publish(6, &table_of(&["+31201234568"])).await;
    pod.holds(6).await;
    operator.hears("gw-1", "no rejection", |said| said.rejected.is_none().then_some(())).await;
}

#[tokio::test]
async fn a_restarted_container_serves_from_disk_without_the_api_server() {
    let (client, operator, state) = cluster("disk").await;
    operator.write_credentials(&[("v1", "secret-1")]).await;
    operator.publish(3, &table_with_credential("v1")).await;
    let first = Pod::start(&client, &operator.namespace, "gw-1", &state);
    // Acknowledged means: saved before.
    operator.hears("gw-1", "the acknowledgement", |said| said.table.clone()).await;
    drop(first);

    let mut nowhere = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
    nowhere.connect_timeout = Some(Duration::from_millis(200));
    let nowhere = Client::try_from(nowhere).unwrap();
    let restarted = Pod::start(&nowhere, &operator.namespace, "gw-1", &state);
    let snapshot = restarted.snapshot.load();
    assert_eq!(snapshot.generation, 3, "at once, not after a time-out");
    assert_eq!(password(&snapshot, &CredentialId("v1".to_owned())), "secret-1");
    drop(restarted);

    operator.publish(4, &table_of(&["+31201234568"])).await;
    let again = Pod::start(&client, &operator.namespace, "gw-1", &state);
    again.holds(4).await;
}

#[tokio::test]
async fn rotated_credentials_come_with_their_table_in_one_switch() {
    let (client, operator, state) = cluster("rotate").await;
    operator.write_credentials(&[("v1", "secret-1")]).await;
    operator.publish(1, &table_with_credential("v1")).await;
    let pod = Pod::start(&client, &operator.namespace, "gw-1", &state);
    pod.holds(1).await;

    let stop = Arc::new(AtomicBool::new(false));
    let (snapshots, stopped) = (Arc::clone(&pod.snapshot), Arc::clone(&stop));
    let watcher = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            let snapshot = snapshots.load();
            let trunk = snapshot.index.table().trunks.values().next().unwrap();
            let id = trunk.credential.clone().unwrap();
            // Host and password are of the version that the trunk names: table and credentials are one.
            assert_eq!(trunk.host, id.0);
            assert_eq!(password(&snapshot, &id), id.0.replace('v', "secret-"));
            assert_eq!(snapshot.credentials.len(), 1, "a revoked credential is gone");
        }
    });
    for version in 2..6 {
        let (old, new) = (format!("v{}", version - 1), format!("v{version}"));
        let secret = |id: &str| id.replace('v', "secret-");
        operator.write_credentials(&[(&old, &secret(&old)), (&new, &secret(&new))]).await;
        operator.publish(version, &table_with_credential(&new)).await;
        pod.holds(version).await;
    }
    stop.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    let held =
        operator.hears("gw-1", "generation 5", |said| said.table.clone().filter(|t| t.generation == 5)).await;
    assert_eq!(held.generation, 5);
    let disk = std::fs::read_to_string(state.path().join("table.json")).unwrap();
    assert!(disk.contains("secret-5") && !disk.contains("secret-4"), "nor is it on disk");
}

#[tokio::test]
async fn a_table_waits_for_the_credentials_that_it_names() {
    let (client, operator, state) = cluster("waits").await;
    let pod = Pod::start(&client, &operator.namespace, "gw-1", &state);
    operator.publish(1, &table_with_credential("v1")).await;
    for (logins, says) in [
        (None, "Secret default-voicedock-credentials with the credentials"),
        (Some(vec![("v0", "old")]), "the credentials v1 of trunk acme/pbx are not in"),
    ] {
        if let Some(logins) = logins {
            operator.write_credentials(&logins).await;
        }
        operator
            .hears("gw-1", says, |said| said.rejected.as_ref()?.reason.contains(says).then_some(()))
            .await;
        assert!(pod.state.borrow().held.is_none());
    }
    operator.write_credentials(&[("v1", "secret-1")]).await;
    pod.holds(1).await;
}

#[tokio::test]
async fn slices_that_are_held_are_not_fetched_again() {
    let (client, operator, state) = cluster("held").await;
    let before = table_of(&["+31201234567"]);
    operator.publish(1, &before).await;
    let pod = Pod::start(&client, &operator.namespace, "gw-1", &state);
    pod.holds(1).await;
    let slices: Api<RoutingSlice> = operator.api();
    slices.delete(&slice_name(&slice::cut(&before)[0]), &DeleteParams::default()).await.unwrap();
    let mut after = before.clone();
    after.assistants = serde_json::from_value(json!({ "acme/support": { "agent": { "sip": {
        "targets": [], "answerTimeoutSeconds": 5, "answer_timeout_seconds": 5 } } } }))
    .unwrap();
    let slices = slice::cut(&after);
    for slice in slices.iter().filter(|slice| slice.part.starts_with("assistants")) {
        operator.write_slice(slice).await;
    }
    operator.write_head(2, &slices).await;
    let snapshot = pod.holds(2).await;
    assert_eq!(snapshot.index.table().as_ref(), &after);
}

/// A connection to the API server over which nothing comes any more, as after a node in between has vanished.
#[tokio::test]
async fn a_watch_that_went_silent_is_noticed_and_replaced() {
    let (client, operator, state) = cluster("silent").await;
    let kubeconfig = Kubeconfig::read_from(api_server().await.kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    let server = config.cluster_url.authority().unwrap().to_string();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    config.tls_server_name.get_or_insert_with(|| config.cluster_url.host().unwrap().to_owned());
    config.cluster_url = proxy.parse().unwrap();
    let freeze = CancellationToken::new();
    let frozen = freeze.clone();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(&server).await.unwrap();
            // Connections that were opened before the freeze stay open and say nothing; later ones work.
            let freeze = if frozen.is_cancelled() { CancellationToken::new() } else { frozen.clone() };
            tokio::spawn(async move {
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    () = freeze.cancelled() => std::future::pending().await,
                }
            });
        }
    });
    operator.publish(1, &table_of(&["+31201234567"])).await;
    let pod = Pod::start(&Client::try_from(config).unwrap(), &operator.namespace, "gw-1", &state);
    pod.holds(1).await;
    freeze.cancel();
    operator.publish(2, &table_of(&["+31201234568"])).await;
    pod.holds(2).await;
    operator.publish(3, &table_of(&["+31201234569"])).await;
    pod.holds(3).await;
    drop(client);
}

#[tokio::test]
async fn a_lease_that_somebody_deleted_is_written_again_and_one_that_holds_is_left_alone() {
    let (client, operator, state) = cluster("lease").await;
    operator.publish(1, &table_of(&["+31201234567"])).await;
    let _pod = Pod::start(&client, &operator.namespace, "gw-1", &state);
    operator.hears("gw-1", "the acknowledgement", |said| said.table.clone()).await;
    let before = operator.lease("gw-1").await.unwrap();
    // The same table under a new head: a change that concerns no gateway.
    let touched = json!({ "metadata": { "labels": { "touched": "yes" } } });
    operator
        .api::<RoutingTable>()
        .patch(GATEWAY, &PatchParams::default(), &Patch::Merge(&touched))
        .await
        .unwrap();
    let _other = Pod::start(&client, &operator.namespace, "gw-2", &tempfile::tempdir().unwrap());
    operator.hears("gw-2", "the other pod's acknowledgement", |said| said.table.clone()).await;
    let after = operator.lease("gw-1").await.unwrap();
    assert_eq!(before.resource_version(), after.resource_version(), "nothing changed, nothing is written");

    operator.api::<Lease>().delete("gw-1", &DeleteParams::default()).await.unwrap();
    operator.hears("gw-1", "the acknowledgement again", |said| said.table.clone()).await;
}

/// A write of the Lease that was given up after its time-out may still land after the one that followed it.
#[tokio::test]
async fn an_acknowledgement_that_an_older_one_has_overtaken_is_written_again() {
    let (client, operator, state) = cluster("overtaken").await;
    operator.publish(1, &table_of(&["+31201234567"])).await;
    let pod = Pod::start(&client, &operator.namespace, "gw-1", &state);
    operator.hears("gw-1", "the acknowledgement", |said| said.table.clone()).await;
    let older = Acknowledgement::parse(operator.lease("gw-1").await.unwrap().annotations()).unwrap();
    operator.publish(2, &table_of(&["+31201234568"])).await;
    let says_newest = |said: &Acknowledgement| (said.table.as_ref()?.generation == 2).then_some(());
    operator.hears("gw-1", "generation 2", says_newest).await;

    let late = Patch::Apply(acknowledge::lease(&pod.config, &older));
    let parameters = PatchParams::apply("voicedock-gateway").force();
    operator.api::<Lease>().patch("gw-1", &parameters, &late).await.unwrap();
    operator.hears("gw-1", "generation 2 again", says_newest).await;
}

#[tokio::test]
async fn pods_of_one_gateway_know_each_other() {
    let (client, operator, state) = cluster("peers").await;
    let first = Pod::start(&client, &operator.namespace, "gw-1", &state);
    let second = Pod::start(&client, &operator.namespace, "gw-2", &tempfile::tempdir().unwrap());
    let stranger = Lease {
        metadata: ObjectMeta { name: Some("leader".to_owned()), ..ObjectMeta::default() },
        ..Lease::default()
    };
    operator.api::<Lease>().create(&PostParams::default(), &stranger).await.unwrap();
    let instance = second.config.pod.instance;
    let peer = eventually("the other pod", async || first.peers.load().get(instance).cloned()).await;
    assert_eq!((&*peer.pod, peer.http.to_string()), ("gw-2", "127.0.0.1:8080".to_owned()));
    assert_eq!(first.peers.load().0.len(), 1, "neither itself nor another Lease");
    eventually("the first pod", async || second.peers.load().get(first.config.pod.instance).cloned()).await;

    drop(second);
    // The garbage collector's part, once the pod is gone.
    operator.api::<Lease>().delete("gw-2", &DeleteParams::default()).await.unwrap();
    eventually("the end of the other pod", async || first.peers.load().0.is_empty().then_some(())).await;
}
