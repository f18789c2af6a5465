//! NumPy's array format `.npy`, as far as images need it: floating-point numbers in C order.
//!
//! Every image between two tasks is such a blob, so that `numpy.load` opens it.

use airtight_sdk::prelude::*;

use crate::count_values;

/// What the blobs say they are.
pub const MEDIA_TYPE: &str = "application/x-npy";
/// How a file begins.
pub const MAGIC: &[u8] = b"\x93NUMPY";

/// An array in C order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// The length of each axis, the slowest first.
    pub shape: Vec<usize>,
    /// As many values as the shape says.
    pub values: Vec<f64>,
}

/// How exactly values are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Four bytes a value: what instruments and users need.
    Single,
    /// Eight bytes a value: what an iteration needs that goes on where the last one stopped.
    Double,
}

/// Reads a file.
pub fn decode(bytes: &[u8]) -> Result<Array> {
    let (header, data) = split(bytes).ok_or_else(|| not_npy("it is cut short"))?;
    if member(header, "fortran_order").is_some_and(|value| value.starts_with("True")) {
        return Err(not_npy("Fortran order is not supported"));
    }
    let shape = shape(header).ok_or_else(|| not_npy("its header has no shape"))?;
    let count = count_values(&shape).ok_or_else(|| not_npy("it is empty or too large"))?;
    let descr = member(header, "descr").and_then(|value| value.strip_prefix('\'')?.split('\'').next());
    let values = match descr {
        Some("<f4") => numbers(data, count, |bytes| f32::from_le_bytes(bytes).into()),
        Some(">f4") => numbers(data, count, |bytes| f32::from_be_bytes(bytes).into()),
        Some("<f8") => numbers(data, count, f64::from_le_bytes),
        Some(">f8") => numbers(data, count, f64::from_be_bytes),
        _ => return Err(not_npy("its values are not floating-point numbers of 4 or 8 bytes")),
    };
    let values = values.ok_or_else(|| not_npy("its size is not what its header says"))?;
    Ok(Array { shape, values })
}

/// Writes a file.
pub fn encode(array: &Array, precision: Precision) -> Vec<u8> {
    let (descr, width) = match precision {
        Precision::Single => ("<f4", 4),
        Precision::Double => ("<f8", 8),
    };
    let axes: String = array.shape.iter().map(|axis| format!("{axis}, ")).collect();
    let header = format!(
        "{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}",
        axes.trim_end()
    );
    // The data begin at a multiple of 64 bytes, and the header ends with a line feed.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = Vec::with_capacity(10 + length + width * array.values.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&(length as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(10 + length - 1, b' ');
    bytes.push(b'\n');
    for value in &array.values {
        match precision {
            Precision::Single => bytes.extend_from_slice(&(*value as f32).to_le_bytes()),
            Precision::Double => bytes.extend_from_slice(&value.to_le_bytes()),
        }
    }
    bytes
}

/// Big or little endian numbers of `N` bytes; none if there are not exactly so many.
pub(crate) fn numbers<const N: usize>(data: &[u8], count: usize, read: impl Fn([u8; N]) -> f64) -> Option<Vec<f64>> {
    let (chunks, []) = data.as_chunks::<N>() else {
        return None;
    };
    (chunks.len() == count).then(|| chunks.iter().map(|chunk| read(*chunk)).collect())
}

fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let ([major, _], rest) = rest.split_first_chunk::<2>()?;
    let (length, rest) = if *major == 1 {
        let (length, rest) = rest.split_first_chunk::<2>()?;
        (usize::from(u16::from_le_bytes(*length)), rest)
    } else {
        let (length, rest) = rest.split_first_chunk::<4>()?;
        (usize::try_from(u32::from_le_bytes(*length)).ok()?, rest)
    };
    let (header, data) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

/// What stands behind a key of the header, up to its end.
fn member<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, value) = header.split_once(&format!("'{key}':"))?;
    Some(value.trim_start())
}

fn shape(header: &str) -> Option<Vec<usize>> {
    let (inside, _) = member(header, "shape")?.strip_prefix('(')?.split_once(')')?;
    inside
        .split(',')
        .map(str::trim)
        .filter(|axis| !axis.is_empty())
        .map(|axis| axis.parse().ok())
        .collect()
}

fn not_npy(why: &str) -> Failure {
    Failure::fatal(format!("cannot read the array: {why}")).code("not_an_array")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let array = Array {
            shape: vec![2, 3],
            values: vec![1.0, -2.5, 0.0, f64::MIN_POSITIVE, 1e300, 0.1],
        };
        let bytes = encode(&array, Precision::Double);
        assert_eq!(decode(&bytes).unwrap(), array);
        assert_eq!((bytes.len() - 6 * 8) % 64, 0);

        let single = decode(&encode(&array, Precision::Single)).unwrap();
        assert_eq!((single.values[1], single.values[5]), (-2.5, f64::from(0.1_f32)));
    }

    #[test]
    fn what_is_no_array_is_fatal() {
        let whole = encode(
            &Array {
                shape: vec![4],
                values: vec![0.0; 4],
            },
            Precision::Single,
        );
        for end in 0..whole.len() {
            let failure = decode(&whole[..end]).unwrap_err();
            assert_eq!((failure.get_code(), failure.is_fatal()), (Some("not_an_array"), true));
        }
        let huge = String::from_utf8_lossy(&whole[10..128]).replace("(4,)", "(99999999999, 99999999999)");
        let mut bytes = whole[..8].to_vec();
        bytes.extend_from_slice(&(huge.len() as u16).to_le_bytes());
        bytes.extend_from_slice(huge.as_bytes());
        assert_eq!(
            decode(&bytes).unwrap_err().message(),
            "cannot read the array: it is empty or too large"
        );
    }
}
