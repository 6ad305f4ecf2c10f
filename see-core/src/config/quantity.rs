//! Durations and sizes as people write them.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Visitor};

use super::failure::shortened;

/// A length of time: `"90s"`, `"5m"`, `"1h30m"`, `"250ms"`; a bare number is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurationValue(pub Duration);

/// A number of bytes: `"256MiB"`, `"4GiB"`, `"10MB"`; a bare number is bytes.
///
/// `KiB`, `MiB`, `GiB` and `TiB` are powers of 1024; `kB`, `MB`, `GB` and `TB` of 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

const DURATION: &str = "a duration such as \"90s\", \"5m\", \"1h30m\" or a number of seconds";
const SIZE: &str = "a size such as \"256MiB\", \"4GiB\", \"10MB\" or a number of bytes";

/// Longest first: a prefix of another unit must come after it.
const TIME_UNITS: [(&str, f64); 6] = [
    ("ms", 1e-3),
    ("us", 1e-6),
    ("d", 86400.0),
    ("h", 3600.0),
    ("m", 60.0),
    ("s", 1.0),
];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

impl DurationValue {
    /// Reads the written form, or a bare number of seconds; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some((number, "")) = split_number(text) {
            return Self::from_seconds(number);
        }
        let mut rest = text;
        let mut seconds = 0.0;
        // Each unit once, and a greater one never after a smaller one.
        let mut above = f64::INFINITY;
        while !rest.is_empty() {
            let (number, after) = split_number(rest)?;
            let (unit, factor) = TIME_UNITS
                .iter()
                .find(|(unit, _)| after.starts_with(unit))?;
            if *factor >= above {
                return None;
            }
            above = *factor;
            seconds += number * factor;
            rest = &after[unit.len()..];
        }
        if above.is_infinite() {
            return None;
        }
        Self::from_seconds(seconds)
    }

    fn from_seconds(seconds: f64) -> Option<Self> {
        /// A century: what is longer is a slip, and would overflow deadlines.
        const LONGEST: f64 = 100.0 * 365.25 * 86400.0;
        if !(0.0..=LONGEST).contains(&seconds) {
            return None;
        }
        Duration::try_from_secs_f64(seconds).ok().map(Self)
    }
}

impl Size {
    /// Reads the written form, or a bare number of bytes; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
        let unit = unit.trim_start();
        let factor = if unit.is_empty() {
            1
        } else {
            SIZE_UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))?
                .1
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(Self);
        }
        let (number, "") = split_number(number)? else {
            return None;
        };
        let bytes = number * factor as f64;
        // Parts of a byte, and numbers that a double cannot hold exactly, are no sizes.
        let is_exact = bytes.fract() == 0.0 && bytes < (1_u64 << 53) as f64;
        is_exact.then_some(Self(bytes as u64))
    }
}

/// A plain decimal number at the start, and what follows it.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    if !number.starts_with(|c: char| c.is_ascii_digit()) || number.ends_with('.') {
        return None;
    }
    number.parse().ok().map(|number| (number, rest))
}

impl From<Duration> for DurationValue {
    fn from(value: Duration) -> Self {
        Self(value)
    }
}

impl From<u64> for Size {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl From<DurationValue> for Duration {
    fn from(value: DurationValue) -> Self {
        value.0
    }
}

impl From<Size> for u64 {
    fn from(value: Size) -> Self {
        value.0
    }
}

impl fmt::Display for DurationValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Display for Size {
    /// In the greatest binary unit that leaves no remainder.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZE_UNITS[..4]
            .iter()
            .rev()
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor));
        match unit {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for DurationValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Quantity {
            expected: DURATION,
            of_text: Self::parse,
            of_number: Self::from_seconds,
        })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Quantity {
            expected: SIZE,
            of_text: Self::parse,
            // A whole number does not come this way unless it fits no integer.
            of_number: |_| None,
        })
    }
}

struct Quantity<T> {
    expected: &'static str,
    of_text: fn(&str) -> Option<T>,
    of_number: fn(f64) -> Option<T>,
}

impl<T> Quantity<T> {
    fn checked<E: serde::de::Error>(
        &self,
        value: Option<T>,
        found: impl fmt::Display,
    ) -> Result<T, E> {
        value.ok_or_else(|| E::custom(format_args!("expected {}, found {found}", self.expected)))
    }
}

impl<T> Visitor<'_> for Quantity<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        let found = format!("\"{}\"", shortened(text));
        self.checked((self.of_text)(text), found)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        self.checked((self.of_text)(&number.to_string()), number)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        self.checked(None, number)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<T, E> {
        // The debug form of a double has an exponent where the other has a screen of zeros.
        self.checked((self.of_number)(number), format_args!("{number:?}"))
    }
}
