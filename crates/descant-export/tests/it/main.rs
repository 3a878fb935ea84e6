//! Exports against goldens that transformers, PEFT and gguf-py made, against being stopped, and against wrong inputs.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

mod bases;
mod gguf;
mod lossy;
mod merged;
mod readers;
mod refused;
mod stopped;
mod support;
