//! Airflow's text filters: `…_pattern` finds a part of the text (SQL `ILIKE`), `…_prefix_pattern` its start.

/// A text filter of a list. `%` stands for any text, `_` for one character, `|` separates alternatives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    alternatives: Vec<String>,
    ignore_case: bool,
}

impl Pattern {
    /// A filter by a part of the text; none where it lets everything through.
    pub(crate) fn part(text: &str) -> Option<Self> {
        Self::new(text, true, |part| format!("%{part}%"))
    }

    /// A filter by the start of the text; none where it lets everything through.
    pub(crate) fn prefix(text: &str) -> Option<Self> {
        Self::new(text, false, |part| format!("{part}%"))
    }

    fn new(text: &str, ignore_case: bool, wrap: impl Fn(&str) -> String) -> Option<Self> {
        let parts = text.split('|').map(str::trim).filter(|part| !part.is_empty());
        // Airflow: `~` stands for all.
        let alternatives: Vec<String> = parts.map(|part| wrap(if part == "~" { "%" } else { part })).collect();
        let all = alternatives.is_empty() || alternatives.iter().any(|like| like.chars().all(|c| c == '%'));
        (!all).then_some(Self {
            alternatives,
            ignore_case,
        })
    }

    /// The one `LIKE` pattern that the database can evaluate, if there is just one and case does not matter.
    pub(crate) fn as_like(&self) -> Option<&str> {
        match self.alternatives.as_slice() {
            [one] if self.ignore_case => Some(one),
            _ => None,
        }
    }

    /// Whether the text matches.
    pub(crate) fn matches(&self, text: &str) -> bool {
        self.alternatives.iter().any(|like| self.like(like, text))
    }

    fn like(&self, pattern: &str, text: &str) -> bool {
        let fold = |text: &str| -> Vec<char> {
            if self.ignore_case {
                text.chars().flat_map(char::to_lowercase).collect()
            } else {
                text.chars().collect()
            }
        };
        like(&fold(pattern), &fold(text))
    }
}

/// SQL `LIKE`, with one step back: linear in memory, at most |pattern| · |text| steps.
fn like(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(&c) = text.get(t) {
        match pattern.get(p) {
            Some('%') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(&wanted) if wanted == '_' || wanted == c => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|&c| c == '%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_matches_anywhere_and_ignores_case() {
        let pattern = Pattern::part("Train").unwrap();
        assert!(pattern.matches("model_training"));
        assert!(!pattern.matches("model"));
        assert_eq!(pattern.as_like(), Some("%Train%"));
        assert!(Pattern::part("a_c|z").unwrap().matches("xabcx"));
        assert!(Pattern::part("a%c%e").unwrap().matches("abcdef"));
    }

    #[test]
    fn prefix_matches_the_start_with_case() {
        let pattern = Pattern::prefix("Mo").unwrap();
        assert!(pattern.matches("Model"));
        assert!(!pattern.matches("model"));
        assert!(!pattern.matches("a Model"));
    }

    #[test]
    fn everything_is_no_filter() {
        for text in ["", "~", "%", " | "] {
            assert_eq!(Pattern::part(text), None, "{text}");
        }
    }
}
