//! One file a command: arguments in, library called, result rendered.

use anyhow::Result;

use crate::cli::{Cli, Command};
use crate::failure::Exit;
use crate::talk::Talk;

mod init;

/// Runs the command that was asked for.
pub(crate) fn run(cli: &Cli, talk: Talk) -> Result<Exit> {
    match &cli.command {
        Command::Init(args) => init::run(args, talk),
        _ => anyhow::bail!("soon"),
    }
}
