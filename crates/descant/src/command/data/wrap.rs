//! Long lines on a terminal: cut where the eye would cut them.
//!
//! A terminal breaks a line wherever it is full and continues in its first column, where the bar of trained tokens
//! stands.

use unicode_width::UnicodeWidthChar as _;

/// Columns that a tab is taken to fill.
const TAB: usize = 8;

/// A line in pieces of at most `width` columns, after a space where there is one. Joined they are the line.
pub(super) fn pieces(line: &str, width: usize) -> Vec<&str> {
    let (mut pieces, mut from, mut columns) = (Vec::new(), 0, 0);
    // Where the piece could end, and the columns up to there.
    let mut space = None;
    for (at, char) in line.char_indices() {
        let wide = if char == '\t' { TAB } else { char.width().unwrap_or(0) };
        if columns + wide > width && at > from {
            let (end, before) = space.take().unwrap_or((at, columns));
            pieces.push(&line[from..end]);
            from = end;
            columns -= before;
        }
        columns += wide;
        if char == ' ' {
            space = Some((at + 1, columns));
        }
    }
    pieces.push(&line[from..]);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_after_spaces_and_words_only_where_they_must() {
        assert_eq!(pieces("", 5), [""]);
        assert_eq!(pieces("ab cd ef", 6), ["ab cd ", "ef"]);
        assert_eq!(pieces("abcdefgh ij", 5), ["abcde", "fgh ", "ij"]);
        assert_eq!(pieces("日本語です", 4), ["日本", "語で", "す"]);
        assert_eq!(pieces("e\u{301}e\u{301}e\u{301}", 2), ["e\u{301}e\u{301}", "e\u{301}"]);
        assert_eq!(pieces("日", 1), ["日"]);
        let long = "a b cc ddd eeee fffff ".repeat(9);
        for width in 1..30 {
            assert_eq!(pieces(&long, width).concat(), long);
        }
    }
}
