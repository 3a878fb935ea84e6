//! The gradients of a step that several processes compute: each its own micro-batches, then one after the other to all.

use std::time::Instant;

use burn::tensor::Tensor;
use descant_kernels::{divided, flattened};
use descant_workers::{Dealt, Group, Wait, deal};

use crate::error::Result;
use crate::trainer::{Trainer, added};
use crate::work::{Work, read_losses};
use crate::workers::{Shared, Workers, differs, floats, packed, put_in_order};

impl Trainer<'_> {
    /// The sum of the gradients of micro-batches that several processes compute, and the losses of each.
    pub(crate) fn compute_shared(
        &self,
        workers: Workers<'_>,
        works: &[Work],
    ) -> Result<(Vec<Tensor<3>>, Vec<Vec<f32>>, Shared)> {
        let Workers { group, link } = workers;
        let costs: Vec<u64> = works.iter().map(|work| work.batch.ids().len() as u64).collect();
        let dealt = deal(&costs, group.world());
        let start = Instant::now();
        let mine: Vec<&Work> = dealt.of(group.rank()).map(|at| &works[at]).collect();
        let (each, losses) = self.compute_each(&mine)?;
        // In one piece each: a message a tensor takes as long as a hundred times its bytes.
        let mut each = each.into_iter().map(flattened).collect::<Vec<_>>().into_iter();
        // Waits for the device: from here on everybody has something to send.
        let mut told = vec![vec![0.0]];
        told.extend(read_losses(losses)?);
        told[0][0] = start.elapsed().as_secs_f32();
        let all = group.all_gather("losses", &packed(&told), Wait::Step)?;
        let (seconds, losses) = timed(group, &dealt, all)?;
        let start = Instant::now();
        let (numbers, device) = (self.adapters().n_parameters(), self.device());
        let mut sum = None;
        for owner in &dealt.owners {
            let mine = if *owner == group.rank() { each.next() } else { None };
            sum = Some(added(sum, vec![link.broadcast(*owner, mine, numbers, device)?]));
        }
        let sum = sum.and_then(|sum| sum.into_iter().next());
        let sum = sum.expect("weight is not zero, so some micro-batch was trained");
        let sum = divided(sum, &self.adapters().tensors().map(Tensor::dims).collect::<Vec<_>>());
        link.finish()?;
        let (most, mean) =
            (seconds.iter().copied().fold(0.0, f64::max), seconds.iter().sum::<f64>() / seconds.len() as f64);
        let shared = Shared {
            workers: group.world(),
            idle: if most > 0.0 { 1.0 - mean / most } else { 0.0 },
            exchange_seconds: start.elapsed().as_secs_f64(),
            exchange_bytes: (works.len() * self.adapters().n_parameters() * size_of::<f32>()) as u64,
        };
        Ok((sum, losses, shared))
    }
}

/// The seconds that each rank put in front, and the rest in order.
fn timed(group: &Group, dealt: &Dealt, all: Vec<Vec<u8>>) -> Result<(Vec<f64>, Vec<Vec<f32>>)> {
    /// Bytes of a list of one number.
    const FRONT: usize = 8;
    let mut seconds = Vec::new();
    let mut rest = Vec::new();
    for (rank, bytes) in all.into_iter().enumerate() {
        let (front, behind) = bytes
            .split_at_checked(FRONT)
            .ok_or_else(|| differs(group, rank, "it sent no losses".to_owned()))?;
        seconds.push(f64::from(floats(&front[4..])[0]));
        rest.push(behind.to_vec());
    }
    let losses = put_in_order(dealt, rest);
    Ok((
        seconds,
        losses.map_err(|rank| differs(group, rank, "it sent losses of other micro-batches".to_owned()))?,
    ))
}
