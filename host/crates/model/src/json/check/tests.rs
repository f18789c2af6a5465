use proptest::prelude::*;
use serde_json::json;

use super::*;

fn refused(text: &str) -> String {
    check(text, 1 << 20).unwrap_err().to_string()
}

#[test]
fn accepts_the_grammar() {
    for text in [
        "null",
        " true ",
        "-0",
        "0.5e-7",
        "1E+2",
        "\"\"",
        "[]",
        "{}",
        "[1,2 , 3]",
        "{\"a\":{\"b\":[null]}}",
        "\"\\ud83d\\ude00 \\u00e9 \\n\"",
        "123456789012345678901234567890",
        "\"ü\u{7f}\"",
        "\t\r\n 1",
    ] {
        assert_eq!(check(text, 1 << 20), Ok(Vec::new()), "{text}");
    }
}

#[test]
fn refuses_what_is_not_json() {
    for text in [
        "",
        " ",
        "nul",
        "nulll",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "+1",
        "NaN",
        "Infinity",
        "'a'",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\"}",
        "[1 2]",
        "1 2",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\n\"",
        "\"a\nb\"",
        "\"a",
        "[",
        "{",
        "{\"a\":",
        "\u{feff}1",
        "1e999",
        "-1e400",
        "// c\n1",
        "\"\\u12\"",
        "\"\\ud800\\u00e9\"",
    ] {
        assert!(check(text, 1 << 20).is_err(), "{text}");
    }
    assert!(check(&"9".repeat(400), 1 << 20).is_err());
}

#[test]
fn refuses_repeated_keys_however_they_are_written() {
    assert_eq!(
        refused("{\"a\": 1,\n  \"\\u0061\": 2}"),
        "invalid JSON: key `a` is there twice at line 2, column 3"
    );
    let mut keys: Vec<String> = (0..50).map(|n| format!("\"k{n}\":{n}")).collect();
    let text = |keys: &[String]| format!("{{{}}}", keys.join(","));
    assert!(check(&text(&keys), 1 << 20).is_ok());
    keys.push("\"k3\":0".to_owned());
    assert!(check(&text(&keys), 1 << 20).is_err());
}

#[test]
fn bounds_depth_and_size() {
    let nest = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(check(&nest(64), 1 << 20).is_ok());
    assert!(check(&nest(65), 1 << 20).is_err());
    assert!(check(&"[".repeat(1 << 20), 1 << 20).is_err());
    assert_eq!(check("[1]", 2), Err(JsonError::TooLarge { size: 3, limit: 2 }));
}

#[test]
fn finds_blob_references() {
    let digest = Digest::of(b"x");
    let reference = BlobRef {
        digest,
        size: 1,
        media_type: Some("text/csv".to_owned()),
    };
    let bare = BlobRef {
        digest,
        size: 1,
        media_type: None,
    };
    let text = json!({"a": [reference.to_value(), {"size": 3}], "b": bare.to_value()}).to_string();
    assert_eq!(check(&text, 1 << 20), Ok(vec![reference, bare]));
}

#[test]
fn refuses_near_misses_of_blob_references() {
    let digest = Digest::of(b"x").to_string();
    for value in [
        json!({"$blob": digest}),
        json!({"$blob": digest, "size": -1}),
        json!({"$blob": digest, "size": 1.5}),
        json!({"$blob": digest, "size": "1"}),
        json!({"$blob": digest, "size": 1, "media_type": null}),
        json!({"$blob": digest, "size": 1, "name": "x"}),
        json!({"$blob": "sha256:1", "size": 1}),
        json!({"$blob": {"size": 1}, "size": 1}),
        json!({"\u{24}blob": null}),
    ] {
        assert!(refused(&json!([value]).to_string()).contains("$blob"), "{value}");
    }
}

#[test]
fn knows_what_counts_as_false() {
    for text in ["false", "null", "0", "-0.00", "0e7", "\"\"", " [ ] ", "{\n}"] {
        assert!(is_falsy(text), "{text}");
    }
    for text in ["true", "1", "0.1", "10", "\" \"", "[0]", "{\"a\":0}", "\"false\""] {
        assert!(!is_falsy(text), "{text}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("finite", |f| f.is_finite())
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{0,3}", inner, 0..5).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

#[test]
fn a_schema_may_name_a_member_blob() {
    let schema = r#"{"properties": {"$blob": {"type": "string"}}}"#;
    assert!(check(schema, 1 << 20).is_err());
    assert_eq!(check_syntax(schema, 1 << 20), Ok(()));
    assert!(check_syntax(r#"{"a": 1, "a": 2}"#, 1 << 20).is_err());
}

proptest! {
    #[test]
    fn accepts_all_that_is_written_by_a_correct_writer(value in value()) {
        prop_assert_eq!(check(&value.to_string(), 1 << 20), Ok(Vec::new()));
        prop_assert_eq!(check(&serde_json::to_string_pretty(&value).unwrap(), 1 << 20), Ok(Vec::new()));
    }

    #[test]
    fn what_is_accepted_is_read_by_a_correct_reader(text in "[\\[\\]{},:\"\\\\0-9eE.+a-z \\n-]{0,40}") {
        if check(&text, 1 << 20).is_ok() {
            prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
        }
    }

    #[test]
    fn never_panics(text in any::<String>()) {
        let _ = check(&text, 1 << 20);
        let _ = is_falsy(&text);
    }
}
