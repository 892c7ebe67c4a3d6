//! Called numbers as trunks write them → E.164.
//!
//! What can't be read with certainty is `None`: a call that is refused can be put right, one that reaches the wrong
//! assistant can't.

use std::borrow::Cow;

use super::table::{E164, NumberFormatEntry};

/// Country codes whose national numbers keep their leading 0 in E.164 (Italy, Ivory Coast, Congo): there is no trunk
/// prefix that would have to go.
const ZERO_IS_PART_OF_THE_NUMBER: [&str; 3] = ["39", "225", "242"];

/// Reads the user part of a Request-URI (`+31201234567`, `0031 20 123 4567`, `tel:+31-20-123-4567;phone-context=…`).
///
/// A leading `tel:`, parameters after `;` and visual separators (RFC 3966 §5.1.1, and spaces and slashes) are dropped.
/// `+…` and `00…` are international in both formats. Otherwise [`NumberFormatEntry::E164`] takes the digits for E.164
/// whose `+` is missing; [`NumberFormatEntry::National`] drops the trunk prefix 0, if there is one, and puts the country
/// code in front. Country code 1 is written with a leading 1 by its users: there `1` and ten digits are international.
/// Trunk prefixes other than 0 (Russia's 8, Hungary's 06) are not known: such a trunk has to send E.164.
pub fn normalise(format: &NumberFormatEntry, raw: &str) -> Option<E164> {
    let digits = strip(raw)?;
    let international = digits.strip_prefix('+').or_else(|| digits.strip_prefix("00"));
    match (international, format) {
        (Some(international), _) => E164::of_digits("", international),
        (None, NumberFormatEntry::E164) => E164::of_digits("", &digits),
        (None, NumberFormatEntry::National { country_code }) => national(country_code, &digits),
    }
}

fn national(country_code: &str, digits: &str) -> Option<E164> {
    if country_code == "1" && digits.len() == 11 && digits.starts_with('1') {
        return E164::of_digits("", digits);
    }
    let keeps_zero = ZERO_IS_PART_OF_THE_NUMBER.contains(&country_code);
    let significant = if keeps_zero { digits } else { digits.strip_prefix('0').unwrap_or(digits) };
    E164::of_digits(country_code, significant)
}

/// Digits with at most a leading `+`; `None` if there is anything else but separators, or no digit at all.
fn strip(raw: &str) -> Option<Cow<'_, str>> {
    let raw = match raw.split_at_checked(4) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("tel:") => rest,
        _ => raw,
    };
    let number = raw.split(';').next().unwrap_or_default();
    let digits = number.strip_prefix('+').unwrap_or(number);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Cow::Borrowed(number));
    }
    let mut stripped = String::with_capacity(number.len());
    for character in number.chars() {
        match character {
            '0'..='9' => stripped.push(character),
            '+' if stripped.is_empty() => stripped.push('+'),
            '-' | '.' | '(' | ')' | ' ' | '/' => {}
            _ => return None,
        }
    }
    stripped.ends_with(|last: char| last.is_ascii_digit()).then_some(Cow::Owned(stripped))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(country_code: Option<&str>, raw: &str) -> Option<String> {
        let format = match country_code {
            Some(code) => NumberFormatEntry::National { country_code: code.into() },
            None => NumberFormatEntry::E164,
        };
        normalise(&format, raw).map(String::from)
    }

    fn is(country_code: Option<&str>, raw: &str, expected: &str) {
        assert_eq!(read(country_code, raw).as_deref(), Some(expected), "{raw} with {country_code:?}");
    }

    #[test]
    fn e164_is_read_with_and_without_its_plus_and_with_00() {
        for raw in ["+31201234567", "31201234567", "0031201234567"] {
            is(None, raw, "+31201234567");
        }
    }

    #[test]
    fn separators_parameters_and_tel_are_dropped() {
        for raw in
            ["+31-20-123.45 67", "tel:+31(20)1234567", "TEL:+31201234567;phone-context=x", "+31 20/1234567"]
        {
            is(None, raw, "+31201234567");
        }
    }

    #[test]
    fn national_numbers_get_their_country_code() {
        for raw in ["0201234567", "020-1234567", "201234567", "0031201234567", "+31201234567"] {
            is(Some("31"), raw, "+31201234567");
        }
        is(Some("44"), "02079460000", "+442079460000");
        is(Some("1"), "2125550123", "+12125550123");
        is(Some("1"), "12125550123", "+12125550123");
    }

    #[test]
    fn countries_whose_numbers_begin_with_0_keep_it() {
        is(Some("39"), "0612345678", "+390612345678");
        is(Some("225"), "0712345678", "+2250712345678");
    }

    #[test]
    fn foreign_numbers_pass_a_national_trunk() {
        is(Some("31"), "004930123456", "+4930123456");
        is(Some("31"), "+4930123456", "+4930123456");
    }

    #[test]
    fn what_is_no_number_is_not_guessed_at() {
        let raws = [
            "",
            "+",
            "sales",
            "12a4567890",
            "+0201234567",
            "0201234567",
            "123",
            "+1234567890123456",
            "++31201234567",
        ];
        for raw in raws {
            assert_eq!(read(None, raw), None, "{raw}");
        }
        for raw in ["", "112", "0", "00", "000000000", "é31201234567", "*21#", "+31+201234567"] {
            assert_eq!(read(Some("31"), raw), None, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_read_is_read_again_alike(raw in ".{0,24}", code in "[1-9][0-9]{0,2}") {
            if let Some(number) = read(Some(&code), &raw) {
                prop_assert_eq!(read(Some(&code), &number), Some(number.clone()));
                prop_assert_eq!(read(None, &number), Some(number));
            }
        }
    }
}
