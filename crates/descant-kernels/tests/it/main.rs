//! Every operator's CPU form against its definition, forward and backward, on inputs whose sizes are not a multiple
//! of anything, and against plain f64 formulas where the definition itself could be wrong.

mod attention;
#[cfg(feature = "cuda")]
mod card;
#[cfg(feature = "cuda")]
mod cuda;
mod experts;
mod launches;
#[cfg(feature = "cuda")]
mod layer;
mod optimizer;
mod rows;
mod support;
