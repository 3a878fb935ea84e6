//! Parquet in every compression that its writers offer, written here and read back; and folders of several kinds.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use descant_harmony::read::{ReadOptions, read};
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
