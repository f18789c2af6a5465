//! Test guests: one component per file in `src/bin`, one behaviour per component, the prefix of the name is the suite.
//!
//! A guest is a binary only because cargo finds binaries by itself. Its `main` is empty and never called by Airtight.

/// Takes memory until less than this can be had; it is given back when the answer is dropped.
pub fn fill_memory(left: usize) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::with_capacity(1 << 16);
    let mut piece_bytes = 1 << 20;
    while piece_bytes >= left {
        let mut piece: Vec<u8> = Vec::new();
        if piece.try_reserve_exact(piece_bytes).is_ok() {
            all.push(piece);
        } else {
            piece_bytes /= 2;
        }
    }
    all
}
