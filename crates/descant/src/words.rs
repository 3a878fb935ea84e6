//! Small words that several parts write: names of a hub, digits in groups.

/// A model's name on a hub: two parts of letters, digits, `.`, `_` and `-`, 96 characters in all.
pub(crate) fn is_hub_name(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
            && !part.starts_with(['.', '-'])
            && !part.ends_with(['.', '-'])
            && !part.contains("--")
            && !part.contains("..")
    };
    name.len() <= 96 && name.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}

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
    fn names_of_a_hub_are_two_plain_parts() {
        for good in ["openai/gpt-oss-20b", "a/b", "A_1/b.c"] {
            assert!(is_hub_name(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "/home/user/model",
            "a/b/c",
            "a/",
            "/b",
            "a/-b",
            "a/b.",
            "a--b/c",
            "a/b..c",
            "a b/c",
            "a/b\n---",
        ] {
            assert!(!is_hub_name(bad), "{bad}");
        }
    }
}
