//! `/save FILE`: the conversation as a row that `descant train` reads.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use descant_files::Appender;
use serde_json::{Value as Json, json};

use super::dialogue::Dialogue;

/// Longest file that rows are added to.
const LIMIT: u64 = 16 << 30;

/// Adds the conversation to a file of JSON lines, behind what is there.
pub(super) fn save(dialogue: &Dialogue, path: &Path) -> Result<String> {
    let Some(row) = row(dialogue) else { bail!("there is nothing to save yet") };
    let path = home(path);
    let mut file = if path.exists() {
        let before = descant_files::read_bounded(&path, LIMIT)?;
        let mut file = Appender::resume(&path, before.len() as u64)?;
        if !before.is_empty() && !before.ends_with(b"\n") {
            // The last row that is there has no end of line.
            file.append("")?;
        }
        file
    } else {
        Appender::create(&path)?
    };
    file.append(&row.to_string())?;
    file.sync()?;
    let path = path.display();
    Ok(format!("Added to {path}; `descant data preview {path}` shows what would be trained."))
}

/// Messages with all reasoning, and the effort. Nothing where nothing was answered.
pub(super) fn row(dialogue: &Dialogue) -> Option<Json> {
    if dialogue.is_empty() {
        return None;
    }
    let messages = dialogue.conversation().to_input(false).messages;
    Some(json!({"messages": messages, "reasoning_effort": dialogue.effort}))
}

/// The path as a shell would have read it.
fn home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.to_owned(),
    }
}
