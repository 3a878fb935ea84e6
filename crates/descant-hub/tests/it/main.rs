//! A hub on this machine that misbehaves in every way we could think of, and what the client makes of it.

#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "a test that cannot continue should stop where it is")]

mod cached;
mod damage;
mod downloads;
mod names;
mod support;
mod tokens;
