//! Where messages come from: a terminal, or a pipe with a message a line.

use std::io::{BufRead as _, IsTerminal as _, Read as _};

use anyhow::{Context as _, Result, bail};

use super::editor::Editor;
use super::line::Line;
use crate::talk::Talk;

/// Longest line of a pipe.
const LONGEST: u64 = 64 << 20;

/// A terminal, or a pipe.
pub(super) enum Input {
    /// A terminal, with line editing and history.
    Terminal(Box<Editor>),
    /// Anything else.
    Pipe,
}

impl Input {
    /// A terminal where both streams are one.
    pub(super) fn new(talk: Talk) -> Result<Self> {
        if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
            return Ok(Self::Pipe);
        }
        Ok(Self::Terminal(Box::new(Editor::new(talk)?)))
    }

    pub(super) fn is_terminal(&self) -> bool {
        !matches!(self, Self::Pipe)
    }

    /// The next line; `prompt` precedes it on a terminal.
    pub(super) fn line(&mut self, prompt: &str) -> Result<Line> {
        let line = match self {
            Self::Terminal(editor) => editor.line(prompt)?,
            Self::Pipe => read_line()?,
        };
        let Line::Text(text) = line else { return Ok(line) };
        let text = text.trim_end_matches(['\n', '\r']);
        if text.trim().is_empty() {
            return Ok(Line::Nothing);
        }
        Ok(Line::Text(text.to_owned()))
    }
}

/// A line of standard input.
fn read_line() -> Result<Line> {
    let mut bytes = Vec::new();
    let n =
        std::io::stdin().lock().take(LONGEST).read_until(b'\n', &mut bytes).context("read standard input")?;
    if n as u64 == LONGEST {
        bail!("a line of standard input is longer than {LONGEST} bytes");
    }
    let text = String::from_utf8(bytes).context("standard input is not UTF-8")?;
    Ok(if n > 0 { Line::Text(text) } else { Line::End })
}
