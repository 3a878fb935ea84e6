//! Exports that the disk, the system or the caller stops: what was there before is there, or the new and whole.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use descant_export::{Error, Form, Job, Progress, export};
use descant_files::fault::{Effect, Fault, with};
use descant_testkit::scratch;

use crate::support::golden;

fn run(form: Form, out: &Path, force: bool) -> descant_export::Result<()> {
    let (adapter, model) = (golden("adapter-attn"), golden("base"));
    let job = Job { force, ..Job::new(&adapter, &model, form, out) };
    export(&job, &mut |_| ControlFlow::Continue(())).map(drop)
}

/// Every file below `dir`.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for name in descant_files::list(dir).unwrap() {
        let path = dir.join(name);
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let bytes = descant_files::read_bounded(&path, 1 << 28).unwrap();
            all.insert(path, bytes);
        }
    }
    all
}

/// The forms, each with a name to write it to.
const TARGETS: [(Form, &str); 7] = [
    (Form::Peft, "out"),
    (Form::PeftFolded, "out"),
    (Form::GgufLora, "out.gguf"),
    (Form::Bf16, "out"),
    (Form::Mxfp4, "out"),
    (Form::Gguf, "out"),
    (Form::Gguf, "out.gguf"),
];

#[test]
fn nothing_is_left_whichever_operation_the_disk_refuses() {
    for effect in [Effect::Full, Effect::Broken] {
        for (form, name) in TARGETS {
            let mut met = 0;
            for after in 0.. {
                let dir = scratch();
                let fault = Fault { after, effect, lasting: false };
                let (done, reached) = with(fault, || run(form, &dir.path().join(name), false));
                let there = descant_files::list(dir.path()).unwrap();
                if !reached {
                    done.unwrap();
                    assert!(there.iter().any(|found| found == name), "{there:?}");
                    break;
                }
                met += 1;
                assert!(!there.iter().any(|name| descant_files::is_temporary(name)), "{there:?}");
                // What fails after the large file has its name is its folder's sync alone, or a warning.
                if done.is_err() && there.iter().any(|found| found == name) {
                    assert_whole(&dir.path().join(name), form);
                }
                assert!(done.is_err(), "{} {after}: a refused operation is an error", form.name());
            }
            assert!(met > 5, "{} {met}", form.name());
        }
    }
}

/// That an export has every byte of one that nothing stopped.
fn assert_whole(path: &Path, form: Form) {
    let dir = scratch();
    let other = dir.path().join(path.file_name().unwrap());
    run(form, &other, false).unwrap();
    if path.is_dir() {
        assert!(files(path).into_values().eq(files(&other).into_values()), "{}", path.display());
    } else {
        assert_eq!(std::fs::read(path).unwrap(), std::fs::read(other).unwrap());
    }
}

#[test]
fn an_export_that_is_replaced_is_the_old_one_or_the_new_one_or_gone() {
    for (name, large) in [("out", "out/model.safetensors"), ("out.gguf", "out.gguf")] {
        let form = if name == "out" { Form::Bf16 } else { Form::Gguf };
        let adapter_form = if name == "out" { Form::PeftFolded } else { Form::GgufLora };
        for after in 0.. {
            let dir = scratch();
            run(adapter_form, &dir.path().join(name), false).unwrap();
            let old = files(dir.path());
            let fault = Fault { after, effect: Effect::Full, lasting: true };
            let (done, reached) = with(fault, || run(form, &dir.path().join(name), true));
            let there: BTreeMap<_, _> = files(dir.path())
                .into_iter()
                .filter(|(path, _)| !path.to_string_lossy().contains(".tmp-"))
                .collect();
            if !reached {
                done.unwrap();
                assert!(there.contains_key(&dir.path().join(large)));
                break;
            }
            assert!(done.is_err());
            if there != old && there.contains_key(&dir.path().join(large)) {
                assert_whole(&dir.path().join(name), form);
            }
        }
    }
}

#[test]
fn who_watches_may_stop_it_and_nothing_is_left() {
    for (form, name) in TARGETS {
        for stop_at in 0..3 {
            let dir = scratch();
            let (adapter, model, out) = (golden("adapter-attn"), golden("base"), dir.path().join(name));
            let job = Job::new(&adapter, &model, form, &out);
            let mut heard: Vec<Progress> = Vec::new();
            let stopped = export(&job, &mut |progress| {
                heard.push(progress);
                if heard.len() > stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            // An adapter for llama.cpp is one file, written in one piece.
            if stop_at < 2 || stopped.is_err() {
                assert!(matches!(stopped, Err(Error::Stopped)), "{}", form.name());
                assert!(descant_files::list(dir.path()).unwrap().is_empty());
            }
            assert!(matches!(heard[0], Progress::Planned(bytes) if bytes > 0));
        }
    }
}

#[test]
fn what_an_export_that_was_killed_left_is_removed_by_the_next() {
    let dir = scratch();
    for (form, name, left) in [
        (Form::Bf16, "out", "out.tmp-1-0"),
        (Form::Gguf, "out.gguf", "out.gguf.export.tmp-1-0"),
        (Form::Gguf, "out.gguf", "out.gguf.tmp-1-0"),
    ] {
        let (left, other) = (dir.path().join(left), dir.path().join("other.tmp-1-0"));
        for folder in [&left, &other] {
            descant_files::make(folder).unwrap();
            descant_files::write_atomic(&folder.join("model.safetensors"), b"half").unwrap();
        }
        run(form, &dir.path().join(name), true).unwrap();
        assert!(!left.exists() && other.exists(), "{name}");
    }
}

#[test]
fn an_adapter_for_llama_cpp_leaves_no_modelfile_of_the_model_it_replaces() {
    let dir = scratch();
    let out = dir.path().join("x.gguf");
    run(Form::Gguf, &out, false).unwrap();
    assert!(dir.path().join("x.Modelfile").is_file());
    run(Form::GgufLora, &out, true).unwrap();
    assert_eq!(descant_files::list(dir.path()).unwrap(), ["x.export.json", "x.gguf"]);
}
