//! Gradients in one piece, and sums of such pieces: what goes from one process to others goes in one message. Also sums of
//! gradients on a card.
//!
//! On a CUDA card each of these is one launch for all tensors: a copy or an addition a tensor would take longer to
//! prepare than to make. A sum adds piece after piece in the order given, as `accumulate` adds tensors.

use burn::tensor::Tensor;

/// Each gradient plus the new one of its tensor.
///
/// # Panics
/// If the lists do not have one length.
#[must_use]
pub fn accumulate(grads: Vec<Tensor<3>>, new: &[Tensor<3>]) -> Vec<Tensor<3>> {
    assert_eq!(grads.len(), new.len(), "a new gradient for each old one");
    #[cfg(feature = "cuda")]
    if super::on_card(&grads) {
        return on_card::accumulate(grads, new);
    }
    super::reference::accumulate(grads, new)
}

/// The tensors' numbers behind each other, f32 `[1, 1, n]`.
///
/// # Panics
/// If there are none.
pub fn flattened(tensors: Vec<Tensor<3>>) -> Tensor<3> {
    assert!(!tensors.is_empty(), "something is put together");
    #[cfg(feature = "cuda")]
    if super::on_card(&tensors) {
        return on_card::flattened(tensors);
    }
    let flat = |tensor: Tensor<3>| {
        let n = tensor.dims().iter().product::<usize>();
        tensor.reshape([1, 1, n])
    };
    Tensor::cat(tensors.into_iter().map(flat).collect(), 2)
}

/// The sum of pieces that [`flattened`] makes, tensor by tensor. Nobody else has its tensors until it is given away, so
/// that a card adds in place.
#[derive(Debug)]
pub struct FlatSum(Vec<Tensor<3>>);

impl FlatSum {
    /// The first piece, of tensors of these shapes.
    ///
    /// # Panics
    /// If they have not as many numbers.
    pub fn of(flat: Tensor<3>, shapes: &[[usize; 3]]) -> Self {
        let numbers: usize = shapes.iter().map(|shape| shape.iter().product::<usize>()).sum();
        assert_eq!(flat.dims(), [1, 1, numbers], "all numbers are somebody's");
        #[cfg(feature = "cuda")]
        if super::on_card(std::slice::from_ref(&flat)) {
            return Self(on_card::divided(flat, shapes));
        }
        Self(parts(&flat, shapes))
    }

    /// The sum and another piece.
    ///
    /// # Panics
    /// If it has not as many numbers.
    #[must_use]
    pub fn plus(self, flat: Tensor<3>) -> Self {
        let shapes: Vec<[usize; 3]> = self.0.iter().map(Tensor::dims).collect();
        let numbers: usize = shapes.iter().map(|shape| shape.iter().product::<usize>()).sum();
        assert_eq!(flat.dims(), [1, 1, numbers], "a number for each of the sum");
        #[cfg(feature = "cuda")]
        if super::on_card(std::slice::from_ref(&flat)) {
            return Self(on_card::plus(self.0, flat));
        }
        Self(accumulate(self.0, &parts(&flat, &shapes)))
    }

    /// Its tensors.
    pub fn into_tensors(self) -> Vec<Tensor<3>> {
        self.0
    }
}

/// Tensors of these shapes, whose numbers lie behind each other.
fn parts(flat: &Tensor<3>, shapes: &[[usize; 3]]) -> Vec<Tensor<3>> {
    let mut end = 0;
    let of = |shape: &[usize; 3]| {
        let start = end;
        end += shape.iter().product::<usize>();
        flat.clone().slice([0..1, 0..1, start..end]).reshape(*shape)
    };
    shapes.iter().map(of).collect()
}

/// The same on a CUDA card.
#[cfg(feature = "cuda")]
mod on_card {
    use burn::backend::TensorMetadata as _;
    use burn::tensor::{DType, Tensor};
    use burn_cubecl::tensor::CubeTensor;

    use super::super::cuda::{floats, grid};
    use super::super::table::{Entry, tables};
    use crate::cuda::plain::OPTIMIZER;
    use crate::cuda::{self, Arg};

    /// What is done with a tensor and its place in the piece.
    struct Work {
        stage: &'static str,
        kernel: &'static str,
        /// Numbers that are read or written for each one.
        moved: usize,
        /// Of the address of a tensor and that of its place.
        entry: fn(u64, u64) -> Entry,
    }

    const INTO_ONE: Work = Work {
        stage: "gradients into one piece",
        kernel: "copy",
        moved: 2,
        entry: |tensor, place| Entry { out: place, grad: tensor, ..Entry::default() },
    };
    const APART: Work = Work {
        stage: "gradients apart",
        kernel: "copy",
        moved: 2,
        entry: |tensor, place| Entry { out: tensor, grad: place, ..Entry::default() },
    };
    const ADDED: Work = Work {
        stage: "sum of gradients",
        kernel: "accumulate",
        moved: 3,
        entry: |tensor, place| Entry { param: tensor, out: tensor, grad: place, ..Entry::default() },
    };

    /// `others` are a tensor for each, or one piece of them all.
    fn queue(work: &'static Work, tensors: &[CubeTensor], others: &[CubeTensor]) {
        let Some(first) = tensors.first() else { return };
        let sizes: Vec<usize> = tensors.iter().map(|tensor| tensor.shape().num_elements()).collect();
        let handles = tensors.iter().chain(others).map(|tensor| tensor.handle.clone()).collect();
        cuda::gpu_of(first).enqueue(handles, move |run, at| {
            let (tensors, others) = at.split_at(sizes.len());
            let mut end = others[0];
            let of = |(i, (tensor, n)): (usize, (&u64, &usize))| {
                let place = if others.len() == sizes.len() { others[i] } else { end };
                end += (n * size_of::<f32>()) as u64;
                Entry { n: *n, ..(work.entry)(*tensor, place) }
            };
            let entries: Vec<Entry> = tensors.iter().zip(&sizes).enumerate().map(of).collect();
            let bytes = work.moved * sizes.iter().sum::<usize>() * size_of::<f32>();
            run.stage(work.stage, 0.0, bytes as f64, || {
                let kernel = run.kernel("optimizer", work.kernel, &[])?;
                for table in tables(&entries) {
                    run.launch(
                        kernel,
                        grid(run, &table),
                        OPTIMIZER.threads,
                        0,
                        &[Arg::Struct(&table.bytes)],
                    )?;
                }
                Ok(())
            })
        });
    }

    pub(super) fn flattened(tensors: Vec<Tensor<3>>) -> Tensor<3> {
        let tensors: Vec<CubeTensor> = tensors.into_iter().map(floats).collect();
        let numbers = tensors.iter().map(|tensor| tensor.shape().num_elements()).sum::<usize>();
        let flat = cuda::empty([1, 1, numbers], DType::F32, &tensors[0].device);
        queue(&INTO_ONE, &tensors, std::slice::from_ref(&flat));
        cuda::tensor(flat)
    }

    pub(super) fn divided(flat: Tensor<3>, shapes: &[[usize; 3]]) -> Vec<Tensor<3>> {
        let flat = floats(flat);
        let tensors: Vec<CubeTensor> =
            shapes.iter().map(|shape| cuda::empty(*shape, DType::F32, &flat.device)).collect();
        queue(&APART, &tensors, &[flat]);
        tensors.into_iter().map(cuda::tensor).collect()
    }

    /// Adds in place; the tensors are nobody else's.
    pub(super) fn plus(sum: Vec<Tensor<3>>, flat: Tensor<3>) -> Vec<Tensor<3>> {
        added(sum.into_iter().map(floats).collect(), &[floats(flat)])
    }

    /// See [`crate::accumulate`].
    pub(super) fn accumulate(grads: Vec<Tensor<3>>, new: &[Tensor<3>]) -> Vec<Tensor<3>> {
        let new: Vec<CubeTensor> = new.iter().cloned().map(floats).collect();
        added(grads.into_iter().map(|old| cuda::owned(floats(old))).collect(), &new)
    }

    fn added(sum: Vec<CubeTensor>, others: &[CubeTensor]) -> Vec<Tensor<3>> {
        queue(&ADDED, &sum, others);
        sum.into_iter().map(cuda::tensor).collect()
    }
}
