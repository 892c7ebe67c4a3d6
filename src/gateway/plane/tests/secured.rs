//! TLS on real connections: whom a trunk is taken for, what it is shown, and which certificate a listener has.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

/// An authority.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(super) struct Certificate {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(super) fn issue(&self, name: &str) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Certificate { certificate, key: key.serialize_pem() }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        Arc::new(roots)
    }
}

impl Certificate {
    fn chain(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes()).map(Result::unwrap).collect();
        (chain, PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap())
    }

    fn write(&self, directory: &Path) {
        std::fs::write(directory.join("tls.crt"), &self.certificate).unwrap();
        std::fs::write(directory.join("tls.key"), &self.key).unwrap();
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A trunk that is reached over TLS, and only by clients that `authority` vouches for.
async fn trunk(authority: &Authority, name: &str) -> (TcpListener, TlsAcceptor) {
    let (chain, key) = authority.issue(name).chain();
    let clients = WebPkiClientVerifier::builder_with_provider(authority.roots(), provider()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .unwrap();
    (TcpListener::bind("127.0.0.1:0").await.unwrap(), TlsAcceptor::from(Arc::new(config)))
}

fn credentials(authority: &Authority) -> HashMap<CredentialId, Credential> {
    let Certificate { certificate, key } = authority.issue("gateway.example");
    let authorities = Credential::Authorities { authorities: authority.pem.clone() };
    let id = |text: &str| CredentialId(text.to_owned());
    [(id("ca"), authorities), (id("own"), Credential::Certificate { certificate, key })].into()
}

fn entry(listener: &TcpListener, server_name: &str) -> Value {
    json!({
        "host": "127.0.0.1", "port": listener.local_addr().unwrap().port(), "transport": "TLS", "probeSeconds": 1,
        "tls": { "serverName": server_name, "authorities": "ca", "certificate": "own" },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_over_tls_proves_its_name_and_is_shown_our_certificate() {
    let (agent, authority) = (Peer::new().await, Authority::new("the trunk's"));
    let (listener, acceptor) = trunk(&authority, "pbx.example.com").await;
    let given = Given {
        trunk: entry(&listener, "pbx.example.com"),
        credentials: credentials(&authority),
        ..Given::new(&agent)
    };
    let mut stage = given.stage().await;
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = acceptor.accept(stream).await.unwrap();
    assert!(stream.get_ref().1.peer_certificates().is_some(), "it was shown");
    let mut buffer = vec![0; 4096];
    let length = stream.read(&mut buffer).await.unwrap();
    let options = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(
        options.starts_with("OPTIONS sip:127.0.0.1:") && options.contains("Via: SIP/2.0/TLS "),
        "{options}"
    );
    assert!(options.contains(";transport=tls>"), "the Contact says how it is reached: {options}");
    let header = |name: &str| options.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let answer = format!(
        "SIP/2.0 200 OK\r\n{}\r\n{}\r\n{};tag=t\r\n{}\r\n{}\r\nContent-Length: 0\r\n\r\n",
        header("Via:"),
        header("From:"),
        header("To:"),
        header("Call-ID:"),
        header("CSeq:")
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    stage.found("it answers", |report| report.is_some_and(|report| report.reachable)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_with_another_name_or_of_another_authority_is_sent_nothing() {
    let (agent, authority) = (Peer::new().await, Authority::new("the trunk's"));
    for (name, vouched) in
        [("other.example.com", &authority), ("pbx.example.com", &Authority::new("strange"))]
    {
        let (listener, acceptor) = trunk(&authority, "pbx.example.com").await;
        let given =
            Given { trunk: entry(&listener, name), credentials: credentials(vouched), ..Given::new(&agent) };
        let mut stage = given.stage().await;
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let mut buffer = vec![0; 4096];
                    let sent = stream.read(&mut buffer).await.unwrap_or_default();
                    assert_eq!(sent, 0, "{}", String::from_utf8_lossy(&buffer[..sent]));
                }
            }
        });
        stage
            .found("it isn't who it should be", |report| report.is_some_and(|report| !report.reachable))
            .await;
    }
}

/// Who a listener says it is: the certificate that it shows to those who trust `authority`.
async fn shown(address: SocketAddr, authority: &Authority, name: &'static str) -> Option<TlsStreamOf> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(authority.roots())
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()
}

type TlsStreamOf = tokio_rustls::client::TlsStream<TcpStream>;

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_shows_a_new_certificate_without_a_restart_and_keeps_its_connections() {
    let (agent, authority) = (Peer::new().await, Authority::new("ours"));
    let directory = tempfile::tempdir().unwrap();
    let given = Given { certificates: Some(directory.path().to_owned()), ..Given::new(&agent) };
    let stage = given.stage().await;
    let files = directory.path().join(stage.address.port().to_string());
    assert!(shown(stage.address, &authority, "one.example").await.is_none(), "there is none yet");

    std::fs::create_dir(&files).unwrap();
    authority.issue("one.example").write(&files);
    let mut old = until_shown(stage.address, &authority, "one.example").await;
    authority.issue("two.example").write(&files);
    until_shown(stage.address, &authority, "two.example").await;

    let own = old.get_ref().0.local_addr().unwrap();
    let options = format!(
        "OPTIONS sip:{0} SIP/2.0\r\nVia: SIP/2.0/TLS {own};branch=z9hG4bKo;rport\r\nFrom: <sip:a@b>;tag=a\r\n\
         To: <sip:{0}>\r\nCall-ID: o\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
        stage.address
    );
    old.write_all(options.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 4096];
    let length = tokio::time::timeout(LIMIT, old.read(&mut buffer)).await.unwrap().unwrap();
    assert!(
        buffer[..length].starts_with(b"SIP/2.0 200 OK"),
        "{}",
        String::from_utf8_lossy(&buffer[..length])
    );
}

async fn until_shown(address: SocketAddr, authority: &Authority, name: &'static str) -> TlsStreamOf {
    let wait = async {
        loop {
            if let Some(stream) = shown(address, authority, name).await {
                return stream;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LIMIT * 3, wait).await.unwrap_or_else(|_| panic!("{name} is not shown"))
}
