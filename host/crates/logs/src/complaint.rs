//! What the server's own log says of lines that were lost: once in a few seconds, with their number, however many logs they belong to.

use std::time::{Duration, Instant};

/// How often it is said at most.
const EVERY: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Complaint {
    lines: u64,
    why: String,
    said_at: Option<Instant>,
}

impl Complaint {
    /// Counts what was lost.
    pub(crate) fn note(&mut self, lines: u64, why: &str) {
        self.lines = self.lines.saturating_add(lines);
        if self.why != why {
            why.clone_into(&mut self.why);
        }
    }

    /// Whether there is something that was not said yet.
    pub(crate) fn waits(&self) -> bool {
        self.lines > 0
    }

    /// Says it, unless something was said a moment ago. Answers whether it did.
    pub(crate) fn say_if_due(&mut self, now: Instant) -> bool {
        if !self.waits() || self.said_at.is_some_and(|at| now.duration_since(at) < EVERY) {
            return false;
        }
        self.said_at = Some(now);
        self.say();
        true
    }

    /// Says it now.
    pub(crate) fn say(&mut self) {
        if self.waits() {
            let (lines, why) = (self.lines, &self.why);
            tracing::warn!(lines, "cannot write task logs: {lines} lines were lost ({why})");
            self.lines = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_at_once_and_then_once_in_a_while_with_a_count() {
        let mut complaint = Complaint::default();
        let start = Instant::now();
        assert!(!complaint.say_if_due(start), "there is nothing to say");
        complaint.note(3, "full");
        assert!(complaint.say_if_due(start));
        for second in 0..5 {
            complaint.note(1, "full");
            assert!(!complaint.say_if_due(start + Duration::from_secs(second)));
        }
        assert_eq!(complaint.lines, 5);
        assert!(complaint.waits() && complaint.say_if_due(start + EVERY));
        assert!(!complaint.waits());
    }
}
