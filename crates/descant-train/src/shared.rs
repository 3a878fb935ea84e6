//! The gradients of a step that several processes compute: each its own micro-batches, then a few at a time to all.

use std::time::{Duration, Instant};

use burn::tensor::Tensor;
use descant_kernels::{FlatSum, flattened};
use descant_workers::{Dealt, Group, Wait, deal};

use crate::error::Result;
use crate::trainer::Trainer;
use crate::work::{Told, Work, read_losses};
use crate::workers::{Shared, Workers, at_once, cost, differs, floats, packed, put_in_order};

/// How long a process that has done its part of a step waits for the others at least; their first step may compile.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where steps take longer, it waits so many times what the slowest should take.
const TIMES: f64 = 10.0;

/// How long to wait for the others, where a unit of cost took so long and the slowest has so many.
fn wait(pace: Option<f64>, load: u64) -> Wait {
    let Some(pace) = pace else { return Wait::Step };
    let time = Duration::try_from_secs_f64(TIMES * pace * load as f64);
    Wait::Within(time.unwrap_or(Duration::MAX).max(PATIENCE))
}

impl Trainer<'_> {
    /// The sum of the gradients of micro-batches that several processes compute, and the losses of each.
    pub(crate) fn compute_shared(
        &mut self,
        workers: Workers<'_>,
        works: &[Work],
    ) -> Result<(Vec<Tensor<3>>, Told)> {
        let Workers { group, link } = workers;
        let costs: Vec<u64> = works.iter().map(|work| cost(work.batch.ids().len())).collect();
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
        let load = dealt.loads.iter().copied().max().unwrap_or(0);
        let all = group.all_gather("losses", &packed(&told), wait(self.pace, load))?;
        let (seconds, losses) = timed(group, &dealt, all)?;
        let start = Instant::now();
        let (numbers, device) = (self.adapters().n_parameters(), self.device());
        let shapes: Vec<[usize; 3]> = self.adapters().tensors().map(Tensor::dims).collect();
        let mut sum: Option<FlatSum> = None;
        for owners in dealt.owners.chunks(at_once(group.world())) {
            let of = |owner: &usize| (*owner, if *owner == group.rank() { each.next() } else { None });
            for piece in link.exchange(owners.iter().map(of).collect(), numbers, device)? {
                sum = Some(match sum {
                    None => FlatSum::of(piece, &shapes),
                    Some(sum) => sum.plus(piece),
                });
            }
        }
        let sum = sum.expect("weight is not zero, so some micro-batch was trained").into_tensors();
        link.finish()?;
        let by_time = |a: &(usize, f64), b: &(usize, f64)| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0));
        let (slowest, most) = seconds.iter().copied().enumerate().max_by(by_time).unwrap_or_default();
        let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
        let pace = most / load.max(1) as f64;
        self.pace = Some(self.pace.map_or(pace, |slowest| slowest.max(pace)));
        self.shared = Some(Shared {
            workers: group.world(),
            idle: if most > 0.0 { 1.0 - mean / most } else { 0.0 },
            compute_seconds: most,
            slowest,
            exchange_seconds: start.elapsed().as_secs_f64(),
            exchange_bytes: (works.len() * numbers * size_of::<f32>()) as u64,
        });
        Ok((sum, Told::Read(losses)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hangs_in_a_step_is_waited_for_as_long_as_steps_take_and_no_more() {
        assert_eq!(wait(None, 5000), Wait::Step);
        // Half a second a step; two minutes a step; what no clock has.
        assert_eq!(wait(Some(1e-4), 5000), Wait::Within(PATIENCE));
        assert_eq!(wait(Some(0.25), 480), Wait::Within(Duration::from_mins(20)));
        assert_eq!(wait(Some(1e300), u64::MAX), Wait::Within(Duration::MAX));
    }
}
