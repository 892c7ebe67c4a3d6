//! The process as a container runs it.

use std::net::SocketAddr;
use std::path::Path;

use crate::operator::{GATEWAY, cluster, eventually, table_of};
use crate::support::api_server::{ApiServer, SOON, api_server};
use crate::support::net::{self, free_address};

/// A gateway process as its container runs it.
struct Process {
    child: tokio::process::Child,
    http: SocketAddr,
}

impl Process {
    fn start(server: &ApiServer, namespace: &str, directory: &Path) -> Self {
        let (http, sip) = (free_address(), free_address());
        let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_voicedock"))
            .arg("gateway")
            .env("KUBECONFIG", &server.kubeconfig)
            .env("POD_NAME", "gw-1")
            .env("POD_UID", "uid-of-gw-1")
            .env("POD_NAMESPACE", namespace)
            .env("POD_IP", "127.0.0.1")
            .env("VOICEDOCK_GATEWAY", GATEWAY)
            .env("VOICEDOCK_LISTENERS", format!("udp:{0},tcp:{0}", sip.port()))
            .env("VOICEDOCK_HTTP", http.to_string())
            .env("VOICEDOCK_API_KEYS", directory.join("keys"))
            .env("VOICEDOCK_STATE", directory.join("state"))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, http }
    }

    /// The status of a GET; `None` while nobody listens.
    async fn get(&self, path: &str, key: &str) -> Option<u16> {
        net::get(self.http, path, key).await.map(|(status, _)| status)
    }

    async fn answers(&self, path: &str, key: &str, status: u16) {
        let what = format!("{status} for {path}");
        eventually(&what, async || self.get(path, key).await.filter(|found| *found == status)).await;
    }

    fn terminate(&self) {
        // The shell's own kill: a bare machine may have no other.
        let kill = format!("kill -TERM {}", self.child.id().unwrap());
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }
}

#[tokio::test]
async fn a_gateway_process_is_ready_with_its_first_table_and_ends_when_told() {
    let server = api_server().await;
    let (_, operator, directory) = cluster("process").await;
    std::fs::create_dir(directory.path().join("keys")).unwrap();
    std::fs::write(directory.path().join("keys/crm"), "the-key\n").unwrap();
    let mut process = Process::start(&server, &operator.namespace, directory.path());
    process.answers("/healthz", "", 200).await;
    process.answers("/readyz", "", 503).await;
    operator.publish(1, &table_of(&["+31201234567"])).await;
    process.answers("/readyz", "", 200).await;
    process.answers("/api/v1/calls", "the-key", 200).await;
    process.answers("/api/v1/calls", "another", 401).await;
    operator.hears("gw-1", "the acknowledgement", |said| said.table.clone()).await;

    process.terminate();
    operator.hears("gw-1", "that it drains", |said| said.draining.then_some(())).await;
    process.terminate();
    assert_eq!(process.get("/readyz", "").await, Some(200), "ready until the last call is gone");
    let status = tokio::time::timeout(SOON, process.child.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
    operator.hears("gw-1", "that it drained", |said| said.draining.then_some(())).await;
}
