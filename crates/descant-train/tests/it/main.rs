//! The whole model, its gradients and its optimizer against goldens made by the reference implementations.

mod golden;
mod parity;
