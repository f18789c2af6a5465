//! The model half of the weekly training: train and evaluate a logistic regression.

#![expect(clippy::print_stdout, reason = "what a task prints is its log")]

mod evaluate;
mod logistic;
mod table;
mod train;
