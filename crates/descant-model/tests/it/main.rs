//! Reading model directories, right and wrong; rotary angles; generation.

mod batches;
mod bitsandbytes;
mod configs;
mod generation;
mod loading;
mod rotary;
mod sampling;
