//! What stands between callers and agent: nothing, Kamailio, or a gateway; with the parties that take calls.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::gateway::{Gateway, Setup};
use crate::kamailio::{self, Memory};
use crate::load::{Load, Role, party};
use crate::process::Process;
use crate::support::free_address;
use crate::{single, usage};

/// Calls that go before what is measured.
const WARM_UP: (u32, u32) = (100, 1);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The SIPps alone.
    Nothing,
    /// Kamailio as a record-routing proxy.
    Kamailio,
    /// A gateway that puts calls through to the agent.
    Plain,
    /// A gateway whose calls are transferred because the agent asks for it with REFER.
    Transfer,
}

/// A subject with its parties; all of it ends when this is dropped.
pub struct Stage {
    /// Where callers send their calls.
    pub entrance: SocketAddr,
    /// Where calls go that are timed.
    pub timed_entrance: SocketAddr,
    /// Where its files are.
    pub directory: PathBuf,
    server: Server,
    caller: Role,
    _parties: Vec<Process>,
}

enum Server {
    None(Process),
    Kamailio(Process),
    Gateway(Gateway),
}

impl Stage {
    /// Sets it up and warms it up. `max_calls` is a gateway's.
    pub fn set(subject: Subject, program: &Path, directory: &Path, max_calls: usize) -> Self {
        let human = free_address();
        Self::with_human(subject, program, directory, max_calls, human)
    }

    /// The same with a trunk at `human` that is somebody else's, unless calls are transferred.
    pub fn with_human(
        subject: Subject,
        program: &Path,
        directory: &Path,
        max_calls: usize,
        human: SocketAddr,
    ) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let directory = directory.join(format!("{subject:?}-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let (agent, timed) = (free_address(), single::agent());
        let setup = Setup { program, directory: &directory, agent, timed, human, max_calls };
        let mut parties = Vec::new();
        let (role, caller) = match subject {
            Subject::Transfer => (Role::TransferringAgent, Role::TransferredCaller),
            _ => (Role::Agent, Role::Caller),
        };
        let answering = party(&directory, role, agent, &[]);
        if subject == Subject::Transfer {
            parties.push(party(&directory, Role::Human, human, &[]));
        }
        let (server, entrance, timed_entrance) = match subject {
            Subject::Nothing => (Server::None(answering), agent, timed),
            Subject::Kamailio => {
                parties.push(answering);
                let own = free_address();
                (Server::Kamailio(proxy(&directory, own, agent, timed)), own, own)
            }
            Subject::Plain | Subject::Transfer => {
                parties.push(answering);
                let gateway = Gateway::start(&setup);
                let entrance = gateway.sip;
                (Server::Gateway(gateway), entrance, entrance)
            }
        };
        let stage = Self { entrance, timed_entrance, directory, server, caller, _parties: parties };
        let (rate, seconds) = WARM_UP;
        let warm_up = stage.load(rate, seconds).run(&stage.directory, entrance);
        assert!(
            warm_up.failed == 0,
            "{} of {} calls at {rate}/s fail with {subject:?}; the logs are in {}",
            warm_up.failed,
            warm_up.calls,
            stage.directory.display()
        );
        stage
    }

    /// Calls of this stage's kind for some seconds.
    pub fn load(&self, rate: u32, seconds: u32) -> Load {
        Load { role: self.caller, ..Load::plain(rate, seconds) }
    }

    /// The processes of the subject.
    pub fn subject(&self) -> Vec<u32> {
        match &self.server {
            Server::None(_) => Vec::new(),
            Server::Kamailio(_) | Server::Gateway(_) => usage::of_group(self.process().id()),
        }
    }

    /// The gateway.
    pub fn gateway(&self) -> &Gateway {
        match &self.server {
            Server::Gateway(gateway) => gateway,
            Server::None(_) | Server::Kamailio(_) => panic!("there is no gateway on this stage"),
        }
    }

    /// Processor time that the subject has used, seconds.
    pub fn processor(&self) -> f64 {
        usage::processor(self.process().id())
    }

    /// Memory of the subject's first process, MiB.
    pub fn resident(&self) -> f64 {
        usage::resident(self.process().id())
    }

    /// The most that it ever was, MiB.
    pub fn peak(&self) -> f64 {
        usage::peak(self.process().id())
    }

    fn process(&self) -> &Process {
        match &self.server {
            Server::None(process) | Server::Kamailio(process) => process,
            Server::Gateway(gateway) => &gateway.process,
        }
    }
}

fn proxy(directory: &Path, own: SocketAddr, agent: SocketAddr, timed: SocketAddr) -> Process {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/calls/proxy.cfg");
    let agents = [("_AGENT_", agent.to_string()), ("_TIMED_", timed.to_string())];
    // Memory for thousands of open transactions.
    kamailio::start("kamailio", directory, &config, own, &agents, &Memory { shared: 1024, own: 16 })
}
