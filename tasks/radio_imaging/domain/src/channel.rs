//! What goes from stage to stage for one channel.

use airtight_sdk::prelude::*;

use crate::Beam;

/// A calibrated channel: an element of the list that the solver maps over.
#[data]
#[derive(Clone, Debug)]
pub struct Channel {
    /// Its number in the cube.
    pub index: u32,
    pub frequency_hz: f64,
    /// The dirty image in Jy per beam, as a two-dimensional `.npy` array.
    pub image: Blob,
    /// The noise of a pixel.
    pub sigma_jy: f64,
    /// What it counts beside a channel of usual noise: (median noise / noise)².
    pub weight: f64,
}

/// The point spread function that all channels share, and the beam that takes its place.
#[data]
#[derive(Clone, Debug)]
pub struct Psf {
    /// Its peak is 1 and at its centre; as a two-dimensional `.npy` array.
    pub image: Blob,
    pub beam: Beam,
}

/// A channel after its deconvolution.
#[data]
#[derive(Clone, Debug)]
pub struct Restored {
    pub index: u32,
    pub frequency_hz: f64,
    /// The restored image in Jy per beam, as a two-dimensional `.npy` array.
    pub image: Blob,
    pub sigma_jy: f64,
    /// Where CLEAN was to stop.
    pub threshold_jy: f64,
    /// Whether it got there.
    pub converged: bool,
    /// How often the loop went round.
    pub iterations: u32,
    /// How many components were subtracted.
    pub minor_cycles: u32,
    /// On how many pixels.
    pub components: u32,
    /// The sum of the components.
    pub model_flux_jy: f64,
    /// The largest value of the restored image.
    pub peak_jy: f64,
    /// The largest absolute value of what was left.
    pub residual_peak_jy: f64,
    /// The root mean square of what was left.
    pub residual_rms_jy: f64,
}

/// Which channel a plane of the restored cube shows.
#[data]
#[derive(Clone, Debug, PartialEq)]
pub struct Plane {
    /// The plane, from 0.
    pub plane: u32,
    /// The channel's number.
    pub index: u32,
    pub frequency_hz: f64,
    /// The noise of a pixel.
    pub sigma_jy: f64,
}
