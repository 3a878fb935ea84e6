//! How a reply looks while it comes.
//!
//! The answer is plain text, so that it can be copied. Everything else, above all the reasoning, is behind a bar, so
//! that it is distinguished without colour; where there is colour it is dimmed too. On a terminal, what could command
//! it is shown as its number; in a pipe, text stays as it is.

use std::io;

use clap::builder::styling::Style;
use descant_harmony::{Channel, ReplyPart};
use unicode_width::UnicodeWidthStr as _;

use crate::words::visible;

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
/// Narrower terminals are taken to be this wide.
const MIN_WIDTH: usize = 20;

/// What the stream can show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Whether there is colour.
    pub(crate) styled: bool,
    /// Whether it is a terminal: lines behind the bar are wrapped, and control characters shown as numbers.
    pub(crate) terminal: bool,
    /// Whether it shows more than ASCII.
    pub(crate) utf8: bool,
}

/// Where in the reply the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing is shown yet, or a message was closed.
    Outside,
    /// In the answer.
    Answer,
    /// In anything else; whether the line was begun.
    Barred { begun: bool },
}

/// Shows replies, part by part.
pub(crate) struct Screen<'w> {
    look: Look,
    write: &'w mut dyn FnMut(&str) -> io::Result<()>,
    /// Columns of the terminal, asked again and again: it may be resized.
    columns: fn() -> Option<usize>,
    place: Place,
    /// Columns that the line behind the bar has.
    column: usize,
    /// A word that may still grow, where lines are wrapped, and the blanks before it, which a new line does without.
    word: String,
    gap: String,
    /// Whether the last character was a line break.
    fresh: bool,
}

impl<'w> Screen<'w> {
    /// A screen on which nothing is shown yet.
    pub(crate) fn new(
        look: Look,
        columns: fn() -> Option<usize>,
        write: &'w mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Self {
        let (word, gap) = (String::new(), String::new());
        Self { look, write, columns, place: Place::Outside, column: 0, word, gap, fresh: true }
    }

    /// A line that says whose reply follows.
    pub(crate) fn title(&mut self, title: &str) -> io::Result<()> {
        self.line_break()?;
        let title = if self.look.terminal { visible(title) } else { title.to_owned() };
        let title = if self.look.styled { format!("{BOLD}{title}{BOLD:#}\n") } else { format!("{title}\n") };
        self.put(&title)
    }

    /// Shows a part.
    pub(crate) fn part(&mut self, part: &ReplyPart) -> io::Result<()> {
        match part {
            ReplyPart::Open(header) => {
                self.line_break()?;
                let plain = header.recipient.is_none();
                match header.channel {
                    Some(Channel::Final) if plain => self.place = Place::Answer,
                    Some(Channel::Analysis) if plain => self.place = Place::Barred { begun: false },
                    channel => {
                        self.place = Place::Barred { begun: false };
                        let channel = channel.map_or("no channel", Channel::as_str);
                        let to = header.recipient.as_ref().map_or_else(String::new, |to| format!(" to {to}"));
                        self.text(&format!("[{channel}{to}]\n"))?;
                    }
                }
                Ok(())
            }
            ReplyPart::Text(text) => self.text(text),
            ReplyPart::Close(_) => self.line_break(),
            ReplyPart::Broken(error) => {
                self.line_break()?;
                self.place = Place::Barred { begun: false };
                self.text(&format!("[not Harmony: {error}]\n"))
            }
        }
    }

    /// Ends what is shown with a line break.
    pub(crate) fn line_break(&mut self) -> io::Result<()> {
        self.flush_word()?;
        self.close_line()?;
        self.place = Place::Outside;
        if self.fresh { Ok(()) } else { self.put("\n") }
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        let text = if self.look.terminal { visible(text) } else { text.to_owned() };
        match self.place {
            Place::Barred { .. } => self.barred(&text),
            _ => self.put(&text),
        }
    }

    /// Text behind the bar, line by line.
    fn barred(&mut self, text: &str) -> io::Result<()> {
        for (at, line) in text.split('\n').enumerate() {
            if at > 0 {
                self.flush_word()?;
                self.begin_line()?;
                self.close_line()?;
                self.put("\n")?;
            }
            if !self.look.terminal {
                if !line.is_empty() {
                    self.begin_line()?;
                    self.put(line)?;
                }
                continue;
            }
            for piece in line.split_inclusive(breaks) {
                self.word.push_str(piece);
                if piece.ends_with(breaks) || self.word.width() >= self.width() {
                    self.flush_word()?;
                }
            }
        }
        Ok(())
    }

    /// Columns behind the bar.
    fn width(&self) -> usize {
        (self.columns)().unwrap_or(usize::MAX).max(MIN_WIDTH) - 2
    }

    /// Puts the word onto the line, or onto the next where it has no room.
    fn flush_word(&mut self) -> io::Result<()> {
        let word = std::mem::take(&mut self.word);
        if word.is_empty() {
            return Ok(());
        }
        let text = word.trim_end_matches(' ');
        if !text.is_empty() {
            let mut gap = std::mem::take(&mut self.gap);
            if self.column > 0 && self.column + gap.width() + text.width() > self.width() {
                self.close_line()?;
                self.put("\n")?;
                gap.clear();
            }
            self.begin_line()?;
            self.column += gap.width() + text.width();
            self.put(&format!("{gap}{text}"))?;
        }
        self.gap.push_str(&word[text.len()..]);
        Ok(())
    }

    fn begin_line(&mut self) -> io::Result<()> {
        if self.place != (Place::Barred { begun: false }) {
            return Ok(());
        }
        self.place = Place::Barred { begun: true };
        let bar = if self.look.utf8 { "│ " } else { "| " };
        let bar = if self.look.styled { format!("{DIM}{bar}") } else { bar.to_owned() };
        self.put(&bar)
    }

    fn close_line(&mut self) -> io::Result<()> {
        self.column = 0;
        self.gap.clear();
        if self.place != (Place::Barred { begun: true }) {
            return Ok(());
        }
        self.place = Place::Barred { begun: false };
        if self.look.styled { self.put(&format!("{DIM:#}")) } else { Ok(()) }
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        // A style that ends moves no cursor.
        let shown = text.strip_suffix("\u{1b}[0m").unwrap_or(text);
        if !shown.is_empty() {
            self.fresh = shown.ends_with('\n');
        }
        (self.write)(text)
    }
}

/// Characters after which a line may be broken: blanks, and those of scripts that write without them.
fn breaks(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\u{3000}'..='\u{30FF}' | '\u{3400}'..='\u{9FFF}' | '\u{FF00}'..='\u{FFEF}')
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use descant_harmony::{ReplyStream, TextEncoder as _, Tokenizer};

    use super::*;

    const REPLY: &str = "<|channel|>analysis<|message|>One two three four five.\n\n日本語日本語日本語<|end|><|start|>assistant\
                         <|channel|>final<|message|>The answer is a long line that stays whole.\nTwo.<|return|>";

    fn shown(reply: &str, look: Look, columns: fn() -> Option<usize>) -> String {
        let tiny = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss"));
        let tokenizer = Tokenizer::load(tiny).unwrap();
        let mut out = String::new();
        let mut write = |text: &str| {
            out.push_str(text);
            Ok(())
        };
        let mut screen = Screen::new(look, columns, &mut write);
        let mut stream = ReplyStream::new(&tokenizer);
        for id in tokenizer.encode_rendered(reply).unwrap() {
            for part in stream.push(id) {
                screen.part(&part).unwrap();
            }
        }
        if let Some(rest) = stream.finish() {
            screen.part(&ReplyPart::Text(rest)).unwrap();
        }
        screen.line_break().unwrap();
        out
    }

    #[test]
    fn reasoning_stands_behind_a_bar_and_answers_can_be_copied() {
        let look = Look { styled: false, terminal: true, utf8: true };
        assert_eq!(
            shown(REPLY, look, || Some(20)),
            "│ One two three four\n│ five.\n│ \n│ 日本語日本語日本語\nThe answer is a long line that stays whole.\nTwo.\n"
        );
        let look = Look { styled: false, terminal: false, utf8: false };
        assert_eq!(
            shown(REPLY, look, || None),
            "| One two three four five.\n| \n| 日本語日本語日本語\nThe answer is a long line that stays whole.\nTwo.\n"
        );
    }

    #[test]
    fn no_line_behind_the_bar_is_wider_than_the_terminal() {
        let words = "supercalifragilistic ab 漢字漢字漢字漢字漢字漢字漢字漢字 a ".repeat(20);
        let reply = format!("<|channel|>analysis<|message|>{words}<|end|>");
        let look = Look { styled: false, terminal: true, utf8: true };
        let text = shown(&reply, look, || Some(24));
        assert!(text.lines().all(|line| line.width() <= 24), "{text}");
        let unwrapped: String = text.lines().map(|line| line.trim_start_matches("│ ")).collect();
        assert_eq!(unwrapped.replace(' ', ""), words.replace(' ', ""));
    }

    #[test]
    fn colour_changes_nothing_but_colour_and_every_line_ends_it() {
        let plain = Look { styled: false, terminal: true, utf8: true };
        let styled = shown(REPLY, Look { styled: true, ..plain }, || Some(20));
        assert!(
            styled.lines().all(|line| line.matches("\u{1b}[2m").count() == line.matches("\u{1b}[0m").count())
        );
        let stripped = styled.replace("\u{1b}[2m", "").replace("\u{1b}[0m", "");
        assert_eq!(stripped, shown(REPLY, plain, || Some(20)));
    }

    #[test]
    fn what_could_command_a_terminal_is_a_number_there_and_itself_in_a_pipe() {
        let reply = "<|channel|>final<|message|>a\u{1b}[31mb<|return|>";
        let look = Look { styled: true, terminal: true, utf8: true };
        assert_eq!(shown(reply, look, || Some(80)), "a\\u{1b}[31mb\n");
        let look = Look { styled: false, terminal: false, utf8: true };
        assert_eq!(shown(reply, look, || None), "a\u{1b}[31mb\n");
    }

    #[test]
    fn other_channels_and_what_is_no_harmony_are_named() {
        let look = Look { styled: false, terminal: false, utf8: false };
        let call = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": 1}<|call|>";
        assert_eq!(shown(call, look, || None), "| [commentary to functions.f]\n| {\"a\": 1}\n");
        let broken = shown("<|channel|>final<|message|>A<|start|>x", look, || None);
        assert!(
            broken.starts_with("A\n| [not Harmony: ") && broken.ends_with("\n| <|start|>x\n"),
            "{broken}"
        );
    }
}
