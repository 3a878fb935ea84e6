//! From rows to training examples: rendered, masked, accounted for, in their order.

pub mod languages;
pub mod mask;
pub(crate) mod order;
pub mod pack;
pub mod prepare;
pub mod preview;
pub(crate) mod render;
pub(crate) mod rendered;
pub(crate) mod views;
mod weights;
