//! Texts from outside, so that none leaves its place.

/// Text inside a cell or a line of Markdown.
pub(super) fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' => {
                out.push('\\');
                out.push(c);
            }
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A quoted scalar of YAML; JSON's strings are that.
pub(super) fn yaml(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_leaves_its_cell() {
        assert_eq!(cell("a|b\n---\n<script>`x`"), "a\\|b --- &lt;script&gt;\\`x\\`");
        assert_eq!(yaml("a\n---\n\"b"), "\"a\\n---\\n\\\"b\"");
    }
}
