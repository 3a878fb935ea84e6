//! One expert's weight in the form of the export.
//!
//! ```text
//! base  packed, untouched      the same bytes, in the order of the form
//!       anything else          rows of f32, plus the update, then BF16 or MXFP4; rows without an update keep their
//!                              blocks where the base has some
//! ```

use descant_model::{Part, Site};
use descant_quant::mxfp4::{self, BLOCK, BLOCK_BYTES, GGML_BYTES, Rounding};
use descant_quant::{Packing, transposed};
use half::bf16;

use crate::base::{Base, bf16_of, to_bytes};
use crate::error::{Error, Result};
use crate::form::Select;
use crate::plan::Rows;
use crate::survival::{Sums, row_sums};
use crate::update::Update;

/// What to make of the experts at a site.
pub(crate) struct Recipe<'a> {
    pub(crate) base: &'a Base,
    pub(crate) update: Option<&'a Update>,
    /// How to pack; `None` where it is not packed.
    pub(crate) rounding: Option<Rounding>,
    pub(crate) site: Site,
    pub(crate) select: Select,
    pub(crate) rows: Rows,
}

/// An expert, made.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) bytes: Vec<u8>,
    /// Only for [`Rows::Blocks`].
    pub(crate) scales: Vec<u8>,
    pub(crate) updated: bool,
    pub(crate) sums: Sums,
}

/// Blocks and scales of some rows.
struct Packed {
    blocks: Vec<u8>,
    scales: Vec<u8>,
}

impl Recipe<'_> {
    pub(crate) fn make(&self, expert: usize) -> Result<Made> {
        let update = self.update.filter(|update| update.reaches(expert));
        match self.rows {
            Rows::Transposed | Rows::Plain => self.floats(expert, update),
            Rows::Blocks | Rows::Ggml => self.packed(expert, update),
        }
    }

    /// The rows that are taken, with their places in the weight, before the update.
    fn taken(&self, expert: usize) -> Result<(Vec<f32>, Vec<usize>)> {
        let dims = self.base.config.site_dims(self.site.kind);
        let places = (0..dims.d_out).filter(|&row| self.select.takes(row)).collect();
        Ok((self.select.rows(self.base.expert(self.site, expert)?, dims.d_in), places))
    }

    /// BF16.
    fn floats(&self, expert: usize, update: Option<&Update>) -> Result<Made> {
        let d_in = self.base.config.site_dims(self.site.kind).d_in;
        let (mut rows, places) = self.taken(expert)?;
        let mut made = Made { updated: update.is_some(), ..Made::default() };
        if let Some(update) = update {
            let (mut delta, mut sum) = (vec![0.0; d_in], vec![0.0; d_in]);
            for (row, &place) in rows.chunks_exact_mut(d_in).zip(&places) {
                update.row(expert, place, &mut delta);
                sum.iter_mut().zip(&*row).zip(&delta).for_each(|((sum, w), d)| *sum = w + d);
                made.sums += row_sums(row, &sum, &delta, |x| bf16_of(x).to_f32());
                row.copy_from_slice(&sum);
            }
        }
        let mut out = vec![bf16::ZERO; rows.len()];
        let mut finite = true;
        for (out, x) in out.iter_mut().zip(&rows) {
            *out = bf16_of(*x);
            finite &= x.is_finite() & out.is_finite();
        }
        let bad = |(out, x): (&bf16, &f32)| !(x.is_finite() && out.is_finite());
        if !finite && let Some(at) = out.iter().zip(&rows).position(bad) {
            return Err(self.not_finite(expert, places[at / d_in], at % d_in));
        }
        drop(rows);
        let out = if self.rows == Rows::Transposed { transposed(&out, places.len(), d_in) } else { out };
        made.bytes = to_bytes(&out, bf16::to_le_bytes);
        Ok(made)
    }

    /// MXFP4.
    fn packed(&self, expert: usize, update: Option<&Update>) -> Result<Made> {
        let dims = self.base.config.site_dims(self.site.kind);
        let published = match self.base.packing {
            Packing::Mxfp4 => Some(self.published(expert, dims.d_in)?),
            _ => None,
        };
        let mut made = Made { updated: update.is_some(), ..Made::default() };
        let packed = match (published, update) {
            (Some(published), None) => published,
            (published, update) => {
                let (mut rows, places) = self.taken(expert)?;
                made.sums.weight = rows.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
                match update {
                    None => encoded(&rows, &mut made.sums),
                    Some(update) => {
                        self.add(&mut rows, update, expert, &places)?;
                        let mut packed = self.rounded(&rows, update, expert, &places, &mut made.sums)?;
                        if let Some(published) = published {
                            keep(&mut packed, &published, update, expert, &places, dims.d_in);
                        }
                        packed
                    }
                }
            }
        };
        if self.rows == Rows::Ggml {
            made.bytes = vec![0; packed.scales.len() * GGML_BYTES];
            mxfp4::to_ggml(&packed.blocks, &packed.scales, &mut made.bytes).expect("as many bytes as blocks");
        } else {
            (made.bytes, made.scales) = (packed.blocks, packed.scales);
        }
        Ok(made)
    }

    /// The base's own blocks of the rows that are taken.
    fn published(&self, expert: usize, d_in: usize) -> Result<Packed> {
        let (blocks, scales) = self.base.packed_expert(self.site, expert)?;
        let width = d_in / BLOCK;
        Ok(Packed {
            blocks: self.select.rows(blocks, width * BLOCK_BYTES),
            scales: self.select.rows(scales, width),
        })
    }

    fn add(&self, rows: &mut [f32], update: &Update, expert: usize, places: &[usize]) -> Result<()> {
        let d_in = self.base.config.site_dims(self.site.kind).d_in;
        let mut delta = vec![0.0; d_in];
        for (row, &place) in rows.chunks_exact_mut(d_in).zip(places) {
            update.row(expert, place, &mut delta);
            row.iter_mut().zip(&delta).for_each(|(x, d)| *x += d);
            if let Some(column) = row.iter().position(|x| !x.is_finite()) {
                return Err(self.not_finite(expert, place, column));
            }
        }
        Ok(())
    }

    /// Packs rows by the rule, and counts what became of the update.
    fn rounded(
        &self,
        rows: &[f32],
        update: &Update,
        expert: usize,
        places: &[usize],
        sums: &mut Sums,
    ) -> Result<Packed> {
        let d_in = self.base.config.site_dims(self.site.kind).d_in;
        let basis = update.basis(expert);
        let (blocks_of, _) = rows.as_chunks::<BLOCK>();
        let scales: Vec<u8> = blocks_of.iter().map(mxfp4::best_scale).collect();
        let mut blocks = vec![0; scales.len() * BLOCK_BYTES];
        let mut carried = vec![0.0; places.len() * basis.rank()];
        let rounding = self.rounding.unwrap_or(Rounding::Nearest);
        sums.error = mxfp4::round_rows(rows, &basis, rounding, &scales, &mut blocks, &mut carried)
            .map_err(|_| self.not_finite(expert, 0, d_in))?;
        let projected = update.projected(expert, &basis);
        let mut read = 0.0;
        for (lost, &place) in carried.chunks_exact(basis.rank()).zip(places) {
            let kept = update.row_in(expert, place, &projected, basis.rank());
            for (c, u) in lost.iter().zip(&kept) {
                sums.update += u * u;
                sums.along += c * u;
                read += c * c;
            }
        }
        sums.read = Some(read);
        Ok(Packed { blocks, scales })
    }

    fn not_finite(&self, expert: usize, row: usize, column: usize) -> Error {
        let dims = self.base.config.site_dims(self.site.kind);
        let element = (expert * dims.d_out + row) * dims.d_in + column;
        Error::NotFinite { tensor: Part::weight(self.site).name(), element }
    }
}

/// Rows that no update reaches, packed because the base has them in another form.
fn encoded(rows: &[f32], sums: &mut Sums) -> Packed {
    let n = rows.len() / BLOCK;
    let mut packed = Packed { blocks: vec![0; n * BLOCK_BYTES], scales: vec![0; n] };
    mxfp4::encode(rows, &mut packed.blocks, &mut packed.scales).expect("finite rows of whole blocks");
    let mut back = vec![0.0; rows.len()];
    mxfp4::decode(&packed.blocks, &packed.scales, &mut back);
    sums.error += rows.iter().zip(&back).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum::<f64>();
    packed
}

/// Puts the base's blocks back where no update reaches a row.
fn keep(
    packed: &mut Packed,
    published: &Packed,
    update: &Update,
    expert: usize,
    places: &[usize],
    d_in: usize,
) {
    let width = d_in / BLOCK;
    for (row, _) in places.iter().enumerate().filter(|(_, place)| !update.reaches_row(expert, **place)) {
        let (scales, blocks) =
            (row * width..(row + 1) * width, row * width * BLOCK_BYTES..(row + 1) * width * BLOCK_BYTES);
        packed.scales[scales.clone()].copy_from_slice(&published.scales[scales]);
        packed.blocks[blocks.clone()].copy_from_slice(&published.blocks[blocks]);
    }
}
