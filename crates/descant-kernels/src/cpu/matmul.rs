//! Matrix products on slices, on one thread: a checked door to the `gemm` crate.

/// A matrix inside a slice.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `cols` elements, `row_stride` apart.
    pub(crate) fn rows(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        check_extent(data.len(), rows, cols, row_stride, 1);
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// Rows that follow each other.
    pub(crate) fn packed(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::rows(data, rows, cols, cols)
    }

    /// The transpose, without moving anything.
    pub(crate) fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }
}

/// What to do with what is in the output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Into {
    /// Replace it.
    Overwrite,
    /// Add to it.
    Accumulate,
}

/// `out = scale * lhs · rhs`, or `out += ...`; `out` has rows of `rhs.cols` elements, `out_stride` apart.
pub(crate) fn matmul(
    out: &mut [f32],
    out_stride: usize,
    into: Into,
    scale: f32,
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
) {
    assert_eq!(lhs.cols, rhs.rows, "inner dimensions");
    let (m, n, k) = (lhs.rows, rhs.cols, lhs.cols);
    if m == 0 || n == 0 {
        return;
    }
    check_extent(out.len(), m, n, out_stride, 1);
    #[expect(unsafe_code, reason = "gemm takes raw pointers")]
    // SAFETY: `check_extent` has shown for all three operands that every element the product touches lies inside
    // its slice; `out` is borrowed mutably, so it overlaps neither input.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            into == Into::Accumulate,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Panics unless a matrix of this layout lies within `len` elements.
fn check_extent(len: usize, rows: usize, cols: usize, row_stride: usize, col_stride: usize) {
    if rows > 0 && cols > 0 {
        let last = (rows - 1) * row_stride + (cols - 1) * col_stride;
        assert!(last < len, "a {rows} x {cols} matrix does not fit {len} elements");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_and_transposed_products_equal_the_definition() {
        let a: Vec<f32> = (0..24).map(|i| i as f32 * 0.25 - 2.0).collect(); // 4 rows of 3, stride 6
        let b: Vec<f32> = (0..15).map(|i| 1.0 - i as f32 * 0.5).collect(); // [5, 3]
        let mut out = vec![1.0; 4 * 7];
        let (lhs, rhs) = (Matrix::rows(&a, 4, 3, 6), Matrix::packed(&b, 5, 3).t());
        matmul(&mut out, 7, Into::Accumulate, 2.0, lhs, rhs);
        for i in 0..4 {
            for j in 0..5 {
                let dot: f32 = (0..3).map(|k| a[i * 6 + k] * b[j * 3 + k]).sum();
                assert!((out[i * 7 + j] - (1.0 + 2.0 * dot)).abs() < 1e-5);
            }
            assert_eq!(&out[i * 7 + 5..i * 7 + 7], &[1.0, 1.0], "columns outside stay");
        }
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_matrix_beyond_its_slice_is_refused() {
        let _ = Matrix::rows(&[0.0; 10], 3, 4, 4);
    }
}
