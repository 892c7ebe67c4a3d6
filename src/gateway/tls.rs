//! TLS: to whom we connect and as whom, and what our listeners show.
//!
//! Outgoing: a [`TlsPeer`] stands for a server name with the authorities that vouch for it and the certificate that we show.
//! Rotated certificates have another name in the table, so the next call makes a new peer and with it a new connection;
//! calls on the old one go on. Listeners: certificates are files (a mounted Secret), looked at every few seconds; the next
//! handshake gets the new one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::snapshot::{Credential, Snapshot};
use crate::routing::table::{CredentialId, SipTarget, TlsEntry};
use crate::sip::event::TlsPeer;

/// How often listeners look whether their certificate is another one.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Most peers that are remembered: those named longest ago go first, and are made again when they are named.
const MOST_PEERS: usize = 4096;

/// Why there is no TLS with a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The name can't be in a certificate.
    #[error("'{0}' is no name that a certificate can carry; set tls.serverName of the SipTrunk")]
    Name(String),
    /// What the table names is gone meanwhile.
    #[error("the certificates that it names are gone")]
    Gone,
    /// The authorities or the certificate can't be used.
    #[error("{what} can't be used: {why}; put PEM into the Secret that it names")]
    Unusable {
        /// Which.
        what: &'static str,
        /// Why.
        why: String,
    },
}

/// To whom we connect, and as whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Wanted {
    server_name: String,
    authorities: Option<CredentialId>,
    certificate: Option<CredentialId>,
}

/// What a connection is made with.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

/// The peers that we connect to over TLS.
#[derive(Default)]
pub(super) struct TlsPeers(Mutex<Known>);

#[derive(Default)]
struct Known {
    peers: HashMap<Wanted, TlsPeer>,
    clients: HashMap<TlsPeer, Client>,
    last: u32,
}

impl TlsPeers {
    /// The peer that a target names.
    pub(super) fn of(&self, target: &SipTarget, snapshot: &Snapshot) -> Result<TlsPeer, TlsError> {
        let TlsEntry { server_name, authorities, certificate } = target.tls.clone().unwrap_or_default();
        let server_name = server_name.unwrap_or_else(|| target.host.clone());
        let wanted = Wanted { server_name, authorities, certificate };
        if let Some(known) = self.locked().peers.get(&wanted) {
            return Ok(*known);
        }
        let client = client(&wanted, snapshot)?;
        let mut known = self.locked();
        if known.peers.len() >= MOST_PEERS
            && let Some((oldest, peer)) = known.peers.iter().min_by_key(|(_, peer)| **peer)
        {
            let (oldest, peer) = (oldest.clone(), *peer);
            known.peers.remove(&oldest);
            known.clients.remove(&peer);
        }
        known.last += 1;
        let peer = TlsPeer(known.last);
        known.clients.insert(peer, client);
        known.peers.insert(wanted, peer);
        Ok(peer)
    }

    /// How a connection to a peer is made; `None` for whoever connected to us.
    pub(super) fn client(&self, peer: TlsPeer) -> Option<Client> {
        self.locked().clients.get(&peer).cloned()
    }

    /// A panic elsewhere can't leave the maps unusable: a peer without a client fails, and is not named again.
    fn locked(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client(wanted: &Wanted, snapshot: &Snapshot) -> Result<Client, TlsError> {
    let name = ServerName::try_from(wanted.server_name.clone())
        .map_err(|_| TlsError::Name(wanted.server_name.clone()))?;
    let config = config(wanted.authorities.as_ref(), wanted.certificate.as_ref(), snapshot)?;
    Ok(Client { config: Arc::new(config), name })
}

/// How connections are made to those for whom these authorities vouch, the public ones if none are named; and as whom.
pub(super) fn config(
    authorities: Option<&CredentialId>,
    certificate: Option<&CredentialId>,
    snapshot: &Snapshot,
) -> Result<ClientConfig, TlsError> {
    let unusable = |what: &'static str| {
        move |error: &dyn std::fmt::Display| TlsError::Unusable { what, why: error.to_string() }
    };
    let mut roots = RootCertStore::empty();
    match authorities {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(id) => {
            let Some(Credential::Authorities { authorities }) = snapshot.credentials.get(id) else {
                return Err(TlsError::Gone);
            };
            let unusable = unusable("the authorities");
            for certificate in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
                let certificate = certificate.map_err(|error| unusable(&error))?;
                roots.add(certificate).map_err(|error| unusable(&error))?;
            }
        }
    }
    let provider = provider();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = verifier.build().map_err(|error| unusable("the authorities")(&error))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("TLS")(&error))?
        .with_webpki_verifier(verifier);
    match certificate {
        None => Ok(builder.with_no_client_auth()),
        Some(id) => {
            let Some(Credential::Certificate { certificate, key }) = snapshot.credentials.get(id) else {
                return Err(TlsError::Gone);
            };
            let unusable = unusable("the client certificate");
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
            let chain = chain.map_err(|error| unusable(&error))?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| unusable(&error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| unusable(&error))
        }
    }
}

/// How connections are made, as nobody in particular, to those for whom the public authorities vouch.
///
/// # Errors
/// When there is no TLS to be had: never, with the provider that is built in.
pub(crate) fn towards_the_public() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificate of a listener: the one that its files hold.
#[derive(Debug)]
pub(super) struct ListenerCertificate {
    directory: PathBuf,
    current: ArcSwapOption<CertifiedKey>,
}

impl ResolvesServerCert for ListenerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

impl ListenerCertificate {
    /// The one of which `directory` has `tls.crt` and `tls.key`, and how handshakes are made with it. It is followed until
    /// the process ends; as long as there is none, handshakes fail.
    pub(super) fn follow(directory: PathBuf) -> Result<Arc<ServerConfig>, rustls::Error> {
        let this = Arc::new(Self { directory, current: ArcSwapOption::empty() });
        let mut seen = None;
        this.look(&mut seen);
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&this) as Arc<dyn ResolvesServerCert>);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                // Two small files in memory: not worth a thread of their own.
                this.look(&mut seen);
            }
        });
        Ok(Arc::new(config))
    }

    /// Takes over what the files hold, if that is new. One that can't be used leaves the one before in use.
    fn look(&self, seen: &mut Option<Files>) {
        let now = files(&self.directory);
        if seen.as_ref() == Some(&now) {
            return;
        }
        let directory = self.directory.display();
        match now.clone().and_then(|(certificate, key)| certified(&certificate, &key)) {
            Ok(certified) => {
                self.current.store(Some(Arc::new(certified)));
                tracing::info!("the TLS listener shows the certificate in {directory} from now on");
            }
            Err(why) => tracing::warn!(
                "the certificate in {directory} can't be used: {why}; the TLS listener keeps the one that it has; see \
                 certificateRef of the SipGateway's listener"
            ),
        }
        *seen = Some(now);
    }
}

/// What a certificate's files hold, or why they can't be read.
type Files = Result<(Vec<u8>, Vec<u8>), String>;

fn files(directory: &Path) -> Files {
    let read = |name: &str| std::fs::read(directory.join(name)).map_err(|error| format!("{name}: {error}"));
    Ok((read("tls.crt")?, read("tls.key")?))
}

fn certified(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(|error| format!("tls.crt: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("tls.key: {error}"))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| error.to_string())
}
