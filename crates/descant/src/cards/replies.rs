//! Prompts that several processes answer: dealt to them in rounds, and all replies at rank 0 in the order of the prompts.
//!
//! A reply depends on its prompt and its own random numbers alone, so that on the CPU replies are those of one process.

use std::ops::Range;

use anyhow::{Context as _, Result};
use descant_model::{Ended, GenerateOptions, Generated, GptOss, InOrder, Overlay, Request, StopReason};
use descant_workers::{Group, Wait, deal};
use serde::{Deserialize, Serialize};

use super::team::told;

/// A round gives each process so many times the prompts that it answers at once: the replies of a round are lost with a
/// process, and between rounds who is quicker waits.
const ROUND: usize = 8;
/// What a reply costs beside its prompt, for dealing, where it may be longer: most end by themselves.
const REPLY: usize = 1024;

/// Who answers.
pub(crate) struct Answerers<'a> {
    pub(crate) group: &'a Group,
    pub(crate) model: &'a GptOss,
    pub(crate) overlay: &'a dyn Overlay,
    pub(crate) options: GenerateOptions,
}

/// What is reported while prompts are answered.
pub(crate) enum Told {
    /// About so many replies are done, in all processes, as if the others were as quick.
    Count(usize),
    /// The replies to these prompts, at rank 0.
    Replies(Range<usize>, Vec<Generated>),
}

impl Answerers<'_> {
    /// Answers all; every process calls this with the same requests.
    pub(crate) fn ask(&self, requests: &[Request], tell: &mut dyn FnMut(Told) -> Result<()>) -> Result<()> {
        let (rank, world) = (self.group.rank(), self.group.world());
        // Of what each would answer at once, by what its host and card have, rank 0's counts for the rounds.
        let batch: usize = told(self.group, "batch", &self.options.at_once.unwrap_or(1).max(1))?;
        let size = ROUND * batch * world;
        for (number, round) in requests.chunks(size).enumerate() {
            let done = number * size;
            let cost = |request: &Request| (request.prompt.len() + request.max_new_tokens.min(REPLY)) as u64;
            let dealt = deal(&round.iter().map(cost).collect::<Vec<_>>(), world);
            let mine: Vec<Request> = dealt.of(rank).map(|at| round[at].clone()).collect();
            let mut failed = None;
            let mut watch = InOrder::new(mine.len(), |ended| {
                if let Ended::Count(count) = ended {
                    failed = tell(Told::Count(done + (count * world).min(round.len()))).err();
                }
                failed.is_none()
            });
            let replies = self.model.generate(&mine, self.overlay, &self.options, &mut watch)?;
            failed.map_or(Ok(()), Err)?;
            let sent: Vec<Sent> = replies.into_iter().map(Sent::new).collect();
            let Some(all) = self.group.gather("replies", &serde_json::to_vec(&sent)?, Wait::Long)? else {
                continue;
            };
            let mut ordered: Vec<Option<Generated>> = vec![None; round.len()];
            for (rank, bytes) in all.iter().enumerate() {
                let replies: Vec<Sent> =
                    serde_json::from_slice(bytes).with_context(|| format!("replies of rank {rank}"))?;
                for (at, reply) in dealt.of(rank).zip(replies) {
                    ordered[at] = Some(reply.read());
                }
            }
            let replies: Option<Vec<Generated>> = ordered.into_iter().collect();
            let replies = replies.context("a process did not answer all prompts that were dealt to it")?;
            tell(Told::Replies(done..done + replies.len(), replies))?;
        }
        Ok(())
    }
}

/// A reply on its way to rank 0, to the bit: decimals may be read with another last digit, and know no infinity.
#[derive(Serialize, Deserialize)]
struct Sent {
    ids: Vec<u32>,
    stop: StopReason,
    /// Bits of numbers.
    log_probabilities: Vec<u32>,
    top: Vec<Vec<(u32, u32)>>,
}

impl Sent {
    fn new(reply: Generated) -> Self {
        let bits = |top: Vec<(u32, f32)>| top.into_iter().map(|(id, value)| (id, value.to_bits())).collect();
        Self {
            ids: reply.ids,
            stop: reply.stop,
            log_probabilities: reply.log_probabilities.into_iter().map(f32::to_bits).collect(),
            top: reply.top.into_iter().map(bits).collect(),
        }
    }

    fn read(self) -> Generated {
        let of =
            |top: Vec<(u32, u32)>| top.into_iter().map(|(id, bits)| (id, f32::from_bits(bits))).collect();
        Generated {
            ids: self.ids,
            stop: self.stop,
            log_probabilities: self.log_probabilities.into_iter().map(f32::from_bits).collect(),
            top: self.top.into_iter().map(of).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_arrives_to_the_bit() {
        let reply = Generated {
            ids: vec![3, 200_002],
            stop: StopReason::StopToken,
            log_probabilities: vec![-0.1, f32::NEG_INFINITY],
            top: vec![vec![(3, -0.1), (4, -1.5e-38)], vec![]],
        };
        let sent = serde_json::to_vec(&Sent::new(reply.clone())).unwrap();
        assert_eq!(serde_json::from_slice::<Sent>(&sent).unwrap().read(), reply);
    }
}
