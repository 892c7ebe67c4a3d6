//! Who takes part in a test's calls: parties that wait for them, and callers.

use std::net::SocketAddrV4;

use super::installation::NODE_PORT;
use super::pods::Pod;
use super::scene::Scene;
use super::sipp::{Setup, Sipp, Transport};

/// The caller's number.
pub const CALLER: &str = "+31687654321";

impl Scene {
    /// A party that waits for calls on this machine. With `calls` it ends after that many, and writes down each message.
    pub fn party(&self, name: &str, scenario: &str, calls: Option<u32>) -> Sipp {
        let args = calls.map_or_else(Vec::new, |calls| vec!["-m".to_owned(), calls.to_string()]);
        self.sipp(name, scenario, args, Transport::Udp, calls.is_some())
    }

    /// A party that waits for many calls, with arguments of its own.
    pub fn party_with(&self, name: &str, scenario: &str, args: &[&str]) -> Sipp {
        self.sipp(name, scenario, args.iter().copied().map(str::to_owned).collect(), Transport::Udp, false)
    }

    /// A party that waits for one call over TCP. It can't be told anything.
    pub fn tcp_party(&self, name: &str, scenario: &str) -> Sipp {
        self.sipp(name, scenario, vec!["-m".to_owned(), "1".to_owned()], Transport::Tcp, true)
    }

    /// One caller who dials the number through the node of `pod`.
    pub fn caller(&self, pod: &Pod) -> Sipp {
        self.callers("caller", "caller", pod, NODE_PORT, &["-m", "1"])
    }

    /// Callers who dial the number through a port of the node of `pod`.
    pub fn callers(&self, name: &str, scenario: &str, pod: &Pod, port: u16, args: &[&str]) -> Sipp {
        self.callers_at(name, scenario, SocketAddrV4::new(pod.node, port), args)
    }

    /// Callers who dial the number at an address.
    pub fn callers_at(&self, name: &str, scenario: &str, at: SocketAddrV4, args: &[&str]) -> Sipp {
        let all = self.dialling(at, args);
        self.sipp(name, scenario, all, Transport::Udp, !args.contains(&"-r"))
    }

    /// As [`Self::caller`], but over TCP and with another scenario. It can't be told anything.
    pub fn tcp_caller(&self, scenario: &str, pod: &Pod) -> Sipp {
        let all = self.dialling(SocketAddrV4::new(pod.node, NODE_PORT), &["-m", "1"]);
        self.sipp("caller", scenario, all, Transport::Tcp, true)
    }

    fn dialling(&self, at: SocketAddrV4, args: &[&str]) -> Vec<String> {
        let fixed = ["-key", "called", &self.number, "-key", "caller", CALLER];
        fixed.iter().chain(args).copied().map(str::to_owned).chain([at.to_string()]).collect()
    }

    fn sipp(
        &self,
        name: &str,
        scenario: &str,
        args: Vec<String>,
        transport: Transport,
        messages: bool,
    ) -> Sipp {
        let (directory, host) = (&*self.directory, self.host().into());
        let calls = format!("{}-{name}-", self.namespace);
        let scenario = &format!("cluster_e2e/sipp/{scenario}");
        Sipp::start(Setup { name, scenario, directory, host, transport, calls, args, messages })
    }
}
