//! Flux's kustomize-controller as a process beside the API server, one for all tests, and what is in git for it.
//!
//! A source-controller isn't needed for that: Flux follows artifacts of others as well (ExternalArtifact), and these are
//! fetched from a port of the test process. The process ends with the tests, because its standard input closes then.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex};
use std::thread;

use axum::Router;
use axum::extract;
use axum::http::StatusCode;
use axum::routing::get;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::stage::{Stage, eventually};
use crate::support::api_server::{ApiServer, SOON};
use crate::support::tools::{cached, printed};

/// Where Flux is, and what it follows.
const NAMESPACE: &str = "flux-system";
/// Group and kind of what Flux fetches, and of what it is to do with that. Both are v1.
const SOURCE: (&str, &str) = ("source.toolkit.fluxcd.io", "ExternalArtifact");
const KUSTOMIZATION: (&str, &str) = ("kustomize.toolkit.fluxcd.io", "Kustomization");

static STARTED: OnceCell<Started> = OnceCell::const_new();
/// By name: what is served.
static ARTIFACTS: LazyLock<Mutex<HashMap<String, Vec<u8>>>> = LazyLock::new(Mutex::default);

struct Started {
    artifacts: SocketAddr,
    /// Held so that its standard input stays open.
    _process: Child,
}

/// Flux for the namespace of one test.
pub struct Flux {
    artifacts: SocketAddr,
    /// The namespace that all is applied to. What Flux follows is named after it.
    target: String,
    client: Client,
}

/// The objects of a file in `examples/gitops`.
pub fn example(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gitops").join(file);
    let documents: Vec<Option<Value>> =
        serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap();
    documents.into_iter().flatten().collect()
}

impl Flux {
    /// Flux for a stage; the first test starts it.
    pub async fn of(stage: &Stage) -> Self {
        let started = STARTED.get_or_init(async || Started::start(&stage.server)).await;
        Self { artifacts: started.artifacts, target: stage.namespace.clone(), client: stage.client.clone() }
    }

    /// Makes these objects what the repository `name` holds.
    pub async fn commit(&self, name: &str, objects: &[Value]) {
        let directory = tempfile::tempdir().unwrap();
        for (number, object) in objects.iter().enumerate() {
            fs::write(directory.path().join(format!("{number}.yaml")), object.to_string()).unwrap();
        }
        let tar = Command::new("tar").arg("-C").arg(directory.path()).args(["-czf", "-", "."]).output();
        let artifact = tar.expect("there is tar").stdout;
        let digest: String = Sha256::digest(&artifact).iter().map(|byte| format!("{byte:02x}")).collect();
        let (file, size) = (format!("{digest}.tgz"), artifact.len());
        ARTIFACTS.lock().unwrap().insert(file.clone(), artifact);

        let now = jiff::Timestamp::now().to_string();
        self.apply(SOURCE, name, json!({})).await;
        let status = json!({ "status": {
            "artifact": {
                "url": format!("http://{}/{file}", self.artifacts), "path": file, "size": size,
                "revision": format!("main@sha256:{digest}"), "digest": format!("sha256:{digest}"),
                "lastUpdateTime": now,
            },
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Succeeded", "message": "It is there.",
                "lastTransitionTime": now,
            }],
        } });
        let params = PatchParams::default();
        self.api(SOURCE).patch_status(&self.name(name), &params, &Patch::Merge(status)).await.unwrap();
    }

    /// Has Flux apply what the repository holds, with the example's Kustomization, and wait as that says.
    pub async fn follow(&self, name: &str) {
        let mut kustomization = example("flux/numbers.yaml").remove(0);
        let spec = kustomization["spec"].as_object_mut().unwrap();
        assert_eq!((&spec["wait"], &spec["prune"]), (&json!(true), &json!(true)));
        // The Secret is the test's own, and so is the namespace.
        spec.remove("decryption");
        spec.insert("path".to_owned(), json!("./"));
        spec.insert("targetNamespace".to_owned(), json!(self.target));
        spec.insert("sourceRef".to_owned(), json!({ "kind": SOURCE.1, "name": self.name(name) }));
        self.apply(KUSTOMIZATION, name, kustomization["spec"].clone()).await;
    }

    /// Waits until a condition of a Kustomization has this status and reason; returns its message.
    pub async fn says(&self, name: &str, type_: &str, status: &str, reason: &str) -> String {
        let what = format!("Kustomization {name}: {type_}={status} {reason}");
        eventually(&what, async || {
            let (found, why, message) = self.condition(name, type_).await?;
            (found == status && why == reason).then_some(message)
        })
        .await
    }

    /// Waits until a Kustomization has applied the newest commit and found it good.
    pub async fn is_ready(&self, name: &str) {
        let source = self.api(SOURCE).get(&self.name(name)).await.unwrap();
        let newest = source.data["status"]["artifact"]["revision"].clone();
        eventually(&format!("Kustomization {name} is Ready with {newest}"), async || {
            let (status, ..) = self.condition(name, "Ready").await?;
            let applied = self.get(name).await?.data["status"]["lastAppliedRevision"] == newest;
            (applied && status == "True").then_some(())
        })
        .await;
    }

    /// Asserts that Flux, after another look at their objects, is still waiting for these Kustomizations.
    pub async fn goes_on_waiting(&self, names: &[&str]) {
        for name in names {
            self.says(name, "Reconciling", "True", "Progressing").await;
        }
        self.looks_around().await;
        for name in names {
            let (status, _, message) = self.condition(name, "Ready").await.expect("Flux has seen it");
            assert_eq!(status, "Unknown", "{name}: {message}");
        }
    }

    /// Waits until Flux has taken in what has been there until now: a Kustomization that comes last and is Ready at once.
    pub async fn looks_around(&self) {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "look" },
            "data": { "at": jiff::Timestamp::now().to_string() },
        });
        self.commit("look", &[object]).await;
        self.follow("look").await;
        self.is_ready("look").await;
        self.delete("look").await;
        self.is_gone("look").await;
    }

    /// Has Flux apply everything once more, and waits until it has.
    pub async fn reconcile(&self, name: &str) {
        let now = jiff::Timestamp::now().to_string();
        let asked = json!({ "metadata": { "annotations": { "reconcile.fluxcd.io/requestedAt": now } } });
        self.patch(name, asked).await;
        eventually("Flux has applied it again", async || {
            (self.get(name).await?.data["status"]["lastHandledReconcileAt"] == *now).then_some(())
        })
        .await;
        self.is_ready(name).await;
    }

    pub async fn suspend(&self, name: &str, suspend: bool) {
        self.patch(name, json!({ "spec": { "suspend": suspend } })).await;
    }

    pub async fn delete(&self, name: &str) {
        self.api(KUSTOMIZATION).delete(&self.name(name), &DeleteParams::default()).await.unwrap();
    }

    pub async fn is_there(&self, name: &str) -> bool {
        self.get(name).await.is_some()
    }

    pub async fn is_gone(&self, name: &str) {
        eventually(&format!("Kustomization {name} is gone"), async || {
            (!self.is_there(name).await).then_some(())
        })
        .await;
    }

    /// Status, reason and message of a condition, if it speaks of the present Kustomization.
    async fn condition(&self, name: &str, type_: &str) -> Option<(String, String, String)> {
        let object = self.get(name).await?;
        let conditions = object.data["status"]["conditions"].as_array()?;
        let found = conditions.iter().find(|condition| condition["type"] == type_)?;
        if found["observedGeneration"].as_i64() != object.metadata.generation {
            return None;
        }
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Some((text("status"), text("reason"), text("message")))
    }

    async fn get(&self, name: &str) -> Option<DynamicObject> {
        self.api(KUSTOMIZATION).get_opt(&self.name(name)).await.unwrap()
    }

    async fn patch(&self, name: &str, patch: Value) {
        let params = PatchParams::default();
        self.api(KUSTOMIZATION).patch(&self.name(name), &params, &Patch::Merge(patch)).await.unwrap();
    }

    async fn apply(&self, (group, kind): (&str, &str), name: &str, spec: Value) {
        let object = json!({
            "apiVersion": format!("{group}/v1"), "kind": kind, "metadata": { "name": self.name(name) }, "spec": spec,
        });
        let params = PatchParams::apply("people").force();
        self.api((group, kind)).patch(&self.name(name), &params, &Patch::Apply(object)).await.unwrap();
    }

    fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.target)
    }

    fn api(&self, (group, kind): (&str, &str)) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        Api::namespaced_with(self.client.clone(), NAMESPACE, &resource)
    }
}

impl Started {
    fn start(server: &ApiServer) -> Self {
        let program = cached("kustomize-controller").expect("run hack/tools.sh flux, which builds it");
        let program = fs::canonicalize(program).unwrap();
        let kubectl = |arguments: &[&str]| printed(server.kubectl().args(arguments));
        let definitions = program.with_file_name("definitions");
        let definitions = definitions.to_str().unwrap();
        kubectl(&["apply", "--server-side", "--filename", definitions]);
        // The controller ends when a kind that it watches isn't there.
        let timeout = format!("--timeout={}s", SOON.as_secs());
        kubectl(&["wait", "--for=condition=Established", &timeout, "--filename", definitions]);
        kubectl(&["create", "namespace", NAMESPACE]);

        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kustomize-controller.log");
        let log = File::create(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let mut process = Command::new("sh");
        process
            .args(["-c", "\"$@\" & cat; kill $!", "sh"])
            .arg(&program)
            .args(["--metrics-addr=127.0.0.1:0", "--health-addr=127.0.0.1:0", "--watch-all-namespaces=true"])
            .args(["--no-remote-bases=true", "--feature-gates=ExternalArtifact=true", "--concurrent=8"])
            .env("KUBECONFIG", &server.kubeconfig)
            .env("RUNTIME_NAMESPACE", NAMESPACE)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Self { artifacts: serve(), _process: process.spawn().expect("there is a shell") }
    }
}

/// Serves the artifacts on a free port, from a thread of its own: the tests' runtimes end with them.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let artifact = async |extract::Path(name): extract::Path<String>| {
        ARTIFACTS.lock().unwrap().get(&name).cloned().ok_or(StatusCode::NOT_FOUND)
    };
    let routes = Router::new().route("/{name}", get(artifact));
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, routes).await.unwrap();
        });
    });
    address
}
