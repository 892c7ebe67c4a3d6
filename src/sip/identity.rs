//! Our own tags, branches, Call-IDs and Contacts. They say to which process, shard and leg a message belongs, so that
//! look-up needs no map and any pod knows the owner; a keyed checksum keeps others from guessing a neighbour's.
//!
//! ```text
//! token   iiiiiiii llllllllllllllll cccccccccccc            in the From or To tag and in Contact's `vd` parameter
//! branch  z9hG4bKvd iiiiiiii llllllllllllllll ssssssss cccccccccccc
//!         instance  leg (shard in it) transaction  checksum          all in hexadecimal
//! ```
//! Only the owner can check the checksum (its key never leaves the process); everybody else reads just the instance.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;
use sipx_sip::{HeaderName, Message, Request, Response};

use super::event::LegId;
use super::read;
pub use super::slab::MAX_SHARDS;

/// The shard number of requests outside of dialogs ([`super::outside`]): no process has so many shards.
pub const OUTSIDE: u16 = MAX_SHARDS - 1;
use super::slab::shard_of_leg;

const BRANCH_PREFIX: &str = "z9hG4bKvd";

/// To whom a message belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The process.
    pub instance: u32,
    /// Its shard.
    pub shard: u16,
    /// The leg in that shard.
    pub leg: LegId,
}

/// The owner of a request inside a dialog of ours (of this or of another process): read from the To tag, else from the
/// Request-URI, else from Replaces. Not checked: the owner does that. `None` for a request that belongs to no dialog of ours.
pub fn owner_of(request: &Request) -> Option<Owner> {
    read::tag(&request.headers, &HeaderName::To)
        .and_then(|tag| read_token(&tag))
        .or_else(|| owner_of_place(request))
}

/// The owner of the dialog whose Contact a request is addressed to, or in whose place it comes.
fn owner_of_place(request: &Request) -> Option<Owner> {
    let contact = || read_token(request.uri.params()?.value("vd")?);
    let replaced = || read_token(read::replaces(&request.headers).ok()??.to_tag());
    contact().or_else(replaced)
}

/// The owner of the request that a response answers, if that was one of ours (of this or of another process). Not checked.
pub fn owner_of_response(response: &Response) -> Option<Owner> {
    let via = read::top_via(&response.headers)?;
    Some(read_branch(via.branch()?)?.0)
}

/// The shard, below `shards`, that a message belongs to: that of its leg or of the one in whose place it comes, else one chosen by Call-ID and From tag, so that
/// an INVITE, its retransmissions, its CANCEL and its ACK meet. `None` for a response to a request outside of dialogs.
pub fn shard_of(message: &Message, shards: usize) -> Option<usize> {
    let owner = match message {
        Message::Request(r) => {
            let inside = read::tag(&r.headers, &HeaderName::To).and_then(|tag| read_token(&tag));
            inside.or_else(|| owner_of_place(r).filter(|owner| owner.shard != OUTSIDE))
        }
        Message::Response(r) => owner_of_response(r),
    };
    let shards = shards.max(1);
    match owner {
        Some(Owner { shard: OUTSIDE, .. }) => None,
        Some(owner) => Some(usize::from(owner.shard) % shards),
        None => {
            let mut hasher = SipHasher24::new();
            hasher.write(&message.headers().value(&HeaderName::CallId).unwrap_or_default());
            hasher.write_u8(0xff);
            hasher.write(&read::tag(message.headers(), &HeaderName::From).unwrap_or_default());
            Some((hasher.finish() % shards as u64) as usize)
        }
    }
}

/// Makes and recognises one shard's tokens and branches, and throws its dice.
#[derive(Debug)]
pub struct Identity {
    instance: u32,
    key: [u8; 16],
    thrown: u64,
}

impl Identity {
    /// `seed` is secret, random, and another for each process.
    pub fn new(instance: u32, shard: u16, seed: [u8; 16]) -> Self {
        // Shards of one process share a seed, but not their dice.
        Self { instance, key: seed, thrown: u64::from(shard) << 48 }
    }

    /// The tag and Contact token of a leg.
    pub fn token(&self, leg: LegId) -> String {
        format!("{:08x}{:016x}{:012x}", self.instance, leg.0, self.checksum(leg, None))
    }

    /// The leg of this process that a token names.
    pub fn leg_of_token(&self, token: &[u8]) -> Option<LegId> {
        let owner = read_token(token)?;
        let ours = owner.instance == self.instance && self.token(owner.leg).as_bytes() == token;
        ours.then_some(owner.leg)
    }

    /// The branch of the `seq`-th transaction of a leg.
    pub fn branch(&self, leg: LegId, seq: u32) -> String {
        let checksum = self.checksum(leg, Some(seq));
        format!("{BRANCH_PREFIX}{:08x}{:016x}{seq:08x}{checksum:012x}", self.instance, leg.0)
    }

    /// The leg and transaction of this process that a branch names.
    pub fn transaction_of_branch(&self, branch: &[u8]) -> Option<(LegId, u32)> {
        let (owner, seq) = read_branch(branch)?;
        let ours = owner.instance == self.instance && self.branch(owner.leg, seq).as_bytes() == branch;
        ours.then_some((owner.leg, seq))
    }

    /// A fresh Call-ID; also serves as a client nonce.
    pub fn unique(&mut self) -> String {
        format!("{:016x}{:016x}", self.throw(), self.throw())
    }

    /// A pseudo-random number that nobody without the seed can foretell.
    pub fn throw(&mut self) -> u64 {
        self.thrown += 1;
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write_u8(b'd');
        hasher.write_u64(self.thrown);
        hasher.finish()
    }

    /// A keyed digest of 128 bits: the name of a peer's transaction in our tables.
    pub fn digest(&self, parts: &[&[u8]]) -> [u64; 2] {
        let half = |domain: u8| {
            let mut hasher = SipHasher24::new_with_key(&self.key);
            hasher.write_u8(domain);
            for part in parts {
                hasher.write_u64(part.len() as u64);
                hasher.write(part);
            }
            hasher.finish()
        };
        [half(b'1'), half(b'2')]
    }

    fn checksum(&self, leg: LegId, seq: Option<u32>) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write_u8(if seq.is_some() { b'b' } else { b't' });
        hasher.write_u32(self.instance);
        hasher.write_u64(leg.0);
        hasher.write_u32(seq.unwrap_or(0));
        hasher.finish() >> 16
    }
}

/// The instance that a token names. Not checked.
pub fn instance_of_token(token: &[u8]) -> Option<u32> {
    Some(read_token(token)?.instance)
}

/// The instance that a branch names. Not checked.
pub fn instance_of_branch(branch: &[u8]) -> Option<u32> {
    Some(read_branch(branch)?.0.instance)
}

fn read_token(token: &[u8]) -> Option<Owner> {
    (token.len() == 36).then_some(())?;
    hexadecimal(token, 24, 12)?;
    Some(owner(hexadecimal(token, 0, 8)?, hexadecimal(token, 8, 16)?))
}

fn read_branch(branch: &[u8]) -> Option<(Owner, u32)> {
    let rest = branch.strip_prefix(BRANCH_PREFIX.as_bytes())?;
    (rest.len() == 44).then_some(())?;
    hexadecimal(rest, 32, 12)?;
    let seq = hexadecimal(rest, 24, 8)? as u32;
    Some((owner(hexadecimal(rest, 0, 8)?, hexadecimal(rest, 8, 16)?), seq))
}

fn owner(instance: u64, leg: u64) -> Owner {
    // `instance` was read from eight digits.
    Owner { instance: instance as u32, shard: shard_of_leg(LegId(leg)), leg: LegId(leg) }
}

fn hexadecimal(text: &[u8], from: usize, digits: usize) -> Option<u64> {
    let part = text.get(from..from + digits)?;
    let lower = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    part.iter().all(lower).then_some(())?;
    u64::from_str_radix(std::str::from_utf8(part).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(instance: u32, seed: u8) -> Identity {
        Identity::new(instance, 0, [seed; 16])
    }

    #[test]
    fn tokens_and_branches_are_recognised_by_their_maker_only() {
        let ours = identity(7, 1);
        let leg = LegId((5 << 54) | (1 << 22) | 9);
        let token = ours.token(leg);
        assert_eq!(ours.leg_of_token(token.as_bytes()), Some(leg));
        assert_eq!(identity(7, 2).leg_of_token(token.as_bytes()), None);
        assert_eq!(identity(8, 1).leg_of_token(token.as_bytes()), None);
        assert_eq!(read_token(token.as_bytes()), Some(Owner { instance: 7, shard: 5, leg }));
        let branch = ours.branch(leg, 3);
        assert_eq!(ours.transaction_of_branch(branch.as_bytes()), Some((leg, 3)));
        assert_eq!(identity(7, 2).transaction_of_branch(branch.as_bytes()), None);
    }

    #[test]
    fn a_changed_digit_is_noticed() {
        let ours = identity(7, 1);
        let token = ours.token(LegId(1 << 22)).into_bytes();
        for i in 0..token.len() {
            let mut changed = token.clone();
            changed[i] = if changed[i] == b'0' { b'1' } else { b'0' };
            assert_eq!(ours.leg_of_token(&changed), None, "digit {i}");
        }
    }

    fn message(text: &str) -> Message {
        sipx_sip::parse_datagram(
            bytes::Bytes::copy_from_slice(text.as_bytes()),
            &sipx_sip::Limits::datagram(),
        )
        .unwrap()
    }

    #[test]
    fn all_messages_of_a_call_reach_its_shard_and_its_pod() {
        let leg = LegId((3 << 54) | (1 << 22) | 9);
        let ours = identity(7, 1);
        let (token, branch) = (ours.token(leg), ours.branch(leg, 2));
        let request = |method: &str, uri: &str, to_tag: &str| {
            let text = format!(
                "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=f\r\n\
                 To: <sip:c@d>{to_tag}\r\nCall-ID: x\r\nCSeq: 1 {method}\r\n\r\n"
            );
            message(&text)
        };
        let tagged = format!(";tag={token}");
        let first = shard_of(&request("INVITE", "sip:c@d", ""), 8);
        assert_eq!(shard_of(&request("CANCEL", "sip:c@d", ""), 8), first);
        assert_eq!(shard_of(&request("BYE", "sip:c@d", ";tag=strange"), 8), first);
        assert_eq!(shard_of(&request("BYE", "sip:vd@h", &tagged), 8), Some(3));
        let response = format!(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch={branch}\r\nCall-ID: x\r\nCSeq: 1 BYE\r\n\r\n"
        );
        assert_eq!(shard_of(&message(&response), 8), Some(3));
        let owner = |message: &Message| owner_of(message.as_request().unwrap());
        let expected = Some(Owner { instance: 7, shard: 3, leg });
        assert_eq!(owner(&request("BYE", "sip:vd@h", &tagged)), expected);
        assert_eq!(owner(&request("OPTIONS", &format!("sip:vd@h;vd={token}"), "")), expected);
        assert_eq!(owner(&request("INVITE", "sip:c@d", "")), None);
    }

    #[test]
    fn dice_of_two_shards_differ_and_repeat_for_the_same_seed() {
        let throw = |shard| Identity::new(1, shard, [9; 16]).throw();
        assert_eq!(throw(0), throw(0));
        assert_ne!(throw(0), throw(1));
    }
}
