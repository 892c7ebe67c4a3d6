//! One test's stage: its network, its files, one gateway, and the SIPps that take part in its calls.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::{Value, json};
use voicedock::gateway::snapshot::Credential;
use voicedock::routing::table::CredentialId;

use super::control::Control;
use super::gateway::{Gateway, SIP, Setup};
use super::network::{self, AGENT, CARRIER, GATEWAY, Loss, OFFICE};
use super::sipp::{self, Sipp, Transport};

/// The number that callers dial.
pub const NUMBER: &str = "+31201234567";
/// The caller's number.
pub const CALLER: &str = "+31687654321";
/// The human's number, and the name of the destination that has it.
pub const SALES: (&str, &str) = ("+31612345678", "sales");

/// A stage; see the module.
pub struct Stage {
    /// The test's own files.
    pub directory: PathBuf,
    loss: Loss,
    ipv6: bool,
    gateway: Option<Gateway>,
}

/// What a gateway is told beside its usual table: a number, its assistant, the destination `sales`, the trunk `carrier`
/// that calls come from, and the trunk `office` that they are transferred over.
pub struct Office {
    /// Port of the agent.
    pub agent: u16,
    /// Port of the trunk `office`.
    pub trunk: u16,
    /// What is merged into the table; `null` takes something out.
    pub more: Value,
    /// What the table's trunks name.
    pub credentials: BTreeMap<CredentialId, Credential>,
    /// Seconds that calls are waited for when the gateway is told to stop.
    pub drain_seconds: u32,
}

impl Default for Office {
    fn default() -> Self {
        Self { agent: 9, trunk: 9, more: json!({}), credentials: BTreeMap::new(), drain_seconds: 0 }
    }
}

impl Stage {
    /// A network and a directory of the test that runs in this thread.
    pub fn new(loss: Loss) -> Self {
        let test = thread::current().name().unwrap_or("main").replace("::", ".");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers").join(test);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        network::enter(&directory, loss);
        Self { directory, loss, ipv6: false, gateway: None }
    }

    /// The same over IPv6.
    pub fn over_ipv6(self) -> Self {
        Self { ipv6: true, ..self }
    }

    /// A party's address.
    fn host(&self, host: Ipv4Addr) -> IpAddr {
        if self.ipv6 { network::over_ipv6(host).into() } else { host.into() }
    }

    /// Starts the gateway.
    pub fn open(&mut self, office: Office) {
        let mut table = self.table(&office);
        merge(&mut table, office.more);
        let Office { credentials, drain_seconds, .. } = office;
        self.gateway = Some(Gateway::start(
            &self.directory,
            Setup { host: self.host(GATEWAY), table, credentials, drain_seconds },
        ));
    }

    /// The gateway.
    pub fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("the stage is open")
    }

    /// The gateway, for its end.
    pub fn gateway_mut(&mut self) -> &mut Gateway {
        self.gateway.as_mut().expect("the stage is open")
    }

    /// Call control.
    pub fn control(&self) -> Control {
        self.gateway().control()
    }

    /// The assistant's agent, for one call.
    pub fn agent(&self, scenario: &str) -> Sipp {
        self.sipp("agent", scenario, AGENT, Transport::Udp, &["-m", "1"])
    }

    /// A human's phone that the office's trunk is, for one call.
    pub fn human(&self, scenario: &str) -> Sipp {
        self.party("human", scenario, OFFICE)
    }

    /// A party that waits for one call.
    pub fn party(&self, name: &str, scenario: &str, host: Ipv4Addr) -> Sipp {
        self.sipp(name, scenario, host, Transport::Udp, &["-m", "1"])
    }

    /// A caller who dials the number.
    pub fn caller(&self, scenario: &str) -> Sipp {
        self.caller_of(NUMBER, scenario, Transport::Udp)
    }

    /// A caller who dials `called`.
    pub fn caller_of(&self, called: &str, scenario: &str, transport: Transport) -> Sipp {
        let target = SocketAddr::new(self.host(GATEWAY), SIP.0).to_string();
        let args = ["-m", "1", "-key", "called", called, "-key", "caller", CALLER, &target];
        self.sipp("caller", scenario, CARRIER, transport, &args)
    }

    /// A SIPp with arguments of its own. Where packets get lost it forgives what comes twice or late, and lingers to repeat
    /// its last answer.
    pub fn sipp(
        &self,
        name: &str,
        scenario: &str,
        host: Ipv4Addr,
        transport: Transport,
        args: &[&str],
    ) -> Sipp {
        let own = format!("peers/sipp/{scenario}");
        let there = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{own}.xml")).exists();
        let scenario = if there { own } else { format!("cluster_e2e/sipp/{scenario}") };
        let lenient: &[&str] = match self.loss {
            Loss::None => &[],
            Loss::OneInTwenty => &["-default_behaviors", "all,-abortunexp", "-d", "2500"],
        };
        Sipp::start(sipp::Setup {
            name,
            scenario: &scenario,
            directory: &self.directory,
            host: self.host(host),
            transport,
            calls: format!("{name}-"),
            args: lenient.iter().chain(args).map(|arg| (*arg).to_owned()).collect(),
            messages: true,
        })
    }

    fn table(&self, office: &Office) -> Value {
        let (agent, (number, name)) = (office.agent, SALES);
        let [carrier, desk, host] = [CARRIER, OFFICE, AGENT].map(|host| self.host(host));
        let uri = format!("sip:agent@{}", SocketAddr::new(host, agent));
        let trunk = |host: IpAddr, port: u16| {
            json!({
                "host": host, "port": port, "transport": "UDP", "numberFormat": "e164", "callerIdHeader": "PAI",
                "allowedNamespaces": ["acme"],
            })
        };
        let mut table = json!({
            "numbers": { NUMBER: {
                "object": "acme/main-line", "assistant": "acme/support", "transferTrunk": "acme/office",
            } },
            "assistants": { "acme/support": {
                "agent": { "sip": {
                    "targets": [{
                        "uri": uri, "host": host, "port": agent, "transport": "UDP",
                    }],
                    "answerTimeoutSeconds": 20,
                } },
                "destinations": { name: format!("acme/{name}") },
            } },
            "destinations": { format!("acme/{name}"): {
                "target": { "number": number }, "description": "Sales team", "ringTimeoutSeconds": 30,
                "callerId": "preserve", "returnToAssistant": true,
            } },
            "trunks": { "acme/carrier": trunk(carrier, 5060), "acme/office": trunk(desk, office.trunk) },
        });
        table["trunks"]["acme/carrier"]["allowedSources"] =
            json!([format!("{carrier}/{}", if self.ipv6 { 128 } else { 32 })]);
        table
    }
}

/// Merges `more` into `value`, as a JSON merge patch (RFC 7396).
fn merge(value: &mut Value, more: Value) {
    match (value, more) {
        (Value::Object(value), Value::Object(more)) => {
            for (name, more) in more {
                if more.is_null() {
                    value.remove(&name);
                } else {
                    merge(value.entry(name).or_insert(Value::Null), more);
                }
            }
        }
        (value, more) => *value = more,
    }
}
