//! One task.

use airtight_sdk::prelude::*;

#[data]
struct Who {
    name: String,
}

/// Greets somebody.
#[task]
fn greet(input: Who) -> Result<String> {
    if input.name.is_empty() {
        return Err(Failure::fatal("there is nobody to greet").code("no_name"));
    }
    info!(name = input.name, "greeting");
    Ok(format!("Hello, {}!", input.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets_by_name() {
        assert_eq!(greet(Who { name: "Ada".to_owned() }), Ok("Hello, Ada!".to_owned()));
    }

    #[test]
    fn nobody_to_greet_is_fatal() {
        let failure = greet(Who { name: String::new() }).unwrap_err();
        assert!(failure.is_fatal());
        assert_eq!(failure.get_code(), Some("no_name"));
    }
}
