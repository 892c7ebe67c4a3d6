//! Where a table is cut: after rows that their own keys choose.
//!
//! A map's rows lie in the order of their keys' text. After a row whose key's hash ends in [`PartName::zero_bits`] zero
//! bits, one in D = 2^bits, a section ends; a section is one slice. So the slices depend on what is in the table and not on how
//! it came there, and
//! - another value makes one slice anew,
//! - a key that comes makes its slice anew, or ends it and so makes two of it; a key that goes, the other way round,
//! - growth elsewhere changes nothing, whatever the size,
//! - keys that follow each other, as when numbers are created in blocks, go into one slice or two.
//!
//! The lengths of sections are spread geometrically around D, and a long section holds more rows: a row chosen at random
//! lies in one of about 2 D rows. To change it writes twice the bytes of an average slice.
//!
//! A section of several rows that is larger than [`LIMIT_BYTES`] is cut again, after rows whose hashes end in one zero bit
//! less; what of it is still too large, after those with two less, and so on: with none left, every row is a slice. With
//! entries of the usual size one slice in thousands is cut so. It is as well defined as the rest, but depends on sizes: a
//! value that lifts its section over the limit makes all slices of that section anew.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::LIMIT_BYTES;

/// The part of a table that a slice belongs to: one of the table's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum PartName {
    Assistants,
    Destinations,
    Numbers,
    Trunks,
}

impl PartName {
    /// The map's name in a slice's content.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Assistants => "assistants",
            Self::Destinations => "destinations",
            Self::Numbers => "numbers",
            Self::Trunks => "trunks",
        }
    }

    /// A slice ends after a row whose key's hash ends in so many zero bits, so that it has 2^bits rows on average: 24 to
    /// 32 KiB at the size that entries usually have. Part of the format: with other bits every slice is another.
    const fn zero_bits(self) -> u32 {
        match self {
            Self::Assistants => 6,   // 64 of about 450 bytes, with five destinations
            Self::Destinations => 7, // 128 of about 220 bytes
            Self::Numbers => 8,      // 256 of about 110 bytes
            Self::Trunks => 7,       // 128 of about 230 bytes
        }
    }

    /// The pieces of the canonical JSON of a slice with these rows, each with its comma.
    pub(super) fn content_text(self, rows: &[u8]) -> [&[u8]; 5] {
        [br#"{""#, self.as_str().as_bytes(), br#"":{"#, rows.strip_suffix(b",").unwrap_or(rows), b"}}"]
    }

    /// The length of that JSON.
    fn content_bytes(self, rows: usize) -> usize {
        r#"{"":{}}"#.len() + self.as_str().len() + rows - ",".len()
    }

    /// Whether a section ends after the row of this key.
    pub(super) fn ends_after(self, key: &str) -> bool {
        zero_bits(key) >= self.zero_bits()
    }

    /// How many rows each slice holds, of rows that follow each other and begin where a section begins.
    pub(super) fn lengths(self, rows: &[Measure]) -> Vec<usize> {
        let mut lengths = Vec::new();
        self.divide(rows, self.zero_bits(), &mut lengths);
        lengths
    }

    fn divide(self, rows: &[Measure], bits: u32, lengths: &mut Vec<usize>) {
        for section in rows.split_inclusive(|row| row.zero_bits >= bits) {
            let bytes = section.iter().map(|row| row.bytes).sum();
            if section.len() == 1 || self.content_bytes(bytes) <= LIMIT_BYTES {
                lengths.push(section.len());
            } else {
                // Bits are left: with none, every row is a section.
                self.divide(section, bits - 1, lengths);
            }
        }
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What cutting needs to know of a row.
pub(super) struct Measure {
    zero_bits: u32,
    /// What the row adds to its slice, with a comma.
    pub(super) bytes: usize,
}

impl Measure {
    pub(super) fn new(key: &str, bytes: usize) -> Self {
        Self { zero_bits: zero_bits(key), bytes }
    }
}

/// How many zero bits the key's hash ends in. The same on every replica and in every version: the keys of SipHash are part
/// of the format.
fn zero_bits(key: &str) -> u32 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(key.as_bytes());
    hasher.finish().trailing_zeros()
}
