//! Line editing and history, by rustyline.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustyline::config::Configurer as _;
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};

use super::line::Line;
use crate::talk::Talk;
use crate::user_cache;

/// Lines of history that are kept.
const KEPT: usize = 1000;
/// Its file in the user's cache.
const HISTORY: &str = "chat-history";

pub(super) struct Editor {
    lines: DefaultEditor,
    history: Option<PathBuf>,
    talk: Talk,
}

impl Editor {
    pub(super) fn new(talk: Talk) -> Result<Self> {
        // Pasted text comes as one line, whatever breaks are in it.
        let config = Config::builder().bracketed_paste(true).auto_add_history(false).build();
        let mut lines = DefaultEditor::with_config(config).context("the terminal")?;
        lines.set_max_history_size(KEPT).context("the history")?;
        let history = user_cache::folder().map(|folder| folder.join(HISTORY));
        if let Some(path) = history.as_ref().filter(|path| path.exists())
            && let Err(error) = lines.load_history(path)
        {
            talk.warn(format_args!("{}: the history is not read: {error}", path.display()));
        }
        Ok(Self { lines, history, talk })
    }

    pub(super) fn line(&mut self, prompt: &str) -> Result<Line> {
        match self.lines.readline(prompt) {
            Ok(text) => {
                if !text.trim().is_empty() {
                    self.keep(&text);
                }
                Ok(Line::Text(text))
            }
            Err(ReadlineError::Interrupted) => {
                self.talk.say("Ctrl-D ends.");
                Ok(Line::Nothing)
            }
            Err(ReadlineError::Signal(_)) => Ok(Line::Nothing),
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(error) => Err(error).context("read a line"),
        }
    }

    /// Adds a line to the history, in memory and in its file. A history that cannot be kept stops nobody.
    fn keep(&mut self, text: &str) {
        let added = self.lines.add_history_entry(text).unwrap_or(false);
        let Some(path) = self.history.as_deref().filter(|_| added) else { return };
        let folder = path.parent().map_or(Ok(()), |folder: &Path| descant_files::create_dirs(folder));
        let kept = folder.map_err(|error| error.to_string());
        let kept = kept.and_then(|()| self.lines.append_history(path).map_err(|error| error.to_string()));
        if let Err(error) = kept {
            self.talk.detail(format_args!("{}: the history is not kept: {error}", path.display()));
        }
    }
}
