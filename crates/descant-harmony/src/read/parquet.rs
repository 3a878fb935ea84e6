//! Rows of a parquet file, all columns or only those that are used.
//!
//! Uses the record interface of the `parquet` crate, which gives a row as nested fields and needs no arrow. Its reader
//! trusts what a file says of itself more than it should, so it runs guarded: a panic in it is a bad file, and what pages
//! say of their size is looked at before (`parquet_pages.rs`).

use crate::error::{Error, Result, chain};
use crate::file::open_regular;
use crate::limits;
use crate::read::parquet_pages;
use crate::row::mark::mark;
use crate::row::unfit;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;
use serde_json::{Map, Number, Value as Json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// What a file begins with.
pub(crate) const MAGIC: &[u8] = b"PAR1";

/// Gives every row, with its number from 1, with those of `columns` that the file has or with all of them, and its
/// share of the file's bytes with those of the rows before it.
pub(crate) fn each_row(
    path: &Path,
    columns: Option<&[&str]>,
    take: &mut dyn FnMut(u64, Result<Map<String, Json>>, u64) -> Result<()>,
) -> Result<()> {
    let bad = |reason: String| Error::DataFile { path: path.to_path_buf(), reason };
    let file = open_regular(path)?;
    let length = file.metadata().map_err(|source| Error::Io { path: path.to_path_buf(), source })?.len();
    if length > limits::PARQUET_BYTES {
        return Err(Error::FileTooLarge { path: path.to_path_buf(), limit: limits::PARQUET_BYTES });
    }
    let most = length.saturating_mul(limits::INFLATE_RATIO).max(limits::INFLATE_FREE_BYTES);
    let pages = file.try_clone().map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    let reader = guarded(|| SerializedFileReader::new(file)).map_err(bad)?;
    parquet_pages::check(&pages, reader.metadata(), columns, most.min(limits::INFLATED_BYTES))
        .map_err(bad)?;
    let stated = reader.metadata().file_metadata().num_rows().unsigned_abs();
    let schema = reader.metadata().file_metadata().schema();
    let projection = columns.map(|columns| projection(schema, columns)).transpose().map_err(bad)?;
    let mut rows = guarded(|| RowIter::from_file(projection, &reader)).map_err(bad)?;
    let (mut number, mut unpacked) = (0, 0);
    while let Some(row) =
        guarded(|| rows.next().transpose()).map_err(|r| bad(format!("row {}: {r}", number + 1)))?
    {
        number += 1;
        let row = whole(row);
        let bytes = row.as_ref().map_or(0, |row| row.values().map(text_bytes).sum());
        unpacked += bytes as u64;
        if unpacked > most.min(limits::INFLATED_BYTES) {
            return Err(bad(format!("row {number}: unpacks to more than {most} bytes of text")));
        }
        let too_long = bytes > limits::LINE_BYTES;
        let read = u128::from(length) * u128::from(number) / u128::from(stated.max(number));
        let row = if too_long { Err(Error::LineTooLong { limit: limits::LINE_BYTES }) } else { row };
        take(number, row, read as u64)?;
    }
    Ok(())
}

/// Names of the columns that are not among `columns`.
pub(crate) fn other_columns(path: &Path, columns: &[&str]) -> Result<Vec<String>> {
    let bad = |reason: String| Error::DataFile { path: path.to_path_buf(), reason };
    let file = open_regular(path)?;
    let reader = guarded(|| SerializedFileReader::new(file)).map_err(bad)?;
    let schema = reader.metadata().file_metadata().schema();
    let names = schema.get_fields().iter().map(|field| field.name().to_owned());
    Ok(names.filter(|name| !columns.contains(&name.as_str())).collect())
}

/// Bytes of all texts in a value.
pub(crate) fn text_bytes(json: &Json) -> usize {
    match json {
        Json::String(text) => text.len(),
        Json::Array(items) => items.iter().map(text_bytes).sum(),
        Json::Object(map) => map.iter().map(|(key, value)| key.len() + text_bytes(value)).sum(),
        _ => 8,
    }
}

/// The file's schema with only the wanted columns.
fn projection(schema: &Type, columns: &[&str]) -> Result<Type, String> {
    let fields: Vec<_> =
        schema.get_fields().iter().filter(|field| columns.contains(&field.name())).cloned().collect();
    if fields.is_empty() {
        let found: Vec<_> = schema.get_fields().iter().map(|field| field.name()).take(20).collect();
        return Err(format!("none of its columns is used; it has: {}", found.join(", ")));
    }
    Type::group_type_builder(schema.name()).with_fields(fields).build().map_err(|error| chain(&error))
}

/// A row as JSON.
fn whole(row: parquet::record::Row) -> Result<Map<String, Json>> {
    let mut unfit = false;
    let fields = row.into_columns().into_iter();
    let row: Result<Map<String, Json>> =
        fields.map(|(name, field)| Ok((name, json(field, &mut unfit)?))).collect();
    let mut row = row?;
    if unfit {
        unfit::settle(&mut row)?;
    }
    Ok(row)
}

/// A field as JSON; of a type that no conversation holds, a mark.
fn json(field: Field, unfit: &mut bool) -> Result<Json> {
    // As `current_date` has it.
    if matches!(field, Field::Date(_)) {
        return Ok(Json::String(field.to_string()));
    }
    let mut no = |what: &str| {
        *unfit = true;
        mark(what)
    };
    Ok(match field {
        Field::Null => Json::Null,
        Field::Bool(value) => Json::Bool(value),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float16(value) => {
            number(f64::from(f32::from(value))).unwrap_or_else(|| no("a number that is not finite"))
        }
        Field::Float(value) => number(f64::from(value)).unwrap_or_else(|| no("a number that is not finite")),
        Field::Double(value) => number(value).unwrap_or_else(|| no("a number that is not finite")),
        Field::Str(text) => Json::String(text),
        Field::Decimal(_) => no("a decimal number"),
        Field::Bytes(_) => no("bytes that are not marked as text"),
        Field::Date(_) | Field::TimeMillis(_) | Field::TimeMicros(_) => no("a time"),
        Field::TimestampMillis(_) | Field::TimestampMicros(_) => no("a timestamp"),
        Field::Group(row) => {
            let entries = row.into_columns().into_iter().map(|(name, field)| Ok((name, json(field, unfit)?)));
            Json::Object(entries.collect::<Result<_>>()?)
        }
        Field::ListInternal(list) => {
            let items = list.elements().iter().map(|field| json(field.clone(), unfit));
            Json::Array(items.collect::<Result<_>>()?)
        }
        Field::MapInternal(map) => {
            let entries = map.entries().iter().map(|(key, value)| match key {
                Field::Str(key) => Ok((key.clone(), json(value.clone(), unfit)?)),
                other => Err(Error::Json { reason: format!("a map key that is not text: {other}") }),
            });
            Json::Object(entries.collect::<Result<_>>()?)
        }
    })
}

fn number(value: f64) -> Option<Json> {
    Number::from_f64(value).map(Json::Number)
}

/// Runs the reader; its panics and errors both come back as text.
fn guarded<T>(work: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err("the parquet reader panicked; the file contradicts itself".to_owned()),
    }
}
