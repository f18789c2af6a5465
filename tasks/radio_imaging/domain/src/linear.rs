//! Small systems of linear equations, as least squares make them.

/// The inverse of a symmetric positive definite matrix; none where it is singular.
pub fn invert(matrix: &[Vec<f64>]) -> Option<Vec<Vec<f64>>> {
    let n = matrix.len();
    let mut rows: Vec<Vec<f64>> = matrix
        .iter()
        .enumerate()
        .map(|(i, row)| {
            let mut row = row.clone();
            row.extend((0..n).map(|j| f64::from(u8::from(i == j))));
            row
        })
        .collect();
    if rows.iter().any(|row| row.len() != 2 * n) {
        return None;
    }
    for column in 0..n {
        let pivot = (column..n).max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()))?;
        rows.swap(column, pivot);
        let scale = rows[column][column];
        if scale.is_nan() || scale.abs() <= 1e-12 {
            return None;
        }
        rows[column].iter_mut().for_each(|value| *value /= scale);
        let pivot_row = rows[column].clone();
        for (other, row) in rows.iter_mut().enumerate() {
            let factor = row[column];
            if other != column && factor != 0.0 {
                row.iter_mut()
                    .zip(&pivot_row)
                    .for_each(|(value, pivot)| *value -= factor * pivot);
            }
        }
    }
    Some(rows.into_iter().map(|row| row[n..].to_vec()).collect())
}

/// A matrix times a vector.
pub fn multiply(matrix: &[Vec<f64>], vector: &[f64]) -> Vec<f64> {
    let dot = |row: &Vec<f64>| row.iter().zip(vector).map(|(a, b)| a * b).sum();
    matrix.iter().map(dot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_undoes_the_matrix() {
        let matrix = vec![vec![4.0, 1.0, 0.5], vec![1.0, 3.0, 0.2], vec![0.5, 0.2, 2.0]];
        let inverse = invert(&matrix).unwrap();
        let back = multiply(&inverse, &multiply(&matrix, &[1.0, -2.0, 3.0]));
        assert!(back.iter().zip([1.0, -2.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn a_singular_matrix_has_none() {
        assert_eq!(invert(&[vec![1.0, 1.0], vec![1.0, 1.0]]), None);
        assert_eq!(invert(&[vec![f64::NAN]]), None);
        assert_eq!(invert(&[vec![1.0, 2.0]]), None);
    }
}
