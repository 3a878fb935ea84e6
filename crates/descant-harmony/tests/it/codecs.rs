//! Parquet in every compression that its writers offer, written here and read back; and folders of several kinds.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use descant_harmony::read::{ReadOptions, data_files, read};
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

const ROWS: usize = 300;

fn parquet_file(path: &Path, codec: Compression) {
    let schema = "message rows { required binary prompt (UTF8); required binary completion (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(codec).build());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for name in ["question", "answer"] {
        let mut column = group.next_column().unwrap().unwrap();
        let text = |at: usize| ByteArray::from(format!("{name} {at}").into_bytes());
        let texts: Vec<ByteArray> = (0..ROWS).map(text).collect();
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_is_read_in_every_compression() {
    let folder = tempfile::tempdir().unwrap();
    let mut rows = Vec::new();
    for codec in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
    ] {
        let path = folder.path().join("rows.parquet");
        parquet_file(&path, codec);
        let set = read(&path, &ReadOptions::default()).unwrap_or_else(|error| panic!("{codec}: {error}"));
        assert_eq!(set.rows.len(), ROWS, "{codec}");
        rows.push(set.rows);
    }
    assert!(rows.windows(2).all(|pair| pair[0] == pair[1]), "all hold the same");
}

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    File::create(folder.join(name)).unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_folder_of_several_kinds_is_not_guessed_at() {
    let line = |at: u32| format!("{{\"prompt\": \"{at}\", \"completion\": \"b\"}}\n");
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "b.jsonl", line(1).as_bytes());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(line(2).as_bytes()).unwrap();
    put(folder.path(), "a.jsonl.gz", &gzip.finish().unwrap());
    let set = read(folder.path(), &ReadOptions::default()).unwrap();
    assert_eq!(set.rows.len(), 2, "shards of JSON lines may be packed differently");
    assert!(set.files[0].1.ends_with("a.jsonl.gz"), "in the order of their names");

    put(folder.path(), "a.jsonl", line(2).as_bytes());
    let error = read(folder.path(), &ReadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("a.jsonl and a.jsonl.gz, which look like the same rows"), "{error}");
    std::fs::remove_file(folder.path().join("a.jsonl")).unwrap();

    parquet_file(&folder.path().join("c.parquet"), Compression::SNAPPY);
    let error = read(folder.path(), &ReadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("in parquet (c.parquet) and in JSON lines (a.jsonl.gz)"), "{error}");
    let named = read(&folder.path().join("c.parquet"), &ReadOptions::default()).unwrap();
    assert_eq!(named.rows.len(), ROWS);
}

#[test]
fn files_beside_those_that_are_read_are_named_and_counted() {
    let line = |at: u32| format!("{{\"prompt\": \"{at}\", \"completion\": \"b\"}}\n");
    let folder = tempfile::tempdir().unwrap();
    for name in ["README.md", "LICENSE", "dataset_infos.json", "load.py", "plot.PNG"] {
        put(folder.path(), name, b"about the data");
    }
    put(folder.path(), "TRAIN-0.JSONL", line(1).as_bytes());
    let said = || {
        let files = data_files(folder.path()).unwrap();
        let said: Vec<String> = files.passed_over.groups().map(|group| group.to_string()).collect();
        let set = read(folder.path(), &ReadOptions::default()).unwrap();
        assert_eq!(set.passed_over, files.passed_over, "the reader reports it too");
        (files.files.len(), said)
    };
    assert_eq!(said(), (1, Vec::new()));

    for name in ["more.csv", "extra.json", "old.arrow", "notes.txt"] {
        put(folder.path(), name, b"x");
    }
    let kinds = "4 files of another kind were not read: extra.json, more.csv, notes.txt, old.arrow";
    assert_eq!(said(), (1, vec![kinds.to_owned()]));
    // Of those with rows, the ones that are named after the training split.
    std::fs::rename(folder.path().join("TRAIN-0.JSONL"), folder.path().join("train-0.jsonl")).unwrap();
    put(folder.path(), "test-0.jsonl", line(2).as_bytes());
    put(folder.path(), "more.jsonl", line(3).as_bytes());
    let expected = [
        kinds,
        "1 file of another split was not read: test-0.jsonl",
        "1 file that is not named after the training split was not read: more.jsonl",
    ];
    assert_eq!(said(), (1, expected.map(str::to_owned).to_vec()));
    let deep = folder.path().join("a/b/c/d/e");
    std::fs::create_dir_all(&deep).unwrap();
    put(&deep, "train.jsonl", line(4).as_bytes());
    assert!(said().1.contains(&"1 folder nested too deeply was not read: a/b/c/d/e".to_owned()));

    // What README.md says goes before names.
    let readme =
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: more.*\n---\n";
    put(folder.path(), "README.md", readme.as_bytes());
    std::fs::remove_file(folder.path().join("more.csv")).unwrap();
    let (files, said) = said();
    assert_eq!(files, 1);
    assert!(said[0].starts_with("1 file of another split was not read: test-0.jsonl"), "{said:?}");
    assert!(
        said[1].starts_with("4 files that README.md does not name were not read: extra.json"),
        "{said:?}"
    );
}

#[test]
fn a_folder_of_what_is_not_read_says_what_that_is() {
    let folder = tempfile::tempdir().unwrap();
    let error = || read(folder.path(), &ReadOptions::default()).unwrap_err().to_string();
    assert!(error().ends_with("a folder without a file of rows (parquet, JSON lines or JSON): it is empty"));
    put(folder.path(), "notes.txt", b"hello");
    assert!(error().ends_with("(parquet, JSON lines or JSON): it has notes.txt"), "{}", error());
    put(folder.path(), "rows.csv", b"prompt,completion\na,b\n");
    assert!(error().contains("rows.csv: a table of texts (CSV); "), "{}", error());
    put(folder.path(), "rows.arrow", b"ARROW1\0\0");
    assert!(error().contains("rows.arrow: an Arrow file; `"), "{}", error());
}
