//! Reading model directories, right and wrong; rotary angles; generation; values of transformers.

mod batches;
mod bitsandbytes;
mod configs;
mod generation;
mod loading;
mod parity;
mod rotary;
mod sampling;
