//! How noisy a dirty image is, although it is full of sources and their sidelobes.

use radio_domain::{Image, robust_sigma};

/// The noise of a pixel.
///
/// An interferometer measures no detail finer than its longest baseline, so what changes from pixel to pixel is noise. The mask
/// (1 -2 1; -2 4 -2; 1 -2 1) of Immerkær (1996) keeps just that; of its answers, the median absolute deviation forgets the few at bright
/// sources. It takes the noise of neighbouring pixels for independent.
pub(crate) fn pixel_noise(image: &Image) -> Option<f64> {
    let (width, height) = (image.width(), image.height());
    if width < 8 || height < 8 || image.bad_pixels() > 0 {
        return None;
    }
    let mut answers = Vec::with_capacity(width * height);
    for y in 1..height - 1 {
        let rows = [y - 1, y, y + 1].map(|y| image.row(y, 0..width));
        let [above, middle, below] = rows.map(|row| row.array_windows::<3>().map(|[a, b, c]| a - 2.0 * b + c));
        answers.extend(above.zip(middle).zip(below).map(|((a, b), c)| a - 2.0 * b + c));
    }
    // The squares of the mask's nine numbers add up to 36.
    Some(robust_sigma(answers) / 6.0)
}

#[cfg(test)]
mod tests {
    use airtight_sdk::serde_json;

    use super::*;
    use crate::load::CUBE;

    #[test]
    fn the_noise_of_every_channel_is_found_within_4_percent() {
        let truth: serde_json::Value = serde_json::from_str(include_str!("../../data/truth.json")).unwrap();
        let cube = crate::decode::cube(CUBE).unwrap();
        for (plane, sigma) in cube.planes().zip(truth["noise_sigma_jy"].as_array().unwrap()) {
            let sigma = sigma.as_f64().unwrap();
            let found = pixel_noise(&Image::new(128, plane.to_vec()).unwrap()).unwrap();
            // 15876 correlated answers know it to about 1.5 %; the sources add a little.
            assert!((found / sigma - 1.0).abs() < 0.04, "{found} for {sigma}");
        }
    }

    #[test]
    fn what_cannot_be_measured_has_none() {
        assert_eq!(pixel_noise(&Image::new(4, vec![0.0; 16]).unwrap()), None);
        let mut values = vec![0.0; 400];
        values[3] = f64::NAN;
        assert_eq!(pixel_noise(&Image::new(20, values).unwrap()), None);
    }
}
