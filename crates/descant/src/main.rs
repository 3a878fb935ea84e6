//! `descant`: fine-tune gpt-oss with LoRA on a frozen base, and prove what came out.
//!
//! Arguments in, library called, result rendered. Only this crate prints, reads the environment and chooses an
//! exit status.

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

mod cards;
mod cli;
mod command;
mod experts;
mod failure;
mod gpus;
mod hub;
mod observe;
mod published;
mod questions;
mod reply;
mod report;
mod run_folder;
mod settings;
mod signals;
mod talk;
mod user_cache;
mod version;
mod words;
mod wrap;

fn main() -> ExitCode {
    let cli = cli::Cli::try_parse().unwrap_or_else(|answer| said(&answer));
    let progress = std::env::var_os("DESCANT_NO_PROGRESS").is_none_or(|value| value.is_empty());
    let talk = talk::Talk::new(&cli.global, progress);
    // Tests only: a build for users has no faults and refuses.
    let fault = std::env::var("DESCANT_FAULT").map_or(Ok(()), |fault| descant_files::fault::arm(&fault));
    let run = || fault.map_err(anyhow::Error::msg).and_then(|()| command::run(&cli, talk));
    let exit = match failure::guarded(run) {
        Ok(exit) => exit,
        // Who closes the pipe has what they wanted.
        Err(error) if talk::ReaderGone::is_in(&error) => failure::Exit::Success,
        Err(error) => {
            talk.error(&error);
            failure::Exit::of(&error)
        }
    };
    // Nothing is left to do, and nobody wants to wait for kernels that nobody wants.
    if descant_kernels::is_compiling() {
        exit.at_once();
    }
    exit.into()
}

/// Ends with what the arguments alone ask for: help, the version, or what is wrong with them.
#[expect(clippy::exit, reason = "as clap's own end of a command line")]
fn said(answer: &clap::Error) -> cli::Cli {
    let verbose = |argument: std::ffi::OsString| {
        let text = argument.to_string_lossy().into_owned();
        text == "--verbose" || (text.starts_with('-') && !text.starts_with("--") && text.contains('v'))
    };
    if answer.kind() == ErrorKind::DisplayVersion && std::env::args_os().skip(1).any(verbose) {
        // Who closes the pipe has what they wanted.
        let _ = talk::say_version(&version::text());
        std::process::exit(0);
    }
    answer.exit()
}
