//! What `descant train` says on the terminal beside its progress: the lines before the first step, and where it stopped.

use anyhow::Result;
use descant_lora::peft::Manifest;
use descant_model::GptOss;
use descant_train::checkpoint::Checkpoint;

use super::at_once::at_once_in_words;
use crate::cards::Team;
use crate::command::account::{DataAccount, Validated};
use crate::command::examination::Examination;
use crate::command::in_fp8::InFp8;
use crate::command::load;
use crate::command::room::Room;
use crate::command::stalls::Stalls;
use crate::failure::Exit;
use crate::run_folder::RunFolder;
use crate::settings::{Resolved, Settings};
use crate::signals::Signals;
use crate::talk::Talk;
use crate::words::{counted, grouped, listed, significant};

/// What is going to happen.
pub(super) fn first_lines(
    talk: Talk,
    resolved: &Resolved,
    device: &load::Chosen,
    model: &GptOss,
    in_fp8: Option<&InFp8>,
    manifest: &Manifest,
    data: &DataAccount,
    room: &Room,
    examination: Option<&Examination<'_>>,
    folder: &RunFolder,
) {
    let settings = &resolved.settings;
    let (config, train, lora) = (&model.config, &settings.train, &settings.lora);
    talk.item(
        "model",
        format_args!(
            "{} ({} layers, {} experts)",
            resolved.model, config.num_hidden_layers, config.num_local_experts
        ),
    );
    talk.item("weights", model.formats());
    talk.item("device", &device.why);
    if let Some(in_fp8) = in_fp8 {
        talk.item("experts", in_fp8.words());
        if let Some(deviation) = in_fp8.deviation() {
            talk.item("measured", deviation.words());
        }
    }
    talk.item(
        "trained",
        format_args!(
            "{} of {} parameters, {} %: LoRA r {}, alpha {} on {}",
            grouped(manifest.total as u64),
            grouped(load::n_parameters(config)),
            significant(100.0 * manifest.total as f64 / load::n_parameters(config) as f64),
            lora.r,
            lora.alpha,
            lora.targets.join(", ")
        ),
    );
    data_lines(talk, settings, data);
    let units = train.units() as f64;
    let (what, tokens) = if train.packing {
        ("packed sequences", train.max_sequence as f64)
    } else {
        ("examples", data.account.tokens.total().tokens as f64 / data.examples().max(1) as f64)
    };
    let about = if train.packing { "up to" } else { "about" };
    talk.item(
        "steps",
        format_args!(
            "{} x {units} {what}, {about} {} tokens a step{}",
            train.max_steps,
            grouped((units * tokens) as u64),
            at_once_in_words(&room.train, train)
        ),
    );
    talk.item("memory", room.line());
    if let Some(examination) = examination {
        prompts(talk, settings, examination);
    }
    let hash = resolved.sha256.get(..12).unwrap_or_default();
    talk.item("settings", format_args!("{} (sha256 {hash}), seed {}", resolved.origin, train.seed));
    talk.item("run", folder.path().display());
    talk.detail(format_args!("\n{}", resolved.text));
}

/// The data, and what of it was not used.
fn data_lines(talk: Talk, settings: &Settings, data: &DataAccount) {
    let account = &data.account;
    let total = account.tokens.total();
    talk.item(
        "data",
        format_args!(
            "{} ({}), {} tokens, {} of them trained (mask {}): {}",
            counted(data.examples(), "example"),
            data.form(),
            grouped(total.tokens),
            grouped(total.trained),
            settings.data.mask,
            data.channels()
        ),
    );
    sources_and_validation(talk, settings, data);
    if let Some(languages) = data.stated_languages() {
        talk.item("languages", languages);
    }
    // The model's own goes without saying; it is in data.json and in the report.
    if settings.model.chat_template.is_some() {
        talk.item("template", data.template());
    } else {
        talk.detail(format_args!("template    {}", data.template()));
    }
    for warning in data.warnings() {
        talk.warn(warning);
    }
}

/// What of several data sets is trained on, and what is validated on.
fn sources_and_validation(talk: Talk, settings: &Settings, data: &DataAccount) {
    for source in data.sources() {
        talk.item("source", source);
    }
    let Some(Validated { examples, watched, .. }) = data.validation else { return };
    let every = settings.validate.every;
    let (watched, all) = (grouped(watched as u64), grouped(examples as u64));
    talk.item("validation", format_args!("{watched} of {all} examples, every {every} steps"));
}

/// What will be asked before and after.
fn prompts(talk: Talk, settings: &Settings, examination: &Examination<'_>) {
    let questions: usize = examination.suites.iter().map(|suite| suite.questions.len()).sum();
    let replies = grouped(examination.replies() as u64);
    talk.item(
        "prompts",
        format_args!(
            "{}{} at {} effort, {}: {replies} replies before, {replies} after",
            counted(questions as u64, "question"),
            if questions < examination.there {
                format!(" of {}", grouped(examination.there as u64))
            } else {
                String::new()
            },
            listed(&settings.evaluate.efforts),
            if settings.evaluate.plain {
                "with a language asked and with none"
            } else {
                "with a language asked"
            }
        ),
    );
    for (key, count) in examination.unknown() {
        talk.warn(format_args!("the key `{key}` is unknown in a question and occurs {count} times"));
    }
    if !descant_evaluate::TELLS_LATIN_APART {
        talk.warn(
            "this build cannot distinguish Latin-script languages: reasoning in them will count as `unsure`",
        );
    }
}

/// Says how the run is shared, and where that leaves somebody without work.
pub(super) fn several(team: &Team, device: &load::Chosen, room: &Room, talk: Talk) {
    let (world, micro_batches) = (team.group.world(), room.train.accumulation);
    talk.item("processes", team.words(&device.device, micro_batches));
    if micro_batches < world {
        talk.warn(format_args!(
            "a step has {} for {world} processes, so that some always wait; set a smaller train.micro_batch and a larger \
             train.accumulation",
            counted(micro_batches as u64, "micro-batch")
        ));
    }
}

/// Says what an earlier process of the run left.
pub(super) fn going_on(folder: &RunFolder, from: Option<&Checkpoint>, talk: Talk) {
    if let Some(holder) = folder.left_by() {
        talk.warn(format_args!("{holder} was running here and ended without cleaning up"));
    }
    match from {
        Some(checkpoint) => {
            talk.item("resumes", format_args!("after step {}", checkpoint.trainer.steps));
        }
        None if folder.goes_on => talk.item("resumes", "from the start: no step was saved"),
        None => {}
    }
}

/// Says where a run was stopped, which is an error where the host stalled.
pub(super) fn stopped(
    step: u64,
    signals: &Signals,
    stalls: &Stalls,
    settings: &Settings,
    talk: Talk,
) -> Result<Exit> {
    if let Some(error) = stalls.error(step) {
        return Err(error);
    }
    let left = settings.train.max_steps - step;
    talk.warn(format_args!("stopped after step {step}, which is saved; {left} are left"));
    talk.hint("the same command again resumes from there");
    Ok(signals.came().unwrap_or(Exit::Interrupted))
}
