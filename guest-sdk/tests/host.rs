//! What tasks ask of the host, answered by the in-memory one, and what its errors become.

use std::error::Error as StdError;
use std::fmt;
use std::io::{BufRead, Read, Write};

use airtight_sdk::prelude::*;
use airtight_sdk::testing::TestHost;
use airtight_sdk::{Error, FailureKind};

#[derive(Debug)]
struct Outer(Error);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot load the table")
    }
}

impl StdError for Outer {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn a_failure_tells_the_whole_chain_and_keeps_the_code() {
    let failure = Failure::from(Outer(Error::Denied("network".into())));
    assert_eq!(failure.message(), "cannot load the table: denied: network");
    assert_eq!(
        (failure.get_code(), failure.kind()),
        (Some("denied"), FailureKind::Fatal)
    );
}

#[test]
fn an_io_error_keeps_the_code_of_the_host_error_inside() {
    let failure = Failure::from(std::io::Error::from(Error::TooLarge { limit: 10 }));
    assert_eq!(
        (failure.get_code(), failure.kind()),
        (Some("too_large"), FailureKind::Fatal)
    );
    assert_eq!(
        failure.message(),
        "over the limit of 10 bytes; large values go into a `Blob`"
    );
}

#[test]
fn errors_that_may_pass_are_retryable() {
    let failure = Failure::from(Error::Other("the storage does not answer".into()));
    assert_eq!(
        (failure.get_code(), failure.kind()),
        (Some("other"), FailureKind::Retryable)
    );
}

#[test]
fn a_failure_carries_code_details_and_context() {
    let failure = Failure::retryable("no rows")
        .code("no_rows")
        .details([1, 2])
        .context("cannot train");
    assert_eq!(failure.message(), "cannot train: no rows");
    assert_eq!(failure.get_details(), Some(&json!([1, 2])));
}

#[test]
fn a_blob_streams_in_pieces_of_any_size() {
    let mut writer = Blob::writer("text/plain").unwrap();
    let mut expected = Vec::new();
    for (number, size) in [1, 10, 70_000, 3, 1 << 20, (1 << 20) + 1, 5].into_iter().enumerate() {
        let piece = vec![b'a' + number as u8; size];
        writer.write_all(&piece).unwrap();
        expected.extend(piece);
    }
    let blob = writer.finish().unwrap();
    assert_eq!(
        (blob.size(), blob.media_type()),
        (expected.len() as u64, Some("text/plain"))
    );
    assert_eq!(blob.bytes().unwrap(), expected);

    let mut reader = blob.reader().unwrap();
    let mut read = Vec::new();
    let mut buffer = [0; 4093];
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => break,
            n => read.extend_from_slice(&buffer[..n]),
        }
    }
    assert_eq!(read, expected);
}

#[test]
fn a_blob_is_an_ordinary_value() {
    let blob = Blob::from_bytes("", None).unwrap();
    let value = serde_json::to_value(&blob).unwrap();
    let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(value, json!({"$blob": empty, "size": 0}));
    assert_eq!(serde_json::from_value::<Blob>(value).unwrap(), blob);
    assert!(serde_json::from_value::<Blob>(json!({"$blob": empty, "size": 0, "extra": 1})).is_err());
}

#[test]
fn lines_of_a_blob_are_read_one_by_one() {
    let blob = Blob::from_bytes("a\nb\n", None).unwrap();
    let lines: Vec<String> = blob.reader().unwrap().lines().map(Result::unwrap).collect();
    assert_eq!(lines, ["a", "b"]);
}

#[test]
fn a_blob_that_is_not_there_is_not_found() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let blob: Blob = serde_json::from_value(json!({"$blob": digest, "size": 1})).unwrap();
    let failure = Failure::from(blob.bytes().unwrap_err());
    assert_eq!(
        (failure.get_code(), failure.kind()),
        (Some("not_found"), FailureKind::Retryable)
    );
}

#[test]
fn json_travels_in_a_blob() {
    let blob = Blob::from_json(&json!({"a": [1, 2]})).unwrap();
    assert_eq!(blob.media_type(), Some("application/json"));
    assert_eq!(blob.json::<serde_json::Value>().unwrap(), json!({"a": [1, 2]}));
    let error = blob.json::<Vec<u8>>().unwrap_err();
    assert_eq!(Failure::from(error).get_code(), Some("decode"));
}

#[test]
fn xcoms_are_typed_and_mapped_ones_a_list() {
    let _host = TestHost::new()
        .upstream("one", "rows", 3)
        .upstream_mapped("many", "return_value", 0, "a")
        .upstream_mapped("many", "return_value", 1, "b")
        .install();
    assert_eq!(xcom::pull::<u64>("one", "rows").unwrap(), Some(3));
    assert_eq!(xcom::pull::<u64>("one", "other").unwrap(), None);
    assert_eq!(xcom::pull_return::<Vec<String>>("many").unwrap().unwrap(), ["a", "b"]);
    assert_eq!(
        xcom::pull_mapped::<String>("many", xcom::RETURN_VALUE, 1)
            .unwrap()
            .unwrap(),
        "b"
    );
    let failure = Failure::from(xcom::pull::<String>("one", "rows").unwrap_err());
    assert_eq!(failure.get_code(), Some("decode"));
    assert!(
        failure
            .message()
            .starts_with("XCom `rows` of `one` is not of the expected type: "),
        "{failure}"
    );
    let failure = Failure::from(xcom::pull::<String>("stranger", "rows").unwrap_err());
    assert_eq!(
        (failure.get_code(), failure.kind()),
        (Some("not_upstream"), FailureKind::Fatal)
    );
}

#[test]
fn the_context_is_what_the_test_says() {
    let _host = TestHost::new()
        .dag_id("d")
        .run_id("r")
        .task_id("t")
        .map_index(4)
        .try_number(2, 3)
        .logical_date("2026-01-02T03:04:05.000000Z")
        .param("threshold", 0.5)
        .conf("source", "dirty")
        .install();
    assert_eq!(
        (context::dag_id(), context::run_id(), context::task_id()),
        ("d".into(), "r".into(), "t".into())
    );
    assert_eq!(
        (context::map_index(), context::try_number(), context::max_tries()),
        (Some(4), 2, 3)
    );
    assert_eq!(context::param::<f64>("threshold").unwrap(), Some(0.5));
    assert_eq!(context::param::<f64>("other").unwrap(), None);
    assert_eq!(
        context::conf::<serde_json::Value>().unwrap(),
        json!({"source": "dirty"})
    );
    let failure = Failure::from(context::param::<String>("threshold").unwrap_err());
    assert!(
        failure
            .message()
            .starts_with("the param `threshold` is not of the expected type: "),
        "{failure}"
    );
}

#[test]
fn checkpoints_and_progress_are_seen() {
    let host = TestHost::new().checkpoint("[1]").install();
    assert_eq!(checkpoint::load::<Vec<u8>>().unwrap(), Some(vec![1]));
    checkpoint::save_bytes([0, 159]).unwrap();
    assert_eq!(host.checkpoint(), Some(vec![0, 159]));
    checkpoint::clear().unwrap();
    assert_eq!(checkpoint::load_bytes().unwrap(), None);
    progress(2.0, "too far");
    progress(f64::NAN, "nowhere");
    assert_eq!(
        host.progress(),
        [(Some(1.0), "too far".to_owned()), (None, "nowhere".to_owned())]
    );
}

#[test]
fn log_records_have_levels_and_fields() {
    let host = TestHost::new().install();
    let rows = 3;
    trace!("a");
    debug!("{}", 1);
    warn!(rows, share = 0.5, name = "x", "{rows} of {total}", total = 6);
    error!("plain",);
    let log = host.log();
    let levels: Vec<_> = log.iter().map(|record| format!("{:?}", record.level)).collect();
    assert_eq!(levels, ["Trace", "Debug", "Warn", "Error"]);
    assert_eq!(log[2].message, "3 of 6");
    assert_eq!(json!(log[2].fields), json!({"rows": 3, "share": 0.5, "name": "x"}));
}

#[test]
fn a_full_disk_is_a_failure_that_may_pass() {
    let error = Error::Other("no_space: the server's disk is full".to_owned());
    assert_eq!((error.code(), error.is_permanent()), ("no_space", false));
    let failure = Failure::from(error);
    assert_eq!(
        (failure.get_code(), failure.kind()),
        (Some("no_space"), FailureKind::Retryable)
    );
    assert_eq!(Error::Other("no space left, says somebody".to_owned()).code(), "other");
}
