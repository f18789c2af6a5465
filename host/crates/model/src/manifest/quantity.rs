//! Durations and sizes as people write them: `1h30m`, `250ms`, `512MiB`.

use std::time::Duration;

/// The longest duration: ten years.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Reads `5m`, `1h30m`, `1d`, `90s`, `250ms`, `1.5h`, or a bare number of seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let mut micros = 0_u128;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("an empty duration".to_owned());
    }
    let mut first = true;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let unit_micros: u128 = match unit {
            "ms" => 1_000,
            "s" | "sec" => 1_000_000,
            "" if first && next.is_empty() => 1_000_000,
            "m" | "min" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return Err(format!("`{}` is not a duration", shown(text))),
        };
        micros = micros
            .saturating_add(scaled(number, unit_micros).ok_or_else(|| format!("`{}` is not a duration", shown(text)))?);
        rest = next.trim_start();
        first = false;
    }
    let duration = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
    if duration > MAX_DURATION {
        return Err(format!("`{}` is longer than ten years", shown(text)));
    }
    Ok(duration)
}

/// Reads `512MiB`, `10MB`, `1.5GiB`, or a bare number of bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let fail = || format!("`{}` is not a size", shown(text));
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_bytes: u128 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(fail()),
    };
    let bytes = scaled(number, unit_bytes).ok_or_else(fail)?;
    u64::try_from(bytes).map_err(|_| format!("`{}` is too large", shown(text)))
}

/// A number of bytes as people write it, in the largest unit that divides it.
pub(super) fn show_size(bytes: u64) -> String {
    [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(
            || bytes.to_string(),
            |(unit, shift)| format!("{}{unit}", bytes >> shift),
        )
}

/// Reads a number with at most two decimals as percent: `1.5` is 150.
pub(super) fn percent(text: &str) -> Option<u32> {
    let decimals = text
        .split_once('.')
        .map_or(0, |(_, decimals)| decimals.trim_end_matches('0').len());
    if decimals > 2 || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    u32::try_from(scaled(text, 100)?).ok()
}

/// `number` (digits, perhaps with a point) times `unit`, rounded down.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || whole.len() > 18 || fraction.len() > 9 || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let power = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    Some(whole.checked_mul(unit)? + part.checked_mul(unit)? / power)
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        for (text, millis) in [
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("90s", 90_000),
            ("250ms", 250),
            ("90", 90_000),
            ("1.5h", 5_400_000),
            ("0.25", 250),
            ("1d 2h", 93_600_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "m",
            "5x",
            "5m3",
            "-5m",
            "1e3",
            "1..2s",
            "5 m x",
            "999999999d",
            "99999999999999999999s",
            "1.s",
            "٣s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_as_they_are_read() {
        for (bytes, text) in [(512 << 20, "512MiB"), (1 << 30, "1GiB"), (1_000, "1000"), (0, "0")] {
            assert_eq!(show_size(bytes), text);
            assert_eq!(size(text), Ok(bytes));
        }
    }

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("10MB", 10_000_000),
            ("1.5GiB", 3 << 29),
            ("64 KiB", 64 << 10),
            ("100", 100),
            ("7B", 7),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "5Mb", "-1", "1e3", "5 5", "999999999999999999TiB", "0x10"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
