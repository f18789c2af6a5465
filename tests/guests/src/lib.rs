//! Test guests: one component per file in `src/bin`, one behaviour per component, the prefix of the name is the suite.
//!
//! A guest is a binary only because cargo finds binaries by itself. Its `main` is empty and never called by Airtight.
