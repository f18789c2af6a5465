//! "Did you mean": the closest of the known names, if one is close.

/// How much of names is compared for all suggestions of one manifest, in characters and pairs of them. A manifest brings the
/// names and the misspelt ones, so that comparing each with each is the square of its size.
pub(crate) const MAX_COMPARED: usize = 20_000_000;

/// The known name that is closest to `text`, if it is close enough to be meant. For names of a fixed list.
pub(crate) fn closest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    closest_within(text, known, &mut usize::MAX.clone())
}

/// The same for names of a list of any length: what is compared is taken off `left`, and nothing is close once that is used up.
pub(crate) fn closest_within<'a>(
    text: &str,
    known: impl IntoIterator<Item = &'a str>,
    left: &mut usize,
) -> Option<&'a str> {
    if *left == 0 {
        return None;
    }
    let text: Vec<char> = text.chars().take(80).flat_map(char::to_lowercase).collect();
    let allowed = (text.len() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for name in known {
        let letters: Vec<char> = name.chars().take(80).collect();
        // Each letter more or less is an edit.
        let comparable = letters.len().abs_diff(text.len()) <= allowed;
        let cost = 1 + letters.len() + if comparable { letters.len() * text.len() } else { 0 };
        *left = left.saturating_sub(cost);
        if *left == 0 {
            return None;
        }
        if !comparable {
            continue;
        }
        let distance = distance(&text, &letters);
        // Texts that have nothing in common are not close, however short they are.
        let alike = distance < letters.len().max(text.len());
        if distance <= allowed && alike && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}

/// A hint that names the closest of the known names, or lists them if there are few.
pub(crate) fn hint<'a>(text: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    hint_within(text, known, &mut usize::MAX.clone())
}

/// The same for names of a list of any length.
pub(crate) fn hint_within<'a>(
    text: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
    left: &mut usize,
) -> Option<String> {
    if let Some(name) = closest_within(text, known.clone(), left) {
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
        assert_eq!(closest("x", ["y", "xy"]), Some("xy"));
        assert_eq!(closest("x", ["y", "z"]), None);
    }

    #[test]
    fn what_is_compared_is_bounded_in_sum() {
        let known: Vec<String> = (0..20_000).map(|n| format!("task_number_{n}")).collect();
        let names = || known.iter().map(String::as_str);
        let mut left = MAX_COMPARED;
        assert_eq!(
            closest_within("task_nunber_7", names().take(10), &mut left),
            Some("task_number_7")
        );
        let mut found = 0;
        for _ in 0..1_000 {
            found += usize::from(closest_within("task_nunber_7", names(), &mut left).is_some());
        }
        assert!(found < 10 && left == 0, "{found} {left}");
        assert_eq!(hint_within("task_nunber_7", names(), &mut left), None);
    }
}
