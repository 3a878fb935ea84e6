//! What experts' products in fp8 are made of, as functions of tensors: for tests, which compare each with its definition. A
//! layer makes the launches itself.

use burn::tensor::{DType, Int, Tensor};
use burn_cubecl::tensor::CubeTensor;

use super::cuda::Output;
use super::fp8::{self, Rounded};
use super::fp8_rows::{self, Fp8Rows, References, RowFactors};
use super::matrices::{ExpertData, Experts, PackedData, Side};
use crate::DeviceError;
use crate::cuda::{self, CudaError, Gpu};
use crate::op::linear::FrozenWeight;
use crate::op::swiglu::cuda as swiglu;

/// Rows in E4M3 on a card: `[rows, width]`, each 16 numbers in the order of `fp8.cuh`, and a factor each.
#[derive(Debug)]
pub struct Codes {
    codes: CubeTensor,
    factors: CubeTensor,
}

impl Codes {
    /// Room for them.
    fn like(x: &CubeTensor) -> Self {
        let [rows, width] = cuda::matrix(x);
        let codes = cuda::empty([rows, width], DType::U8, &x.device);
        Self { codes, factors: cuda::empty([rows], DType::F32, &x.device) }
    }

    /// Those of rows in bf16.
    ///
    /// # Errors
    /// The rows are on no card, or it refuses.
    pub fn of(x: Tensor<2>) -> Result<Self, DeviceError> {
        let x = cuda::contiguous(cuda::primitive(x)?);
        let ([rows, width], new) = (cuda::matrix(&x), Self::like(&x));
        let handles = cuda::handles([&x, &new.codes, &new.factors]);
        cuda::gpu_of(&x)
            .call(handles, |run, at| fp8_rows::rows(run, at[0], None, [at[1], at[2]], [rows, width, 1]))?;
        Ok(new)
    }

    /// The gradient of SwiGLU's input in this form, from the kernel that makes both; with it that of the weight of each row,
    /// whose pair is given.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn of_swiglu_backward(
        [pre, dh]: [Tensor<2>; 2],
        weights: Tensor<1>,
        pairs: Tensor<1, Int>,
        limit: f32,
    ) -> Result<(Self, Vec<f32>), DeviceError> {
        let plain = |x| Ok::<_, CudaError>(cuda::contiguous(cuda::primitive(x)?));
        let [pre, dh] = [plain(pre)?, plain(dh)?];
        let weights = cuda::contiguous(cuda::primitive(weights)?);
        let pairs = cuda::contiguous(cuda::primitive(pairs)?);
        let [rows, width] = cuda::matrix(&dh);
        let d_weights = cuda::empty([rows], DType::F32, &pre.device);
        let new = Self::like(&pre);
        let tensors = [&pre, &dh, &new.codes, &new.factors, &pairs, &weights, &d_weights];
        cuda::gpu_of(&pre).call(cuda::handles(tensors), |run, p| {
            let at = swiglu::Backward {
                pre: p[0],
                dh: p[1],
                dpre: 0,
                codes: p[2],
                factors: p[3],
                h_out: 0,
                pairs: p[4],
                weights: p[5],
                d_weights: p[6],
            };
            swiglu::backward(run, &at, [rows, width], limit)
        })?;
        Ok((new, cuda::read(d_weights)?))
    }

    /// Codes row by row, and factors.
    ///
    /// # Errors
    /// The card failed.
    pub fn read(self) -> Result<(Vec<u8>, Vec<f32>), DeviceError> {
        Ok((cuda::read_bytes(self.codes)?, cuda::read(self.factors)?))
    }
}

/// Matrices of experts, ready for products in fp8.
#[derive(Debug)]
pub struct Fp8Experts {
    gpu: Gpu,
    blocks: CubeTensor,
    scales: CubeTensor,
    references: References,
    /// Matrices, and the rows and columns of one as it is stored.
    shape: [usize; 3],
}

impl Fp8Experts {
    /// Those of a card's MXFP4; none where their scales lie too far apart.
    ///
    /// # Errors
    /// They are in another form, or the card refuses.
    pub fn of(weight: &FrozenWeight) -> Result<Option<Self>, DeviceError> {
        let FrozenWeight::Mxfp4Tiles { blocks, scales } = weight else {
            return Err(DeviceError::new("not MXFP4 in tiles"));
        };
        let plain = |x: &Tensor<4, Int>| Ok::<_, CudaError>(cuda::contiguous(cuda::primitive(x.clone())?));
        let (blocks, scales) = (plain(blocks)?, plain(scales)?);
        let (gpu, shape) = (cuda::gpu_of(&scales), [weight.n_matrices(), weight.d_out(), weight.d_in()]);
        let data = PackedData::Mxfp4 { blocks: blocks.clone(), scales: scales.clone() };
        let references = References::new(&gpu, &data, shape)?;
        Ok(references.map(|references| Self { gpu, blocks, scales, references, shape }))
    }

    /// Those of the forward, `[matrices, rows]`, and of the backward, `[matrices, columns / 32]`.
    ///
    /// # Errors
    /// The card failed.
    pub fn references(&self) -> Result<Vec<u8>, DeviceError> {
        Ok(self.references.read(&self.gpu, self.shape)?)
    }

    /// Rows, sorted by expert, times their matrices, or on the way back times what is transposed. `[rows, out]`, bf16.
    ///
    /// # Errors
    /// The card refuses.
    pub fn product(
        &self,
        x: Tensor<2>,
        offsets: &Tensor<1, Int>,
        back: bool,
    ) -> Result<Tensor<2>, DeviceError> {
        let Codes { codes, factors } = Codes::of(x)?;
        let [rows, _] = cuda::matrix(&codes);
        let [_, outputs, inputs] = self.shape;
        let out = cuda::empty([rows, if back { inputs } else { outputs }], DType::BF16, &codes.device);
        let offsets = cuda::contiguous(cuda::primitive(offsets.clone())?);
        let tensors = [&codes, &factors, &out, &offsets, &self.blocks, &self.scales];
        self.gpu.call(cuda::handles(tensors), |run, p| {
            let a = Fp8Rows { data: p[0], factors: RowFactors::Each(p[1]), offsets: p[3], places: rows };
            let to = Output { out: Some(p[2]), ..Output::default() };
            self.launch(run, &a, [p[4], p[5]], back, &to, None)
        })?;
        Ok(cuda::tensor(out))
    }

    /// The clamped SwiGLU of the forward's product, in bf16, and in codes whose factor is given.
    ///
    /// # Errors
    /// The card refuses.
    pub fn activation(
        &self,
        x: Tensor<2>,
        offsets: &Tensor<1, Int>,
        [limit, factor]: [f32; 2],
    ) -> Result<(Tensor<2>, Vec<u8>), DeviceError> {
        let Codes { codes, factors } = Codes::of(x)?;
        let ([rows, _], [_, outputs, _]) = (cuda::matrix(&codes), self.shape);
        let h = cuda::empty([rows, outputs / 2], DType::BF16, &codes.device);
        let rounded = cuda::empty([rows, outputs / 2], DType::U8, &codes.device);
        let offsets = cuda::contiguous(cuda::primitive(offsets.clone())?);
        let tensors = [&codes, &factors, &h, &rounded, &offsets, &self.blocks, &self.scales];
        self.gpu.call(cuda::handles(tensors), |run, p| {
            let a = Fp8Rows { data: p[0], factors: RowFactors::Each(p[1]), offsets: p[4], places: rows };
            let to = Output { swiglu: Some((p[2], limit)), ..Output::default() };
            self.launch(run, &a, [p[5], p[6]], false, &to, Some(Rounded { to: p[3], factor, limit }))
        })?;
        Ok((cuda::tensor(h), cuda::read_bytes(rounded)?))
    }

    fn launch(
        &self,
        run: &cuda::Run<'_>,
        a: &Fp8Rows,
        [blocks, scales]: [u64; 2],
        back: bool,
        to: &Output,
        codes: Option<Rounded>,
    ) -> cuda::Result<()> {
        let [count, outputs, inputs] = self.shape;
        let data = ExpertData::Packed(PackedData::Mxfp4 { blocks, scales });
        let experts = Experts::new(data, count, outputs, inputs);
        let side = if back { Side::Rows } else { Side::Columns };
        fp8::product(run, a, &experts, self.references.of(side), side, to, codes)
    }
}
