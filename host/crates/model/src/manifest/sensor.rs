//! `sensor:`: how a task that answers "not yet" is poked.

use super::diagnostic::Findings;
use super::field::SENSOR;
use super::section::Section;
use super::tree::Node;
use crate::sensor::{MIN_POKE_INTERVAL, Sensor};

/// Reads `sensor:`.
pub(super) fn read(node: &Node, findings: &mut Findings) -> Option<Sensor> {
    let section = Section::open("`sensor`", &[SENSOR], node, findings)?;
    let standard = Sensor::default();
    let poke_interval = section.duration("poke_interval", findings);
    if let Some(interval) = &poke_interval
        && interval.value < MIN_POKE_INTERVAL
    {
        findings
            .error(
                "manifest_value",
                interval.pos,
                format!("`poke_interval` must be at least {} s", MIN_POKE_INTERVAL.as_secs()),
            )
            .hint("each poke is a try of its own; write `poke_interval: 30s`");
    }
    let exponential_backoff = section.bool("exponential_backoff", findings);
    let max_wait = section.duration("max_wait", findings);
    if max_wait.is_some() && !exponential_backoff.as_ref().is_some_and(|backoff| backoff.value) {
        findings
            .error(
                "manifest_value",
                section.key_pos("max_wait"),
                "`max_wait` bounds `exponential_backoff`, which is not set",
            )
            .hint("write `exponential_backoff: true`");
    }
    Some(Sensor {
        poke_interval: poke_interval.map(|interval| interval.value),
        timeout: section
            .duration("timeout", findings)
            .map_or(standard.timeout, |timeout| timeout.value),
        soft_fail: section.bool("soft_fail", findings).is_some_and(|soft| soft.value),
        exponential_backoff: exponential_backoff.is_some_and(|backoff| backoff.value),
        max_wait: max_wait.map(|wait| wait.value),
    })
}
