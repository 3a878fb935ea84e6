//! Adapters' folders: what is read, refused and written, and what is counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

mod peft_config;
mod peft_damage;
mod peft_manifest;
mod peft_numbers;
mod peft_round_trip;
mod support;
