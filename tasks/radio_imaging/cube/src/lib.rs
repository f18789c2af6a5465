//! The first stage of the radio imaging workflow: load a spectral cube, measure it, calibrate it; and the context that goes on from
//! there.
//!
//! The example cube is sealed inside the component, so that it needs neither files nor network.

mod average;
mod calibrate;
mod context;
mod decode;
mod inspect;
mod load;
mod noise;
