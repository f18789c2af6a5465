//! FITS, the format of astronomy (Pence et al. 2010), as far as cubes need it: one array of floating-point numbers, at most
//! three-dimensional, the third axis linear in frequency.

use airtight_sdk::prelude::*;

use crate::count_values;
use crate::npy::numbers;

/// What the blobs say they are.
pub const MEDIA_TYPE: &str = "image/fits";
/// How a file begins.
pub const MAGIC: &[u8] = b"SIMPLE  =";
/// Files are made of blocks of this size, headers of cards.
const BLOCK: usize = 2880;
const CARD: usize = 80;
/// Longer headers are not read.
const MAX_CARDS: usize = 36 * 64;

/// An array with what its header says.
#[derive(Clone, Debug, PartialEq)]
pub struct Cube {
    /// Pixels along x, along y, and planes.
    pub shape: [usize; 3],
    /// Plane by plane, row by row.
    pub values: Vec<f64>,
    /// The frequency of the first plane and the step; none where the third axis is no frequency.
    pub frequency_hz: Option<(f64, f64)>,
    /// `OBJECT`.
    pub object: Option<String>,
    /// `BUNIT`.
    pub unit: Option<String>,
    /// `HISTORY`, line by line; only written.
    pub history: Vec<String>,
}

impl Cube {
    /// The planes in their order.
    pub fn planes(&self) -> std::slice::ChunksExact<'_, f64> {
        let [width, height, _] = self.shape;
        self.values.chunks_exact((width * height).max(1))
    }

    /// The frequency of a plane.
    pub fn frequency(&self, plane: usize) -> Option<f64> {
        self.frequency_hz.map(|(first, step)| first + step * plane as f64)
    }
}

/// Reads the first array of a file.
pub fn decode(bytes: &[u8]) -> Result<Cube> {
    let (header, data) = split(bytes)?;
    let axes = header.number("NAXIS").unwrap_or(0.0) as usize;
    if !(1..=4).contains(&axes) {
        return Err(not_fits(format!("{axes} axes are not supported")));
    }
    let mut shape = [1; 3];
    for axis in 1..=axes {
        let length = header.number(&format!("NAXIS{axis}")).unwrap_or(0.0) as usize;
        match shape.get_mut(axis - 1) {
            Some(entry) => *entry = length,
            // The fourth is polarisation, and images of the total intensity have one.
            None if length == 1 => {}
            None => return Err(not_fits("a fourth axis longer than 1 is not supported")),
        }
    }
    let count = count_values(&shape).ok_or_else(|| not_fits("the array is empty or too large"))?;
    let bits = header.number("BITPIX").unwrap_or(0.0);
    let width = if bits == -32.0 { 4 } else { 8 };
    let data = data.get(..width * count).ok_or_else(|| not_fits("it is cut short"))?;
    let values = match bits {
        -32.0 => numbers(data, count, |bytes| f32::from_be_bytes(bytes).into()),
        -64.0 => numbers(data, count, f64::from_be_bytes),
        _ => return Err(not_fits("only floating-point values (BITPIX -32 or -64) are supported")),
    };
    let values = values.ok_or_else(|| not_fits("it is cut short"))?;

    let is_frequency = header.text("CTYPE3").is_some_and(|name| name.starts_with("FREQ"));
    let axis = || {
        let step = header.number("CDELT3")?;
        let reference = header.number("CRPIX3").unwrap_or(1.0);
        let first = header.number("CRVAL3")? + (1.0 - reference) * step;
        (first.is_finite() && step.is_finite()).then_some((first, step))
    };
    Ok(Cube {
        shape,
        values,
        frequency_hz: is_frequency.then(axis).flatten(),
        object: header.text("OBJECT"),
        unit: header.text("BUNIT"),
        history: Vec::new(),
    })
}

/// Writes a file, in single precision.
pub fn encode(cube: &Cube) -> Vec<u8> {
    let mut cards = vec![
        card("SIMPLE", "T"),
        card("BITPIX", "-32"),
        card("NAXIS", "3"),
        card("NAXIS1", &cube.shape[0].to_string()),
        card("NAXIS2", &cube.shape[1].to_string()),
        card("NAXIS3", &cube.shape[2].to_string()),
    ];
    if let Some(object) = &cube.object {
        cards.push(text_card("OBJECT", object));
    }
    if let Some(unit) = &cube.unit {
        cards.push(text_card("BUNIT", unit));
    }
    cards.push(text_card("CTYPE1", "PIXEL-X"));
    cards.push(text_card("CTYPE2", "PIXEL-Y"));
    if let Some((first, step)) = cube.frequency_hz {
        cards.push(text_card("CTYPE3", "FREQ"));
        cards.push(card("CRVAL3", &format!("{first:?}")));
        cards.push(card("CDELT3", &format!("{step:?}")));
        cards.push(card("CRPIX3", "1.0"));
        cards.push(text_card("CUNIT3", "Hz"));
    }
    cards.extend(cube.history.iter().map(|line| format!("HISTORY {}", ascii(line, 72))));
    cards.push("END".to_owned());

    let mut bytes = Vec::with_capacity(2 * BLOCK + 4 * cube.values.len());
    for card in &cards {
        bytes.extend_from_slice(format!("{card:CARD$}").as_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(BLOCK), b' ');
    for value in &cube.values {
        bytes.extend_from_slice(&(*value as f32).to_be_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn card(key: &str, value: &str) -> String {
    format!("{key:8}= {value:>20}")
}

fn text_card(key: &str, value: &str) -> String {
    format!("{key:8}= '{:8}'", ascii(value, 60).replace('\'', ""))
}

/// Headers are printable ASCII.
fn ascii(text: &str, most: usize) -> String {
    text.chars()
        .map(|c| if matches!(c, ' '..='~') { c } else { '?' })
        .take(most)
        .collect()
}

struct Header<'a>(Vec<(&'a str, &'a str)>);

impl Header<'_> {
    fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    fn number(&self, key: &str) -> Option<f64> {
        let value = self.value(key)?.split('/').next()?.trim();
        // Fortran writes its exponents with a D.
        value.replace('D', "E").parse().ok()
    }

    fn text(&self, key: &str) -> Option<String> {
        let inside = self.value(key)?.trim().strip_prefix('\'')?.split('\'').next()?;
        Some(inside.trim_end().to_owned())
    }
}

fn split(bytes: &[u8]) -> Result<(Header<'_>, &[u8])> {
    if !bytes.starts_with(MAGIC) {
        return Err(not_fits("it does not begin with SIMPLE"));
    }
    let mut cards = Vec::new();
    for (at, card) in bytes.chunks_exact(CARD).take(MAX_CARDS).enumerate() {
        let card = std::str::from_utf8(card).map_err(|_| not_fits("its header is not ASCII"))?;
        let key = card.get(..8).unwrap_or_default().trim_end();
        if key == "END" {
            let start = ((at + 1) * CARD).next_multiple_of(BLOCK);
            return Ok((Header(cards), bytes.get(start..).unwrap_or_default()));
        }
        if let Some(value) = card.get(8..).and_then(|rest| rest.strip_prefix("= ")) {
            cards.push((key, value));
        }
    }
    Err(not_fits("its header has no end"))
}

fn not_fits(why: impl std::fmt::Display) -> Failure {
    Failure::fatal(format!("cannot read the FITS file: {why}")).code("not_a_cube")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cube() -> Cube {
        Cube {
            shape: [3, 2, 2],
            values: (0..12).map(f64::from).collect(),
            frequency_hz: Some((1.4e9, 1e7)),
            object: Some("M 87".to_owned()),
            unit: Some("Jy/beam".to_owned()),
            history: Vec::new(),
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let mut noted = cube();
        noted.history = vec!["made by a test\u{1F52D}".to_owned()];
        let bytes = encode(&noted);
        assert_eq!(bytes.len() % BLOCK, 0);
        assert_eq!(decode(&bytes).unwrap(), cube());
        assert_eq!(cube().frequency(1), Some(1.41e9));
        assert_eq!(cube().planes().nth(1).unwrap(), [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
    }

    #[test]
    fn what_is_no_cube_is_fatal() {
        let whole = encode(&cube());
        for end in (0..BLOCK + 40).step_by(8) {
            let failure = decode(&whole[..end]).unwrap_err();
            assert_eq!((failure.get_code(), failure.is_fatal()), (Some("not_a_cube"), true));
        }
        let huge =
            String::from_utf8_lossy(&whole).replace("NAXIS1  =                    3", "NAXIS1  =   99999999999999999");
        assert!(decode(huge.as_bytes()).is_err());
    }
}
