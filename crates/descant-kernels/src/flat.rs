//! Several tensors as one, and back: what goes from one process to others goes in one piece.

use burn::tensor::Tensor;

/// The tensors' numbers behind each other, f32 `[1, 1, n]`.
///
/// # Panics
/// If there are none.
pub fn flattened(tensors: Vec<Tensor<3>>) -> Tensor<3> {
    assert!(!tensors.is_empty(), "something is put together");
    #[cfg(feature = "cuda")]
    if crate::is_cuda(&tensors[0].device()) {
        return on_card::flattened(tensors);
    }
    let flat = |tensor: Tensor<3>| {
        let n = tensor.dims().iter().product::<usize>();
        tensor.reshape([1, 1, n])
    };
    Tensor::cat(tensors.into_iter().map(flat).collect(), 2)
}

/// Tensors of these shapes, whose numbers lie behind each other in `flat`.
///
/// # Panics
/// If they are not as many.
pub fn divided(flat: Tensor<3>, shapes: &[[usize; 3]]) -> Vec<Tensor<3>> {
    let numbers: usize = shapes.iter().map(|shape| shape.iter().product::<usize>()).sum();
    assert_eq!(flat.dims(), [1, 1, numbers], "all numbers are somebody's");
    #[cfg(feature = "cuda")]
    if crate::is_cuda(&flat.device()) {
        return on_card::divided(flat, shapes);
    }
    let mut end = 0;
    let of = |shape: &[usize; 3]| {
        let start = end;
        end += shape.iter().product::<usize>();
        flat.clone().slice([0..1, 0..1, start..end]).reshape(*shape)
    };
    shapes.iter().map(of).collect()
}

/// The same on a CUDA card, by copies behind each other: burn's own would be a kernel a tensor that the host prepares
/// for longer than it runs.
#[cfg(feature = "cuda")]
mod on_card {
    use burn::backend::TensorMetadata as _;
    use burn::tensor::{DType, Tensor};
    use burn_cubecl::tensor::CubeTensor;

    use crate::cuda;

    const ON_A_CARD: &str = "the caller looked where the tensors lie";

    fn bytes(tensor: &CubeTensor) -> usize {
        tensor.shape().num_elements() * size_of::<f32>()
    }

    pub(super) fn flattened(tensors: Vec<Tensor<3>>) -> Tensor<3> {
        let parts: Vec<CubeTensor> =
            tensors.into_iter().map(|part| cuda::floats(cuda::primitive(part).expect(ON_A_CARD))).collect();
        let sizes: Vec<usize> = parts.iter().map(bytes).collect();
        let numbers = sizes.iter().sum::<usize>() / size_of::<f32>();
        let flat = cuda::empty([1, 1, numbers], DType::F32, &parts[0].device);
        let mut handles = cuda::handles([&flat]);
        handles.extend(parts.iter().map(|part| part.handle.clone()));
        cuda::gpu_of(&flat).enqueue(handles, move |run, at| {
            let mut to = at[0];
            for (from, bytes) in at[1..].iter().zip(sizes) {
                run.copy(to, *from, bytes)?;
                to += bytes as u64;
            }
            Ok(())
        });
        cuda::tensor(flat)
    }

    pub(super) fn divided(flat: Tensor<3>, shapes: &[[usize; 3]]) -> Vec<Tensor<3>> {
        let flat = cuda::floats(cuda::primitive(flat).expect(ON_A_CARD));
        let parts: Vec<CubeTensor> =
            shapes.iter().map(|shape| cuda::empty(*shape, DType::F32, &flat.device)).collect();
        let sizes: Vec<usize> = parts.iter().map(bytes).collect();
        let mut handles = cuda::handles([&flat]);
        handles.extend(parts.iter().map(|part| part.handle.clone()));
        cuda::gpu_of(&flat).enqueue(handles, move |run, at| {
            let mut from = at[0];
            for (to, bytes) in at[1..].iter().zip(sizes) {
                run.copy(*to, from, bytes)?;
                from += bytes as u64;
            }
            Ok(())
        });
        parts.into_iter().map(cuda::tensor).collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, TensorData};

    use super::*;
    use crate::read_floats;

    #[test]
    fn what_was_put_together_comes_apart_to_the_bit() {
        let device = Device::flex();
        let shapes = [[1, 2, 3], [2, 1, 1], [1, 1, 5]];
        let mut next = -4.5_f32;
        let values = shapes.map(|shape| -> Vec<f32> {
            (0..shape.iter().product::<usize>())
                .map(|_| {
                    next += 0.75;
                    if next == 0.0 { -0.0 } else { next }
                })
                .collect()
        });
        let tensors: Vec<Tensor<3>> = values
            .iter()
            .zip(shapes)
            .map(|(values, shape)| {
                Tensor::from_data(TensorData::new(values.clone(), shape), (&device, DType::F32))
            })
            .collect();
        let flat = flattened(tensors);
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
        assert_eq!(bits(read_floats(flat.clone()).unwrap()), bits(values.concat()));
        for ((tensor, shape), values) in divided(flat, &shapes).into_iter().zip(shapes).zip(values) {
            assert_eq!((tensor.dims(), bits(read_floats(tensor).unwrap())), (shape, bits(values)));
        }
    }
}
