//! gpt-oss, frozen: configuration, weights, forward pass, key-value cache and sampling.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use descant_model::{Bare, GenerateOptions, GptOss, Request, Unwatched};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = GptOss::load("gpt-oss-20b".as_ref(), &Device::flex())?;
//! let request = Request::greedy(vec![200006, 77944], 64);
//! let options = GenerateOptions::default();
//! let replies = model.generate(&[request], &Bare, &options, &mut Unwatched)?;
//! println!("{:?}", replies[0].ids);
//! # Ok(())
//! # }
//! ```
//!
//! The base model is inert data. At each [`Site`] the forward pass asks an [`Overlay`] for what to add; what is
//! trainable lives there (descant-lora). This crate does not train, render text, or open sockets.

mod batch;
mod cache;
mod capacity;
mod config;
mod decode;
mod engine;
mod error;
mod generate;
mod in_order;
mod layouts;
mod model;
mod names;
mod overlay;
mod pages;
mod pick;
mod placement;
mod plain;
mod request;
mod rope;
mod run;
mod said;
mod sample;
mod session;
mod shards;
mod site;
mod slots;
mod sweep;
mod weights;

pub use batch::Batch;
pub use capacity::{CacheSize, pages_for};
pub use config::{Config, LayerType, MAX_CONFIG_BYTES};
pub use descant_kernels::SiteKind;
pub use descant_quant::Packing;
pub use error::{Error, Result};
pub use generate::stop_ids;
pub use in_order::{Ended, InOrder};
pub use layouts::{LinearLayer, Piece, Stored};
pub use model::GptOss;
pub use names::{LayerPart, Part, SiteDims, module_in_layer, parameter_in_layer, path_in_layer};
pub use overlay::{Bare, Overlay};
pub use placement::Placement;
pub use plain::Plain;
pub use request::{
    CountDone, GenerateOptions, Generated, Go, NewToken, Request, StopReason, Unwatched, Watch,
};
pub use rope::{Rope, Yarn};
pub use sample::{Sampling, log_sum_exp, top_log_probabilities};
pub use session::Session;
pub use shards::{TensorPlace, identity_files, left_over_index, tensor_places};
pub use site::Site;
pub use sweep::{Sweep, gradient_of};
pub use weights::{Formats, unpack_nf4, weight_bytes};
