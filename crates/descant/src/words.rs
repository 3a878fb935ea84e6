//! Small words that several parts write: digits in groups, lists, text that commands no terminal.

pub(crate) use descant_lora::peft::is_hub_name;

/// Bytes of a MiB.
pub(crate) const MIB: f64 = (1_u64 << 20) as f64;
/// Bytes of a GiB.
pub(crate) const GIB: f64 = (1_u64 << 30) as f64;

/// Digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A value in three digits.
pub(crate) fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let places = (2 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    format!("{value:.places$}")
}

/// `1 question`, `1,200 questions`.
pub(crate) fn counted(number: u64, one: &str) -> String {
    format!("{} {one}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes < GIB { format!("{:.1} MiB", bytes / MIB) } else { format!("{:.2} GiB", bytes / GIB) }
}

/// A time for people.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.1} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// `low, medium and high`.
pub(crate) fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A text that moves no cursor: control characters, and those that turn the direction of writing, as their numbers.
pub(crate) fn visible(text: &str) -> String {
    let harmless = |char: char| {
        let turning =
            matches!(char, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
        matches!(char, '\n' | '\t') || !(char.is_control() || turning)
    };
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        if harmless(char) {
            shown.push(char);
        } else {
            shown.extend(char.escape_unicode());
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_threes() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (3_981_312, "3,981,312")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn numbers_and_lists_read_as_people_write_them() {
        for (value, text) in [(1.689, "1.69"), (0.012_345, "0.0123"), (152.0, "152"), (0.0, "0")] {
            assert_eq!(significant(value), text);
        }
        assert_eq!((counted(1, "row"), counted(1200, "row")), ("1 row".into(), "1,200 rows".into()));
        let words = |words: &[&str]| listed(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!([words(&[]), words(&["a"]), words(&["a", "b"])], ["", "a", "a and b"]);
        assert_eq!(words(&["a", "b", "c"]), "a, b and c");
    }
}
