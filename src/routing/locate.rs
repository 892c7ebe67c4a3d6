//! Where a SIP host is by its DNS records (RFC 3263): what is asked, and in which order the answers are tried. Pure.

use super::table::TransportEntry;

/// A NAPTR record, as far as SIP reads it (RFC 3263 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naptr {
    /// Lower is read first.
    pub order: u16,
    /// Lower comes first within one order.
    pub preference: u16,
    /// `s`: the replacement is the name of SRV records. Others are not read.
    pub flags: String,
    /// Such as `SIP+D2U`.
    pub service: String,
    /// What is asked next.
    pub replacement: String,
}

/// An SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// Lower is tried first.
    pub priority: u16,
    /// Share among equal priorities.
    pub weight: u16,
    /// The host; `.` when the service is decidedly not there.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// The port without SRV records.
pub fn default_port(transport: TransportEntry) -> u16 {
    match transport {
        TransportEntry::Udp | TransportEntry::Tcp => 5060,
        TransportEntry::Tls => 5061,
    }
}

/// The name of the SRV records of a host for a transport.
pub fn service_name(transport: TransportEntry, host: &str) -> String {
    match transport {
        TransportEntry::Udp => format!("_sip._udp.{host}"),
        TransportEntry::Tcp => format!("_sip._tcp.{host}"),
        TransportEntry::Tls => format!("_sips._tcp.{host}"),
    }
}

/// The transports that a host offers and the names of their SRV records, best first.
pub fn services(mut records: Vec<Naptr>) -> Vec<(TransportEntry, String)> {
    records.sort_by_key(|record| (record.order, record.preference));
    let read = |record: Naptr| {
        let transport = match record.service.to_ascii_uppercase().as_str() {
            "SIP+D2U" => TransportEntry::Udp,
            "SIP+D2T" => TransportEntry::Tcp,
            "SIPS+D2T" => TransportEntry::Tls,
            _ => return None,
        };
        record.flags.eq_ignore_ascii_case("s").then_some((transport, record.replacement))
    };
    records.into_iter().filter_map(read).collect()
}

/// SRV records in the order in which they are tried: by priority, and by weight among equal ones. `dice` gives a random
/// number each time. Hosts of `.` are left out.
pub fn ordered(records: Vec<Srv>, mut dice: impl FnMut() -> u64) -> Vec<Srv> {
    let mut left: Vec<Srv> =
        records.into_iter().filter(|record| !matches!(&*record.host, "" | ".")).collect();
    let mut ordered = Vec::with_capacity(left.len());
    while let Some(chosen) = choose(left.iter().map(|record| (record.priority, record.weight)), dice()) {
        ordered.push(left.remove(chosen));
    }
    ordered
}

/// Which of these, given as priority and weight, is tried next (RFC 2782): one of the lowest priority, by weight. `dice` is
/// a random number. `None` among none.
pub fn choose(candidates: impl Iterator<Item = (u16, u16)> + Clone, dice: u64) -> Option<usize> {
    let lowest = candidates.clone().map(|(priority, _)| priority).min()?;
    let equal = candidates.enumerate().filter(|(_, (priority, _))| *priority == lowest);
    let mut equal: Vec<(usize, u64)> = equal.map(|(at, (_, weight))| (at, weight.into())).collect();
    // Those without weight come first, so that they have a small chance.
    equal.sort_by_key(|(_, weight)| *weight != 0);
    let sum: u64 = equal.iter().map(|(_, weight)| weight).sum();
    if sum == 0 {
        return Some(equal.get((dice % equal.len() as u64) as usize)?.0);
    }
    let mark = dice % (sum + 1);
    let mut running = 0;
    let chosen = equal.into_iter().find(|(_, weight)| {
        running += weight;
        running >= mark
    })?;
    Some(chosen.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn naptr(order: u16, preference: u16, flags: &str, service: &str) -> Naptr {
        let replacement = format!("{service}.{order}.{preference}");
        Naptr { order, preference, flags: flags.into(), service: service.into(), replacement }
    }

    fn srv(host: &str, priority: u16, weight: u16) -> Srv {
        Srv { priority, weight, host: host.into(), port: 5060 }
    }

    fn names(records: Vec<Srv>, dice: u64) -> Vec<String> {
        ordered(records, || dice).into_iter().map(|record| record.host).collect()
    }

    #[test]
    fn the_services_of_a_host_are_read_in_its_order_and_strange_ones_are_not() {
        let found = services(vec![
            naptr(20, 10, "s", "SIP+D2U"),
            naptr(10, 20, "S", "sip+d2u"),
            naptr(10, 10, "s", "SIP+D2T"),
            naptr(1, 1, "u", "E2U+sip"),
            naptr(1, 1, "s", "SIP+D2S"),
            naptr(1, 1, "a", "SIP+D2U"),
        ]);
        let found: Vec<_> = found.iter().map(|(transport, name)| (*transport, name.as_str())).collect();
        let expected = [
            (TransportEntry::Tcp, "SIP+D2T.10.10"),
            (TransportEntry::Udp, "sip+d2u.10.20"),
            (TransportEntry::Udp, "SIP+D2U.20.10"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_service_that_is_decidedly_not_there_has_no_hosts() {
        assert_eq!(names(vec![srv(".", 0, 0)], 0), Vec::<String>::new());
    }

    #[test]
    fn lower_priorities_come_first_and_weights_share_equal_ones() {
        let mut first = BTreeMap::new();
        for dice in 0..4100 {
            let records =
                vec![srv("last", 20, 100), srv("a", 10, 30), srv("b", 10, 10), srv("seldom", 10, 0)];
            *first.entry(names(records, dice).remove(0)).or_insert(0) += 1;
        }
        assert_eq!(first, [("a", 3000), ("b", 1000), ("seldom", 100)].map(|(h, n)| (h.to_owned(), n)).into());
        let mut even = BTreeMap::new();
        for dice in 0..100 {
            *even.entry(names(vec![srv("a", 0, 0), srv("b", 0, 0)], dice).remove(0)).or_insert(0) += 1;
        }
        assert_eq!(even, [("a", 50), ("b", 50)].map(|(h, n)| (h.to_owned(), n)).into());
    }

    proptest! {
        #[test]
        fn every_host_is_tried_once_in_the_order_of_priorities(
            hosts in prop::collection::vec((0..3u16, 0..3u16), 0..6), dice in any::<u64>()
        ) {
            let records: Vec<Srv> =
                hosts.iter().enumerate().map(|(index, (p, w))| srv(&format!("h{index}"), *p, *w)).collect();
            let tried = ordered(records.clone(), || dice);
            prop_assert!(tried.is_sorted_by_key(|record| record.priority));
            let sorted = |mut records: Vec<Srv>| {
                records.sort_by(|a, b| a.host.cmp(&b.host));
                records
            };
            prop_assert_eq!(sorted(tried), sorted(records));
        }
    }
}
