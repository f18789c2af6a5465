//! Every case must give the known result.

use std::collections::BTreeMap;

use model::TriggerRule;
use model::trigger_rule::{Decision, Upstream};
use oracle::{Verdict, check, read, simulate};
use serde::Deserialize;

const CASES: &str = include_str!("../cases.jsonl");
const TABLE: &str = include_str!("../trigger-rule-table.json");

#[test]
fn all_cases_of_what_is_built_pass() {
    let cases = read(CASES).expect("the case file can be read");
    assert_eq!(cases.len(), 680);
    let mut skipped: BTreeMap<&str, usize> = BTreeMap::new();
    let mut passed: BTreeMap<&str, usize> = BTreeMap::new();
    let mut mismatches = Vec::new();
    for case in &cases {
        match check(case) {
            Verdict::Passed => *passed.entry(&case.category).or_default() += 1,
            Verdict::Skipped(_) => *skipped.entry(&case.category).or_default() += 1,
            Verdict::Failed(of_case) => mismatches.extend(of_case.iter().map(ToString::to_string)),
        }
    }
    assert!(
        mismatches.is_empty(),
        "{}\n({} mismatches)",
        mismatches.join("\n"),
        mismatches.len()
    );
    assert_eq!(
        passed,
        BTreeMap::from([
            ("basic", 319),
            ("branch", 168),
            ("mapping", 108),
            ("setup_teardown", 85)
        ])
    );
    assert!(skipped.is_empty(), "{skipped:?}");
}

#[test]
fn what_a_simulation_can_express_ends_as_known_too() {
    let cases = read(CASES).expect("the case file can be read");
    let simulated: Vec<_> = cases.iter().filter_map(simulate).collect();
    let mismatches: Vec<String> = simulated.iter().flatten().map(ToString::to_string).collect();
    assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
    assert!(simulated.len() >= 600, "only {} cases were simulated", simulated.len());
}

#[derive(Deserialize)]
struct Table {
    rules: Vec<String>,
    complete: Vec<Row>,
    partial: Vec<Row>,
    teardown_with_setups: Vec<TeardownRow>,
}

#[derive(Deserialize)]
struct Row {
    rule: String,
    upstream: Vec<String>,
    result: String,
}

#[derive(Deserialize)]
struct TeardownRow {
    rule: String,
    setups: Vec<String>,
    others: Vec<String>,
    result: String,
}

fn count<'a>(states: impl IntoIterator<Item = &'a String>) -> Upstream {
    let mut upstream = Upstream::default();
    for state in states {
        upstream.total += 1;
        if state != "running" {
            let state = state.parse().expect("a state");
            *upstream.counter(state).expect("an end state") += 1;
        }
    }
    upstream
}

fn decide(rule: &str, upstream: &Upstream, setups: &Upstream) -> &'static str {
    match rule.parse::<TriggerRule>().expect("a rule").decide(upstream, setups) {
        Decision::Run => "runs",
        Decision::Wait => "waits",
        Decision::Skip => "skipped",
        Decision::UpstreamFailed => "upstream_failed",
    }
}

#[test]
fn every_rule_decides_as_the_table_says() {
    let table: Table = serde_json::from_str(TABLE).expect("the table can be read");
    let mut rules: Vec<&str> = table.rules.iter().map(String::as_str).collect();
    let mut known: Vec<&str> = TriggerRule::ALL.iter().map(|rule| rule.as_str()).collect();
    rules.sort_unstable();
    known.sort_unstable();
    assert_eq!(rules, known);
    let mut wrong = Vec::new();
    for row in table.complete.iter().chain(&table.partial) {
        let found = decide(&row.rule, &count(&row.upstream), &Upstream::default());
        if found != row.result {
            wrong.push(format!(
                "{} {:?}: {found}, expected {}",
                row.rule, row.upstream, row.result
            ));
        }
    }
    for row in &table.teardown_with_setups {
        let found = decide(
            &row.rule,
            &count(row.setups.iter().chain(&row.others)),
            &count(&row.setups),
        );
        if found != row.result {
            wrong.push(format!("{} {:?} {:?}: {found}", row.rule, row.setups, row.others));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
