//! A real API server (etcd and kube-apiserver, no nodes) for the tests of one binary.
//!
//! The first test that asks starts it; all tests of the binary share it and keep apart by namespaces. It ends with the test
//! process, however that ends, because its standard input closes then.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;
use std::{env, fs, io, process, thread};

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Config, ResourceExt};
use tokio::sync::OnceCell;
use voicedock::resources::crds;

use super::tools::{cached, tool};

/// The program that is the API server, see `tests/cluster`.
const PROGRAM: &str = "VOICEDOCK_CLUSTER_BIN";
/// How long the server may take to start, on a machine that is busy building.
const START: Duration = Duration::from_secs(90);
/// How long the server may take for one thing that we wait for.
pub const SOON: Duration = Duration::from_secs(30);

static SERVER: LazyLock<Result<Server, String>> = LazyLock::new(Server::start);
static DEFINITIONS: OnceCell<()> = OnceCell::const_new();
static NAMESPACES: AtomicU32 = AtomicU32::new(0);

struct Server {
    kubeconfig: PathBuf,
    /// Held so that it stays open: the server ends when it closes.
    _lifeline: ChildStdin,
    _process: Child,
}

/// One test's way to the API server.
pub struct ApiServer {
    /// A client of the test's own runtime, as cluster administrator.
    pub client: Client,
    /// For programs that the test starts.
    pub kubeconfig: PathBuf,
}

/// The binary's API server, started if it isn't yet, with every CustomResourceDefinition established.
///
/// # Panics
/// When there is none to be had; the message says why.
pub async fn api_server() -> ApiServer {
    let server = bare_api_server().await;
    DEFINITIONS.get_or_init(|| install_definitions(&server.client)).await;
    server
}

/// As [`api_server`], without the CustomResourceDefinitions: for tests of what installs them.
pub async fn bare_api_server() -> ApiServer {
    let server = tokio::task::spawn_blocking(|| LazyLock::force(&SERVER)).await;
    let server =
        server.expect("starting it doesn't panic").as_ref().unwrap_or_else(|error| panic!("{error}"));
    let kubeconfig = server.kubeconfig.clone();
    ApiServer { client: client(&kubeconfig).await, kubeconfig }
}

impl ApiServer {
    /// Makes a namespace that no other test uses; its name begins with `hint`.
    pub async fn namespace(&self, hint: &str) -> String {
        let number = NAMESPACES.fetch_add(1, Ordering::Relaxed);
        let name = format!("{hint}-{number}");
        let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let created = Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await;
        created.unwrap_or_else(|error| panic!("the namespace {name} can't be made: {error}"));
        name
    }

    /// `kubectl` for this server.
    pub fn kubectl(&self) -> Command {
        self.tool("kubectl")
    }

    /// A program that finds this server by its kubeconfig.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(tool(name));
        command.env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null());
        command
    }
}

impl Server {
    fn start() -> Result<Self, String> {
        let program = env::var_os(PROGRAM).map(PathBuf::from).or_else(|| cached("cluster"));
        let program = program.ok_or_else(|| {
            format!("there is no API server to start: run hack/tools.sh cluster, or set {PROGRAM} to what it builds")
        })?;
        let directory = state_directory();
        let log = directory.join("log");
        let failed = |error: io::Error| format!("{program:?} can't be started: {error}");
        let mut command = Command::new(&program);
        command.args(["api", "--dir"]).arg(directory.join("state"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = File::create(&log).and_then(|log| command.stderr(log).spawn()).map_err(failed)?;
        let lifeline = process.stdin.take().expect("standard input is a pipe");
        let output = BufReader::new(process.stdout.take().expect("standard output is a pipe"));
        let (found, kubeconfig) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(path) = line.strip_prefix("KUBECONFIG=") {
                    let _ = found.send(PathBuf::from(path));
                }
            }
        });
        let kubeconfig = kubeconfig.recv_timeout(START).map_err(|_| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            format!("the API server didn't start within {START:?}; {} says: {said}", log.display())
        })?;
        Ok(Server { kubeconfig, _lifeline: lifeline, _process: process })
    }
}

/// A directory of this process; those of processes that are gone are removed.
fn state_directory() -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("api-servers");
    for entry in fs::read_dir(&all).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(entry.file_name()).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let own = all.join(process::id().to_string());
    fs::create_dir_all(&own).unwrap_or_else(|error| panic!("{}: {error}", own.display()));
    own
}

/// A client with connections of its own, as cluster administrator.
pub async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("the server's kubeconfig can be read");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("the server's kubeconfig is one")).expect("a client")
}

async fn install_definitions(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definitions = crds::all();
    let installed = try_join_all(definitions.iter().map(async |definition| {
        let name = definition.name_any();
        api.patch(&name, &PatchParams::apply("tests"), &Patch::Apply(definition))
            .await
            .map_err(|error| format!("the definition {name} is refused: {error}"))?;
        let established = await_condition(api.clone(), &name, conditions::is_crd_established());
        match tokio::time::timeout(SOON, established).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("waiting for the definition {name}: {error}")),
            Err(_) => Err(format!("the definition {name} isn't established within {SOON:?}")),
        }
    }));
    installed.await.unwrap_or_else(|error| panic!("{error}"));
}
