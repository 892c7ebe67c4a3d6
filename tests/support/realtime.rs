//! The double of OpenAI's Realtime API for tests: in the process of the test, with an authority of its own.

use std::net::{Ipv4Addr, SocketAddr};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use voicedock::simulate::realtime::{Config, Double, Identity, Script, WebhookTarget};

/// The project that it is.
pub const PROJECT: &str = "proj_test";
/// The key that it asks for.
pub const API_KEY: &str = "sk-test";
/// The secret by which it signs.
pub const WEBHOOK_SECRET: &str = "whsec_dGVzdC1zZWNyZXQtb2YtdGhlLWRvdWJsZQ==";

/// Starts one with a script; also returns those who vouch for it, PEM.
pub async fn start(script: &str) -> (Double, String) {
    let (identity, authority) = identity();
    let script = Script::parse(script).unwrap_or_else(|error| panic!("{error}"));
    let double = Double::start(Config { script, ..config(identity) }).await;
    (double.unwrap_or_else(|error| panic!("{error}")), authority)
}

/// A double on any free ports, which does nothing but answer.
pub fn config(identity: Identity) -> Config {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Config {
        sip: anywhere,
        http: anywhere,
        advertise: None,
        identity,
        plain_http: false,
        project: PROJECT.into(),
        api_key: API_KEY.into(),
        webhook: WebhookTarget { url: None, secret: WEBHOOK_SECRET.into(), authorities: None },
        script: Script::default(),
    }
}

/// A certificate for this machine, and those who vouch for it.
pub fn identity() -> (Identity, String) {
    identity_for(&["localhost", "127.0.0.1"])
}

/// A certificate for these names and addresses, and those who vouch for it.
pub fn identity_for(names: &[&str]) -> (Identity, String) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names are fine");
    params.distinguished_name.push(DnType::CommonName, "the double's authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("there is entropy");
    let authority = params.self_signed(&key).expect("the key is its own").pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().expect("there is entropy");
    let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
    let params = CertificateParams::new(names);
    let certificate = params.expect("these are names").signed_by(&key, &issuer);
    let certificate = certificate.expect("the authority may sign").pem();
    (Identity { certificate, key: key.serialize_pem() }, authority)
}
