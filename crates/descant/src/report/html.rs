//! The run as one HTML file: no script, nothing fetched, light or dark as the reader's system is.
//!
//! Every text that comes from outside goes through [`escape`]; markup is written here and nowhere else.

use std::fmt::Write as _;

use descant_train::StepMetrics;
use descant_train::measure::Evaluation;

use super::plot;
use super::samples::{Sample, parts};
use super::table::{LEGEND, Table};

/// What the page shows.
pub(crate) struct Page<'a> {
    /// Heading.
    pub(crate) title: &'a str,
    /// Label and text, in order.
    pub(crate) facts: &'a [(&'a str, String)],
    /// Losses.
    pub(crate) steps: &'a [StepMetrics],
    /// Name and counts; none when nothing was measured.
    pub(crate) evaluations: &'a [(&'a str, &'a Evaluation)],
    /// Replies side by side.
    pub(crate) samples: &'a [Sample],
    /// Settings as TOML.
    pub(crate) settings: &'a str,
}

const STYLE: &str = include_str!("style.css");

/// The whole file.
pub(crate) fn render(page: &Page<'_>) -> String {
    let title = escape(page.title);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<dl>\n"
    );
    for (label, text) in page.facts {
        let _ = writeln!(html, "<dt>{}</dt><dd>{}</dd>", escape(label), escape(text));
    }
    html += "</dl>\n";
    let curve = plot::losses(page.steps);
    if !curve.is_empty() {
        html += "<h2>Loss</h2>\n<p class=\"note\">Mean over the trained tokens of each step. Thin: the first token of \
                 the analysis alone, where the choice of language happens.</p>\n";
        html += &curve;
    }
    if !page.evaluations.is_empty() {
        html += "<h2>Held-out prompts</h2>\n";
        html += &table(&Table::new(page.evaluations));
    }
    if !page.samples.is_empty() {
        html += "<h2>Samples</h2>\n";
        page.samples.iter().for_each(|sample| html += &side_by_side(sample));
    }
    let _ = write!(
        html,
        "<h2>Settings</h2>\n<details><summary>as resolved</summary><pre>{}</pre></details>\n</body>\n</html>\n",
        escape(page.settings)
    );
    html
}

fn table(table: &Table) -> String {
    let mut html = "<div class=\"wide\"><table>\n<thead><tr>".to_owned();
    for title in Table::titles() {
        let _ = write!(html, "<th>{}</th>", escape(title));
    }
    html += "</tr></thead>\n<tbody>\n";
    for row in table.rows() {
        html += "<tr>";
        for cell in row {
            let _ = write!(html, "<td>{}</td>", escape(cell));
        }
        html += "</tr>\n";
    }
    let _ = write!(html, "</tbody>\n</table></div>\n<p class=\"note\">{}</p>\n", escape(LEGEND));
    html
}

fn side_by_side(sample: &Sample) -> String {
    let asked =
        sample.asked.as_ref().map_or_else(String::new, |asked| format!(", asked to reason in {asked}"));
    let mut html = format!(
        "<section>\n<h3>{} effort{}</h3>\n<p>{}</p>\n<div class=\"pair\">\n",
        escape(&sample.effort),
        escape(&asked),
        escape(&sample.user)
    );
    for (name, reply) in [("before", &sample.before), ("after", &sample.after)] {
        let _ = write!(html, "<div><h4>{name}</h4>");
        for (label, text) in parts(reply) {
            let _ = write!(html, "<p><b>{}</b> {}</p>", escape(label), escape(text));
        }
        html += "</div>\n";
    }
    html + "</div>\n</section>\n"
}

/// Text as HTML shows it, in elements and in quoted attributes.
fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            '\'' => html += "&#39;",
            // HTML forbids these even as references.
            c if c.is_control() && !matches!(c, '\n' | '\t') => html.push('\u{fffd}'),
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::evaluation;
    use super::*;
    use crate::observe::step_of;

    /// The page with `text` wherever a text from outside can stand.
    fn page(text: &str) -> String {
        let mut counts = evaluation(["we add", "il faut"]);
        counts.cells[0].effort = text.to_owned();
        let sample = Sample {
            effort: text.into(),
            asked: Some(text.into()),
            user: text.into(),
            before: text.into(),
            after: format!(
                "<|channel|>analysis<|message|>{text}<|end|><|start|>assistant<|channel|>final<|message|>{text}<|return|>"
            ),
        };
        render(&Page {
            title: text,
            facts: &[(text, text.to_owned())],
            steps: &[step_of(1, 0.5), step_of(2, 0.1)],
            evaluations: &[(text, &counts)],
            samples: &[sample],
            settings: text,
        })
    }

    /// The tags of a page, without what stands between them.
    fn tags(html: &str) -> Vec<&str> {
        let body = &html[html.find("</style>").unwrap()..];
        body.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()).collect()
    }

    #[test]
    fn no_text_can_become_markup() {
        let plain = page("plain");
        for hostile in
            ["<script>alert(1)</script>", "\"><img src=x onerror=1>", "' & &lt; <!--", "</pre></dd>", "\u{0}"]
        {
            let html = page(hostile);
            assert_eq!(tags(&html), tags(&plain), "{hostile}");
            assert!(!html.contains('\u{0}'));
        }
        // The control: a page with one more tag is told apart.
        assert_ne!(tags(&plain.replace("<h2>", "<script><h2>")), tags(&plain));
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let html = page("plain");
        for outside in ["http:", "https:", "src=", "url(", "@import", "<script", "<link"] {
            assert!(!html.contains(outside), "{outside}");
        }
        for part in
            ["<polyline class=\"loss\"", "prefers-color-scheme: dark", "<th>as asked</th>", "<h4>before</h4>"]
        {
            assert!(html.contains(part), "{part}");
        }
    }

    #[test]
    fn parts_without_content_are_left_out() {
        let html = render(&Page {
            title: "t",
            facts: &[],
            steps: &[],
            evaluations: &[],
            samples: &[],
            settings: "",
        });
        for part in ["<svg", "<table", "Samples", "Held-out"] {
            assert!(!html.contains(part), "{part}");
        }
    }
}
