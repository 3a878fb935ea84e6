//! What the workspace and the binary promise, seen from outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue should stop where it is")]

mod ahead;
mod base;
mod binary;
mod cards;
mod circles;
mod data;
mod doctor;
mod edges;
mod exports;
mod help;
mod hostile;
#[cfg(feature = "hub")]
mod hub;
mod hygiene;
mod links;
mod lives;
mod main_job;
mod manners;
mod memory;
mod prepared;
mod programs;
mod recipe;
#[cfg(feature = "hub")]
mod secrets;
mod settings;
#[cfg(target_os = "linux")]
mod signals;
mod speaking;
mod together;
#[cfg(feature = "hub")]
mod tutorial;
