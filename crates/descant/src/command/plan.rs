//! `descant plan`: what a run would need, before anything is loaded: memory by what for, steps, tokens, disk, time.
//!
//! It reads the settings, the configuration and tokenizer of the model, and the data; no weights, and it writes
//! nothing. The memory is the estimate that `descant train` holds a run against. The time is a bound from below, from
//! operations alone and a product that is timed here; `descant bench step` measures steps.

use anyhow::{Context as _, Result};
use descant_kernels::gauge;
use descant_model::Config;
use descant_train::Samples as _;
use descant_train::memory::{Load, Memory};
use serde_json::{Value, json};

use super::bench::flops_per_token;
use super::examination::Examination;
use super::load::{self, Chosen};
use super::room::{Found, Room, size};
use super::rows;
use super::train::at_once_in_words;
use crate::cli::Plan;
use crate::failure::Exit;
use crate::settings::{Resolved, Settings};
use crate::talk::Talk;
use crate::words::{grouped, significant};
use crate::wrap::{LABEL, hanging};

/// Version of the JSON object.
const VERSION: u32 = 1;

/// What a run would need.
struct Answer {
    device: String,
    trained_parameters: u64,
    examples: u64,
    room: Room,
    steps: u64,
    /// Examples, or packed sequences, of a step.
    units: u64,
    disk: Disk,
    /// Floating-point operations of all steps, and the rate of this device, where it is here.
    operations: f64,
    rate: Option<f64>,
    /// Bytes of the host that stay in place for the card.
    host_bytes: u64,
}

/// Bytes of the run folder, the largest of them.
struct Disk {
    checkpoint: u64,
    adapter: u64,
    /// At the worst moment: what is kept, and one more while it is written.
    needs: u64,
    free: Option<u64>,
}

/// Finds out and prints. The status says whether it fits.
pub(crate) fn run(args: &Plan, resolved: &Resolved, talk: Talk) -> Result<Exit> {
    let settings = &resolved.settings;
    let dir = settings.model.path.as_path();
    let renderer = load::renderer(settings)?;
    let config = Config::from_dir(dir).with_context(|| format!("model {}", dir.display()))?;
    let rows::Training { examples: samples, account, .. } = rows::training(settings, &renderer, talk)?;
    let in_all = Load::of_run(&samples, &settings.train)?.in_all;
    let examination = Examination::new(resolved, &renderer, None, Some(in_all))?;
    let (found, device) = if let Some(card) = args.card {
        let (_, keep) = settings.memory.limit_and_keep()?;
        (Found::imagined(card, keep), None)
    } else {
        let device = load::device(&settings.model.device)?;
        (Found::by(settings, &device)?, Some(device))
    };
    for warning in account.warnings() {
        talk.warn(warning);
    }
    let asking = examination.as_ref().map(Examination::asking);
    let room = Room::find(settings, &config, &samples, asking, &found, None)?;
    // Packed ones do not see each other: what attention costs is a matter of the samples.
    let tokens: usize = (0..samples.count()).map(|at| samples.tokens(at)).sum();
    let a_sample = tokens / samples.count().max(1);
    let answer = Answer {
        device: device.as_ref().map_or_else(
            || format!("a card of {} that is not here", size(args.card.unwrap_or(0))),
            |device| device.why.clone(),
        ),
        trained_parameters: room.needs.adapter / 4,
        examples: account.examples(),
        steps: settings.train.max_steps,
        units: settings.train.units() as u64,
        disk: Disk::of(settings, &room.needs)?,
        operations: flops_per_token(&config, a_sample) * in_all as f64,
        rate: device.as_ref().map(|Chosen { device, .. }| gauge::rates(device).flops).filter(|r| *r > 0.0),
        host_bytes: room.needs.on_host,
        room,
    };
    if args.json {
        talk.data(answer.to_json())?;
    } else {
        answer.print(resolved, &config, talk)?;
    }
    if let Some(advice) = &answer.room.advice {
        talk.hint(advice);
    }
    if !answer.disk.fits() {
        talk.hint("make room where run.folder is, or set it to another disk");
    }
    Ok(if answer.fits() { Exit::Success } else { Exit::No })
}

impl Disk {
    fn fits(&self) -> bool {
        self.free.is_none_or(|free| free >= self.needs)
    }

    fn of(settings: &Settings, needs: &Memory) -> Result<Self> {
        let (adapter, checkpoint) = (needs.adapter, needs.adapter + needs.optimizer);
        let folder = settings.run.folder.clone().unwrap_or_else(|| "runs".into());
        Ok(Self {
            checkpoint,
            adapter,
            needs: (settings.run.keep as u64 + 1) * checkpoint + adapter,
            free: descant_files::free_bytes(&folder)?,
        })
    }
}

impl Answer {
    /// What the status says.
    fn fits(&self) -> bool {
        self.room.advice.is_none() && self.disk.fits()
    }

    /// The verdict first, then what it comes from.
    fn print(&self, resolved: &Resolved, config: &Config, talk: Talk) -> Result<()> {
        let settings = &resolved.settings;
        let width = talk.data_width();
        let free = self.room.free.map_or_else(|| "an unknown amount".to_owned(), size);
        let (total, least) = (size(self.room.needs.total()), size(self.room.needs.least()));
        talk.data(if self.room.advice.is_some() {
            format!("It does not fit: {least} of {free} free.\n")
        } else if !self.disk.fits() {
            format!("It does not fit on the disk: {} are needed.\n", size(self.disk.needs))
        } else if total == least {
            format!("It fits: {total} of {free} free.\n")
        } else {
            format!("It fits: {total} of {free} free, and with {least} too.\n")
        })?;
        let line = |label: &str, text: String| talk.data(hanging(label, &text, width));
        let (layers, experts) = (config.num_hidden_layers, config.num_local_experts);
        line("model", format!("{} ({layers} layers, {experts} experts)", resolved.model))?;
        line("device", self.device.clone())?;
        let (trained, targets) = (grouped(self.trained_parameters), settings.lora.targets.join(", "));
        line("trained", format!("{trained} parameters: LoRA r {} on {targets}", settings.lora.r))?;
        talk.data(self.memory().trim_end())?;
        for words in self.room.words() {
            line("", words)?;
        }
        if self.host_bytes > 0 {
            line("", format!("{} of host memory that stay in place (pinned)", size(self.host_bytes)))?;
        }
        let what = if settings.train.packing { "packed sequences" } else { "examples" };
        let a_step = grouped(self.room.load.in_all / self.steps.max(1));
        line(
            "steps",
            format!(
                "{} x {} {what}{}; {} tokens of {} examples, {a_step} a step",
                self.steps,
                self.units,
                at_once_in_words(&self.room.train, &settings.train),
                grouped(self.room.load.in_all),
                grouped(self.examples)
            ),
        )?;
        let disk_free = self.disk.free.map_or_else(|| "an unknown amount".to_owned(), size);
        let (checkpoint, needs) = (size(self.disk.checkpoint), size(self.disk.needs));
        line(
            "disk",
            format!("{needs} of {disk_free} free: checkpoints of {checkpoint}, {} kept", settings.run.keep),
        )?;
        let time = match self.rate {
            Some(rate) => format!(
                "at least {} for the steps: {:.1e} operations at {} TFLOP/s, which a large product has here",
                duration(self.operations / rate),
                self.operations,
                significant(rate / 1e12)
            ),
            None => "not known without the device; `descant bench step` measures it there".to_owned(),
        };
        line("time", time)?;
        if let Some(bus) = &self.room.bus {
            let all = duration(bus.seconds() * self.steps as f64);
            line("", format!("at least {all} of it for the bus, over all steps"))?;
        }
        Ok(())
    }

    /// Memory by what for, in the steps and while prompts are answered: never both at once.
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

    fn to_json(&self) -> Value {
        let needs = &self.room.needs;
        json!({
            "schema_version": VERSION,
            "fits": self.fits(),
            "device": self.device,
            "trained_parameters": self.trained_parameters,
            "memory_bytes": {
                "base": needs.base, "adapter": needs.adapter, "gradients": needs.gradients,
                "optimizer": needs.optimizer, "activations": needs.activations,
                "kept_because_there_is_room": needs.kept, "held_out_prompts": needs.asking,
                "runtime": needs.runtime, "total": needs.total(), "least": needs.least(),
                "free": self.room.free,
            },
            "placement": {
                "embedding_on_host": self.room.arrangement.placement.embedding_on_host,
                "streamed_layers": self.room.arrangement.placement.streamed_layers,
                "micro_batches_together": self.room.arrangement.together,
                "inputs_on_host": self.room.arrangement.inputs_on_host,
                "host_bytes": self.host_bytes,
                "bus_bytes_per_step": self.room.bus.map_or(0, |bus| bus.bytes),
                "bus_bytes_per_second": self.room.bus.map(|bus| bus.rate),
                "bus_is_measured": self.room.bus.map(|bus| bus.is_measured),
            },
            "micro_batch": self.room.train.at_once(),
            "accumulation": self.room.train.accumulation,
            "steps": self.steps,
            "units_per_step": self.units,
            "examples": self.examples,
            "tokens": self.room.load.in_all,
            "longest_micro_batch_tokens": self.room.load.tokens,
            "disk_bytes": {
                "checkpoint": self.disk.checkpoint, "adapter": self.disk.adapter, "needs": self.disk.needs,
                "free": self.disk.free,
            },
            "operations": self.operations,
            "seconds_at_least": self.rate.map(|rate| self.operations / rate),
            "advice": self.room.advice,
        })
    }
}

/// A time for people.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.1} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
