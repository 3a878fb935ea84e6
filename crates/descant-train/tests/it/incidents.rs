//! Non-finite numbers, put in at a chosen step: nothing is changed by them, what is reported is true, and the
//! run continues from what was saved.

use burn::tensor::Device;
use descant_model::GptOss;
use descant_testkit::micro::{Micro, Options};
use descant_testkit::scratch;
use descant_train::memory::Arrangement;
use descant_train::{
    Course, Ended, Error, GuardConfig, Keeping, OnSpike, Sample, SavedMoments, Trainer, TrainerState, Window,
    fit_kept,
};

use crate::resume::{Log, config, fresh, model, samples, store};

/// A trainer after some steps.
fn after(steps: u64, samples: &[Sample]) -> TrainerState {
    let mut trainer = Trainer::new(model(), fresh(model()), config(20)).expect("valid");
    let batches: Vec<Vec<&Sample>> = vec![samples.iter().collect()];
    for _ in 0..steps {
        trainer.step(&batches).expect("a step");
    }
    trainer.state().expect("the CPU does not fail")
}

#[test]
fn a_number_that_is_none_anywhere_in_the_adapter_changes_nothing() {
    let samples = samples();
    let batches: Vec<Vec<&Sample>> = vec![samples.iter().collect()];
    for steps in [1, 4] {
        let good = after(steps, &samples);
        for tensor in 0..good.adapters.len() {
            // Large enough to overflow on the way, and yet a number: what is none is refused when it is given back.
            let mut bad = good.clone();
            bad.adapters[tensor].fill(3e38);
            let mut trainer = Trainer::new(model(), fresh(model()), config(20)).expect("valid");
            trainer.restore(&bad).expect("finite");
            let error = trainer.step(&batches).expect_err("it overflows");
            assert!(matches!(error, Error::NotFinite { step, .. } if step == steps + 1), "{error}");
            assert_eq!(trainer.state().expect("the CPU does not fail"), bad, "tensor {tensor} after {steps}");
            trainer.restore(&good).expect("finite");
            trainer.step(&batches).expect("training continues from the good state");
            let whole = after(steps + 1, &samples);
            assert_eq!(trainer.state().expect("the CPU does not fail"), whole);
        }
    }
}

/// The second moment of a pair that is kept in f32.
fn floats(moments: &mut SavedMoments) -> &mut Vec<f32> {
    let SavedMoments::Float([_, second]) = moments else { panic!("the 8-bit optimizer was not asked for") };
    second
}

#[test]
fn states_that_are_not_of_these_adapters_or_no_numbers_are_refused() {
    let good = after(1, &samples());
    let mut trainer = Trainer::new(model(), fresh(model()), config(20)).expect("valid");
    let cases: [&dyn Fn(&mut TrainerState); 5] = [
        &|state| drop(state.adapters.pop()),
        &|state| state.adapters[1].truncate(1),
        &|state| state.adapters[2][3] = f32::NAN,
        &|state| floats(&mut state.moments[0])[0] = f32::INFINITY,
        &|state| state.alive.as_mut().expect("early")[0].push(true),
    ];
    let before = trainer.state().expect("the CPU does not fail");
    for damage in cases {
        let mut bad = good.clone();
        damage(&mut bad);
        assert!(matches!(trainer.restore(&bad), Err(Error::State(_))));
        assert_eq!(trainer.state().expect("the CPU does not fail"), before);
    }
    trainer.restore(&good).expect("the undamaged one is taken");
}

/// Trains with guards; the window, the log's warnings and how it ended.
fn run(guard: &GuardConfig, prepare: impl FnOnce(&mut Window)) -> (Vec<String>, u64) {
    let dir = scratch();
    let (samples, config, store) = (samples(), config(3), store(dir.path()));
    let adapters = fresh(model());
    let mut log = Log::open(dir.path(), None).expect("a log");
    let course = Course {
        model: model(),
        samples: &samples,
        config: &config,
        guard,
        arrangement: Arrangement::default(),
        workers: None,
    };
    let stop = || true;
    let keeping = Keeping { store: &store, every: 1, from: None, stop: &stop, validation: None };
    fit_kept(course, adapters, keeping, &mut log).expect("one step");
    let mut from = store.newest(&fresh(model()), &mut |_| ()).expect("whole").expect("saved");
    prepare(&mut from.progress.window);
    let keeping = Keeping { store: &store, every: 1, from: Some(from), stop: &|| false, validation: None };
    let ended = fit_kept(course, fresh(model()), keeping, &mut log).expect("two steps");
    assert!(matches!(ended, Ended::Done(_)));
    let last = store.newest(&fresh(model()), &mut |_| ()).expect("whole").expect("saved");
    (log.warnings, last.progress.skipped)
}

#[test]
fn a_spike_is_told_and_left_out_only_when_asked() {
    // Losses here are near 7.5: a window that has settled far below makes every step a spike.
    let low = |window: &mut Window| {
        window.losses = (0..128).map(|i| 1.0 + (i % 2) as f32 * 0.01).collect();
        window.norms = vec![1.0; 128];
    };
    let warn = GuardConfig::default();
    let skip = GuardConfig { on_spike: OnSpike::Skip, ..GuardConfig::default() };
    let (warnings, skipped) = run(&warn, low);
    assert!(skipped == 0 && warnings.iter().any(|w| w.starts_with("step 2: the loss is")), "{warnings:?}");
    let (warnings, skipped) = run(&skip, low);
    assert!(skipped == 2 && warnings.iter().any(|w| w.ends_with("the update was left out")), "{warnings:?}");
    let (warnings, skipped) = run(&skip, |_| ());
    assert_eq!((warnings, skipped), (Vec::new(), 0), "a window that has not settled calls nothing a spike");
}

#[test]
fn the_first_bad_place_is_the_one_that_was_made_bad() {
    let dir = scratch();
    let options = Options { poisoned: true, ..Options::default() };
    let micro = Micro::write(dir.path(), &options).expect("the micro model is written");
    let poisoned = GptOss::load(&micro.model, &Device::flex()).expect("its weights are numbers");
    let mut samples = samples();
    let id = 31;
    samples[4].ids[3] = id;
    let config = config(9);
    let store = store(dir.path());
    let guard = GuardConfig::default();
    let course = Course {
        model: &poisoned,
        samples: &samples,
        config: &config,
        guard: &guard,
        arrangement: Arrangement::default(),
        workers: None,
    };
    let mut log = Log::open(dir.path(), None).expect("a log");
    let keeping = Keeping { store: &store, every: 1, from: None, stop: &|| false, validation: None };
    let error = fit_kept(course, fresh(&poisoned), keeping, &mut log).expect_err("not finite");
    let Error::NotFinite { step, rows, .. } = error else { panic!("{error}") };
    assert!(rows.contains(&5), "row 5 is the poisoned one: {rows:?}");
    let text = std::fs::read(dir.path().join(format!("incident-{step:06}.json"))).expect("it is written");
    let incident: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let first = &incident["first"];
    assert_eq!(first["row"], 5);
    assert_eq!(
        (&first["token"], &first["id"], &first["layer"]),
        (&3.into(), &id.into(), &0.into()),
        "{incident}"
    );
    assert_eq!(incident["norms"].as_object().expect("an object").len(), 8);
}
