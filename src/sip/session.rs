//! Session timers (RFC 4028): how long a session lasts unless it is refreshed, and who refreshes it.
//!
//! No audio passes through us. A peer that lost its power would never be missed but for this.

use std::time::Duration;

use sipx_sip::Headers;
use sipx_sip::session::{MinSe, OPTION_TAG, Refresher, SessionExpires};

use super::read;
use super::wire::Lines;

/// The shortest interval that anybody may ask for, in seconds (RFC 4028 §5).
const FLOOR: u32 = 90;
/// The longest that is believed, in seconds: a day.
const CEILING: u32 = 86_400;
/// How long before the end of a session that nobody refreshed BYE is sent, at most (RFC 4028 §10).
const EARLY: Duration = Duration::from_secs(32);

/// What we want of a leg's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionPolicy {
    /// The shortest interval that we accept, in seconds (Min-SE); below 90 it counts as 90.
    pub min: u32,
    /// The interval that we ask for, in seconds; absent: none, but a peer may have one.
    pub ask: Option<u32>,
}

impl Default for SessionPolicy {
    fn default() -> Self {
        Self { min: FLOOR, ask: None }
    }
}

/// An interval that a peer asked for and that we don't accept: 422 with this Min-SE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall(pub u32);

/// What a peer's INVITE or UPDATE says of the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// It knows session timers.
    pub knows: bool,
    /// The interval in seconds. It may be a proxy's that put it there for a peer who knows nothing of it.
    pub interval: Option<u32>,
    /// The shortest interval that everybody on the way accepts, in seconds.
    pub min: u32,
    /// Who shall refresh: the sender or we.
    pub refresher: Option<Refresher>,
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The session ends after so many seconds without a refresh.
    pub interval: u32,
    /// Whether we refresh it.
    pub we_refresh: bool,
}

impl Asked {
    /// Reads a request's headers. One that can't be read counts as absent.
    pub fn of(headers: &Headers) -> Self {
        let expires = expires(headers);
        Self {
            knows: read::supports(headers, OPTION_TAG),
            interval: expires.map(|expires| seconds(expires.interval)),
            min: min_se(headers).unwrap_or(0),
            refresher: expires.and_then(|expires| expires.refresher),
        }
    }
}

impl Agreed {
    /// What the 2xx to a request of ours says; `None` when the peer has no timers (RFC 4028 §7.2).
    pub fn of(headers: &Headers) -> Option<Self> {
        let expires = expires(headers)?;
        // A peer that names nobody leaves it to us: a session that both leave to the other would end.
        let we_refresh = expires.refresher != Some(Refresher::Uas);
        Some(Self { interval: seconds(expires.interval).max(FLOOR), we_refresh })
    }

    /// When a refresh is due, counted from the last one (RFC 4028 §7.2).
    pub fn refresh_after(self) -> Duration {
        Duration::from_secs(u64::from(self.interval)) / 2
    }

    /// When a session that was not refreshed is ended (RFC 4028 §10).
    pub fn ends_after(self) -> Duration {
        let interval = Duration::from_secs(u64::from(self.interval));
        interval - EARLY.min(interval / 3)
    }

    /// The headers of our 2xx that tell the peer (RFC 4028 §9).
    pub fn headers(self, asked: Asked) -> Vec<(&'static str, String)> {
        let refresher = if self.we_refresh { "uas" } else { "uac" };
        let mut headers = vec![("Session-Expires", format!("{};refresher={refresher}", self.interval))];
        if asked.knows {
            headers.push(("Require", OPTION_TAG.to_owned()));
        }
        headers
    }
}

impl SessionPolicy {
    /// The shortest interval that we accept, in seconds.
    pub fn floor(self) -> u32 {
        self.min.clamp(FLOOR, CEILING)
    }

    /// What we answer to a request (RFC 4028 §9). A peer that knows no timers can't be told that its proxy's interval is too
    /// small, and is not expected to refresh. Where the choice is ours we refresh: who does so learns first that a peer is
    /// gone.
    pub fn answer(self, asked: Asked) -> Result<Option<Agreed>, TooSmall> {
        let floor = self.floor();
        let ask = self.ask.map(|ask| ask.max(asked.min).max(floor));
        let interval = match asked.interval {
            Some(wanted) if wanted < floor && asked.knows => return Err(TooSmall(floor)),
            // It may be made smaller, never larger.
            Some(wanted) => Some(ask.map_or(wanted, |ask| wanted.min(ask)).max(FLOOR)),
            None => ask.filter(|_| asked.knows),
        };
        let we_refresh = !(asked.knows && asked.refresher == Some(Refresher::Uac));
        Ok(interval.map(|interval| Agreed { interval, we_refresh }))
    }

    /// The headers of an INVITE or UPDATE of ours (RFC 4028 §7.1, §7.4): `agreed` is what holds in its dialog, `heard` the
    /// largest Min-SE of a peer's 422, in seconds. The first INVITE leaves it to the peer who refreshes.
    pub fn request(self, agreed: Option<Agreed>, heard: u32) -> Lines {
        let Some(interval) = agreed.map(|agreed| agreed.interval).or(self.ask) else {
            return Lines::default();
        };
        let min = self.floor().max(heard);
        let refresher = match agreed.map(|agreed| agreed.we_refresh) {
            None => "",
            Some(true) => ";refresher=uac",
            Some(false) => ";refresher=uas",
        };
        let expires = ("Session-Expires", format!("{}{refresher}", interval.max(min)));
        let min = (min > FLOOR).then(|| ("Min-SE", min.to_string()));
        Lines::collect(std::iter::once(expires).chain(min))
    }
}

/// The Min-SE of a message, in seconds.
pub fn min_se(headers: &Headers) -> Option<u32> {
    Some(seconds(headers.typed::<MinSe>()?.ok()?.0))
}

fn expires(headers: &Headers) -> Option<SessionExpires> {
    headers.typed::<SessionExpires>()?.ok()
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(CEILING).min(CEILING)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKS: SessionPolicy = SessionPolicy { min: 120, ask: Some(1800) };

    fn asked(knows: bool, interval: Option<u32>, refresher: Option<Refresher>) -> Asked {
        Asked { knows, interval, min: 0, refresher }
    }

    fn agreed(interval: u32, we_refresh: bool) -> Option<Agreed> {
        Some(Agreed { interval, we_refresh })
    }

    #[test]
    fn the_answer_follows_the_table_of_the_rfc() {
        let (uac, uas) = (Some(Refresher::Uac), Some(Refresher::Uas));
        for (knows, interval, refresher, answer) in [
            (false, None, None, Ok(None)),
            (true, None, None, Ok(agreed(1800, true))),
            (true, Some(600), None, Ok(agreed(600, true))),
            (true, Some(600), uac, Ok(agreed(600, false))),
            (true, Some(600), uas, Ok(agreed(600, true))),
            (true, Some(3600), uac, Ok(agreed(1800, false))),
            (true, Some(119), uac, Err(TooSmall(120))),
            (false, Some(600), None, Ok(agreed(600, true))),
            (false, Some(600), uac, Ok(agreed(600, true))),
            (false, Some(100), None, Ok(agreed(100, true))),
        ] {
            assert_eq!(
                ASKS.answer(asked(knows, interval, refresher)),
                answer,
                "{knows} {interval:?} {refresher:?}"
            );
        }
    }

    #[test]
    fn who_asks_for_nothing_takes_what_the_peer_asks_for() {
        let policy = SessionPolicy::default();
        assert_eq!(policy.answer(asked(true, None, None)), Ok(None));
        assert_eq!(policy.answer(asked(true, Some(7200), None)), Ok(agreed(7200, true)));
        assert_eq!(policy.answer(asked(true, Some(60), None)), Err(TooSmall(90)));
    }

    #[test]
    fn an_interval_is_not_made_smaller_than_what_is_accepted_on_the_way() {
        let policy = SessionPolicy { min: 90, ask: Some(300) };
        let asked = Asked { min: 900, ..asked(true, Some(3600), None) };
        assert_eq!(policy.answer(asked), Ok(agreed(900, true)));
    }

    #[test]
    fn a_session_that_is_not_refreshed_ends_a_little_early() {
        let of = |interval| Agreed { interval, we_refresh: false }.ends_after().as_secs();
        assert_eq!((of(1800), of(90)), (1768, 60));
    }
}
