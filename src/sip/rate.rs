//! How much each source may send, held for any number of sources in memory of a fixed size.
//!
//! A source is an IPv4 address or an IPv6 network of 64 bits: whoever has one address of such a network has them all. Each
//! has one place in each of two rows, chosen by a keyed hash; what it sends is let through as long as one of the two has
//! room. So a flood slows down only those few that meet it in both places, and which these are nobody can choose. In return
//! one source can get up to twice its rate, when others have used up one of its places.
//!
//! A place is the generic cell rate algorithm (ITU-T I.371): one number, the time at which everything that was let through
//! would have come at the exact rate. Nothing is refilled, nothing ages, and a take costs the same whatever came before.

use std::hash::Hasher;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use siphasher::sip::SipHasher13;

/// Places in a row: two rows take 128 KiB.
const PLACES: usize = 8192;

/// See the module.
#[derive(Debug)]
pub struct Sources {
    /// Nanoseconds between two messages at the exact rate.
    interval: u64,
    /// Nanoseconds in which a burst would come at that rate.
    burst: u64,
    /// In nanoseconds since the same moment as `now`.
    rows: [Box<[u64]>; 2],
    key: [u8; 16],
}

impl Sources {
    /// Lets each source send so much a second, and `burst` at once when it was silent before. `key` is secret and random.
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32, key: [u8; 16]) -> Self {
        let row = || vec![0; PLACES].into_boxed_slice();
        let interval = 1_000_000_000 / u64::from(per_second.get());
        Self { interval, burst: interval * u64::from(burst.get()), rows: [row(), row()], key }
    }

    /// Whether there is room for a message of `source`.
    pub fn has_room(&self, source: IpAddr, now: Duration) -> bool {
        let full = nanos(now) + self.burst;
        self.rows.iter().zip(self.places(source)).any(|(row, place)| {
            row.get(place).is_some_and(|due| (*due).max(nanos(now)) + self.interval <= full)
        })
    }

    /// Lets one more message of `source` through at `now`, counted from any fixed moment, or says how long it is until there is
    /// room for one.
    pub fn take(&mut self, source: IpAddr, now: Duration) -> Result<(), Duration> {
        let now = nanos(now);
        let full = now + self.burst;
        let places = self.places(source);
        let mut soonest = None;
        let mut taken = false;
        for (row, place) in self.rows.iter_mut().zip(places) {
            let Some(due) = row.get_mut(place) else { continue };
            let next = (*due).max(now) + self.interval;
            if next <= full {
                *due = next;
                taken = true;
            } else {
                let wait = next - full;
                soonest = Some(soonest.map_or(wait, |soonest: u64| soonest.min(wait)));
            }
        }
        if taken { Ok(()) } else { Err(Duration::from_nanos(soonest.unwrap_or_default())) }
    }

    fn places(&self, source: IpAddr) -> [usize; 2] {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        match source.to_canonical() {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(address.octets().get(..8).unwrap_or_default()),
        }
        let hash = hasher.finish();
        [hash as usize % PLACES, (hash >> 32) as usize % PLACES]
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sources(per_second: u32) -> Sources {
        let rate = NonZeroU32::new(per_second).unwrap();
        Sources::new(rate, rate, [1; 16])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of `count` messages, `every` apart from `start` on, are let through.
    fn let_through(
        sources: &mut Sources,
        source: IpAddr,
        start: Duration,
        every: Duration,
        count: u32,
    ) -> u32 {
        (0..count).filter(|i| sources.take(source, start + every * *i).is_ok()).count() as u32
    }

    #[test]
    fn a_source_gets_a_burst_and_then_its_rate() {
        let mut sources = sources(100);
        let (flood, start) = (ip("192.0.2.1"), Duration::from_secs(9));
        assert_eq!(let_through(&mut sources, flood, start, Duration::ZERO, 1_000), 100, "at once");
        let second = Duration::from_micros(100);
        assert_eq!(let_through(&mut sources, flood, start, second, 10_000), 99, "in the second after");
        assert_eq!(
            let_through(&mut sources, ip("192.0.2.2"), start, Duration::ZERO, 50),
            50,
            "others are not concerned"
        );
        let later = start + Duration::from_secs(60);
        assert_eq!(
            let_through(&mut sources, flood, later, Duration::ZERO, 1_000),
            100,
            "silence is no credit beyond a burst"
        );
    }

    #[test]
    fn who_is_refused_is_told_when_to_come_again() {
        let mut sources = sources(10);
        let source = ip("192.0.2.1");
        while sources.take(source, Duration::ZERO).is_ok() {}
        let wait = sources.take(source, Duration::ZERO).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(!sources.has_room(source, Duration::ZERO) && sources.has_room(source, wait));
        assert!(sources.take(source, wait - Duration::from_nanos(1)).is_err());
        assert!(sources.take(source, wait).is_ok());
    }

    #[test]
    fn an_ipv6_network_is_one_source_and_a_mapped_address_is_the_ipv4_one() {
        let mut sources = sources(10);
        assert_eq!(let_through(&mut sources, ip("2001:db8::1"), Duration::ZERO, Duration::ZERO, 99), 10);
        assert!(sources.take(ip("2001:db8::ffff:2"), Duration::ZERO).is_err());
        assert!(sources.take(ip("2001:db8:0:1::1"), Duration::ZERO).is_ok());
        assert_eq!(let_through(&mut sources, ip("::ffff:192.0.2.1"), Duration::ZERO, Duration::ZERO, 99), 10);
        assert!(sources.take(ip("192.0.2.1"), Duration::ZERO).is_err());
    }

    #[test]
    fn a_hundred_floods_drown_nobody_else() {
        let mut sources = sources(10);
        for flood in 0..100u32 {
            let source = IpAddr::from((0x0a00_0000u32 + flood * 7).to_be_bytes());
            while sources.take(source, Duration::ZERO).is_ok() {}
        }
        let refused = (0..10_000u32).filter(|other| {
            let source = IpAddr::from((0xc000_0000u32 + other * 13).to_be_bytes());
            // Alone with the floods: what the others have sent is taken back.
            let mut alone = Sources { rows: sources.rows.clone(), ..self::sources(10) };
            alone.take(source, Duration::ZERO).is_err()
        });
        // Both places taken: (100 / 8192)² of them.
        assert!(refused.count() <= 10);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nobody_gets_more_than_twice_the_rate_in_any_order(
            takes in proptest::collection::vec((0u8..4, 0u64..3_000_000), 1..2_000),
        ) {
            let mut sources = sources(1_000);
            let (mut now, mut passed) = (Duration::from_secs(1), [0u32; 4]);
            for (source, pause) in &takes {
                now += Duration::from_nanos(*pause);
                passed[usize::from(*source)] +=
                    u32::from(sources.take(IpAddr::from([192, 0, 2, *source]), now).is_ok());
            }
            let most = 2 * (1_000 + (now - Duration::from_secs(1)).as_millis() as u32 + 1);
            prop_assert!(passed.iter().all(|passed| *passed <= most));
        }
    }
}
