//! `descant data preview`: what would be trained, before it is.

use std::path::Path;

use anyhow::{Result, anyhow};
use descant_harmony::RenderOptions;
use descant_harmony::prepare::{OnTooLong, PrepareOptions, survey};
use descant_harmony::read::{OnBadRow, ReadOptions, read};

use super::shown;
use crate::cli::Preview;
use crate::command::account::DataAccount;
use crate::failure::Exit;
use crate::settings::check_effort;
use crate::talk::Talk;

/// Reads, prepares, shows. Ends with "no" when a row was rejected.
pub(crate) fn run(args: &Preview, model: &Path, file: &Path, talk: Talk) -> Result<Exit> {
    check_effort("--effort", &args.effort).map_err(|reason| anyhow!(reason))?;
    let files = &args.files;
    let renderer = super::renderer::renderer(files, model)?;
    let set = read(file, &ReadOptions { format: files.format, on_bad_row: files.on_bad_row })?;
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
    let mut prepared = survey(&renderer, &set, &options)?;
    let account = DataAccount::new(&renderer, &set, &mut prepared, files.mask);
    if args.json {
        talk.data(account.to_json())?;
    } else {
        let width = talk.data_width();
        let mut parts = Vec::new();
        let chosen = prepared.examples.iter().filter(|example| example.row >= args.from).take(args.rows);
        for example in chosen {
            parts.push(shown::conversation(renderer.tokenizer(), example, width)?);
        }
        parts.extend(account.lengths.as_ref().map(shown::lengths));
        parts.push(shown::channels(&account.account.tokens));
        parts.push(shown::languages(&account.account.languages));
        parts.push(shown::left_out(&account.account));
        parts.retain(|part| !part.is_empty());
        talk.item("data", format_args!("{} ({})", args.file.display(), account.form()));
        talk.item("template", account.template());
        talk.painted(parts.join("\n").trim_end())?;
    }
    let rejected = account.account.rejects.count;
    debug_assert!(rejected == 0 || files.on_bad_row == OnBadRow::Skip);
    Ok(if rejected > 0 { Exit::No } else { Exit::Success })
}
