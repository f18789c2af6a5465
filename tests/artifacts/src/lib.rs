//! Paths of all guest components, built for `wasm32-wasip2` by this package's build script.
//!
//! `XCOM_ROUND_TRIP` is the path of `tests/guests/src/bin/xcom_round_trip.rs` as a component, `HELLO` that of `tasks/hello`. For each
//! suite (the prefix of a test guest's name) there is a macro that names all its guests, so that a test binary does not compile while
//! a guest has no test of the same name:
//!
//! ```
//! mod tests {
//!     # #[allow(dead_code, reason = "called by the test harness")]
//!     fn xcom_round_trip() {}
//! }
//! macro_rules! assert_test_exists {
//!     ($name:ident) => {
//!         #[expect(unused_imports, reason = "only the existence matters")]
//!         use self::tests::$name as _;
//!     };
//! }
//! # fn main() {}
//! ```

include!(concat!(env!("OUT_DIR"), "/artifacts.rs"));
