//! What a guest prints and reports.

use std::time::Duration;

use model::{Cause, OnLogLimit};
use ports::executor::{ExecutorEvent, TryOutcome};
use ports::log::{LogLevel, LogSource};
use serde_json::json;
use test_artifacts as artifacts;

use crate::support::{World, died, limited};

#[tokio::test]
pub(crate) async fn log_lines() {
    let world = World::new();
    let report = world.run(artifacts::LOG_LINES, "all_ways", json!(null)).await;
    let lines = world.logs.of(report.id);
    let seen: Vec<_> = lines
        .iter()
        .map(|line| (line.source, line.level, line.event.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            (LogSource::Stdout, LogLevel::Info, "one"),
            (LogSource::Stderr, LogLevel::Warning, "two"),
            (LogSource::Log, LogLevel::Info, "three words"),
            (LogSource::Log, LogLevel::Warning, "four"),
            (LogSource::Stdout, LogLevel::Info, "no line end"),
        ]
    );
    assert_eq!(lines[2].fields, Some(json!({"rows": 3})));
    assert!(report.usage.log_bytes > 0);
}

#[tokio::test]
async fn odd_bytes_become_text_and_long_lines_are_cut() {
    let world = World::new();
    let report = world.run(artifacts::LOG_LINES, "odd_bytes", json!(null)).await;
    let lines = world.logs.of(report.id);
    assert_eq!(lines[0].event, "bad \u{fffd} byte");
    assert!(
        lines
            .iter()
            .all(|line| line.event.len() <= 16 << 10 && !line.event.contains('\n'))
    );
    let long: String = lines[1..lines.len() - 1]
        .iter()
        .map(|line| line.event.as_str())
        .collect();
    assert_eq!(long, "é".repeat(20_000));
    // Control characters are kept: whoever shows them to a person escapes them.
    assert_eq!(lines.last().map(|line| line.event.as_str()), Some("\u{1b}[31mred\u{7}"));
}

#[tokio::test]
async fn a_line_without_an_end_is_seen_while_the_guest_goes_on() {
    let world = World::new();
    let request = world.request(artifacts::LOG_LINES, "unfinished", json!(null)).await;
    let id = request.id;
    ports::executor::Executor::dispatch(&*world.executor, request);
    // It never ends by itself: only a line that is shown before its end lets the test go on.
    world.logs.wait_for(id, "20 %").await;
    ports::executor::Executor::cancel(&*world.executor, id);
    loop {
        if let ExecutorEvent::Finished(report) = world.event().await {
            died(&report, Cause::Cancelled);
            break;
        }
    }
    let lines = world.logs.of(id);
    let printed = lines.iter().filter(|line| line.source == LogSource::Stdout);
    assert!(
        printed.map(|line| line.event.as_str()).eq(["10 %", "20 %"]),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_task_that_says_too_much_goes_on_and_its_log_is_cut() {
    let world = World::new();
    let request = world.request(artifacts::LOG_LINES, "chatty", json!(20_000)).await;
    let cut = limited(request, |limits| limits.log_bytes = 200_000);
    let report = world.report(cut).await;
    assert!(
        matches!(report.outcome, TryOutcome::Done { .. }),
        "{:?}",
        report.outcome
    );
    let lines = world.logs.of(report.id);
    let stored: u64 = lines.iter().map(ports::log::LogLine::stored_bytes).sum();
    assert!(stored < 200_000 + (64 << 10) + 1_000, "{stored}");
    let told: Vec<_> = lines.iter().filter(|line| line.source == LogSource::System).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].event.contains("cut here") && told[1].event.contains("were dropped here"),
        "{told:?}"
    );
    assert_eq!(lines[0].event, "row 0 is odd");
    assert_eq!(lines.last().map(|line| line.event.as_str()), Some("row 19999 is odd"));

    let request = world.request(artifacts::LOG_LINES, "chatty", json!(20_000)).await;
    let fails = limited(request, |limits| {
        limits.log_bytes = 200_000;
        limits.on_log_limit = OnLogLimit::Fail;
    });
    let report = world.report(fails).await;
    assert!(died(&report, Cause::OutputLimit).message.contains("on_log_limit"));
}

#[tokio::test]
async fn progress_is_thinned_out_but_the_last_word_arrives() {
    let world = World::new();
    let request = world.request(artifacts::LOG_LINES, "progress_often", json!(null)).await;
    ports::executor::Executor::dispatch(&*world.executor, request);
    let mut reports = Vec::new();
    loop {
        match world.event().await {
            ExecutorEvent::Progress { fraction, note, .. } => reports.push((fraction, note)),
            ExecutorEvent::Finished(_) => break,
            _ => {}
        }
    }
    assert!(reports.len() < 500, "{} reports", reports.len());
    assert_eq!(reports.last(), Some(&(Some(1.0), "step 1000".to_owned())));
}

#[tokio::test]
async fn the_last_word_arrives_before_an_end_without_an_answer() {
    for (end, cause) in [
        ("trap", Cause::Trapped),
        ("timeout", Cause::TimedOut),
        ("cancel", Cause::Cancelled),
    ] {
        let world = World::new();
        let mut request = world.request(artifacts::LOG_LINES, "progress_then", json!(end)).await;
        if end == "timeout" {
            request = limited(request, |limits| limits.timeout = Duration::from_secs(1));
        }
        let id = request.id;
        ports::executor::Executor::dispatch(&*world.executor, request);
        if end == "cancel" {
            world.logs.wait_for(id, "reported").await;
            ports::executor::Executor::cancel(&*world.executor, id);
        }
        let mut reports = Vec::new();
        let report = loop {
            match world.event().await {
                ExecutorEvent::Progress { note, .. } => reports.push(note),
                ExecutorEvent::Finished(report) => break report,
                _ => {}
            }
        };
        died(&report, cause);
        assert_eq!(reports.last().map(String::as_str), Some("last"), "{end}: {reports:?}");
    }
}
