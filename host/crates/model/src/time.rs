//! Points in time. The one representation is microseconds since the Unix epoch, in memory and in both databases.

use std::fmt;
use std::time::Duration;

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

    fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.to_jiff())
    }
}

/// The text is not an RFC 3339 instant.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not an RFC 3339 date and time with an offset, such as 2026-01-31T04:00:00Z")]
pub struct ParseTimestampError {
    text: String,
}

impl std::str::FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let instant: jiff::Timestamp = text.parse().map_err(|_| ParseTimestampError {
            text: text.chars().take(64).collect(),
        })?;
        Ok(Self(instant.as_microsecond()))
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
    fn refuses_text_without_an_offset() {
        assert!("2026-01-31T04:05:06".parse::<Timestamp>().is_err());
    }
}
