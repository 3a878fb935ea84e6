//! Text in lines of a width, broken at blanks.

/// Narrowest and widest page.
pub(crate) const NARROW: usize = 60;
pub(crate) const WIDE: usize = 100;
/// Columns of a label.
pub(crate) const LABEL: usize = 12;

/// Words into lines of at most `width` characters; a longer word is broken. Control characters become spaces.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut length = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        let letters: Vec<char> = word.chars().collect();
        for (at, piece) in letters.chunks(width).enumerate() {
            let gap = usize::from(at == 0 && length > 0);
            if length + gap + piece.len() > width || at > 0 {
                lines.push(String::new());
                length = 0;
            } else if gap == 1 {
                lines.last_mut().expect("begins with one line").push(' ');
                length += 1;
            }
            lines.last_mut().expect("begins with one line").extend(piece);
            length += piece.len();
        }
    }
    lines
}

/// A label, and text that continues below itself.
pub(crate) fn hanging(label: &str, text: &str, width: usize) -> String {
    let indent = " ".repeat(LABEL);
    let lines = wrap(text, width.saturating_sub(LABEL).max(20));
    if label.chars().count() >= LABEL {
        return format!("{label}\n{indent}{}", lines.join(&format!("\n{indent}")));
    }
    format!("{label:<LABEL$}{}", lines.join(&format!("\n{indent}")))
}

/// A command in lines of at most `width` characters that a shell reads as one: broken at blanks outside quotes, behind
/// a backslash. A longer word stays whole.
pub(crate) fn wrap_command(command: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut quoted = false;
    let words = command.split(|c| {
        quoted ^= c == '\'';
        c == ' ' && !quoted
    });
    for word in words {
        let line = lines.last_mut().expect("begins with one line");
        // Room for the backslash behind it.
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() + 2 > width {
            line.push_str(" \\");
            lines.push(format!("  {word}"));
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_stays_one_command() {
        let command =
            "descant generate --model m --developer 'reasoning language: German' 'Solve 3x + 3 = 9.'";
        let lines = wrap_command(command, 48);
        assert_eq!(
            lines,
            [
                "descant generate --model m --developer \\",
                "  'reasoning language: German' \\",
                "  'Solve 3x + 3 = 9.'"
            ]
        );
        assert_eq!(wrap_command(command, 200), [command]);
        let joined = lines.join("\n").replace("\\\n", "").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(joined, command);
    }

    #[test]
    fn text_goes_on_below_itself() {
        insta::assert_snapshot!(hanging("trained", "55,296 of 3,273,440 parameters: LoRA r 8 on q_proj, k_proj", 60), @r"
        trained     55,296 of 3,273,440 parameters: LoRA r 8 on
                    q_proj, k_proj
        ");
        assert!(hanging("a", &"x".repeat(200), 60).lines().all(|line| line.chars().count() <= 60));
    }
}
