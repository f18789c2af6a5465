//! Durations, sizes, times and digests, short enough for a table.

use std::time::Duration;

use model::Timestamp;

/// `1.2 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {name}")
    }
}

/// `850µs`, `12ms`, `3.4s`, `5m07s`, `2h03m`.
pub(crate) fn duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let seconds = duration.as_secs();
    if micros < 1_000 {
        format!("{micros}µs")
    } else if micros < 1_000_000 {
        format!("{}ms", micros / 1_000)
    } else if seconds < 60 {
        format!("{:.1}s", duration.as_secs_f64())
    } else if seconds < 3_600 {
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    } else {
        format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60)
    }
}

/// `sha256:` and the first twelve digits.
pub(crate) fn digest(text: &str) -> String {
    match text.strip_prefix("sha256:").and_then(|hex| hex.get(..12)) {
        Some(start) => format!("sha256:{start}"),
        None => text.to_owned(),
    }
}

/// `2026-01-31 04:05:06` out of RFC 3339 text, in UTC.
pub(crate) fn time(text: &str) -> String {
    match text.parse::<Timestamp>().map(|instant| instant.to_string()) {
        Ok(utc) => utc.split('.').next().unwrap_or_default().replacen('T', " ", 1),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_for_people() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(duration(Duration::from_micros(850)), "850µs");
        assert_eq!(duration(Duration::from_millis(12)), "12ms");
        assert_eq!(duration(Duration::from_secs(307)), "5m07s");
        assert_eq!(duration(Duration::from_secs(7380)), "2h03m");
        assert_eq!(digest(&format!("sha256:{}", "ab".repeat(32))), "sha256:abababababab");
        assert_eq!(digest("x"), "x");
        assert_eq!(time("2026-01-31T04:05:06.789Z"), "2026-01-31 04:05:06");
        assert_eq!(time("2026-01-31T05:05:06+01:00"), "2026-01-31 04:05:06");
        assert_eq!(time("9999-12-31T23:59:59Z"), "9999-12-31 23:59:59");
    }
}
