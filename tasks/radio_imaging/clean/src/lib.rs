//! The solver of the radio imaging workflow: Högbom's CLEAN, one batch of minor cycles a try, and the restored image at its end.

mod hogbom;
mod restore;
mod step;
