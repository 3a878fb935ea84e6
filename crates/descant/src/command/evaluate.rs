//! `descant evaluate`: asks a model, judges what was replied, and compares two sides; or only judges, without a model.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use descant_evaluate::{Samples, Suite, Threshold};
use descant_lora::LoraAdapters;
use descant_model::Bare;

use super::examination::{Answering, Examination};
use super::figures::Figures;
use super::identity::settings_of_all;
use super::load;
use super::room::{fewer_at_once, place_for_asking};
use crate::cards::{self, Role, Team};
use crate::cli::Evaluate;
use crate::failure::{Exit, Hinted};
use crate::observe::Progress;
use crate::questions::{suites_of, tokenizer_of};
use crate::report::{Long, evaluation_text};
use crate::settings::Resolved;
use crate::signals::Signals;
use crate::talk::Talk;
use crate::words::counted;
use crate::wrap::wrap;

/// Loads, asks, prints: alone, as one of several processes, or as the one that starts them.
pub(crate) fn run(args: &Evaluate, resolved: Resolved, talk: Talk) -> Result<Exit> {
    let wanted = resolved.settings.model.device.clone();
    match cards::role(args.cards.as_ref(), cards::place()?, &wanted)? {
        Role::Alone(device) => {
            let _signals = Signals::catch()?;
            work(args, resolved, &device.unwrap_or(wanted), None, talk)
        }
        Role::Starts(devices) => cards::launch(&devices),
        Role::Member(place) => {
            let facts = settings_of_all(&resolved)?;
            cards::in_team(&place, facts, talk, |team, _, talk| {
                work(args, resolved, &team.device(&wanted)?, Some(team), talk)
            })
        }
    }
}

/// The same in one process.
fn work(
    args: &Evaluate,
    mut resolved: Resolved,
    device: &str,
    team: Option<&Team>,
    talk: Talk,
) -> Result<Exit> {
    let thresholds = thresholds(args)?;
    let (is_first, group) = (team.is_none_or(Team::is_first), team.map(|team| &team.group));
    if !args.suite.is_empty() {
        resolved.settings.evaluate.suites.clone_from(&args.suite);
        resolved.settings.data.held_out = None;
    }
    if args.base && args.adapter.is_none() {
        return Err(
            Hinted::new(anyhow!("--base compares with an adapter"), "name one with --adapter DIR").into()
        );
    }
    let settings = &resolved.settings;
    let device = load::device(device)?;
    let renderer = load::renderer(settings)?;
    let mut examination =
        Examination::new(&resolved, &renderer, args.tag.as_deref(), None)?.ok_or_else(|| {
            Hinted::new(
                anyhow!("nothing to ask: neither data.held_out nor evaluate.suites is set"),
                "write --suite tutorial, --suite FILE or --set data.held_out=FILE",
            )
        })?;
    for (key, count) in examination.unknown() {
        talk.warn(format_args!("the key `{key}` is unknown in a question and occurs {count} times"));
    }
    let (limit, keep) = settings.memory.limit_and_keep()?;
    let config = load::config(&settings.model.path)?;
    let of_host = team.map_or(1, Team::on_this_host);
    let (placement, fits) = place_for_asking(&device, limit, &config, examination.asking(), of_host)?;
    if fits.batch < examination.asking().batch {
        talk.warn(fewer_at_once(fits, examination.asking()));
    }
    examination.ask_at_once(fits.batch as usize);
    let model = load::model(&settings.model.path, &device.device, placement, (limit, keep))?;
    let adapter = args.adapter.as_deref();
    let overlay =
        adapter.map(|dir| LoraAdapters::load_peft(dir, &model.config, model.device())).transpose()?;
    talk.item("model", &resolved.model);
    talk.item("weights", model.formats());
    talk.item("adapter", adapter.map_or("none".into(), |dir| dir.display().to_string()));
    talk.item("device", &device.why);
    let template = renderer.template();
    talk.item("template", format_args!("{} (sha256 {})", template.source(), template.sha256()));
    for suite in &examination.suites {
        talk.item("questions", format_args!("{} of {}", suite.questions.len(), suite.source));
    }
    if let Some(dir) = args.out.as_ref().filter(|_| is_first) {
        descant_files::create_dirs(dir)?;
    }
    let place = |name: &str| args.out.as_ref().filter(|_| is_first).map(|dir| dir.join(name));
    let mut progress = Progress::new(talk);
    let mut ask = |name: &str, path: Option<PathBuf>, adapter: Option<&Path>| {
        let overlay: &dyn descant_model::Overlay = match (&overlay, adapter) {
            (Some(adapters), Some(_)) => adapters,
            _ => &Bare,
        };
        examination.ask(
            name,
            path.as_deref(),
            &Answering { model: &model, overlay, adapter },
            group,
            &mut progress,
        )
    };
    let (before, after) = match (args.base, adapter) {
        (true, _) => {
            let before = ask("base", place("samples-before.jsonl"), None)?;
            (before, Some(ask("adapter", place("samples-after.jsonl"), adapter)?))
        }
        (false, Some(_)) => (ask("adapter", place("samples.jsonl"), adapter)?, None),
        (false, None) => (ask("base", place("samples.jsonl"), None)?, None),
    };
    progress.finish();
    if !is_first {
        return Ok(Exit::Success);
    }
    let suites = examination.suites.clone();
    let figures = Figures::new(suites, before, after, renderer.tokenizer(), Some(&resolved.sha256))?;
    show(&figures, args, &thresholds, talk)
}

/// Makes every figure again from samples, without a model and without settings.
pub(crate) fn again(args: &Evaluate, from: &Path, talk: Talk) -> Result<Exit> {
    let thresholds = thresholds(args)?;
    let read = |path: &Path| {
        let samples = Samples::read(path)?;
        if samples.repeated > 0 {
            talk.warn(format_args!(
                "{}: {} replies or losses are there already; the first counts",
                path.display(),
                samples.repeated
            ));
        }
        anyhow::Ok(samples)
    };
    let latest = read(from)?;
    let (before, after) = match &args.before {
        Some(path) => (read(path)?, Some(latest)),
        None => (latest, None),
    };
    if let Some(after) = &after {
        comparable(&before, after)?;
    }
    let suites = suites_of(&before, &args.suite)?;
    let suites = match &args.tag {
        Some(tag) => suites.into_iter().map(|suite| suite.tagged(tag)).collect::<Result<Vec<Suite>, _>>()?,
        None => suites,
    };
    strangers(&suites, [Some(&before), after.as_ref()], args.tag.is_some(), talk)?;
    let tokenizer = tokenizer_of(&before, args.model.as_deref())?;
    let figures = Figures::new(suites, before, after, &tokenizer, None)?;
    show(&figures, args, &thresholds, talk)
}

/// Two sides must have been asked the same in the same way.
fn comparable(before: &Samples, after: &Samples) -> Result<()> {
    let (was, now) = (&before.header, &after.header);
    let differs = [
        ("suites", was.suites != now.suites || was.suite != now.suite),
        ("settings", was.settings != now.settings),
        ("template_sha256", was.template_sha256 != now.template_sha256),
        ("tokenizer_sha256", was.tokenizer_sha256 != now.tokenizer_sha256),
        ("date", was.date != now.date),
    ];
    match differs.iter().find(|(_, differs)| *differs) {
        Some((key, _)) => Err(anyhow!(
            "{} and {} differ in `{key}`, so that their replies cannot be compared",
            before.path.display(),
            after.path.display()
        )),
        None => Ok(()),
    }
}

/// Says when replies answer no question: they are in no figure.
fn strangers(suites: &[Suite], sides: [Option<&Samples>; 2], chosen: bool, talk: Talk) -> Result<()> {
    for samples in sides.into_iter().flatten() {
        let known = |id: &str| suites.iter().any(|suite| suite.question(id).is_some());
        let strange = samples.replies.keys().filter(|key| !known(&key.question)).count();
        if strange > 0 && strange == samples.replies.len() {
            return Err(anyhow!("{}: no reply is to one of these questions", samples.path.display()));
        }
        if strange > 0 && !chosen {
            talk.warn(format_args!(
                "{}: {strange} replies are to other questions, and in no figure",
                samples.path.display()
            ));
        }
    }
    Ok(())
}

fn thresholds(args: &Evaluate) -> Result<Vec<Threshold>> {
    Ok(args.at_least.iter().map(|text| text.parse()).collect::<Result<_, _>>()?)
}

/// What was measured: which adapter, on which model, by how many questions.
fn title(figures: &Figures) -> String {
    let origin = &figures.evaluations.origin;
    let model = origin.model.as_deref();
    let who = match (&origin.adapter, model) {
        (Some(adapter), Some(model)) => format!("{adapter} on {model}, "),
        (None, Some(model)) => format!("{model}, "),
        _ => String::new(),
    };
    let questions =
        |suite: &Suite| format!("{} of {}", counted(suite.questions.len() as u64, "question"), suite.source);
    who + &figures.suites.iter().map(questions).collect::<Vec<_>>().join(", ")
}

/// Prints the figures, keeps them where asked, and says whether every threshold is reached.
fn show(figures: &Figures, args: &Evaluate, thresholds: &[Threshold], talk: Talk) -> Result<Exit> {
    let evaluations = &figures.evaluations;
    if let Some(dir) = &args.out {
        let mut bytes = serde_json::to_vec_pretty(evaluations)?;
        bytes.push(b'\n');
        descant_files::create_dirs(dir)?;
        let path = dir.join("evaluation.json");
        descant_files::write_atomic(&path, &bytes).with_context(|| format!("write {}", path.display()))?;
    }
    if args.json {
        talk.data(serde_json::to_string(evaluations)?)?;
    } else {
        talk.data(format_args!("{}\n", wrap(&title(figures), talk.data_width()).join("\n")))?;
        let table = Long::wanted(args.table, talk);
        talk.data(evaluation_text(evaluations, talk.data_width(), table).trim_end())?;
    }
    // Not among the figures on standard output, which equal replies have in common.
    if let Some(rate) = evaluations.main().and_then(|main| main.latest().tokens_per_second) {
        talk.item("decoding", format_args!("{rate:.0} tokens/s"));
    }
    if !descant_evaluate::TELLS_LATIN_APART {
        talk.warn("this build cannot distinguish Latin-script languages: reasoning in them is `unsure`");
    }
    let mut exit = Exit::Success;
    for threshold in thresholds {
        let found: Vec<_> = evaluations.evaluations.iter().map(|e| threshold.misses(e)).collect();
        // A suite without data for a measure is passed over where another has it.
        let any = found.iter().any(Result::is_ok);
        for misses in found {
            match misses {
                Ok(misses) => {
                    for miss in misses {
                        talk.warn(miss);
                        exit = Exit::No;
                    }
                }
                Err(error) if !any => return Err(error.into()),
                Err(_) => {}
            }
        }
    }
    if exit == Exit::Success && !thresholds.is_empty() {
        talk.item("ok", format_args!("all limits are met: {}", args.at_least.join(", ")));
    }
    Ok(exit)
}
