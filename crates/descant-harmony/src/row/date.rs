//! A calendar date, for the template's "Current date".
//!
//! The date is part of every prompt, so a run that asked the clock would train on other tokens tomorrow. It is
//! therefore pinned, to the day that gpt-oss was released, and can be set per run or per row. This crate never asks the clock.

use crate::error::{Error, Result};
use std::fmt::{self, Write};
use std::str::FromStr;

/// A valid date of the Gregorian calendar, years 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

/// The date that prompts carry unless another is asked for: the release day of gpt-oss.
pub const PINNED_DATE: Date = Date { year: 2025, month: 8, day: 5 };

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl Date {
    /// A date, if there is such a day.
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let days = match month {
            2 => 28 + u8::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        ((1..=9999).contains(&year) && (1..=days).contains(&day)).then_some(Self { year, month, day })
    }

    /// The date in the few directives of `strftime` that date a prompt; `None` for any other directive.
    pub fn format(self, pattern: &str) -> Option<String> {
        let mut text = String::new();
        let mut chars = pattern.chars();
        while let Some(char) = chars.next() {
            if char != '%' {
                text.push(char);
                continue;
            }
            let month = MONTHS[usize::from(self.month) - 1];
            match chars.next()? {
                'Y' => digits(&mut text, self.year, 4),
                'm' => digits(&mut text, self.month.into(), 2),
                'd' => digits(&mut text, self.day.into(), 2),
                'B' => text.push_str(month),
                'b' => text.push_str(&month[..3]),
                '%' => text.push('%'),
                _ => return None,
            }
        }
        Some(text)
    }
}

fn digits(text: &mut String, number: u16, width: usize) {
    // Writing into a String cannot fail.
    let _ = write!(text, "{number:0width$}");
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl FromStr for Date {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let bytes = text.as_bytes();
            let shape = bytes.len() == 10
                && bytes.iter().enumerate().all(|(at, byte)| match at {
                    4 | 7 => *byte == b'-',
                    _ => byte.is_ascii_digit(),
                });
            if !shape {
                return None;
            }
            Self::new(text[..4].parse().ok()?, text[5..7].parse().ok()?, text[8..].parse().ok()?)
        };
        parse().ok_or_else(|| Error::Date { text: text.chars().take(40).collect() })
    }
}

impl serde::Serialize for Date {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Date {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_checked_and_round_trip() {
        for good in ["2025-08-05", "2024-02-29", "2000-02-29", "0001-01-01", "9999-12-31"] {
            assert_eq!(good.parse::<Date>().unwrap().to_string(), good);
        }
        let bad = [
            "",
            "2025-8-5",
            "2025-02-29",
            "1900-02-29",
            "2025-13-01",
            "0000-01-01",
            "2025-04-31",
            "2025-08-0é",
        ];
        for bad in bad.into_iter().chain(["+025-08-05", "2025/08/05", "2025-08-05 "]) {
            assert!(matches!(bad.parse::<Date>(), Err(Error::Date { .. })), "{bad}");
        }
    }

    #[test]
    fn unknown_directives_are_refused() {
        assert_eq!(PINNED_DATE.format("%d %B %Y, %b %m, 100%%").unwrap(), "05 August 2025, Aug 08, 100%");
        assert_eq!(PINNED_DATE.format("%H"), None);
        assert_eq!(PINNED_DATE.format("%"), None);
    }
}
