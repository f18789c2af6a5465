//! What the components of the radio imaging workflow share: the values they hand on and how arrays are written down.
//!
//! It has no tasks. Each component carries a copy of it, sealed inside.

mod beam;
mod channel;
mod context;
mod failures;
pub mod fits;
mod image;
pub mod linear;
pub mod npy;

pub use beam::{Beam, Gaussian};
pub use channel::{Channel, Plane, Psf, Restored};
pub use context::{Calibration, ChannelCalibration, Context, StageScore, Verdict};
pub use failures::Failures;
pub use image::{Image, Peak, median, robust_sigma};

/// The most values that an array may have: 128 MiB as `f64`.
pub const MAX_VALUES: usize = 16 << 20;

/// The number of values of an array, if it has some and they are not too many.
pub fn count_values(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |count, &axis| count.checked_mul(axis))
        .filter(|count| (1..=MAX_VALUES).contains(count))
}
