//! The run as one HTML file: no script, nothing fetched, light or dark as the reader's system is, good on paper.
//!
//! Made from the run's files alone, at its end, at every save, and again by `descant report`. Every text that comes
//! from outside goes through [`escape`]; markup is written here and nowhere else. A part without data is left out.

use std::fmt::Write as _;

use super::run_files::RunFiles;

use markup::{Section, closing, escape, opening};

mod chart;
mod facts;
mod grid;
mod head;
mod languages;
mod learning;
mod markup;
mod replies;
mod routing;
mod several;

pub(crate) use several::side_by_side;

/// The whole page.
pub(crate) fn render(run: &RunFiles) -> String {
    let sections: Vec<Section> = [
        head::key_figures(run),
        languages::section(run),
        replies::samples(run),
        replies::worse(run),
        learning::learning(run),
        learning::speed(run),
        facts::data(run),
        facts::trained(run),
        Some(facts::reproduce(run)),
        Some(facts::limits(run)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let (short, header) = head::header(run);
    let mut html = opening(&format!("{short}: {}, Descant", run.name()));
    html += &header;
    html += "<nav aria-label=\"Parts of this page\">";
    for Section { id, title, .. } in &sections {
        let _ = write!(html, "<a href=\"#{id}\">{title}</a>");
    }
    html += "</nav>\n</header>\n<main>\n";
    for Section { id, title, rail, matter } in &sections {
        let _ = write!(
            html,
            "<section aria-labelledby=\"{id}\">\n<div class=\"rail\"><h2 id=\"{id}\">{title}</h2><p>{}</p></div>\n\
             <div class=\"matter\">\n{matter}</div>\n</section>\n",
            escape(rail)
        );
    }
    html + &closing(&format!(
        "Written by descant {}. This file is self-contained: no scripts, no fonts, no network. Its figures \
         are those of the files beside it.",
        env!("CARGO_PKG_VERSION")
    ))
}

#[cfg(test)]
pub(super) mod tests;
