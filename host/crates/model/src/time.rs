//! Points in time. The one representation is microseconds since the Unix epoch, in memory and in both databases.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time: microseconds since the Unix epoch, UTC. Serialised as RFC 3339 text with microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This time moved forward; saturates at the end of the range.
    pub fn plus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// The time from `earlier` to this, zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The instant of a date and time in UTC.
    pub fn in_utc(civil: DateTime) -> Self {
        Self(i64::try_from(civil.duration_since(EPOCH).as_micros()).unwrap_or(i64::MAX))
    }

    /// The date and time in UTC. The range is that of the calendar, years −9999 to 9999, which Airflow's is part of.
    pub(crate) fn civil(self) -> DateTime {
        let limit = if self.0 < 0 { DateTime::MIN } else { DateTime::MAX };
        EPOCH.checked_add(SignedDuration::from_micros(self.0)).unwrap_or(limit)
    }
}

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Reads a date, a time and an offset.
///
/// An instant of `jiff` ends with 9999-12-30T22:00:00Z, so that any offset leaves it within the calendar; people write the end of
/// the last day for "never".
fn parse(text: &str) -> Option<Timestamp> {
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp(instant.as_microsecond()));
    }
    let pieces = Pieces::parse(text).ok()?;
    let offset = pieces.to_numeric_offset()?;
    let here = pieces.date().to_datetime(pieces.time()?);
    let utc = here
        .checked_sub(SignedDuration::from_secs(offset.seconds().into()))
        .ok()?;
    Some(Timestamp::in_utc(utc))
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}Z", self.civil())
    }
}

/// The text is not an RFC 3339 instant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an RFC 3339 date and time with an offset, such as 2026-01-31T04:00:00Z")]
pub struct ParseTimestampError {
    text: String,
}

impl std::str::FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseTimestampError {
            text: text.chars().take(64).collect(),
        })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where the time comes from. The system clock lives in the binary; tests and simulation bring their own.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_through_text() {
        let time: Timestamp = "2026-01-31T04:05:06.789012Z".parse().unwrap();
        assert_eq!(time.to_string(), "2026-01-31T04:05:06.789012Z");
        assert_eq!(
            time.plus(Duration::from_micros(1)).since(time),
            Duration::from_micros(1)
        );
        assert_eq!(time.since(time.plus(Duration::from_secs(1))), Duration::ZERO);
    }

    #[test]
    fn the_last_day_of_the_calendar_is_a_date() {
        for (text, shown) in [
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000000Z"),
            ("9999-12-31T23:59:59.999999+00:00", "9999-12-31T23:59:59.999999Z"),
            ("9999-12-31T23:59:59+02:00", "9999-12-31T21:59:59.000000Z"),
            ("9999-12-30T22:00:00Z", "9999-12-30T22:00:00.000000Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
        ] {
            let time: Timestamp = text.parse().unwrap();
            assert_eq!(time.to_string(), shown);
            assert_eq!(shown.parse(), Ok(time));
            let json = serde_json::to_string(&time).unwrap();
            assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), time);
        }
        let last: Timestamp = "9999-12-31T23:59:59Z".parse().unwrap();
        let day_before: Timestamp = "9999-12-30T23:59:59Z".parse().unwrap();
        assert_eq!(last.since(day_before), Duration::from_secs(86_400));
        assert!("9999-12-30T21:00:00Z".parse::<Timestamp>().unwrap() < day_before);
        for text in [
            "9999-12-31T23:59:59-01:00",
            "10000-01-01T00:00:00Z",
            "9999-12-31T23:59:59",
            "9999-12-31",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
        assert_eq!(Timestamp(i64::MAX).to_string(), "9999-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp(-1).to_string(), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn refuses_text_without_an_offset() {
        assert!("2026-01-31T04:05:06".parse::<Timestamp>().is_err());
    }
}
