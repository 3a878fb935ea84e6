//! The bar of work whose size is known in bytes: reading, fetching, writing.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a line is written if output is not a terminal.
pub(super) const BETWEEN_LINES: Duration = Duration::from_secs(10);
const FRAMES_A_SECOND: u8 = 10;

/// What is counted beside the bar.
#[derive(Clone, Copy)]
pub(super) enum Counted {
    /// The share of the bytes.
    Percent,
    /// The bytes; the bar also moves while none come.
    Bytes,
}

/// A bar on standard error, for `total` bytes of what `verb` says.
pub(super) fn bar(verb: &str, total: u64, counted: Counted) -> ProgressBar {
    let counts = match counted {
        Counted::Percent => "{percent} %",
        Counted::Bytes => "{binary_bytes}/{binary_total_bytes}",
    };
    let style = ProgressStyle::with_template(&format!("{verb:<12}{{bar:24}} {counts}  {{msg}}"));
    let style = style.expect("the template above is well formed").progress_chars("━╸─");
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(FRAMES_A_SECOND));
    bar.set_style(style);
    if matches!(counted, Counted::Bytes) {
        bar.enable_steady_tick(Duration::from_secs(1) / u32::from(FRAMES_A_SECOND));
    }
    bar
}
