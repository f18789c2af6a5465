//! The whole router against in-memory implementations of the traits: those are the seam.

mod document;
