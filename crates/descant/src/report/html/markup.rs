//! What every part of a page is written with: escaped text, tables, the frame around all of it.

use std::fmt::Write as _;

pub(super) const STYLE: &str = include_str!("style.css");

/// Before anything that a page holds.
pub(super) fn opening(title: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    )
}

pub(super) fn closing(text: &str) -> String {
    format!("</main>\n<footer class=\"foot\"><p>{}</p></footer>\n</body>\n</html>\n", escape(text))
}

/// A part of the page.
pub(super) struct Section {
    /// Its name in links.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// One line of what it is.
    pub(super) rail: String,
    /// Markup.
    pub(super) matter: String,
}

/// Text as HTML shows it, in elements and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            '\'' => html += "&#39;",
            // HTML forbids these even as references.
            c if (c.is_control() && !matches!(c, '\n' | '\t')) || is_noncharacter(c) => html.push('\u{fffd}'),
            c => html.push(c),
        }
    }
    html
}

fn is_noncharacter(c: char) -> bool {
    let code = u32::from(c);
    (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}

/// A whole number in groups of three.
pub(super) fn grouped(number: i64) -> String {
    let sign = if number < 0 { "−" } else { "" };
    format!("{sign}{}", crate::words::grouped(number.unsigned_abs()))
}

/// A table of rows, the first cell of each its heading. `classes` are those of the columns.
pub(super) fn table(
    caption: &str,
    titles: &[(&str, &str)],
    rows: &[Vec<String>],
    last_is_sum: bool,
) -> String {
    let mut html = format!("<div class=\"scroll\"><table><caption>{caption}</caption><thead><tr>");
    for (title, class) in titles {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        let _ = write!(html, "<th scope=\"col\"{class}>{}</th>", escape(title));
    }
    html += "</tr></thead><tbody>\n";
    for (at, row) in rows.iter().enumerate() {
        html += if last_is_sum && at + 1 == rows.len() { "<tr class=\"sum\">" } else { "<tr>" };
        for ((column, cell), (_, class)) in row.iter().enumerate().zip(titles) {
            let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
            if column == 0 {
                let _ = write!(html, "<th scope=\"row\"{class}>{cell}</th>");
            } else {
                let _ = write!(html, "<td{class}>{cell}</td>");
            }
        }
        html += "</tr>\n";
    }
    html + "</tbody></table></div>\n"
}
