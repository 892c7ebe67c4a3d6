//! A network of one test's own: a network namespace with a loopback interface, on which every party has an address.
//!
//! The thread that makes it is in it from then on, and so are the threads and programs that it starts. Nothing of it is
//! left when they have ended: it has no name.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::process::Process;
use super::wait::{SOON, until};

/// The gateway's address.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 10);
/// The carrier's, from which callers come.
pub const CARRIER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 20);
/// That of the assistant's agent.
pub const AGENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 30);
/// That of the office's trunk, or of the phone that is reached without one.
pub const OFFICE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 40);
/// That of phones behind a trunk.
pub const PHONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 50);
/// That of a caller behind the carrier.
pub const CUSTOMER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 60);

/// The same party's address over IPv6.
pub fn over_ipv6(host: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host.octets()[3]))
}

/// How the network treats datagrams from and to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All arrive.
    None,
    /// One in twenty is lost, at random.
    OneInTwenty,
}

impl Loss {
    fn rules(self) -> String {
        match self {
            Self::None => String::new(),
            // On their way in: a sender isn't told.
            Self::OneInTwenty => format!(
                "table ip loss {{\n chain input {{\n  type filter hook input priority 0\n  \
                 ip saddr {GATEWAY} meta l4proto udp numgen random mod 100 < 5 drop\n  \
                 ip daddr {GATEWAY} meta l4proto udp numgen random mod 100 < 5 drop\n }}\n}}\n"
            ),
        }
    }
}

/// Makes a network and moves this thread into it.
pub fn enter(directory: &Path, loss: Loss) {
    let rules = directory.join("loss.nft");
    std::fs::write(&rules, loss.rules()).unwrap_or_else(|error| panic!("{}: {error}", rules.display()));
    let hosts = [GATEWAY, CARRIER, AGENT, OFFICE, PHONE, CUSTOMER].map(over_ipv6);
    let added: String = hosts.map(|host| format!("ip address add {host}/128 dev lo nodad && ")).concat();
    let script = format!("ip link set lo up && {added}nft -f loss.nft && echo there && exec sleep 60");
    let args = ["--net", "sh", "-c", &script].map(str::to_owned);
    let maker = Process::start("network", directory, "unshare", &args, Vec::new());
    until("the network is there (it takes root to make one)", SOON, || {
        let said = std::fs::read_to_string(directory.join("network.out")).unwrap_or_default();
        if said.ends_with("there\n") { Ok(()) } else { Err(said) }
    });
    let namespace = File::open(format!("/proc/{}/ns/net", maker.id())).expect("a process has a network");
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("root may move into a network");
}
