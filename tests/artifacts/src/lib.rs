//! Paths of all guest components, built for `wasm32-wasip2` by this package's build script.
//!
//! `XCOM_ROUND_TRIP` is the path of `tests/guests/src/bin/xcom_round_trip.rs` as a component, `HELLO` that of `tasks/hello`. For each
//! suite (the prefix of a test guest's name) there is a macro that names all its guests, so that a test binary does not compile while
//! a guest has no test of the same name:
//!
//! ```text
//! macro_rules! assert_test_exists {
//!     ($name:ident) => {
//!         use self::$name as _;
//!     };
//! }
//! test_artifacts::foreach_xcom!(assert_test_exists);
//! ```

include!(concat!(env!("OUT_DIR"), "/artifacts.rs"));
