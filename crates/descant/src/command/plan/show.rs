//! The answer of `descant plan`, for people and as JSON.

use anyhow::Result;
use descant_kernels::Chunks;
use descant_train::Experts;
use serde_json::{Value, json};

use super::cards::Predicted;
use super::{Answer, cards};
use crate::command::train::at_once_in_words;
use crate::settings::{Resolved, Settings};
use crate::talk::Talk;
use crate::words::size;
use crate::words::{counted, duration, grouped, significant};
use crate::wrap::{LABEL, hanging};

/// Version of the JSON object.
const VERSION: u32 = 1;

impl Answer {
    /// The verdict first, then what it comes from.
    pub(super) fn print(&self, resolved: &Resolved, talk: Talk) -> Result<()> {
        let settings = &resolved.settings;
        let width = talk.data_width();
        talk.data(self.verdict())?;
        let line = |label: &str, text: String| talk.data(hanging(label, &text, width));
        let (layers, experts) = (self.base.config.num_hidden_layers, self.base.config.num_local_experts);
        let shape = format!("{layers} layers, {experts} experts");
        line(
            "model",
            match self.base.download {
                None => format!("{} ({shape})", resolved.model),
                Some(bytes) => {
                    format!("{} ({shape}); not here yet, {} to download", resolved.model, size(bytes))
                }
            },
        )?;
        if let Some(ahead) = self.rows.ahead() {
            line("data", ahead.words())?;
        }
        line("device", self.device.clone())?;
        if let Some(limit) = &self.room.limit {
            line("limit", limit.clone())?;
        }
        let (trained, targets) = (grouped(self.trained_parameters), settings.lora.targets.join(", "));
        line("trained", format!("{trained} parameters: LoRA r {} on {targets}", settings.lora.r))?;
        talk.data(self.memory().trim_end())?;
        let peaks = self.room.peaks().map(|(part, bytes)| format!("{part} {}", size(bytes)));
        line("peaks", format!("{}, with what was in use before", peaks.collect::<Vec<_>>().join(", ")))?;
        for words in self.room.words() {
            line("", words)?;
        }
        if self.host_bytes > 0 {
            line("", format!("{} of host memory that stay in place (pinned)", size(self.host_bytes)))?;
        }
        line("steps", self.steps_in_words(settings))?;
        let unknown = || "an unknown amount".to_owned();
        let disk_free = self.disk.free.map_or_else(unknown, size);
        let (checkpoint, needs) = (size(self.disk.checkpoint), size(self.disk.needs));
        line(
            "disk",
            format!("{needs} of {disk_free} free: checkpoints of {checkpoint}, {} kept", settings.run.keep),
        )?;
        if self.disk.download > 0 {
            let free = self.disk.cache_free.map_or_else(unknown, size);
            line(
                "",
                format!("{} to download into {}, {free} free", size(self.disk.download), self.disk.cache),
            )?;
        }
        line("time", self.time_in_words())?;
        if let Some(bus) = &self.room.bus {
            let all = duration(bus.seconds() * self.steps as f64);
            line("", format!("at least {all} of it for the bus, over all steps"))?;
        }
        for (at, card) in self.cards.iter().enumerate() {
            line(if at == 0 { "cards" } else { "" }, card.line())?;
        }
        if !self.cards.is_empty() {
            line("", format!("TFLOP/s are the makers' peaks; {}", cards::MEASURED))?;
        }
        Ok(())
    }

    fn verdict(&self) -> String {
        let free = self.room.free.map_or_else(|| "an unknown amount".to_owned(), size);
        let (total, least) = (size(self.room.needs.total()), size(self.room.needs.least()));
        if self.room.advice.is_some() {
            let place = if self.cards.is_empty() { "" } else { " on the CPU of this machine" };
            format!("It does not fit{place}: {least} of {free} free.\n")
        } else if !self.disk.run_fits() {
            format!("It does not fit on the disk: {} are needed.\n", size(self.disk.needs))
        } else if !self.disk.download_fits() {
            format!("The download does not fit on the disk: {} are needed.\n", size(self.disk.download))
        } else if total == least {
            format!("It fits: {total} of {free} free.\n")
        } else {
            format!("It fits: {total} of {free} free, and with {least} too.\n")
        }
    }

    fn steps_in_words(&self, settings: &Settings) -> String {
        let what = if settings.train.packing { "packed sequences" } else { "examples" };
        let at_once = at_once_in_words(&self.room.train, &settings.train);
        let experts = match settings.train.experts {
            Experts::Bf16 => "",
            Experts::Fp8 => ", experts in fp8",
        };
        let steps = format!("{} x {} {what}{at_once}{experts}", self.steps, self.units);
        let most = grouped(self.room.load.in_all);
        let Some(tokens) = self.tokens else {
            return format!("{steps}; tokens are unknown until the data is here, {most} at most");
        };
        let about = if self.rows.ahead().is_some() { "about " } else { "" };
        let a_step = grouped(tokens / self.steps.max(1));
        let of = self.rows.examples().map_or_else(String::new, |n| format!(" of {}", counted(n, "example")));
        format!("{steps}; {about}{} tokens{of}, {a_step} a step", grouped(tokens))
    }

    fn time_in_words(&self) -> String {
        let at_most = if self.tokens.is_none() { "at most " } else { "" };
        let operations = format!("{at_most}{:.1e} operations", self.operations);
        match self.rate {
            Some(rate) => format!(
                "at least {} for the steps: {operations} at {} TFLOP/s, which a large product has here",
                duration(self.operations / rate),
                significant(rate / 1e12)
            ),
            None => match cards::floors_in_words(&self.floors) {
                Some(floors) => {
                    let how =
                        self.predicted.as_ref().map_or_else(|| cards::MEASURED.to_owned(), Predicted::words);
                    format!("{floors} for the steps: {operations} at the makers' peaks; {how}")
                }
                None => format!(
                    "not known without the device, for {operations}; `descant bench step` measures it there"
                ),
            },
        }
    }

    /// Memory by purpose, in the steps and while prompts are answered: never both at once.
    fn memory(&self) -> String {
        let needs = self.room.needs;
        let asks = needs.asking > 0;
        let largest = needs.total();
        let (unit, per) = if largest < 1 << 30 { ("MiB", 1_u64 << 20) } else { ("GiB", 1 << 30) };
        let shown = |bytes: Option<u64>| {
            bytes.filter(|bytes| *bytes > 0).map_or_else(String::new, |bytes| {
                let value = bytes as f64 / per as f64;
                if per == 1 << 20 { format!("{value:.1}") } else { format!("{value:.2}") }
            })
        };
        let rows = [
            ("base", Some(needs.base), Some(needs.base)),
            ("adapter", Some(needs.adapter), Some(needs.adapter)),
            ("gradients", Some(needs.gradients), None),
            ("optimizer", Some(needs.optimizer), None),
            ("activations", Some(needs.activations), None),
            ("kept while there is room", Some(needs.kept), None),
            ("replies", None, Some(needs.asking)),
            ("runtime", Some(needs.runtime), Some(needs.runtime)),
            ("in all", Some(self.room.steps()), Some(self.room.prompts())),
        ];
        let second = |text: &str| if asks { format!("{text:>18}") } else { String::new() };
        let mut text = format!("{:<38}{:>8}{}\n", "", "steps", second("held-out prompts"));
        let label = format!("memory, {unit}");
        for (at, (name, steps, prompts)) in
            rows.into_iter().filter(|(_, a, b)| a.or(*b).is_some_and(|bytes| bytes > 0)).enumerate()
        {
            let label = if at == 0 { label.as_str() } else { "" };
            let line = format!("{label:<LABEL$}{name:<26}{:>8}{}", shown(steps), second(&shown(prompts)));
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    pub(super) fn to_json(&self, resolved: &Resolved) -> Value {
        let needs = &self.room.needs;
        json!({
            "schema_version": VERSION,
            "fits": self.fits(),
            "model": resolved.model,
            "model_is_here": self.base.download.is_none(),
            "data_is_here": self.rows.ahead().is_none(),
            "data": self.rows.ahead().map(super::ahead::Ahead::words),
            "device": self.device,
            "trained_parameters": self.trained_parameters,
            "memory_bytes": {
                "base": needs.base, "adapter": needs.adapter, "gradients": needs.gradients,
                "optimizer": needs.optimizer, "activations": needs.activations,
                "kept_because_there_is_room": needs.kept, "held_out_prompts": needs.asking,
                "runtime": needs.runtime, "total": needs.total(), "least": needs.least(),
                "free": self.room.free, "limit": resolved.settings.memory.limit().ok().flatten(),
            },
            "peak_bytes": self.room.peaks().map(|(part, bytes)| (part.replace([' ', '-'], "_"), json!(bytes)))
                .collect::<serde_json::Map<_, _>>(),
            "held_out_prompts_at_once": self.room.asking.map(|asking| asking.batch),
            "placement": {
                "embedding_on_host": self.room.arrangement.placement.embedding_on_host,
                "streamed_layers": self.room.arrangement.placement.streamed_layers,
                "micro_batches_together": self.room.arrangement.together,
                "host_bytes": self.host_bytes,
                "inputs_on_host": self.room.arrangement.inputs_on_host,
                "experts_in_short_chunks": self.room.arrangement.chunks == Chunks::Short,
                "bus_bytes_per_step": self.room.bus.map_or(0, |bus| bus.bytes),
                "bus_bytes_per_second": self.room.bus.map(|bus| bus.rate),
                "bus_is_measured": self.room.bus.map(|bus| bus.is_measured),
            },
            "micro_batch": self.room.train.at_once(),
            "accumulation": self.room.train.accumulation,
            "experts": self.room.train.experts,
            "steps": self.steps,
            "units_per_step": self.units,
            "examples": self.rows.examples(),
            "tokens": self.tokens,
            "tokens_at_most": self.room.load.in_all,
            "longest_micro_batch_tokens": self.room.load.tokens,
            "disk_bytes": {
                "checkpoint": self.disk.checkpoint, "adapter": self.disk.adapter, "needs": self.disk.needs,
                "free": self.disk.free, "download": self.disk.download, "cache_free": self.disk.cache_free,
            },
            "operations": self.operations,
            "seconds_at_least": self.rate.map(|rate| self.operations / rate),
            "seconds_at_least_on": cards::floors_in_json(&self.floors),
            "seconds_predicted": self.predicted.as_ref().map(|predicted| predicted.seconds),
            "cards": self.cards.iter().map(cards::Verdict::to_json).collect::<Vec<_>>(),
            "advice": self.room.advice,
        })
    }
}
