//! The whole workflow, task by task, on the example's cube; what it finds is compared with what was put in. The bounds are explained in the
//! workflow's `README.md`.

mod workflow;

use airtight_sdk::serde_json::{self, Value, json};
use {radio_catalogue as _, radio_clean as _, radio_cube as _};

use workflow::Workflow;

const TRUTH: &str = include_str!("../../../data/truth.json");
const REFERENCE: &str = include_str!("../../../data/clean_ref.json");

/// How far a source may be from its place, in pixels.
const POSITION: f64 = 0.3;
/// From this flux on it may be only so far.
const BRIGHT: (f64, f64) = (0.1, 0.1);
/// How far a flux of the catalogue may be off, as a share.
const FLUX: f64 = 0.02;
/// Or as a share of CLEAN's threshold.
const REMAINS: f64 = 0.5;
/// How far a flux in one channel may be off, in its own errors, and in noises of a pixel.
const CHANNEL_FLUX: (f64, f64) = (4.0, 2.0);
/// How far a spectral index may be off, in its own errors.
const INDEX: f64 = 3.0;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("the file is JSON")
}

fn channel_fluxes(source: &Value) -> Vec<f64> {
    list(&source["flux_jy"]).iter().map(number).collect()
}

fn brightest(source: &Value) -> f64 {
    channel_fluxes(source).into_iter().fold(0.0, f64::max)
}

/// Pairs every source that was put in with the one that was found at its place: each with one, and none is left over. `brightness` is that of a
/// source in the image in which it is clearest.
fn matched<'a>(truth: &'a Value, found: &'a Value, brightness: impl Fn(&Value) -> f64) -> Vec<(&'a Value, &'a Value)> {
    let (put_in, found) = (list(&truth["sources"]), list(&found["sources"]));
    let distance = |source: &Value, found: &Value| {
        (number(&source["x"]) - number(&found["x_px"])).hypot(number(&source["y"]) - number(&found["y_px"]))
    };
    let mut pairs = Vec::new();
    for source in put_in {
        let bound = if brightness(source) >= BRIGHT.0 {
            BRIGHT.1
        } else {
            POSITION
        };
        let near: Vec<&Value> = found.iter().filter(|found| distance(source, found) <= bound).collect();
        assert_eq!(
            near.len(),
            1,
            "found {near:?} within {bound} px of source {}",
            source["id"]
        );
        pairs.push((source, near[0]));
    }
    assert_eq!(
        found.len(),
        put_in.len(),
        "something was found where nothing is: {found:?}"
    );
    pairs
}

/// The cube's workflow up to its catalogue.
fn image_the_cube(workflow: &mut Workflow) -> (Value, Value, Value) {
    let calibrated = workflow.calibrate();
    let assembled = workflow.solve(
        &calibrated["channels"],
        &calibrated["psf"],
        &calibrated["context"],
        &json!({}),
        "imaging",
    );
    let found = workflow.find(&assembled, "catalogue");
    (calibrated, assembled, found)
}

#[test]
fn the_cube_gives_back_what_was_put_in() {
    let truth = parse(TRUTH);
    let mut workflow = Workflow::new(0.0);
    let (_, assembled, found) = image_the_cube(&mut workflow);
    assert_eq!(assembled["summary"]["converged"], 10);

    let reference_hz = number(&found["reference_frequency_hz"]);
    for (source, found) in matched(&truth, &found, brightest) {
        let id = &source["id"];
        assert_eq!(source["kind"], found["kind"], "source {id}");
        let channels = list(&source["flux_jy"]).iter().zip(list(&truth["noise_sigma_jy"]));
        for ((flux, sigma), point) in channels.zip(list(&found["spectrum"])) {
            let off = (number(&point["flux_jy"]) - number(flux)).abs();
            let (errors, sigmas) = (off / number(&point["error_jy"]), off / number(sigma));
            assert!(
                errors < CHANNEL_FLUX.0 && sigmas < CHANNEL_FLUX.1,
                "source {id}: {flux}, not {point}"
            );
        }
        let flux = match source["spectral_index"].as_f64() {
            Some(index) => {
                let off = (number(&found["spectral_index"]) - index) / number(&found["spectral_index_error"]);
                assert!(off.abs() < INDEX, "source {id}: {index}, not {found}");
                number(&source["flux_at_1_400GHz_jy"]) * (reference_hz / 1.4e9).powf(index)
            }
            None => {
                let fluxes = channel_fluxes(source);
                let channel = ((number(&found["line_frequency_hz"]) - 1.4e9) / 1e7).round() as usize;
                // The line of source 8 lies between two channels that are equally bright.
                let peak = brightest(source);
                assert_eq!(fluxes[channel], peak, "source {id}: {found}");
                peak
            }
        };
        let off = number(&found["flux_jy"]) / flux - 1.0;
        assert!(off.abs() < FLUX, "source {id}: {flux}, not {found}");
    }
}

#[test]
fn every_channel_takes_about_as_long_as_the_reference() {
    let reference = parse(REFERENCE);
    let mut workflow = Workflow::new(0.0);
    let calibrated = workflow.calibrate();
    let (channels, psf) = (list(&calibrated["channels"]), &calibrated["psf"]);
    for (reference, channel) in list(&reference["channels"]).iter().zip(channels) {
        let restored = workflow.solve_channel(0, channel, psf, &json!({}));
        // The noise is measured here, within 4 %, and known there. In this range the peak falls by 1 % with a minor cycle or two.
        let off = number(&restored["minor_cycles"]) / number(&reference["iterations"]) - 1.0;
        assert!(off.abs() < 0.05, "{restored} for {reference}");
        assert!(number(&restored["residual_peak_jy"]) <= number(&restored["threshold_jy"]));
        let rms = number(&restored["residual_rms_jy"]) / number(&reference["residual_rms_jy"]);
        assert!((rms - 1.0).abs() < 0.02, "{restored} for {reference}");
    }
}

#[test]
fn the_continuum_reuses_the_solver_and_sees_deeper() {
    let truth = parse(TRUTH);
    let mut workflow = Workflow::new(0.0);
    let calibrated = workflow.calibrate();
    let averaged = workflow.run("average_channels", 0, json!({"channels": calibrated["channels"]}));
    let settings = json!({"threshold_sigmas": 4.0, "minor_cycles": 100});
    let (psf, context) = (&calibrated["psf"], &calibrated["context"]);
    let assembled = workflow.solve(&averaged["channels"], psf, context, &settings, "continuum");
    let found = workflow.find(&assembled, "continuum_catalogue");

    let threshold = 4.0 * number(&averaged["channels"][0]["sigma_jy"]);
    let weights: Vec<f64> = list(&truth["noise_sigma_jy"])
        .iter()
        .map(|sigma| number(sigma).powi(-2))
        .collect();
    let mean = |source: &Value| {
        let weighted = channel_fluxes(source)
            .into_iter()
            .zip(&weights)
            .map(|(flux, weight)| flux * weight);
        weighted.sum::<f64>() / weights.iter().sum::<f64>()
    };
    for (source, found) in matched(&truth, &found, mean) {
        let mean = mean(source);
        let off = (number(&found["flux_jy"]) - mean).abs();
        assert!(off < FLUX * mean || off < REMAINS * threshold, "{mean}, not {found}");
    }
    let stages: Vec<&Value> = list(&found["context"]["qa"])
        .iter()
        .map(|entry| &entry["stage"])
        .collect();
    assert_eq!(stages, ["calibration", "continuum", "continuum_catalogue"]);
}

#[test]
fn failures_on_the_way_change_nothing() {
    let (_, _, expected) = image_the_cube(&mut Workflow::new(0.0));
    let mut workflow = Workflow::new(0.4);
    let (_, _, found) = image_the_cube(&mut workflow);
    // 62 tasks run; two in five tries fail, so two thirds as many tries fail as tasks succeed.
    assert!((20..=70).contains(&workflow.failed), "{} tries failed", workflow.failed);
    let (found, expected) = (list(&found["sources"]), list(&expected["sources"]));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        for name in ["x_px", "y_px", "flux_jy"] {
            // Components that went through a checkpoint's JSON may have lost their last bit.
            assert!(
                (number(&found[name]) - number(&expected[name])).abs() < 1e-6,
                "{found}, not {expected}"
            );
        }
    }
}

#[test]
fn a_flagged_channel_is_left_out_to_the_end() {
    let mut workflow = Workflow::new(0.0);
    let calibrated = workflow.calibrate_with(&json!({"flag_above": 2.5}));
    assert_eq!(list(&calibrated["channels"]).len(), 9);
    let (psf, context) = (&calibrated["psf"], &calibrated["context"]);
    let assembled = workflow.solve(&calibrated["channels"], psf, context, &json!({}), "imaging");
    let planes: Vec<f64> = list(&assembled["planes"])
        .iter()
        .map(|plane| number(&plane["plane"]))
        .collect();
    assert_eq!(planes, [0.0, 1.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    let found = workflow.find(&assembled, "catalogue");
    matched(&parse(TRUTH), &found, brightest);
}

#[test]
fn people_get_scores_reasons_and_a_report() {
    let mut workflow = Workflow::new(0.0);
    let (_, assembled, found) = image_the_cube(&mut workflow);
    let saved = workflow.run("save_context", 0, json!({"context": found["context"]}));
    let context = workflow.run("load_context", 0, json!({"context": saved["context"]}));
    assert_eq!(context, found["context"]);

    let judgement = workflow.run("qa_score", 0, json!({"context": context}));
    assert_eq!(
        (&judgement["verdict"], &judgement["worst_stage"]),
        (&json!("usable"), &json!("calibration"))
    );
    let body = judgement["body"].as_str().expect("text");
    assert!(
        body.contains("channel 2 (1.420 GHz) has 3.0 times the median noise"),
        "{body}"
    );

    let report = workflow.run(
        "report",
        0,
        json!({
            "context": context,
            "summary": assembled["summary"],
            "sources": found["sources"],
            "reference_frequency_hz": found["reference_frequency_hz"],
            "decision": {"chosen_options": ["accept"]},
        }),
    );
    assert_eq!((&report["sources"], &report["lines"]), (&json!(10), &json!(2)));
    let blob: airtight_sdk::Blob = serde_json::from_value(report["report"].clone()).expect("a blob");
    let text = blob.text().expect("the report is text");
    assert!(
        text.contains("10 of 10 channels converged") && text.contains("\"accept\""),
        "{text}"
    );
}
