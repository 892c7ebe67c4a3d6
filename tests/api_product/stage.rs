//! What the tests share: namespaces with keys, and a process of the API.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::api_server::{ApiServer, SOON, api_server};
use crate::support::net::{free_address, get};
use crate::support::tools::printed;

/// A namespace on the API server, a key that opens it, and a process of the API.
pub struct Stage {
    pub server: ApiServer,
    pub namespace: String,
    pub key: String,
    pub api: Process,
}

/// `voicedock api`; ends with the test.
pub struct Process {
    pub http: SocketAddr,
    _child: tokio::process::Child,
}

impl Process {
    /// Starts one and waits until it is ready.
    pub async fn start(server: &ApiServer, arguments: &[&str]) -> Self {
        let (http, admin) = (free_address(), free_address());
        let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_voicedock"))
            .arg("api")
            .args(["--http", &http.to_string(), "--admin", &admin.to_string()])
            .args(arguments)
            .env("KUBECONFIG", &server.kubeconfig)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let process = Self { http, _child: child };
        let ready = async || get(admin, "/readyz", "").await.filter(|(status, _)| *status == 200);
        eventually("readiness", ready).await;
        process
    }
}

impl Stage {
    /// A namespace whose name begins with `hint`, with a key that may do everything.
    pub async fn set(hint: &str) -> Self {
        Self::with(hint, &[]).await
    }

    /// The same, with further arguments for the API.
    pub async fn with(hint: &str, arguments: &[&str]) -> Self {
        let server = api_server().await;
        let namespace = server.namespace(hint).await;
        let api = Process::start(&server, arguments).await;
        let key = new_key(&server, &namespace, "tests", &[]);
        let stage = Self { server, namespace, key, api };
        stage.knows(&stage.key).await;
        stage
    }

    /// Another key of the namespace, once the API knows it.
    pub async fn another_key(&self, name: &str, arguments: &[&str]) -> String {
        let key = new_key(&self.server, &self.namespace, name, arguments);
        self.knows(&key).await;
        key
    }

    /// Waits until a key opens something.
    pub async fn knows(&self, key: &str) {
        let known = async || {
            let (status, _) = get(self.api.http, "/api/v1/nothing", key).await?;
            (status == 404).then_some(())
        };
        eventually("the key is known", known).await;
    }

    /// Status and JSON of a request with the stage's key.
    pub fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.ask_as(&self.key, method, path, body)
    }

    /// Status and JSON of a request with a key.
    pub fn ask_as(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("http://{}/api/v1{path}", self.api.http);
        let mut arguments = vec!["-X".to_owned(), method.to_owned(), url];
        arguments.extend(["-H".to_owned(), format!("Authorization: Bearer {key}")]);
        if let Some(body) = body {
            arguments.extend(["-H".to_owned(), "Content-Type: application/json".to_owned()]);
            arguments.extend(["-d".to_owned(), body.to_string()]);
        }
        curl(&arguments)
    }

    fn resources(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("voicedock.dev", "v1alpha1", kind));
        Api::namespaced_with(self.server.client.clone(), &self.namespace, &resource)
    }

    /// A resource as the API server has it.
    pub async fn resource(&self, kind: &str, name: &str) -> Option<DynamicObject> {
        self.resources(kind).get_opt(name).await.unwrap()
    }

    /// Applies a resource as another field manager.
    pub async fn apply(&self, manager: &str, kind: &str, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "voicedock.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
        });
        let params = PatchParams::apply(manager);
        self.resources(kind).patch(name, &params, &Patch::Apply(object)).await.unwrap();
    }

    /// Waits until the API shows something.
    pub async fn shows(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        eventually(path, async || {
            let (status, body) = self.ask("GET", path, None);
            (status == 200 && holds(&body)).then_some(body)
        })
        .await
    }
}

/// Makes a key with the program.
pub fn new_key(server: &ApiServer, namespace: &str, name: &str, arguments: &[&str]) -> String {
    printed(voicedock(server).args(["api-key", "create", name, "-n", namespace]).args(arguments))
        .trim()
        .to_owned()
}

/// The program, for this server.
pub fn voicedock(server: &ApiServer) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_voicedock"));
    command.env("KUBECONFIG", &server.kubeconfig).stdin(Stdio::null());
    command
}

/// What curl prints, as status and JSON; null for an empty body.
pub fn curl(arguments: &[String]) -> (u16, Value) {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--max-time",
        "20",
        "--noproxy",
        "*",
        "--write-out",
        "\n%{http_code}",
    ]);
    let printed = printed(curl.args(arguments));
    let (body, status) = printed.rsplit_once('\n').unwrap();
    let body = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{body}: {error}"))
    };
    (status.parse().unwrap(), body)
}

/// Polls until there is something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begin.elapsed() < SOON, "{what} did not come within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
