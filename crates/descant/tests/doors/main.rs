//! Every door through which bytes from outside come in, with damaged bytes: no panic, no hang, no memory out of
//! proportion. Alone in its binary, because the allocator that counts is the process's, and one door after the other.
//!
//! `DESCANT_SLOW=1` sends 10,000 inputs through the expensive doors too.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use descant_files::{RelPath, write_atomic};
use descant_harmony::read::{OnBadRow, ReadOptions, read};
use descant_harmony::{ChatTemplate, Tokenizer};
use descant_lora::{LoraAdapters, LoraConfig, peft};
use descant_model::{Config, GptOss};
use descant_testkit::Dice;
use descant_testkit::heap::{Counting, peak_of};
use descant_testkit::micro::{Micro, Options};
use descant_testkit::mutate::mutate;
use descant_train::checkpoint::{Progress, Store};
use descant_train::{TrainConfig, Trainer};

#[global_allocator]
static HEAP: Counting = Counting;

/// Heap that any input may take, and times its own size on top of that.
const HEAP_BYTES: usize = 64 << 20;
const HEAP_FACTOR: usize = 4;
/// Longest that one input may take; far above the 100 ms that is the aim, because test machines are shared.
const PATIENCE: Duration = Duration::from_secs(5);

/// The allocator counts for everyone, so tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// How many inputs were taken and refused, and the slowest and the largest of them.
#[derive(Debug, Default)]
struct Tally {
    taken: usize,
    refused: usize,
    slowest: Duration,
    most_heap: usize,
}

/// Sends `n` damaged versions of `good` through a door, which tells whether it took them.
fn send(name: &str, n: usize, good: &[u8], mut door: impl FnMut(&[u8]) -> bool) -> Result<Tally, String> {
    let mut tally = Tally::default();
    for seed in 0..n as u64 {
        let mut bytes = good.to_vec();
        mutate(&mut bytes, good, &mut Dice::new(seed));
        let start = Instant::now();
        let (result, heap) = peak_of(|| catch_unwind(AssertUnwindSafe(|| door(&bytes))));
        let took = start.elapsed();
        match result {
            Err(_) => return Err(format!("{name}: seed {seed} panics")),
            Ok(true) => tally.taken += 1,
            Ok(false) => tally.refused += 1,
        }
        if heap > HEAP_BYTES + HEAP_FACTOR * bytes.len() {
            return Err(format!("{name}: seed {seed}: {heap} bytes of heap for {} of input", bytes.len()));
        }
        if took > PATIENCE {
            return Err(format!("{name}: seed {seed} took {took:?}"));
        }
        tally.slowest = tally.slowest.max(took);
        tally.most_heap = tally.most_heap.max(heap);
    }
    Ok(tally)
}

/// As [`send`], and the door must have refused some, which shows that damage arrives.
#[expect(clippy::print_stdout, reason = "figures for docs/reliability.md, seen with --nocapture")]
#[track_caller]
fn check(name: &str, n: usize, good: &[u8], mut door: impl FnMut(&[u8]) -> bool) {
    assert!(door(good), "{name}: the undamaged input is refused");
    let tally = send(name, n, good, door).unwrap_or_else(|error| panic!("{error}"));
    println!("{name}: {n} inputs: {tally:?}");
    assert!(tally.refused > n / 20, "{name}: {tally:?}");
}

/// Inputs for a door that costs milliseconds.
fn few(n: usize) -> usize {
    if std::env::var_os("DESCANT_SLOW").is_some() { 10_000 } else { n }
}

#[test]
fn damaged_bytes_at_every_door_are_taken_or_refused() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // Panics that are caught on purpose, in the tokenizer's engine, are not news.
    std::panic::set_hook(Box::new(|_| ()));
    let dir = tempfile::tempdir().unwrap();
    let micro = Micro::write(dir.path(), &Options::default()).unwrap();
    model_doors(&micro.model);
    text_doors(&micro, dir.path());
    adapter_doors(&micro.model, dir.path());
    checkpoint_doors(&micro.model, dir.path());
    name_door();
}

fn model_doors(model: &Path) {
    let path = |name: &str| model.join(name);
    let config = std::fs::read(path("config.json")).unwrap();
    check("config.json", 10_000, &config, |bytes| Config::from_slice(bytes).is_ok());

    let device = Device::flex();
    let weights = std::fs::read(path("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize + 8;
    // Damage of the weights themselves would nearly always be numbers; the header is what parsers trip over.
    check("safetensors", few(1000), &weights[..header], |head| {
        let bytes = [head, &weights[header..]].concat();
        write_atomic(&path("model.safetensors"), &bytes).unwrap();
        GptOss::load(model, &device).is_ok()
    });
    write_atomic(&path("model.safetensors"), &weights).unwrap();

    let names = safetensors_names(&weights[8..header]);
    let map: Vec<String> = names.iter().map(|name| format!("\"{name}\": \"model.safetensors\"")).collect();
    let index = format!("{{\"metadata\": {{}}, \"weight_map\": {{{}}}}}", map.join(", "));
    check("model.safetensors.index.json", few(1000), index.as_bytes(), |bytes| {
        write_atomic(&path("model.safetensors.index.json"), bytes).unwrap();
        GptOss::load(model, &device).is_ok()
    });
    std::fs::remove_file(path("model.safetensors.index.json")).unwrap();
}

fn safetensors_names(header: &[u8]) -> Vec<String> {
    let header: serde_json::Value = serde_json::from_slice(header).unwrap();
    header.as_object().unwrap().keys().filter(|name| *name != "__metadata__").cloned().collect()
}

fn text_doors(micro: &Micro, dir: &Path) {
    let tokenizer = std::fs::read(micro.model.join("tokenizer.json")).unwrap();
    check("tokenizer.json", few(300), &tokenizer, |bytes| Tokenizer::from_bytes(bytes, "x").is_ok());

    let template = std::fs::read(micro.model.join("chat_template.jinja")).unwrap();
    let file = dir.join("damaged.jinja");
    check("chat_template.jinja", few(3000), &template, |bytes| {
        write_atomic(&file, bytes).unwrap();
        ChatTemplate::from_file(&file).is_ok()
    });

    let rows = std::fs::read(&micro.data).unwrap();
    let file = dir.join("damaged.jsonl");
    let options = ReadOptions { on_bad_row: OnBadRow::Fail, ..ReadOptions::default() };
    check("rows", few(3000), &rows, |bytes| {
        write_atomic(&file, bytes).unwrap();
        read(&file, &options).is_ok()
    });
}

/// New adapters and their device.
fn adapters(config: &Config) -> LoraAdapters {
    let lora = LoraConfig { r: 2, alpha: 4.0, targets: vec!["q_proj".to_owned(), "down_proj".to_owned()] };
    LoraAdapters::init(config, &lora, 1, &Device::flex().autodiff()).unwrap()
}

fn adapter_doors(model: &Path, dir: &Path) {
    let config = Config::from_dir(model).unwrap();
    let adapter = dir.join("adapter");
    adapters(&config).save_peft(&adapter, &config, "micro").unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let path = adapter.join(name);
        let good = std::fs::read(&path).unwrap();
        check(name, few(3000), &good, |bytes| {
            write_atomic(&path, bytes).unwrap();
            peft::load(&adapter, &config).is_ok()
        });
        write_atomic(&path, &good).unwrap();
    }
}

fn checkpoint_doors(model: &Path, dir: &Path) {
    let base = GptOss::load(model, &Device::flex()).unwrap();
    let run = dir.join("run");
    std::fs::create_dir(&run).unwrap();
    let store = Store { run: run.clone(), identity: Vec::new(), keep: 2 };
    let trainer = Trainer::new(&base, adapters(&base.config), TrainConfig::default()).unwrap();
    let save = || {
        let logs = [("metrics.jsonl".to_owned(), 0)].into();
        store.save(trainer.adapters(), &trainer.state(), &Progress::default(), logs, &mut |_| ()).unwrap();
    };
    save();
    let folder = run.join("checkpoints/step-000000");
    for name in ["manifest.json", "state.json", "adapter.safetensors"] {
        let good = std::fs::read(folder.join(name)).unwrap();
        check(&format!("checkpoint {name}"), few(500), &good, |bytes| {
            if !folder.exists() {
                save();
            }
            write_atomic(&folder.join(name), bytes).unwrap();
            store.newest(trainer.adapters(), &mut |_| ()).is_ok_and(|found| found.is_some())
        });
        std::fs::remove_dir_all(run.join("checkpoints")).unwrap();
        save();
    }
}

fn name_door() {
    check("file names", 10_000, b"model-00001-of-00002.safetensors", |bytes| {
        let name = RelPath::new(&String::from_utf8_lossy(bytes));
        name.is_ok_and(|name| {
            let path = name.under(Path::new("/nowhere")).unwrap();
            assert!(path.starts_with("/nowhere") && !path.to_string_lossy().contains(".."));
            true
        })
    });
}

#[test]
fn a_door_that_panics_hangs_or_takes_too_much_is_seen() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let panics = send("x", 500, b"{\"a\": 12}", |bytes| {
        assert!(bytes.len() < 20, "too long for me");
        true
    });
    assert!(panics.unwrap_err().contains("panics"));
    let swallows = send("x", 5, b"{\"a\": 12}", |_| vec![1u8; HEAP_BYTES + 4096].len() > 1);
    assert!(swallows.unwrap_err().contains("of heap for"));
    let hangs = send("x", 1, b"{}", |_| {
        std::thread::sleep(PATIENCE + Duration::from_millis(50));
        true
    });
    assert!(hangs.unwrap_err().contains("took"));
}
