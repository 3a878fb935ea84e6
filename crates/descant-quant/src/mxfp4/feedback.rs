//! Rounding rows to MXFP4 so that an update to them survives.
//!
//! A small update is lost when each number is rounded to the nearest one of the format: half a step is 8 to 25 % of a
//! weight. What the update does shows only in the directions that its factor A reads. So a row is rounded column by
//! column to one of the two neighbouring numbers, the one with the smaller
//!
//! ```text
//! |c + e q|^2 + strength * rank / d_in * e^2
//! ```
//!
//! where `e` is the error it makes, `q` the column's row in an orthonormal basis of that space, and `c` the sum of
//! `e q` so far: errors are steered out of the space, and the second term keeps them small. The first columns have no
//! say over later ones beyond `c`. GPTQ feeds errors back too, in the space of calibration data; here the space is the
//! adapter's own, so that no data is needed. Ties take the lower number; rows do not depend on each other.

use super::encode::{MAX_LEVEL, inverse};
use super::{BLOCK, BLOCK_BYTES, scale};
use crate::error::{Result, check_finite, check_length};

/// Which of two neighbours is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rounding {
    /// The nearer one, the even code of two that are equally near.
    Nearest,
    /// The one that keeps what the basis spans; `strength` weighs the plain error against that.
    Feedback {
        /// Larger is closer to [`Nearest`](Self::Nearest); 1 is a good choice.
        strength: f64,
    },
}

/// The space in which errors are counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Basis {
    /// `[d_in, rank]`, orthonormal columns.
    vectors: Vec<f64>,
    /// `[d_in]`, the squared length of each row of it.
    squares: Vec<f64>,
    rank: usize,
    d_in: usize,
}

impl Basis {
    /// An orthonormal basis of the space that the rows of `a` span.
    ///
    /// Gram-Schmidt, twice over; rows that add no direction of their own are left out.
    ///
    /// # Shapes
    /// - `a`: `[rows, d_in]`
    pub fn of_rows(a: &[f32], d_in: usize) -> Self {
        /// Below this share of a row's length, what is left of it is rounding.
        const RESIDUE: f64 = 1e-10;
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let mut found: Vec<Vec<f64>> = Vec::new();
        for row in a.chunks_exact(d_in) {
            let mut row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            let length = dot(&row, &row).sqrt();
            for _ in 0..2 {
                for other in &found {
                    let along = dot(&row, other);
                    row.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
                }
            }
            let left = dot(&row, &row).sqrt();
            if left > RESIDUE * length {
                for x in &mut row {
                    *x /= left;
                }
                found.push(row);
            }
        }
        let rank = found.len();
        let mut vectors = vec![0.0; d_in * rank];
        for (k, vector) in found.iter().enumerate() {
            for (j, x) in vector.iter().enumerate() {
                vectors[j * rank + k] = *x;
            }
        }
        let square = |j: usize| vectors[j * rank..(j + 1) * rank].iter().fold(0.0, |sum, q| sum + q * q);
        let squares = (0..d_in).map(square).collect();
        Self { vectors, squares, rank, d_in }
    }

    /// Directions.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// `x` in this basis.
    pub fn project(&self, x: &[f32]) -> Vec<f64> {
        let mut along = vec![0.0; self.rank];
        for (x, q) in x.iter().zip(self.vectors.chunks_exact(self.rank.max(1))) {
            along.iter_mut().zip(q).for_each(|(along, q)| *along += f64::from(*x) * q);
        }
        along
    }
}

/// Rows that are rounded together: as many as a vector has room for.
const LANES: usize = 8;
/// The numbers of the format in order.
const LEVELS: [f32; 15] =
    [-6.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, MAX_LEVEL];
/// The same in f64, which errors are counted in.
const WIDE_LEVELS: [f64; 15] = {
    let mut wide = [0.0; 15];
    let mut at = 0;
    while at < wide.len() {
        wide[at] = LEVELS[at] as f64;
        at += 1;
    }
    wide
};
/// Where zero is among them; its code says the sign of what was rounded.
const ZERO: usize = 7;
/// Bit of a code that says minus.
const SIGN: u8 = 8;
/// Their codes.
const CODES: [u8; 15] = [15, 14, 13, 12, 11, 10, 9, 0, 1, 2, 3, 4, 5, 6, 7];

/// Packs `rows` under the scales given, and says what was lost: the squared error of all, and for each row its error
/// in the basis.
///
/// # Shapes
/// - `rows`: `[n, d_in]`; `scales`: `[n, d_in / 32]`; `blocks`: `[n, d_in / 2]`; `carried`: `[n, rank]`, written
///
/// # Errors
/// The lengths do not agree, or a value is not finite.
pub fn round_rows(
    rows: &[f32],
    basis: &Basis,
    rounding: Rounding,
    scales: &[u8],
    blocks: &mut [u8],
    carried: &mut [f64],
) -> Result<f64> {
    let Basis { d_in, rank, .. } = *basis;
    let n = rows.len() / d_in.max(1);
    check_length("rows", n * d_in, rows.len())?;
    check_length("scales", n * (d_in / BLOCK), scales.len())?;
    check_length("blocks", scales.len() * BLOCK_BYTES, blocks.len())?;
    check_length("columns", d_in / BLOCK * BLOCK, d_in)?;
    check_length("carried", n * rank, carried.len())?;
    check_finite("row", rows)?;
    let mut total = 0.0;
    for first in (0..n).step_by(LANES) {
        let lanes = LANES.min(n - first);
        total += match rounding {
            Rounding::Nearest => group(rows, basis, &nearer, scales, blocks, carried, first, lanes),
            Rounding::Feedback { strength } => {
                let weight = strength * rank as f64 / d_in as f64;
                let choose = |left: f64, right: f64, along: f64, square: f64, _: usize| {
                    2.0 * right * along + right * right * (square + weight)
                        < 2.0 * left * along + left * left * (square + weight)
                };
                group(rows, basis, &choose, scales, blocks, carried, first, lanes)
            }
        };
    }
    Ok(total)
}

/// Whether the upper of two neighbours is nearer; `below` is the place of the lower one in [`LEVELS`].
fn nearer(left: f64, right: f64, _: f64, _: f64, below: usize) -> bool {
    // Zero, in the middle, has an even code; from there on they alternate.
    let (left, right) = (-left, right);
    right < left || (right.to_bits() == left.to_bits() && below.is_multiple_of(2))
}

/// Rounds the rows `first .. first + lanes`.
#[inline]
fn group(
    rows: &[f32],
    basis: &Basis,
    upper: &impl Fn(f64, f64, f64, f64, usize) -> bool,
    scales: &[u8],
    blocks: &mut [u8],
    carried: &mut [f64],
    first: usize,
    lanes: usize,
) -> f64 {
    let Basis { vectors, squares, rank, d_in } = basis;
    let (rank, d_in) = (*rank, *d_in);
    let width = d_in / BLOCK;
    let mut c = vec![[0.0_f64; LANES]; rank];
    let mut total = [0.0_f64; LANES];
    for block in 0..width {
        // Lanes without a row hold zeros, which are rounded to themselves.
        let mut x = [[0.0_f32; LANES]; BLOCK];
        let (mut unit, mut inverse_unit) = ([1.0_f64; LANES], [1.0_f32; LANES]);
        for lane in 0..lanes {
            let row = &rows[(first + lane) * d_in..][block * BLOCK..][..BLOCK];
            let byte = scales[(first + lane) * width + block];
            (unit[lane], inverse_unit[lane]) = (f64::from(scale(byte)), inverse(byte));
            x.iter_mut().zip(row).for_each(|(x, value)| x[lane] = *value);
        }
        let mut codes = [[0_u8; LANES]; BLOCK];
        for (column, (x, codes)) in x.iter().zip(&mut codes).enumerate() {
            let j = block * BLOCK + column;
            let q = &vectors[j * rank..(j + 1) * rank];
            let mut along = [0.0_f64; LANES];
            for (q, c) in q.iter().zip(&c) {
                for lane in 0..LANES {
                    along[lane] += c[lane] * q;
                }
            }
            let error = chosen(x, &unit, &inverse_unit, &along, squares[j], upper, codes);
            for (q, c) in q.iter().zip(&mut c) {
                for lane in 0..LANES {
                    c[lane] += error[lane] * q;
                }
            }
            for lane in 0..LANES {
                total[lane] += error[lane] * error[lane];
            }
        }
        for lane in 0..lanes {
            let bytes = &mut blocks[((first + lane) * width + block) * BLOCK_BYTES..][..BLOCK_BYTES];
            let (pairs, _) = codes.as_chunks::<2>();
            bytes.iter_mut().zip(pairs).for_each(|(byte, [even, odd])| *byte = even[lane] | odd[lane] << 4);
        }
    }
    for lane in 0..lanes {
        for (k, c) in c.iter().enumerate() {
            carried[(first + lane) * rank + k] = c[lane];
        }
    }
    total.iter().sum()
}

/// Takes one of the two neighbours of a column's numbers: writes its codes and returns its errors.
#[inline]
fn chosen(
    x: &[f32; LANES],
    unit: &[f64; LANES],
    inverse_unit: &[f32; LANES],
    along: &[f64; LANES],
    square: f64,
    upper: &impl Fn(f64, f64, f64, f64, usize) -> bool,
    codes: &mut [u8; LANES],
) -> [f64; LANES] {
    // The lower neighbour, as its place among the levels.
    let mut below = [0_u32; LANES];
    for level in &LEVELS[1..LEVELS.len() - 1] {
        for lane in 0..LANES {
            below[lane] += u32::from(x[lane] * inverse_unit[lane] >= *level);
        }
    }
    let (mut left, mut right) = ([0.0_f64; LANES], [0.0_f64; LANES]);
    for lane in 0..LANES {
        let place = below[lane] as usize;
        left[lane] = WIDE_LEVELS[place] * unit[lane] - f64::from(x[lane]);
        right[lane] = WIDE_LEVELS[place + 1] * unit[lane] - f64::from(x[lane]);
    }
    let mut error = [0.0_f64; LANES];
    for lane in 0..LANES {
        let up = upper(left[lane], right[lane], along[lane], square, below[lane] as usize);
        error[lane] = if up { right[lane] } else { left[lane] };
        let place = below[lane] as usize + usize::from(up);
        let minus = place == ZERO && x[lane].is_sign_negative();
        codes[lane] = CODES[place] | if minus { SIGN } else { 0 };
    }
    error
}
