//! A kubelet that forwards ports and does nothing else: with it, programs on this machine are pods of an API server without nodes.
//!
//! It speaks the WebSocket protocol of the kubelet's `portForward` (`v4.channel.k8s.io`): a channel for data and one for errors,
//! each beginning with the port. The pod's ports are those of this machine.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use super::api_server::ApiServer;

/// The subject of the authority that `tests/cluster` makes for an API server without nodes.
const AUTHORITY: &str = "voicedock-api";

/// A node of the API server; its kubelet ends with the test.
pub struct Kubelet {
    /// Its name.
    pub node: String,
    /// Of its own: a test that waits for a program holds up the one that it runs in.
    runtime: Option<Runtime>,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Kubelet {
    /// Adds a node.
    pub async fn start(server: &ApiServer, node: &str) -> Self {
        let acceptor = acceptor(server.kubeconfig.parent().unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let nodes: Api<Node> = Api::all(server.client.clone());
        let object = serde_json::from_value(json!({ "metadata": { "name": node } })).unwrap();
        nodes.create(&PostParams::default(), &object).await.unwrap();
        let status = json!({ "status": {
            "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
        } });
        nodes.patch_status(node, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        forward(stream).await;
                    }
                });
            }
        });
        Self { node: node.to_owned(), runtime: Some(runtime) }
    }

    /// A gateway pod on the node that is ready; returns its uid.
    pub async fn pod(&self, server: &ApiServer, namespace: &str, gateway: &str, name: &str) -> String {
        let accounts: Api<ServiceAccount> = Api::namespaced(server.client.clone(), namespace);
        // The admission plugin wants the account, and no controller makes it here.
        let account =
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
        let params = PatchParams::apply("tests").force();
        accounts.patch("default", &params, &Patch::Apply(account)).await.unwrap();
        let pods: Api<Pod> = Api::namespaced(server.client.clone(), namespace);
        let labels = json!({
            "app.kubernetes.io/managed-by": "voicedock-operator", "voicedock.dev/gateway": gateway,
        });
        let object = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels },
            "spec": {
                "containers": [{ "name": "gateway", "image": "voicedock:test" }], "nodeName": self.node,
                "automountServiceAccountToken": false,
            },
        }));
        let object = pods.create(&PostParams::default(), &object.unwrap()).await.unwrap();
        let status = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        object.uid().unwrap()
    }
}

/// TLS with a certificate of the cluster's authority, which the API server asks of kubelets.
fn acceptor(state: &Path) -> TlsAcceptor {
    let key = fs::read(state.join("pki/ca.key")).unwrap();
    let authority_key = KeyPair::try_from(pkcs8(&key).as_slice()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name = DnValue::PrintableString(AUTHORITY.try_into().unwrap());
    params.distinguished_name.push(DnType::CommonName, name);
    let authority = Issuer::new(params, authority_key);
    let own = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&own, &authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// A P-256 key in PKCS #8, which holds one in SEC 1 (RFC 5915 §3) behind a head.
fn pkcs8(pem: &[u8]) -> Vec<u8> {
    const HEAD: [u8; 23] = [
        0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
        0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
    ];
    let PrivateKeyDer::Sec1(key) = PrivateKeyDer::from_pem_slice(pem).unwrap() else {
        panic!("the authority's key is not in SEC 1")
    };
    let key = key.secret_sec1_der();
    let mut inner = HEAD.to_vec();
    inner.extend([0x07, 0x04, u8::try_from(key.len()).expect("a key of P-256 is short")]);
    inner.extend(key);
    [&[0x30, 0x81, u8::try_from(inner.len()).unwrap()], inner.as_slice()].concat()
}

/// Carries one forwarded port until either side ends it.
async fn forward(stream: TlsStream<TcpStream>) {
    let mut wanted = None;
    #[allow(clippy::result_large_err, reason = "the library's signature")]
    let shake = |request: &Request, mut response: Response| {
        wanted = port(request.uri().query().unwrap_or_default());
        response.headers_mut().insert("sec-websocket-protocol", "v4.channel.k8s.io".parse().unwrap());
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, shake).await else { return };
    let Some(port) = wanted else { return };
    for channel in [0, 1] {
        let begin = [&[channel], port.to_le_bytes().as_slice()].concat();
        if socket.send(Message::binary(begin)).await.is_err() {
            return;
        }
    }
    let mut pod = match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(pod) => pod,
        Err(error) => {
            let said = [&[1], format!("port {port}: {error}").as_bytes()].concat();
            let _ = socket.send(Message::binary(said)).await;
            let _ = socket.close(None).await;
            return;
        }
    };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            read = pod.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(length) => {
                    let data = [&[0], &buffer[..length]].concat();
                    if socket.send(Message::binary(data)).await.is_err() {
                        break;
                    }
                }
            },
            said = socket.next() => match said {
                Some(Ok(Message::Binary(data))) if data.first() == Some(&0) => {
                    if pod.write_all(&data[1..]).await.is_err() {
                        break;
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    let _ = socket.close(None).await;
}

fn port(query: &str) -> Option<u16> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| name.starts_with("port")).and_then(|(_, value)| value.parse().ok())
}
