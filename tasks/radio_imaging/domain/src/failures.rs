//! Simulated failures: so that retries, and what they keep, can be watched.

use airtight_sdk::prelude::*;

/// Whether and how often tasks are made to fail.
#[data]
#[derive(Clone, Debug, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Failures {
    /// Nothing fails without this.
    pub simulate_failures: bool,
    /// The probability that one try fails.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub failure_rate: f64,
    /// Another seed makes other tries fail.
    pub seed: u64,
}

impl Failures {
    /// Fails, retryably, with the given probability.
    ///
    /// Which tries fail is a function of the seed, the run, the task, the map index, the number of the try and `step`, which sets the
    /// iterations of a loop apart: the same try fails again when it is repeated after a crash, the next try is drawn anew.
    pub fn check(&self, step: u32) -> Result<()> {
        if !self.simulate_failures {
            return Ok(());
        }
        if !(0.0..=1.0).contains(&self.failure_rate) {
            let message = format!("failure_rate is {}, and must be from 0 to 1", self.failure_rate);
            return Err(Failure::fatal(message).code("invalid_failure_rate"));
        }
        if self.draw(step) >= self.failure_rate {
            return Ok(());
        }
        let try_number = context::try_number();
        Err(Failure::retryable(format!("simulated failure of try {try_number}"))
            .code("simulated_failure")
            .details(json!({"failure_rate": self.failure_rate, "seed": self.seed, "step": step})))
    }

    /// A number from 0 to below 1.
    fn draw(&self, step: u32) -> f64 {
        let map_index = context::map_index().map_or_else(String::new, |index| index.to_string());
        let parts = [
            self.seed.to_string(),
            context::dag_id(),
            context::run_id(),
            context::task_id(),
            map_index,
            context::try_number().to_string(),
            step.to_string(),
        ];
        // FNV-1a, then the finaliser of SplitMix64: FNV's high bits hardly notice the last characters.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
        (hash >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use airtight_sdk::testing::TestHost;

    use super::*;

    fn failures(failure_rate: f64) -> Failures {
        Failures {
            simulate_failures: true,
            failure_rate,
            seed: 1,
        }
    }

    fn fails(failures: &Failures, run: &str, try_number: u32) -> bool {
        let _host = TestHost::new()
            .run_id(run)
            .map_index(3)
            .try_number(try_number, 9)
            .install();
        let first = failures.check(0).is_err();
        assert_eq!(failures.check(0).is_err(), first, "the same try does the same again");
        first
    }

    #[test]
    fn the_rate_is_kept_and_every_try_is_drawn_anew() {
        let failures = failures(0.3);
        let count = (0..2000)
            .filter(|run| fails(&failures, &format!("run-{run}"), 1))
            .count();
        // Five standard deviations of a binomial distribution are 102.
        assert!((498..=702).contains(&count), "{count} of 2000 tries failed");
        let passes_later = (0..50).all(|run| (1..=30).any(|n| !fails(&failures, &format!("run-{run}"), n)));
        assert!(passes_later);
    }

    #[test]
    fn the_ends_of_the_scale_are_certain() {
        let failure = failures(1.0).check(0).unwrap_err();
        assert_eq!(
            (failure.get_code(), failure.is_fatal()),
            (Some("simulated_failure"), false)
        );
        assert!(failures(0.0).check(0).is_ok());
        assert!(Failures::default().check(0).is_ok());
        let off = Failures {
            simulate_failures: false,
            ..failures(1.0)
        };
        assert!(off.check(0).is_ok());
        assert!(failures(1.5).check(0).unwrap_err().is_fatal());
        assert!(failures(f64::NAN).check(0).unwrap_err().is_fatal());
    }
}
