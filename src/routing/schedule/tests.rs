use proptest::prelude::*;

use super::*;

/// `Mon-Fri 09:00-17:30, Sat 10:00-12:00` in a zone.
fn schedule(zone: &str, hours: &str) -> Schedule {
    let position = |day: &str| DAYS.iter().position(|known| *known == day).unwrap();
    let open = hours.split(", ").flat_map(|hours| {
        let (days, times) = hours.split_once(' ').unwrap();
        let (first, last) = days.split_once('-').unwrap_or((days, days));
        let (from, to) = times.split_once('-').unwrap();
        (position(first)..=position(last)).map(move |day| Hours::new(day, from, to).unwrap())
    });
    Schedule::new(zone.parse().unwrap(), open.collect())
}

fn office() -> Schedule {
    schedule("Europe/Amsterdam", "Mon-Fri 09:00-17:30")
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// When it opens, as people are told; nothing when it is open.
fn told(schedule: &Schedule, now: &str) -> String {
    match schedule.at(at(now)) {
        State::Open => "open".into(),
        State::Closed(Some(opening)) => opening.to_string(),
        State::Closed(None) => "never".into(),
    }
}

#[test]
fn hours_begin_with_their_first_minute_and_end_before_their_last() {
    // Winter: Amsterdam is an hour ahead of UTC. 2026-01-05 is a Monday.
    for (now, open) in [
        ("2026-01-05T07:59:59Z", false),
        ("2026-01-05T08:00:00Z", true),
        ("2026-01-05T16:29:59Z", true),
        ("2026-01-05T16:30:00Z", false),
        ("2026-01-10T12:00:00Z", false),
    ] {
        assert_eq!(office().at(at(now)) == State::Open, open, "{now}");
    }
}

#[test]
fn who_is_closed_says_when_it_opens_on_its_own_clock() {
    for (now, opens) in [
        ("2026-01-05T05:00:00Z", "Monday 5 January 2026 at 09:00 in Europe/Amsterdam"),
        ("2026-01-05T17:00:00Z", "Tuesday 6 January 2026 at 09:00 in Europe/Amsterdam"),
        ("2026-01-09T17:00:00Z", "Monday 12 January 2026 at 09:00 in Europe/Amsterdam"),
    ] {
        assert_eq!(told(&office(), now), opens, "{now}");
    }
    let State::Closed(Some(opening)) = office().at(at("2026-01-05T07:59:00Z")) else { panic!("open") };
    assert_eq!(opening.seconds_after(at("2026-01-05T07:59:00Z")), 60);
}

#[test]
fn opening_hours_follow_daylight_saving() {
    // On 2026-03-29 Amsterdam went from UTC+1 to UTC+2, on 2026-10-25 back.
    for (now, open) in [
        ("2026-03-27T07:30:00Z", false),
        ("2026-03-30T07:30:00Z", true),
        ("2026-10-23T07:30:00Z", true),
        ("2026-10-26T07:30:00Z", false),
        ("2026-10-26T08:00:00Z", true),
    ] {
        assert_eq!(office().at(at(now)) == State::Open, open, "{now}");
    }
    assert_eq!(told(&office(), "2026-03-28T12:00:00Z"), "Monday 30 March 2026 at 09:00 in Europe/Amsterdam");
}

#[test]
fn hours_that_begin_in_a_time_that_is_skipped_begin_after_it() {
    // 02:00 to 03:00 does not exist on that Sunday.
    let night = schedule("Europe/Amsterdam", "Sun 02:30-04:00");
    assert_eq!(told(&night, "2026-03-29T00:59:59Z"), "Sunday 29 March 2026 at 03:00 in Europe/Amsterdam");
    assert_eq!(told(&night, "2026-03-29T01:00:00Z"), "open");
    let gone = schedule("Europe/Amsterdam", "Sun 02:15-02:45");
    assert_eq!(told(&gone, "2026-03-29T00:00:00Z"), "Sunday 5 April 2026 at 02:15 in Europe/Amsterdam");
}

#[test]
fn hours_in_a_time_that_comes_twice_are_open_both_times() {
    let night = schedule("Europe/Amsterdam", "Sun 02:30-03:00");
    // 02:00 to 03:00 comes at 00:00 UTC and again at 01:00 UTC.
    for (now, says) in [
        ("2026-10-25T00:30:00Z", "open"),
        ("2026-10-25T01:00:00Z", "Sunday 25 October 2026 at 02:30 in Europe/Amsterdam"),
        ("2026-10-25T01:30:00Z", "open"),
        ("2026-10-25T02:00:00Z", "Sunday 1 November 2026 at 02:30 in Europe/Amsterdam"),
    ] {
        assert_eq!(told(&night, now), says, "{now}");
    }
}

#[test]
fn a_change_of_the_clock_that_opens_it_later_is_not_told_instead_of_the_next_opening() {
    // Sunday's hours begin in the time that is skipped; before it comes Saturday.
    let weekend = schedule("Europe/Amsterdam", "Sat 09:00-10:00, Sun 02:30-04:00");
    assert_eq!(told(&weekend, "2026-03-27T12:00:00Z"), "Saturday 28 March 2026 at 09:00 in Europe/Amsterdam");
}

#[test]
fn hours_that_touch_are_one() {
    let open = schedule("UTC", "Mon 18:00-24:00, Tue 00:00-06:00, Mon 20:00-22:00, Sun 23:00-24:00");
    let written = serde_json::to_value(&open).unwrap();
    let expected = serde_json::json!({
        "timeZone": "UTC",
        "open": [{"from": "Mon 18:00", "to": "Tue 06:00"}, {"from": "Sun 23:00", "to": "Sun 24:00"}],
    });
    assert_eq!(written, expected);
    assert_eq!(serde_json::from_value::<Schedule>(written).unwrap(), open);
}

#[test]
fn a_zone_that_is_not_known_is_refused() {
    for name in ["Europe/Atlantis", "europe/amsterdam", "", "+01:00", "Etc/Unknown", "../etc/passwd"] {
        assert!(name.parse::<Zone>().is_err(), "{name}");
    }
    for name in ["Europe/Amsterdam", "UTC", "America/Argentina/Buenos_Aires", "Asia/Kolkata"] {
        assert_eq!(String::from(name.parse::<Zone>().unwrap()), name);
    }
}

#[test]
fn a_time_that_is_none_is_refused() {
    for text in ["", "9:00", "09:60", "24:01", "25:00", "09:00:00", "-1:00", "٠٩:٠٠"] {
        assert!(Minute::parse(0, text).is_err(), "{text}");
    }
    assert!(Hours::new(0, "17:00", "09:00").is_err());
    for text in ["Monday 09:00", "Mon", "Mon 9:00", ""] {
        assert!(Minute::try_from(text.to_owned()).is_err(), "{text}");
    }
}

#[test]
fn a_day_that_a_zone_leaves_out_is_not_waited_for() {
    // Samoa had no Friday 30 December 2011.
    let friday = schedule("Pacific/Apia", "Fri 09:00-10:00");
    assert_eq!(told(&friday, "2011-12-29T12:00:00Z"), "Friday 6 January 2012 at 09:00 in Pacific/Apia");
}

fn zones() -> impl Strategy<Value = &'static str> {
    // Whole and half hours of daylight saving, both hemispheres, a zone that stops for Ramadan, and the date line.
    prop::sample::select(vec![
        "Europe/Amsterdam",
        "America/New_York",
        "Australia/Lord_Howe",
        "Africa/Casablanca",
        "Pacific/Apia",
        "UTC",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_opens_exactly_when_a_walk_from_minute_to_minute_finds_it_open(
        zone in zones(),
        hours in prop::collection::vec((0..7usize, 0..24u16, 0..4u16, 1..600u16), 1..4),
        // The years around Samoa's missing day and those with today's rules, by the hour.
        hour in prop_oneof![367_000..369_000i64, 490_000..510_000i64],
    ) {
        let hours = hours.into_iter().map(|(day, hour, quarter, length)| {
            let from = hour * 60 + quarter * 15;
            let to = (from + length).min(MINUTES_OF_DAY);
            let text = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
            Hours::new(day, &text(from), &text(to)).unwrap()
        });
        let schedule = Schedule::new(zone.parse().unwrap(), hours.collect());
        let now = Timestamp::from_second(hour * 3600).unwrap();
        let walk = (0..15 * i64::from(MINUTES_OF_DAY))
            .map(|minute| Timestamp::from_second(hour * 3600 + minute * 60).unwrap())
            .find(|at| schedule.is_open(*at));
        let found = match schedule.at(now) {
            State::Open => Some(now),
            State::Closed(opening) => opening.map(|opening| opening.0.timestamp()),
        };
        prop_assert_eq!(found, walk);
    }
}
