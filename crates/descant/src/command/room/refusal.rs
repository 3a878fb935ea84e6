//! The error of what does not fit, and the parts that it names.

use descant_train::memory::Memory;

use crate::command::load::Chosen;
use crate::failure::{Hinted, NotEnoughMemory};
use crate::words::size;

/// The error of what does not fit.
pub(super) fn refusal(needs: &Memory, free: Option<u64>, device: &Chosen, advice: &str) -> anyhow::Error {
    let error = NotEnoughMemory(format!(
        "not enough memory on {}\n  needs {}, {} free ({})",
        device.name,
        size(needs.least()),
        size(free.unwrap_or(0)),
        parts_in_words(needs)
    ));
    Hinted::new(error, advice).into()
}

/// What takes how many bytes.
pub(super) fn parts(needs: &Memory) -> impl Iterator<Item = (&'static str, u64)> {
    let Memory { base, adapter, gradients, optimizer, activations, kept, asking, runtime, on_host: _ } =
        *needs;
    [
        ("base", base),
        ("adapter", adapter),
        ("gradients", gradients),
        ("optimizer", optimizer),
        ("activations", activations),
        ("kept because there is room", kept),
        ("replies", asking),
        ("runtime", runtime),
    ]
    .into_iter()
    .filter(|(_, bytes)| *bytes > 0)
}

pub(super) fn parts_in_words(needs: &Memory) -> String {
    let parts: Vec<String> = parts(needs).map(|(what, bytes)| format!("{what} {}", size(bytes))).collect();
    parts.join(", ")
}
