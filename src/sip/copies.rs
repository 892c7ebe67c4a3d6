//! Which pod of the gateway took which INVITE, so that a copy which reaches another pod begins no second call there.
//!
//! A caller repeats its INVITE half a second after it and later (RFC 3261 §17.1.1.2), and a pod can have left the load balancer by
//! then; or a proxy sends the same INVITE by another path. Neither carries anything that names the pod. So each pod tells the
//! others what it took, several times in that half second, and no call waits for it: the pod that gets a copy knows whose it is,
//! and passes it on. What happens there is what happens within one pod: a repetition is answered as before, the same INVITE by
//! another path gets 482 (§8.2.2.2).
//!
//! Two copies that reach two pods within the time between two notices begin two calls: whoever sends them at once forked them, and
//! ends all but one.

use std::hash::Hasher;

use bytes::{BufMut, Bytes, BytesMut};
use siphasher::sip::SipHasher24;
use sipx_sip::{Method, Request};

use super::lately::Lately;
use super::read::Identified;
use super::time::Millis;

/// How a notice begins: no SIP message does. The sender's instance and the names follow, eight bytes each, big-endian.
const NOTICE: &[u8] = b"VD-TOOK/1\r\n";
/// Names in one notice: with the headers below it, it fits into any datagram that isn't cut up (1,280 bytes, RFC 8200 §5).
const MOST_IN_A_NOTICE: usize = 150;
/// Notices in which each name is told: datagrams get lost.
const TIMES: u8 = 2;
/// Most names that wait to be told; those beyond aren't.
const MOST_UNTOLD: usize = 1 << 14;
/// Most names of one half minute that are remembered: 12 MiB.
const MOST: usize = 1 << 18;

/// What every pod calls an INVITE that begins a call, by whatever path it comes (RFC 3261 §8.2.2.2).
///
/// Not keyed: pods share no secret. Whoever makes two INVITEs that are called the same reaches another pod, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InviteName(u64);

impl InviteName {
    /// The name of a request that begins a call; `None` for any other one.
    pub fn of(request: &Request) -> Option<Self> {
        let id = (request.method == Method::Invite).then(|| Identified::of(&request.headers))??;
        id.to.tag().is_none().then(|| Self::new(&id.call_id, id.sender_tag(), id.cseq))
    }

    /// The name of the INVITE with these.
    pub fn new(call_id: &[u8], from_tag: &[u8], cseq: u32) -> Self {
        let mut hasher = SipHasher24::new();
        for part in [call_id, from_tag] {
            hasher.write_u64(part.len() as u64);
            hasher.write(part);
        }
        hasher.write_u32(cseq);
        Self(hasher.finish())
    }
}

/// See the module.
#[derive(Debug)]
pub struct Copies {
    instance: u32,
    /// By which process.
    taken: Lately<InviteName, u32>,
    /// Taken here, and how often the others have to be told of it yet.
    untold: Vec<(InviteName, u8)>,
}

impl Copies {
    /// Of the process with this instance.
    pub fn new(instance: u32) -> Self {
        Self { instance, taken: Lately::new(MOST), untold: Vec::new() }
    }

    /// This pod takes a call.
    pub fn take(&mut self, name: InviteName, now: Millis) {
        self.taken.put(name, self.instance, now);
        if self.untold.len() < MOST_UNTOLD {
            self.untold.push((name, TIMES));
        }
    }

    /// The process that took an INVITE, this one perhaps.
    pub fn taker(&mut self, name: InviteName, now: Millis) -> Option<u32> {
        self.taken.get(&name, now)
    }

    /// What the other pods are to be told now; to be asked several times in half a second for as long as there is something.
    pub fn notices(&mut self) -> Vec<Bytes> {
        let notice = |names: &[(InviteName, u8)]| {
            let mut bytes = BytesMut::with_capacity(NOTICE.len() + 8 * (names.len() + 1));
            bytes.put_slice(NOTICE);
            bytes.put_u64(self.instance.into());
            names.iter().for_each(|(name, _)| bytes.put_u64(name.0));
            bytes.freeze()
        };
        let notices = self.untold.chunks(MOST_IN_A_NOTICE).map(notice).collect();
        self.untold.retain_mut(|(_, times)| {
            *times -= 1;
            *times > 0
        });
        if self.untold.is_empty() {
            self.untold = Vec::new();
        }
        notices
    }

    /// Takes in a notice. Whoever was first has the call.
    pub fn hear(&mut self, notice: &[u8], now: Millis) {
        let Some((taker, names)) = read(notice) else { return };
        for name in names {
            if self.taken.get(&name, now).is_none() {
                self.taken.put(name, taker, now);
            }
        }
    }
}

/// Whether a datagram is a notice; good for nothing unless it came from a pod.
pub fn is_notice(datagram: &[u8]) -> bool {
    datagram.starts_with(NOTICE)
}

fn read(notice: &[u8]) -> Option<(u32, impl Iterator<Item = InviteName>)> {
    let (numbers, rest) = notice.strip_prefix(NOTICE)?.as_chunks::<8>();
    let (taker, names) = numbers.split_first().filter(|_| rest.is_empty())?;
    let taker = u32::try_from(u64::from_be_bytes(*taker)).ok()?;
    Some((taker, names.iter().map(|name| InviteName(u64::from_be_bytes(*name)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_000);

    fn name(cseq: u32) -> InviteName {
        InviteName::new(b"call", b"tag", cseq)
    }

    fn request(method: &str, branch: &str, to_tag: &str) -> Request {
        let text = format!(
            "{method} sip:c@d SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK{branch}\r\nFrom: <sip:a@b>;tag=f\r\n\
             To: <sip:c@d>{to_tag}\r\nCall-ID: x\r\nCSeq: 1 {method}\r\n\r\n"
        );
        let parsed = sipx_sip::parse_datagram(text.into(), &sipx_sip::Limits::datagram()).unwrap();
        parsed.as_request().unwrap().clone()
    }

    #[test]
    fn an_invite_is_called_the_same_by_whatever_path_it_comes_and_nothing_else_is() {
        let named = |method, branch, to_tag| InviteName::of(&request(method, branch, to_tag));
        let invite = named("INVITE", "1", "");
        assert_eq!(invite, Some(InviteName::new(b"x", b"f", 1)));
        assert_eq!(named("INVITE", "2", ""), invite);
        assert_eq!(named("INVITE", "1", ";tag=t"), None, "that is inside a dialog");
        assert_eq!(named("CANCEL", "1", ""), None);
        assert_ne!(InviteName::new(b"x", b"f", 2).0, InviteName::new(b"x", b"f", 1).0);
        assert_ne!(InviteName::new(b"xf", b"", 1), InviteName::new(b"x", b"f", 1));
    }

    #[test]
    fn what_one_pod_took_the_others_know_also_when_one_notice_is_lost() {
        let (mut first, mut second) = (Copies::new(7), Copies::new(8));
        first.take(name(1), NOW);
        drop(first.notices());
        first.take(name(2), NOW);
        for notice in first.notices() {
            assert!(is_notice(&notice));
            second.hear(&notice, NOW);
        }
        assert_eq!((second.taker(name(1), NOW), second.taker(name(2), NOW)), (Some(7), Some(7)));
        assert_eq!(first.taker(name(1), NOW), Some(7));
        assert_eq!(first.notices().len(), 1, "the second one has been told of once");
        assert_eq!(first.notices(), Vec::<Bytes>::new());
    }

    #[test]
    fn whoever_was_first_has_the_call() {
        let (mut first, mut second) = (Copies::new(7), Copies::new(8));
        first.take(name(1), NOW);
        second.take(name(1), NOW);
        second.hear(&first.notices()[0], NOW);
        assert_eq!(second.taker(name(1), NOW), Some(8));
    }

    #[test]
    fn a_burst_is_told_in_datagrams_that_are_not_cut_up() {
        let (mut first, mut second) = (Copies::new(7), Copies::new(8));
        (0..1_000).for_each(|cseq| first.take(name(cseq), NOW));
        let notices = first.notices();
        assert!(notices.iter().all(|notice| notice.len() <= 1_232), "{:?}", notices[0].len());
        notices.iter().for_each(|notice| second.hear(notice, NOW));
        assert!((0..1_000).all(|cseq| second.taker(name(cseq), NOW) == Some(7)));
    }

    #[test]
    fn what_is_no_notice_says_nothing() {
        let mut copies = Copies::new(7);
        let mut other = Copies::new(8);
        other.take(name(1), NOW);
        let notice = other.notices().remove(0);
        copies.hear(&notice[..notice.len() - 1], NOW);
        copies.hear(&notice[1..], NOW);
        copies.hear(NOTICE, NOW);
        assert_eq!(copies.taker(name(1), NOW), None);
    }
}
