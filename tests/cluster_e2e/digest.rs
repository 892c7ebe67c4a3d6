//! A PBX that calls from anywhere and proves who it is, whichever pod it meets.

use std::fmt::Write as _;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::harness::installation::NODE_PORT;
use crate::harness::office::Office;
use crate::harness::pods::pod_per_node;
use crate::harness::probe::{Probe, Response};
use crate::harness::scene::Scene;
use crate::harness::wait::until;

const LOGIN: (&str, &str) = ("pbx", "a password of the PBX");

/// The pods' challenge in a 401 (RFC 8760): the first one, which is that with SHA-256.
struct Challenge {
    realm: String,
    nonce: String,
    stale: bool,
}

impl Challenge {
    fn of(response: &Response) -> Self {
        let header = response.header("WWW-Authenticate").expect("a 401 has a challenge");
        assert!(header.contains("SHA-256"), "{header}");
        let value = |name: &str| {
            let (_, rest) = header.split_once(&format!("{name}=\""))?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        Self {
            realm: value("realm").expect("a challenge has a realm"),
            nonce: value("nonce").expect("a challenge has a nonce"),
            stale: header.to_ascii_lowercase().contains("stale=true"),
        }
    }

    /// The header that answers it (RFC 7616).
    fn answer(&self, (user, password): (&str, &str), uri: &str) -> String {
        let Self { realm, nonce, .. } = self;
        let who = hash(&format!("{user}:{realm}:{password}"));
        let what = hash(&format!("INVITE:{uri}"));
        let response = hash(&format!("{who}:{nonce}:00000001:0a4f113b:auth:{what}"));
        format!(
            "Authorization: Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\", algorithm=SHA-256, cnonce=\"0a4f113b\", qop=auth, nc=00000001\r\n"
        )
    }
}

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[test]
fn a_pbx_from_anywhere_is_let_in_by_its_password_at_every_pod() {
    let scene = Scene::new("pbx-digest");
    let agent = scene.party("agent", "agent", None);
    let (user, password) = LOGIN;
    scene.apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: office}}\ntype: kubernetes.io/basic-auth\n\
         stringData: {{username: {user}, password: {password}}}\n"
    ));
    let trunk_spec = "  credentialsSecretRef: {name: office}\n";
    let office = scene.office(&Office { agent: agent.port, trunk_spec, ..Office::default() });
    let sources = format!("allowedSources: [{}]", scene.host());
    scene.apply(&office.replace(&sources, "authenticate: true"));
    scene.ready("phonenumber/main-line");
    let pods = pod_per_node(&scene);
    let [one, other] = pods.each_ref().map(|pod| Probe::new(scene.cluster(), pod.node, NODE_PORT));
    let call = |probe: &Probe, challenge: &Challenge, login: (&str, &str)| {
        let uri = format!("sip:{}@{}", scene.number, probe.target());
        probe.call_with(&scene.number, &challenge.answer(login, &uri)).expect("an INVITE is answered")
    };

    // Trunks of other tests know this machine by its address until they are gone.
    let first =
        until("the PBX is challenged", Duration::from_secs(20), || match challenged(&one, &scene.number) {
            Ok(response) => Ok(Challenge::of(&response)),
            Err(code) => Err(format!("the answer is {code:?}")),
        });
    assert!(!first.stale, "a first challenge answers nothing");
    // The other pod doesn't know that nonce: it says that the password may still be right.
    let second = call(&other, &first, LOGIN);
    assert_eq!(second.code, 401);
    let second = Challenge::of(&second);
    assert!(second.stale, "the challenge of another pod is stale");
    assert_eq!((&second.realm, second.nonce == first.nonce), (&first.realm, false));
    assert_eq!(call(&other, &second, LOGIN).code, 200, "the password is right");
    assert_eq!(call(&one, &first, LOGIN).code, 200, "so is it where the first challenge came from");

    let third = Challenge::of(&challenged(&one, &scene.number).expect("it is challenged"));
    assert_eq!(call(&one, &third, (user, "another password")).code, 401);
    assert_eq!(call(&one, &first, LOGIN).code, 401, "an answer can't be sent again");
}

/// The 401 to an INVITE that answers no challenge; else the code that came in its place.
fn challenged(probe: &Probe, number: &str) -> Result<Response, Option<u16>> {
    match probe.call_with(number, "") {
        Some(response) if response.code == 401 => Ok(response),
        other => Err(other.map(|response| response.code)),
    }
}
