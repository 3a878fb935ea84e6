//! `descant data preview`: what would be trained, before it is.
//!
//! Conversations are shown as soon as they are reached, unless a bad row would make an error of it all; the figures when
//! all is read. Nothing else is kept, so a data set of any length takes little memory.

use std::path::Path;

use anyhow::{Result, anyhow};
use descant_harmony::prepare::{OnTooLong, PrepareOptions, each_example};
use descant_harmony::read::{OnBadRow, ReadOptions};
use descant_harmony::{Error, RenderOptions, Renderer};

use super::shown;
use crate::cli::Preview;
use crate::command::account::DataAccount;
use crate::failure::Exit;
use crate::observe::Reading;
use crate::settings::check_effort;
use crate::talk::Talk;

/// Reads, prepares, shows. Ends with "no" when a row was rejected.
pub(crate) fn run(args: &Preview, renderer: &Renderer, file: &Path, talk: Talk) -> Result<Exit> {
    check_effort("--effort", &args.effort).map_err(|reason| anyhow!(reason))?;
    let files = &args.files;
    let options = PrepareOptions {
        render: RenderOptions {
            date: files.date,
            effort: Some(args.effort.clone()),
            ..RenderOptions::default()
        },
        views: args.views,
        mask: files.mask,
        max_tokens: args.max_sequence,
        on_too_long: OnTooLong::Drop,
        on_bad_row: files.on_bad_row,
        ..PrepareOptions::default()
    };
    let read = ReadOptions { format: files.format, on_bad_row: files.on_bad_row };
    let width = talk.data_columns();
    let reading = std::cell::RefCell::new(Reading::new(talk));
    let (mut lengths, mut shown, mut last_row, mut held) = (Vec::new(), 0, 0, Vec::new());
    let survey = each_example(
        renderer,
        file,
        &read,
        &options,
        &mut |progress| reading.borrow_mut().on(progress),
        &mut |example| {
            lengths.push(example.ids.len());
            if args.json || example.row < args.from {
                return Ok(());
            }
            if example.row != last_row {
                (shown, last_row) = (shown + 1, example.row);
            }
            if shown > args.rows {
                return Ok(());
            }
            let text = shown::conversation(renderer.tokenizer(), &example, width)?;
            if files.on_bad_row == OnBadRow::Fail {
                held.push(text);
                return Ok(());
            }
            let out = |source| Error::Io { path: "standard output".into(), source };
            reading.borrow().aside(|| talk.painted(text)).map_err(out)
        },
    );
    reading.borrow_mut().finish();
    let account = DataAccount::new(renderer, survey?, lengths, files.mask);
    held.into_iter().try_for_each(|text| talk.painted(text))?;
    if args.json {
        talk.data(account.to_json())?;
    } else {
        let mut parts: Vec<String> = account.lengths.as_ref().map(shown::lengths).into_iter().collect();
        parts.push(shown::channels(&account.account.tokens));
        parts.push(shown::languages(&account.account.languages));
        parts.push(shown::left_out(&account));
        parts.retain(|part| !part.is_empty());
        talk.item("data", format_args!("{} ({})", args.file.display(), account.form()));
        talk.item("template", account.template());
        talk.painted(parts.join("\n").trim_end())?;
    }
    let rejected = account.account.rejects.count;
    debug_assert!(rejected == 0 || files.on_bad_row == OnBadRow::Skip);
    Ok(if rejected > 0 { Exit::No } else { Exit::Success })
}
