//! The data half of the weekly training: load, validate the schema, check the quality, split.
//!
//! The two example tables are sealed inside the component, so that it needs neither files nor network.

#![expect(clippy::print_stdout, reason = "what a task prints is its log")]

mod load;
mod quality;
mod schema;
mod split;
mod table;
