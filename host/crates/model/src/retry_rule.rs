//! Retry policies: what follows a failed try, by the cause of its death or the code of its failure.
//!
//! Airflow: `ExceptionRetryPolicy` of `RetryRule`s. Causes and codes stand for Airflow's exception classes; more memory for the
//! next try has no counterpart there.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::state::text_enum;

text_enum! {
    /// What a rule does with a failed try (Airflow: `RetryAction`).
    RetryAction {
        /// Try again, as long as there are retries left.
        Retry = "retry",
        /// Fail at once, whatever retries are left.
        Fail = "fail",
        /// As without a policy.
        Default = "default",
    }
}

/// A rule of a retry policy. The first one that matches decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryRule {
    /// It matches a try that ended by one of these,
    pub causes: Vec<Cause>,
    /// or by a failure with one of these codes.
    pub codes: Vec<String>,
    /// What it does.
    pub action: RetryAction,
    /// The wait before the next try, instead of the task's own.
    pub delay: Option<Duration>,
    /// More memory for the next try.
    pub memory: Option<MoreMemory>,
}

/// How the memory limit grows from one try to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoreMemory {
    /// The next limit in percent of the last one; more than 100.
    pub percent: u32,
    /// It never grows beyond this.
    pub max_bytes: u64,
}

impl MoreMemory {
    /// The limit that follows `bytes`. It never shrinks: a task whose own limit is larger than `max_bytes` keeps it.
    pub fn after(self, bytes: u64) -> u64 {
        let grown = u128::from(bytes) * u128::from(self.percent) / 100;
        u64::try_from(grown).unwrap_or(u64::MAX).min(self.max_bytes).max(bytes)
    }
}

impl RetryRule {
    /// Whether the rule speaks about a try that ended so.
    pub fn matches(&self, cause: Cause, code: Option<&str>) -> bool {
        self.causes.contains(&cause) || code.is_some_and(|code| self.codes.iter().any(|known| known == code))
    }
}

impl fmt::Display for RetryRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let causes = self.causes.iter().map(|cause| cause.as_str().to_owned());
        let codes = self.codes.iter().map(|code| format!("code `{code}`"));
        let on: Vec<String> = causes.chain(codes).collect();
        write!(f, "on {}: {}", on.join(", "), self.action)?;
        if let Some(delay) = self.delay {
            write!(f, " after {} s", delay.as_secs_f64())?;
        }
        if let Some(MoreMemory { percent, max_bytes }) = self.memory {
            let factor = f64::from(percent) / 100.0;
            write!(f, " with {factor} times the memory, at most {max_bytes} bytes")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn memory_grows_up_to_its_bound_and_never_shrinks() {
        let double = MoreMemory {
            percent: 200,
            max_bytes: 300 * MIB,
        };
        assert_eq!(double.after(100 * MIB), 200 * MIB);
        assert_eq!(double.after(200 * MIB), 300 * MIB);
        assert_eq!(double.after(400 * MIB), 400 * MIB);
        let most = MoreMemory {
            percent: u32::MAX,
            max_bytes: u64::MAX,
        };
        assert_eq!(most.after(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_rule_matches_by_cause_or_by_code_and_says_so() {
        let rule = RetryRule {
            causes: vec![Cause::OutOfMemory],
            codes: vec!["rate_limited".to_owned()],
            action: RetryAction::Retry,
            delay: Some(Duration::from_millis(1500)),
            memory: Some(MoreMemory {
                percent: 150,
                max_bytes: 1024,
            }),
        };
        assert!(rule.matches(Cause::OutOfMemory, None));
        assert!(rule.matches(Cause::Failed, Some("rate_limited")));
        assert!(!rule.matches(Cause::Failed, Some("other")));
        assert!(!rule.matches(Cause::Trapped, None));
        assert_eq!(
            rule.to_string(),
            "on out_of_memory, code `rate_limited`: retry after 1.5 s with 1.5 times the memory, at most 1024 bytes"
        );
    }
}
