use airtight_sdk::testing::TestHost;
use radio_domain::{Beam, fits, npy};

use super::*;

const CUBE: &[u8] = include_bytes!("../../../data/dirty.fits");
const REFERENCE: &str = include_str!("../../../data/clean_ref.json");
const TRUTH: &str = include_str!("../../../data/truth.json");

/// The example's PSF, by the task that loads it.
fn psf() -> Psf {
    use radio_cube as _;
    let airtight_sdk::testing::Ran::Done(loaded) = airtight_sdk::testing::run("load_cube", &json!({})).unwrap() else {
        panic!("load_cube answers a value");
    };
    Psf {
        image: serde_json::from_value(loaded["psf"].clone()).unwrap(),
        beam: Beam {
            major_fwhm_px: 8.4,
            minor_fwhm_px: 5.8,
            angle_deg: 0.0,
        },
    }
}

fn channel(index: u32, sigma_jy: f64) -> Channel {
    let cube = fits::decode(CUBE).unwrap();
    let plane = cube.planes().nth(index as usize).unwrap().to_vec();
    Channel {
        index,
        frequency_hz: cube.frequency(index as usize).unwrap(),
        image: Image::new(128, plane).unwrap().write(Precision::Single).unwrap(),
        sigma_jy,
        weight: 1.0,
    }
}

fn step(channel: &Channel, psf: &Psf, previous: Option<State>, settings: &Settings) -> Result<State> {
    clean_step(CleanStep {
        channel: channel.clone(),
        psf: psf.clone(),
        previous,
        settings: settings.clone(),
        failures: Failures::default(),
    })
}

fn solve(channel: &Channel, psf: &Psf, settings: &Settings) -> State {
    let mut state = step(channel, psf, None, settings).unwrap();
    while !state.finished {
        state = step(channel, psf, Some(state), settings).unwrap();
    }
    state
}

#[test]
fn every_channel_ends_where_the_reference_ends() {
    let psf = psf();
    let parse = |text| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let (reference, truth) = (parse(REFERENCE), parse(TRUTH));
    for reference in reference["channels"].as_array().unwrap() {
        let number = |name: &str| reference[name].as_f64().unwrap();
        let channel = channel(number("channel") as u32, number("threshold_jy") / 5.0);
        let state = solve(&channel, &psf, &Settings::default());
        assert!(state.converged);
        // Both calculate in double precision, so not even rounding sets them apart.
        assert_eq!(f64::from(state.minor_cycles), number("iterations"));
        assert_eq!(state.iteration, state.minor_cycles.div_ceil(50));
        let residual = Image::read(&state.residual).unwrap();
        let total: f64 = state.components.iter().map(|component| component.flux_jy).sum();
        for (found, name) in [
            (state.peak_jy, "residual_peak_abs_jy"),
            (deviation(&residual), "residual_rms_jy"),
            (total, "model_total_jy"),
        ] {
            // The reference is rounded to six digits.
            assert!(
                (found - number(name)).abs() < 2e-6,
                "{name}: {found}, not {}",
                number(name)
            );
        }
        for source in reference["sources"].as_array().unwrap() {
            let (id, flux) = (source["id"].as_u64().unwrap(), source["model_7x7_jy"].as_f64().unwrap());
            let position = |axis| truth["sources"][id as usize][axis].as_u64().unwrap() as u32;
            let (x, y) = (position("x"), position("y"));
            let near = |c: &&Component| c.x.abs_diff(x) <= 3 && c.y.abs_diff(y) <= 3;
            let found: f64 = state.components.iter().filter(near).map(|c| c.flux_jy).sum();
            assert!((found - flux).abs() < 2e-6, "source {id}: {found}, not {flux}");
        }
    }
}

/// About the mean, as the reference has it.
fn deviation(image: &Image) -> f64 {
    let count = image.values().len() as f64;
    let mean = image.values().iter().sum::<f64>() / count;
    let squares: f64 = image.values().iter().map(|value| (value - mean).powi(2)).sum();
    (squares / count).sqrt()
}

#[test]
fn a_failed_try_leaves_a_checkpoint_and_the_next_one_ends_at_the_same_residual() {
    let (psf, channel, settings) = (psf(), channel(0, 0.004), Settings::default());
    let whole = step(&channel, &psf, None, &settings).unwrap();

    let input = |failure_rate| CleanStep {
        channel: channel.clone(),
        psf: psf.clone(),
        previous: None,
        settings: settings.clone(),
        failures: Failures {
            simulate_failures: true,
            failure_rate,
            seed: 0,
        },
    };
    let saved = {
        let host = TestHost::new().install();
        let failure = clean_step(input(1.0)).unwrap_err();
        assert_eq!(
            (failure.get_code(), failure.is_fatal()),
            (Some("simulated_failure"), false)
        );
        host.checkpoint().expect("it saved one before it failed")
    };
    let host = TestHost::new().try_number(2, 3).checkpoint(saved.clone()).install();
    let resumed = clean_step(input(0.0)).unwrap();
    assert_eq!((&resumed.residual, resumed.minor_cycles), (&whole.residual, 50));
    assert_eq!(resumed.components.len(), whole.components.len());
    for (resumed, whole) in resumed.components.iter().zip(&whole.components) {
        assert_eq!((resumed.x, resumed.y), (whole.x, whole.y));
        // Numbers that went through JSON may have lost their last bit.
        assert!((resumed.flux_jy - whole.flux_jy).abs() < 1e-14);
    }
    assert_eq!(host.log()[0].message, "goes on from the checkpoint");
    assert_eq!(host.log()[0].fields["minor_cycles"], 25);
    assert_eq!(host.checkpoint(), None);
    drop(host);

    // It is of no use to another step.
    let host = TestHost::new().checkpoint(saved).install();
    let next = step(&channel, &psf, Some(whole), &settings).unwrap();
    assert_eq!((next.iteration, next.minor_cycles), (2, 100));
    assert_ne!(host.log()[0].message, "goes on from the checkpoint");
}

#[test]
fn the_maximum_finishes_a_channel_that_has_not_converged() {
    let (psf, channel) = (psf(), channel(0, 0.004));
    let settings = Settings {
        max_minor_cycles: 70,
        ..Settings::default()
    };
    let state = solve(&channel, &psf, &settings);
    assert_eq!((state.minor_cycles, state.iteration), (70, 2));
    assert!(state.finished && !state.converged);
    // Another step changes nothing.
    assert_eq!(step(&channel, &psf, Some(state.clone()), &settings).unwrap(), state);
}

#[test]
fn a_wrong_psf_is_noticed() {
    let channel = channel(0, 0.004);
    // Peaks that subtract themselves twice over and more.
    let steep = npy::Array {
        shape: vec![3, 3],
        values: vec![3.5; 9],
    };
    let psf = Psf {
        image: Blob::from_bytes(npy::encode(&steep, Precision::Single), None).unwrap(),
        ..psf()
    };
    let settings = Settings {
        gain: 1.0,
        ..Settings::default()
    };
    let failure = step(&channel, &psf, None, &settings).unwrap_err();
    assert_eq!((failure.get_code(), failure.is_fatal()), (Some("clean_diverged"), true));
}

#[test]
fn what_cannot_work_is_fatal() {
    let psf = psf();
    let code = |channel: &Channel, previous, settings: Settings| {
        let failure = step(channel, &psf, previous, &settings).unwrap_err();
        assert!(failure.is_fatal());
        failure.get_code().unwrap().to_owned()
    };
    let good = channel(1, 0.004);
    let gain = Settings {
        gain: 0.0,
        ..Settings::default()
    };
    assert_eq!(code(&good, None, gain), "invalid_settings");
    assert_eq!(code(&channel(1, 0.0), None, Settings::default()), "no_noise");
    let other = step(&channel(2, 0.012), &psf, None, &Settings::default()).unwrap();
    assert_eq!(code(&good, Some(other), Settings::default()), "wrong_channel");
    let blank = Channel {
        image: Image::new(4, vec![f64::NAN; 16])
            .unwrap()
            .write(Precision::Single)
            .unwrap(),
        ..good
    };
    assert_eq!(code(&blank, None, Settings::default()), "bad_pixels");
}
