//! Several processes, one run: who computes which micro-batch, and how their gradients become the sum that one process
//! would have.
//!
//! A step's micro-batches are those of one process, whatever the number of processes. They are dealt by what they cost;
//! each process keeps the gradient of each of its own. Then the gradients go round, a few micro-batches at a time, and
//! everybody adds them in the order of the micro-batches: the same additions in the same order as in one process, so that
//! the number of processes changes no bit. An all-reduce would send less, and add in an order of its own.
//!
//! Losses, wishes to stop and hashes are small and go through the [`Group`]; gradients through a [`Link`], which on cards
//! is NCCL. Everybody updates the same adapters with the same gradient; that they are equal is checked by hash.

mod equal;
mod lists;

use std::fmt::Debug;

use burn::tensor::{DType, Device, Tensor, TensorData};
use descant_kernels::read_floats;
use descant_lora::LoraAdapters;
use descant_workers::{Facts, Group, Wait, deal};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, pack, unpack};
use crate::error::{Error, Result};
use crate::state::TrainerState;

use equal::{digests, tensor_names};
pub(crate) use lists::{floats, packed, put_in_order};

/// Steps from one comparison of all tensors to the next; before a checkpoint there is one too.
pub(crate) const COMPARED_EVERY: u64 = 50;

/// How gradients go from one process to all others.
pub trait Link: Debug {
    /// Tensors of several ranks, everywhere and in this order: f32 `[1, 1, numbers]`, each with the rank that sends it,
    /// where it is given, and none elsewhere.
    ///
    /// # Errors
    /// The link failed.
    fn exchange(
        &self,
        sent: Vec<(usize, Option<Tensor<3>>)>,
        numbers: usize,
        device: &Device,
    ) -> Result<Vec<Tensor<3>>>;

    /// Waits until all that was sent has arrived.
    ///
    /// # Errors
    /// The link failed, or somebody was too late.
    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// Gradients by way of the group: for processes without cards.
#[derive(Debug)]
pub struct OverGroup<'a>(pub &'a Group);

impl Link for OverGroup<'_> {
    fn exchange(
        &self,
        sent: Vec<(usize, Option<Tensor<3>>)>,
        numbers: usize,
        device: &Device,
    ) -> Result<Vec<Tensor<3>>> {
        sent.into_iter().map(|(root, mine)| self.broadcast(root, mine, numbers, device)).collect()
    }
}

impl OverGroup<'_> {
    fn broadcast(
        &self,
        root: usize,
        mine: Option<Tensor<3>>,
        numbers: usize,
        device: &Device,
    ) -> Result<Tensor<3>> {
        const NAME: &str = "gradients";
        if let Some(mine) = mine {
            let bytes = read_floats(mine.clone())?.into_iter().flat_map(f32::to_le_bytes).collect();
            self.0.broadcast(NAME, root, bytes, Wait::Step)?;
            return Ok(mine);
        }
        let values = floats(&self.0.broadcast(NAME, root, Vec::new(), Wait::Step)?);
        if values.len() != numbers {
            return Err(differs(self.0, root, "it sent gradients of other shapes".to_owned()));
        }
        Ok(Tensor::from_data(TensorData::new(values, [1, 1, numbers]), (device, DType::F32)))
    }
}

/// The processes that share a run.
#[derive(Debug, Clone, Copy)]
pub struct Workers<'a> {
    /// All of them.
    pub group: &'a Group,
    /// How gradients go round.
    pub link: &'a dyn Link,
}

/// What a step was to the processes that shared it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Shared {
    /// Processes.
    pub workers: usize,
    /// The share of all processes' computing time in which they waited for the slowest.
    pub idle: f64,
    /// Seconds in which the slowest computed.
    #[serde(default)]
    pub compute_seconds: f64,
    /// The rank that was the slowest.
    #[serde(default)]
    pub slowest: usize,
    /// Seconds in which gradients went round and were added.
    pub exchange_seconds: f64,
    /// Bytes of gradients that went to every process.
    pub exchange_bytes: u64,
}

/// What a micro-batch costs beside its tokens, in tokens: launches, and experts' weights that few tokens share. One of
/// 1,024 tokens takes 40.9 ms and one of 4,096 takes 132.0 (gpt-oss-20b on an H200), which a line through both puts at 361.
const BESIDE_TOKENS: u64 = 360;

/// What so many tokens in a micro-batch cost, for dealing.
pub(crate) fn cost(tokens: usize) -> u64 {
    tokens as u64 + BESIDE_TOKENS
}

/// Most micro-batches whose gradients go round in one call: each more is a copy in memory, and gains little.
const AT_ONCE: usize = 4;

/// Micro-batches whose gradients go round in one call: from every process in turn, so that a link is used both ways.
pub(crate) fn at_once(world: usize) -> usize {
    world.min(AT_ONCE)
}

/// Copies of the adapters' gradients that a process of so many keeps beside what one process has, in a step whose
/// micro-batches have so many tokens: as many as the largest share that is dealt, and those that come.
pub(crate) fn copies(tokens: &[usize], world: usize) -> usize {
    if world < 2 {
        return 0;
    }
    let costs: Vec<u64> = tokens.iter().map(|tokens| cost(*tokens)).collect();
    let dealt = deal(&costs, world);
    let largest = (0..world).map(|rank| dealt.of(rank).count()).max().unwrap_or(0);
    largest + at_once(world).min(tokens.len())
}

impl Workers<'_> {
    /// Whether this process keeps checkpoints and incidents.
    pub(crate) fn is_first(&self) -> bool {
        self.group.is_first()
    }

    /// The checkpoint that rank 0 begins with, everywhere.
    pub(crate) fn begin(
        &self,
        adapters: &LoraAdapters,
        from: Option<Checkpoint>,
    ) -> Result<Option<Checkpoint>> {
        let mine = from.as_ref().map(|from| pack(adapters, &from.trainer, &from.progress));
        let bytes = self.group.broadcast("checkpoint", 0, mine.unwrap_or_default(), Wait::Long)?;
        if self.is_first() || bytes.is_empty() {
            return Ok(from.filter(|_| self.is_first()));
        }
        let unusable =
            |defect| differs(self.group, 0, format!("its checkpoint cannot be used here: {defect}"));
        unpack(adapters, &bytes).map(Some).map_err(unusable)
    }

    /// What rank 0 knows, everywhere.
    pub(crate) fn tell<T: Serialize + for<'de> Deserialize<'de>>(&self, name: &str, mine: T) -> Result<T> {
        let bytes = if self.is_first() { serde_json::to_vec(&mine).unwrap_or_default() } else { Vec::new() };
        let bytes = self.group.broadcast(name, 0, bytes, Wait::Long)?;
        if self.is_first() {
            return Ok(mine);
        }
        serde_json::from_slice(&bytes).map_err(|error| differs(self.group, 0, format!("{name}: {error}")))
    }

    /// Waits for everybody, however long they take.
    pub(crate) fn meet(&self, name: &str) -> Result<()> {
        Ok(self.group.barrier(name, Wait::Long)?)
    }

    /// Whether anybody wishes to stop.
    pub(crate) fn any(&self, wish: bool) -> Result<bool> {
        let all = self.group.all_gather("stop", &[u8::from(wish)], Wait::Step)?;
        Ok(all.iter().any(|wish| wish == &[1]))
    }

    /// Pieces of these costs, dealt; `compute` makes each of this process's, and all get all.
    pub(crate) fn spread(
        &self,
        name: &str,
        costs: &[u64],
        mut compute: impl FnMut(usize) -> Result<Vec<f32>>,
    ) -> Result<Vec<Vec<f32>>> {
        let dealt = deal(costs, self.group.world());
        let mine: Vec<Vec<f32>> = dealt.of(self.group.rank()).map(&mut compute).collect::<Result<_>>()?;
        let all = self.group.all_gather(name, &packed(&mine), Wait::Step)?;
        put_in_order(&dealt, all).map_err(|rank| differs(self.group, rank, lists::OTHERS.to_owned()))
    }

    /// Compares everything that a step changes with rank 0's, by hash.
    ///
    /// # Errors
    /// It differs at a rank, in a tensor: both are named.
    pub(crate) fn compare(&self, step: u64, adapters: &LoraAdapters, state: &TrainerState) -> Result<()> {
        let names = tensor_names(adapters);
        let mine: Vec<u8> = digests(state).into_iter().flat_map(u64::to_le_bytes).collect();
        let all = self.group.all_gather("hashes", &mine, Wait::Step)?;
        for (rank, theirs) in all.iter().enumerate().skip(1) {
            let pairs = theirs.chunks_exact(8).zip(all[0].chunks_exact(8));
            if let Some(at) = pairs.into_iter().position(|(there, here)| there != here) {
                let name = names.get(at).map_or("the count of updates", String::as_str);
                let text = format!("after step {step} its {name} is not that of rank 0; nothing was saved");
                return Err(differs(self.group, rank, text));
            }
            if theirs.len() != all[0].len() {
                return Err(differs(
                    self.group,
                    rank,
                    format!("after step {step} it has other tensors than rank 0"),
                ));
            }
        }
        Ok(())
    }

    /// Compares what everybody must have in common before the first step.
    ///
    /// # Errors
    /// Something differs; it is named with its rank.
    pub fn agree(&self, name: &str, facts: &Facts) -> Result<()> {
        Ok(self.group.agree(name, facts, Wait::Long)?)
    }
}

/// Something that must be equal everywhere and is not; all processes end with it.
pub(crate) fn differs(group: &Group, rank: usize, text: String) -> Error {
    Error::Workers(group.blame(rank, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_micro_batch_costs_something_beside_its_tokens() {
        // By tokens alone one process would have four of the five.
        let tokens = [400, 100, 100, 100, 100];
        let loads = |cost: fn(usize) -> u64| {
            let dealt = deal(&tokens.map(cost), 2);
            [0, 1].map(|rank| dealt.of(rank).count())
        };
        assert_eq!((loads(cost), loads(|tokens| tokens as u64)), ([2, 3], [1, 4]));
    }

    #[test]
    fn copies_are_those_of_the_largest_share_and_those_that_come() {
        let of = |micro_batches: usize, world| copies(&vec![1000; micro_batches], world);
        assert_eq!([of(4, 1), of(4, 2), of(5, 2), of(2, 8), of(16, 8)], [0, 4, 5, 3, 6]);
        // One that is as long as all others leaves those to the other process: more than half of them.
        assert_eq!([copies(&[4096, 100, 100, 100, 100, 100], 2), of(6, 2)], [5 + 2, 3 + 2]);
    }
}
