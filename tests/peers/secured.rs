//! Kamailio over TLS, as a trunk and as a carrier: each side shows a certificate, and each side looks at the other's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use voicedock::gateway::snapshot::Credential;
use voicedock::routing::table::CredentialId;

use crate::harness::edge::{Edge, PORTS};
use crate::harness::gateway::SIP;
use crate::harness::network::{CARRIER, GATEWAY, Loss, OFFICE, PHONE};
use crate::harness::process::say;
use crate::harness::stage::{Office, Stage};
use crate::harness::wait::{SOON, until};
use crate::transfers::Call;
use crate::trunks::customer;

/// The name in Kamailio's certificate.
const EDGE: &str = "edge.example";

/// Who vouches for certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, PEM.
struct Certificate {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are fine");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("there is entropy");
        let pem = params.self_signed(&key).expect("the key is its own").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, name: &str) -> Certificate {
        let key = KeyPair::generate().expect("there is entropy");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("it is a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("the authority may sign").pem();
        Certificate { certificate, key: key.serialize_pem() }
    }
}

impl Certificate {
    /// Written as `<name>.crt` and `<name>.key`.
    fn write(&self, directory: &Path, name: &str) {
        let written = fs::create_dir_all(directory)
            .and_then(|()| fs::write(directory.join(format!("{name}.crt")), &self.certificate))
            .and_then(|()| fs::write(directory.join(format!("{name}.key")), &self.key));
        written.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    }
}

/// What Kamailio is and whom it trusts; and what the gateway is to its trunks.
fn prepare(stage: &Stage, authority: &Authority) -> BTreeMap<CredentialId, Credential> {
    let files = stage.directory.join("tls");
    authority.issue(EDGE).write(&files, "edge");
    fs::write(files.join("ca.crt"), &authority.pem).expect("the directory has just been made");
    let Certificate { certificate, key } = authority.issue("gateway.example");
    [
        (CredentialId("ca".to_owned()), Credential::Authorities { authorities: authority.pem.clone() }),
        (CredentialId("own".to_owned()), Credential::Certificate { certificate, key }),
    ]
    .into()
}

/// The office over TLS, whose certificate has to have this name.
fn over_tls(name: &str) -> Value {
    let tls = json!({ "serverName": name, "authorities": "ca", "certificate": "own" });
    json!({ "trunks": { "acme/office": { "transport": "TLS", "tls": tls } } })
}

#[test]
fn a_transfer_over_tls_reaches_a_trunk_that_wants_our_certificate() {
    let stage = Stage::new(Loss::None);
    let human = stage.party("human", "human", PHONE);
    let credentials = prepare(&stage, &Authority::new("everybody's"));
    let files = stage.directory.join("tls");
    let trunk = Edge::secured(&stage, "trunk", OFFICE, (PHONE, human.port), &files);
    let more = over_tls(EDGE);
    let call = Call::start(stage, Office { trunk: PORTS.1, more, credentials, ..Office::default() });
    call.transfer();
    human.go_on(&human.call_id(&["ringing"]));
    call.ends_with(human);
    trunk.sees(&[&format!("a call from {GATEWAY} over tls")]);
    trunk.sees(&[&format!("within a dialog: BYE from {GATEWAY} over tls")]);
}

#[test]
fn a_transfer_over_tls_does_not_reach_a_trunk_with_another_name() {
    let stage = Stage::new(Loss::None);
    let credentials = prepare(&stage, &Authority::new("everybody's"));
    let files = stage.directory.join("tls");
    let trunk = Edge::secured(&stage, "trunk", OFFICE, (PHONE, 9), &files);
    let more = over_tls("another.example");
    let call = Call::start(stage, Office { trunk: PORTS.1, more, credentials, ..Office::default() });
    call.transfer();
    call.ends_with_the_assistant("unreachable", None);
    assert_eq!(trunk.times(&["a call from"]), 0, "it was sent nothing");
}

#[test]
fn calls_come_in_over_tls_with_a_certificate_that_was_exchanged_while_the_gateway_runs() {
    let mut stage = Stage::new(Loss::None);
    let mut agent = stage.agent("agent");
    let authority = Authority::new("everybody's");
    prepare(&stage, &authority);
    let own = stage.directory.join(format!("certificates/{}", SIP.1));
    Authority::new("nobody's").issue("gateway.example").write(&own, "tls");
    let files = stage.directory.join("tls");
    let _carrier = Edge::secured(&stage, "carrier", CARRIER, (PHONE, 9), &files);
    stage.open(Office { agent: agent.port, ..Office::default() });
    let trusted = || {
        let (ca, address) = (files.join("ca.crt"), format!("{GATEWAY}:{}", SIP.1));
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-brief", "-verify_return_error", "-connect", &address, "-CAfile"]).arg(ca);
        // Slower than a stranger may connect.
        thread::sleep(Duration::from_millis(300));
        let said = say(&mut openssl);
        if said.success { Ok(()) } else { Err(said.errors) }
    };
    trusted().expect_err("nobody vouches for it");
    authority.issue("gateway.example").write(&own, "tls");
    until("the new certificate is shown", SOON, trusted);

    let mut caller = customer(&stage);
    caller.sees(&["answered"]);
    // The agent leaves: the gateway's BYE finds the caller over the carrier's connection.
    agent.go_on(&agent.call_id(&["answered"]));
    agent.ends_well();
    caller.sees(&["the other side hung up"]);
    caller.ends_well();
}
