//! The update in burn operations; the 8-bit form on slices.

use burn::tensor::{DType, Tensor, TensorData};

use super::blocks::{Block, Map};
use super::moments::Moments;
use super::numbers::{Clip, StepNumbers};

/// See [`crate::AdamW::apply`].
pub(crate) fn update(
    params: Vec<Tensor<3>>,
    grads: &[Tensor<3>],
    moments: Vec<Moments>,
    numbers: StepNumbers,
    clip: Option<Clip<'_>>,
) -> (Vec<Tensor<3>>, Vec<Moments>) {
    let factor = match clip {
        None => 1.0,
        Some(Clip { norm, max_norm }) => {
            let norm = norm.clone().into_scalar::<f32>();
            if !norm.is_finite() {
                return (params, moments);
            }
            Clip::factor(norm, max_norm)
        }
    };
    let mut maps = None;
    let each = params.into_iter().zip(grads).zip(moments).map(|((param, grad), moments)| match moments {
        Moments::Float { first, second } => {
            let (param, first, second) = float(param, grad.clone() * factor, first, second, numbers);
            (param, Moments::Float { first, second })
        }
        Moments::Blocks { .. } => {
            let maps = maps.get_or_insert_with(|| [Map::signed(), Map::unsigned()]);
            blocks(param, grad, factor, &moments, numbers, maps)
        }
    });
    each.unzip()
}

/// One tensor with f32 moments; the gradient is scaled already.
fn float(
    param: Tensor<3>,
    grad: Tensor<3>,
    first: Tensor<3>,
    second: Tensor<3>,
    numbers: StepNumbers,
) -> (Tensor<3>, Tensor<3>, Tensor<3>) {
    let first = first * numbers.beta1 + grad.clone() * (1.0 - numbers.beta1);
    let second = second * numbers.beta2 + grad.powi_scalar(2) * (1.0 - numbers.beta2);
    let denominator = second.clone().sqrt() / numbers.correction2 + numbers.epsilon;
    let param = param * numbers.keep - first.clone() / denominator * numbers.rate;
    (param, first, second)
}

/// One tensor with 8-bit moments.
fn blocks(
    param: Tensor<3>,
    grad: &Tensor<3>,
    factor: f64,
    moments: &Moments,
    numbers: StepNumbers,
    maps: &[Map; 2],
) -> (Tensor<3>, Moments) {
    let Moments::Blocks { codes, scales } = moments else { unreachable!("asked for blocks alone") };
    let (shape, device) = (param.dims(), param.device());
    let mut values = param.into_data().try_to_vec::<f32>().expect("parameters are f32");
    let grads = grad.clone().into_data().try_to_vec::<f32>().expect("gradients are f32");
    let mut codes = codes.clone().map(|c| c.into_data().try_to_vec::<u8>().expect("codes are u8"));
    let mut scales = scales.clone().map(|s| s.into_data().try_to_vec::<f32>().expect("scales are f32"));
    let [codes1, codes2] = &mut codes;
    let [scales1, scales2] = &mut scales;
    let state = Block { factor: factor as f32, numbers, maps };
    state.step_all(&mut values, &grads, [codes1, codes2], [scales1, scales2]);
    let codes = codes.map(|c| {
        let n = c.len();
        Tensor::from_data(TensorData::new(c, [n]), (&device, DType::U8))
    });
    let scales = scales.map(|s| {
        let n = s.len();
        Tensor::from_data(TensorData::new(s, [n]), (&device, DType::F32))
    });
    let param = Tensor::from_data(TensorData::new(values, shape), (&device, DType::F32));
    (param, Moments::Blocks { codes, scales })
}

/// See [`crate::grad_norm`].
pub fn grad_norm(grads: &[Tensor<3>]) -> Tensor<1> {
    let squares = grads.iter().map(|g| g.clone().powi_scalar(2).sum()).collect();
    Tensor::cat(squares, 0).sum().sqrt()
}

/// See [`crate::reached`].
pub fn reached(grads: &[Tensor<3>]) -> Tensor<1> {
    let largest = |g: &Tensor<3>| g.clone().abs().flatten::<2>(1, 2).max_dim(1).flatten::<1>(0, 1);
    Tensor::cat(grads.iter().map(largest).collect(), 0).greater_elem(0.0).float()
}

/// See [`crate::accumulate`].
pub fn accumulate(grads: Vec<Tensor<3>>, new: &[Tensor<3>]) -> Vec<Tensor<3>> {
    grads.into_iter().zip(new).map(|(old, new)| old + new.clone()).collect()
}
