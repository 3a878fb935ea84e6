//! `state.json`: what is not a tensor. Floats are stored as their bits.

use descant_model::{Site, SiteKind};
use serde::{Deserialize, Serialize};

use super::defect::Defect;
use crate::guard::Window;
use crate::state::TrainerState;

/// What the loop knows beside the trainer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    /// Seed of the data order.
    pub seed: u64,
    /// Samples taken so far: the position in that order.
    pub position: u64,
    /// Steps that were passed over.
    pub skipped: u64,
    /// Those of them whose loss or gradient was non-finite.
    pub non_finite: u64,
    /// The guard's window.
    pub window: Window,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    steps: u64,
    updates: u32,
    seed: u64,
    position: u64,
    skipped: u64,
    non_finite: u64,
    loss_bits: Vec<u32>,
    norm_bits: Vec<u32>,
    alive: Option<Vec<Vec<bool>>>,
    unreached: Vec<(usize, String, usize)>,
}

pub(super) fn write(trainer: &TrainerState, progress: &Progress) -> Vec<u8> {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
    let state = State {
        steps: trainer.steps,
        updates: trainer.updates,
        seed: progress.seed,
        position: progress.position,
        skipped: progress.skipped,
        non_finite: progress.non_finite,
        loss_bits: bits(&progress.window.losses),
        norm_bits: bits(&progress.window.norms),
        alive: trainer.alive.clone(),
        unreached: trainer
            .unreached
            .iter()
            .map(|(site, n)| (site.layer, site.kind.name().to_owned(), *n))
            .collect(),
    };
    serde_json::to_vec(&state).expect("a struct of numbers is JSON")
}

/// The tensors are still missing in what is returned.
pub(super) fn read(bytes: &[u8]) -> Result<(TrainerState, Progress), Defect> {
    let state: State = serde_json::from_slice(bytes).map_err(|e| Defect::State(e.to_string()))?;
    let floats = |bits: Vec<u32>| bits.into_iter().map(f32::from_bits).collect();
    let site = |(layer, name, n): (usize, String, usize)| {
        let kind = SiteKind::from_name(&name).ok_or_else(|| Defect::State(format!("no site `{name}`")))?;
        Ok((Site { layer, kind }, n))
    };
    let window = Window { losses: floats(state.loss_bits), norms: floats(state.norm_bits) };
    let progress = Progress {
        seed: state.seed,
        position: state.position,
        skipped: state.skipped,
        non_finite: state.non_finite,
        window,
    };
    let trainer = TrainerState {
        steps: state.steps,
        updates: state.updates,
        adapters: Vec::new(),
        moments: Vec::new(),
        alive: state.alive,
        unreached: state.unreached.into_iter().map(site).collect::<Result<_, _>>()?,
    };
    Ok((trainer, progress))
}
