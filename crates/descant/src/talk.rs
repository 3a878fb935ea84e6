//! What people read: standard error, with colour where it is wanted, and the one door to standard output.
//!
//! Everything that is said goes through here; the rest of the binary never names a stream. Colour carries no
//! meaning alone. Whether a stream takes colour is asked once, by `anstream`, which knows NO_COLOR and pipes.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::sync::OnceLock;

use anstream::ColorChoice;
use clap::builder::styling::{AnsiColor, Style};
use tracing_subscriber::EnvFilter;

use crate::cli::{Color, Global};
use crate::failure::hints;
use crate::reply::Look;
use crate::wrap::{LABEL, NARROW, WIDE, wrap, wrap_command};

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing but errors: another process talks.
    Silent,
    /// Results, warnings, errors.
    Quiet,
    /// What a run always says.
    Normal,
    /// Also what it took for granted.
    Verbose,
}

/// What people type to run this program.
static CALLED_AS: OnceLock<String> = OnceLock::new();

/// Advice that is a command of ours, as the reader can type it.
fn as_called(hint: &str) -> String {
    match (hint.strip_prefix("descant "), CALLED_AS.get()) {
        (Some(rest), Some(name)) => format!("{name} {rest}"),
        _ => hint.to_owned(),
    }
}

/// The version, before anything is known of how to talk.
///
/// # Errors
/// The reader has gone.
pub(crate) fn say_version(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")
}

/// How to talk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Talk {
    level: Level,
    progress: bool,
    /// Lines of a log where a terminal would be redrawn.
    plain: bool,
}

#[expect(clippy::unused_self, reason = "there is one way to talk, whether or not the level has a say")]
impl Talk {
    /// Nothing is said but data.
    #[cfg(test)]
    pub(crate) const SILENT: Self = Self { level: Level::Quiet, progress: false, plain: false };

    /// Applies `--color`, `-q` and `-v`; `progress` is false when bars and ticking lines are not wanted.
    pub(crate) fn new(global: &Global, progress: bool) -> Self {
        match global.color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        }
        .write_global();
        // Once a process: there is one command line.
        CALLED_AS.get_or_init(|| global.called_as.clone());
        // What libraries report goes the same way as all talk.
        let chosen = ["warn", "info", "debug"][usize::from(global.verbose.min(2))];
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(chosen));
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
        let level = match (global.quiet, global.verbose) {
            (true, _) => Level::Quiet,
            (false, 0) => Level::Normal,
            (false, _) => Level::Verbose,
        };
        Self { level, progress: progress && level > Level::Quiet, plain: global.plain }
    }

    /// The same, where another process says it.
    pub(crate) fn silenced(self) -> Self {
        Self { level: Level::Silent, progress: false, ..self }
    }

    /// Whether to show progress at all.
    pub(crate) fn shows_progress(self) -> bool {
        self.progress
    }

    /// Whether progress may redraw a line.
    pub(crate) fn is_terminal(self) -> bool {
        !self.plain && std::io::stderr().is_terminal()
    }

    /// Whether bars and sparks can be drawn: on a terminal that takes UTF-8.
    pub(crate) fn shows_utf8(self) -> bool {
        self.is_terminal() && takes_utf8()
    }

    /// Columns of the terminal that data goes to; `None` where it goes elsewhere.
    pub(crate) fn data_columns(self) -> Option<usize> {
        let stdout = std::io::stdout();
        let (width, _) =
            (!self.plain && stdout.is_terminal()).then(|| terminal_size::terminal_size_of(stdout))??;
        Some(width.0.into())
    }

    /// Columns of the page that data goes to: those of a terminal, from 60 to 100, and 100 elsewhere.
    pub(crate) fn data_width(self) -> usize {
        self.data_columns().unwrap_or(WIDE).clamp(NARROW, WIDE)
    }

    /// The same of talk.
    pub(crate) fn width(self) -> usize {
        let size = self.is_terminal().then(|| terminal_size::terminal_size_of(std::io::stderr())).flatten();
        size.map_or(WIDE, |(width, _)| usize::from(width.0)).clamp(NARROW, WIDE)
    }

    /// A line of talk.
    pub(crate) fn say(self, text: impl Display) {
        if self.level >= Level::Normal {
            err(&format!("{text}\n"));
        }
    }

    /// The same of a sentence, which a terminal gets broken at blanks.
    pub(crate) fn sentence(self, text: impl Display) {
        self.say(self.fitted(&text.to_string(), 0));
    }

    /// A line of talk for those who asked.
    pub(crate) fn detail(self, text: impl Display) {
        if self.level >= Level::Verbose {
            err(&format!("{text}\n"));
        }
    }

    /// `label` in a column of its own, then `text`.
    pub(crate) fn item(self, label: &str, text: impl Display) {
        let text = text.to_string();
        // A pipe gets a line whole, for whoever searches it; a terminal gets it broken at blanks, below itself.
        let text = if self.is_terminal() { self.wrapped(&text, LABEL) } else { text };
        self.say(format_args!("{}{label:<11}{} {text}", BOLD.render(), BOLD.render_reset()));
    }

    /// Text that begins behind `indent` columns of a page, broken at blanks below itself.
    fn wrapped(self, text: &str, indent: usize) -> String {
        wrap(text, self.width() - indent).join(&format!("\n{}", " ".repeat(indent)))
    }

    /// As [`wrapped`](Self::wrapped) on a terminal; for texts of several lines, each on its own.
    fn fitted(self, text: &str, indent: usize) -> String {
        if !self.is_terminal() {
            return text.to_owned();
        }
        let lines: Vec<String> = text.lines().map(|line| self.wrapped(line, indent)).collect();
        lines.join(&format!("\n{}", " ".repeat(indent)))
    }

    /// As [`item`](Self::item), from beside whoever redraws a line: takes its place.
    pub(crate) fn interject(self, label: &str, text: impl Display) {
        if self.is_terminal() && self.progress {
            err("\r\u{1b}[2K");
        }
        self.item(label, text);
    }

    /// Something that is not an error and must be seen.
    pub(crate) fn warn(self, text: impl Display) {
        if self.level == Level::Silent {
            return;
        }
        let text = self.fitted(&text.to_string(), "warning: ".len());
        err(&format!("{YELLOW}warning:{YELLOW:#} {text}\n"));
    }

    /// The same of an error that ends nothing, with its causes.
    pub(crate) fn warn_of(self, error: &anyhow::Error) {
        let words = std::iter::once(error.to_string()).chain(causes(error));
        self.warn(words.collect::<Vec<_>>().join(": "));
    }

    /// The command that comes next, as the reader can type or copy it.
    pub(crate) fn next(self, command: impl Display) {
        let mut command = as_called(&command.to_string());
        if self.is_terminal() {
            command = wrap_command(&command, self.width() - LABEL).join(&format!("\n{}", " ".repeat(LABEL)));
        }
        self.say(format_args!("{}{:<11}{} {command}", BOLD.render(), "next", BOLD.render_reset()));
    }

    /// Advice.
    pub(crate) fn hint(self, text: impl Display) {
        let text = self.fitted(&as_called(&text.to_string()), "hint: ".len());
        self.say(format_args!("{CYAN}hint:{CYAN:#} {text}"));
    }

    /// An error with its causes and hints.
    pub(crate) fn error(self, error: &anyhow::Error) {
        err(&format!("{RED}error:{RED:#} {}", describe(error)));
    }

    /// Data, to standard output, every byte as it is: a stripper of colour takes DEL out of texts too.
    ///
    /// # Errors
    /// The reader has gone, or the disk is full.
    pub(crate) fn data(self, text: impl Display) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(ReaderGone::mark)
    }

    /// A piece of what comes bit by bit, to standard output as it is. See [`look`](Self::look) for what may be in it.
    ///
    /// # Errors
    /// As [`Talk::data`].
    pub(crate) fn write(self, text: &str) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(ReaderGone::mark)
    }

    /// What standard output shows.
    pub(crate) fn look(self) -> Look {
        let stdout = std::io::stdout();
        Look {
            styled: anstream::AutoStream::choice(&stdout) != ColorChoice::Never,
            terminal: !self.plain && stdout.is_terminal(),
            utf8: stdout.is_terminal() && takes_utf8(),
        }
    }

    /// Columns of the terminal that standard output is, at this moment.
    pub(crate) fn columns_now() -> Option<usize> {
        terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0.into())
    }

    /// Data for people, in colour where it is wanted.
    ///
    /// # Errors
    /// As [`Talk::data`].
    pub(crate) fn painted(self, text: impl Display) -> std::io::Result<()> {
        let mut out = anstream::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(ReaderGone::mark)
    }
}

/// Whether the locale says that terminals take UTF-8.
fn takes_utf8() -> bool {
    let of = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = of("LC_ALL").or_else(|| of("LC_CTYPE")).or_else(|| of("LANG")).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Whoever read standard output has closed it, as `head` does when it has seen enough.
#[derive(Debug)]
pub(crate) struct ReaderGone;

impl ReaderGone {
    /// Sets a broken pipe at standard output apart from one at a socket.
    fn mark(error: std::io::Error) -> std::io::Error {
        match error.kind() {
            kind @ std::io::ErrorKind::BrokenPipe => std::io::Error::new(kind, Self),
            _ => error,
        }
    }

    /// Whether this is what went wrong.
    pub(crate) fn is_in(error: &anyhow::Error) -> bool {
        let inner = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()?.get_ref());
        inner.into_iter().any(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }
}

impl std::fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody reads the output any more")
    }
}

impl std::error::Error for ReaderGone {}

const BOLD: Style = Style::new().bold();
const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
const CYAN: Style = AnsiColor::Cyan.on_default().bold();

/// Error, causes and hints as lines; no colour.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let (first, causes) = (error.to_string(), causes(error));
    let causes = causes.iter().map(|cause| format!("  caused by: {}", cause.replace('\n', "\n  ")));
    let mut lines: Vec<String> = std::iter::once(first).chain(causes).collect();
    lines.extend(hints(error).iter().map(|hint| format!("{CYAN}hint:{CYAN:#} {}", as_called(hint))));
    lines.join("\n") + "\n"
}

/// The causes of an error that say something new: transparent wrappers say the same again.
fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut before = error.to_string();
    let mut found = Vec::new();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !before.ends_with(&cause) {
            found.push(cause.clone());
            before = cause;
        }
    }
    found
}

/// Standard error is for talk; when it is closed there is no reader left.
fn err(text: &str) {
    let mut stream = anstream::stderr().lock();
    let _ = stream.write_all(text.as_bytes());
    let _ = stream.flush();
}
