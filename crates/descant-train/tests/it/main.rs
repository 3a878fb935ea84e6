//! The whole model, its gradients and its optimizer against goldens made by the reference implementations, and the
//! guards of the training step.

mod all_sites;
mod fp8;
mod golden;
mod guards;
mod incidents;
mod packing;
mod parity;
mod resume;
mod together;
mod workers;
