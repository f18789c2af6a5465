//! What `#[task]` makes of functions, through the same path as on a server.

use std::io;
use std::time::Duration;

use airtight_sdk::prelude::*;
use airtight_sdk::testing::{Ran, TestHost, describe, run};

#[data]
struct Row {
    name: String,
    values: Vec<f64>,
}

/// Adds up.
///
/// Over several lines.
#[task]
fn sum(input: Row) -> Result<f64> {
    info!(name = input.name, count = input.values.len(), "adding {}", input.name);
    Ok(input.values.iter().sum())
}

/// Takes nothing and returns nothing.
#[task]
fn nothing() {}

/// An ordinary error type.
#[task(name = "read-file")]
fn read_file() -> io::Result<u8> {
    Err(io::Error::other("no such luck"))
}

/// A sensor.
#[task]
fn poke(ready: bool) -> Outcome<u8> {
    if ready {
        Outcome::Done(1)
    } else {
        Outcome::reschedule(Duration::from_micros(1500))
    }
}

#[derive(Labels)]
enum Side {
    Left,
    FarRight,
    #[label("straight-on")]
    Straight,
}

/// A branch that may skip.
#[task]
fn turn(input: u8) -> Result<Outcome<Branch<Side>>> {
    Ok(match input {
        0 => Outcome::skip("nowhere to go"),
        1 => Outcome::Done(Branch::to(Side::Left)),
        2 => Outcome::Done(Branch::to_all([Side::FarRight, Side::Straight, Side::FarRight])),
        _ => Outcome::Done(Branch::none()),
    })
}

#[test]
fn every_task_is_described() {
    let describe = describe();
    assert_eq!(describe["format"], 1);
    let tasks = describe["tasks"].as_array().unwrap();
    let names: Vec<_> = tasks.iter().map(|task| task["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["nothing", "poke", "read-file", "sum", "turn"]);
    assert_eq!(tasks[3]["doc"], "Adds up.\n\nOver several lines.");
    assert_eq!(tasks[3]["input"]["required"], json!(["name", "values"]));
    assert_eq!(tasks[3]["output"]["type"], "number");
    assert_eq!(tasks[4]["labels"], json!(["left", "far_right", "straight-on"]));
    assert!(tasks[3]["labels"].is_null());
}

#[test]
fn values_go_in_and_out_as_json() {
    let host = TestHost::new().install();
    assert_eq!(
        run("sum", &json!({"name": "a", "values": [1, 2.5]})),
        Ok(Ran::Done(json!(3.5)))
    );
    let log = host.log();
    assert_eq!(log[0].message, "adding a");
    assert_eq!(json!(log[0].fields), json!({"name": "a", "count": 2}));
    assert_eq!(run("nothing", &json!({"ignored": true})), Ok(Ran::Done(json!(null))));
}

#[test]
fn an_input_that_does_not_fit_names_the_place() {
    let failure = run("sum", &json!({"name": "a", "values": [1, "b"]})).unwrap_err();
    assert!(
        failure.message().starts_with("the input at `values[1]` does not fit: "),
        "{failure}"
    );
    assert_eq!(failure.get_code(), Some("input_invalid"));
    assert!(failure.is_fatal());
}

#[test]
fn any_error_is_a_retryable_failure() {
    let failure = run("read-file", &json!(null)).unwrap_err();
    assert_eq!(
        (failure.message(), failure.is_fatal(), failure.get_code()),
        ("no such luck", false, None)
    );
}

#[test]
fn outcomes_and_branches_reach_the_host() {
    assert_eq!(run("poke", &json!(true)), Ok(Ran::Done(json!(1))));
    assert_eq!(
        run("poke", &json!(false)),
        Ok(Ran::Reschedule(Duration::from_millis(2)))
    );
    assert_eq!(run("turn", &json!(0)), Ok(Ran::Skip("nowhere to go".into())));
    assert_eq!(run("turn", &json!(1)), Ok(Ran::Branch(vec!["left".into()])));
    assert_eq!(
        run("turn", &json!(2)),
        Ok(Ran::Branch(vec!["far_right".into(), "straight-on".into()]))
    );
    assert_eq!(run("turn", &json!(3)), Ok(Ran::Branch(vec![])));
}

#[test]
fn an_unknown_task_is_fatal() {
    let failure = run("summ", &json!(null)).unwrap_err();
    assert_eq!(failure.get_code(), Some("unknown_task"));
    assert!(
        failure
            .message()
            .ends_with("it has: nothing, poke, read-file, sum, turn"),
        "{failure}"
    );
}
