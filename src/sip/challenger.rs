//! Challenging callers: digest authentication as the server (RFC 3261 §22, RFC 7616, RFC 8760).
//!
//! Promises:
//! - a nonce is nobody's but this process's, and good for [`FIRST_USE`] until it is used, for [`LIFETIME`] after that;
//! - no answer is taken twice: with one nonce only growing counts are, and a nonce of whose counts nothing is known any more
//!   is stale. What is remembered is bounded, whatever comes;
//! - what is compared is compared in constant time, and nothing of it is shown.
//!
//! Challenges cost no memory: a nonce says itself when it was made, and proves by a keyed digest that it was made here. One
//! that another pod made is stale here: its caller repeats the request with ours. The `uri` of an answer is taken as it
//! is written: what clients write there differs, and a proxy may have changed the Request-URI since.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher24};
use sipx_sip::auth::{Algorithm, Challenge, Credentials, respond};
use subtle::ConstantTimeEq;

use super::via::split_outside_quotes;

/// How long an unused nonce is good: until the request comes again, with the caller's own time-outs.
pub const FIRST_USE: Duration = Duration::from_secs(32);
/// How long a nonce is good that was used.
pub const LIFETIME: Duration = Duration::from_secs(300);
/// Used nonces that are remembered, about 2 MiB. When there are more, the oldest are stale before their time.
const MOST_USED: usize = 32_768;
/// What is offered, most wanted first.
const OFFERED: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Md5];

/// What an answer to a challenge is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged<T> {
    /// There is none that we asked for; `stale` when there is one whose nonce is not good any more.
    Unanswered {
        /// The caller may know the password all the same.
        stale: bool,
    },
    /// The user name or the password is wrong.
    Wrong,
    /// It is that of this login.
    Proven(T),
}

/// See the module.
#[derive(Debug)]
pub struct Challenger {
    realm: String,
    key: [u8; 16],
    serial: u64,
    /// The highest count of each nonce that was used.
    used: BTreeMap<Nonce, u32>,
    /// Of nonces up to this one nothing is known any more but what is in `used`.
    forgotten: Option<Nonce>,
}

/// In the order in which they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Nonce {
    /// Milliseconds since the fixed moment.
    made: u64,
    serial: u64,
}

impl Challenger {
    /// For one realm. `key` is secret and random.
    pub fn new(realm: String, key: [u8; 16]) -> Self {
        Self { realm, key, serial: 0, used: BTreeMap::new(), forgotten: None }
    }

    /// The headers of a 401 at `now`, counted from any fixed moment.
    pub fn challenges(&mut self, stale: bool, now: Duration) -> Vec<(&'static str, String)> {
        self.serial += 1;
        let nonce = self.write(Nonce { made: millis(now), serial: self.serial });
        let stale = if stale { ", stale=true" } else { "" };
        let header = |algorithm: Algorithm| {
            let (realm, algorithm) = (&self.realm, algorithm.as_str());
            let value = format!(
                "Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm={algorithm}, qop=\"auth\"{stale}"
            );
            ("WWW-Authenticate", value)
        };
        OFFERED.map(header).into()
    }

    /// Judges the Authorization headers of a request by the logins that would do: what stands for each, its user name, its
    /// password.
    pub fn judge<'a, T>(
        &mut self,
        headers: &[Vec<u8>],
        method: &str,
        logins: impl IntoIterator<Item = (T, &'a str, &'a str)>,
        now: Duration,
    ) -> Judged<T> {
        let ours = headers.iter().filter_map(|value| Answer::parse(value));
        let Some(answer) = ours.into_iter().find(|answer| answer.realm == self.realm) else {
            return Judged::Unanswered { stale: false };
        };
        let Some(nonce) = self.read(&answer.nonce).filter(|nonce| self.is_good(*nonce, answer.count, now))
        else {
            return Judged::Unanswered { stale: true };
        };
        let named = |(_, username, _): &(T, &str, &str)| *username == answer.username;
        let mut candidates = logins.into_iter().filter(named).peekable();
        if candidates.peek().is_none() {
            // As long as it takes for a name that there is.
            let _ = answer.is_by("", "", method);
        }
        let proven = candidates.find(|(_, username, password)| answer.is_by(username, password, method));
        match proven {
            Some((login, ..)) => {
                self.remember(nonce, answer.count, now);
                Judged::Proven(login)
            }
            None => Judged::Wrong,
        }
    }

    fn is_good(&self, nonce: Nonce, count: u32, now: Duration) -> bool {
        let age = millis(now).saturating_sub(nonce.made);
        match self.used.get(&nonce) {
            Some(last) => count > *last && age < millis(LIFETIME),
            None => self.forgotten.is_none_or(|forgotten| nonce > forgotten) && age < millis(FIRST_USE),
        }
    }

    fn remember(&mut self, nonce: Nonce, count: u32, now: Duration) {
        self.used.insert(nonce, count);
        while let Some(oldest) = self.used.first_entry() {
            let expired = millis(now).saturating_sub(oldest.key().made) >= millis(LIFETIME);
            if !expired && self.used.len() <= MOST_USED {
                break;
            }
            self.forgotten = self.used.pop_first().map(|(nonce, _)| nonce).max(self.forgotten);
        }
    }

    fn write(&self, nonce: Nonce) -> String {
        let Nonce { made, serial } = nonce;
        format!("{made:016x}{serial:016x}{:032x}", self.seal(nonce))
    }

    /// A nonce that was made here.
    fn read(&self, text: &str) -> Option<Nonce> {
        let part = |at: usize| u64::from_str_radix(text.get(at..at + 16)?, 16).ok();
        let nonce = Nonce { made: part(0)?, serial: part(16)? };
        bool::from(self.write(nonce).as_bytes().ct_eq(text.as_bytes())).then_some(nonce)
    }

    fn seal(&self, nonce: Nonce) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write_u64(nonce.made);
        hasher.write_u64(nonce.serial);
        hasher.write(self.realm.as_bytes());
        hasher.finish128().as_u128()
    }
}

/// What a caller answers.
struct Answer {
    username: String,
    realm: String,
    nonce: String,
    uri: String,
    response: String,
    algorithm: Algorithm,
    cnonce: String,
    count: u32,
}

impl Answer {
    /// Reads an Authorization header. `None` for other schemes, for what we did not offer, and without `qop`: what carries no
    /// count could be sent again by anybody.
    fn parse(value: &[u8]) -> Option<Self> {
        let value = value.trim_ascii();
        let (scheme, rest) = value.split_at_checked(6)?;
        scheme.eq_ignore_ascii_case(b"Digest").then_some(())?;
        let mut parameters = BTreeMap::new();
        for part in split_outside_quotes(rest, b',') {
            let part = std::str::from_utf8(part).ok()?;
            let Some((name, value)) = part.split_once('=') else { continue };
            parameters.entry(name.trim().to_ascii_lowercase()).or_insert_with(|| unquoted(value.trim()));
        }
        let mut take = |name: &str| parameters.remove(name);
        let algorithm = take("algorithm").map_or(Some(Algorithm::Md5), |name| Algorithm::parse(&name));
        let count = take("nc").filter(|count| count.len() == 8)?;
        take("qop").filter(|qop| qop.eq_ignore_ascii_case("auth"))?;
        Some(Self {
            username: take("username")?,
            realm: take("realm")?,
            nonce: take("nonce")?,
            uri: take("uri")?,
            response: take("response")?,
            algorithm: algorithm.filter(|algorithm| OFFERED.contains(algorithm))?,
            cnonce: take("cnonce")?,
            count: u32::from_str_radix(&count, 16).ok()?,
        })
    }

    fn is_by(&self, username: &str, password: &str, method: &str) -> bool {
        let challenge = Challenge {
            realm: self.realm.clone(),
            nonce: self.nonce.clone(),
            opaque: None,
            algorithm: self.algorithm,
            qop_auth: true,
            stale: false,
            from_proxy: false,
        };
        let credentials = Credentials::new(username, password);
        let right = respond(&challenge, &credentials, method, &self.uri, self.count, &self.cnonce);
        let right = split_outside_quotes(right.as_bytes(), b',').into_iter().find_map(|part| {
            let part = std::str::from_utf8(part).ok()?.trim().strip_prefix("response=")?;
            Some(unquoted(part))
        });
        let said = self.response.to_ascii_lowercase();
        right.is_some_and(|right| right.as_bytes().ct_eq(said.as_bytes()).into())
    }
}

/// The text of a quoted string; anything else as it is.
fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut out = String::with_capacity(inner.len());
    let mut escaped = false;
    for c in inner.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(c);
            escaped = false;
        }
    }
    out
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
