//! What `push` and `pull` refuse.

use airtight_sdk::prelude::*;

fn code<T>(result: std::result::Result<T, airtight_sdk::Error>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.code().to_owned(),
    }
}

#[data]
struct Size {
    bytes: usize,
}

/// Pushes one text of this size.
#[task]
fn push_text(input: Size) -> String {
    code(xcom::push("text", &"x".repeat(input.bytes)))
}

#[data]
struct Count {
    keys: u32,
}

/// Pushes under many keys; answers the first error, and how many pushes went well.
#[task]
fn push_keys(input: Count) -> (String, u32) {
    for number in 0..input.keys {
        let pushed = code(xcom::push(&format!("key-{number}"), &number));
        if pushed != "ok" {
            return (pushed, number);
        }
    }
    ("ok".to_owned(), input.keys)
}

/// Pushes the same key again and again.
#[task]
fn push_again(input: Count) -> Result<()> {
    for number in 0..input.keys {
        xcom::push("key", &number)?;
    }
    Ok(())
}

#[data]
struct Reference {
    digest: String,
    size: u64,
}

/// Pushes a reference to a blob.
#[task]
fn push_reference(input: Reference) -> String {
    code(xcom::push("blob", &json!({"$blob": input.digest, "size": input.size})))
}

#[data]
struct Source {
    task: String,
    key: String,
}

/// Answers what it pulled.
#[task]
fn pull(input: Source) -> Result<Option<serde_json::Value>> {
    Ok(xcom::pull(&input.task, &input.key)?)
}

/// Answers how a pull failed.
#[task]
fn pull_code(input: Source) -> String {
    code(xcom::pull::<serde_json::Value>(&input.task, &input.key))
}

/// Pulls the same again and again.
#[task]
fn pull_often(input: Source) -> Result<u32> {
    for _ in 0..100 {
        xcom::pull::<Vec<String>>(&input.task, &input.key)?;
    }
    Ok(100)
}

/// Reads the values of many instances one after another; answers how many there are, their map indexes and their lengths.
#[task]
fn reduce(input: Source) -> Result<(u32, Vec<Option<u32>>, usize)> {
    let mut indexes = Vec::new();
    let mut length = 0;
    for item in xcom::items::<String>(&input.task, &input.key) {
        let (index, text) = item?;
        indexes.push(index);
        length += text.len();
    }
    Ok((xcom::count(&input.task, &input.key)?, indexes, length))
}

/// Answers how counting and reading in parts fail.
#[task]
fn reduce_code(input: Source) -> (String, String) {
    let first = xcom::items::<String>(&input.task, &input.key).next();
    let first = first.map_or_else(|| "none".to_owned(), code);
    (code(xcom::count(&input.task, &input.key)), first)
}

fn main() {}
