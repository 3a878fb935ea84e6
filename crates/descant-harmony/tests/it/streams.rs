//! A data set read in a stream gives what it gives in memory, and prepared examples come back from a file as they were.

use std::path::{Path, PathBuf};

use descant_harmony::prepare::{Example, PrepareOptions, Progress, Survey, each_example, prepare, survey};
use descant_harmony::read::{OnBadRow, ReadOptions, read};
use descant_harmony::store::{Store, Writer};
use descant_harmony::{Error, Result};
use sha2::{Digest as _, Sha256};

use crate::support::{fixtures, tiny};

const SKIP: ReadOptions = ReadOptions { format: None, on_bad_row: OnBadRow::Skip };

fn streamed(path: &Path, read: ReadOptions, options: &PrepareOptions) -> Result<(Vec<Example>, Survey)> {
    let mut examples = Vec::new();
    let survey = each_example(tiny(), path, &read, options, &mut |_| {}, &mut |example| {
        examples.push(example);
        Ok(())
    })?;
    Ok((examples, survey))
}

fn put(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), bytes.as_ref()).unwrap();
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    put(&path, text);
    path
}

/// Rows of every fate: good ones, repeated ones, broken ones, ones of another form, ones that cannot be rendered.
fn mixed(rows: usize) -> String {
    let row = |at: usize| match at % 11 {
        3 => "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}".to_owned(),
        5 => "no JSON".to_owned(),
        7 => "{\"text\": \"<|start|>user<|message|>a<|end|>\"}".to_owned(),
        _ => format!(
            "{{\"score\": 1, \"messages\": [{{\"role\": \"user\", \"content\": \"{}\"}}, {{\"role\": \"assistant\", \
             \"thinking\": \"so {at}\", \"content\": \"b\"}}, {{\"role\": \"user\", \"content\": \"more\"}}, {{\"role\": \
             \"assistant\", \"content\": \"{}\"}}]}}",
            at % 50,
            at % 70
        ),
    };
    (0..rows).map(|at| row(at) + "\n").collect()
}

#[test]
fn a_stream_gives_what_memory_gives_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    // More rows than the largest chunk, and a beginning that says nothing of the form.
    let text = "broken\n\n{\"x\": 1}\n".to_owned() + &mixed(3000);
    let path = write(folder.path(), "rows.jsonl", &text);
    let options = PrepareOptions { on_bad_row: OnBadRow::Skip, ..PrepareOptions::default() };
    let set = read(&path, &SKIP).unwrap();
    let whole = survey(tiny(), &set, &options).unwrap();
    assert!(whole.account.rejects.count > 500 && whole.account.duplicates > 100, "{:?}", whole.account);
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (examples, told) = pool.install(|| streamed(&path, SKIP, &options)).unwrap();
        assert_eq!(examples, whole.examples);
        assert_eq!(told.account, whole.account);
        assert_eq!(told.format, set.format);
    }
}

#[test]
fn the_first_bad_row_ends_a_stream_by_its_place_also_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let good = "{\"prompt\": \"a\", \"completion\": \"b\"}\n";
    write(folder.path(), "a.jsonl", &good.repeat(40));
    let second =
        write(folder.path(), "b.jsonl", &(good.repeat(2) + "{\"prompt\": 3, \"completion\": \"b\"}\n"));
    let error = streamed(folder.path(), ReadOptions::default(), &PrepareOptions::default()).unwrap_err();
    assert!(error.to_string().starts_with(&format!("{}:3: prompt", second.display())), "{error}");
    let (_, told) = streamed(folder.path(), SKIP, &PrepareOptions::default()).unwrap();
    assert_eq!((told.account.rejects.count, told.account.rejects.first[0].number), (1, 43));
    assert!(told.account.rejects.first[0].reason.contains("b.jsonl:3"));
    let empty = write(folder.path(), "none.json", "[]");
    let error = streamed(&empty, SKIP, &PrepareOptions::default()).unwrap_err();
    assert!(error.to_string().ends_with("has no rows"), "{error}");
}

#[test]
fn progress_ends_with_all_bytes_and_an_error_of_the_taker_ends_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let text = mixed(2000).replace("no JSON", "{}");
    let path = write(folder.path(), "rows.jsonl", &text);
    let (mut seen, mut taken) = (Vec::new(), 0);
    let options = PrepareOptions { on_bad_row: OnBadRow::Skip, ..PrepareOptions::default() };
    each_example(tiny(), &path, &SKIP, &options, &mut |progress| seen.push(progress), &mut |_| Ok(()))
        .unwrap();
    let bytes = text.len() as u64;
    assert_eq!(seen.first(), Some(&Progress { rows: 0, bytes: 0, of: bytes }));
    assert_eq!(seen.last(), Some(&Progress { rows: 2000, bytes, of: bytes }));
    assert!(seen.is_sorted_by_key(|progress| (progress.rows, progress.bytes)));
    assert!(seen[1].rows <= 16, "the first rows come at once: {:?}", seen[1]);
    let full = each_example(tiny(), &path, &SKIP, &options, &mut |_| {}, &mut |_| {
        taken += 1;
        if taken == 5 { Err(Error::NoDocuments) } else { Ok(()) }
    });
    assert!(matches!(full, Err(Error::NoDocuments)));
    assert_eq!(taken, 5);
}

fn stored(key: &str) -> (Vec<u8>, Vec<Example>, Survey) {
    let path = fixtures().join("data/multilingual-thinking-24.jsonl");
    let (examples, survey) = streamed(&path, SKIP, &PrepareOptions::default()).unwrap();
    let mut writer = Writer::new(Vec::new()).unwrap();
    for example in &examples {
        writer.push(example).unwrap();
    }
    (writer.finish(&survey, key).unwrap(), examples, survey)
}

#[test]
fn examples_come_back_from_a_file_as_they_were() {
    let (bytes, examples, survey) = stored("key");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("examples");
    put(&path, &bytes);
    let file = Store::open(std::fs::File::open(&path).unwrap(), "key").unwrap();
    for store in [file, Store::from_bytes(bytes, "key").unwrap()] {
        store.verify().unwrap();
        assert_eq!(store.len(), examples.len());
        assert_eq!(store.survey(), &survey);
        for (at, example) in examples.iter().enumerate() {
            assert_eq!(&store.get(at).unwrap(), example);
            let targets = example.mask.bits().skip(1).filter(|trained| *trained).count();
            assert_eq!((store.tokens(at), store.targets(at)), (example.ids.len(), targets));
            assert_eq!((store.row(at), store.group(at)), (example.row, example.group));
        }
    }
}

/// The identity of runs is made of this; another definition would refuse to resume them.
#[test]
fn the_hash_of_all_examples_is_what_runs_are_known_by() {
    let (bytes, examples, _) = stored("");
    let mut all = String::new();
    for example in &examples {
        let mut bytes = Vec::new();
        example.ids.iter().for_each(|id| bytes.extend(id.to_le_bytes()));
        example.mask.weights.iter().for_each(|weight| bytes.extend(weight.to_bits().to_le_bytes()));
        bytes.extend(example.first_reasoning.map_or(u64::MAX, |at| at as u64).to_le_bytes());
        all += &hex(&Sha256::digest(&bytes));
    }
    let known = Store::from_bytes(bytes, "").unwrap().samples_sha256().to_owned();
    assert_eq!(known, hex(&Sha256::digest(all.as_bytes())));
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn whatever_is_damaged_cut_foreign_or_of_another_key_is_refused() {
    let (bytes, ..) = stored("key");
    let refused = |bytes: Vec<u8>, key: &str| {
        Store::from_bytes(bytes, key).and_then(|store| store.verify()).unwrap_err().to_string()
    };
    assert!(refused(bytes.clone(), "other").contains("made of something else"));
    for length in (0..bytes.len()).step_by(37) {
        refused(bytes[..length].to_vec(), "key");
    }
    for at in (0..bytes.len()).step_by(11) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        refused(damaged, "key");
    }
    let mut longer = bytes.clone();
    longer.extend(b"more");
    refused(longer, "key");
    refused(b"PAR1".repeat(100), "key");
}

#[test]
fn rows_that_begin_with_the_same_prompt_are_one_group_and_others_are_not() {
    let row = |user: &str, thinking: &str| {
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"{user}\"}}, {{\"role\": \"assistant\", \"thinking\": \
             \"{thinking}\", \"content\": \"y\"}}, {{\"role\": \"user\", \"content\": \"more\"}}, {{\"role\": \"assistant\", \
             \"content\": \"z\"}}]}}\n"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "rows.jsonl", &(row("a", "1") + &row("b", "1") + &row("a", "2")));
    let (examples, _) = streamed(&path, SKIP, &PrepareOptions::default()).unwrap();
    let groups: Vec<u64> = examples.iter().map(|example| example.group).collect();
    let [a, also_a, b] = [groups[0], groups[1], groups[2]];
    assert_eq!(a, also_a, "all turns of a row are together");
    assert!(a != b && groups[4..].iter().all(|group| *group == a), "{groups:?}");
    let whole = prepare(tiny(), &read(&path, &SKIP).unwrap(), &PrepareOptions::default()).unwrap();
    assert_eq!(whole.examples, examples);
}
