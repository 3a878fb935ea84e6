//! `descant train`: samples and measures before, training, adapter, samples and measures after, report.
//!
//! Everything that can be wrong with settings and data is found before the run folder is made and before the model
//! is asked anything. The same command again continues where a stopped run's newest checkpoint is, or does what was
//! left to do after its last step.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use descant_evaluate::Samples;
use descant_harmony::Renderer;
use descant_kernels::gauge;
use descant_lora::LoraAdapters;
use descant_lora::peft::Manifest;
use descant_model::{Bare, Config, GptOss, Overlay};
use descant_train::checkpoint::{Checkpoint, Identity, Store};
use descant_train::memory::{Asking, Load};
use descant_train::{
    Course, Ended, Error, Event, Keeping, MicroBatch, Observer, Silent, TrainConfig, Validation, Watched,
    Workers, fit_kept,
};
use descant_workers::{Group, Place, Wait};

use super::account::{DataAccount, Validated};
use super::examination::{Answering, Examination};
use super::figures::Figures;

use super::identity::{identity, of_all, settings_of_all};
use super::pages::Pages;
use super::room::{Found, Room, in_use, size};
use super::stalls::Stalls;
use super::summary::{Outcome, Phases, Summary};
use super::{best, load, preflight, rows};
use crate::cards::{self, Begin, Role, Shares, Team};
use crate::cli::Train;
use crate::experts::Loads;
use crate::failure::{Exit, Hinted};
use crate::observe::{Both, Progress, Records};
use crate::run_folder::{AFTER, BEFORE, EVALUATION, EXPERTS, RunFolder, SUMMARY};
use crate::settings::{Memory, Resolved, Settings, Validate};
use crate::signals::Signals;
use crate::talk::Talk;
use crate::words::{counted, grouped, listed, significant};

/// Prints the resolved settings.
pub(crate) fn dry_run(resolved: &Resolved, talk: Talk) -> Result<Exit> {
    talk.data(resolved.text.trim_end())?;
    talk.say(format_args!("the settings of {} are valid; nothing was trained", resolved.origin));
    Ok(Exit::Success)
}

/// The main job: alone, as one of several processes, or as the one that starts them.
pub(crate) fn run(args: &Train, resolved: &Resolved, place: Option<Place>, talk: Talk) -> Result<Exit> {
    let wanted = &resolved.settings.model.device;
    match cards::role(args.cards.as_ref(), place, wanted)? {
        Role::Alone(device) => {
            let signals = Signals::catch()?;
            work(args, resolved, &device.unwrap_or_else(|| wanted.clone()), None, &signals, talk)
        }
        Role::Starts(devices) => {
            // Before anything is started that would only be stopped again.
            resolved.settings.run.folder.as_deref().map_or(Ok(()), RunFolder::refuse_if_held)?;
            cards::launch(&devices)
        }
        Role::Member(place) => {
            cards::in_team(&place, settings_of_all(resolved)?, talk, |team, signals, talk| {
                work(args, resolved, &team.device(wanted)?, Some(team), signals, talk)
            })
        }
    }
}

/// The main job in one process.
fn work(
    args: &Train,
    resolved: &Resolved,
    device: &str,
    team: Option<&Team>,
    signals: &Signals,
    talk: Talk,
) -> Result<Exit> {
    let settings = &resolved.settings;
    let started = Instant::now();
    let is_first = team.is_none_or(Team::is_first);
    if is_first {
        settings.run.folder.as_deref().map_or(Ok(()), RunFolder::refuse_if_held)?;
    }
    let device = load::device(device)?;
    let dir = settings.model.path.as_path();
    let renderer = load::renderer(settings)?;
    // One prepares the data, and the others find what it has put into the cache.
    let prepared = |team: &Team| team.group.barrier("data", Wait::Long);
    team.filter(|_| !is_first).map_or(Ok(()), prepared)?;
    let rows::Training { examples: samples, watched, account } = rows::training(settings, &renderer, talk)?;
    team.filter(|_| is_first).map_or(Ok(()), prepared)?;
    let tokens = Load::of_run(&samples, &settings.train)?.in_all;
    let examination = Examination::new(resolved, &renderer, None, Some(tokens))?;
    let config = load::config(dir)?;
    let identity = identity(resolved, dir, &samples.sha256(), &device.name)?;
    let asking = examination.as_ref().map(Examination::asking);
    let (room, found) = room_for(args, resolved, &config, &samples, asking, &device, &identity, team)?;
    room.refuse(&device)?;
    let examination = examination.map(|examination| as_fits(examination, &room));
    let identity = with_choice(identity, settings, &room.train);
    // All have measured what is free before anybody takes of it.
    team.map_or(Ok(()), |team| team.agree(&of_all(&identity)))?;
    drop(found);
    let model = base(settings, &device, &room, &renderer, talk)?;
    let trained = device.device.clone().autodiff();
    let adapters = LoraAdapters::init(&model.config, &settings.lora, settings.train.seed, &trained)?;
    let link = team.map(|team| team.link(&device.device)).transpose()?;
    let workers = team.zip(link.as_deref()).map(|(team, link)| Workers { group: &team.group, link });
    if let Some(team) = team.filter(|_| !is_first) {
        let others = Others { team, settings, room: &room, signals, watched: &watched, talk };
        let examination = examination.as_ref();
        return others
            .work(&model, &samples, adapters, workers, examination)
            .map_err(|e| with_shares(e, &device));
    }
    let kept = Kept {
        args,
        resolved,
        device: &device,
        room: &room,
        team,
        signals,
        account: &account,
        started,
        talk,
    };
    kept.work(&model, &samples, &watched, adapters, workers, examination.as_ref(), identity)
}

/// The run of the process that prints and writes.
struct Kept<'a> {
    args: &'a Train,
    resolved: &'a Resolved,
    device: &'a load::Chosen,
    room: &'a Room,
    team: Option<&'a Team>,
    signals: &'a Signals,
    account: &'a DataAccount,
    started: Instant,
    talk: Talk,
}

impl Kept<'_> {
    fn work(
        &self,
        model: &GptOss,
        samples: &dyn descant_train::Samples,
        watched: &[Watched],
        adapters: LoraAdapters,
        workers: Option<Workers<'_>>,
        examination: Option<&Examination<'_>>,
        identity: Identity,
    ) -> Result<Exit> {
        let &Self { args, resolved, device, room, team, signals, account, started, talk } = self;
        let settings = &resolved.settings;
        let manifest = adapters.manifest(&model.config);
        let folder =
            RunFolder::open(settings.run.folder.as_deref(), &resolved.model_name(), args.force, &identity)?;
        let summary = folder.read(SUMMARY)?;
        if let Some(team) = team {
            let begin = Begin { done: summary.is_some(), folder: absolute(folder.path())? };
            team.tell("begin", Some(begin))?;
        }
        if let Some(summary) = summary {
            return already_done(&folder, &summary, args.json, talk);
        }
        let store = Store { run: folder.path().to_owned(), identity, keep: settings.run.keep };
        #[cfg(feature = "cuda")]
        let _choices = super::kept::keep_choices(&folder.join("choices"));
        let from = store.newest(&adapters, &mut |text| talk.warn(text)).map_err(hinted)?;
        describe(&folder, resolved, &manifest, account)?;
        first_lines(talk, resolved, device, model, &manifest, account, room, examination, &folder);
        if let Some(team) = team {
            several(team, device, room, talk);
        }
        going_on(&folder, from.as_ref(), talk);

        let mut progress = Progress::new(talk);
        let mut records = records(&folder, from.as_ref())?;
        progress.replay(records.told());
        let past = records.validations();
        let mut phases = Phases::since(started, device);
        phases.end("reading and loading", room.planned_load());
        let asked = examination.is_some().then(|| room.planned_for(room.prompts()));
        let mut pages = Pages::new(folder.path());
        let mut shares = Shares::default();
        let mut kept = Both(&mut records, &mut pages);
        let mut kept = Both(&mut shares, &mut kept);
        let mut observer = Both(&mut progress, &mut kept);
        let group = team.map(|team| &team.group);
        let examining =
            examination.map(|examination| Examining { examination, resolved, folder: &folder, group });
        let before =
            examining.as_ref().map(|examining| examining.before(model, &mut observer)).transpose()?;
        phases.end("questions before", asked);
        signals.hold_steps(talk);
        let course = course(model, samples, settings, room, workers);
        let best = |step: u64, adapters: &LoraAdapters| {
            best::keep(&folder, step, adapters, &model.config, resolved).map_err(best::refused)
        };
        let stalls = Stalls::new();
        let keeping = Keeping {
            store: &store,
            every: settings.run.save_every,
            from,
            stop: &|| signals.came().is_some() || stalls.come(talk),
            validation: validation(settings, watched, past, &best),
        };
        let ended = fit_kept(course, adapters, keeping, &mut observer).map_err(|e| explained(e, device))?;
        signals.release();
        let trained_in = in_use(device);
        phases.end("steps and saving", Some(room.planned_for(room.steps())));
        let adapters = match ended {
            Ended::Done(adapters) => adapters,
            Ended::Stopped { step } => {
                progress.finish();
                return stopped(step, signals, &stalls, settings, talk);
            }
        };
        let saved = folder.join("adapter");
        let adapters = saved_and_read_back(&adapters, &saved, model, resolved)?;
        let measured = match examining.zip(before) {
            Some((examining, before)) => {
                Some(examining.after(before, model, &adapters, &saved, &mut observer)?)
            }
            None => None,
        };
        phases.end("questions after", asked);
        count_experts(model, &adapters, samples, &folder, talk)?;
        phases.end("counting experts", None);
        progress.finish();
        if let Some(words) = shares.words() {
            talk.item("processes", words);
        }
        records.finish()?;
        let outcome = Outcome {
            settings,
            resolved,
            folder: &folder,
            manifest: &manifest,
            records: &records,
            measured: measured.as_ref(),
            wall_seconds: started.elapsed().as_secs_f64(),
            phases: phases.all(),
            room,
            peak: trained_in.max(in_use(device)),
        };
        let summary = Summary::write(&outcome)?;
        summary.print(&outcome, args.json, args.table, talk)?;
        Ok(Exit::Success)
    }
}

/// As many prompts at once as there is room for.
fn as_fits<'a>(mut examination: Examination<'a>, room: &Room) -> Examination<'a> {
    if let Some(asking) = room.asking {
        examination.ask_at_once(asking.batch as usize);
    }
    examination
}

/// What is trained on what, as far as there is room.
fn course<'a>(
    model: &'a GptOss,
    samples: &'a dyn descant_train::Samples,
    settings: &'a Settings,
    room: &'a Room,
    workers: Option<Workers<'a>>,
) -> Course<'a> {
    let Room { train, arrangement, .. } = room;
    Course { model, samples, config: train, guard: &settings.guard, arrangement: *arrangement, workers }
}

/// How the examples that are not trained on are looked at, where there are any.
fn validation<'a>(
    settings: &Settings,
    watched: &'a [Watched],
    past: Vec<(u64, f32)>,
    best: &'a dyn Fn(u64, &LoraAdapters) -> descant_train::Result<()>,
) -> Option<Validation<'a>> {
    let Validate { every, patience, .. } = settings.validate;
    (!watched.is_empty()).then_some(Validation { watched, every, patience, past, best })
}

/// What a run needs and what there is. Where it chooses the sequences at once by itself, rank 0 chooses for all.
fn room_for(
    args: &Train,
    resolved: &Resolved,
    config: &Config,
    samples: &dyn descant_train::Samples,
    asking: Option<Asking>,
    device: &load::Chosen,
    identity: &Identity,
    team: Option<&Team>,
) -> Result<(Room, Found)> {
    let settings = &resolved.settings;
    let found = Found::by(settings, device)?;
    let found = match team {
        Some(team) => found.among(team.group.world(), team.on_this_host()),
        None => found,
    };
    let chooses = settings.train.micro_batch == MicroBatch::Auto;
    let begun = match team.filter(|team| chooses && !team.is_first()) {
        Some(team) => Some(team.tell("sequences at once", None)?),
        None => begun_with(resolved, args.force, identity),
    };
    let room = Room::find(settings, config, samples, asking, &found, begun)?;
    if let Some(team) = team.filter(|team| chooses && team.is_first()) {
        team.tell("sequences at once", Some(room.train.at_once()))?;
    }
    Ok((room, found))
}

/// A process that is not rank 0: it computes its share, and keeps and says nothing.
struct Others<'a> {
    team: &'a Team,
    settings: &'a Settings,
    room: &'a Room,
    signals: &'a Signals,
    watched: &'a [Watched],
    talk: Talk,
}

impl Others<'_> {
    fn work(
        &self,
        model: &GptOss,
        samples: &dyn descant_train::Samples,
        adapters: LoraAdapters,
        workers: Option<Workers<'_>>,
        examination: Option<&Examination<'_>>,
    ) -> Result<Exit> {
        let talk = self.talk;
        let Begin { done, folder } = self.team.tell("begin", None)?;
        if done {
            return Ok(Exit::Success);
        }
        #[cfg(feature = "cuda")]
        let _choices = super::kept::keep_choices(&folder.join("choices"));
        let group = Some(&self.team.group);
        let ask = |name: &str, overlay: &dyn Overlay| {
            let answering = Answering { model, overlay, adapter: None };
            let asked = examination.map(|all| all.ask(name, None, &answering, group, &mut Silent));
            asked.transpose().map(drop)
        };
        ask("before", &Bare)?;
        self.signals.hold();
        let stalls = Stalls::new();
        // Rank 0 keeps what is kept.
        let store = Store { run: folder, identity: Identity::new(), keep: 0 };
        let keeping = Keeping {
            store: &store,
            every: self.settings.run.save_every,
            from: None,
            stop: &|| self.signals.came().is_some() || stalls.come(talk),
            validation: validation(self.settings, self.watched, Vec::new(), &|_, _| Ok(())),
        };
        let course = course(model, samples, self.settings, self.room, workers);
        let ended = fit_kept(course, adapters, keeping, &mut Silent)?;
        self.signals.release();
        match ended {
            Ended::Done(adapters) => ask("after", &adapters.frozen())?,
            Ended::Stopped { step } => return stopped(step, self.signals, &stalls, self.settings, talk),
        }
        Ok(Exit::Success)
    }
}

/// An error of another rank with what its card has, where that is what lacks.
fn with_shares(error: anyhow::Error, device: &load::Chosen) -> anyhow::Error {
    match error.downcast::<Error>() {
        Ok(error) => explained(error, device),
        Err(error) => error,
    }
}

/// Says how the run is shared, and where that leaves somebody without work.
fn several(team: &Team, device: &load::Chosen, room: &Room, talk: Talk) {
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

/// A path that other processes can use, whatever folder they are in.
fn absolute(path: &Path) -> Result<std::path::PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}

/// What the identity calls the sequences at once of a run that chose them itself.
const AT_ONCE: &str = "sequences at once";

/// The sequences at once with which the run was begun that this one would resume, where it chose them itself.
fn begun_with(resolved: &Resolved, force: bool, identity: &Identity) -> Option<usize> {
    let of_run = resolved.settings.train.micro_batch == MicroBatch::Auto && !force;
    let folder = resolved.settings.run.folder.as_deref();
    let recorded = of_run.then(|| RunFolder::recorded(folder, &resolved.model_name(), identity, AT_ONCE));
    recorded.flatten()?.parse().ok().filter(|sequences| *sequences > 0)
}

/// The identity with the sequences at once that were chosen: the order of sums depends on them.
fn with_choice(mut identity: Identity, settings: &Settings, chosen: &TrainConfig) -> Identity {
    if settings.train.micro_batch == MicroBatch::Auto {
        identity.push((AT_ONCE.to_owned(), chosen.at_once().to_string()));
    }
    identity
}

/// How many sequences go through the model at once, where that was chosen here.
pub(super) fn at_once_in_words(chosen: &TrainConfig, wanted: &TrainConfig) -> String {
    if wanted.micro_batch == MicroBatch::Auto {
        format!(", {} at once", chosen.at_once())
    } else {
        String::new()
    }
}

/// Writes what is known of a run before its first step.
fn describe(
    folder: &RunFolder,
    resolved: &Resolved,
    manifest: &Manifest,
    account: &DataAccount,
) -> Result<()> {
    folder.write("config.toml", resolved.text.as_bytes())?;
    folder.write_json("manifest.json", manifest)?;
    folder.write_json("data.json", &account.to_json())
}

/// Writes the adapter. What is measured is what was written, so it is read back from its files.
fn saved_and_read_back(
    adapters: &LoraAdapters,
    saved: &Path,
    model: &GptOss,
    resolved: &Resolved,
) -> Result<LoraAdapters> {
    if saved.exists() {
        // Of a process that was stopped while it measured; what is written now is the same.
        descant_files::remove(saved)?;
    }
    best::save(adapters, saved, &model.config, resolved)?;
    Ok(LoraAdapters::load_peft(saved, &model.config, model.device())?)
}

/// Writes where tokens go among the experts, before and after. The run is whole without it.
fn count_experts(
    model: &GptOss,
    adapters: &LoraAdapters,
    samples: &dyn descant_train::Samples,
    folder: &RunFolder,
    talk: Talk,
) -> Result<()> {
    match Loads::count(model, adapters, samples) {
        Ok(loads) => folder.write_json(EXPERTS, &loads)?,
        Err(error) => talk.warn(format_args!("the load of the experts was not counted: {error:#}")),
    }
    Ok(())
}

/// Says where a run was stopped, which is an error where the host stalled.
fn stopped(step: u64, signals: &Signals, stalls: &Stalls, settings: &Settings, talk: Talk) -> Result<Exit> {
    if let Some(error) = stalls.error(step) {
        return Err(error);
    }
    let left = settings.train.max_steps - step;
    talk.warn(format_args!("stopped after step {step}, which is saved; {left} are left"));
    talk.hint("the same command again resumes from there");
    Ok(signals.came().unwrap_or(Exit::Interrupted))
}

/// The questions of a run, and where its replies go.
struct Examining<'a> {
    examination: &'a Examination<'a>,
    resolved: &'a Resolved,
    folder: &'a RunFolder,
    /// Those who answer too.
    group: Option<&'a Group>,
}

impl Examining<'_> {
    fn figures(&self, before: Samples, after: Option<Samples>) -> Result<Figures> {
        let suites = self.examination.suites.clone();
        Figures::new(suites, before, after, self.examination.tokenizer(), Some(&self.resolved.sha256))
    }

    /// What the base replies; an earlier process of the run may have asked already.
    fn before(&self, model: &GptOss, observer: &mut dyn Observer) -> Result<Samples> {
        let base = Answering { model, overlay: &Bare, adapter: None };
        let before =
            self.examination.ask("before", Some(&self.folder.join(BEFORE)), &base, self.group, observer)?;
        let figures = self.figures(before.clone(), None)?;
        // For whoever looks at the run before its end.
        self.folder.write_json(EVALUATION, &figures.evaluations)?;
        observer.on(&Event::Note { label: "before", text: &figures.outcome() });
        Ok(before)
    }

    /// What the adapter replies, and all figures.
    fn after(
        &self,
        before: Samples,
        model: &GptOss,
        adapters: &LoraAdapters,
        saved: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Figures> {
        let answering = Answering { model, overlay: adapters, adapter: Some(saved) };
        let after = self.examination.ask(
            "after",
            Some(&self.folder.join(AFTER)),
            &answering,
            self.group,
            observer,
        )?;
        let figures = self.figures(before, Some(after))?;
        observer.on(&Event::Note { label: "after", text: &figures.outcome() });
        Ok(figures)
    }
}

/// The model, within its limits, once it was seen to read like a trained one.
fn base(
    settings: &Settings,
    device: &load::Chosen,
    room: &Room,
    renderer: &Renderer,
    talk: Talk,
) -> Result<GptOss> {
    let model = load::model(&settings.model.path, &device.device, room.arrangement.placement)?;
    use_memory(settings, device, &model, talk)?;
    if settings.model.preflight
        && let Some(read) = preflight::measure(&model, renderer)?
    {
        read.check()?;
        talk.item("base", read.words());
    }
    Ok(model)
}

/// Tells the model how much of its device it may use; says where that has no meaning.
fn use_memory(settings: &Settings, device: &load::Chosen, model: &GptOss, talk: Talk) -> Result<()> {
    let memory = &settings.memory;
    if descant_kernels::is_cpu(&device.device) && memory.keep != Memory::default().keep {
        talk.warn("memory.keep is about a card; the device is the CPU, where all that is needed is kept");
    }
    let (limit, keep) = memory.limit_and_keep()?;
    model.workspace().set(limit, keep);
    Ok(())
}

/// The run was finished by an earlier process: nothing is left to do.
fn already_done(folder: &RunFolder, summary: &[u8], as_json: bool, talk: Talk) -> Result<Exit> {
    if as_json {
        let value: serde_json::Value =
            serde_json::from_slice(summary).with_context(|| folder.join(SUMMARY).display().to_string())?;
        talk.data(value)?;
    }
    talk.item("run", format_args!("{} is done", folder.path().display()));
    talk.item("report", folder.join("report.html").display());
    talk.hint("set run.folder to another one for another run, or --force to make this one again");
    Ok(Exit::Success)
}

/// Says what an earlier process of the run left.
fn going_on(folder: &RunFolder, from: Option<&Checkpoint>, talk: Talk) {
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

/// What can be done about steps that failed; of a card that is full, who has it.
fn explained(error: Error, device: &load::Chosen) -> anyhow::Error {
    match error.is_full_card().then(|| gauge::shares(&device.device)).flatten() {
        Some(shares) => Hinted::new(error, full(&shares)).into(),
        None => hinted(error),
    }
}

/// Who has a card that is full, and what to do.
fn full(shares: &gauge::Shares) -> String {
    format!(
        "of the card's {} this process has {}, other programs {} (nvidia-smi names them), and {} are free: make room and \
         give the same command again, which resumes from the last checkpoint",
        size(shares.total),
        size(shares.own),
        size(shares.others()),
        size(shares.free)
    )
}

/// What can be done about a run that cannot continue.
fn hinted(error: Error) -> anyhow::Error {
    let hint = match &error {
        Error::NotFinite { .. } => {
            "the incident file says where it begins; lower train.learning_rate for a new run, or leave such steps out \
             with --set guard.skip_non_finite=N"
        }
        Error::NoRoom { .. } => {
            "make room and give the same command again: it resumes from the last checkpoint"
        }
        Error::NoneWhole { .. } => "--force begins the run again",
        Error::OtherRun { .. } => {
            "set run.folder to another one for this run, or --force to replace that one"
        }
        _ => return error.into(),
    };
    Hinted::new(error, hint).into()
}

/// The records of a run, as far as its checkpoint knows them.
fn records(folder: &RunFolder, from: Option<&Checkpoint>) -> Result<Records> {
    let logs = from.map(|checkpoint| checkpoint.logs.clone()).unwrap_or_default();
    Records::open(folder.path(), &logs).map_err(|error| match from {
        Some(_) => Hinted::new(error, "put the file back as it was, or --force begins the run again").into(),
        None => error,
    })
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

/// The data, and what of it was not used.
fn data_lines(talk: Talk, settings: &Settings, data: &DataAccount) {
    let account = &data.account;
    let total = account.tokens.total();
    talk.item(
        "data",
        format_args!(
            "{} examples ({}), {} tokens, {} of them trained (mask {}): {}",
            grouped(data.examples()),
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

/// What is going to happen.
fn first_lines(
    talk: Talk,
    resolved: &Resolved,
    device: &load::Chosen,
    model: &GptOss,
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
