//! When a destination is open: hours of the week as the clock on its wall shows them.
//!
//! Daylight saving follows from that. A time that a day skips (02:30 when clocks go from 02:00 to 03:00) doesn't come: hours
//! that begin then begin with the first moment after it. A time that comes twice is in the hours both times.
//!
//! Time zones are those of the database that is built in: what a schedule means depends on no file of a machine, and a zone
//! that this version doesn't know can't be in a table.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use jiff::civil::{Date, Time};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, Zoned};
use serde::{Deserialize, Serialize};

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

const MINUTES_OF_DAY: u16 = 24 * 60;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Days after today in which an opening is looked for: a week, the same day again, and another week in case that a zone
/// skips a whole day, as Samoa did when it moved across the date line.
const HORIZON_DAYS: u8 = 15;

/// When a destination is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    time_zone: Zone,
    /// Sorted; none touches another.
    open: Vec<Hours>,
}

/// Whether a destination is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is.
    Open,
    /// It isn't, and opens next then, if ever.
    Closed(Option<Opening>),
}

/// The moment in which a destination opens, on its own clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening(Zoned);

/// An IANA time zone that the built-in database has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Zone(TimeZone);

/// From a minute of the week to another, exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hours {
    from: Minute,
    to: Minute,
}

/// A minute of the week from Monday 00:00 on, written `Mon 09:00`. The end of the week is `Sun 24:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Minute(u16);

impl Schedule {
    /// Open in `time_zone` during `hours`, in any order; hours that overlap or touch are joined.
    pub fn new(time_zone: Zone, mut hours: Vec<Hours>) -> Self {
        hours.sort_unstable();
        let mut open: Vec<Hours> = Vec::new();
        for hours in hours {
            match open.last_mut() {
                Some(last) if hours.from <= last.to => last.to = last.to.max(hours.to),
                _ => open.push(hours),
            }
        }
        Self { time_zone, open }
    }

    /// Whether it is open at that moment, and if not, when it opens.
    pub fn at(&self, now: Timestamp) -> State {
        if self.is_open(now) { State::Open } else { State::Closed(self.opens_after(now)) }
    }

    fn is_open(&self, at: Timestamp) -> bool {
        let local = self.time_zone.0.to_datetime(at);
        let day = local.date().weekday().to_monday_zero_offset();
        let minute = Minute::new(usize::from(day.unsigned_abs()), local.time());
        self.open.iter().any(|hours| hours.from <= minute && minute < hours.to)
    }

    /// The first moment after `now` in which it is open, if it is closed now.
    fn opens_after(&self, now: Timestamp) -> Option<Opening> {
        let zone = &self.time_zone.0;
        let end = now.checked_add(SignedDuration::from_hours(24 * i64::from(HORIZON_DAYS))).ok()?;
        // It opens where hours begin, or with a change of the clock.
        let changes = zone.following(now).map(|change| change.timestamp()).take_while(|at| *at <= end);
        let with_a_change = changes.filter(|at| self.is_open(*at)).min();
        let days = std::iter::successors(Some(zone.to_datetime(now).date()), |day| day.tomorrow().ok());
        let begins = days
            .take(usize::from(HORIZON_DAYS))
            .find_map(|day| self.begins_on(day).filter(|at| *at > now && self.is_open(*at)).min());
        let opening = with_a_change.into_iter().chain(begins).min();
        opening.map(|at| Opening(at.to_zoned(zone.clone())))
    }

    /// The moments of a day in which hours begin: two when the clock shows that time twice.
    fn begins_on(&self, date: Date) -> impl Iterator<Item = Timestamp> {
        let day = usize::from(date.weekday().to_monday_zero_offset().unsigned_abs());
        let of_day = self.open.iter().filter(move |hours| hours.from.day() == day);
        of_day.flat_map(move |hours| {
            let moment = self.time_zone.0.to_ambiguous_timestamp(date.to_datetime(hours.from.time()));
            [moment.earlier(), moment.later()].into_iter().flatten()
        })
    }
}

impl Opening {
    /// Seconds until then.
    pub fn seconds_after(&self, now: Timestamp) -> u32 {
        let seconds = self.0.timestamp().as_second() - now.as_second();
        u32::try_from(seconds.max(1)).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.0.time_zone().iana_name().unwrap_or("UTC");
        write!(f, "{} in {zone}", self.0.strftime("%A %-d %B %Y at %H:%M"))
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let unknown = || format!("'{name}' is no time zone of the IANA database such as Europe/Amsterdam");
        let zone = ZONES.get(name).map_err(|_| unknown())?;
        // A name in other letters would be another text for the same zone.
        let exact = zone.iana_name() == Some(name) && !zone.is_unknown();
        if exact { Ok(Self(zone)) } else { Err(unknown()) }
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.0.iana_name().unwrap_or("UTC").to_owned()
    }
}

impl TryFrom<String> for Zone {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl Hours {
    /// From one time of a day (0 is Monday) to a later one; `HH:MM`, and `24:00` for the end of the day.
    pub fn new(day: usize, from: &str, to: &str) -> Result<Self, String> {
        let (from, to) = (Minute::parse(day, from)?, Minute::parse(day, to)?);
        if from < to {
            Ok(Self { from, to })
        } else {
            Err(format!(
                "hours from {from} to {to} end before they begin; write hours over midnight as two entries"
            ))
        }
    }
}

impl Minute {
    fn new(day: usize, time: Time) -> Self {
        let of_day = u16::from(time.hour().unsigned_abs()) * 60 + u16::from(time.minute().unsigned_abs());
        Self(of_day + u16::try_from(day).unwrap_or(0) * MINUTES_OF_DAY)
    }

    fn parse(day: usize, text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a time from 00:00 to 24:00");
        let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
        let digits = |text: &str| {
            let two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            two.then(|| text.parse::<u16>().ok()).flatten()
        };
        let (hour, minute) = digits(hour).zip(digits(minute)).ok_or_else(wrong)?;
        let of_day = hour * 60 + minute;
        if minute > 59 || of_day > MINUTES_OF_DAY || day >= DAYS.len() {
            return Err(wrong());
        }
        Ok(Self(of_day + u16::try_from(day).unwrap_or(0) * MINUTES_OF_DAY))
    }

    fn day(self) -> usize {
        usize::from(self.0 / MINUTES_OF_DAY)
    }

    fn time(self) -> Time {
        let of_day = self.0 % MINUTES_OF_DAY;
        let (hour, minute) = (i8::try_from(of_day / 60), i8::try_from(of_day % 60));
        Time::new(hour.unwrap_or(0), minute.unwrap_or(0), 0, 0).unwrap_or_default()
    }
}

impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut day, mut of_day) = (self.day(), self.0 % MINUTES_OF_DAY);
        if day == DAYS.len() {
            (day, of_day) = (day - 1, MINUTES_OF_DAY);
        }
        write!(f, "{} {:02}:{:02}", DAYS[day], of_day / 60, of_day % 60)
    }
}

impl From<Minute> for String {
    fn from(minute: Minute) -> Self {
        minute.to_string()
    }
}

impl TryFrom<String> for Minute {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (day, time) = text.split_once(' ').unwrap_or_default();
        match DAYS.iter().position(|known| *known == day) {
            Some(day) => Self::parse(day, time),
            None => Err(format!("'{text}' is not a minute of the week such as 'Mon 09:00'")),
        }
    }
}

#[cfg(test)]
mod tests;
