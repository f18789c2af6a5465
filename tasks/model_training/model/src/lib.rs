//! The model half of the weekly training: train and evaluate a logistic regression.

mod evaluate;
mod logistic;
mod table;
mod train;
