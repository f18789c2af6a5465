//! "Did you mean": the closest of the known names, if one is close.

/// The known name that is closest to `text`, if it is close enough to be meant.
pub(crate) fn closest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text: Vec<char> = text.chars().take(80).flat_map(char::to_lowercase).collect();
    let allowed = (text.len() / 3).max(1);
    known
        .into_iter()
        .map(|name| (distance(&text, &name.chars().take(80).collect::<Vec<_>>()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// A hint that names the closest of the known names, or lists them if there are few.
pub(crate) fn hint<'a>(text: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(name) = closest(text, known.clone()) {
        return Some(format!("did you mean `{name}`?"));
    }
    let names: Vec<String> = known.into_iter().take(13).map(|name| format!("`{name}`")).collect();
    match names.len() {
        1..=12 => Some(format!("known: {}", names.join(", "))),
        _ => None,
    }
}

/// How many single edits lie between two texts; a swap of neighbours counts as one (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, &ca) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, cb) in b.iter().flat_map(|c| c.to_lowercase().next()).enumerate() {
            let mut best = (previous[j] + usize::from(ca != cb))
                .min(previous[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && ca == b[j - 1] && a[i - 1] == cb {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut previous, row);
    }
    previous.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_near_names_only() {
        let known = ["retries", "retry_delay", "after"];
        assert_eq!(closest("retrys", known), Some("retries"));
        assert_eq!(closest("afetr", known), Some("after"));
        assert_eq!(closest("Retry_Delay", known), Some("retry_delay"));
        assert_eq!(closest("xyz", known), None);
        assert_eq!(closest("", known), None);
    }
}
