//! A phone number, as everything in the table writes it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

/// A phone number in E.164: `+` and 7 to 15 digits, the first not 0. Held in place: a copy costs no allocation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct E164 {
    /// Zeros after the last digit, so that the order is that of the texts.
    text: [u8; Self::LONGEST],
    length: u8,
}

impl E164 {
    const LONGEST: usize = 16;
    const SHORTEST: usize = 8;

    /// The number whose digits are `country_code` and then `rest`; `None` if that isn't one.
    pub fn of_digits(country_code: &str, rest: &str) -> Option<Self> {
        let length = 1 + country_code.len() + rest.len();
        if !(Self::SHORTEST..=Self::LONGEST).contains(&length) {
            return None;
        }
        let mut text = [0; Self::LONGEST];
        text[0] = b'+';
        text[1..=country_code.len()].copy_from_slice(country_code.as_bytes());
        text[1 + country_code.len()..length].copy_from_slice(rest.as_bytes());
        let valid = text[1] != b'0' && text[1..length].iter().all(u8::is_ascii_digit);
        valid.then_some(Self { text, length: length as u8 })
    }

    /// The number as an integer: no two have the same.
    pub fn digits(&self) -> u64 {
        let digits = &self.text[1..usize::from(self.length)];
        digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))
    }

    /// The number with its `+`.
    pub fn as_str(&self) -> &str {
        // Always text: a `+` and digits.
        std::str::from_utf8(&self.text[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E164({self})")
    }
}

impl Serialize for E164 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl From<E164> for String {
    fn from(number: E164) -> Self {
        number.as_str().to_owned()
    }
}

impl TryFrom<String> for E164 {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for E164 {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix('+').and_then(|digits| Self::of_digits(digits, ""));
        number.ok_or_else(|| format!("'{text}' is not E.164 such as +31201234567"))
    }
}
