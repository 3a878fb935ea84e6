//! The same questions asked by several processes: rank 0 says what waits, it is dealt, and rank 0 keeps the answers in
//! the order of the questions.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result};
use descant_evaluate::{First, Key, Loss, Nats, Prompt, Writer, reply};
use descant_model::Request;
use descant_train::{Event, Observer};
use descant_workers::{Group, Wait, deal};

use super::held_out::HeldOut;
use super::{Answering, Examination};
use crate::cards::{Answerers, Told, told};

impl Examination<'_> {
    /// Replies to the prompts that wait, which rank 0 knows.
    pub(super) fn answer_together(
        &self,
        waiting: &[Prompt],
        writer: &mut Writer,
        answering: &Answering<'_>,
        group: &Group,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let keys: Vec<&Key> = waiting.iter().map(|prompt| &prompt.key).collect();
        let waiting: Vec<Key> = told(group, "prompts", &keys)?;
        let known: BTreeMap<&Key, &Prompt> =
            self.prompts.iter().map(|prompt| (&prompt.key, prompt)).collect();
        let prompt =
            |key: &Key| known.get(key).copied().context("rank 0 asks a prompt that is not known here");
        let waiting: Vec<&Prompt> = waiting.iter().map(prompt).collect::<Result<_>>()?;
        let requests: Vec<Request> = waiting.iter().map(|prompt| self.request(prompt)).collect();
        let before = self.prompts.len() - waiting.len();
        let mut since = Instant::now();
        let mut tell = |what: Told| {
            let done = match what {
                Told::Count(count) => count,
                Told::Replies(range, made) => {
                    let (new_tokens, done) = (made.iter().map(|made| made.ids.len()).sum(), range.end);
                    let replies =
                        range.zip(made).map(|(at, made)| reply(&waiting[at].key, made.ids, self.renderer));
                    let replies = replies.collect::<Result<_, _>>()?;
                    writer.add(replies, new_tokens, since.elapsed().as_secs_f64())?;
                    since = Instant::now();
                    done
                }
            };
            observer.on(&Event::Progress { done: (before + done) as u64 });
            Ok(())
        };
        let (model, overlay, options) = (answering.model, answering.overlay, self.options());
        Answerers { group, model, overlay, options }.ask(&requests, &mut tell)
    }

    /// Losses on the held-out rows that wait, which rank 0 knows.
    pub(super) fn losses_together(
        &self,
        waiting: &[&HeldOut],
        writer: &mut Writer,
        answering: &Answering<'_>,
        group: &Group,
    ) -> Result<()> {
        let ids: Vec<&str> = waiting.iter().map(|row| row.id.as_str()).collect();
        let ids: Vec<String> = told(group, "rows", &ids)?;
        let rows: Vec<&HeldOut> = self.held_out.iter().filter(|row| ids.contains(&row.id)).collect();
        let costs: Vec<u64> = rows.iter().map(|row| row.ids.len() as u64).collect();
        let dealt = deal(&costs, group.world());
        let mine = dealt.of(group.rank()).map(|at| rows[at].loss(answering.model, answering.overlay));
        let mine: Vec<SentLoss> = mine.map(|loss| loss.map(SentLoss::new)).collect::<Result<_, _>>()?;
        let Some(all) = group.gather("row losses", &serde_json::to_vec(&mine)?, Wait::Long)? else {
            return Ok(());
        };
        let mut ordered: BTreeMap<usize, Loss> = BTreeMap::new();
        for (rank, bytes) in all.iter().enumerate() {
            let losses: Vec<SentLoss> = serde_json::from_slice(bytes).context("losses of another rank")?;
            let losses = dealt.of(rank).zip(losses);
            ordered.extend(losses.map(|(at, loss)| (at, loss.read(rows[at].id.clone()))));
        }
        for loss in ordered.into_values() {
            writer.add_loss(loss)?;
        }
        Ok(())
    }
}

/// A loss on its way to rank 0, to the bit: JSON's decimals may be read with another last digit.
#[derive(serde::Serialize, serde::Deserialize)]
struct SentLoss {
    /// Bits of nats and tokens.
    channels: Vec<(String, u64, u64)>,
    /// Bits of nats, and the rank of the token.
    first: Option<(u64, u64)>,
}

impl SentLoss {
    fn new(loss: Loss) -> Self {
        let bits = |(name, nats): (String, Nats)| (name, nats.nats.to_bits(), nats.tokens.to_bits());
        Self {
            channels: loss.channels.into_iter().map(bits).collect(),
            first: loss.first.map(|first| (first.nats.to_bits(), first.rank)),
        }
    }

    fn read(self, id: String) -> Loss {
        let of = |(name, nats, tokens): (String, u64, u64)| {
            (name, Nats { nats: f64::from_bits(nats), tokens: f64::from_bits(tokens) })
        };
        let first = self.first.map(|(nats, rank)| First { nats: f64::from_bits(nats), rank });
        Loss { id, channels: self.channels.into_iter().map(of).collect(), first }
    }
}
