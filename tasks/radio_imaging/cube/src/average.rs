//! `average_channels`: makes one channel of all, for the continuum.

use airtight_sdk::prelude::*;
use radio_domain::npy::Precision;
use radio_domain::{Channel, Failures, Image};

#[data]
struct Average {
    channels: Vec<Channel>,
    #[serde(default)]
    failures: Failures,
}

#[data]
struct Averaged {
    /// One channel, as a list: what the solver maps over.
    channels: Vec<Channel>,
}

/// Averages all channels, each weighted by the inverse of its noise squared. All have the same PSF, so it is the PSF of the average,
/// too.
#[task]
fn average_channels(input: Average) -> Result<Averaged> {
    input.failures.check(0)?;
    let mut sum: Option<Image> = None;
    let (mut total, mut frequency) = (0.0, 0.0);
    for channel in &input.channels {
        let image = Image::read(&channel.image)?;
        let weight = channel.sigma_jy.powi(-2);
        if !(weight > 0.0 && weight.is_finite()) {
            let message = format!("the noise of channel {} is {}", channel.index, channel.sigma_jy);
            return Err(Failure::fatal(message).code("no_noise"));
        }
        let sum = sum.get_or_insert_with(|| image.zeros_like());
        if !sum.same_size(&image) {
            let message = format!("channel {} is not as large as the others", channel.index);
            return Err(Failure::fatal(message).code("sizes_differ"));
        }
        sum.values_mut()
            .iter_mut()
            .zip(image.values())
            .for_each(|(sum, value)| *sum += weight * value);
        total += weight;
        frequency += weight * channel.frequency_hz;
    }
    let Some(mut image) = sum else {
        return Err(Failure::fatal("there is no channel to average").code("no_channels"));
    };
    image.values_mut().iter_mut().for_each(|value| *value /= total);
    let channel = Channel {
        index: 0,
        frequency_hz: frequency / total,
        image: image.write(Precision::Single)?,
        sigma_jy: total.powf(-0.5),
        weight: 1.0,
    };
    info!(
        sigma_jy = channel.sigma_jy,
        frequency_hz = channel.frequency_hz,
        "averaged {} channels",
        input.channels.len()
    );
    Ok(Averaged {
        channels: vec![channel],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(index: u32, value: f64, sigma_jy: f64) -> Channel {
        Channel {
            index,
            frequency_hz: 1e9 * f64::from(index + 1),
            image: Image::new(2, vec![value; 4]).unwrap().write(Precision::Single).unwrap(),
            sigma_jy,
            weight: 1.0,
        }
    }

    fn average(channels: Vec<Channel>) -> Result<Averaged> {
        average_channels(Average {
            channels,
            failures: Failures::default(),
        })
    }

    #[test]
    fn quiet_channels_count_more() {
        let averaged = average(vec![channel(0, 1.0, 1.0), channel(1, 6.0, 2.0)]).unwrap();
        let channel = &averaged.channels[0];
        assert_eq!(Image::read(&channel.image).unwrap().values(), [2.0; 4]);
        assert_eq!(channel.frequency_hz, 1.2e9);
        assert!((channel.sigma_jy - 0.8_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn what_cannot_be_averaged_is_fatal() {
        let code = |channels| average(channels).map(|_| ()).unwrap_err().get_code().map(str::to_owned);
        assert_eq!(code(vec![]).as_deref(), Some("no_channels"));
        assert_eq!(code(vec![channel(0, 1.0, 0.0)]).as_deref(), Some("no_noise"));
    }
}
