//! The launches of `thin.cu`: rows times the few rows of a factor.

use super::lora::Fields;
use crate::cuda::geometry::{THIN_ROWS, THIN_ROWS_COLUMNS, THIN_ROWS_TOKENS};
use crate::cuda::structures::BANDS_BYTES;
use crate::cuda::{Arg, Result, Run};

/// With more tokens than this a block has two tiles of them: a multiprocessor has room for one block, and reads the
/// factor for it.
const MANY_TOKENS: usize = 2048;

/// Rows of a factor that are zero outside of some columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Band {
    /// The first, and how many.
    pub(super) rows: [usize; 2],
    /// The first column, and how many.
    pub(super) columns: [usize; 2],
}

impl Band {
    /// All of a factor.
    pub(super) fn whole(width: usize, rows: usize) -> Self {
        Self { rows: [0, rows], columns: [0, width] }
    }
}

/// `u = x w^T`: x bf16 `[tokens, width]`, w bf16 `[columns, width]`, u bf16 `[tokens, columns]`.
pub(super) fn thin_rows(
    run: &Run<'_>,
    [x, w, u]: [u64; 3],
    [tokens, width, columns]: [usize; 3],
    bands: &[Band],
) -> Result<()> {
    let mut fields = Fields::default();
    for Band { rows, columns } in bands {
        fields.sizes(&[rows[0], rows[0] + rows[1], columns[0], columns[0] + columns[1]]);
    }
    fields.fill(BANDS_BYTES);
    let mut arguments = Arg::list([x, w, u], [tokens, width, columns]);
    arguments.push(Arg::Struct(&fields.0));
    let (entry, tiles) = if tokens > MANY_TOKENS { ("thin_rows_many", 2) } else { ("thin_rows", 1) };
    let grid = (tokens.div_ceil(tiles * THIN_ROWS_TOKENS), columns.div_ceil(THIN_ROWS_COLUMNS));
    run.launch_early(run.kernel("layer/thin", entry, &[])?, grid, THIN_ROWS.threads, 0, &arguments)
}
