//! Answering digest challenges (RFC 3261 §22, RFC 7616, RFC 8760): which challenge is answered, and with what.
//!
//! Promises: nobody but the configured realm is answered; a refused password isn't tried again; nonce counts only grow.

use sipx_sip::auth::{Challenge, Credentials as SipxCredentials, respond};
use sipx_sip::{HeaderName, Headers};

use super::event::Credentials;
use super::via::split_outside_quotes;

/// The challenges of one leg that we can answer, and how often each nonce was used.
#[derive(Debug)]
pub struct Digest {
    credentials: Credentials,
    answered: Vec<Answered>,
}

#[derive(Debug)]
struct Answered {
    challenge: Challenge,
    /// Requests authorised with this nonce.
    count: u32,
    /// One of them was let through.
    proven: bool,
}

/// Why a challenge is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnswered {
    /// No challenge for the realm of the credentials with an algorithm that we know.
    #[error(
        "no challenge for the configured realm with a known algorithm; compare the trunk's realm with its credentials"
    )]
    NoChallenge,
    /// The same challenge again: the credentials are wrong.
    #[error("user name or password was refused; compare the credentials with the trunk's")]
    Refused,
}

impl Digest {
    /// With the credentials of one leg.
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, answered: Vec::new() }
    }

    /// Takes in the challenges of a 401 or 407 response. Of several for one realm the topmost with a known algorithm
    /// counts (RFC 8760 §2.4). A new nonce for a realm that was already answered means refusal, unless it says `stale` or
    /// the old one had been good before (nonces expire during long calls).
    pub fn take(&mut self, headers: &Headers) -> Result<(), NotAnswered> {
        let mut outcome = Err(NotAnswered::NoChallenge);
        let mut seen: Vec<(bool, String)> = Vec::new();
        for (name, from_proxy) in
            [(HeaderName::WwwAuthenticate, false), (HeaderName::ProxyAuthenticate, true)]
        {
            let rows: Vec<_> = headers.get_all(&name).map(|row| row.value().into_owned()).collect();
            for challenge in rows.iter().flat_map(|row| challenges(row, from_proxy)) {
                let ours = self.credentials.realm.as_ref().is_none_or(|realm| *realm == challenge.realm);
                let id = (from_proxy, challenge.realm.clone());
                if !ours || seen.contains(&id) {
                    continue;
                }
                seen.push(id);
                let known = self
                    .answered
                    .iter_mut()
                    .find(|a| a.challenge.from_proxy == from_proxy && a.challenge.realm == challenge.realm);
                match known {
                    Some(known)
                        if (challenge.stale || known.proven) && challenge.nonce != known.challenge.nonce =>
                    {
                        *known = Answered { challenge, count: 0, proven: false };
                    }
                    Some(_) => return Err(NotAnswered::Refused),
                    None => self.answered.push(Answered { challenge, count: 0, proven: false }),
                }
                outcome = Ok(());
            }
        }
        outcome
    }

    /// A request was let through: a challenge that comes later is a new one, not a refusal.
    pub fn accepted(&mut self) {
        for answered in &mut self.answered {
            answered.proven = answered.count > 0;
        }
    }

    /// The headers that authorise a request, for every realm that has challenged so far.
    pub fn headers(&mut self, method: &str, uri: &str, cnonce: &str) -> Vec<(&'static str, String)> {
        let credentials =
            SipxCredentials::new(self.credentials.username.clone(), self.credentials.password.clone());
        self.answered
            .iter_mut()
            .map(|answered| {
                answered.count += 1;
                let name =
                    if answered.challenge.from_proxy { "Proxy-Authorization" } else { "Authorization" };
                let count = answered.count;
                (name, respond(&answered.challenge, &credentials, method, uri, count, cnonce))
            })
            .collect()
    }
}

/// The digest challenges of one header row. Several in a row, separated by commas, are rare but legal.
fn challenges(row: &[u8], from_proxy: bool) -> Vec<Challenge> {
    let starts_challenge = |part: &[u8]| {
        let part = part.trim_ascii_start();
        let scheme = part.split(|b| b.is_ascii_whitespace()).next().unwrap_or_default();
        scheme.len() < part.len() && !scheme.contains(&b'=')
    };
    let mut rows: Vec<Vec<u8>> = Vec::new();
    for part in split_outside_quotes(row, b',') {
        match rows.last_mut() {
            Some(last) if !starts_challenge(part) => {
                last.push(b',');
                last.extend_from_slice(part);
            }
            _ => rows.push(part.to_vec()),
        }
    }
    rows.iter().filter_map(|row| Challenge::parse(row, from_proxy)).collect()
}
