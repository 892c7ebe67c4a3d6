//! Where an event may be sent. Whoever writes an Assistant chooses the URL; it must not lead the gateway to what only the
//! gateway can reach: the node, the cloud's metadata service, other workloads.
//!
//! The question is asked of the addresses that are connected to, after the name was looked up: a name that leads elsewhere the
//! second time gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Where events may be sent, besides the public internet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Networks that are allowed although they are not public.
    pub allowed: Vec<IpNet>,
}

impl Reach {
    /// Whether an event may be sent there. What is not encrypted stays within the allowed networks.
    pub fn allows(&self, address: IpAddr, encrypted: bool) -> bool {
        let address = address.to_canonical();
        self.allowed.iter().any(|network| network.contains(&address)) || (encrypted && is_public(address))
    }
}

/// Whether an address is one of the public internet, by the registries of IANA (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // Behind a translator the IPv4 address is what is reached (RFC 6052).
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let [.., a, b, c, d] = address.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    // Global unicast (RFC 4291 §2.4), but documentation, 6to4 and Teredo, which carry IPv4 addresses.
    segments[0] & 0xe000 == 0x2000
        && !(segments[0] == 0x2001 && (segments[1] < 0x200 || segments[1] == 0xdb8))
        && segments[0] != 0x2002
        && !(segments[0] == 0x3fff && segments[1] < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(reach: &Reach, address: &str) -> bool {
        reach.allows(address.parse().unwrap(), true)
    }

    #[test]
    fn events_go_to_the_public_internet_and_nowhere_else() {
        let reach = Reach::default();
        for public in
            ["203.0.114.1", "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "172.32.0.1", "100.128.0.1"]
        {
            assert!(allows(&reach, public), "{public}");
        }
        for private in [
            "127.0.0.1",
            "10.96.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "64:ff9b::a00:1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "2002:a00:1::1",
            "2001::1",
        ] {
            assert!(!allows(&reach, private), "{private}");
        }
    }

    #[test]
    fn networks_that_are_allowed_may_be_private_and_what_is_not_encrypted_stays_there() {
        let reach = Reach { allowed: vec!["10.0.0.0/8".parse().unwrap()] };
        assert!(allows(&reach, "10.1.2.3") && allows(&reach, "::ffff:10.1.2.3"));
        assert!(!allows(&reach, "192.168.1.1"));
        assert!(reach.allows("10.1.2.3".parse().unwrap(), false));
        assert!(!reach.allows("8.8.8.8".parse().unwrap(), false));
    }
}
