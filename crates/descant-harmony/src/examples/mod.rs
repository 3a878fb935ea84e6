//! From rows to training examples: rendered, masked, accounted for, in their order.

pub(crate) mod example;
pub mod languages;
pub mod mask;
pub(crate) mod order;
pub mod pack;
pub mod prepare;
pub mod preview;
pub(crate) mod ready;
pub(crate) mod render;
pub(crate) mod rendered;
mod sink;
pub(crate) mod views;
mod weights;
