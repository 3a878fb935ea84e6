//! What descant-files promises, seen from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

mod append;
mod atomic;
mod names;
mod reads;
