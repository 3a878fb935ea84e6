//! The operators, a folder each. In every one:
//!
//! * `reference.rs` is the definition, in plain burn tensor operations; it runs on every device, and burn's own
//!   autodiff gives its gradient;
//! * `cpu.rs` is the fast form for burn's CPU backend, with its backward written by hand;
//! * `cuda.rs` is the launches on a card, with the CUDA C++ beside it, and the operator for burn made of them, which
//!   is in `cuda_ops.rs` where that is long;
//! * `mod.rs` is the function to call, and the wiring of forward and backward into burn's graph, by `graph.rs`.
//!
//! An operator knows no other but for the thin products of `experts`, which `linear` and `low_rank` call. What joins
//! them to a decoder layer is `layer` and, for a step of generation, `decode`, or on the CPU the model.

pub(crate) mod attention;
pub(crate) mod cache;
pub(crate) mod experts;
pub(crate) mod graph;
pub(crate) mod linear;
pub(crate) mod loss;
pub(crate) mod low_rank;
pub(crate) mod norm;
pub(crate) mod optimizer;
pub(crate) mod pick;
pub(crate) mod rotary;
pub(crate) mod route;
pub(crate) mod select;
pub(crate) mod swiglu;
