//! The processes that are measured, each as its container runs it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::client::Client;
use crate::process::Process;
use crate::support::api_server::ApiServer;
use crate::support::net::free_address;
use crate::support::tools::printed;
use crate::wait::{SOON, until};

/// How programs are started.
pub struct Start {
    /// The program.
    pub program: PathBuf,
    /// The way to the API server.
    pub kubeconfig: PathBuf,
    /// Where files go.
    pub directory: PathBuf,
}

impl Start {
    /// Starts a role under a name, through these words before it (`taskset …`); its log gets the name, too.
    pub fn role(&self, through: &[&str], name: &str, role: &str, arguments: &[String]) -> Process {
        let mut all = vec![format!("KUBECONFIG={}", self.kubeconfig.display())];
        all.extend(through.iter().map(|word| (*word).to_owned()));
        all.extend([self.program.display().to_string(), role.to_owned()]);
        all.extend_from_slice(arguments);
        Process::start(name, &self.directory, "env", &all, Vec::new())
    }

    /// Starts the REST API, whose keys have no rate, and waits until it is ready.
    pub fn api(&self, through: &[&str], name: &str) -> (Process, SocketAddr) {
        let (http, admin) = (free_address(), free_address());
        let arguments = [format!("--http={http}"), format!("--admin={admin}"), "--key-rate=0".to_owned()];
        let process = self.role(through, name, "api", &arguments);
        is_ready(admin, name);
        (process, http)
    }

    /// A key of the REST API for a namespace.
    pub fn key(&self, namespace: &str) -> String {
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &self.kubeconfig).args(["api-key", "create", "bench", "-n", namespace]);
        printed(&mut command).trim().to_owned()
    }

    /// A directory of its own.
    pub fn directory(&self, name: &str) -> PathBuf {
        let directory = self.directory.join(name);
        std::fs::create_dir_all(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        directory
    }
}

/// Waits until a process says that it is ready.
pub fn is_ready(http: SocketAddr, name: &str) {
    until(&format!("{name} is ready"), SOON, || {
        let (status, body) = Client::connect(http, "")?.ask("GET", "/readyz", "")?;
        if status == 200 { Ok(()) } else { Err(io::Error::other(body)) }
    });
}

/// Applies an object with kubectl.
pub fn apply(server: &ApiServer, directory: &Path, namespace: &str, objects: &[serde_json::Value]) {
    let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    let file = directory.join("objects.json");
    std::fs::write(&file, list.to_string()).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut kubectl = server.kubectl();
    kubectl.args(["apply", "--server-side", "-n", namespace, "-f"]).arg(&file);
    printed(&mut kubectl);
}
